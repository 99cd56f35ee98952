"""Which run is better: several scores side by side, with intervals.

Runs that differ by their training seed only are one method. Each method is compared with the first one; a difference
whose 95 % interval holds 0 is not shown. An interval has two parts, whose squares are added:

- from run to run: Student's t of the runs' means, of two methods Welch's (1947). Runs are few, and what is measured in
  one of them is no substitute for another; a bootstrap over two or three runs would be far too narrow. Shares are
  counts, and two runs often have the same one, which is no proof that the next has it too: the variance is taken to be
  at least the smallest that so many counts can show otherwise, where one run is one step off. As nothing was seen of
  it, such a variance adds no degrees of freedom: t is that of the method with the fewest runs.
- within the runs, by a bootstrap: over what all runs share, and the same in both methods (attributes, for how many are
  moved; held-out codes, for RCA); of the other measures over directions where a method has one run only. Either says
  nothing of other runs, and of RCA nothing of how its network was trained.

Runs may each be scored on codes of their own; then differences between codes are part of those between runs. Of
another generator, or of other classes, nothing is said; nor, with another number of directions, of what depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentclr.errors import ConfigError
from latentclr.scores.report import MOVED, DirectionScores, RunScores

RESAMPLES = 2000
SEED = 0
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # for 1 to 10 degrees of freedom
ANOTHER_K = "another K"
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """One column of the comparison.

    Attributes:
        title: What is measured.
        unit: What is drawn again: `directions`, `attributes` or `codes`.
        higher: Whether more is better.
        of_all: Whether it depends on how many directions there are, and not on what each of them does.
    """

    title: str
    unit: str
    higher: bool = True
    of_all: bool = False


MEASURES = (
    Measure("purity", "directions"),
    Measure("mean largest effect, sd", "directions"),
    Measure(f"share of attributes moved > {MOVED:g} sd", "attributes", of_all=True),
    Measure("share of twins", "directions", higher=False, of_all=True),
    Measure("RCA", "codes", of_all=True),
)
REACH = Measure("reach, times equal change", "directions")
"""How wide the range of a slider is, in widths of equal change: how far it goes beyond what is needed to see it."""


@dataclass(frozen=True)
class Cell:
    """One method under one measure.

    Attributes:
        value: Mean over its runs.
        low: Lower end of the 95 % interval.
        high: Upper end.
        difference: Value - the first method's; None for the first.
        difference_low: Lower end of its 95 % interval.
        difference_high: Upper end.
        verdict: `better`, `worse`, `no difference shown`, or why nothing is said; empty for the first.
    """

    value: float
    low: float
    high: float
    difference: float | None
    difference_low: float
    difference_high: float
    verdict: str


@dataclass(frozen=True)
class Row:
    """One method: its name, which of the runs are its own (by their place), and a cell for each of the measures."""

    name: str
    runs: tuple[int, ...]
    cells: tuple[Cell, ...]


def compare(scores: Sequence[RunScores], names: Sequence[str], measures: Sequence[Measure] = MEASURES) -> list[Row]:
    """Compare methods with the first one.

    Args:
        scores: Of one run or more, measured alike: the same attributes and number of codes, and on codes of seeds that
            the first method's runs were scored on too.
        names: What each run is called.
        measures: What is compared: some of `MEASURES`, or `REACH`.

    Returns:
        A row for each method, in the order of their first runs.

    Raises:
        ConfigError: They were not measured alike, or two runs of a method have one checkpoint.
    """
    alike = {(tuple(a.name for a in score.attributes), score.settings.codes, score.settings.change) for score in scores}
    methods: dict[str, list[int]] = {}
    for i, score in enumerate(scores):
        methods.setdefault(score.run.method, []).append(i)
    groups = list(methods.values())
    seeds = [{scores[i].settings.seed for i in group} for group in groups]
    if len(alike) > 1 or any(not own <= seeds[0] for own in seeds):
        raise ConfigError("scores can be compared only with the same scorers, seed and codes")
    for group in groups:
        first_of: dict[str, int] = {}
        for i in group:
            if (other := first_of.setdefault(scores[i].run.checkpoint_sha256, i)) != i:
                raise ConfigError(f"{names[other]} and {names[i]} are one training, and no two runs: leave one out")
    rows = []
    for group in groups:
        unlike = _unlike([scores[i] for i in (*groups[0], *group)])
        cells = []
        for measure in measures:
            values = [units_of(score, measure) for score in scores]
            own, first = [values[i] for i in group], [values[i] for i in groups[0]]
            step = _step(scores[group[0]], measure)
            shared = step is not None
            value, base = (float(np.mean([part.mean() for part in parts])) for parts in (own, first))
            drawn, drawn_first = _resample(own, first, shared)
            half = _half(step, (own, drawn))
            low, high = max(0.0, value - half), value + half
            if group is groups[0]:
                cells.append(Cell(value, low, high, None, 0.0, 0.0, ""))
                continue
            half = _half(step, (own, drawn), (first, drawn_first))
            d_low, d_high = value - base - half, value - base + half
            verdict = "no difference shown"
            if d_low > 0 or d_high < 0:
                verdict = "better" if (d_low > 0) == measure.higher else "worse"
            if unlike and (measure.of_all or unlike != ANOTHER_K):
                verdict = f"not comparable: {unlike}"
            cells.append(Cell(value, low, high, value - base, d_low, d_high, verdict))
        rows.append(Row(", ".join(names[i] for i in group), tuple(group), tuple(cells)))
    return rows


def _unlike(scores: Sequence[RunScores]) -> str:
    """Return in what runs are too unlike to be compared; empty if in nothing."""
    if len({score.run.weights_sha256 for score in scores}) > 1:
        return "another generator"
    if len({score.run.classes for score in scores}) > 1:
        return "other classes"
    return ANOTHER_K if len({len(score.directions) for score in scores}) > 1 else ""


def _step(score: RunScores, measure: Measure) -> float | None:
    """Return by how much a run's mean differs at least from another one's; None where runs share no units."""
    steps = {"attributes": len(score.attributes), "codes": 2 * len(score.directions) * len(score.rca.by_code)}
    return 1 / steps[measure.unit] if measure.unit in steps else None


def units_of(score: RunScores, measure: Measure) -> Numbers:
    """Return what is drawn again for a measure: one number for each direction, attribute or code."""
    directions = score.directions
    if measure is REACH:
        return np.array([reach_of(direction) for direction in directions])
    return [
        np.array([direction.purity for direction in directions]),
        np.array([direction.largest for direction in directions]),
        np.array(score.moved, np.float64),
        np.array([direction.twin_of is not None for direction in directions], np.float64),
        np.array(score.rca.by_code),
    ][MEASURES.index(measure)]


def reach_of(direction: DirectionScores) -> float:
    """Return how wide a direction's range is, in widths of equal change."""
    low, high = direction.range
    return (high - low) / sum(direction.strength)


