"""The leaderboard: which setting is best, by what `score` measured, and how sure that is.

Runs that differ by their seed only are one setting. Settings stand in the order of purity times reach: directions that
do one thing, and go far with it. That order is a reading aid; whether one setting is better than another say the
intervals, which are those of `latentclr.scores.compare`, against the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latentclr.scores.compare import MEASURES, REACH, Row, compare
from latentclr.scores.report import RunScores
from latentclr.sweep.record import RunState
from latentclr.sweep.words import short_keys, shown_value

COLUMNS = (MEASURES[0], REACH, *MEASURES[1:])
SEED = "seed"


@dataclass(frozen=True)
class Place:
    """One setting on the leaderboard.

    Attributes:
        label: What it is called, such as `k=8, feature_layer=main.2`.
        runs: The numbers of its runs, the best first.
        row: Its cells under `COLUMNS`, compared with the first place.
        seconds: Of one of its runs, training and scoring, on average.
    """

    label: str
    runs: tuple[int, ...]
    row: Row
    seconds: float

    @property
    def best(self) -> int:
        """The number of its best run."""
        return self.runs[0]


def leaderboard(states: Mapping[int, RunState], scores: Mapping[int, RunScores]) -> list[Place]:
    """Rank the settings of a sweep.

    Args:
        states: Of the runs.
        scores: Of those that are finished, one or more, measured alike.

    Returns:
        The best first.
    """
    merits = {number: (states[number].purity or 0.0) * (states[number].reach or 0.0) for number in scores}
    settings: dict[str, list[int]] = {}
    for number, score in scores.items():
        settings.setdefault(score.run.method, []).append(number)
    groups = [sorted(numbers, key=lambda n: (-merits[n], n)) for numbers in settings.values()]
    groups.sort(key=lambda numbers: (-_mean([merits[n] for n in numbers]), numbers[0]))
    ordered = [number for numbers in groups for number in numbers]
    rows = compare([scores[n] for n in ordered], [str(n) for n in ordered], COLUMNS)
    labels = labels_of({number: states[number].own for number in ordered})
    return [
        Place(
            labels[numbers[0]],
            tuple(numbers),
            row,
            _mean([states[n].seconds for n in numbers]),
        )
        for numbers, row in zip(groups, rows, strict=True)
    ]


def labels_of(own: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """Return what runs are called, without their seed: the options that differ between them."""
    words = {number: dict(word.split("=", 1) for word in run) for number, run in own.items()}
    keys = list(dict.fromkeys(key for run in words.values() for key in run if key != SEED))
    short = short_keys(keys)
    return {
        number: ", ".join(f"{short[key]}={shown_value(run[key])}" for key in keys if key in run) or "the one setting"
        for number, run in words.items()
    }


def board_lines(places: Sequence[Place]) -> list[str]:
    """Return the leaderboard as lines for a terminal."""
    table = [["place", "setting", "runs", *(measure.title for measure in COLUMNS)]]
    for place, entry in enumerate(places, 1):
        cells = [f"{cell.value:.2f} [{cell.low:.2f}, {cell.high:.2f}]" for cell in entry.row.cells]
        table.append([str(place), entry.label, ", ".join(map(str, sorted(entry.runs))), *cells])
        if place > 1:
            table.append(["", "  against the first", "", *(cell.verdict for cell in entry.row.cells)])
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
