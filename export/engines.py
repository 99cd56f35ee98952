"""The editor's graph for each engine that is to serve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from export.editor import FusedEditor
from export.errors import ExportError
from export.onnx import OPSET, OnnxEditor, export_onnx, rename_input, split_weights
from export.openvino import OpenVINOEditor, export_openvino
from export.parity import Engine
from export.torchscript import TorchScriptEditor, export_torchscript
from latentclr.errors import nearest
from serving.contract.layout import ENGINES, WEIGHTS_FILE

ENGINE_NAMES = tuple(engine.name for engine in ENGINES.values())
DEFAULT = ("onnxruntime", "torchscript")
BACKENDS = {engine.name: backend for backend, engine in ENGINES.items()}


@dataclass
class Graphs:
    """Exported files.

    Attributes:
        files: backend -> the graph, in the order in which the engines were asked for.
        weights: Files beside them.
        engines: name -> what runs the graph here as the server runs it.
    """

    files: dict[str, Path] = field(default_factory=dict)
    weights: list[Path] = field(default_factory=list)
    engines: dict[str, Engine] = field(default_factory=dict)

    @property
    def all_files(self) -> list[Path]:
        """The graphs, then their weights."""
        return [*self.files.values(), *self.weights]


def check_engines(names: Sequence[str]) -> None:
    """Check what an export is for.

    Raises:
        ExportError: None, one that is not known, or one twice.
    """
    known = ", ".join(ENGINE_NAMES)
    if not names:
        raise ExportError(f"at least one engine is needed, of {known}")
    for name in names:
        if name not in ENGINE_NAMES:
            raise ExportError(f"engine must be one of {known}, got {name!r}{nearest(name, ENGINE_NAMES)}")
        if names.count(name) > 1:
            raise ExportError(f"each engine can be published once, got {name} {names.count(name)} times")


def export_graphs(editor: FusedEditor, names: Sequence[str], folder: Path, opset: int = OPSET) -> Graphs:
    """Write the editor for each engine, and load what was written.

    Args:
        editor: The editor, on the CPU.
        names: Of the engines, see `ENGINE_NAMES`.
        folder: Where to write.
        opset: ONNX operator set.

    Raises:
        ExportError: A graph cannot be made or loaded, or an engine is not known or not installed.
    """
    check_engines(names)
    made = Graphs({BACKENDS[name]: folder / ENGINES[BACKENDS[name]].file for name in names})
    onnx, weights = folder / ENGINES["onnxruntime"].file, folder / WEIGHTS_FILE
    if {"onnxruntime", "openvino"} & {*names}:  # OpenVINO reads ONNX
        export_onnx(editor, onnx, opset)
        if editor.code_name != editor.input_names[0]:
            rename_input(onnx, editor.input_names[0], editor.code_name)
    if "onnxruntime" in names:
        if split_weights(onnx, weights):
            made.weights.append(weights)
        made.engines["onnxruntime"] = OnnxEditor(onnx)
    if "openvino" in names:
        export_openvino(onnx, made.files["openvino"])
        made.weights.append(made.files["openvino"].with_suffix(".bin"))
        made.engines["openvino"] = OpenVINOEditor(made.files["openvino"])
    if "torchscript" in names:
        export_torchscript(editor, made.files["pytorch"])
        made.engines["torchscript"] = TorchScriptEditor(made.files["pytorch"])
    made.engines = {name: made.engines[name] for name in names}
    return made
