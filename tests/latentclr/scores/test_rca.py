"""RCA: perfect where directions are told apart, chance where they cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentclr.scores.rca import SIDE, Pairs, guess, small

K = 4


def pairs(codes, seed, differ):
    rng = torch.Generator().manual_seed(seed)
    before = torch.randint(60, 190, (codes, 3, SIDE, SIDE), generator=rng, dtype=torch.uint8)
    direction = torch.arange(K).repeat_interleave(codes)
    code = torch.arange(codes).repeat(K)
    after = before[code].clone()
    for i, k in enumerate(direction.tolist()):
        part = k if differ else 0
        after[i, :, part * 8 : part * 8 + 8] += 30
    return Pairs(before, after, code, direction)


def test_what_differs_is_told_apart():
    rca = guess(pairs(48, 0, True), pairs(24, 1, True), K, 0)
    assert rca.accuracy > 0.95
    assert rca.by_code.shape == (24,)
    assert rca.by_direction.shape == (K,)
    assert rca.accuracy == pytest.approx(rca.by_direction.mean())


def test_what_is_the_same_is_guessed():
    rca = guess(pairs(48, 0, False), pairs(48, 1, False), K, 0)
    assert rca.accuracy == pytest.approx(1 / K, abs=0.1)
    assert rca.low <= rca.accuracy <= rca.high


def test_pictures_of_any_size_are_shrunk():
    assert small(np.full((2, 64, 48, 3), 7, np.uint8)).shape == (2, 3, SIDE, SIDE)
    assert (small(np.full((1, 8, 8, 3), 7, np.uint8)) == 7).all()
