"""How long an edit takes: eager PyTorch, TorchScript, ONNX Runtime, OpenVINO, and served by Triton over gRPC.

    python benchmarks/edit_latency.py --batch 1,8 --output benchmarks/results/edit_latency_dcgan.json
    python benchmarks/edit_latency.py --generator biggan --resolution 128
    python benchmarks/edit_latency.py --generator stylegan2 --resolution 1024 --folder outputs/bench-1024
    python benchmarks/edit_latency.py --generator stylegan3-r --batch 1
    python benchmarks/edit_latency.py --generator stylegan3-r --resolution 1024 --batch 1 --no-publish

All engines take turns in one run on the same requests, and their pictures are compared with our eager PyTorch on the
CPU. The server is started here, on free ports, over a repository that has just been exported; the bare ONNX Runtime
session and the served one read the same file with the same thread settings. BigGAN, StyleGAN2 and
StyleGAN3 (T; stylegan3-r is R) have random weights of full size unless --run brings others, and the thing to be faster
than is the package's module, the reference's way or the plain form of the operations.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
import tritonclient.grpc as triton
from common.engines import (
    Arrays,
    Engine,
    compiled_engine,
    has_cuda_session,
    load_torchscript,
    mean_server_times,
    onnx_engine,
    open_editor,
    random_rows,
    raw_grpc_engine,
    server_times,
    set_served_threads,
    steps_apart,
    torch_engine,
)
from common.machine import describe_machine
from common.promises import COMPARED, PACKAGE, PLAIN, REFERENCE, edit_targets
from common.report import Benchmark, BenchmarkError, Numbers, finish
from common.timing import affordable_runs, interleave, speed_up, summarise, table
from common.work import gflop_per_image, matrix_product_peak
from export_model import NAME, RESOLUTIONS, export_apart, resolution_of, write_untrained
from references.grouped_stylegan2 import load_grouped_stylegan2
from references.openvino import has_openvino, openvino_engine, precisions
from references.package_biggan import load_package_biggan
from references.plain_stylegan3 import load_plain_stylegan3
from references.tiers import export_tier, split_tier, tier_engine, tier_model, tier_row

from export.editor import FusedEditor
from export.onnx import export_onnx
from latentclr.config import BigGANConfig, StyleGAN2Config, TrainConfig
from latentclr.generators.base import Generator
from latentclr.generators.biggan.biggan import BigGAN
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.generators.stylegan3.config import StyleGAN3Config
from latentclr.generators.stylegan3.stylegan3 import StyleGAN3
from serving import EditClient, TritonServer
from serving.triton.ports import Ports

PAUSE_S, SLOW_S = 0.01, 0.25
COLUMNS = ("batch", "engine", "p50_ms", "p90_ms", "min_ms", "runs", "images_per_s", "speed_up", "gflops",
           "percent_of_peak", "worst_step", "mean_step")  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A running server's two clients."""

    edit: EditClient
    raw: Any


@click.command(cls=Benchmark)
@click.option("--generator", type=click.Choice(list(RESOLUTIONS)), default="dcgan", show_default=True,
              help="What to export where no --run is given.")  # fmt: skip
@click.option("--resolution", type=click.IntRange(1), help=f"Of its pictures; {RESOLUTIONS} if not given.")
@click.option("--run", type=click.Path(path_type=Path), help="Run folder to export instead.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False),
              help="Keep the export here, and use the one that is here already.")  # fmt: skip
@click.option("--batch", "batches", type=Numbers(), default="1,8", show_default=True, help="Images in a request.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where to draw.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True,
              help="Of every engine, the served one too; 0 for each one's own choice.")  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=200, show_default=True, help="Timed requests of each engine.")
@click.option("--seconds", type=click.FloatRange(0), default=20.0, show_default=True,
              help="Fewer runs, but five, where an engine needs longer than this.")  # fmt: skip
@click.option("--requests", "variety", type=click.IntRange(1), default=8, show_default=True,
              help="Different requests, taken in turn and compared.")  # fmt: skip
@click.option("--compile/--no-compile", "compiled", default=None, help="torch.compile too; default: for BigGAN.")
@click.option("--publish/--no-publish", default=True, show_default=True,
              help="Without: of graphs only ONNX Runtime's, not proven before nor served.")  # fmt: skip
