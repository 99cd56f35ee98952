"""How long `latentclr score` takes with the scorers `pixels` and `faces`, on one thread and on every core.

    python benchmarks/scoring.py --run outputs/demo --output benchmarks/results/scoring.json

Each run is the whole command in a process of its own, from its start to its end; the numbers of threads take turns.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
from common.machine import describe_machine
from common.report import Benchmark, Numbers, finish, run_latentclr, target
from common.timing import table

from latentclr.scores.report import SCORE_FILE, load_scores

LIMIT_S, LIMIT_K, LIMIT_CORES = 90, 16, 2  # what is promised


@click.command(cls=Benchmark)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True, help="Whose directions.")
@click.option("--threads", type=Numbers(), default="1,2", show_default=True, help="How many compute.")
@click.option("--runs", type=click.IntRange(min=1), default=3, show_default=True, help="Of each number of threads.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
@click.argument("overrides", nargs=-1)
def main(
    run: Path, threads: tuple[int, ...], runs: int, note: str | None, output: Path | None, overrides: tuple[str, ...]
) -> None:
    """Score a run again and again; OVERRIDES are those of `latentclr score`."""
    start = describe_machine()
    taken: dict[int, list[float]] = {count: [] for count in threads}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            for count in threads:
                taken[count].append(_score(run, count, [*overrides, f"output_dir={folder}"]))
        scores = load_scores(Path(folder) / SCORE_FILE)
    results: list[dict[str, Any]] = []
    for count, seconds in taken.items():
        middle = median(seconds)
        results.append({
            "threads": count, "p50_s": round(middle, 1), "least_s": round(min(seconds), 1),
            "most_s": round(max(seconds), 1), "pictures_per_s": round(scores.pictures / middle, 1),
        })  # fmt: skip
    click.echo(table(results, tuple(results[0])))
    directions = len(scores.directions)
    targets = [
        target(f"seconds to score {directions} directions on {LIMIT_CORES} cores", row["p50_s"], at_most=LIMIT_S)
        for row in results
        if row["threads"] == LIMIT_CORES and directions == LIMIT_K
    ]
    settings = {"k": directions, "codes": scores.settings.codes, "pictures": scores.pictures, "runs": runs,
                "scorers": [scorer.name for scorer in scores.scorers]}  # fmt: skip
    finish("scoring", start=start, settings=settings, results=results, targets=targets, random_weights=False, note=note,
           output=output)  # fmt: skip


def _score(run: Path, threads: int, words: list[str]) -> float:
    start = time.perf_counter()
    command = ["score", str(run), "scorers=[pixels,faces]", *words]
    run_latentclr(command, f"latentclr score {run} failed", threads=threads, shown=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
