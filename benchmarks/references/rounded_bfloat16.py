"""What an edit in bfloat16 looks like, on CPUs that have no bfloat16: computed in float32 and rounded.

An operation's inputs, weights and result are rounded to bfloat16 and its sums are float32's, as oneDNN and AMX have
them (Intel, "BFLOAT16 - Hardware Numerics Definition", 2018). Which operations hold a gate can thus be found anywhere;
only how long they take cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

from export.half import rounded
from export.onnx import OnnxEditor, read_graph
from export.operations import find_operations
from export.precision import Built, Operation


class RoundedBFloat16:
    """The twin of OpenVINO's graph in bfloat16, under ONNX Runtime; a `precision.Lowered`."""

    engine, precision = "openvino", "bf16"

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Read the ONNX graph in float32.

        Args:
            path: The file, with its weights inside.
            threads: For one operator; 0 for ONNX Runtime's choice.
        """
        self._model, self._threads = read_graph(path), threads
        self._graph = find_operations(self._model)
        self.operations: Sequence[Operation] = self._graph.operations

    def build(self, keep: frozenset[str], folder: Path) -> Built:
        """Write and load the twin in which all operations but `keep` are rounded."""
        small = frozenset(index for name, index in self._graph.nodes.items() if name not in keep)
        path = folder / "rounded.onnx"
        onnx.save(rounded(self._model, small, TensorProto.BFLOAT16), str(path))
        return Built([path], OnnxEditor(path, self._threads))
