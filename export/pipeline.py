"""From a run folder to a published model: fuse, export, prove, publish; stop at the first thing that is wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from export.editor import FusedEditor
from export.manifest import build_manifest
from export.onnx import OnnxEditor, export_onnx
from export.parity import Engine, check_parity
from export.repository import ENGINES, publish
from export.torchscript import TorchScriptEditor, export_torchscript
from latentclr.config import TrainConfig, slider_end
from latentclr.experiment import open_run, trained_generator


def export_run(
    run: Path,
    words: Sequence[str],
    repository: Path,
    name: str,
    *,
    max_batch_size: int = 16,
    opset: int = 18,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Export a run as ONNX and TorchScript and publish both for Triton.

    Args:
        run: run folder or checkpoint file.
        words: overrides of the run's configuration.
        repository: Triton model repository.
        name: model name.
        max_batch_size: rows that Triton may put together.
        opset: ONNX operator set.
        say: receives one line for each thing done.

    Returns:
        The published version folders.

    Raises:
        LatentCLRError: the run cannot be opened, a graph cannot be made or differs from eager, or the disk is full.
    """
    config, checkpoint = open_run(run, words, TrainConfig)
    generator = trained_generator(config, checkpoint)
    editor = FusedEditor(generator, checkpoint.directions)
    end = slider_end(checkpoint.config["model"]["alpha"])
    with tempfile.TemporaryDirectory(prefix="latentclr-export-") as folder:
        graphs = {backend: Path(folder) / file for backend, file in ENGINES.items()}
        export_onnx(editor, graphs["onnxruntime"], opset)
        export_torchscript(editor, graphs["pytorch"])
        engines: dict[str, Engine] = {
            "onnx": OnnxEditor(graphs["onnxruntime"]),
            "torchscript": TorchScriptEditor(graphs["pytorch"]),
        }
        reports = check_parity(editor, engines, [-end, -end / 2, 0.0, end / 4, end])
        for report in reports:
            say(str(report))
        manifest = build_manifest(name, generator, checkpoint, list(graphs.values()), reports)
        return publish(repository, name, graphs, manifest, max_batch_size)
