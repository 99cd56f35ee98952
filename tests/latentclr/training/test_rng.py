"""Random streams: one for each purpose, independent of everything else."""

from __future__ import annotations

import torch

from latentclr.training.rng import stream


def draw(*what):
    return torch.randn(4, generator=stream(*what)).tolist()


def test_streams():
    assert draw(0, "train", 5) == draw(0, "train", 5)
    # As they are used: (seed, "train", step, rank), (seed, "eval", batch), (seed, "init").
    others = [
        draw(0, "train", 5, 0),
        draw(0, "train", 5, 1),
        draw(0, "train", 6, 0),
        draw(0, "train", 0, 5),
        draw(1, "train", 5, 0),
        draw(0, "eval", 5),
        draw(0, "eval", 6),
        draw(0, "init"),
    ]
    assert len({tuple(values) for values in others}) == len(others)


def test_streams_leave_the_global_one_alone():
    before = torch.get_rng_state()
    draw(3, "x")
    assert torch.equal(before, torch.get_rng_state())
