"""Better, worse, or no difference shown."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scenes import measured

from latentclr.errors import ConfigError
from latentclr.scores.compare import MEASURES, compare, comparison_lines


def made(method, shift=0.0, seed=0, k=16, rca=0.8):
    """A score with drawn purities and effects; nothing of it is measured."""
    scores, rng = measured().scores, np.random.default_rng(seed)
    blank = scores.directions[0]
    directions = []
    for _ in range(k):
        effects = [
            e and dataclasses.replace(e, mean=float(abs(rng.normal(0.3 + shift, 0.05)))) for e in blank.effects
        ]  # fmt: skip
        purity = float(rng.normal(0.2 + shift, 0.05))
        directions.append(dataclasses.replace(blank, effects=tuple(effects), purity=purity, twin_of=None))
    by_code = tuple(float(share) for share in np.clip(rng.normal(rca, 0.05, 32), 0, 1))
    return dataclasses.replace(
        scores,
        run=dataclasses.replace(scores.run, method=method, seed=seed),
        directions=tuple(directions),
        rca=dataclasses.replace(scores.rca, by_code=by_code),
    )


def test_a_clear_difference_is_shown():
    first, second = compare([made("a"), made("b", 0.6, seed=1, rca=0.4)], ["A", "B"])
    assert [cell.verdict for cell in first.cells] == [""] * len(MEASURES)
    assert [cell.verdict for cell in second.cells] == ["better", "better", "better", "no difference shown", "worse"]
    for cell in second.cells:
        assert cell.low <= cell.value <= cell.high
        assert cell.difference_low <= cell.difference <= cell.difference_high
    lines = comparison_lines([first, second])
    assert lines[1].startswith("A ")
    assert "better" in lines[3]


def test_no_difference_is_seldom_shown():
    shown = 0
    for seed in range(40):
        _, second = compare([made("a", seed=2 * seed), made("b", seed=2 * seed + 1)], ["A", "B"])
        shown += sum(second.cells[i].verdict != "no difference shown" for i in (0, 1, 4))
    assert shown / 120 < 0.15


def test_seeds_are_one_method():
    runs = [made("a", seed=0), made("b", 0.6, seed=1), made("a", seed=2), made("b", 0.6, seed=3)]
    first, second = compare(runs, ["A0", "B0", "A1", "B1"])
    assert (first.name, first.runs) == ("A0, A1", (0, 2))
    assert (second.name, second.runs) == ("B0, B1", (1, 3))
    assert second.cells[0].verdict == "better"
    assert second.cells[0].value == pytest.approx(
        np.mean([d.purity for i in (1, 3) for d in runs[i].directions])
    )  # fmt: skip


def test_runs_that_differ_a_lot_widen_the_interval():
    alike = compare([made("a", 0.1, seed=0), made("a", 0.1, seed=1)], ["0", "1"])[0].cells[0]
    apart = compare([made("a", 0.0, seed=0), made("a", 0.2, seed=1)], ["0", "1"])[0].cells[0]
    assert apart.high - apart.low > 3 * (alike.high - alike.low)


def test_rca_of_another_k_is_not_compared():
    _, second = compare([made("a"), made("b", k=8, seed=1)], ["A", "B"])
    assert second.cells[4].verdict == "not comparable: another K"


def test_scores_must_be_measured_alike():
    other = made("b")
    other = dataclasses.replace(other, settings=dataclasses.replace(other.settings, codes=99))
    with pytest.raises(ConfigError, match="same scorers, seed and codes"):
        compare([made("a"), other], ["A", "B"])
