"""Duplicates: pairs of directions that do the same, or the same reversed.

Both what is seen and what happens inside must agree: the rows of effects on attributes, and the changes of the
generator's features at equal change of the picture. Attributes alone would call any two directions twins that differ in
nothing that a scorer knows; features alone any two that only look different in the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from latentclr.scores.report import Twin
from latentclr.scores.subject import Codes, Subject

ALIKE_EFFECTS, ALIKE_FEATURES = 0.85, 0.3
"""Cosines from which on two directions' effects and changes of features count as pointing the same way; of features,
whose space is large, unrelated directions have 0.0 to 0.1."""
FEWEST_SHARED = 1 / 3
"""Of the attributes that are known of any direction, the share that two must have in common to be compared."""


@torch.no_grad()
def feature_likeness(subject: Subject, codes: Codes, alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compare the directions' changes of the features at the subject's last layer.

    Args:
        subject: What is moved.
        codes: C codes.
        alpha: Strengths [K, 2] of equal change: down and up.

    Returns:
        Mean over codes of the cosine between each two changes [K, K], in [-1, 1]; 0 where a direction changes nothing.
    """
    k = len(alpha)
    likeness = torch.zeros(k, k, dtype=torch.float64)
    for c in range(len(codes)):
        one = Codes(
            codes.p[c : c + 1], codes.d[:, c : c + 1],
            None if codes.class_id is None else codes.class_id[c : c + 1], codes.fed,
        )  # fmt: skip
        ends = torch.cat([one.moved(i, sign * a) for i in range(k) for sign, a in zip((-1, 1), alpha[i], strict=True)])
        classes = None if one.class_id is None else one.class_id.expand(len(ends))
        low, high = subject.features(ends, classes, subject.layers[-1]).unflatten(0, (k, 2)).unbind(1)  # [K, F]
        change = torch.nn.functional.normalize(high - low, dim=1)
        likeness += (change @ change.T).double().cpu() / len(codes)
    return likeness.numpy()


def find_twins(effects: NDArray[np.float64], features: NDArray[np.float64]) -> list[Twin]:
    """Return the pairs that do the same.

    Args:
        effects: Mean effects [K, A] in standard deviations, nan where they are not known; two directions are compared
            by what is known of both, and are no twins where that is less than a third of what is known of any.
        features: From `feature_likeness` [K, K].
    """
    known = np.isfinite(effects)
    rows, there = np.where(known, effects, 0.0), known.astype(float)
    squares = rows**2 @ there.T  # [K, K]: of the first one's effects, over what is known of both
    length = np.sqrt(squares * squares.T)
    enough = there @ there.T >= FEWEST_SHARED * known.any(axis=0).sum()
    alike = np.where(enough, rows @ rows.T, 0.0) / np.where(length > 0, length, 1.0)
    return [
        Twin(i, j, float(alike[i, j]), float(features[i, j]))
        for i in range(len(alike))
        for j in range(i + 1, len(alike))
        if abs(alike[i, j]) >= ALIKE_EFFECTS
        and abs(features[i, j]) >= ALIKE_FEATURES
        and alike[i, j] * features[i, j] > 0
    ]


def keep(twins: Sequence[Twin], quality: NDArray[np.float64]) -> list[int | None]:
    """Propose which of each group of twins to keep.

    Args:
        twins: From `find_twins`.
        quality: [K]; of two twins the better one is kept, the first of equals.

    Returns:
        For each direction the kept twin that it repeats, None for those to keep.
    """
    others: dict[int, set[int]] = {i: set() for i in range(len(quality))}
    for twin in twins:
        others[twin.first].add(twin.second)
        others[twin.second].add(twin.first)
    kept: list[int] = []
    repeats: list[int | None] = [None] * len(quality)
    for i in np.argsort(-quality, kind="stable").tolist():
        repeats[i] = next((better for better in kept if better in others[i]), None)
        if repeats[i] is None:
            kept.append(i)
    return repeats
