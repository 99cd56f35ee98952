"""Send 100,000 requests to the served face editor and watch its memory.

    python benchmarks/soak.py --output benchmarks/results/soak.json --plot docs/soak.png     # make soak

Sixteen clients send requests of one to four edits, some of them not valid. Every answer is checked for its shape and
its marks, every fiftieth for its pixels; a thing that leaks, a queue that grows or a stall that comes once in ten
thousand requests shows here and in no test.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, finish, target
from common.timing import table
from export_model import NAME
from load.drive import Running, Shape, drive, find_model, newest_file, read_manifest, serve
from load.generator import Plan
from load.plot import plot_soak
from load.requests import prepare
from tqdm import tqdm

REQUESTS = 256
CLIENTS, ROWS, MAX_BATCH_SIZE = 16, (1, 2, 3, 4), 16
ROLES = ("server", "model")
GROWTH = 0.02
COLUMNS = ("done", "errors", "p50_ms", "p99_ms", "server_mib", "model_mib")


@click.command(cls=Benchmark)
@click.option("--run", type=click.Path(path_type=Path), help="Run folder of the face generator instead of a new one.")
@click.option("--repository", type=click.Path(path_type=Path), help=f"Repository that holds {NAME}, not a new one.")
@click.option("--requests", type=click.IntRange(100), default=100_000, show_default=True, help="How many to send.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw a picture here.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    run: Path | None, repository: Path | None, requests: int, note: str | None, plot: Path | None, output: Path | None
) -> None:
    """Put the served face editor under load for long, and watch its memory."""
    start = describe_machine()
    with tempfile.TemporaryDirectory(prefix="latentclr-bench-") as temporary:
        folder = Path(temporary)
        model = find_model(run, repository, folder / "export", MAX_BATCH_SIZE)
        path = folder / "requests.npz"
        prepare(newest_file(model), NAME, read_manifest(model), path, count=REQUESTS, sizes=ROWS)
        with serve(model, folder / "served", Shape(1, 0), MAX_BATCH_SIZE) as served:
            tell_s = min(1.0, requests / 20_000)
            plan = Plan(served.url, NAME, str(path), clients=CLIENTS, count=requests, tell_s=tell_s, pids=served.pids)
            samples, figures = _soak(plan, served)
    click.echo(table(samples[:: max(1, len(samples) // 20)], COLUMNS))
    for text, count in figures["error_messages"].items():
        click.echo(f"{count} times: {text}")
    if plot is not None:
        plot_soak(samples, start, plot)
    settings = {"clients": CLIENTS, "rows": ROWS, "max_batch_size": MAX_BATCH_SIZE, "requests": requests,
                "figures": figures}  # fmt: skip
    targets = [target("requests with an error", figures["errors"], at_most=0)]
    targets += [
        target(f"memory of the {role}: growth after warm-up", growth(samples, f"{role}_mib"), at_most=GROWTH)
        for role in ROLES
    ]
    finish("soak", start=start, settings=settings, results=samples, targets=targets, random_weights=False, note=note,
           output=output)  # fmt: skip


def growth(samples: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return by which part a quantity grew from the second fifth of the samples to the last, medians of both.

    The first fifth is warm-up: allocators and thread pools reach their size there.

    Raises:
        BenchmarkError: There are fewer than five samples.
    """
    if len(samples) < 5:
        raise BenchmarkError(f"expected at least 5 samples of the memory, got {len(samples)}: raise --requests")
    _, second, *_, last = np.array_split([float(sample[key]) for sample in samples], 5)
    return float(np.median(last) / np.median(second)) - 1


def _soak(plan: Plan, served: Running) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    samples: list[dict[str, Any]] = []
    with tqdm(total=plan.count, unit="request", disable=None) as bar:

        def watch(message: dict[str, Any]) -> None:
            memory = {
                f"{role}_mib": round(sum(psutil.Process(pid).memory_info().rss for pid in served.pids[role]) / 2**20, 1)
                for role in ROLES
            }
            samples.append({**message, **memory})
            bar.update(message["done"] - bar.n)

        figures = drive(plan, watch)
        bar.update(plan.count - bar.n)
    return samples, figures


if __name__ == "__main__":
    main()
