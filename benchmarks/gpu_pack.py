"""Every engine on a GPU: eager, torch.compile, TorchScript, ONNX Runtime, TensorRT, served; time, memory, certificate.

    python benchmarks/gpu_pack.py --output benchmarks/results/gpu.json       # make benchmarks-gpu
    python benchmarks/gpu_pack.py --models stylegan2-1024 --engines tensorrt --output benchmarks/results/gpu.json
    python benchmarks/gpu_pack.py --device cpu --quick

It ends after ten minutes, whatever is left: each row has its share of the time, one that hangs is ended, one that
cannot run says why, and the results are written after each. Rows that --output holds already are not measured again, so
a second call goes on where the time was over. `benchmarks/gpu.sh` first installs what is needed from a wheels folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import torch
from common.machine import describe_machine
from common.report import (
    Benchmark,
    BenchmarkError,
    Numbers,
    child_environment,
    finish,
    make_record,
    target,
    write_record,
)
from common.timing import table
from gpu.engines import COMPILED, ENGINES
from gpu.models import MODELS
from gpu.worker import MARK, MEMORY, PREPARE, Task

from serving.contract.documents import read_json_file

COLUMNS = ("model", "engine", "batch", "p50_ms", "p99_ms", "images_per_s", "gpu_mib", "worst", "psnr_db", "ssim",
           "fidelity", "holds", "left_out")  # fmt: skip
GROWTH = 0.02
STEP_S, GRACE_S = 90.0, 3.0  # the most for one engine, and for a process to end
NO_TIME = "the time was over; call again with the same --output to go on"


class Names(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.2
    """A comma-separated list of known names."""

    name = "names"

    def __init__(self, known: Sequence[str]) -> None:
        self.known = tuple(known)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse the list."""
        names = value if isinstance(value, tuple) else tuple(part.strip() for part in str(value).split(","))
        for name in names:
            if name not in self.known:
                self.fail(f"expected names of {', '.join(self.known)}, got {name!r}", param, ctx)
        return names


@dataclass
class Pack:
    """The rows so far, and where they are written."""

    settings: dict[str, Any]
    start: dict[str, Any]
    note: str | None
    output: Path | None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        """Take a row and write all."""
        self.rows.append(row)
        if self.output is not None:
            write_record(
                self.output, make_record("gpu_pack", self.start, self.settings, self.rows, [], True, self.note)
            )
        shown = row.get("left_out") or f"p50 {row.get('p50_ms', '-')} ms"
        click.echo(f"{row['model']}, {row['engine']}, batch {row.get('batch') or '-'}: {shown}", err=True)

    def measured(self, model: str, engine: str, batches: Sequence[int | None]) -> bool:
        """Whether an engine has its rows, of an earlier call too."""
        mine = [row for row in self.rows if row["model"] == model and row["engine"] == engine]
        return set(batches) <= {row["batch"] for row in mine if "left_out" not in row}


@click.command(cls=Benchmark)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True, help="Where to draw.")
@click.option("--models", type=Names(list(MODELS)), default=",".join(MODELS), show_default=True, help="Which.")
@click.option("--engines", type=Names(list(ENGINES)), default=",".join(ENGINES), show_default=True, help="Which.")
@click.option("--batch", "batches", type=Numbers(), default="1,8", show_default=True, help="Images in a request.")
@click.option("--runs", type=click.IntRange(3), default=300, show_default=True, help="Timed requests of each row.")
@click.option("--row-seconds", type=click.FloatRange(0, min_open=True), default=1.5, show_default=True,
              help="Fewer runs where they take longer.")  # fmt: skip
@click.option("--requests", type=click.IntRange(0), default=10_000, show_default=True,
              help="Requests to the smallest model while memory is watched; 0 for none.")  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=9.5, show_default=True, help="For all of it."
)
@click.option("--quick", is_flag=True, help="The faces alone, few runs: does the script stand?")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Keep the exports here.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here, and go on from it."
)
def main(
    device: str,
    models: tuple[str, ...],
    engines: tuple[str, ...],
    batches: tuple[int, ...],
    runs: int,
    row_seconds: float,
    requests: int,
    minutes: float,
    quick: bool,
    folder: Path | None,
    note: str | None,
    output: Path | None,
) -> None:
    """Measure all engines on a GPU within ten minutes."""
    deadline = time.monotonic() + 60 * minutes
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchmarkError("PyTorch finds no GPU here; --device cpu shows that the script stands")
    if quick:
        models, runs, row_seconds, requests = ("faces",), min(runs, 10), min(row_seconds, 0.2), min(requests, 100)
        engines = tuple(name for name in engines if name != COMPILED)  # it takes a compiler a minute
    settings = {"device": device, "runs": runs, "row_seconds": row_seconds, "requests": requests, "minutes": minutes}
    pack = Pack(settings, describe_machine(), note, output)
    pack.rows = kept_rows(output, pack.start, device)
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentclr-bench-")))
        for number, model in enumerate(models):
            share = (deadline - time.monotonic()) / (len(models) - number)
            steps = [PREPARE, *(name for name in engines if not pack.measured(model, name, batches))]
            if number == 0 and requests and not pack.measured(model, MEMORY, (None,)):
                steps.append(MEMORY)
            task = Task(model, tuple(steps), str(folder / model), device, batches, runs, row_seconds, requests)
            measure_model(pack, task, time.monotonic() + share)
    rows = [_flat(row) for row in pack.rows]
    click.echo(table(rows, COLUMNS))
    finish("gpu_pack", start=pack.start, settings=settings, results=pack.rows, targets=_targets(pack.rows),
           random_weights=True, note=note, output=output)  # fmt: skip


