"""From a run folder to a published model: fuse, export, prove, publish; stop at the first thing that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor

from export.editor import FusedEditor, check_latent_input
from export.errors import ExportError
from export.manifest import build_manifest
from export.onnx import OnnxEditor, export_onnx, split_weights
from export.options import TritonOptions
from export.parity import Engine, ParityReport, check_parity, parity_cases
from export.preview import measure_likeness, preview_editor
from export.repository import publish
from export.torchscript import TorchScriptEditor, export_torchscript
from latentclr.config import TrainConfig, slider_end
from latentclr.method.step import feed_mask
from latentclr.training.experiment import named_edits, open_run, trained_generator
from serving.contract.errors import CatalogError
from serving.contract.layout import MODEL_FILES, WEIGHTS_FILE, preview_of
from serving.contract.published import PublishedModel
from serving.contract.temporary import remove_dead_folders, temporary_folder


def export_run(
    run: Path,
    words: Sequence[str],
    repository: Path,
    name: str,
    *,
    options: TritonOptions | None = None,
    max_batch_size: int | None = None,
    opset: int = 18,
    latent_input: str = "z",
    preview: int | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Export a run as ONNX and TorchScript and publish both for Triton.

    Args:
        run: Run folder or checkpoint file.
        words: Overrides of the run's configuration.
        repository: Triton model repository.
        name: Model name.
        options: How Triton is to serve it.
        max_batch_size: Short for that option alone: rows that Triton may put together.
        opset: ONNX operator set.
        latent_input: What a request brings: `z`, or codes from GAN inversion as `w` [N, D] or `w+` [N, L, D].
        preview: Publish a second model, NAME_preview, that stops at this many pixels; see `Generator.previews`.
        say: Receives one line for each thing done.

    Returns:
        The published version folders.

    Raises:
        LatentCLRError: The run cannot be opened, a graph cannot be made or differs from eager, or the disk is full.
    """
    options = options or TritonOptions()
    if max_batch_size is not None:
        options = replace(options, max_batch_size=max_batch_size)
    config, checkpoint = open_run(run, words, TrainConfig)
    generator = trained_generator(config, checkpoint)
    check_latent_input(generator, latent_input)
    if generator.random_weights:
        say("the generator has random weights: whatever it draws is noise; the manifest says so too")
    psi = getattr(generator, "truncation", 1)
    if latent_input != "z" and psi != 1:
        say(f"{latent_input} is truncated by {psi} after the edit, as z is; inversion wants generator.truncation=1")
    edits, problems = named_edits(config, checkpoint, generator.latent.layers)
    for problem in problems:
        say(f"named edits: {problem}")
    fed = feed_mask(config.feed_layers, generator.latent.layers)  # [L]
    editor = FusedEditor(generator, checkpoint.directions, latent_input)
    smaller = None if preview is None else preview_editor(editor, preview)
    end = slider_end(checkpoint.config["model"]["alpha"])
    alphas = [-end, -end / 2, 0.0, end / 4, end]
    remove_dead_folders()
    with temporary_folder("export") as folder:

        def describe(name: str, editor: FusedEditor, made: Proven) -> dict[str, Any]:
            given = (edits, latent_input, config.feed_layers)
            return build_manifest(name, editor.generator, checkpoint, made.files, made.reports, *given)

        made = prove(editor, folder, opset, alphas, fed, say)
        if edits:
            say(f"named edits: {', '.join(edits)}")
        manifest = describe(name, editor, made)
        for lost in unknown_names(repository, name, manifest):
            say(f"named edits: {lost}")
        beside = {}
        if smaller is not None:
            say(f"preview of {preview} pixels:")
            part = prove(smaller, folder / "preview", opset, alphas, fed, say)
            likeness = measure_likeness(
                made.engines["onnx"], part.engines["onnx"], parity_cases(editor, alphas, fed=fed)
            )
            say(f"likeness: {likeness}")
            its = describe(preview_of(name), smaller, part)
            its |= {"preview_of": name, "likeness": likeness.as_dict()}
            manifest["preview"] = {"size": preview, "files_sha256": its["files_sha256"]}
            beside[preview_of(name)] = (part.graphs, its)
        return publish(repository, name, made.graphs, manifest, options, beside)


@dataclass(frozen=True)
class Proven:
    """An editor's graphs by backend, all their files, functions that run them, and the proof."""

    graphs: dict[str, Path]
    files: list[Path]
    engines: dict[str, Engine]
    reports: list[ParityReport]


def prove(
    editor: FusedEditor,
    folder: Path,
    opset: int,
    alphas: Sequence[float],
    fed: Tensor,
    say: Callable[[str], None],
) -> Proven:
    """Make an editor's graphs in a folder and compare them with it.

    Raises:
        ExportError: A graph cannot be made or differs from eager.
    """
    folder.mkdir(exist_ok=True)
    graphs = {backend: folder / file for backend, file in MODEL_FILES.items()}
    export_onnx(editor, graphs["onnxruntime"], opset)
    if editor.code_name != editor.input_names[0]:
        rename_input(graphs["onnxruntime"], editor.input_names[0], editor.code_name)
    files = list(graphs.values())
    weights = folder / WEIGHTS_FILE
    if split_weights(graphs["onnxruntime"], weights):
        files.append(weights)
    export_torchscript(editor, graphs["pytorch"])
    engines: dict[str, Engine] = {
        "onnx": OnnxEditor(graphs["onnxruntime"]),
        "torchscript": TorchScriptEditor(graphs["pytorch"]),
    }
    try:
        reports = check_parity(editor, engines, alphas, say, fed=fed)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing is published") from None
    for report in reports:
        say(str(report))
    return Proven(graphs, files, engines, reports)


def unknown_names(repository: Path, name: str, manifest: Mapping[str, Any]) -> list[str]:
    """Find names that the published model was given, of the same directions, and its run does not know.

    Returns:
        A line for each, which says how to keep it.
    """
    model = PublishedModel(repository, name)
    try:
        before = model.manifest()
        same = before["directions"].get("checkpoint_sha256") == manifest["directions"]["checkpoint_sha256"]
        lost = {key: edit["direction"] for key, edit in model.entries().items() if key not in manifest["edits"]}
    except (CatalogError, KeyError, TypeError, AttributeError):  # none was published, or none that we understand
        return []
    return [
        f"{key} (direction {direction}) was given to {name} alone and ends with this version: `latentclr name` it"
        for key, direction in lost.items()
        if same
    ]


def rename_input(path: Path, old: str, new: str) -> None:
    """Rename an input of an ONNX file; TorchScript's stay, since servers fall back to the order of inputs.

    Raises:
        ExportError: The new name is taken.
    """
    model = onnx.load(str(path), load_external_data=False)
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if new in taken | {tensor.name for tensor in (*model.graph.initializer, *model.graph.input)}:
        raise ExportError(f"the graph has a value called {new} already")
    for tensor in model.graph.input:
        tensor.name = new if tensor.name == old else tensor.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    onnx.save(model, str(path))
