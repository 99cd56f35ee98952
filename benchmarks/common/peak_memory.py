"""Peak memory of a training step, measured in a process of its own.

    PYTHONPATH=benchmarks python -m common.peak_memory "lean chunked" --layer main.8 --k 100

`training_step.py` starts one of these for each number: memory that one way leaves behind in the allocator would hide
what the next one needs.
"""

from __future__ import annotations

import gc
import json
import statistics
import time

import click
import torch
from references.ways import ALL_WAYS, RESOLUTIONS, Setting, build_way

from common.memory import give_back_memory, peak_kib, reset_peak_kib
from common.report import Benchmark


@click.command(cls=Benchmark)
@click.argument("way", type=click.Choice(ALL_WAYS))
@click.option("--layer", default=Setting.layer, show_default=True, help="Feature layer.")
@click.option("--k", default=Setting.k, show_default=True, help="Directions.")
@click.option("--batch-size", default=Setting.batch_size, show_default=True, help="Codes in a step.")
@click.option("--depth", default=Setting.depth, show_default=True, help="Linear layers of each direction network.")
@click.option("--chunk", default=Setting.chunk, show_default=True, help="Rows at once, where chunked.")
@click.option("--generator", type=click.Choice(list(RESOLUTIONS)), default="dcgan", show_default=True, help="Which.")
@click.option("--resolution", default=Setting.resolution, show_default=True, help="Of its pictures.")
@click.option("--steps", default=3, show_default=True, help="Steps whose peak is taken.")
@click.option("--threads", default=0, show_default=True, help="PyTorch's threads; 0 for its own choice.")
def main(
    way: str,
    layer: str,
    k: int,
    batch_size: int,
    depth: int,
    chunk: int,
    generator: str,
    resolution: int,
    steps: int,
    threads: int,
) -> None:
    """Print the peak of some steps above what the loaded model takes, in MiB, and their median time, as JSON."""
    if threads:
        torch.set_num_threads(threads)
    ready = build_way(way, Setting(layer, k, batch_size, depth, chunk, generator, resolution))
    gc.collect()
    give_back_memory()
    before = reset_peak_kib()
    taken = []
    for _ in range(steps):
        start = time.perf_counter()
        ready.train_once()
        taken.append(time.perf_counter() - start)
    record = {
        "peak_mib": round((peak_kib() - before) / 1024, 1),
        "model_mib": round(before / 1024, 1),
        "step_ms": round(statistics.median(taken[1:] or taken) * 1e3, 1),  # the first one also allocates
    }
    click.echo(json.dumps(record))


if __name__ == "__main__":
    main()