@click.option("--serve/--no-serve", default=True, show_default=True, help="Start Triton and measure it too.")
@click.option("--tier", "tiers", multiple=True, metavar="ENGINE:PRECISION",
              help="An export with its certificate too, such as openvino:bf16; repeat it.")  # fmt: skip
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    generator: str,
    resolution: int | None,
    run: Path | None,
    folder: Path | None,
    batches: tuple[int, ...],
    device: str,
    threads: int,
    runs: int,
    seconds: float,
    variety: int,
    compiled: bool | None,
    publish: bool,
    serve: bool,
    tiers: tuple[str, ...],
    note: str | None,
    output: Path | None,
) -> None:
    """Measure the latency of an edit on every engine."""
    start, place = describe_machine(), torch.device(device)
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchmarkError("--device cuda: PyTorch finds no GPU here")
    if tiers and not publish:
        raise BenchmarkError("--tier measures what is published: leave out --no-publish")
    for tier in tiers:
        split_tier(tier)
    if threads:
        torch.set_num_threads(threads)
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentclr-bench-")))
        if publish:
            exported = export_apart(folder, generator, resolution, run, max(batches), threads)
            set_served_threads(folder / "models" / NAME, threads)
        else:
            exported = _not_published(folder, generator, resolution, run)
        files = {name: Path(path) for name, path in exported["files"].items()}
        config, _, editor, end = open_editor(Path(exported["run"]))
        requests = {rows: [random_rows(editor, rows, end, seed) for seed in range(variety)] for rows in batches}
        on_cpu = torch_engine(editor, torch.device("cpu"))
        expected = {rows: [on_cpu(*arrays) for arrays in requests[rows]] for rows in batches}
        first = requests[batches[0]][0]
        gflop = {"eager": gflop_per_image(editor, first)}
        peaks = {str(t).removeprefix("torch."): matrix_product_peak(t) for t in (torch.float32, torch.bfloat16)}

        engines: dict[str, Engine] = {}
        compared = _compared(config, editor)
        if compared is not None:
            name, other = compared
            gflop[name] = gflop_per_image(other, first)
            engines[name] = torch_engine(other.to(place), place)
        engines["eager"] = torch_engine(editor.to(place), place)
        if compiled if compiled is not None else editor.generator.name == "biggan":
            with _left_out("torch.compile"):
                engines["torch.compile"] = compiled_engine(editor, place, first)
        has_session = device == "cpu" or has_cuda_session()
        if publish:
            engines |= _graphs(files, place, threads, has_session)
        elif has_session:
            written = folder / "model.onnx"
            export_onnx(editor.cpu(), written)
            # Beside PyTorch's, the 9 GiB of a picture of StyleGAN3-R at 1024 pixels are too many for 24.
            engines["onnxruntime"] = onnx_engine(written, place, threads, keep_memory=False)
            editor.to(place)
        certificates: dict[str, Any] = {}
        for tier in tiers:
            with _left_out(tier_row(tier)):
                made = export_tier(Path(exported["run"]), folder / "models", tier, max(batches), threads)
                engines[tier_row(tier)] = tier_engine(folder / "models", tier, threads)
                certificates[tier] = made
        models = [NAME, *(tier_model(tier) for tier in certificates)]
        served = stack.enter_context(_server(folder / "models", models)) if serve and publish and has_session else None
        if served is not None:
            engines["served, EditClient"] = lambda *arrays: served.edit.edit_rows(*arrays).images
            engines["served, raw gRPC"] = raw_grpc_engine(served.raw, NAME, editor.input_names)
            for tier in certificates:
                engines[f"served, {' '.join(split_tier(tier))}"] = raw_grpc_engine(
                    served.raw, tier_model(tier), editor.input_names
                )
        base = next(iter(engines))
        results: list[dict[str, Any]] = []
        for rows in batches:
            before = server_times(served.raw, NAME) if served else None
            table_rows = _measure(engines, requests[rows], expected[rows], runs, seconds)
            if served and before:
                server_side = mean_server_times(before, server_times(served.raw, NAME))
                for row in table_rows:
                    if row["engine"].startswith("served"):
                        row["server"] = server_side
            results += table_rows
        peaks = {name: max(peak, matrix_product_peak(getattr(torch, name))) for name, peak in peaks.items()}
        for row in results:
            work = gflop.get(row["engine"], gflop["eager"])
            row["gflop_per_image"] = round(work, 3)
            row["gflops"] = round(work * row["batch"] / row["p50_ms"] * 1e3, 1)
            row["percent_of_peak"] = round(100 * row["gflops"] / peaks["float32"], 1)
        round_trip = _round_trip(served, runs) if served else None
        settings = {
            "device": device, "threads": threads, "runs": runs, "seconds": seconds, "requests": variety, "edits": 1,
            "pause_s": PAUSE_S, "generator": _family(editor.generator), "resolution": editor.generator.resolution,
            "k": editor.directions.k, "directions": exported["directions"], "speed_up_over": base,
            "matrix_product_peak_gflops": {name: round(peak, 1) for name, peak in peaks.items()},
            "export_s": exported["export_s"], "export_peak_mib": exported["export_peak_mib"],
            "empty_round_trip": round_trip, "certificates": certificates,
            "triton": served.raw.get_server_metadata().version if served else None,
        }  # fmt: skip
    click.echo(table(results, COLUMNS))
    for row in results:
        if "server" in row and row["engine"] == "served, EditClient":
            click.echo(f"Triton's own account, batch {row['batch']}: {row['server']}")
    export = f"; export {exported['export_s']} s, {exported['export_peak_mib']} MiB" if publish else ""
    click.echo(
        f"{', '.join(f'{name} {work:.2f}' for name, work in gflop.items())} GFLOP an image; matrix product peak"
        f" {settings['matrix_product_peak_gflops']} GFLOP/s{export}"
    )
    if round_trip:
        click.echo(f"empty gRPC round trip: p50 {round_trip['p50_ms']} ms")
    finish(
        "edit_latency",
        start=start,
        settings=settings,
        results=results,
        targets=edit_targets(results, settings),
        random_weights=editor.generator.random_weights,
        note=note,
        output=output,
    )


