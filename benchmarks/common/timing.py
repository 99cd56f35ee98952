"""Several functions timed in one run, turn and turn about, so that drift hits all of them alike.

A laptop that gets hot, a neighbour that wakes up, a clock that steps down: timed one after the other, whoever comes
last pays for it. Here every function gets a short turn in every round.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Calls = Mapping[str, Callable[[], object]]
TURN_S = 1.0


def interleave(
    calls: Calls,
    runs: int | Mapping[str, int],
    *,
    burst: int = 10,
    settle: int = 2,
    warm_up: int = 5,
    pause_s: float = 0.0,
    slow_s: float = math.inf,
) -> dict[str, list[float]]:
    """Time functions round-robin.

    In each round every function is called `settle` times untimed, so that its weights are in the cache as they are in
    an application that does nothing else, and then up to `burst` times timed, but no longer than about `TURN_S`: what
    else the machine does for some seconds is to hit all of them, not all calls of one. The order is shuffled anew in
    each round, so nobody always runs in the wake of the same neighbour. Slow functions may have fewer runs than fast
    ones: all have a turn in every round, and the fast ones' turns are longer.

    Args:
        calls: name -> function.
        runs: Timed calls of each function, at least 1; or name -> that number.
        burst: Timed calls in one turn.
        settle: Untimed calls before them.
        warm_up: Untimed calls of each function before the first round.
        pause_s: Idle time before each turn: thread pools of the one before (OpenMP's, ONNX Runtime's) go on spinning
            for some milliseconds after their work is done and would steal the cores.
        slow_s: A function that takes longer than this is warmed up once and has no untimed calls in its turns.

    Returns:
        name -> `runs` durations in seconds, in the order in which they were taken.
    """
    counts = dict.fromkeys(calls, runs) if isinstance(runs, int) else dict(runs)
    took = {name: _warm(call, warm_up, slow_s) for name, call in calls.items()}
    settles = {name: settle if once <= slow_s else 0 for name, once in took.items()}
    turns = {name: max(1, min(burst, int(TURN_S / max(once, 1e-9)))) for name, once in took.items()}
    rounds = min([*counts.values(), max(-(-counts[name] // turns[name]) for name in calls)])
    taken: dict[str, list[float]] = {name: [] for name in calls}
    shuffle = random.Random(0)
    for turn in range(rounds):
        for name in shuffle.sample(list(calls), len(calls)):
            call, durations = calls[name], taken[name]
            time.sleep(pause_s)
            for _ in range(settles[name]):
                call()
            for _ in range(_share(counts[name], rounds, turn)):
                durations.append(_time(call))
    return taken


def calls_per_second(calls: Sequence[Callable[[], object]], seconds: float, warm_up_s: float) -> float:
    """Return how often functions are called in a second, all of them together.

    Each is called again and again by a thread of its own, the first by this one: libraries such as PyTorch start their
    own threads anew for another.

    Args:
        calls: The functions.
        seconds: Length of the measurement.
        warm_up_s: Of the same before it.
    """
    start = time.perf_counter() + warm_up_s
    done = [0] * len(calls)

    def work(index: int) -> None:
        while (now := time.perf_counter()) < start + seconds:
            calls[index]()
            done[index] += now >= start

    threads = [threading.Thread(target=work, args=(index,)) for index in range(1, len(calls))]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def affordable_runs(once: Mapping[str, float], runs: int, seconds: float, at_least: int = 5) -> dict[str, int]:
    """Return how often each function may be timed.

    Args:
        once: name -> seconds that one call takes.
        runs: The most.
        seconds: What all timed calls of one function may take.
        at_least: The least, however slow; never more than `runs`.
    """
    return {name: min(runs, max(at_least, int(seconds / took))) for name, took in once.items()}


def _warm(call: Callable[[], object], times: int, slow_s: float) -> float:
    took = _time(call) if times else 0.0
    for _ in range(times - 1 if took <= slow_s else 0):
        took = _time(call)
    return took


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _share(count: int, rounds: int, turn: int) -> int:
    return count * (turn + 1) // rounds - count * turn // rounds


def summarise(durations: Sequence[float], rows: int | None = None) -> dict[str, Any]:
    """Return percentiles in milliseconds.

    Args:
        durations: Seconds.
        rows: Images that one call makes; adds `images_per_s`, at the mean duration.
    """
    ms = np.asarray(durations) * 1e3  # [runs]
    p50, p90, p99 = np.percentile(ms, [50, 90, 99])
    summary: dict[str, Any] = {
        "p50_ms": round(float(p50), 3),
        "p90_ms": round(float(p90), 3),
        "p99_ms": round(float(p99), 3),
        "min_ms": round(float(ms.min()), 3),
        "runs": len(ms),
    }
    if rows is not None:
        summary["images_per_s"] = round(rows * 1e3 / float(ms.mean()), 1)
    return summary


def speed_up(base: Sequence[float], other: Sequence[float]) -> float:
    """Return how many times faster `other` is than `base`: the median over pairs taken in the same round.

    Where one had more runs than the other, each pairs the median of its part of them.

    Args:
        base: Durations of the base, from one `interleave`.
        other: Durations of the other, from the same.
    """
    pairs = min(len(base), len(other))
    medians = [[float(np.median(part)) for part in np.array_split(taken, pairs)] for taken in (base, other)]
    return round(float(np.median(np.asarray(medians[0]) / np.asarray(medians[1]))), 2)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Lay out rows as text, numbers to the right; a missing or None cell is a dash."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    lines = []
    for line, source in zip([list(columns), *cells], [{}, *rows], strict=True):
        parts = [
            text.ljust(width) if isinstance((source or rows[0]).get(column), str) else text.rjust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
