"""Reduced precision: which operations may have it, found by search, so that the graph holds its gate and is fast.

As in NNCF's accuracy control: everything is lowered; if that misses the gate, each operation is lowered alone, and
those with the most error for the time they save go back to float32 first, as few as the gate allows.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from export.errors import ExportError
from export.parity import Arrays, Engine, Judge, ran, why_not
from latentclr.progress import progress_bar
from serving.contract.certificate import Comparison, Gate

RANKING = 8  # edited pictures that operations are ranked on
RANKED = 100  # operations, the largest
SMALL = 0.003  # of the arithmetic: an operation whose lowering may cost more than it saves
CLOCK_S, CLOCK_RUNS = 1.0, 6  # of timing one graph: seconds at most, runs at least
FASTER = 0.97  # of float32's time, at most: what is no faster than the clock's own error is not faster


@dataclass(frozen=True)
class Operation:
    """Something of a graph that can stay in float32 by itself, such as a convolution.

    Attributes:
        name: Unique in its graph.
        cost: Its share of the graph's arithmetic, in [0, 1].
    """

    name: str
    cost: float


@dataclass(frozen=True)
class Built:
    """A graph as it would be published.

    Attributes:
        files: What belongs into the version's folder, the graph first.
        engine: It, loaded as the server loads it.
    """

    files: Sequence[Path]
    engine: Engine


class Lowered(Protocol):
    """A graph in reduced precision, in which any operations can be kept in float32."""

    engine: str
    precision: str

    @property
    def operations(self) -> Sequence[Operation]:
        """What can be kept; none if all or nothing."""

    def build(self, keep: frozenset[str], folder: Path) -> Built:
        """Write the graph with the operations `keep` in float32 and all others in reduced precision, and load it.

        Args:
            keep: Names of operations.
            folder: Where to write; empty, and this build's own.

        Raises:
            ExportError: The engine does not take the graph.
        """


class Clock:
    """Times graphs against the one in float32, in turns, so that both have the same neighbours."""

    def __init__(self, reference: Engine, inputs: Arrays) -> None:
        """Warm the reference up.

        Args:
            reference: The graph in float32.
            inputs: One request.
        """
        self.reference, self.inputs = reference, inputs
        reference(*inputs)
        self.reference_ms = 1e3 * statistics.median(_seconds(reference, inputs) for _ in range(CLOCK_RUNS))

    def ms(self, engine: Engine, patience: float = 1.0) -> float:
        """Return how long an engine takes: the median ratio to the reference, times what that took at first.

        Args:
            engine: Of a graph.
            patience: Times `CLOCK_S`.
        """
        engine(*self.inputs)
        ratios: list[float] = []
        end = time.monotonic() + patience * CLOCK_S
        while len(ratios) < CLOCK_RUNS or time.monotonic() < end:
            turns = (self.reference, engine)
            took = {turn: _seconds(turn, self.inputs) for turn in (turns if len(ratios) % 2 else turns[::-1])}
            ratios.append(took[engine] / took[self.reference])  # each is first in half of them
        return self.reference_ms * statistics.median(ratios)


@dataclass(frozen=True)
class Point:
    """One graph of a search.

    Attributes:
        keep: Operations in float32.
        cost: Milliseconds of a picture, infinite if the engine did not take the graph; without a clock the percentage
            of the arithmetic that is in float32.
        measured: Of what was compared, as in a `Certificate`; None if the engine did not take the graph, or called rows
            invalid that are not.
        proven: Whether all pictures were compared, not those of the ranking alone.
        passed: Whether the gate holds.
        why: By how much it does not, in words.
    """

    keep: frozenset[str]
    cost: float
    measured: dict[str, Any] | None
    proven: bool
    passed: bool
    why: str = ""


@dataclass
class Frontier:
    """What a search tried.

    Attributes:
        engine: Of the graphs.
        precision: Of what was lowered.
        gate: What was to hold.
        operations: How many can be kept.
        unit: Of the points' cost.
        reference: The float32 graph's cost.
        points: In the order in which they were tried.
        best: The fastest that holds the gate; None if none does and is faster than float32.
    """

    engine: str
    precision: str
    gate: Gate
    operations: int
    unit: str
    reference: float
    points: list[Point] = field(default_factory=list)
    best: Point | None = None


def search(
    lowered: Lowered,
    ranking: Judge,
    judge: Judge,
    gate: Gate,
    folder: Path,
    clock: Clock | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Frontier:
    """Find the fewest operations to keep in float32 so that a graph holds its gate.

    Args:
        lowered: The graph.
        ranking: Of few pictures, on which operations are ranked.
        judge: Of the certificate's pictures.
        gate: What must hold.
        folder: For files that are removed again.
        clock: Times the graphs; None where this machine's time says nothing of the one that serves.
        say: Told what is being done, where that takes long.
    """
    trial = _Trial(lowered, gate, folder, clock)
    names = [operation.name for operation in lowered.operations]
    found = Frontier(
        lowered.engine, lowered.precision, gate, len(names),
        "ms" if clock else "% of the arithmetic in float32", clock.reference_ms if clock else 100.0,
    )  # fmt: skip

    def attempt(keep: Iterable[str]) -> bool:
        """Try a set on few pictures, and on all if these leave it a chance."""
        point, hopeful = trial.point(frozenset(keep), ranking, judge.images)
        if hopeful is not None:
            point = trial.proof(point, hopeful, judge)
        found.points.append(point)
        return point.passed

    tries: list[list[str]] = [[]]
    if clock:  # lowering the smallest may cost more time, for the casts or quantisers around them, than it saves
        small = [one.name for one in lowered.operations if one.cost < SMALL]
        tries += [small] if 0 < len(small) < len(names) else []
    held = [attempt(kept) for kept in tries]
    start = min(found.points, key=lambda point: point.cost)
    if not any(held) and names and (start.cost < found.reference or math.isinf(start.cost)):
        order = _most_harmful_first(lowered, ranking, trial, start.keep, say)
        low, high = 0, len(order)  # `low` is too few; all are float32
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if attempt([*start.keep, *order[:middle]]) else (middle, high)
    for point in sorted((point for point in found.points if point.passed), key=lambda point: point.cost):
        timed = trial.timed_again(point)
        found.points[found.points.index(point)] = timed
        if timed.cost < FASTER * found.reference:
            found.best = timed
            break
    return found


class _Trial:
    """Builds graphs, measures them and throws them away."""

    def __init__(self, lowered: Lowered, gate: Gate, folder: Path, clock: Clock | None) -> None:
        self.lowered, self.gate, self.folder, self.clock = lowered, gate, folder / "trial", clock
        self.costs = {operation.name: operation.cost for operation in lowered.operations}

    def build(self, keep: frozenset[str]) -> Built:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self.lowered.build(keep, self.folder)

    def point(self, keep: frozenset[str], judge: Judge, images: int) -> tuple[Point, Engine | None]:
        """Return a graph held against a judge, and its engine if it may still hold the gate for so many images."""
        cost = math.inf if self.clock else 100 * sum(self.costs[name] for name in keep)
        try:
            engine = self.build(keep).engine
            if self.clock:
                ran(self.lowered.engine, engine, self.clock.inputs)
                cost = self.clock.ms(engine)
            comparison = judge.compare({self.lowered.engine: engine}, what="search")[self.lowered.engine]
        except ExportError as error:  # such as an overflow, which makes rows invalid
            return Point(keep, cost, None, False, False, str(error)), None
        hopeless = comparison.is_hopeless(self.gate, images)
        return self._judged(keep, cost, comparison, proven=False), None if hopeless else engine

    def proof(self, point: Point, engine: Engine, judge: Judge) -> Point:
        try:
            compared = judge.compare({self.lowered.engine: engine}, what="proof", stop=self.gate)
        except ExportError as error:
            return Point(point.keep, point.cost, None, True, False, str(error))
        return self._judged(point.keep, point.cost, compared[self.lowered.engine], proven=True)

    def timed_again(self, point: Point) -> Point:
        """Return a point with its time measured for longer: the least of several has the luckiest error."""
        if self.clock is None:
            return point
        return replace(point, cost=self.clock.ms(self.build(point.keep).engine, patience=3.0))

    def _judged(self, keep: frozenset[str], cost: float, comparison: Comparison, proven: bool) -> Point:
        measured = comparison.measured()
        passed = not self.gate.misses(measured)
        return Point(keep, cost, measured, proven, passed, "" if passed else why_not(comparison, self.gate))


def _most_harmful_first(
    lowered: Lowered, judge: Judge, trial: _Trial, kept: frozenset[str], say: Callable[[str], None]
) -> list[str]:
    """Order the operations by the error that each makes when it alone is lowered, for the arithmetic that it has."""
    left = [operation for operation in lowered.operations if operation.name not in kept]
    by_cost = sorted(left, key=lambda operation: -operation.cost)
    ranked, rest = by_cost[:RANKED], by_cost[RANKED:]
    everything = frozenset(trial.costs)
    harm = {}
    say(f"{lowered.precision} misses the gate where all is lowered: ranking {len(ranked)} operations")
    with progress_bar(len(ranked), "operation", desc="ranking", delay=2) as bar:
        for operation in ranked:
            try:
                engine = trial.build(everything - {operation.name}).engine
                error = _error(judge.compare({"": engine}, what="", quiet=True)[""])
            except ExportError:
                error = math.inf
            harm[operation.name] = error / max(operation.cost, 1e-6)
            bar.update()
    return [*sorted(harm, key=lambda name: -harm[name]), *(operation.name for operation in rest)]


def _error(comparison: Comparison) -> float:
    """Return the mean square error of all pictures: what operations add does add up."""
    values = [row["psnr_db"] for row in comparison.rows]
    return sum(0.0 if psnr is None else 255**2 * 10 ** (-psnr / 10) for psnr in values) / len(values)


def _seconds(engine: Engine, inputs: Arrays) -> float:
    start = time.perf_counter()
    engine(*inputs)
    return time.perf_counter() - start