def _not_published(folder: Path, generator: str, resolution: int | None, run: Path | None) -> dict[str, Any]:
    """Return the record of an export that did not take place: of a run, or of one made here without training."""
    made = run is None
    folder.mkdir(parents=True, exist_ok=True)
    if run is None:
        run = folder / "run"
        write_untrained(run, generator, resolution_of(generator, resolution))
    return {"run": str(run), "directions": "untrained" if made else "trained", "files": {}, "export_s": None,
            "export_peak_mib": None}  # fmt: skip


def _graphs(files: dict[str, Path], place: torch.device, threads: int, has_session: bool) -> dict[str, Engine]:
    """Return the engines that read an exported graph, and say which cannot be had here."""
    engines = {"torchscript": torch_engine(load_torchscript(files["model.pt"], place), place)}
    if has_session:
        engines["onnxruntime"] = onnx_engine(files["model.onnx"], place, threads)
    else:
        click.echo("onnxruntime and served: left out, this ONNX Runtime has no CUDA provider")
    if place.type == "cpu" and has_openvino():
        for precision in precisions():
            engines[f"openvino {precision}"] = openvino_engine(files["model.onnx"], precision, threads)
    else:
        missing = "not installed: pip install 'latentclr[openvino]'"
        click.echo("openvino: left out, " + ("it runs on the CPU here" if place.type == "cuda" else missing))
    return engines


def _family(generator: Generator) -> str:
    """Return the generator's name as --generator has it."""
    radial = isinstance(generator, StyleGAN3) and any(hasattr(part, "down_both") for part in generator.modules())
    return f"{generator.name}-r" if radial else generator.name


def _compared(config: TrainConfig, editor: FusedEditor) -> tuple[str, FusedEditor] | None:
    """Return the name and the editor of what ours is to be faster than; None for the faces, where it is our eager."""
    other: Any = None
    with _left_out(COMPARED.get(editor.generator.name, "")):
        if isinstance(config.generator, BigGANConfig) and isinstance(editor.generator, BigGAN):
            other = PACKAGE, load_package_biggan(config.generator, editor.generator)
        if isinstance(config.generator, StyleGAN2Config) and isinstance(editor.generator, StyleGAN2):
            other = REFERENCE, load_grouped_stylegan2(config.generator, editor.generator)
        if isinstance(config.generator, StyleGAN3Config) and isinstance(editor.generator, StyleGAN3):
            other = PLAIN, load_plain_stylegan3(config.generator, editor.generator)
    return None if other is None else (other[0], FusedEditor(other[1], editor.directions))


@contextlib.contextmanager
def _left_out(engine: str) -> Iterator[None]:
    """Say in one line that an engine cannot be had here, and go on without it."""
    try:
        yield
    except (BenchmarkError, RuntimeError) as error:
        click.echo(f"{engine}: left out, {str(error).splitlines()[0][:200]}")


@contextlib.contextmanager
def _server(repository: Path, models: list[str]) -> Iterator[Served]:
    # Only what is measured is loaded: another model's idle threads would be in its way.
    with TritonServer(repository, ports=Ports(0, 0, 0), models=models) as server:
        raw = triton.InferenceServerClient(server.grpc_url, channel_args=[("grpc.enable_http_proxy", 0)])
        with contextlib.closing(raw), EditClient(server.grpc_url, NAME) as client:
            yield Served(client, raw)


def _measure(
    engines: dict[str, Engine], requests: list[Arrays], expected: list[Any], runs: int, seconds: float
) -> list[dict[str, Any]]:
    apart, once = {}, {}
    for name, run in engines.items():
        start = time.perf_counter()
        images = [run(*arrays) for arrays in requests]
        once[name] = (time.perf_counter() - start) / len(requests)
        apart[name] = steps_apart(images, expected)
    calls = {name: _next_request(run, requests) for name, run in engines.items()}
    taken = interleave(calls, affordable_runs(once, runs, seconds), pause_s=PAUSE_S, slow_s=SLOW_S)
    rows, base = len(expected[0]), next(iter(engines))
    return [
        {"batch": rows, "engine": name}
        | summarise(taken[name], rows)
        | {"speed_up": speed_up(taken[base], taken[name]), **apart[name]}
        for name in engines
    ]


def _next_request(run: Engine, requests: list[Arrays]) -> Callable[[], object]:
    turn = itertools.cycle(requests)
    return lambda: run(*next(turn))


def _round_trip(served: Served, runs: int) -> dict[str, Any]:
    taken = interleave({"live": served.raw.is_server_live}, runs, pause_s=PAUSE_S)
    return summarise(taken["live"])


if __name__ == "__main__":
    main()
