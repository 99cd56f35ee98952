"""What each engine gains in each precision, as far as the certificate holds, over the published way to draw a picture.

    python benchmarks/precision.py --generator biggan --output benchmarks/results/precision_biggan_128.json
    python benchmarks/precision.py --generator stylegan2 --resolution 1024 --edited 64

Every tier is found by the search of `latentclr export --precision`, and all that hold their gate then take turns in one
run with the reference: the package's module, the grouped StyleGAN2, or for the faces our eager one. Times are of one
request of --batch pictures; without --run the large generators have random weights and directions before training.
On a CPU with AVX-512 that has no bfloat16 OpenVINO emulates it: its errors are measured all the same, and its time is
bounded, as if what is in bfloat16 took none.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch
from common.engines import Arrays, open_editor, random_rows, torch_engine
from common.machine import describe_machine
from common.promises import COMPARED, EAGER, PACKAGE, REFERENCE
from common.report import Benchmark, finish, target
from common.timing import affordable_runs, interleave, speed_up, summarise, table
from common.work import gflop_per_image, matrix_product_peak
from references.grouped_stylegan2 import load_grouped_stylegan2
from references.package_biggan import load_package_biggan

from export.editor import FusedEditor
from export.errors import ExportError
from export.frontier import frontier_table, gate_share
from export.onnx import OnnxEditor
from export.openvino import OpenVINOEditor, export_openvino
from export.openvino_lowered import BFloat16Graph
from export.parity import Engine
from export.precision import Clock, Frontier, Lowered, search
from export.reduced import lowered_graph, reference_of, why_none
from latentclr.config import BigGANConfig, DCGANConfig, GeneratorConfig, StyleGAN2Config
from latentclr.generators.biggan.biggan import BigGAN
from latentclr.generators.registry import build_generator
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.method.directions import build_directions
from serving.contract.certificate import GATES, Gate
from serving.contract.openvino_engine import has_bf16

RESOLUTIONS = {"dcgan": 64, "biggan": 128, "stylegan2": 256}
K, END = 16, 6.0  # directions and slider of a generator that comes without a run
PAUSE_S, SLOW_S = 0.01, 0.25
COLUMNS = ("engine", "kept", "p50_ms", "min_ms", "runs", "speed_up", "worst_step", "mean_step", "psnr_db", "ssim",
           "edit_fidelity", "gate", "passed")  # fmt: skip


def _onnxruntime(plain: Path) -> Engine:
    return OnnxEditor(plain)


def _openvino(plain: Path) -> Engine:
    export_openvino(plain, plain.with_name("model.xml"))
    return OpenVINOEditor(plain.with_name("model.xml"))


ENGINES: Mapping[str, Callable[[Path], Engine]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
"""Engine -> what loads the ONNX file in float32."""
TIERS = (("onnxruntime", "int8"), ("openvino", "bf16"), ("openvino", "int8"), ("onnxruntime", "fp16"))
# (generator, resolution) -> CPU's flag -> times faster than the reference at batch 1, certified; the first flag counts
WANTED = {
    ("biggan", 128): {"amx_bf16": 8.0, "avx512_bf16": 4.0},
    ("stylegan2", 256): {"avx512f": 4.0},
    ("stylegan2", 1024): {"avx512f": 8.0},
}


@click.command(cls=Benchmark)
@click.option("--generator", type=click.Choice(list(RESOLUTIONS)), default="dcgan", show_default=True, help="Which.")
@click.option("--resolution", type=click.IntRange(1), help=f"Of its pictures; {RESOLUTIONS} if not given.")
@click.option("--run", type=click.Path(path_type=Path), help="Run folder instead, for trained directions.")
@click.option("--tier", "tiers", multiple=True, type=click.Choice([" ".join(tier) for tier in TIERS]),
              help="Only these; all if not given.")  # fmt: skip
@click.option("--quality", default="certified", show_default=True, help="What they must hold.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Pictures of a timed request.")
@click.option("--edited", type=click.IntRange(8), default=200, show_default=True, help="Edited pictures to compare.")
@click.option("--runs", type=click.IntRange(1), default=50, show_default=True, help="Timed requests of each engine.")
@click.option("--seconds", type=click.FloatRange(0), default=10.0, show_default=True,
              help="Fewer runs, but five, where an engine needs longer than this.")  # fmt: skip
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    generator: str,
    resolution: int | None,
    run: Path | None,
    tiers: tuple[str, ...],
    quality: str,
    batch: int,
    edited: int,
    runs: int,
    seconds: float,
    note: str | None,
    output: Path | None,
) -> None:
    """Measure time and error of every precision tier."""
    start, gate = describe_machine(), Gate.parse(quality)
    config, editor, end = _editor(generator, resolution or RESOLUTIONS[generator], run)
    name, rival = _rival(config, editor)
    engines: dict[str, Engine] = {name: torch_editor(rival)}
    rows: list[dict[str, Any]] = [{"engine": name}]
    frontiers: dict[str, Any] = {}
    peaks = {kind: matrix_product_peak(getattr(torch, kind)) for kind in ("float32", "bfloat16", "int8")}
    with tempfile.TemporaryDirectory(prefix="latentclr-bench-") as temporary:
        folder = Path(temporary)
        reference = reference_of(editor, [(-end, end)] * editor.directions.k, folder / "float32", edited=edited)
        plain, judge = reference.onnx, reference.judge
        for engine, load in ENGINES.items():
            try:
                loaded = load(plain)
                comparison = judge.compare({engine: loaded}, click.echo)[engine]
            except ExportError as error:
                click.echo(f"{engine}: left out, {error}")
                continue
            certificate = comparison.certificate(engine, "fp32", GATES["exact"])
            click.echo(str(certificate))
            engines[f"{engine} fp32"] = loaded
            rows.append({**certificate.as_dict(), "engine": f"{engine} fp32", "kept": "all"})
        for engine, precision in TIERS:
            tier = f"{engine} {precision}"
            if f"{engine} fp32" not in engines or (tiers and tier not in tiers):
                continue
            lowered: Lowered
            clock: Clock | None
            try:
                if precision == "bf16" and not has_bf16() and "avx512f" in start["cpu_flags"]:
                    lowered, clock = BFloat16Graph(plain, emulated=True), None
                else:
                    lowered, clock = lowered_graph(reference, engine, precision, folder, batch)
            except ExportError as error:
                click.echo(f"{tier}: left out, {error}")
                continue
            found = search(lowered, reference.ranking, judge, gate, folder, clock, click.echo)
            click.echo("\n".join([tier, *frontier_table(found)]))
            frontiers[tier] = _points(found)
            if found.best is None:
                click.echo(why_none(found))
                continue
            assert found.best.measured is not None
            rows.append(
                {"engine": tier, "kept": f"{len(found.best.keep)} of {found.operations}", "gate": gate.name,
                 "passed": True, **found.best.measured}
            )  # fmt: skip
            if clock is not None:  # float16 is for GPUs, and bfloat16 for CPUs that have it
                target_folder = folder / tier.replace(" ", "-")
                target_folder.mkdir()
                engines[tier] = lowered.build(found.best.keep, target_folder).engine
        _time(engines, rows, random_rows(editor, batch, end, 0), runs, seconds)
        _bound(frontiers, rows)
    peaks = {kind: max(peak, matrix_product_peak(getattr(torch, kind))) for kind, peak in peaks.items()}
    settings = {
        "generator": editor.generator.name, "resolution": editor.generator.resolution, "batch": batch, "edited": edited,
        "quality": gate.name, "runs": runs, "seconds": seconds, "speed_up_over": name,
        "gflop_per_image": round(gflop_per_image(editor, random_rows(editor, 1, end, 0)), 3),
        "matrix_product_peak_gops": {kind: round(peak, 1) for kind, peak in peaks.items()},
        "frontiers": frontiers,
    }  # fmt: skip
    click.echo(table(rows, COLUMNS))
    click.echo(f"matrix product peak, billions of operations a second: {settings['matrix_product_peak_gops']}")
    finish("precision", start=start, settings=settings, results=rows, targets=_targets(rows, settings, start),
           random_weights=editor.generator.random_weights, note=note, output=output)  # fmt: skip


def torch_editor(editor: FusedEditor) -> Engine:
    """Return an eager editor as an engine."""
    draw = torch_engine(editor, torch.device("cpu"))
    return lambda *arrays: (draw(*arrays), None)  # type: ignore[return-value]


def _editor(name: str, resolution: int, run: Path | None) -> tuple[Any, FusedEditor, float]:
    if run is not None:
        config, _, editor, end = open_editor(run)
        return config.generator, editor, end
    configs: dict[str, GeneratorConfig] = {
        "dcgan": DCGANConfig(),
        "biggan": BigGANConfig(weights="random", resolution=resolution),
        "stylegan2": StyleGAN2Config(weights=f"random:{resolution}"),
    }
    generator = build_generator(configs[name])
    directions = build_directions("nonlinear", K, generator.latent.dim, torch.Generator().manual_seed(0), depth=2)
    return configs[name], FusedEditor(generator, directions), END


def _rival(config: Any, editor: FusedEditor) -> tuple[str, FusedEditor]:
    generator: Any = editor.generator
    if isinstance(config, BigGANConfig) and isinstance(generator, BigGAN):
        return PACKAGE, FusedEditor(load_package_biggan(config, generator), editor.directions)
    if isinstance(config, StyleGAN2Config) and isinstance(generator, StyleGAN2):
        return REFERENCE, FusedEditor(load_grouped_stylegan2(config, generator), editor.directions)
    return EAGER, editor


def _time(
    engines: Mapping[str, Engine], rows: list[dict[str, Any]], request: Arrays, runs: int, seconds: float
) -> None:
    """Time all engines in turns, and write what they took into their rows."""
    calls = {name: (lambda engine=engine: engine(*request)) for name, engine in engines.items()}
    once = {name: taken[0] for name, taken in interleave(calls, 1, warm_up=1, settle=0).items()}
    taken = interleave(calls, affordable_runs(once, runs, seconds), pause_s=PAUSE_S, slow_s=SLOW_S)
    base = next(iter(engines))
    for row in rows:
        if (name := row["engine"]) in taken:
            row |= summarise(taken[name], len(request[0])) | {"speed_up": speed_up(taken[base], taken[name])}


def _bound(frontiers: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write beside bfloat16 that could not be timed what it would gain if what is lowered took no time at all."""
    found = frontiers.get("openvino bf16")
    if found is not None and found["unit"] != "ms":
        (float32,) = (row["speed_up"] for row in rows if row["engine"] == "openvino fp32")
        share = min((point["of_float32"] for point in found["points"] if point["best"]), default=1.0)
        found["speed_up_below"] = round(float32 / share, 2) if share else None