def kept_rows(output: Path | None, machine: dict[str, Any], device: str) -> list[dict[str, Any]]:
    """Return the rows of an earlier call that were measured on this device.

    Raises:
        BenchmarkError: The file is there, and is of another benchmark, machine or device.
    """
    if output is None or not output.exists():
        return []
    try:
        record = read_json_file(output)
        same = record["benchmark"] == "gpu_pack" and record["settings"]["device"] == device
        same = same and all(record["machine"][key] == machine[key] for key in ("gpu", "cpu"))
        rows = [row for row in record["results"] if "left_out" not in row and row["engine"] != PREPARE]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{output} is there, and is no result of this benchmark: {error}") from None
    if not same:
        raise BenchmarkError(f"{output} was measured on another machine or device: give another --output")
    return rows


def measure_model(pack: Pack, task: Task, deadline: float) -> None:
    """Run workers for the steps of one model until all have their rows, or its time is over."""
    for tf32 in (False, True):  # for TensorRT a setting of the whole process
        steps = [step for step in task.steps if step not in ENGINES or (ENGINES[step].precision != "fp32") == tf32]
        left = []
        for step in steps:
            if step in ENGINES and ENGINES[step].gpu and task.device == "cpu":
                pack.add({"model": task.model, "engine": step, "batch": None, "left_out": "needs a GPU"})
            elif not (tf32 and step == MEMORY):
                left.append(step)
        while any(step != PREPARE for step in left):
            left = _work(pack, replace(task, steps=tuple(left)), tf32, deadline)


def _work(pack: Pack, task: Task, tf32: bool, deadline: float) -> list[str]:
    """Let one worker do a task; return the steps that are left after one that hung or crashed."""
    environment = child_environment(0) | ({} if tf32 else {"NVIDIA_TF32_OVERRIDE": "0"})
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment["PYTHONPATH"]])
    command = [sys.executable, "-m", "gpu.worker", task.text()]
    left, current, why = list(task.steps), PREPARE, ""

    def add(step: str, row: Mapping[str, Any]) -> None:
        precision = ENGINES[step].precision if step in ENGINES else None
        pack.add({"model": task.model, "engine": step, "precision": precision, "batch": None, **row})

    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        ) as process,
    ):
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        try:
            end = deadline
            while message := _next(lines, end):
                if "begin" in message:
                    current = message["begin"]
                    left.remove(current)
                    end = deadline if current == PREPARE else min(deadline, time.monotonic() + STEP_S)
                    continue
                if current != PREPARE or "left_out" in message or not pack.measured(task.model, PREPARE, (None,)):
                    add(current, message.get("row", message))
                if current == PREPARE and "left_out" in message:
                    return []
            if process.wait(GRACE_S):
                errors.seek(0)
                last = (errors.read().strip().splitlines() or [""])[-1]
                why = f"the process died (exit code {process.returncode}): {last[:200]}"
        except queue.Empty:
            if time.monotonic() >= deadline:
                for step in (current, *left):
                    add(step, {"left_out": NO_TIME})
                return []
            why = f"did not end within {STEP_S:g} s"
        finally:
            _end(process)
    if why:
        add(current, {"left_out": why})
    return [PREPARE, *left] if why and current != PREPARE else []


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(MARK):
            lines.put(line.removeprefix(MARK))
    lines.put("null")


def _next(lines: queue.Queue[str], end: float) -> dict[str, Any] | None:
    """Return a worker's next message; None when it has ended."""
    message: dict[str, Any] | None = json.loads(lines.get(timeout=max(0.0, end - time.monotonic())))
    return message


def _end(process: subprocess.Popen[str]) -> None:
    """End a worker and what it started, which share a process group; with time to stop a server."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for the table."""
    proof = row.get("certificate") or {}
    names = {"worst": "worst_step", "psnr_db": "psnr_db", "ssim": "ssim", "fidelity": "edit_fidelity"}
    return {**row, **{key: proof.get(name) for key, name in names.items()}, "holds": ",".join(proof.get("holds", []))}


def _targets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hold what was measured against the promises: float32 is exact, all hold the gate, and memory stays flat."""
    found = []
    for precision, gate in (("fp32", "exact"), ("tf32", "certified"), ("fp16", "certified")):
        proofs = [row["certificate"] for row in rows if row.get("certificate") and row.get("precision") == precision]
        if proofs:
            missed = sum(gate not in proof["holds"] for proof in proofs)
            found.append(target(f"rows in {precision} that are not {gate}", missed, at_most=0))
    for row in rows:
        for engine, memory in (row.get("memory") or {}).items():
            for place in ("process", "gpu"):
                if (growth := memory[f"{place}_growth"]) is not None:
                    name = f"{engine}: growth of the {place} memory over {memory['requests']} requests"
                    found.append(target(name, growth, at_most=GROWTH))
    return found


if __name__ == "__main__":
    main()
