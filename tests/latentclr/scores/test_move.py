"""Equal footing: the strengths at which all change the picture alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scenes import LIGHT, NOTHING, scene

from latentclr.scores.move import crossing, equal_strengths, rms_change


@pytest.mark.parametrize(
    ("measure", "at_zero"),
    [
        (lambda a: a, 0.0),
        (lambda a: math.tanh(a / 3), 0.0),
        (lambda a: a**3 / 10, 0.0),
        (lambda a: math.hypot(0.3, a), 0.3),
        (lambda a: 1 - math.exp(-a / 5), 0.0),
    ],
)
@pytest.mark.parametrize("start", [0.01, 0.5, 3.0, 20.0])
def test_a_crossing_is_found(measure, at_zero, start):
    calls = []

    def counted(alpha):
        calls.append(alpha)
        return measure(alpha)

    alpha, value = crossing(counted, 0.7, at_zero, start, 100.0)
    assert value == measure(alpha)
    assert len(calls) <= 7
    if start >= 0.5:
        assert value == pytest.approx(0.7, rel=0.05)


def test_a_crossing_that_is_not_there_ends_at_the_cap():
    assert crossing(lambda a: 0.0, 0.5, 0.0, 1.0, 6.0) == (6.0, 0.0)
    alpha, value = crossing(lambda a: 0.4 * math.tanh(a), 0.5, 0.0, 1.0, 6.0)
    assert alpha == 6.0
    assert value < 0.5


def test_change_is_the_mean_rms():
    before = np.zeros((2, 2, 2, 3), np.uint8)
    after = before.copy()
    after[0] = 30
    after[1, 0, 0] = 60  # a quarter of the pixels: RMS 30
    assert rms_change(before, after) == pytest.approx(30 / 255)


def test_both_sides_change_the_picture_alike():
    subject = scene()
    codes = subject.codes(24, 0, "test")
    with torch.no_grad():
        before = subject.render(codes.still(), None)
    found = equal_strengths(subject, codes, before, 3.0, change=0.06)
    assert found.alpha.shape == (5, 2)
    assert (found.alpha > 0).all()
    assert found.change[LIGHT] == pytest.approx([0.06, 0.06], rel=0.011)
    assert (found.change[NOTHING] == 0).all()
    with torch.no_grad():
        up = subject.render(codes.moved(LIGHT, float(found.alpha[LIGHT, 1])), None)
    assert rms_change(before, up) == pytest.approx(found.change[LIGHT, 1], rel=1e-6)


def test_pictures_are_counted():
    subject = scene()
    codes = subject.codes(7, 0, "test")
    with torch.no_grad():
        subject.render(codes.still(), None)
        subject.render(codes.moved(0, 1.0), None)
        subject.features(codes.still(), None, "picture")
    assert subject.pictures == 14
