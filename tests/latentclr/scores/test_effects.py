"""Effects, intervals, purity and signs, against numbers that can be worked out."""

from __future__ import annotations

import numpy as np
import pytest

from latentclr.scores.effects import measure_effects, purity_of, score_all, spread
from latentclr.scores.scorer import Scored


def test_effects_of_known_numbers():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 400, 3))
    each = noise + np.array([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])[:, None]
    effects = measure_effects(each, 0)
    assert effects.mean == pytest.approx(each.mean(axis=1))
    assert effects.size == pytest.approx(np.abs(each).mean(axis=1))
    width = effects.high - effects.low  # of a mean of 400: 2 * 1.96 / 20
    assert width == pytest.approx(np.full((2, 3), 0.196), rel=0.15)
    assert effects.agreement[0, 0] == (each[0, :, 0] > 0).mean()
    assert effects.agreement[0, 2] == (each[0, :, 2] < 0).mean()
    assert effects.purity[0] == pytest.approx(np.abs(effects.mean[0]).max() / np.abs(effects.mean[0]).sum())
    assert (effects.purity_low <= effects.purity_high).all()


def test_intervals_hold_the_truth_nineteen_times_in_twenty():
    each = np.random.default_rng(1).normal(size=(300, 100, 1)) + 0.3
    effects = measure_effects(each, 0)
    inside = (effects.low <= 0.3) & (0.3 <= effects.high)
    assert 0.88 < inside.mean() <= 0.99


def test_what_is_not_trusted_is_left_out():
    each = np.ones((1, 40, 2))
    each[0, ::2] = np.nan
    each[0, 1:11:2, 1] = np.nan  # 15 are left, too few
    each[0, 1, 0] = 3.0
    effects = measure_effects(each, 0)
    assert effects.mean[0, 0] == pytest.approx(22 / 20)
    assert np.isnan(effects.mean[0, 1])
    assert effects.purity[0] == 1.0


def test_nothing_has_no_sign_and_no_purity():
    effects = measure_effects(np.zeros((1, 20, 4)), 0)
    assert (effects.agreement == 0).all()
    assert effects.purity[0] == 0.25


def test_purity():
    assert purity_of(np.array([[1.0, -3.0, 0.0], [0.0, 0.0, 0.0]])) == pytest.approx([0.75, 1 / 3])


def test_the_spread_of_unedited_pictures():
    table = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 5.0, 0.0] + [0.0, 1e6, 7.0]
    table[:40, 0] = np.nan
    assert np.isnan(spread(table)[0])  # 10 of them are no spread
    assert spread(table)[1] == pytest.approx(table[:, 1].std())
    assert np.isnan(spread(table)[2])  # it never changes


class Halves:
    """Trusts every other picture."""

    name = "halves"
    attributes: tuple[str, ...] = ("size",)

    def __call__(self, images):
        return Scored(np.full((len(images), 1), 2.0), np.arange(len(images)) % 2 == 0)


def test_scorers_stand_side_by_side():
    table = score_all([Halves(), Halves()], np.zeros((3, 4, 4, 3), np.uint8))
    assert np.array_equal(table, [[2, 2], [np.nan, np.nan], [2, 2]], equal_nan=True)
