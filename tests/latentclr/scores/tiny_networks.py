"""ONNX scorers small enough for tests, whose numbers can be computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 17)]


def colour_network(weight, bias, batch="N", size=(8, 8), layout="NCHW", kind=TensorProto.FLOAT, output="logits"):
    """Return a model: the mean colour [N, C] times weight [C, A], plus bias [A]."""
    channels = len(weight)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    shape = [batch, channels, *size] if layout == "NCHW" else [batch, *size, channels]
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], [output]),
    ]
    initial = [
        numpy_helper.from_array(np.asarray(weight, dtype), "weight"),
        numpy_helper.from_array(np.asarray(bias, dtype), "bias"),
    ]
    graph = helper.make_graph(
        nodes, "colour", [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(output, kind, [batch, len(bias)])], initial,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)


def write(folder: Path, model, spec, name: str = "net") -> str:
    """Write model and JSON; return the scorer's word."""
    path = folder / f"{name}.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    if spec is not None:
        (folder / f"{name}.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))
    return f"onnx:{path}"


def outside(tensor, location: str):
    """Make a tensor one whose numbers lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", "0"), ("length", "24")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def with_subgraph(tensor):
    """Return a model that holds a tensor only inside a branch of an If."""
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "branch", [], [value])
    condition = numpy_helper.from_array(np.array(True), "condition")
    node = helper.make_node("If", ["condition"], ["logits"], then_branch=branch, else_branch=branch)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 8, 8])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "outer", [images], [result], [condition])
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)


def model_with_everything_external(location: str) -> onnx.ModelProto:
    """Return the mean colour times a weight [3, 2] that lies in another file."""
    model = colour_network(np.eye(3, 2), [0, 0])
    outside(model.graph.initializer[0], location)
    return model
