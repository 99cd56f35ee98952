"""The end of every benchmark: targets, one JSON line, a file if wanted; and errors as one line with exit code 2."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from common.machine import describe_command, describe_machine, describe_versions, now
from latentclr.files import replacing

FORMAT = 1


class Benchmark(click.Command):
    """A command whose expected errors are one line on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run; an error that carries exit code 2 is a message to the user."""
        logging.basicConfig(level=logging.WARNING)
        try:
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except Exception as error:
            if getattr(error, "exit_code", None) == BenchmarkError.exit_code:
                raise BenchmarkError(" ".join(str(error).split())) from error
            raise


class BenchmarkError(click.ClickException):
    """A benchmark that cannot run here, or whose premise does not hold."""

    exit_code = 2


class Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.2
    """A comma-separated list of whole numbers of at least 1, such as `1,8`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse the list."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"expected numbers of at least 1 such as 1,8, got {value!r}", param, ctx)
        return numbers


def target(name: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> dict[str, Any]:
    """Compare a number with what the project promises."""
    met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
    limit = {"at_most": at_most} if at_most is not None else {"at_least": at_least}
    return {"name": name, "value": round(value, 3), **limit, "met": met}


def child_environment(threads: int) -> dict[str, str]:
    """Return the environment of a child that computes with as many threads (0: as it likes) and imports from here."""
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **({"OMP_NUM_THREADS": str(threads)} if threads else {}),
    }


def run_latentclr(words: Sequence[str], failed: str, *, threads: int = 0, shown: bool = False) -> None:
    """Run `latentclr WORDS` in a process of its own.

    Args:
        words: Of the command line.
        failed: How the message begins if it fails.
        threads: See `child_environment`.
        shown: Whether its progress is; the message then stands there, and else in the error.

    Raises:
        BenchmarkError: It failed.
    """
    command = [sys.executable, "-m", "latentclr", *words]
    errors = None if shown else subprocess.PIPE
    done = subprocess.run(
        command, env=child_environment(threads), stdout=subprocess.PIPE, stderr=errors, text=True, check=False
    )
    if done.returncode:
        lines = ["its own message stands above"] if shown else done.stderr.strip().splitlines() or ["no message"]
        raise BenchmarkError(f"{failed}: {lines[-1].removeprefix('Error: ')}")


def finish(
    name: str,
    *,
    start: Mapping[str, Any],
    settings: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    random_weights: bool,
    note: str | None,
    output: Path | None,
) -> None:
    """Print the targets and the one JSON line that ends a benchmark; write it to `output` too.

    Args:
        name: Of the benchmark.
        start: `describe_machine()` before the first measurement.
        settings: What the command's defaults and options came to.
        results: One entry for each row of the table.
        targets: See `target`.
        random_weights: True if the generator's weights are seeded noise: fit for latency, not for looking at.
        note: A remark to keep with the numbers, such as who else used the machine.
        output: The file to write, or None.

    Raises:
        SaveError: The file cannot be written.
    """
    record = make_record(name, start, settings, results, targets, random_weights, note)
    for entry in targets:
        limit = f"at most {entry['at_most']}" if "at_most" in entry else f"at least {entry['at_least']}"
        click.echo(f"{'met' if entry['met'] else 'MISSED'}: {entry['name']}: {entry['value']} ({limit})")
    if output is not None:
        write_record(output, record)
    sys.stdout.flush()
    click.echo(json.dumps(record))


def make_record(
    name: str,
    start: Mapping[str, Any],
    settings: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    random_weights: bool,
    note: str | None,
) -> dict[str, Any]:
    """Return a benchmark's record; the arguments are those of `finish`."""
    return {
        "format": FORMAT,
        "benchmark": name,
        "date": now(),
        "command": describe_command(),
        "machine": {**start, "load_average_1m_end": describe_machine()["load_average_1m"]},
        "versions": describe_versions(),
        "random_weights": random_weights,
        "note": note,
        "settings": dict(settings),
        "results": [dict(row) for row in results],
        "targets": [dict(entry) for entry in targets],
    }


def write_record(output: Path, record: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all.

    Raises:
        SaveError: The file cannot be written.
    """
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
