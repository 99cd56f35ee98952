"""Duplicates: both effects and features must agree, with one sign."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import DARKNESS, LIGHT, NOTHING, PLACE_REVERSED, scene

from latentclr.scores.report import Twin
from latentclr.scores.twins import feature_likeness, find_twins, keep


def test_changes_of_features_are_compared():
    subject = scene()
    likeness = feature_likeness(subject, subject.codes(24, 0, "test"), np.full((5, 2), 1.5))
    assert likeness == pytest.approx(likeness.T)
    assert likeness.diagonal()[[LIGHT, PLACE_REVERSED]] == pytest.approx([1, 1])
    assert likeness[LIGHT, DARKNESS] < -0.8
    assert abs(likeness[LIGHT, PLACE_REVERSED]) < 0.3
    assert (likeness[NOTHING] == 0).all()


@pytest.mark.parametrize(
    ("effects", "features", "twins"),
    [
        ([1.0, 0.02], 0.5, True),
        ([-1.0, 0.02], -0.5, True),
        ([1.0, 0.02], -0.5, False),  # they look alike, and inside they are opposites
        ([1.0, 0.02], 0.1, False),
        ([1.0, 1.0], 0.9, False),
        ([0.0, 0.0], 0.9, False),
    ],
)
def test_both_must_agree(effects, features, twins):
    table = np.array([[2.0, 0.0, np.nan], [*effects, 1.0]])
    found = find_twins(table, np.array([[1.0, features], [features, 1.0]]))
    assert len(found) == twins
    if twins:
        assert (found[0].first, found[0].second) == (0, 1)
        assert np.sign(found[0].effects) == np.sign(features)


def test_a_broken_direction_hides_no_twins():
    """Of one whose pictures nobody trusts nothing is known; of another one attribute, which is too little."""
    table = np.array([[2.0, 0.1, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [np.nan] * 4, [1.0, np.nan, np.nan, np.nan]])
    assert [(twin.first, twin.second) for twin in find_twins(table, np.ones((4, 4)))] == [(0, 1)]


def test_the_better_twin_is_kept():
    twins = [Twin(0, 1, 1.0, 1.0), Twin(1, 2, 1.0, 1.0), Twin(3, 4, -1.0, -1.0)]
    assert keep(twins, np.array([1.0, 3.0, 2.0, 1.0, 1.0])) == [1, None, 1, None, 3]
    # 0 and 2 are no twins of each other: where 1, in the middle, is the worst, both stay.
    assert keep(twins, np.array([2.0, 1.0, 3.0, 1.0, 2.0])) == [None, 2, None, 4, None]
