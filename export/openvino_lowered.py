"""OpenVINO's graph in bfloat16 or int8, where any convolution can stay in float32.

The types stand in the graph itself, and all the rest is computed in float32: a hint to the whole engine could not keep
an operation back, since the marks that OpenVINO has for that are lost where its plugin rewrites operations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.errors import ExportError
from export.openvino import MODEL, OpenVINOEditor, read_onnx, save_model
from export.operations import find_operations
from export.precision import Built, Operation
from serving.contract.openvino_engine import has_bf16, import_openvino

NO_BF16 = "openvino bf16 needs a CPU with AVX-512 BF16 or AMX, which this one lacks; try int8"
_LOWERED = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "MatMul")
_OUTPUT_CHANNELS = {"Convolution": 0, "ConvolutionBackpropData": 1}  # the axis of the weights
_SMALLEST, _TINY = np.float32(1e-20), np.float32(1e-30)  # of scales, for a row of zeros; to add and change nothing
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool")


class BFloat16Graph:
    """The editor with convolutions, and products of what they draw, in bfloat16 between casts."""

    engine, precision = "openvino", "bf16"

    def __init__(self, path: Path, emulated: bool = False) -> None:
        """Read the ONNX graph in float32.

        Args:
            path: The file.
            emulated: Do without a CPU that has bfloat16: on one with AVX-512 OpenVINO emulates it, slowly.

        Raises:
            ExportError: This CPU has no bfloat16, so that what is published could not be tried.
        """
        if not emulated and not has_bf16():
            raise ExportError(NO_BF16)
        self._model = read_onnx(path)
        self._nodes, self.operations = _operations(path, self._model)

    def build(self, keep: frozenset[str], folder: Path) -> Built:
        """Write the graph with casts around all operations but `keep`; see `precision.Lowered`."""
        openvino = import_openvino()
        from openvino import opset13 as ops

        model = self._model.clone()
        names = {node: name for name, node in self._nodes.items() if name not in keep}
        for node in [node for node in model.get_ordered_ops() if node.get_friendly_name() in names]:
            readers = node.output(0).get_target_inputs()
            for port in node.inputs():
                source = port.get_source_output()
                if source.get_node().get_type_name() == "Constant":
                    # OpenVINO would cut the lower bits off, with twice the error of rounding, and all of one sign.
                    nearest = torch.tensor(source.get_node().get_data()).bfloat16().float().numpy()
                    small = ops.constant(nearest, openvino.Type.bf16)
                else:
                    small = ops.convert(source, "bf16")
                port.replace_source_output(small.output(0))
            back = ops.convert(node, "f32").output(0)
            for reader in readers:
                reader.replace_source_output(back)
        model.validate_nodes_and_infer_types()
        return _built(model, folder)


class Int8Graph:
    """The editor with convolutions in int8: a scale for each output channel of the weights, and for each picture.

    What goes into a convolution is divided by the picture's own largest value, found as it is drawn. A range fixed
    beforehand either cuts strong edits off or makes all others coarse, and has to be calibrated.
    """

    engine, precision = "openvino", "int8"

    def __init__(self, path: Path) -> None:
        """Read the ONNX graph in float32.

        Args:
            path: The file.

        Raises:
            ExportError: OpenVINO is not installed, or cannot read the graph.
        """
        self._model = read_onnx(path)
        nodes, found = _operations(path, self._model)
        # One that draws a channel at a time moves memory rather than computing.
        there = {node.get_friendly_name(): node for node in self._model.get_ops() if _draws_in_int8(node)}
        self._nodes = {name: node for name, node in nodes.items() if node in there}
        self.operations = [operation for operation in found if operation.name in self._nodes]

    def build(self, keep: frozenset[str], folder: Path) -> Built:
        """Write the graph with all operations but `keep` between quantisers; see `precision.Lowered`."""
        from openvino import opset13 as ops

        model = self._model.clone()
        names = {node for name, node in self._nodes.items() if name not in keep}
        for node in [node for node in model.get_ordered_ops() if node.get_friendly_name() in names]:
            readers = node.output(0).get_target_inputs()
            signal, weight = node.input(0), node.input(1)
            quantised, scale = _quantised(signal.get_source_output())
            signal.replace_source_output(quantised.output(0))
            weight.replace_source_output(_quantised_weight(node).output(0))
            back = ops.multiply(node, scale).output(0)
            for reader in readers:
                reader.replace_source_output(back)
        model.validate_nodes_and_infer_types()
        return _built(model, folder)


def _draws_in_int8(node: Any) -> bool:
    """Return whether a node is a convolution of many channels whose weights are known."""
    axis = _OUTPUT_CHANNELS.get(node.get_type_name())
    if axis is None or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    return bool(node.input_value(1).get_shape()[1 - axis] > 1)


def _quantised(signal: Any) -> tuple[Any, Any]:
    """Return a signal [N, ...] over its scale in 256 levels, and the scale [N, 1, 1, 1]: each row's largest value."""
    from openvino import opset13 as ops

    one = np.float32(1)
    low = np.float32(0 if _is_never_negative(signal.get_node()) else -128 / 127)
    axes = ops.constant(np.arange(1, signal.get_partial_shape().rank.get_length()))
    largest = ops.reduce_max(ops.abs(signal) if low else signal, axes, keep_dims=True)
    # Neither this nor integers keep what is not a number, of which the editor's `valid` is to tell: the sum does.
    total = ops.multiply(ops.reduce_sum(signal, axes, keep_dims=True), ops.constant(_TINY))
    scale = ops.add(ops.maximum(largest, ops.constant(_SMALLEST)), total)
    ends = [ops.constant(end) for end in (low, one, low, one)]
    return ops.fake_quantize(ops.multiply(signal, ops.divide(ops.constant(one), scale)), *ends, 256), scale


