"""Which run is better: several scores side by side, with intervals.

Runs that differ by their training seed only are one method. Each method is compared with the first one. The intervals
of a difference are 95 % percentile bootstrap intervals of two levels: the method's runs are drawn again, then what was
measured in them: directions for purity, largest effect and twins, attributes (the same ones in both) for how many are
moved, held-out codes (the same) for RCA. A difference whose interval holds 0 is not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentclr.errors import ConfigError
from latentclr.scores.report import MOVED, RunScores

RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True)
class Measure:
    """One column of the comparison.

    Attributes:
        title: What is measured.
        unit: What is drawn again: `directions`, `attributes` or `codes`.
        higher: Whether more is better.
    """

    title: str
    unit: str
    higher: bool = True


MEASURES = (
    Measure("purity", "directions"),
    Measure("mean largest effect, sd", "directions"),
    Measure(f"share of attributes moved > {MOVED:g} sd", "attributes"),
    Measure("share of twins", "directions", higher=False),
    Measure("RCA", "codes"),
)


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
    """One method: its name, which of the runs are its own (by their place), and a cell for each of `MEASURES`."""

    name: str
    runs: tuple[int, ...]
    cells: tuple[Cell, ...]


def compare(scores: Sequence[RunScores], names: Sequence[str]) -> list[Row]:
    """Compare methods with the first one.

    Args:
        scores: Of two runs or more, measured alike: the same attributes, codes and seed.
        names: What each run is called.

    Returns:
        A row for each method, in the order of their first runs.

    Raises:
        ConfigError: They were not measured alike.
    """
    alike = {
        (tuple(a.name for a in score.attributes), score.settings.seed, score.settings.codes, score.settings.change)
        for score in scores
    }
    if len(alike) > 1:
        raise ConfigError("scores can be compared only with the same scorers, seed and codes")
    methods: dict[str, list[int]] = {}
    for i, score in enumerate(scores):
        methods.setdefault(score.run.method, []).append(i)
    groups = list(methods.values())
    rows = []
    for group in groups:
        cells = []
        for measure, values in zip(MEASURES, zip(*(_units(score) for score in scores), strict=True), strict=True):
            own, first = [values[i] for i in group], [values[i] for i in groups[0]]
            drawn, drawn_first = _resample(own, first, paired=measure.unit != "directions")
            value, base = (float(np.mean([part.mean() for part in parts])) for parts in (own, first))
            low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
            if group is groups[0]:
                cells.append(Cell(value, low, high, None, 0.0, 0.0, ""))
                continue
            d_low, d_high = np.percentile(drawn - drawn_first, (2.5, 97.5)).tolist()
            verdict = "no difference shown"
            if d_low > 0 or d_high < 0:
                verdict = "better" if (d_low > 0) == measure.higher else "worse"
            if measure.unit == "codes" and len({len(scores[i].directions) for i in (*group, *groups[0])}) > 1:
                verdict = "not comparable: another K"
            cells.append(Cell(value, low, high, value - base, d_low, d_high, verdict))
        rows.append(Row(", ".join(names[i] for i in group), tuple(group), tuple(cells)))
    return rows


def _units(score: RunScores) -> list[NDArray[np.float64]]:
    """Return what is drawn again for each measure: one number for each direction, attribute or code."""
    directions = score.directions
    return [
        np.array([direction.purity for direction in directions]),
        np.array([direction.largest for direction in directions]),
        np.array(score.moved, np.float64),
        np.array([direction.twin_of is not None for direction in directions], np.float64),
        np.array(score.rca.by_code),
    ]


def _resample(
    own: Sequence[NDArray[np.float64]], first: Sequence[NDArray[np.float64]], paired: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw means of two methods again: [R] and [R]. Paired units are drawn for all runs of both at once."""
    rng = np.random.default_rng(SEED)
    picked = rng.integers(len(own[0]), size=(RESAMPLES, len(own[0])))
    drawn = []
    for runs in (own, first):
        slots = np.empty((len(runs), RESAMPLES))
        for slot in range(len(runs)):  # each holds a run that is drawn again, with units of its own
            chosen = rng.integers(len(runs), size=RESAMPLES)
            means = np.stack([
                run[picked if paired else rng.integers(len(run), size=(RESAMPLES, len(run)))].mean(axis=1)
                for run in runs
            ])  # fmt: skip
            slots[slot] = means[chosen, np.arange(RESAMPLES)]
        drawn.append(slots.mean(axis=0))
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
