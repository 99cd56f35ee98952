"""Ranges, against the distribution that they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import LIGHT, NOTHING, scene
from tiny_generators import D, LayeredGenerator

from latentclr.generators.dcgan import load_dcgan
from latentclr.scores.reach import Usual, feature_reach, fit_usual, learn_usual, middle_layer, trusted_reach


def normal(count, seed):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_mahalanobis_over_its_quantile():
    mix = torch.randn(D, D, generator=torch.Generator().manual_seed(9))
    usual = fit_usual(normal(4000, 0) @ mix, normal(4000, 1) @ mix)
    assert usual is not None
    assert usual.limits[1] == float("inf")  # all variance lies within the components
    assert usual.limits[0] == pytest.approx(16.81**0.5, rel=0.03)  # 99 % quantile of chi-square with 6 degrees
    z = normal(50, 2)
    assert usual.distance(z @ mix) == pytest.approx(z.norm(dim=1) / usual.limits[0], rel=0.06)


def test_what_lies_beside_the_components_is_unusual():
    plane = torch.zeros(3, 60)
    plane[0, 0] = plane[1, 1] = plane[2, 2] = 1.0

    def drawn(seed):
        rng = torch.Generator().manual_seed(seed)
        return torch.randn(300, 3, generator=rng) @ plane + 0.01 * torch.randn(300, 60, generator=rng)

    usual = fit_usual(drawn(0), drawn(1))
    assert usual is not None
    odd = drawn(2)[:20]
    assert float(usual.distance(odd).median()) < 1
    odd[:, 50] += 1.0
    assert float(usual.distance(odd).min()) > 1


def test_features_that_never_change_say_nothing():
    assert fit_usual(torch.ones(40, 5), torch.ones(40, 5)) is None


def test_a_range_ends_where_half_of_the_codes_are_unusual():
    """At the layer `code`: |z + a e0| over |z| of 6 normal numbers."""
    subject = scene()
    subject.layers = ("code",)
    usual = learn_usual(subject, 0)
    reach, capped = feature_reach(subject, subject.codes(400, 0, "test"), usual, np.full((5, 2), 1.0), 3.0)
    z = normal(100_000, 3).double()
    limit = torch.quantile(z.norm(dim=1), 0.99)
    expected = next(
        a for a in np.arange(2.5, 5, 0.01) if (z + a * torch.eye(D)[0]).norm(dim=1).median() > limit
    )  # fmt: skip
    assert reach[LIGHT] == pytest.approx([expected, expected], rel=0.08)
    assert not capped[LIGHT].any()


def test_without_features_the_cap_is_the_end():
    subject = scene()
    subject.layers = ("picture",)
    usual = learn_usual(subject, 0)
    start = np.full((5, 2), 1.0)
    start[LIGHT] = 5.0
    reach, capped = feature_reach(subject, subject.codes(24, 0, "test"), usual, start, 3.0)
    assert reach[NOTHING].tolist() == [12.0, 12.0]  # 4 times the training's strength
    assert capped[NOTHING].all()
    reach, capped = feature_reach(subject, subject.codes(24, 0, "test"), {}, start, 3.0)
    assert reach[LIGHT].tolist() == [20.0, 20.0]  # 4 times the strength of equal change
    assert capped.all()


def test_trust_ends_a_range():
    assert trusted_reach([0, 1, 2, 3], [1, 1, 1, 0.95]) == 3
    assert trusted_reach([0, 1, 2, 3], [1, 1, 0.8, 0.1]) == pytest.approx(1.5)
    assert trusted_reach([0, 1, 2, 3], [0.5, 0.5, 0.4, 0.9]) == pytest.approx(1.5)
    assert trusted_reach([0, 1], [0.0, 0.0]) == 1


def test_the_layer_in_the_middle(tiny_weights):
    assert middle_layer(load_dcgan(str(tiny_weights)), torch.ones(1)) == "main.3"  # of main.0 to main.7
    layered = LayeredGenerator()
    assert middle_layer(layered, torch.tensor([1.0, 1, 1])) == "layers.1"
    assert middle_layer(layered, torch.tensor([0.0, 0, 1])) == "layers.2"  # the first that such an edit reaches


def test_limits_are_of_each_measure():
    usual = Usual(torch.zeros(2).double(), torch.tensor([[1.0, 0.0]]).double(), (2.0, 4.0))
    assert usual.distance(torch.tensor([[1.0, 2.0], [3.0, 2.0]])).tolist() == [0.5, 1.5]
