"""Count what hostile files, odd overrides and kills do to the commands: every fault is one too many.

    python benchmarks/robustness.py --output benchmarks/results/robustness.json     # make robustness

The corpus of `tests/hostile/` in full, with as many files with random damage as it takes for the count, for each seed;
then the fuzz of overrides and the crash points of the tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, child_environment, finish, target
from common.timing import table
from tqdm import tqdm

TESTS = Path(__file__).resolve().parents[1] / "tests"
COLUMNS = ("format", "command", "tries", "refused", "faults", "cpu_s", "peak_mib")
CPU_S, MIB = 10.0, 2048.0


@click.command(cls=Benchmark)
@click.option(
    "--count", type=click.IntRange(2000), default=3000, show_default=True, help="Hostile files for each seed."
)
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Seeds of the damage, from 1.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Files at a time.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(count: int, seeds: int, workers: int, note: str | None, output: Path | None) -> None:
    """Put hostile files before the commands, odd overrides before their grammar, and kill at every rename."""
    start = describe_machine()
    outcomes = [outcome for seed in range(1, seeds + 1) for outcome in hostile(seed, count, workers)]
    rows = by_format(outcomes)
    faults = [f"{o['format']}: {o['name']}: {o['command']}: {'; '.join(o['faults'])}" for o in outcomes if o["faults"]]
    passed, overrides = fuzzed_overrides()
    points, broken = crash_points()
    click.echo(table(rows, COLUMNS))
    for fault in [*faults, *overrides, *broken]:
        click.echo(fault)
    settings = {"count": count, "seeds": seeds, "tries": len(outcomes), "override_tests": passed,
                "crash_points": points, "faults": [*faults, *overrides, *broken]}  # fmt: skip
    targets = [
        target("hostile files that do harm", len(faults), at_most=0),
        target("hostile files: worst CPU seconds", max(row["cpu_s"] for row in rows), at_most=CPU_S),
        target("hostile files: worst peak MiB", max(row["peak_mib"] for row in rows), at_most=MIB),
        target("odd overrides that are no single line", len(overrides), at_most=0),
        target("kills that leave a half", len(broken), at_most=0),
    ]
    finish("robustness", start=start, settings=settings, results=rows, targets=targets, random_weights=True, note=note,
           output=output)  # fmt: skip


def hostile(seed: int, count: int, workers: int) -> list[dict[str, Any]]:
    """Return what came of each try."""
    script = TESTS / "hostile" / "run_hostile.py"
    command = [sys.executable, str(script), "--seed", str(seed), "--count", str(count), "--workers", str(workers)]
    outcomes: list[dict[str, Any]] = []
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline() or '{"tries": 0}')["tries"]
            with tqdm(total=told, unit="file", desc=f"seed {seed}", dynamic_ncols=True) as bar:
                for line in process.stdout:
                    outcomes.append(json.loads(line))
                    bar.update()
        if process.returncode or len(outcomes) != told:
            errors.seek(0)
            last = (errors.read().strip() or "it said nothing").splitlines()[-1]
            raise BenchmarkError(f"{script.name} ended with {process.returncode} after {len(outcomes)} tries: {last}")
    return outcomes


def by_format(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each format and command: tries, how many were refused, faults and the worst figures."""
    groups = defaultdict(list)
    for outcome in outcomes:
        groups[outcome["format"], outcome["command"].split()[0]].append(outcome)
    return [
        {
            "format": name,
            "command": command,
            "tries": len(group),
            "refused": sum(outcome["code"] != 0 for outcome in group),
            "faults": sum(bool(outcome["faults"]) for outcome in group),
            "cpu_s": max(outcome["cpu_s"] for outcome in group),
            "peak_mib": max(outcome["peak_mib"] for outcome in group),
        }
        for (name, command), group in sorted(groups.items())
    ]


def fuzzed_overrides() -> tuple[int, list[str]]:
    """Return how many tests of odd overrides passed, and which failed."""
    script = TESTS / "latentclr" / "test_fuzz_overrides.py"
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--no-header", "-p", "no:cacheprovider", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(1), cwd=TESTS.parent)
    lines = done.stdout.splitlines()
    counted = re.search(r"(\d+) passed", done.stdout)
    passed = int(counted[1]) if counted else 0
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if done.returncode and not failed:
        raise BenchmarkError(f"{script.name} ended with {done.returncode}: {(lines or ['it said nothing'])[-1]}")
    return passed, failed


def crash_points() -> tuple[int, list[str]]:
    """Return at how many points an operation was killed, and what was wrong afterwards."""
    script = TESTS / "export" / "crash_points.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=child_environment(1))
    if done.returncode:
        raise BenchmarkError(f"{script.name}: {(done.stderr.strip() or 'it said nothing').splitlines()[-1]}")
    found = json.loads(done.stdout)
    faults = [f"{name}: {fault}" for name, entry in found.items() for fault in entry["faults"]]
    return sum(entry["points"] for entry in found.values()), faults


if __name__ == "__main__":
    main()
