"""What each direction does: effects in standard deviations, with intervals, purity and the agreement of signs.

The effect of a direction on an attribute at one code is half the difference of the attribute between the two sides,
both at equal change of the picture, in standard deviations of the attribute over unedited pictures. A picture that a
scorer does not trust is left out, with its code. Intervals are percentile bootstrap intervals over codes (Efron 1979).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from latentclr.scores.scorer import Scorer, score
from latentclr.scores.subject import Pixels
from latentclr.training.rng import stream

RESAMPLES = 1000
FEWEST = 16  # trusted codes, below which nothing is said of an attribute
LEVELS = (2.5, 97.5)

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Effects:
    """What K directions do to A attributes; nan where too few pictures are trusted.

    Attributes:
        mean: Mean effect over codes [K, A], in standard deviations.
        low: Lower end of its 95 % interval [K, A].
        high: Upper end [K, A].
        agreement: Share of codes whose effect has the sign of the mean [K, A], in [0, 1].
        size: Mean absolute effect of a code [K, A]: much more than the mean's absolute value where signs disagree.
        purity: Largest absolute mean / sum of all of them [K], in (0, 1].
        purity_low: Lower end of its 95 % interval [K].
        purity_high: Upper end [K].
    """

    mean: Numbers
    low: Numbers
    high: Numbers
    agreement: Numbers
    size: Numbers
    purity: Numbers
    purity_low: Numbers
    purity_high: Numbers


def score_all(scorers: Sequence[Scorer], images: Pixels) -> Numbers:
    """Return what all scorers say of pictures [N, H, W, 3]: [N, A], nan in rows that a scorer does not trust."""
    scored = score(scorers, images)
    return np.concatenate([np.where(one.trusted[:, None], one.values, np.nan) for one in scored], axis=1)


def spread(unedited: Numbers) -> Numbers:
    """Return the standard deviation of each attribute over trusted unedited pictures: [N, A] -> [A].

    It is nan where fewer than 16 are trusted, or where the attribute never changes.
    """
    enough = np.isfinite(unedited).sum(axis=0) >= FEWEST
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without a trusted row become nan, as they should
        sd = np.nanstd(unedited, axis=0)
        level = np.nanmax(np.abs(unedited), axis=0, initial=0.0)
    return np.where(enough & (sd > 1e-9 * (1 + level)), sd, np.nan)


def measure_effects(each: Numbers, seed: int) -> Effects:
    """Sum up effects at single codes.

    Args:
        each: [K, C, A] in standard deviations, nan where a picture is not trusted.
        seed: Of the resampling.
    """
    k, codes, attributes = each.shape
    drawn = torch.randint(codes, (RESAMPLES, codes), generator=stream(seed, "score bootstrap")).numpy()
    weights = np.zeros((RESAMPLES, codes))
    np.add.at(weights, (np.arange(RESAMPLES)[:, None], drawn), 1.0)
    mean, low, high, agreement, size = (np.full((k, attributes), np.nan) for _ in range(5))
    purity = np.full((k, 3), np.nan)
    for i, values in enumerate(each):  # [C, A]
        there = np.isfinite(values)
        told = there.sum(axis=0) >= FEWEST  # [A]
        if not told.any():
            continue
        known, values = there[:, told], np.where(there, values, 0.0)[:, told]
        mean[i, told] = values.sum(axis=0) / known.sum(axis=0)
        size[i, told] = np.abs(values).sum(axis=0) / known.sum(axis=0)
        same = (np.sign(values) == np.sign(mean[i, told])) & known & (mean[i, told] != 0)
        agreement[i, told] = same.sum(axis=0) / known.sum(axis=0)
        means = (weights @ values) / np.maximum(weights @ known, 1.0)  # [R, A']
        low[i, told], high[i, told] = np.percentile(means, LEVELS, axis=0)
        purity[i] = purity_of(mean[i, told]), *np.percentile(purity_of(means), LEVELS)
    return Effects(mean, low, high, agreement, size, *purity.T)


def purity_of(effects: Numbers) -> Numbers:
    """Return largest absolute effect / sum of absolute effects over the last axis; 1 / A where all are 0."""
    size = np.abs(effects)
    total: Numbers = size.sum(axis=-1)
    share: Numbers = np.where(total > 0, size.max(axis=-1) / np.where(total > 0, total, 1.0), 1 / effects.shape[-1])
    return share
