"""The exported graph with convolutions in int8: static, QDQ, per channel, calibrated on the editor's own edits.

Jacob et al. 2018 (arXiv 1712.05877), section 2: r = scale (q - zero point). Weights are int8, symmetric, with a scale
for each output channel; what goes in and comes out is uint8 with the range that was seen; biases are int32 at the
product of both scales. ONNX Runtime fuses DequantizeLinear, Conv, QuantizeLinear into one integer convolution. Its own
quantiser writes the same, but calibrates and quantises anew for each set of kept operations, and a search has many.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.onnx import OnnxEditor, read_graph
from export.operations import find_operations, without_weights
from export.parity import Arrays
from export.precision import Built, Operation
from latentclr.progress import progress_bar

GRAPH = "model.onnx"
_LARGEST, _LEVELS = 127, 255


class Int8Graph:
    """An ONNX editor whose convolutions can be int8."""

    engine, precision = "onnxruntime", "int8"

    def __init__(self, path: Path, samples: Sequence[Arrays], folder: Path) -> None:
        """Read the graph and see which values go into its convolutions and come out.

        Args:
            path: The graph in float32, with its weights inside.
            samples: Batches of the editor's inputs.
            folder: For a graph that also gives those values, and is removed again.

        Raises:
            ExportError: It has no convolution that ONNX Runtime computes in int8.
        """
        self.model = read_graph(path)
        graph = find_operations(self.model)
        self.weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        # A transposed convolution has no integer kernel in ONNX Runtime, and one that draws a channel at a time moves
        # memory rather than computing.
        self.nodes = {
            name: index for name, index in graph.nodes.items() if self._draws_in_int8(self.model.graph.node[index])
        }
        if not self.nodes:
            raise ExportError(
                "int8 needs convolutions (ONNX Runtime has none that are transposed), and there are none: --engine "
                "openvino has both"
            )
        self.operations: Sequence[Operation] = [one for one in graph.operations if one.name in self.nodes]
        self.ranges = self._calibrate(samples, folder)
        self._quantised: dict[str, list[Any]] = {}

    def build(self, keep: frozenset[str], folder: Path) -> Built:
        """Write the graph and load it; see `precision.Lowered`."""
        chosen = {index: name for name, index in self.nodes.items() if name not in keep}
        nodes: list[Any] = []
        constants: dict[str, Any] = {}
        inputs: dict[str, str] = {}  # tensor -> its quantised and dequantised form
        for index, node in enumerate(self.model.graph.node):
            new = onnx.NodeProto()
            new.CopyFrom(node)
            if index not in chosen:
                nodes.append(new)
                continue
            source, result = node.input[0], node.output[0]
            if source not in inputs:
                inputs[source] = f"{source}_int8"
                nodes += self._through_uint8(source, inputs[source], constants)
            new.input[0] = inputs[source]
            for position, made in enumerate(self._weights(index), start=1):
                *tensors, dequantise = made
                constants |= {tensor.name: tensor for tensor in tensors}
                nodes.append(dequantise)
                new.input[position] = dequantise.output[0]
            new.output[0] = f"{result}_exact"
            nodes.append(new)
            nodes += self._through_uint8(new.output[0], result, constants, like=result)
        used = {name for node in nodes for name in node.input}
        model = without_weights(self.model)
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(tensor for name, tensor in self.weights.items() if name in used)
        model.graph.initializer.extend(constants.values())
        try:
            onnx.save(model, str(folder / GRAPH))
            onnx.checker.check_model(str(folder / GRAPH))
        except Exception as error:  # onnx raises its checker's, protobuf's and the system's
            raise ExportError(f"the graph in int8 is not valid: {str(error).splitlines()[0][:300]}") from error
        return Built([folder / GRAPH], OnnxEditor(folder / GRAPH))

    def _draws_in_int8(self, node: Any) -> bool:
        """Return whether a node is a convolution of many channels whose weights, and bias if it has one, are known."""
        known = node.op_type == "Conv" and all(name in self.weights for name in node.input[1:] if name)
        return known and self.weights[node.input[1]].dims[1] > 1

    def _calibrate(self, samples: Sequence[Arrays], folder: Path) -> dict[str, tuple[float, float]]:
        """Return the lowest and highest value of every convolution's input and output."""
        watched = sorted(
            {self.model.graph.node[i].input[0] for i in self.nodes.values()}
            | {self.model.graph.node[i].output[0] for i in self.nodes.values()}
        )
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        nodes, names = [], []
        for name in watched:  # two numbers of each, instead of all that a large generator computes
            for reduce in ("ReduceMin", "ReduceMax"):
                names.append(f"{reduce}_{name}")
                nodes.append(helper.make_node(reduce, [name], [names[-1]], keepdims=0))
        model.graph.node.extend(nodes)
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in names)
        path = folder / "calibration.onnx"
        onnx.save(model, str(path))
        session = OnnxEditor(path)
        found = []
        with progress_bar(len(samples), "batch", desc="calibration", delay=2) as bar:
            for inputs in samples:
                found.append(session.session.run(names, dict(zip(session.names, inputs, strict=True))))
                bar.update()
        path.unlink()
        values = np.array(found, np.float64).reshape(len(samples), len(watched), 2)
        if not np.isfinite(values).all():
            raise ExportError("int8 cannot be calibrated: an edit within the sliders overflows in the generator")
        low, high = values[..., 0].min(0), values[..., 1].max(0)
        return {name: (min(float(low[i]), 0.0), max(float(high[i]), 0.0)) for i, name in enumerate(watched)}

    def _scale(self, name: str) -> tuple[float, int]:
        low, high = self.ranges[name]
        scale = max(high - low, 1e-12) / _LEVELS
        return scale, round(-low / scale)

    def _through_uint8(self, source: str, into: str, constants: dict[str, Any], like: str = "") -> list[Any]:
        scale, zero = self._scale(like or source)
        names = f"{source}_scale", f"{source}_zero"
        constants[names[0]] = numpy_helper.from_array(np.array(scale, np.float32), names[0])
        constants[names[1]] = numpy_helper.from_array(np.array(zero, np.uint8), names[1])
        return [
            helper.make_node("QuantizeLinear", [source, *names], [f"{source}_uint8"], name=f"quantize_{source}"),
            helper.make_node("DequantizeLinear", [f"{source}_uint8", *names], [into], name=f"dequantize_{source}"),
        ]

    def _weights(self, index: int) -> list[list[Any]]:
        """Return for weight and bias of a convolution its tensors and the node that dequantises it."""
        node = self.model.graph.node[index]
        made = []
        weight = numpy_helper.to_array(self.weights[node.input[1]]).astype(np.float64)  # [O, I, k, k]
        scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), 1e-12) / _LARGEST  # [O]
        values = np.round(weight / scale[:, None, None, None]).astype(np.int8)
        made.append(self._dequantised(node.input[1], values, scale, np.zeros(len(scale), np.int8)))
        if len(node.input) > 2 and node.input[2]:
            bias_scale = scale * self._scale(node.input[0])[0]
            bias = np.round(numpy_helper.to_array(self.weights[node.input[2]]) / bias_scale)
            bias = np.clip(bias, -(2**31), 2**31 - 1).astype(np.int32)
            made.append(self._dequantised(f"{node.input[2]}.{index}", bias, bias_scale, np.zeros(len(bias), np.int32)))
        return made

    def _dequantised(self, name: str, values: Any, scale: Any, zeros: Any) -> list[Any]:
        if name not in self._quantised:
            tensors = [
                numpy_helper.from_array(values, f"{name}_int8"),
                numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"),
                numpy_helper.from_array(zeros, f"{name}_zero"),
            ]
            names = [tensor.name for tensor in tensors]
            node = helper.make_node("DequantizeLinear", names, [f"{name}_lowered"], name=f"dequantize_{name}", axis=0)
            self._quantised[name] = [*tensors, node]
        return self._quantised[name]
