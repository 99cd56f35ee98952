"""How long discovery on the faces takes, from the command to the last file.

    python benchmarks/discovery.py --output benchmarks/results/discovery.json

Runs the README's command as it stands in a process of its own and reads the clock from outside: when its log says that
training starts, when it says that the last step is evaluated, when it ends. TensorBoard's events, which carry the time
of every step, give the steps alone.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, child_environment, finish, target
from common.timing import table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

LIMIT_S = 15.0
TRAIN = ("k=16", "generator=dcgan", "model=nonlinear", "model.alpha=[-3.0,+3.0]", "hparams.batch_size=8")


@click.command(cls=Benchmark)
@click.option("--iterations", type=click.IntRange(2), default=400, show_default=True, help="Training steps.")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True, help="Whole runs; the median counts.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0 for PyTorch's own choice.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
@click.argument("overrides", nargs=-1)
def main(
    iterations: int, repeats: int, threads: int, note: str | None, output: Path | None, overrides: tuple[str, ...]
) -> None:
    """Time discovery on the faces end to end; OVERRIDES are added to the command."""
    start = describe_machine()
    words = [*TRAIN, f"hparams.iterations={iterations}", *overrides]
    results = [{"run": i, **_discover(words, iterations, threads)} for i in range(repeats)]
    click.echo(table(results, ("run", "start_s", "steps_s", "fit_s", "whole_s", "step_p50_ms")))
    median = sorted(results, key=lambda row: row["fit_s"])[(repeats - 1) // 2]
    finish(
        "discovery",
        start=start,
        settings={
            "train": " ".join(["latentclr train", *words]), "iterations": iterations, "repeats": repeats,
            "threads": threads or torch.get_num_threads(),
        },
        results=results,
        targets=[
            target(f"{iterations} steps with their evaluation, s", median["fit_s"], at_most=LIMIT_S),
            target("the whole process, s", median["whole_s"], at_most=LIMIT_S),
        ],
        random_weights=False,
        note=note,
        output=output,
    )  # fmt: skip


def _discover(words: list[str], iterations: int, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="latentclr-bench-") as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "latentclr", "train", *words, f"output_dir={run}"]
        fit_start = fit_end = 0.0
        lines: list[str] = []
        start = time.perf_counter()
        with subprocess.Popen(
            command, env=child_environment(threads), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                seen = time.perf_counter() - start
                lines.append(line.strip())
                if "; run folder " in line:
                    fit_start = seen
                elif re.search(rf"\bstep {iterations}: ", line):
                    fit_end = seen
        whole = time.perf_counter() - start
        if process.returncode or not fit_start or not fit_end:
            last = next((line for line in reversed(lines) if line), "no message")
            raise BenchmarkError(f"latentclr train failed: {last.removeprefix('Error: ')}")
        steps = _step_times(run)
    seconds = {"start_s": fit_start, "fit_s": fit_end - fit_start, "whole_s": whole}
    # The first event is written when the first step is over, so there is one interval less than there are steps.
    seconds["steps_s"] = (steps[-1] - steps[0]) * iterations / (iterations - 1)
    between = sorted(later - earlier for earlier, later in itertools.pairwise(steps))
    return {
        **{key: round(value, 2) for key, value in seconds.items()},
        "step_p50_ms": round(between[len(between) // 2] * 1e3, 2),
    }


def _step_times(run: Path) -> list[float]:
    """Return the time of every training step's end, from the run's TensorBoard events."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return [event.wall_time for event in events.Scalars("Loss/train")]


if __name__ == "__main__":
    main()
