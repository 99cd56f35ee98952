"""How much sooner a preview is there than the full picture, and where a picture's time goes, resolution by resolution.

    python benchmarks/preview.py --output benchmarks/results/preview_256.json
    python benchmarks/preview.py --engine openvino --precision int8 \\
        --output benchmarks/results/preview_256_openvino_int8.json

A StyleGAN2 with seeded weights and its preview are served by Triton; full pictures in float32 and previews take turns
through `EditClient`. Besides, editors that stop at other sizes take turns in bare sessions of the same engine. What one
of them takes is what the layers up to there cost, so it is also the most that a client could save by sending back what
these layers gave last time ("reuse"), when only later layers are edited.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from common.engines import Arrays, open_editor, random_rows
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, finish, target
from common.timing import interleave, speed_up, summarise, table
from export_model import NAME, write_untrained

from export.editor import FusedEditor
from export.engines import Graphs, export_graphs
from export.manifest import build_manifest
from export.onnx import OnnxEditor
from export.openvino import OpenVINOEditor
from export.options import TritonOptions
from export.parity import Engine
from export.preview import QUALITY, measure_likeness, preview_editor
from export.reduced import check_precision, export_reduced, reference_of
from export.repository import publish
from latentclr.generators.base import Generator
from latentclr.training.checkpoint import Checkpoint
from serving import EditClient, TritonServer
from serving.contract.certificate import Certificate, Gate
from serving.contract.layout import preview_of
from serving.contract.manifest import Preview, preview_entry
from serving.triton.ports import Ports

PAUSE_S = 0.01
AT_MOST = 1 / 3  # of the full picture's time, at 1024 pixels
COLUMNS = ("way", "pixels", "p50_ms", "p90_ms", "runs", "share", "kept_mib")
SESSIONS: dict[str, type[OnnxEditor] | type[OpenVINOEditor]] = {"onnxruntime": OnnxEditor, "openvino": OpenVINOEditor}


@click.command(cls=Benchmark)
@click.option("--resolution", type=click.IntRange(16), default=1024, show_default=True, help="Of the full pictures.")
@click.option("--preview", type=click.IntRange(8), default=256, show_default=True, help="Of the previews.")
@click.option("--engine", type=click.Choice([*SESSIONS]), default="onnxruntime", show_default=True, help="Of both.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "int8"]), default="fp32", show_default=True,
              help="Of the served previews.")  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="Timed requests of each.")
@click.option("--pictures", type=click.IntRange(1), default=6, show_default=True, help="Different requests.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0 for each one's own choice.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    resolution: int,
    preview: int,
    engine: str,
    precision: str,
    runs: int,
    pictures: int,
    threads: int,
    note: str | None,
    output: Path | None,
) -> None:
    """Measure full pictures and previews in turns."""
    start = describe_machine()
    if threads:
        torch.set_num_threads(threads)
    options = TritonOptions(max_batch_size=1, threads=threads)
    check_precision(precision, [engine], options, click.echo)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentclr-bench-")))
        write_untrained(folder / "run", "stylegan2", resolution)
        _, checkpoint, editor, end = open_editor(folder / "run")
        stops = [size for size in editor.generator.previews() if size >= min(32, preview)]
        editors = {size: preview_editor(editor, size) for size in stops} | {resolution: editor}
        if preview not in stops:
            raise BenchmarkError(f"--preview must be one of {', '.join(map(str, stops))}, got {preview}")
        graphs = {size: _export(one, engine, folder / str(size)) for size, one in editors.items()}
        requests = [random_rows(editor, 1, end, seed) for seed in range(pictures)]
        certificate = None
        sessions = {size: _session(made, engine, threads) for size, made in graphs.items()}
        results = _sessions(editor.generator, sessions, requests, runs)
        if precision != "fp32":
            graphs[preview], certificate = _reduced(editors[preview], engine, precision, end, folder / precision)
            sessions[preview] = _session(graphs[preview], engine, threads)
        likeness = measure_likeness(sessions[resolution], sessions[preview], requests).as_dict()
        sizes = {NAME: resolution, preview_of(NAME): preview}
        models = _publish(folder / "models", sizes, editors, graphs, checkpoint, options)
        sessions.clear()  # their threads would be in the server's way
        server = stack.enter_context(TritonServer(folder / "models", ports=Ports(0, 0, 0), models=models))
        client = stack.enter_context(EditClient(server.grpc_url, NAME))
        served = {
            "served, edit": lambda: client.edit(seed=7, edits={1: 1.5}),
            "served, preview": lambda: client.preview(seed=7, edits={1: 1.5}),
        }
        taken = interleave(served, runs, pause_s=PAUSE_S, slow_s=0.0)
        for (way, durations), size in zip(taken.items(), (resolution, preview), strict=True):
            share = round(1 / speed_up(taken["served, edit"], durations), 3)
            results.append({"way": way, "pixels": size} | summarise(durations) | {"share": share, "kept_mib": None})
    click.echo(table(results, COLUMNS))
    click.echo(f"likeness, with random weights: {likeness}")
    limit = {"at_most": round(AT_MOST, 3)} if resolution >= 1024 else {"at_most": 1.0}
    if certificate:
        click.echo(str(certificate))
    what = f"preview of {preview} pixels" + ("" if precision == "fp32" else f" in {precision}")
    what += "" if engine == "onnxruntime" else f" with {engine}"
    promise = f"stylegan2 {resolution}: {what}: p50 over the full picture's, served"
    finish(
        "preview",
        start=start,
        settings={
            "resolution": resolution, "preview": preview, "engine": engine, "precision": precision,
            "certificate": certificate.as_dict() if certificate else None, "runs": runs,
            "pictures": pictures, "threads": threads, "pause_s": PAUSE_S, "likeness": likeness,
        },
        results=results,
        targets=[target(promise, results[-1]["share"], **limit)],
        random_weights=True,
        note=note,
        output=output,
    )  # fmt: skip


def _export(editor: FusedEditor, engine: str, folder: Path) -> Graphs:
    folder.mkdir()
    made = export_graphs(editor, [engine], folder)
    made.engines.clear()  # loaded with all threads
    return made


def _session(made: Graphs, engine: str, threads: int) -> Engine:
    (graph,) = made.files.values()
    return SESSIONS[engine](graph, threads=threads)


def _reduced(editor: FusedEditor, engine: str, precision: str, end: float, folder: Path) -> tuple[Graphs, Certificate]:
    """Return the preview's graph as `export --preview-precision` makes it, and its certificate."""
    folder.mkdir()
    reference = reference_of(editor, [(-end, end)] * editor.directions.k, folder / "float32")
    made, (certificate,) = export_reduced(reference, (engine,), precision, Gate.parse(QUALITY), folder, say=click.echo)
    made.engines.clear()
    return made, certificate


