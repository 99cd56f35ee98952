"""What of an exported ONNX graph is worth computing in reduced precision: its convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from export.precision import Operation

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("MatMul", "Gemm")
# What may lie between two of them: the positions of the inputs that carry the signal, None for all.
BETWEEN: Mapping[str, tuple[int, ...] | None] = {
    "Add": None, "Sub": None, "Mul": None, "Div": None, "Relu": None, "LeakyRelu": None, "Clip": None, "Tanh": None,
    "Sigmoid": None, "Softmax": None, "MaxPool": None, "AveragePool": None, "Concat": None, "Transpose": None,
    "Identity": None, "Resize": (0,), "Reshape": (0,), "Split": (0,), "Slice": (0,), "Squeeze": (0,),
    "Unsqueeze": (0,), "Expand": (0,), "Flatten": (0,),
}  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """A graph's operations: the node of each, and which nodes lie on the way from one to another.

    Attributes:
        operations: With their share of the arithmetic.
        nodes: Operation's name -> index of its node.
        between: Indices of the nodes from one operation to another, which move and bend the signal.
        signal: Names of the tensors that come from an operation, through such nodes alone.
    """

    operations: Sequence[Operation]
    nodes: Mapping[str, int]
    between: frozenset[int]
    signal: frozenset[str]


def find_operations(model: Any) -> Graph:
    """Find the convolutions of a graph, and the matrix products of what they draw.

    The products before the first convolution (the mapping network, styles, directions) are no part of it: they take
    next to none of the time, and what they compute is what an edit is.

    Args:
        model: The ONNX model, with the shapes that torch.export writes into it.
    """
    graph = model.graph
    shapes = {value.name: _shape(value) for value in graph.value_info}
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    nodes: dict[str, int] = {}
    work: dict[str, float] = {}
    signal: set[str] = set()
    for index, node in enumerate(graph.node):
        if node.op_type in CONVOLUTIONS or (node.op_type in PRODUCTS and signal.intersection(node.input)):
            name = _name(node, nodes)
            nodes[name], work[name] = index, _work(node, shapes)
            signal.update(node.output)
        elif node.op_type in BETWEEN and signal.intersection(signal_inputs(node)):
            signal.update(node.output)
    wanted: set[str] = set()
    between = set()
    chosen = set(nodes.values())
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if index in chosen:
            wanted.update(node.input)
        elif node.op_type in BETWEEN and wanted.intersection(node.output) and signal.intersection(node.output):
            between.add(index)
            wanted.update(signal_inputs(node))
    total = sum(work.values()) or 1.0
    operations = [Operation(name, work[name] / total) for name in nodes]
    return Graph(operations, nodes, frozenset(between), frozenset(signal))


def signal_inputs(node: Any) -> list[str]:
    """Return the inputs of a node that carry numbers, not shapes or indices."""
    positions = BETWEEN.get(node.op_type)
    names = list(node.input) if positions is None else [node.input[i] for i in positions]
    return [name for name in names if name]


def _name(node: Any, taken: Mapping[str, int]) -> str:
    """Name an operation by its weight, as the generator calls it; by its node where it has none of its own."""
    weights = [name for name in node.input[:2] if name.startswith("generator.")]
    name = weights[0].removeprefix("generator.").removesuffix(".weight") if weights else str(node.name)
    return name if name not in taken else str(node.name)


def _work(node: Any, shapes: Mapping[str, Sequence[int]]) -> float:
    """Return the multiplications of one picture."""
    out = math.prod(shapes.get(node.output[0], [])[1:])
    first, second = (shapes.get(name, []) for name in node.input[:2])
    if node.op_type == "Conv":
        return float(out * math.prod(second[1:]))
    if node.op_type == "ConvTranspose":
        return float(math.prod(first[1:]) * math.prod(second[1:]))
    return float(out * (first[-1] if first else 1))


def _shape(value: Any) -> list[int]:
    return [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]  # a batch of one


def float_initializers(model: Any) -> dict[str, Any]:
    """Return a graph's constants of float32 by name."""
    return {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}


def without_weights(model: Any) -> Any:
    """Return the model's inputs, outputs, shapes and versions, without copying its weights."""
    bare = onnx.ModelProto()
    bare.ir_version, bare.producer_name = model.ir_version, model.producer_name
    bare.producer_version = model.producer_version
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = model.graph.name
    for part in ("input", "output", "value_info"):
        getattr(bare.graph, part).extend(getattr(model.graph, part))
    return bare