def _points(found: Frontier) -> dict[str, Any]:
    """Return what was tried as plain data; `of_float32` is the share of the same engine's time in float32."""
    return {
        "operations": found.operations,
        "unit": found.unit,
        "points": [
            {
                "kept": len(point.keep), "of_float32": round(point.cost / found.reference, 4), "proven": point.proven,
                "passed": point.passed, "best": point is found.best,
                "gate_share": round(gate_share(point.measured, found.gate), 3), **(point.measured or {}),
            }
            for point in found.points
            if math.isfinite(point.cost)
        ],
    }  # fmt: skip


def _targets(
    rows: list[dict[str, Any]], settings: Mapping[str, Any], machine: Mapping[str, Any]
) -> list[dict[str, Any]]:
    held = [row for row in rows if row.get("passed") and "speed_up" in row]
    wanted = WANTED.get((settings["generator"], settings["resolution"]), {})
    least = next((times for flag, times in wanted.items() if flag in machine["cpu_flags"]), None)
    targets = [
        target("float32 engines: worst difference of a pixel, steps",
               max((row["worst_step"] for row in rows if row.get("precision") == "fp32"), default=0), at_most=1)
    ]  # fmt: skip
    if (
        least is not None
        and held
        and settings["batch"] == 1
        and settings["speed_up_over"] == COMPARED[settings["generator"]]
    ):
        fastest = max(row["speed_up"] for row in held)
        targets.append(target(f"certified: times faster than {settings['speed_up_over']}", fastest, at_least=least))
    return targets


if __name__ == "__main__":
    main()
