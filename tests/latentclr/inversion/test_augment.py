"""What pictures go through before an encoder sees them."""

from __future__ import annotations

import torch

from latentclr.inversion.augment import augment
from latentclr.training.rng import stream


def pictures(count: int = 24, size: tuple[int, int] = (16, 24)) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, size[0]), torch.linspace(-1, 1, size[1]), indexing="ij")
    base = torch.stack([rows, columns, rows * columns])
    return base.expand(count, -1, -1, -1).clone()


def test_a_part_is_changed_and_the_rest_is_left_alone():
    images = pictures(200)
    seen = augment(images, stream(0, "a"), 0.5)
    changed = (seen != images).flatten(1).any(1).sum()
    assert 70 < changed < 130
    assert torch.equal(augment(images, stream(0, "a"), 0.0), images)


def test_all_stay_pictures_of_the_same_size_and_like_the_original():
    images = pictures()
    seen = augment(images, stream(1, "a"), 1.0)
    assert seen.shape == images.shape
    assert seen.abs().max() <= 1
    assert torch.isfinite(seen).all()
    likeness = torch.nn.functional.cosine_similarity(seen.flatten(1), images.flatten(1))
    assert likeness.min() > 0.5


def test_the_same_stream_changes_alike_and_another_otherwise():
    images = pictures()
    assert torch.equal(augment(images, stream(2, "a"), 1.0), augment(images, stream(2, "a"), 1.0))
    assert not torch.equal(augment(images, stream(2, "a"), 1.0), augment(images, stream(3, "a"), 1.0))
