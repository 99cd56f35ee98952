"""The exported graph in float16: the types stand in the graph, so that CUDA and every TensorRT compute as it says.

ONNX Runtime on a CPU takes such a graph, and computes it in float32: it puts a cast before and after what it has no
float16 kernel for, and takes casts between two such nodes out. What would overflow on a GPU does not overflow there,
and little is rounded. The certificate is therefore of a twin that computes in float32 and rounds to float16 after each
node, as a GPU does that adds up in float32 and stores halves.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.onnx import OnnxEditor, read_graph
from export.operations import BETWEEN, Graph, find_operations, float_initializers, signal_inputs, without_weights
from export.precision import Built

GRAPH = "model.onnx"
TWIN = "rounded.onnx"


class HalfGraph:
    """An ONNX editor whose operations, and what lies between them, can be float16."""

    engine, precision = "onnxruntime", "fp16"

    def __init__(self, path: Path) -> None:
        """Read the graph in float32, with its weights inside."""
        self.model = read_graph(path)
        self.graph: Graph = find_operations(self.model)
        self.operations = self.graph.operations

    def build(self, keep: frozenset[str], folder: Path) -> Built:
        """Write the typed graph, and load the twin that rounds as it does; see `precision.Lowered`."""
        half = half_nodes(self.model, self.graph, keep)
        try:
            onnx.save(typed(self.model, half), str(folder / GRAPH))
            onnx.checker.check_model(str(folder / GRAPH))
            onnx.save(rounded(self.model, half), str(folder / TWIN))
        except Exception as error:  # onnx raises its checker's, protobuf's and the system's
            raise ExportError(f"the graph in float16 is not valid: {str(error).splitlines()[0][:300]}") from error
        twin = OnnxEditor(folder / TWIN)
        (folder / TWIN).unlink()
        return Built([folder / GRAPH], twin)


def half_nodes(model: Any, graph: Graph, keep: Iterable[str]) -> frozenset[int]:
    """Return the indices of the nodes that compute in float16.

    An operation does unless it is kept; a node between operations does if all of the signal that reaches it is float16,
    so that what follows a kept operation stays in float32 up to the next operation.
    """
    kept = {graph.nodes[name] for name in keep}
    half: set[int] = set()
    tensors: set[str] = set()  # that are float16
    for index, node in enumerate(model.graph.node):
        if index in graph.nodes.values():
            is_half = index not in kept
        else:
            signal = graph.signal.intersection(signal_inputs(node)) if index in graph.between else set()
            is_half = bool(signal) and signal <= tensors
        if is_half:
            half.add(index)
            tensors.update(node.output)
    return frozenset(half)


def typed(model: Any, half: frozenset[int]) -> Any:
    """Return the graph with those nodes in float16: weights, tensors, and casts where the types meet."""
    floats, work = float_initializers(model), _Rewriting()
    tensors = {name for index in half for name in model.graph.node[index].output}
    for index, node in enumerate(model.graph.node):
        new = work.copy(node)
        for position, name in enumerate(node.input):
            if index in half and _carries(node, position):
                if name in floats:
                    new.input[position] = work.constant(floats[name], np.dtype(np.float16))
                elif name not in tensors:
                    new.input[position] = work.cast(name, TensorProto.FLOAT16)
            elif index not in half and name in tensors:
                new.input[position] = work.cast(name, TensorProto.FLOAT)
        work.add(new)
    return work.finished(model, typed_as={name: TensorProto.FLOAT16 for name in tensors})


def rounded(model: Any, half: frozenset[int]) -> Any:
    """Return the graph in float32 in which those nodes' inputs and outputs are rounded to float16."""
    work = _Rewriting()
    tensors = {name for index in half for name in model.graph.node[index].output}
    for index, node in enumerate(model.graph.node):
        new = work.copy(node)
        if index in half:
            for position, name in enumerate(node.input):
                if _carries(node, position) and name not in tensors:
                    new.input[position] = work.round(name, TensorProto.FLOAT16)
            outputs = list(node.output)
            for position, name in enumerate(outputs):
                new.output[position] = f"{name}_exact"
            work.add(new)
            for name in outputs:
                work.round(f"{name}_exact", TensorProto.FLOAT16, into=name)
        else:
            work.add(new)
    return work.finished(model)


def _carries(node: Any, position: int) -> bool:
    """Return whether an input is there, and a signal rather than a size or an index."""
    positions = BETWEEN.get(node.op_type)
    return bool(node.input[position]) and (positions is None or position in positions)


class _Rewriting:
    """Builds a graph's nodes anew, with each cast made once."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._made: dict[tuple[str, int], str] = {}

    def copy(self, node: Any) -> Any:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        return new

    def add(self, node: Any) -> None:
        self.nodes.append(node)

    def constant(self, tensor: Any, dtype: np.dtype[Any]) -> str:
        """Convert a constant, under a name of its own: other nodes may need the original."""
        name = f"{tensor.name}_{dtype.name}"
        if name not in self.constants:
            array = numpy_helper.to_array(tensor)
            with np.errstate(over="ignore"):  # a weight that is too large makes the operation fail its gate
                self.constants[name] = numpy_helper.from_array(array.astype(dtype), name)
        return name

    def cast(self, name: str, kind: int) -> str:
        key = (name, kind)
        if key not in self._made:
            self._made[key] = f"{name}_{TensorProto.DataType.Name(kind).lower()}"
            self.add(helper.make_node("Cast", [name], [self._made[key]], name=f"cast_{self._made[key]}", to=kind))
        return self._made[key]

    def round(self, name: str, kind: int, into: str = "") -> str:
        small = self.cast(name, kind)
        key = (small, TensorProto.FLOAT)
        if key not in self._made:
            self._made[key] = into or f"{name}_rounded"
            self.add(helper.make_node("Cast", [small], [self._made[key]], name=f"round_{name}", to=TensorProto.FLOAT))
        return self._made[key]

    def finished(self, model: Any, typed_as: dict[str, int] | None = None) -> Any:
        """Return the model with these nodes, and only the constants that they use."""
        used = {name for node in self.nodes for name in node.input}
        new = without_weights(model)
        new.graph.node.extend(self.nodes)
        new.graph.initializer.extend(t for t in model.graph.initializer if t.name in used)
        new.graph.initializer.extend(self.constants.values())
        for value in new.graph.value_info:
            if typed_as and value.name in typed_as:
                value.type.tensor_type.elem_type = typed_as[value.name]
        return new
