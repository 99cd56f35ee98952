"""Time and peak memory of one training step, against the origin's way of doing it.

    python benchmarks/training_step.py --output benchmarks/results/training_step_dcgan.json
    python benchmarks/training_step.py --generator biggan
    python benchmarks/training_step.py --generator stylegan2

The faces are the embedded generator; BigGAN and StyleGAN2 have random weights of full size and the origin's examples'
settings, where the lean ways are measured. The memory of the origin's way grows with K times B and does not fit into a
small machine there, so both are compared with fewer directions and codes.

Before anything is timed, the ways are shown to be the same mathematics: from the same weights and the same batch they
must find the same loss. Then they take turns in one run. Memory is measured in processes of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, child_environment, finish, target
from common.timing import affordable_runs, interleave, speed_up, summarise, table
from references.ways import RESOLUTIONS, WAYS, Setting, Way, build_way, first_gradient
from torch.profiler import ProfilerActivity, profile

SAME_LOSS = 1e-4
SLOW_S = 1.0
COLUMNS = ("layer", "k", "batch_size", "way", "p50_ms", "p90_ms", "min_ms", "runs", "speed_up", "peak_mib",
           "loss_difference")  # fmt: skip


@dataclass(frozen=True)
class Example:
    """What a generator is measured with where no option says otherwise.

    Attributes:
        layers: Feature layers, comma-separated.
        k: Directions.
        batch_size: Codes.
        chunk: Rows at once, where chunked.
        large: (K, B) of the large setting, which not every way has the memory for.
        large_ways: Those that have; each is measured on its own.
        promises: way -> times faster than the origin's way at the first layer.
    """

    layers: str
    k: int
    batch_size: int
    chunk: int
    large: tuple[int, int]
    large_ways: tuple[str, ...]
    promises: dict[str, float]


EXAMPLES = {
    "dcgan": Example("main.2,main.5,main.8", 16, 8, 32, (100, 8), WAYS, {"lean": 2.5}),
    "biggan": Example(
        "generator.layers.4",
        8,
        4,
        8,
        (32, 16),
        ("lean", "lean chunked", "lean bf16", "lean bf16 chunked"),
        {"lean": 2.5, "lean bf16": 4.0},
    ),
    "stylegan2": Example("conv1", 16, 8, 32, (100, 8), ("lean", "lean chunked", "lean bf16"), {"lean": 2.5}),
}


@click.command(cls=Benchmark)
@click.option("--generator", type=click.Choice(list(EXAMPLES)), default="dcgan", show_default=True, help="Which.")
@click.option("--resolution", type=click.IntRange(1), help=f"Of its pictures; {RESOLUTIONS} if not given.")
@click.option("--layers", help="Feature layers, comma-separated; the example's if not given.")
@click.option("--k", type=click.IntRange(2), help="Directions; the example's if not given.")
@click.option("--batch-size", type=click.IntRange(2), help="Codes in a step; the example's if not given.")
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="Layers of a direction network.")
@click.option("--chunk", type=click.IntRange(1), help="Rows at once, where chunked; the example's if not given.")
@click.option("--runs", type=click.IntRange(1), default=30, show_default=True, help="Timed steps of each way.")
@click.option("--seconds", type=click.FloatRange(0), default=40.0, show_default=True,
              help="Fewer steps, but five, where a way needs longer than this.")  # fmt: skip
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0 for PyTorch's own choice.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Measure peak memory.")
@click.option("--large/--no-large", default=True, show_default=True,
              help="Also the large setting at the last layer.")  # fmt: skip
@click.option("--profile", "profiled", is_flag=True, help="Also print where a lean step's time goes.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    generator: str,
    resolution: int | None,
    layers: str | None,
    k: int | None,
    batch_size: int | None,
    depth: int,
    chunk: int | None,
    runs: int,
    seconds: float,
    threads: int,
    memory: bool,
    large: bool,
    profiled: bool,
    note: str | None,
    output: Path | None,
) -> None:
    """Compare the ways of doing one training step."""
    start = describe_machine()
    if threads:
        torch.set_num_threads(threads)
    example = EXAMPLES[generator]
    first = Setting(
        "", k or example.k, batch_size or example.batch_size, depth, chunk or example.chunk, generator,
        resolution or RESOLUTIONS[generator],
    )  # fmt: skip
    settings = [replace(first, layer=layer.strip()) for layer in (layers or example.layers).split(",")]
    results: list[dict[str, Any]] = []
    for setting in settings:
        rows = _compare(setting, runs, seconds, profiled)
        for row in rows if memory else []:
            row.update(_memory(row["way"], setting, threads))
        results += rows
    if memory and large:
        k, batch_size = example.large
        whole = replace(settings[-1], k=k, batch_size=batch_size, chunk=32)
        for way in example.large_ways:
            measured = _memory(way, whole, threads)
            results.append(_row(way, whole) | measured | {"p50_ms": measured["step_ms"]})
    click.echo(table(results, COLUMNS))
    layer = settings[0].layer
    speed_ups = {row["way"]: row["speed_up"] for row in results if row["layer"] == layer and "speed_up" in row}
    finish(
        "training_step",
        start=start,
        settings={
            "generator": generator, "resolution": first.resolution, "k": first.k, "batch_size": first.batch_size,
            "depth": depth, "chunk": first.chunk, "runs": runs, "seconds": seconds,
            "alpha": first.config("lean").model.alpha, "threads": torch.get_num_threads(),
        },
        results=results,
        targets=[
            target(f"{way}: step at {layer}, times faster than the origin's way", speed_ups[way], at_least=times)
            for way, times in example.promises.items()
        ],
        random_weights=generator != "dcgan",
        note=note,
        output=output,
    )  # fmt: skip


def _compare(setting: Setting, runs: int, seconds: float, profiled: bool) -> list[dict[str, Any]]:
    ways = {name: build_way(name, setting) for name in WAYS}
    losses, once = {}, {}
    for name, way in ways.items():
        start = time.perf_counter()
        losses[name] = way.train_once()
        once[name] = time.perf_counter() - start
    gradients = {name: first_gradient(way).clone() for name, way in ways.items()}
    for name in WAYS:
        difference = abs(losses[name] - losses["origin"])
        if name != "lean bf16" and not difference <= SAME_LOSS:
            raise BenchmarkError(
                f"{setting.layer}: {name} finds the loss {losses[name]:.6f}, the origin's way {losses['origin']:.6f}:"
                f" they differ by {difference:.2g} (allowed {SAME_LOSS:g}), so timing them would compare nothing"
            )
    calls = {name: way.train_once for name, way in ways.items()}
    counts = affordable_runs(once, runs, seconds)
    taken = interleave(calls, counts, burst=2, settle=1, warm_up=2, pause_s=0.01, slow_s=SLOW_S)
    if profiled:
        _show_profile(ways["lean"], setting)
    scale = gradients["origin"].abs().max()
    return [
        _row(name, setting)
        | summarise(taken[name])
        | {
            "speed_up": speed_up(taken["origin"], taken[name]),
            "loss": round(losses[name], 6),
            "loss_difference": float(f"{abs(losses[name] - losses['origin']):.2g}"),
            "gradient_difference": float(f"{float((gradients[name] - gradients['origin']).abs().max() / scale):.2g}"),
        }
        for name in WAYS
    ]


def _row(way: str, setting: Setting) -> dict[str, Any]:
    return {"layer": setting.layer, "k": setting.k, "batch_size": setting.batch_size, "way": way}


def _memory(way: str, setting: Setting, threads: int) -> dict[str, float]:
    options = {
        "--layer": setting.layer, "--k": setting.k, "--batch-size": setting.batch_size, "--depth": setting.depth,
        "--chunk": setting.chunk, "--generator": setting.generator, "--resolution": setting.resolution,
        "--threads": threads, "--steps": 3 if setting.generator == "dcgan" else 2,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    command = [sys.executable, "-m", "common.peak_memory", way, *words]
    done = subprocess.run(command, env=child_environment(threads), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchmarkError(f"measuring the memory of {way} at {setting.layer}, k {setting.k} failed: {last}")
    measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def _show_profile(way: Way, setting: Setting) -> None:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            way.train_once()
    click.echo(f"where a lean step at {setting.layer} spends its time, 5 steps:")
    click.echo(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=50))


if __name__ == "__main__":
    main()