def _publish(
    repository: Path,
    sizes: dict[str, int],
    editors: dict[int, FusedEditor],
    graphs: dict[int, Graphs],
    checkpoint: Checkpoint,
    options: TritonOptions,
) -> list[str]:
    """Publish the full model and its preview, in this order, as `latentclr export` would; return their names."""
    manifests = {}
    for name, size in sizes.items():
        manifests[name] = build_manifest(name, editors[size].generator, checkpoint, graphs[size].all_files, [])
    (name, size), (small, preview) = sizes.items()
    manifests[name]["preview"] = preview_entry(
        Preview(editors[preview].generator.size, manifests[small]["files_sha256"])
    )
    beside = {small: (graphs[preview].files, manifests[small])}
    publish(repository, name, graphs[size].files, manifests[name], options, beside)
    return list(sizes)


def _sessions(
    generator: Generator, sessions: dict[int, Engine], requests: list[Arrays], runs: int
) -> list[dict[str, Any]]:
    """Time a graph that stops at each size, and say what is alive there: features and skip image."""
    turn = itertools.cycle(requests)
    calls = {str(size): (lambda session=session: session(*next(turn))) for size, session in sessions.items()}
    taken = interleave(calls, runs, pause_s=PAUSE_S, slow_s=0.0)
    results = []
    for size in sessions:
        kept = None
        if size < generator.resolution:
            values = generator.feature_size(f"convs.{2 * size.bit_length() - 7}") + 3 * size * size
            kept = round(values * 4 / 2**20, 2)
        share = round(1 / speed_up(taken[str(generator.resolution)], taken[str(size)]), 3)
        times = summarise(taken[str(size)])
        results.append({"way": "session", "pixels": size} | times | {"share": share, "kept_mib": kept})
    return results


if __name__ == "__main__":
    main()