def _quantised_weight(node: Any) -> Any:
    from openvino import opset13 as ops

    weight = node.input_value(1).get_node().get_data().astype(np.float64)
    others = tuple(axis for axis in range(weight.ndim) if axis != _OUTPUT_CHANNELS[node.get_type_name()])
    scale = np.maximum(np.abs(weight).max(others, keepdims=True), 1e-12) / 127
    values = ops.convert(ops.constant(np.round(weight / scale).astype(np.int8)), "f32")
    return ops.multiply(values, ops.constant(scale.astype(np.float32)))


def _is_never_negative(node: Any) -> bool:
    """Return whether no value of a node can be below zero, so that all levels are for those above."""
    while (kind := node.get_type_name()) in _MOVES or (
        kind == "Interpolate" and "cubic" not in node.get_attributes()["mode"]  # which goes below what is around it
    ):
        node = node.input_value(0).get_node()
    return bool(kind == "Relu")


def _operations(path: Path, model: Any) -> tuple[dict[str, str], list[Operation]]:
    """Return the node of each operation by name, and the operations, of those that this engine can lower."""
    graph = onnx.load(str(path))
    found = find_operations(graph)
    there: dict[str, str] = {}
    for node in model.get_ops():
        if node.get_type_name() in _LOWERED:
            name = node.get_friendly_name()
            node.set_friendly_name(name)  # one that OpenVINO made up would change with a copy of the model
            # Where it splits an operation from its bias, it is the addition that has ONNX's name.
            after = [port.get_node() for port in node.output(0).get_target_inputs()]
            biased = [other.get_friendly_name() for other in after if other.get_type_name() == "Add"]
            there |= dict.fromkeys([name, name.removesuffix("/WithoutBiases"), *biased], name)
    named = {name: graph.graph.node[index].name for name, index in found.nodes.items()}
    nodes = {name: there[node] for name, node in named.items() if node in there}
    return nodes, [operation for operation in found.operations if operation.name in nodes]


def _built(model: Any, folder: Path) -> Built:
    path = folder / MODEL
    save_model(model, path)
    return Built([path, path.with_suffix(".bin")], OpenVINOEditor(path))
