"""How much sooner a preview is there than the full picture, and where a picture's time goes, resolution by resolution.

    python benchmarks/preview.py --output benchmarks/results/preview_256.json
    python benchmarks/preview.py --precision int8 --output benchmarks/results/preview_256_int8.json

A StyleGAN2 with seeded weights and its preview are served by Triton; full pictures and previews take turns through
`EditClient`. Besides, editors that stop at other sizes take turns in bare
ONNX Runtime sessions. What one of them takes is what the layers up to there cost, so it is also the most that a client
could save by sending back what these layers gave last time ("reuse"), when only later layers are edited.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from common.engines import Arrays, Engine, onnx_engine, open_editor, random_rows, set_served_threads
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, finish, target
from common.timing import interleave, speed_up, summarise, table
from export_model import NAME, write_untrained

from export.editor import FusedEditor
from export.manifest import build_manifest
from export.onnx import export_onnx, split_weights
from export.options import TritonOptions
from export.preview import QUALITY, measure_likeness, preview_editor
from export.reduced import export_reduced
from export.repository import publish
from latentclr.generators.base import Generator
from latentclr.training.checkpoint import Checkpoint
from serving import EditClient, TritonServer
from serving.contract.certificate import Certificate, Gate
from serving.contract.layout import WEIGHTS_FILE, preview_of
from serving.contract.manifest import Preview, preview_entry
from serving.triton.ports import Ports

PAUSE_S = 0.01
AT_MOST = 1 / 3  # of the full picture's time, at 1024 pixels
COLUMNS = ("way", "pixels", "p50_ms", "p90_ms", "runs", "share", "kept_mib")


@click.command(cls=Benchmark)
@click.option("--resolution", type=click.IntRange(16), default=1024, show_default=True, help="Of the full pictures.")
@click.option("--preview", type=click.IntRange(8), default=256, show_default=True, help="Of the previews.")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True,
              help="Of the served previews.")  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="Timed requests of each.")
@click.option("--pictures", type=click.IntRange(1), default=6, show_default=True, help="Different requests.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0 for each one's own choice.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    resolution: int,
    preview: int,
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
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentclr-bench-")))
        write_untrained(folder / "run", "stylegan2", resolution)
        _, checkpoint, editor, end = open_editor(folder / "run")
        sizes = [size for size in editor.generator.previews() if size >= min(32, preview)]
        editors = {size: preview_editor(editor, size) for size in sizes} | {resolution: editor}
        if preview not in sizes:
            raise BenchmarkError(f"--preview must be one of {', '.join(map(str, sizes))}, got {preview}")
        graphs = {size: _export(one, folder / str(size)) for size, one in editors.items()}
        requests = [random_rows(editor, 1, end, seed) for seed in range(pictures)]
        certificate = None
        engines = {size: onnx_engine(graph, torch.device("cpu"), threads) for size, graph in graphs.items()}
        results = _sessions(editor.generator, engines, requests, runs)
        if precision != "fp32":
            graphs[preview], certificate = _reduced(editors[preview], precision, end, folder / precision)
            engines[preview] = onnx_engine(graphs[preview], torch.device("cpu"), threads)
        likeness = measure_likeness(_with_marks(engines[resolution]), _with_marks(engines[preview]), requests).as_dict()
        models = _publish(folder / "models", {NAME: resolution, preview_of(NAME): preview}, editors, graphs, checkpoint)
        for model in models:
            set_served_threads(folder / "models" / model, threads)
        engines.clear()  # their threads would be in the server's way
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
    promise = f"stylegan2 {resolution}: {what}: p50 over the full picture's, served"
    finish(
        "preview",
        start=start,
        settings={
            "resolution": resolution, "preview": preview, "precision": precision,
            "certificate": certificate.as_dict() if certificate else None, "runs": runs,
            "pictures": pictures, "threads": threads, "pause_s": PAUSE_S, "likeness": likeness,
        },
        results=results,
        targets=[target(promise, results[-1]["share"], **limit)],
        random_weights=True,
        note=note,
        output=output,
    )  # fmt: skip


def _export(editor: FusedEditor, folder: Path) -> Path:
    folder.mkdir()
    export_onnx(editor, folder / "model.onnx")
    split_weights(folder / "model.onnx", folder / WEIGHTS_FILE)
    return folder / "model.onnx"


def _reduced(editor: FusedEditor, precision: str, end: float, folder: Path) -> tuple[Path, Certificate]:
    """Return the preview's graph as `export --preview-precision` makes it, and its certificate."""
    folder.mkdir()
    alphas, ranges = (-end, -end / 2, end / 4, end), [(-end, end)] * editor.directions.k
    made, (certificate,) = export_reduced(
        editor, ("onnxruntime",), precision, Gate.parse(QUALITY), folder, alphas=alphas, ranges=ranges, say=click.echo
    )
    return made.files["onnxruntime"], certificate


def _publish(
    repository: Path,
    sizes: dict[str, int],
    editors: dict[int, FusedEditor],
    graphs: dict[int, Path],
    checkpoint: Checkpoint,
) -> list[str]:
    """Publish the full model and its preview, in this order, as `latentclr export` would; return their names."""
    manifests = {}
    for name, size in sizes.items():
        files = sorted(graphs[size].parent.iterdir())
        manifests[name] = build_manifest(name, editors[size].generator, checkpoint, files, [])
    (name, size), (small, preview) = sizes.items()
    manifests[name]["preview"] = preview_entry(
        Preview(editors[preview].generator.size, manifests[small]["files_sha256"])
    )
    beside = {small: ({"onnxruntime": graphs[preview]}, manifests[small])}
    publish(repository, name, {"onnxruntime": graphs[size]}, manifests[name], TritonOptions(max_batch_size=1), beside)
    return list(sizes)


def _with_marks(engine: Engine) -> Callable[..., Any]:
    return lambda *arrays: (engine(*arrays), None)


def _sessions(
    generator: Generator, engines: dict[int, Engine], requests: list[Arrays], runs: int
) -> list[dict[str, Any]]:
    """Time a graph that stops at each size, and say what is alive there: features and skip image."""
    turn = itertools.cycle(requests)
    calls = {str(size): (lambda engine=engine: engine(*next(turn))) for size, engine in engines.items()}
    taken = interleave(calls, runs, pause_s=PAUSE_S, slow_s=0.0)
    results = []
    for size in engines:
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