def _half(step: float | None, *methods: tuple[Sequence[Numbers], Numbers]) -> float:
    """Return half the width of the 95 % interval of a method's mean, or of the difference of two.

    Args:
        step: By how much two runs' means differ at least, if all runs have in common what is drawn again; None if not.
        methods: One or two: what was measured in each of its runs, and the mean of that, drawn again in them [R].
    """
    squares, freedom, seen = [], [], True  # of the standard errors from run to run
    for runs, drawn in methods:
        if len(runs) > 1:
            among = float(np.var([run.mean() for run in runs], ddof=1)) / len(runs)
            # Runs with one twin each agree to the last digit, which is no proof that the next one has as many.
            least = float(drawn.var()) if step is None else (step / len(runs)) ** 2
            squares.append(among or least)
            freedom.append(len(runs) - 1)
            seen &= among > 0 or step is None
    within = 0.0
    if step is not None or len(squares) < len(methods):
        within = float((methods[0][1] - methods[-1][1] if len(methods) > 1 else methods[0][1]).std())
    total = sum(squares)
    if total == 0:
        return _t(np.inf) * within
    effective = total**2 / sum(square**2 / n for square, n in zip(squares, freedom, strict=True))
    if not seen:
        effective = min(freedom)
    return float(np.hypot(_t(effective) * np.sqrt(total), _t(np.inf) * within))


def _t(freedom: float) -> float:
    """Return Student's t, which 2.5 % exceed, for degrees of freedom (rounded down) of at least 1."""
    if freedom < len(_T) + 1:
        return _T[int(freedom) - 1]
    z, n = 1.959964, freedom  # Abramowitz and Stegun 26.7.5, to three digits from 11 on
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)


def _resample(own: Sequence[Numbers], first: Sequence[Numbers], shared: bool) -> tuple[Numbers, Numbers]:
    """Draw what was measured in the runs of two methods again, shared units for all at once; return means [R], [R]."""
    rng = np.random.default_rng(SEED)
    picked = rng.integers(len(own[0]), size=(RESAMPLES, len(own[0])))
    drawn = [
        np.mean(
            [
                run[picked if shared else rng.integers(len(run), size=(RESAMPLES, len(run)))].mean(axis=1)
                for run in runs
            ],
            axis=0,
        )
        for runs in (own, first)
    ]
    return drawn[0], drawn[1]


def comparison_lines(rows: Sequence[Row]) -> list[str]:
    """Return the comparison as lines for a terminal."""
    table = [["run", *(measure.title for measure in MEASURES)]]
    for row in rows:
        table.append([row.name, *(f"{cell.value:.2f} [{cell.low:.2f}, {cell.high:.2f}]" for cell in row.cells)])
        if any(cell.verdict for cell in row.cells):
            table.append(["  against the first", *(cell.verdict for cell in row.cells)])
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in table]
