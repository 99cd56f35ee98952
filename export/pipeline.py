"""From a run folder to a published model: fuse, export, prove, publish; stop at the first thing that is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from export.editor import FusedEditor, check_latent_input
from export.encoder import (
    certified_photos,
    check_encoder,
    encoder_info,
    encoder_manifest,
    export_encoder,
    read_encoder,
    save_golden_photos,
)
from export.engines import BACKENDS, Graphs, check_engines, export_graphs
from export.errors import ExportError
from export.fastest import AUTO, candidates, fastest, fastest_of
from export.golden import MOST_CODES, save_golden
from export.manifest import build_manifest, slider_ranges
from export.onnx import OPSET
from export.openvino_lowered import NO_BF16
from export.options import TritonOptions
from export.parity import EDITED, Alphas, Judge, check_parity, parity_cases, slider_alphas
from export.preview import EDITED as LIKENESS
from export.preview import QUALITY as PREVIEW_QUALITY
from export.preview import measure_likeness, preview_editor
from export.reduced import check_precision, export_reduced, reference_of
from export.repository import check_left_behind, check_no_ensemble, publish
from latentclr.config import TrainConfig
from latentclr.files import sha256_of
from latentclr.method.step import feed_mask
from latentclr.training.experiment import named_edits, open_run, trained_generator
from serving.contract.certificate import GATES, Certificate, Gate
from serving.contract.errors import CatalogError
from serving.contract.layout import encoder_of, photo_of, preview_of
from serving.contract.manifest import Preview, preview_entry
from serving.contract.openvino_engine import OpenVINOError, has_bf16, import_openvino
from serving.contract.published import PublishedModel
from serving.contract.temporary import remove_dead_folders, temporary_folder


def export_run(
    run: Path,
    words: Sequence[str],
    repository: Path,
    name: str,
    *,
    engines: Sequence[str] | None = None,
    precision: str = "fp32",
    quality: str | None = None,
    options: TritonOptions | None = None,
    max_batch_size: int | None = None,
    opset: int = 18,
    latent_input: str | None = None,
    preview: int | None = None,
    preview_precision: str = "fp32",
    with_encoder: bool = False,
    edited: int = EDITED,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Export a run for one engine or several and publish it for Triton.

    Args:
        run: Run folder or checkpoint file.
        words: Overrides of the run's configuration.
        repository: Triton model repository.
        name: Model name, of the first engine; each further one's adds `_` and the engine.
        engines: `onnxruntime`, `openvino`, `torchscript`, or `auto` alone: the fastest here. None for the first and the
            last of these, or in reduced precision for the one that has it.
        precision: `fp32`, `bf16`, `fp16` or `int8`.
        quality: What every graph must hold, see `Gate.parse`; None for `exact`, or in reduced precision `certified`.
        options: How Triton is to serve it.
        max_batch_size: Short for that option alone: rows that Triton may put together.
        opset: ONNX operator set.
        latent_input: What a request brings: `z`, or codes from GAN inversion as `w` [N, D] or `w+` [N, L, D]; None for
            the encoder's, or `z` without one.
        preview: Publish a second model, NAME_preview, that stops at this many pixels; see `Generator.previews`.
        preview_precision: Of the preview's arithmetic; in a reduced one it must hold `preview.QUALITY`.
        with_encoder: Publish the run's encoder too, NAME_encoder, and the ensemble NAME_photo, which edits photos.
        edited: Edited pictures that float32 graphs are held against, at least; golden requests are fewer too, if these
            are. Fewer prove less; that is for benchmarks of large generators, which compare what they measure.
        say: Receives one line for each thing done.

    Returns:
        The published version folders.

    Raises:
        LatentCLRError: The run cannot be opened, an engine is not known or not installed, a graph cannot be made or
            misses its quality, or the disk is full.
    """
    gate = Gate.parse(quality) if quality is not None else GATES["exact" if precision == "fp32" else "certified"]
    options = options or TritonOptions()
    if max_batch_size is not None:
        options = replace(options, max_batch_size=max_batch_size)
    automatic = engines is not None and AUTO in engines
    if automatic:
        engines = candidates(engines or (), options, precision, preview_precision)
    if preview_precision != "fp32" and preview is None:
        raise ExportError(f"--preview-precision {preview_precision} is of a preview: give --preview PIXELS as well")
    engines = check_precision(precision, engines, options, say, preview_precision)
    check_engines(engines)
    besides = [*([] if preview is None else [preview_of(name)]), *([encoder_of(name)] if with_encoder else [])]
    for model in (name, *besides):  # one engine takes the name itself, whichever it will be
        check_left_behind(repository, model, [BACKENDS[engine] for engine in engines[: 1 if automatic else None]])
    if not with_encoder:
        check_no_ensemble(repository, name, "export --with-encoder as well, under another --name")
    if "openvino" in engines:
        check_openvino(options, say, {precision, preview_precision})
    config, checkpoint = open_run(run, words, TrainConfig)
    generator = trained_generator(config, checkpoint)
    saved = read_encoder(checkpoint.path.parent, generator) if with_encoder else None
    if saved is not None and latent_input not in (None, saved.encoder.spec.space):
        raise ExportError(
            f"the encoder's codes are {saved.encoder.spec.space}: with it --latent-input must be that or left out, got"
            f" {latent_input}"
        )
    latent_input = latent_input or ("z" if saved is None else saved.encoder.spec.space)
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
    plan = Plan(
        engines,
        automatic,
        precision,
        gate,
        ranges=slider_ranges(checkpoint),
        fed=fed,
        opset=opset,
        pictures=checkpoint.path.parent,
        edited=edited,
    )
    remove_dead_folders()
    with temporary_folder("export") as folder:

        def make(model: str, editor: FusedEditor, plan: Plan) -> tuple[Graphs, dict[str, Any]]:
            """Make and prove an editor's graphs, and describe them; golden requests lie beside each."""
            made, certificates = prove(editor, plan, folder / model, say)
            given = (edits, latent_input, config.feed_layers, plan.precision)
            manifest = build_manifest(model, editor.generator, checkpoint, made.all_files, certificates, *given)
            codes = max(1, MOST_CODES * min(plan.edited, EDITED) // EDITED)
            golden = save_golden(folder / model, editor, manifest, plan.alphas, fed, made.engines, plan.gate, codes)
            manifest["files_sha256"][golden.name] = sha256_of(golden)
            for place in {graph.parent for graph in made.files.values()} - {golden.parent}:
                shutil.copyfile(golden, place / golden.name)
            return made, manifest

        try:
            full, manifest = make(name, editor, plan)
            if edits:
                say(f"named edits: {', '.join(edits)}")
            for lost in unknown_names(repository, name, manifest):
                say(f"named edits: {lost}")
            beside: dict[str, tuple[Mapping[str, Path | None], dict[str, Any]]] = {}
            if smaller is not None:
                if preview_precision == "fp32":
                    told = "" if precision == "fp32" else ", which stays in float32"
                else:
                    told = f", in {preview_precision}"
                say(f"preview of {preview} pixels{told}:")
                its_plan = replace(
                    plan,
                    engines=tuple(full.engines),
                    automatic=False,
                    precision=preview_precision,
                    gate=preview_gate(preview_precision, precision, gate),
                    pictures=None,
                )
                small, its = make(preview_of(name), smaller, its_plan)
                likeness = measure_likeness(
                    next(iter(full.engines.values())),
                    next(iter(small.engines.values())),
                    [case.inputs for case in parity_cases(editor, plan.alphas, fed=fed, edited=LIKENESS)],
                )
                say(f"likeness: {likeness}")
                its |= {"preview_of": name, "likeness": likeness.as_dict()}
                manifest["preview"] = preview_entry(Preview(smaller.generator.size, its["files_sha256"]))
                beside[preview_of(name)] = (small.files, its)
            if saved is not None:
                kept = "" if precision == "fp32" else ", which stays in float32"
                say(f"encoder from pictures to {latent_input}{kept}:")
                found = export_encoder(saved, tuple(full.engines), folder / encoder_of(name), opset)
                photos = certified_photos(editor)
                proofs = check_encoder(editor, saved, found.engines, photos)
                for proof in proofs:
                    say(str(proof))
                golden = save_golden_photos(
                    folder / encoder_of(name), editor, saved, manifest, photos, full.engines, gate
                )
                its = encoder_manifest(name, manifest, found, golden, proofs)
                manifest["encoder"] = encoder_info(saved, its["files_sha256"])
                beside[encoder_of(name)] = (found.files, its)
                ensemble = {**its, "files_sha256": {}, "parity": {}, "encoder_of": "", "photo_of": name}
                beside[photo_of(name)] = (dict.fromkeys(found.files), ensemble)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("nothing is published") from None
        return publish(repository, name, full.files, manifest, options, beside)


@dataclass(frozen=True)
class Plan:
    """How an editor is to be made and proven.

    Attributes:
        engines: That are to serve it, see `check_precision`.
        automatic: Take only that of them which is fastest here.
        precision: Of the arithmetic.
        gate: What every graph must hold.
        ranges: Lowest and highest strength of each direction, in certificates, golden requests and calibration.
        fed: Mask [L] of the latent inputs at which directions act by default.
        opset: ONNX operator set.
        pictures: Folder for what a search in reduced precision draws.
        edited: Edited pictures that float32 graphs are held against.
    """

    engines: Sequence[str]
    automatic: bool
    precision: str
    gate: Gate
    ranges: Sequence[tuple[float, float]]
    fed: Tensor
    opset: int = OPSET
    pictures: Path | None = None
    edited: int = EDITED

    @property
    def alphas(self) -> Alphas:
        """Strengths to try, of each direction."""
        return slider_alphas(self.ranges)


def preview_gate(precision: str, full: str, gate: Gate) -> Gate:
    """Return what a preview must hold: in float32 what a full picture in float32 must.

    Args:
        precision: Of the preview.
        full: Of the full pictures.
        gate: Of these.
    """
    if precision != "fp32":
        return Gate.parse(PREVIEW_QUALITY)
    return gate if full == "fp32" else GATES["exact"]


def prove(
    editor: FusedEditor, plan: Plan, folder: Path, say: Callable[[str], None]
) -> tuple[Graphs, list[Certificate]]:
    """Make an editor's graphs in a new folder and hold them against it.

    Raises:
        ExportError: A graph cannot be made, or misses the gate.
    """
    folder.mkdir()
    request = tuple(tensor.numpy() for tensor in editor.example_inputs(1, 1))
    if plan.precision == "fp32":
        made = export_graphs(editor, plan.engines, folder, plan.opset)
        judge = Judge(editor, plan.alphas, plan.fed, edited=plan.edited)
        if plan.automatic:
            made, certificates = fastest(
                made,
                request,
                lambda name, engine: check_parity(judge, {name: engine}, plan.gate, say=say),
                say,
            )
        else:
            certificates = check_parity(judge, made.engines, plan.gate, say=say)
    else:
        reference = reference_of(editor, plan.ranges, folder / "float32", plan.fed, plan.opset)

        def reduced(names: Sequence[str], place: Path) -> tuple[Graphs, list[Certificate]]:
            return export_reduced(reference, names, plan.precision, plan.gate, place, pictures=plan.pictures, say=say)

        if plan.automatic:
            made, certificates = fastest_of(plan.engines, reduced, request, folder, say)
        else:
            made, certificates = reduced(plan.engines, folder)
    for certificate in certificates:
        say(str(certificate))
    return made, certificates


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


def check_openvino(options: TritonOptions, say: Callable[[str], None], precisions: Collection[str] = ()) -> None:
    """Refuse what OpenVINO's backend or this CPU cannot do, before the work is done, and tell what has no effect there.

    Raises:
        ExportError: OpenVINO is not installed, the target is a GPU, which that backend refuses, or this CPU has no
            bfloat16, so that such a graph could not be tried.
    """
    try:
        import_openvino()
        untried = "bf16" in precisions and not has_bf16()
    except OpenVINOError as error:
        raise ExportError(str(error)) from None
    if untried:
        raise ExportError(NO_BF16)
    if options.target == "gpu":
        raise ExportError("openvino runs on CPUs (Triton's backend of that name refuses others), got target gpu")
    say(
        "openvino: NVIDIA's container computes in bfloat16 on a CPU that has it, whatever the model says; the embedded "
        "server does as the certificate: `latentclr certify` tells"
    )
    if options.queue_delay_us or options.queue_timeout_s:
        say("openvino: each request is a batch of its own there, so queue delay and timeout have no effect on it")
