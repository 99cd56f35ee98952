"""How much sooner a preview is there than the full picture, and where a picture's time goes, resolution by resolution.

    python benchmarks/preview.py --output benchmarks/results/preview.json

A StyleGAN2 with seeded weights is exported with a preview, which proves both graphs, and served by Triton; full
pictures and previews take turns through `EditClient`. Besides, editors that stop at other sizes take turns in bare
ONNX Runtime sessions. What one of them takes is what the layers up to there cost, so it is also the most that a client
could save by sending back what these layers gave last time ("reuse"), when only later layers are edited.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from common.engines import onnx_engine, random_rows, set_served_threads
from common.machine import describe_machine
from common.report import Benchmark, finish, target
from common.timing import interleave, speed_up, summarise, table
from export_model import NAME, export_apart
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.editor import FusedEditor
from export.onnx import export_onnx
from export.preview import preview_editor
from latentclr.config import TrainConfig, slider_end
from latentclr.training.experiment import open_run, trained_generator
from serving import EditClient, TritonServer
from serving.contract.layout import preview_of
from serving.contract.manifest import parse_manifest
from serving.triton.ports import Ports

PAUSE_S = 0.01
AT_MOST = 1 / 3  # of the full picture's time, at 1024 pixels
COLUMNS = ("way", "pixels", "p50_ms", "p90_ms", "runs", "share", "kept_mib")


@click.command(cls=Benchmark)
@click.option("--resolution", type=click.IntRange(16), default=1024, show_default=True, help="Of the full pictures.")
@click.option("--preview", type=click.IntRange(8), default=256, show_default=True, help="Of the previews.")
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="Timed requests of each.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0 for each one's own choice.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(resolution: int, preview: int, runs: int, threads: int, note: str | None, output: Path | None) -> None:
    """Measure full pictures and previews in turns."""
    start = describe_machine()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentclr-bench-")))
        exported = export_apart(folder, "stylegan2", resolution, None, 1, threads, preview)
        models = [NAME, preview_of(NAME)]
        for model in models:
            set_served_threads(folder / "models" / model, threads)
        config, checkpoint = open_run(Path(exported["run"]), [], TrainConfig)
        editor = FusedEditor(trained_generator(config, checkpoint), checkpoint.directions)
        requests = [random_rows(editor, 1, slider_end(checkpoint.config["model"]["alpha"]), seed) for seed in range(4)]
        results = _sessions(editor, folder, Path(exported["files"]["model.onnx"]), requests, runs, threads)
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
        text = (folder / "models" / preview_of(NAME) / "config.pbtxt").read_text()
        manifest = text_format.Parse(text, pb.ModelConfig()).parameters["manifest"].string_value
        likeness = dict(parse_manifest(manifest).likeness)
    click.echo(table(results, COLUMNS))
    click.echo(f"likeness, with random weights: {likeness}")
    limit = {"at_most": round(AT_MOST, 3)} if resolution >= 1024 else {"at_most": 1.0}
    promise = f"stylegan2 {resolution}: preview of {preview} pixels: p50 over the full picture's, served"
    finish(
        "preview",
        start=start,
        settings={"resolution": resolution, "preview": preview, "runs": runs, "threads": threads, "pause_s": PAUSE_S,
                  "likeness": likeness},
        results=results,
        targets=[target(promise, results[-1]["share"], **limit)],
        random_weights=True,
        note=note,
        output=output,
    )  # fmt: skip


def _sessions(
    editor: FusedEditor, folder: Path, whole: Path, requests: list[Any], runs: int, threads: int
) -> list[dict[str, Any]]:
    """Time the full graph and one that stops at each size, and say what is alive there: features and skip image."""
    generator, place, turn = editor.generator, torch.device("cpu"), [0]
    paths, kept = {generator.resolution: whole}, {}
    for size in (size for size in generator.previews() if size >= min(32, generator.resolution // 2)):
        paths[size] = folder / f"{size}.onnx"
        export_onnx(preview_editor(editor, size), paths[size])
        values = generator.feature_size(f"convs.{2 * size.bit_length() - 7}") + 3 * size * size
        kept[size] = round(values * 4 / 2**20, 2)
    sessions = {size: onnx_engine(path, place, threads) for size, path in sorted(paths.items())}

    def call(size: int) -> object:
        turn[0] += 1
        return sessions[size](*requests[turn[0] % len(requests)])

    calls = {str(size): (lambda size=size: call(size)) for size in sessions}
    taken = interleave(calls, runs, pause_s=PAUSE_S, slow_s=0.0)
    base = taken[str(generator.resolution)]
    return [
        {"way": "session", "pixels": size}
        | summarise(taken[str(size)])
        | {"share": round(1 / speed_up(base, taken[str(size)]), 3), "kept_mib": kept.get(size)}
        for size in sessions
    ]


if __name__ == "__main__":
    main()
