"""Whether a generator keeps to the protocol, and whether its editor can be exported: what `latentclr check` says."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.editor import FusedEditor
from export.live import Live
from export.onnx import OnnxEditor, export_onnx
from export.parity import Engine, Judge, check_parity
from export.reasons import advice_for
from export.torchscript import TorchScriptEditor, export_torchscript
from latentclr.errors import ConfigError, LatentCLRError
from latentclr.generators.base import Generator
from latentclr.generators.wrapped import LARGEST, SAME, tensors_sha256
from latentclr.method.directions import build_directions
from latentclr.training.rng import stream
from serving.contract.temporary import temporary_folder

ROWS = 5
EDITED = 20  # pictures; an export of the run compares more, with the run's own directions
STRENGTHS = (-2.0, -1.0, 0.5, 2.0)  # in units of the code, of which most generators draw standard normals
MOST_CUT = 0.25
"""Share of an unclamped generator's pixels that may lie beyond [-1, 1], where pictures are cut off."""
MOST_LAYERS = 60
TIMED = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What it is called.
        good: Whether it is as it must be.
        text: What was found.
        advice: What to write instead; empty if nothing is to be done.
    """

    name: str
    good: bool
    text: str
    advice: str = ""


def protocol_findings(generator: Generator, layer: str) -> Iterator[Finding]:
    """Look at how a generator draws.

    Args:
        generator: As it was loaded, on the CPU.
        layer: The feature layer that a run of it would use.
    """
    ps, class_id = _example(generator, ROWS)
    with torch.no_grad():
        images = generator.synthesize(ps, class_id)
        yield _deterministic(generator, ps, class_id, images)
        yield _independent(generator, ps, class_id, images)
        yield from _pixels(generator, images)
        if generator.class_names is not None and len(generator.class_names) > 1:
            yield _classes(generator)
    yield _frozen(generator, layer)
    yield _gradient(generator, layer)


def export_findings(generator: Generator) -> Iterator[Finding]:
    """Export both graphs with some directions, compare them with PyTorch, and measure what one picture costs."""
    directions = build_directions("global", 4, generator.latent.dim, stream(0, "check")).eval()
    editor = FusedEditor(generator, directions)
    with temporary_folder("check") as folder:
        onnx = _exported(editor, "ONNX", lambda: _onnx(editor, folder / "model.onnx"))
        yield onnx
        yield _exported(editor, "TorchScript", lambda: _torchscript(editor, folder / "model.pt"))
        yield _cost(generator, editor, folder / "model.onnx" if onnx.good else None)


def layer_lines(generator: Generator, chosen: str) -> list[str]:
    """Return a table of the feature layers: shape, values F, and which latent inputs reach them."""
    ps, class_id = _example(generator, 1)
    layers = generator.feature_layers
    shown = layers if len(layers) <= MOST_LAYERS else layers[: MOST_LAYERS // 2] + layers[-MOST_LAYERS // 2 :]
    rows = [("feature layer", "shape", "values", "latent inputs")]
    for layer in shown:
        with torch.no_grad():
            shape = tuple(generator.features(ps, layer, class_id).shape[1:])
        count = generator.inputs_reaching(layer)
        inputs = "none" if count == 0 else "0" if count == 1 else f"0-{count - 1}"
        values = 1
        for side in shape:
            values *= side
        rows.append((f"{layer} *" if layer == chosen else layer, " x ".join(map(str, shape)), str(values), inputs))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(shown) < len(layers):
        lines.insert(1 + MOST_LAYERS // 2, f"... {len(layers) - len(shown)} more ...")
    return lines


def _example(generator: Generator, rows: int) -> tuple[Tensor, Tensor | None]:
    rng = stream(0, "check codes")
    class_id = None
    if generator.class_names is not None:
        ids = generator.class_ids or tuple(range(len(generator.class_names)))
        class_id = torch.tensor([ids[i % len(ids)] for i in range(rows)])
    with torch.no_grad():
        p = generator.encode(generator.sample(rows, rng), class_id)  # [N, D]
    return p[:, None].expand(-1, generator.latent.layers, -1).contiguous(), class_id  # [N, L, D]


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _deterministic(generator: Generator, ps: Tensor, class_id: Tensor | None, images: Tensor) -> Finding:
    worst = _largest(images, generator.synthesize(ps, class_id))
    if worst > SAME:
        advice = advice_for("draws random numbers")
        return Finding("deterministic", False, f"the same code draws another picture (by {worst:.2g})", advice)
    return Finding("deterministic", True, "the same code draws the same picture")


def _independent(generator: Generator, ps: Tensor, class_id: Tensor | None, images: Tensor) -> Finding:
    alone = [
        generator.synthesize(ps[i : i + 1], None if class_id is None else class_id[i : i + 1]) for i in range(ROWS)
    ]
    worst = _largest(images, torch.cat(alone))
    if worst > SAME:
        return Finding(
            "rows", False, f"a picture depends on the others in its batch (by {worst:.2g})",
            "normalise by stored statistics (BatchNorm2d in eval mode), and take no mean over the rows",
        )  # fmt: skip
    return Finding("rows", True, f"a picture does not depend on the others in its batch (by {worst:.1g} at most)")


def _pixels(generator: Generator, images: Tensor) -> Iterator[Finding]:
    height, width = generator.size
    if tuple(images.shape) != (ROWS, 3, height, width):
        yield Finding("pixels", False, f"pictures are {list(images.shape)}, expected [{ROWS}, 3, {height}, {width}]")
        return
    if not torch.isfinite(images).all():
        yield Finding("pixels", False, "some are not finite numbers", "look for a division by zero, or an overflow")
        return
    low, high = float(images.min()), float(images.max())
    cut = float((images.abs() > LARGEST).float().mean())
    text = f"finite, in [{low:.2f}, {high:.2f}]" + (f"; {cut:.1%} are cut off at [-1, 1]" if cut else "")
    if cut > MOST_CUT:
        yield Finding("pixels", False, text, "scale pictures to [-1, 1], as with x / 127.5 - 1")
    elif float((images - images[:1]).abs().max()) < SAME:
        yield Finding("pixels", False, "all codes draw the same picture", "does the module use its code?")
    elif low >= 0:
        yield Finding("pixels", False, f"{text}, so that none is dark", "scale pictures from [0, 1] with 2 * x - 1")
    else:
        yield Finding("pixels", True, text)


def _classes(generator: Generator) -> Finding:
    assert generator.class_names is not None
    z, pictures = generator.sample(1, stream(0, "check codes")), []
    for number in (0, len(generator.class_names) - 1):
        class_id = torch.tensor([number])
        ps = generator.encode(z, class_id)[:, None].expand(-1, generator.latent.layers, -1)  # [1, L, D]
        pictures.append(generator.synthesize(ps, class_id))
    if _largest(*pictures) < SAME:
        return Finding(
            "classes", False, "the first and the last draw the same picture", "does the module use class_id?"
        )
    return Finding("classes", True, f"{len(generator.class_names)}, which draw different pictures")


def _frozen(generator: Generator, layer: str) -> Finding:
    before = tensors_sha256(generator)
    ps, class_id = _example(generator, 2)
    output = generator.features(ps.requires_grad_(), layer, class_id)
    if output.requires_grad:
        output.sum().backward()
    wants = [name for name, p in generator.named_parameters() if p.requires_grad or p.grad is not None]
    training = [name for name, module in generator.named_modules() if module.training]
    if wants:
        return Finding("frozen", False, f"{wants[0]} collects gradients", "call self.freeze() at the end of __init__")
    if training:
        return Finding("frozen", False, f"{training[0] or 'the module'} is in training mode", "call self.freeze()")
    if tensors_sha256(generator) != before:
        return Finding("frozen", False, "a run changes its tensors", "do not write into buffers in forward")
    return Finding("frozen", True, "in inference mode, no gradient to a weight, and a run changes nothing")


def _gradient(generator: Generator, layer: str) -> Finding:
    count = generator.inputs_reaching(layer)
    if count == 0:
        advice = "no torch.no_grad, detach, round or argmax between the code and the layer; or choose another layer"
        return Finding(
            "gradient", False, f"none comes back from {layer} to the code, so no direction can learn", advice
        )
    which = "the code" if generator.latent.layers == 1 else f"{count} of {generator.latent.layers} latent inputs"
    return Finding("gradient", True, f"from {layer} to {which}, {generator.feature_size(layer)} values of a picture")


def _onnx(editor: FusedEditor, path: Path) -> Engine:
    export_onnx(editor, path)
    return OnnxEditor(path)


def _torchscript(editor: FusedEditor, path: Path) -> Engine:
    export_torchscript(editor, path)
    return TorchScriptEditor(path)


def _exported(editor: FusedEditor, name: str, make: Callable[[], Engine]) -> Finding:
    try:
        judge = Judge(editor, STRENGTHS, edited=EDITED)
        (report,) = check_parity(judge, {name: make()})
    except ConfigError:
        raise
    except LatentCLRError as error:
        text = str(error).replace("parity failed, nothing is published: ", "").replace(f"{name} export failed: ", "")
        return Finding(name, False, text, advice_for(str(error)))
    return Finding(name, True, f"draws the same, any number of rows: {str(report).partition(': ')[2]}")


def _cost(generator: Generator, editor: FusedEditor, graph: Path | None) -> Finding:
    ps, class_id = _example(generator, 1)
    with torch.no_grad():
        eager = _seconds(lambda: generator.synthesize(ps, class_id))
        with Live((*generator.parameters(), *generator.buffers())) as live:
            generator.synthesize(ps, class_id)
    text = f"{_duration(eager)} in PyTorch"
    if graph is not None:
        engine = OnnxEditor(graph)
        inputs = [tensor.numpy() for tensor in editor.example_inputs(1, 1)]
        text += f", {_duration(_seconds(lambda: engine(*inputs)))} in ONNX Runtime"
    weights = sum(t.numel() * t.element_size() for t in (*generator.parameters(), *generator.buffers()))
    text += (
        f", {torch.get_num_threads()} threads; {_megabytes(weights)} of weights, and {_megabytes(live.peak)} more while"
        " it is drawn"
    )
    return Finding("one picture", True, text)


def _seconds(run: Callable[[], Any]) -> float:
    took = []
    for _ in range(TIMED):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
        if sum(took) > 10 and len(took) > 1:  # the first has to warm up
            break
    return statistics.median(took[1:])


def _duration(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.3g} MiB"
