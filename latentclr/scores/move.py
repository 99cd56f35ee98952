"""Equal footing: how far each direction has to go, either way, to change the picture as much as all others do.

A unit step means nothing across directions and methods: one moves a pixel or two, another draws a new picture. What two
directions do is compared where both have changed the picture by the same mean RMS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from latentclr.scores.subject import Codes, Pixels, Subject

CHANGE = 25 / 255
"""Mean RMS change of the picture, as a share of the pixels' range."""
MOST_STEPS = 7
TOLERANCE = 0.01
SIDES = (-1.0, 1.0)


@dataclass(frozen=True)
class Strengths:
    """What was found, for each direction and side (the negative one first).

    Attributes:
        alpha: The strength [K, 2], all above 0.
        change: The mean RMS change of the picture there [K, 2], in [0, 1]; below what was asked for where even the
            largest strength that was tried changes less.
    """

    alpha: NDArray[np.float64]
    change: NDArray[np.float64]


def rms_change(before: Pixels, after: Pixels) -> float:
    """Return the mean over pictures [N, H, W, 3] of the RMS difference of their pixels, in [0, 1]."""
    difference = after.astype(np.float32) - before
    return float(np.sqrt((difference**2).mean(axis=(1, 2, 3))).mean() / 255)


def crossing(
    measure: Callable[[float], float], target: float, at_zero: float, start: float, cap: float
) -> tuple[float, float]:
    """Find where something that rises with the strength reaches a value.

    False position between the nearest strengths below and above (the Illinois rule, Dowell and Jarratt 1971, which
    halves an end that stays), growing until there is one above.

    Args:
        measure: Its value at a strength.
        target: The value to reach.
        at_zero: Its value at strength 0, below the target.
        start: The strength to try first, in (0, cap].
        cap: The largest strength to try.

    Returns:
        The strength, and the value there: within 1 % of the way to the target after at most 7 measurements, or at
        the cap below it.
    """
    low, low_gap, high, high_gap = 0.0, at_zero - target, None, 0.0
    alpha, side = min(start, cap), 0
    value = measure(alpha)
    for _ in range(MOST_STEPS - 1):
        gap = value - target
        if abs(gap) <= TOLERANCE * (target - at_zero) or (gap < 0 and alpha >= cap):
            break
        if gap < 0:
            if high is None:
                steps = (target - at_zero) / max(value - at_zero, (target - at_zero) / 4)
                low, low_gap, alpha = alpha, gap, min(cap, alpha * max(1.1, min(4.0, 1.05 * steps)))
                value = measure(alpha)
                continue
            low, low_gap, high_gap, side = alpha, gap, high_gap / (2 if side < 0 else 1), -1
        else:
            high, high_gap, low_gap, side = alpha, gap, low_gap / (2 if side > 0 else 1), 1
        inner = (high - low) / 10  # what rises steeply would draw the next strength to an end
        alpha = min(high - inner, max(low + inner, (low * high_gap - high * low_gap) / (high_gap - low_gap)))
        value = measure(alpha)
    return alpha, value


@torch.no_grad()
def equal_strengths(subject: Subject, codes: Codes, before: Pixels, start: float, change: float = CHANGE) -> Strengths:
    """Find the strengths at which each direction, either way, changes the picture by the same mean RMS.

    Args:
        subject: What is moved.
        codes: C codes.
        before: Their pictures [C, H, W, 3].
        start: The strength to try first, such as the one of the training.
        change: The mean RMS change, in (0, 1).
    """
    alpha, reached = np.empty((subject.directions.k, 2)), np.empty((subject.directions.k, 2))
    for k in range(len(alpha)):
        length = float((codes.d[k] * codes.fed.any()).norm(dim=1).mean())  # 1, unless directions are not normalised
        cap = 4 * float(codes.p.norm(dim=1).mean()) / length if length > 0 else start
        trial = start
        for side, sign in enumerate(SIDES):

            def measure(at: float, k: int = k, sign: float = sign) -> float:
                return rms_change(before, subject.render(codes.moved(k, sign * at), codes.class_id))

            alpha[k, side], reached[k, side] = crossing(measure, change, 0.0, trial, cap)
            trial = float(alpha[k, side])
    return Strengths(alpha, reached)
