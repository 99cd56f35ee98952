"""An export in reduced precision: search, table and picture, certificate; or one line that says why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from export.editor import FusedEditor
from export.engines import BACKENDS, DEFAULT, Graphs
from export.errors import ExportError
from export.frontier import frontier_picture, frontier_table
from export.onnx import OPSET, OnnxEditor, export_onnx, rename_input, split_weights
from export.options import PRECISIONS, TENSORRT, TritonOptions
from export.parity import EDITED, Arrays, Judge, check_robustness, parity_cases, slider_alphas, why_not
from export.precision import RANKING, Clock, Frontier, Lowered, search
from latentclr.errors import SaveError
from serving.contract.certificate import Certificate, Gate
from serving.contract.layout import WEIGHTS_FILE

CALIBRATION = 128  # edited pictures, and sixteen that are not
RANKING_SEED, _CALIBRATION_SEED = 1, 2  # other codes than the certificate's
REDUCED = ("onnxruntime", "openvino")  # the first that has what is asked for is taken by default
REFUSED = {
    "torchscript": "torchscript is published in fp32 only; leave it out, or export in fp32",
    ("onnxruntime", "bf16"): "ONNX Runtime has no bfloat16 arithmetic on CPUs: --engine openvino has, or --precision "
    "fp16 for a GPU",
    ("openvino", "fp16"): "fp16 is for GPUs, which onnxruntime serves; openvino has bf16 and int8",
}


def check_precision(
    precision: str,
    engines: Sequence[str] | None,
    options: TritonOptions,
    say: Callable[[str], None],
    preview: str = "fp32",
) -> Sequence[str]:
    """Return the engines to publish for, chosen or by default, if they have these precisions.

    Args:
        precision: Of the model.
        engines: Names; None for what is published by default.
        options: How it is to be served.
        say: Is told what the default is, where that is not the usual one.
        preview: Precision of its preview.

    Raises:
        ExportError: One does not, or TensorRT or the target does not go with it.
    """
    for one in (precision, preview):
        if one not in PRECISIONS:
            raise ExportError(f"precision must be one of {', '.join(PRECISIONS)}, got {one!r}")
    if options.tensorrt and options.tensorrt != precision:
        raise ExportError(
            f"TensorRT takes the precision from the graph (from TensorRT 11 on from there alone): --tensorrt "
            f"{options.tensorrt} needs --precision {options.tensorrt}, got {precision}"
        )
    if options.tensorrt and preview not in TENSORRT:
        raise ExportError(f"--tensorrt needs --preview-precision {' or '.join(TENSORRT)}, got {preview}")
    reduced = [one for one in dict.fromkeys((precision, preview)) if one != "fp32"]
    if reduced and engines is None:
        have = [engine for engine in REDUCED if not any((engine, one) in REFUSED for one in reduced)]
        if not have:
            raise ExportError(f"no engine has both --precision {precision} and --preview-precision {preview}")
        engines = have[:1]
        say(f"{' and '.join(reduced)}: only for {engines[0]}; TorchScript stays in fp32")
    engines = DEFAULT if engines is None else engines
    for one in reduced:
        for engine in engines:
            problem = REFUSED.get(engine) or REFUSED.get((engine, one))
            if problem:
                raise ExportError(problem)
    if "fp16" in reduced and options.target == "cpu":
        raise ExportError("fp16 is for GPUs: a CPU has no such arithmetic, so that it is slower there; got target cpu")
    if (options.tensorrt or options.cuda) and "onnxruntime" not in engines:
        raise ExportError(f"TensorRT and CUDA options are ONNX Runtime's, got --engine {' '.join(engines)}")
    return engines


@dataclass(frozen=True)
class Reference:
    """What graphs in reduced precision are made of and held against, however many engines there are.

    Attributes:
        onnx: The editor's graph in float32.
        ranges: Lowest and highest strength of each direction.
        judge: Of the certificate's pictures, up to these ends.
        ranking: Of the few that a search ranks operations on.
    """

    onnx: Path
    ranges: Sequence[tuple[float, float]]
    judge: Judge
    ranking: Judge


def reference_of(
    editor: FusedEditor,
    ranges: Sequence[tuple[float, float]],
    folder: Path,
    fed: torch.Tensor | None = None,
    opset: int = OPSET,
    edited: int = EDITED,
) -> Reference:
    """Write an editor's graph in float32, and choose the pictures.

    Args:
        editor: In float32, on the CPU.
        ranges: Lowest and highest strength of each direction, of the certificate and of ONNX Runtime's calibration.
        folder: New, for the graph.
        fed: Mask [L] of the latent inputs at which directions act by default; None for all.
        opset: ONNX operator set.
        edited: Edited pictures of the certificate, at least.
    """
    folder.mkdir()
    plain = folder / "model.onnx"
    export_onnx(editor, plain, opset)
    if editor.code_name != editor.input_names[0]:
        rename_input(plain, editor.input_names[0], editor.code_name)
    alphas = slider_alphas(ranges)
    judge = Judge(editor, alphas, fed, edited=edited)
    return Reference(plain, ranges, judge, Judge(editor, alphas, fed, RANKING_SEED, RANKING))


def export_reduced(
    reference: Reference,
    engines: Sequence[str],
    precision: str,
    gate: Gate,
    folder: Path,
    *,
    pictures: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Graphs, list[Certificate]]:
    """Write the editor in reduced precision for each engine: the fastest graph that holds the gate.

    Args:
        reference: The editor, see `reference_of`.
        engines: That have this precision, see `check_precision`.
        precision: bf16, fp16 or int8.
        gate: What must hold.
        folder: Where to write.
        pictures: Folder for `precision_ENGINE_PRECISION.png`, which shows what was tried; None for no picture.
        say: Receives the table, and what takes long.

    Raises:
        ExportError: No graph holds the gate and is faster than float32; the pictures are there all the same.
    """
    editor = reference.judge.editor
    made, certificates = Graphs(), []
    for engine in engines:
        lowered, clock = lowered_graph(reference, engine, precision, folder)
        found = search(lowered, reference.ranking, reference.judge, gate, folder, clock, say)
        for line in frontier_table(found):
            say(line)
        if pictures is not None:
            path = pictures / f"precision_{engine}_{precision}.png"
            try:
                frontier_picture(found, path, f"{editor.generator.name}, {engine} {precision}")
                say(f"time against error: {path}")
            except SaveError as error:  # the run's folder may be read-only: what was found is published all the same
                say(f"no picture of time against error: {error}")
        if found.best is None:
            raise ExportError(f"nothing is published: {why_none(found)}")
        target = folder / engine
        target.mkdir()
        built = lowered.build(found.best.keep, target)
        check_robustness(editor, engine, built.engine)
        graph = built.files[0]
        if engine == "onnxruntime":
            if split_weights(graph, target / WEIGHTS_FILE):
                made.weights.append(target / WEIGHTS_FILE)
            _check_published(graph, reference.ranking, gate)
        made.files[BACKENDS[engine]] = graph
        made.weights += built.files[1:]
        made.engines[engine] = built.engine
        assert found.best.measured is not None
        passed = not gate.misses(found.best.measured)
        certificates.append(Certificate(engine, precision, **found.best.measured, gate=gate.name, passed=passed))
    return made, certificates


def calibration_samples(
    editor: FusedEditor, ranges: Sequence[tuple[float, float]], fed: torch.Tensor | None = None
) -> list[Arrays]:
    """Return inputs to calibrate with: all directions, each in its own range, of codes that no certificate uses."""
    return [case.inputs for case in parity_cases(editor, slider_alphas(ranges), _CALIBRATION_SEED, fed, CALIBRATION)]


def why_none(found: Frontier) -> str:
    """Return why no graph of a search is to be published, in one line."""
    what = f"{found.engine} {found.precision}"
    slow = [point for point in found.points if point.passed]
    if slow:
        best = min(slow, key=lambda point: point.cost)
        return (
            f"{what} holds {found.gate.name} with {len(best.keep)} of {found.operations} operations in float32, and is "
            f"no faster: {best.cost:.1f} {found.unit}, float32 {found.reference:.1f}"
        )
    first, last = min(found.points, key=lambda point: point.cost), max(found.points, key=lambda point: len(point.keep))
    if found.reference <= first.cost < math.inf:
        return (
            f"{what} is no faster than float32 here ({first.cost:.1f} {found.unit}, float32 {found.reference:.1f}), "
            f"and misses {found.gate.name}: {first.why}"
        )
    kept = f" even with {len(last.keep)} of {found.operations} operations in float32" if last.keep else ""
    return f"{what} misses {found.gate.name}{kept}: {last.why}"


def lowered_graph(
    reference: Reference, engine: str, precision: str, folder: Path, rows: int = 1
) -> tuple[Lowered, Clock | None]:
    """Return what can be lowered, and a clock against the same engine in float32; see `export_reduced`.

    Args:
        reference: The editor.
        engine: That has the precision.
        precision: `bf16`, `fp16` or `int8`.
        folder: For files that are removed again.
        rows: Pictures of a request that is timed.
    """
    editor, plain = reference.judge.editor, reference.onnx
    request = tuple(tensor.numpy() for tensor in editor.example_inputs(rows, 1))
    if engine == "openvino":
        from export.openvino import OpenVINOEditor, export_openvino
        from export.openvino_lowered import BFloat16Graph
        from export.openvino_lowered import Int8Graph as OpenVINOInt8

        export_openvino(plain, plain.with_name("model.xml"))
        clock = Clock(OpenVINOEditor(plain.with_name("model.xml")), request)
        return (BFloat16Graph(plain) if precision == "bf16" else OpenVINOInt8(plain)), clock
    if precision == "int8":
        from export.int8 import Int8Graph

        samples = calibration_samples(editor, reference.ranges, reference.judge.fed)
        return Int8Graph(plain, samples, folder), Clock(OnnxEditor(plain), request)
    from export.half import HalfGraph

    return HalfGraph(plain), None  # a CPU's time says nothing of a GPU's


def _check_published(graph: Path, judge: Judge, gate: Gate) -> None:
    """Check the file itself where what was certified is a twin of it; on few pictures, since it rounds less."""
    engine = OnnxEditor(graph)
    check_robustness(judge.editor, "onnxruntime", engine)
    comparison = judge.compare({"onnxruntime": engine}, what="published graph")["onnxruntime"]
    if gate.misses(comparison.measured()):
        raise ExportError(f"the published graph is not its twin: {why_not(comparison, gate)}")
