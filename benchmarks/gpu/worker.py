"""Measure the engines of one model; a process of its own, since an engine may hang, crash or fill the GPU.

    python -m gpu.worker '{"model": "faces", "engines": ["eager"], ...}'

Each line on standard output that begins with `MARK` is one JSON message: `begin` before an engine, `row` after each
batch size. What else libraries print there is not looked at.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from common.engines import Engine
from common.report import BenchmarkError
from common.timing import summarise

from gpu.engines import ENGINES, requests_of
from gpu.models import Prepared, prepare, set_tf32
from serving.certify.proof import batches
from serving.contract.certificate import GATES, Comparison
from serving.contract.golden import Golden, compare_golden

MARK = "@@gpu "
PREPARE, MEMORY = "prepare", "memory"
"""Steps that are no engines: making the model ready, and many requests of changing size while memory is watched."""
SAMPLES = 50


@dataclass(frozen=True)
class Task:
    """What one worker does: steps in order, each an engine, `prepare` or `memory`."""

    model: str
    steps: tuple[str, ...]
    folder: str
    device: str
    batches: tuple[int, ...]
    runs: int
    seconds: float
    requests: int

    def text(self) -> str:
        """Return the worker's argument."""
        return json.dumps(asdict(self))


def main() -> None:
    """Do a task."""
    task = Task(**{key: tuple(v) if isinstance(v, list) else v for key, v in json.loads(sys.argv[1]).items()})
    set_tf32(False)
    place = torch.device(task.device)
    prepared: Prepared | None = None
    for step in task.steps:
        _tell({"begin": step})
        try:
            prepared = prepared or prepare(task.model, Path(task.folder), task.device)
            if step == PREPARE:
                _tell({"row": {"batch": None, **prepared.seconds}})
            elif step == MEMORY:
                _tell({"row": watch_memory(prepared, place, task)})
            else:
                measure(step, prepared, place, task)
        except (Exception, BenchmarkError) as error:  # whatever an engine's libraries raise, the others go on
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
            said = lines[0] if isinstance(error, BenchmarkError) else f"{type(error).__name__}: {lines[0]}"
            _tell({"left_out": said[:300]})
            if step == PREPARE:
                return
        if place.type == "cuda":
            torch.cuda.empty_cache()


def measure(name: str, prepared: Prepared, place: torch.device, task: Task) -> None:
    """Time one engine at each batch size and hold its pictures against the golden ones; tell the rows."""
    before, start = device_mib(place), time.perf_counter()
    with ENGINES[name].make(prepared, place) as engine:
        engine(*requests_of(prepared, 1, 1)[0])
        setup_s = time.perf_counter() - start
        for rows in task.batches:
            requests = requests_of(prepared, rows)
            durations = timed(engine, requests, task.runs, task.seconds)
            row: dict[str, Any] = {
                "batch": rows,
                **summarise(durations, rows),
                "setup_s": round(setup_s, 1),
                "certificate": certify(engine, prepared.golden, rows),
            }
            if before is not None:
                row["gpu_mib"] = max(0, (device_mib(place) or 0) - before)
            _tell({"row": row})


def timed(engine: Engine, requests: list[Any], runs: int, seconds: float) -> list[float]:
    """Time requests in turn: at most `runs`, for at most `seconds`, but three; warmed up for a quarter of that."""
    end = time.perf_counter() + seconds / 4
    for request in requests:
        engine(*request)
        if time.perf_counter() > end:
            break
    durations: list[float] = []
    end = time.perf_counter() + seconds
    for request in itertools.islice(itertools.cycle(requests), runs):
        start = time.perf_counter()
        engine(*request)
        durations.append(time.perf_counter() - start)
        if len(durations) >= 3 and time.perf_counter() > end:
            break
    return durations


def certify(engine: Engine, golden: Golden, rows: int) -> dict[str, Any]:
    """Return what a certificate measures of an engine, and which of the gates it holds."""
    drawn: dict[int, Any] = {}
    for group in batches(golden, rows):
        drawn |= zip(group, engine(*golden.request(group)), strict=True)
    comparison = Comparison()
    compare_golden(comparison, golden, drawn)
    measured = comparison.measured()
    return {**measured, "holds": [name for name, gate in GATES.items() if not gate.misses(measured)]}


def watch_memory(prepared: Prepared, place: torch.device, task: Task) -> dict[str, Any]:
    """Send many requests of changing size to ONNX Runtime, which has been reported to grow, and to a server.

    Issues 102, 163 and 198 of triton-inference-server/onnxruntime_backend tell of memory that grows with the requests.
    """
    growths: dict[str, Any] = {}
    for name in ("onnxruntime", "served"):
        start = time.perf_counter()
        with ENGINES[name].make(prepared, place) as engine:
            sizes = itertools.cycle([requests_of(prepared, rows, 1)[0] for rows in (1, 5, 2, 8, 3, 7, 4, 6)])
            samples: list[tuple[float, float]] = []
            each = max(1, task.requests // SAMPLES)
            for number, request in enumerate(itertools.islice(sizes, task.requests), 1):
                engine(*request)
                if number % each == 0:
                    samples.append((_tree_mib(), device_mib(place) or 0.0))
                if time.perf_counter() - start > task.seconds * 20:
                    break
        growths[name] = {
            "requests": number,
            "process_growth": _growth([sample[0] for sample in samples]),
            "process_mib": round(samples[-1][0], 1) if samples else None,
            "gpu_growth": _growth([sample[1] for sample in samples]) if place.type == "cuda" else None,
            "gpu_mib": round(samples[-1][1], 1) if samples and place.type == "cuda" else None,
            "seconds": round(time.perf_counter() - start, 1),
        }
    return {"batch": None, "memory": growths}


def _growth(samples: list[float]) -> float | None:
    """Return by which part memory grew, as `soak.growth`; None of too few samples, or where nothing was used."""
    from soak import growth

    if len(samples) < 5 or not all(samples):
        return None
    return round(growth([{"mib": sample} for sample in samples], "mib"), 4)


def _tree_mib() -> float:
    """Return the memory of this process and of the server that it started."""
    mine = psutil.Process()
    return float(sum(process.memory_info().rss for process in (mine, *mine.children(recursive=True)))) / 2**20


def device_mib(place: torch.device) -> float | None:
    """Return the memory in use on the GPU, whoever uses it; None on a CPU."""
    if place.type != "cuda":
        return None
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return round((total - free) / 2**20, 1)


def _tell(message: dict[str, Any]) -> None:
    print(MARK + json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
