"""Time and peak memory of one training step on the faces, against the origin's way of doing it.

    python benchmarks/training_step.py --output benchmarks/results/training_step.json

Before anything is timed, the ways are shown to be the same mathematics: from the same weights and the same batch they
must find the same loss. Then they take turns in one run. Memory is measured in processes of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import torch
from machine import describe_machine
from report import Benchmark, BenchmarkError, child_environment, finish, target
from timing import interleave, speed_up, summarise, table
from torch.profiler import ProfilerActivity, profile
from ways import WAYS, Setting, Way, build_way, first_gradient

SAME_LOSS = 1e-4
SPEED_UP = 2.5
COLUMNS = ("layer", "k", "way", "p50_ms", "p90_ms", "min_ms", "speed_up", "peak_mib", "loss_difference")


@click.command(cls=Benchmark)
@click.option("--layers", default="main.2,main.5,main.8", show_default=True, help="Feature layers, comma-separated.")
@click.option("--k", type=click.IntRange(2), default=16, show_default=True, help="Directions.")
@click.option("--batch-size", type=click.IntRange(2), default=8, show_default=True, help="Codes in a step.")
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="Layers of a direction network.")
@click.option("--chunk", type=click.IntRange(1), default=32, show_default=True, help="Rows at once, where chunked.")
@click.option("--runs", type=click.IntRange(1), default=30, show_default=True, help="Timed steps of each way.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0 for PyTorch's own choice.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Measure peak memory.")
@click.option("--large-k", type=click.IntRange(0), default=100, show_default=True,
              help="Also the memory of this many directions at the last layer; 0 for not.")  # fmt: skip
@click.option("--profile", "profiled", is_flag=True, help="Also print where a lean step's time goes.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    layers: str,
    k: int,
    batch_size: int,
    depth: int,
    chunk: int,
    runs: int,
    threads: int,
    memory: bool,
    large_k: int,
    profiled: bool,
    note: str | None,
    output: Path | None,
) -> None:
    """Compare the ways of doing one training step."""
    start = describe_machine()
    if threads:
        torch.set_num_threads(threads)
    settings = [Setting(layer.strip(), k, batch_size, depth, chunk) for layer in layers.split(",")]
    results: list[dict[str, Any]] = []
    for setting in settings:
        rows = _compare(setting, runs, profiled)
        for row in rows if memory else []:
            row.update(_memory(row["way"], setting, threads))
        results += rows
    if memory and large_k:
        large = Setting(settings[-1].layer, large_k, batch_size, depth, chunk)
        results += [_row(way, large) | _memory(way, large, threads) for way in WAYS]
    click.echo(table(results, COLUMNS))
    lean = {row["layer"]: row["speed_up"] for row in results if row["way"] == "lean" and "speed_up" in row}
    first = settings[0].layer
    finish(
        "training_step",
        start=start,
        settings={
            "k": k, "batch_size": batch_size, "depth": depth, "chunk": chunk, "runs": runs, "alpha": [-3.0, 3.0],
            "threads": torch.get_num_threads(),
        },
        results=results,
        targets=[target(f"step at {first}, times faster than the origin's way", lean[first], at_least=SPEED_UP)],
        random_weights=False,
        note=note,
        output=output,
    )  # fmt: skip


def _compare(setting: Setting, runs: int, profiled: bool) -> list[dict[str, Any]]:
    ways = {name: build_way(name, setting) for name in WAYS}
    losses = {name: way.train_once() for name, way in ways.items()}
    gradients = {name: first_gradient(way).clone() for name, way in ways.items()}
    for name in WAYS:
        difference = abs(losses[name] - losses["origin"])
        if name != "lean bf16" and not difference <= SAME_LOSS:
            raise BenchmarkError(
                f"{setting.layer}: {name} finds the loss {losses[name]:.6f}, the origin's way {losses['origin']:.6f}:"
                f" they differ by {difference:.2g} (allowed {SAME_LOSS:g}), so timing them would compare nothing"
            )
    taken = interleave(
        {name: way.train_once for name, way in ways.items()}, runs, burst=2, settle=1, warm_up=2, pause_s=0.01
    )
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
        "--chunk": setting.chunk, "--threads": threads,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    command = [sys.executable, str(Path(__file__).with_name("peak_memory.py")), way, *words]
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
