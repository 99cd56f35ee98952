"""Directions that are known by construction are found, named, oriented and ranged, and the duplicate is marked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import BOTH, DARKNESS, LIGHT, NOTHING, PLACE_REVERSED, RUN, measured, scene
from tiny_generators import D
from tqdm import tqdm

from latentclr.method.directions import GlobalDirections
from latentclr.scores.measure import measure
from latentclr.scores.scorer import Scored, build_scorers


def effect(scores, direction, name):
    names = [attribute.name for attribute in scores.attributes]
    return scores.directions[direction].effects[names.index(name)]


def test_what_is_known_is_found():
    scores = measured().scores
    light, place = effect(scores, LIGHT, "brightness"), effect(scores, PLACE_REVERSED, "light_right")
    assert light.mean > 0.5
    assert light.low > 0
    assert light.agreement == 1
    assert place.mean < -0.5
    assert place.high < 0
    assert place.agreement > 0.9
    assert effect(scores, DARKNESS, "brightness").mean < -0.5
    assert abs(effect(scores, PLACE_REVERSED, "brightness").mean) < 0.2


def test_what_is_known_is_named_and_oriented():
    directions = measured().scores.directions
    assert (directions[LIGHT].name, directions[LIGHT].reverse) == ("brightness", False)
    assert (directions[PLACE_REVERSED].name, directions[PLACE_REVERSED].reverse) == ("light right", True)
    for unnamed in (DARKNESS, NOTHING):
        assert directions[unnamed].name == ""
        assert directions[unnamed].reason


def test_the_duplicate_is_marked():
    scores = measured().scores
    (twin,) = (pair for pair in scores.twins if {pair.first, pair.second} == {LIGHT, DARKNESS})
    assert twin.effects < -0.85
    assert twin.features < -0.85
    assert scores.directions[DARKNESS].twin_of == LIGHT
    assert scores.directions[LIGHT].twin_of is None
    assert scores.directions[PLACE_REVERSED].twin_of is None
    assert scores.directions[DARKNESS].reason == f"does the same as {LIGHT}"


def test_all_stand_on_equal_footing():
    for k, direction in enumerate(measured().scores.directions):
        for change in direction.change:
            expected = 0 if k == NOTHING else 25 / 255
            assert change == pytest.approx(expected, rel=0.1, abs=1e-4)  # found on a third of the codes


def test_ranges_are_where_the_pictures_stay_usual():
    directions = measured().scores.directions
    assert directions[LIGHT].ends == ("features", "features")
    low, high = directions[LIGHT].range
    assert 2.0 < high < 6.0  # tests of reach.py know the number
    assert low == pytest.approx(-high, rel=0.35)
    assert directions[NOTHING].range[1] > 2  # it does nothing to the picture, but soon leaves the codes that there are


def test_curves_go_over_the_range():
    scores = measured().scores
    direction = scores.directions[LIGHT]
    names = [attribute.name for attribute in scores.attributes]
    values = [row[names.index("brightness")] for row in direction.curve]
    assert len(direction.alphas) == 7
    assert direction.alphas[3] == 0
    assert values[3] == 0
    assert values == sorted(values)
    assert direction.alphas[0] == pytest.approx(direction.range[0], rel=1e-3)
    assert direction.alphas[-1] == pytest.approx(direction.range[1], rel=1e-3)


class Wavering(GlobalDirections):
    """A direction that moves light one way at one half of the codes, and the other way at the rest."""

    def _all(self, p):
        return super()._all(p) * torch.sign(p[:, 5])[None, :, None]


def test_a_sign_that_flips_from_code_to_code_is_told():
    wavering = Wavering(2, D, torch.Generator().manual_seed(0))
    wavering.params.data = torch.eye(D)[:2]
    with tqdm(disable=True) as bar:
        result = measure(
            scene(directions=wavering), build_scorers(["pixels"]), RUN, seed=0, codes=24, trained=3.0, bar=bar
        )  # fmt: skip
    scores = result.scores
    flips = scores.directions[0].flips
    assert flips is not None
    assert scores.attributes[flips].name in ("brightness", "background")
    assert scores.directions[0].effects[flips].size > 1
    assert abs(scores.directions[0].effects[flips].mean) < 0.7
    assert scores.directions[0].name == ""


class Trusting:
    """A scorer of brightness that trusts pictures which are no brighter than a limit."""

    attributes: tuple[str, ...] = ("brightness",)

    def __init__(self, name, limit):
        self.name, self.limit = name, limit

    def __call__(self, images):
        brightness = images.mean(axis=(1, 2, 3))
        return Scored(brightness[:, None], brightness <= self.limit)


def test_each_scorers_trust_is_held_against_its_own():
    """One that trusts fewer of the unedited pictures hides nothing of another that loses trust on the way."""
    subject = scene()
    codes = subject.codes(24, 0, "test")
    level = subject.render(codes.still(), codes.class_id).mean(axis=(1, 2, 3))
    falling = Trusting("falling", float(np.quantile(level, 0.95)))

    class Steady(Trusting):
        def __call__(self, images):
            return Scored(images.mean(axis=(1, 2, 3))[:, None], np.arange(len(images)) % 5 < 3)

    ends = []
    for scorers in ([falling], [falling, Steady("steady", 0.0)]):
        with tqdm(disable=True) as bar:
            made = measure(scene(), scorers, RUN, seed=0, codes=60, trained=3.0, bar=bar).scores
        ends.append((made.directions[LIGHT].range[1], made.directions[LIGHT].ends[1]))
    assert ends[0] == ends[1]
    assert ends[0][1] == "trust"


def test_what_never_changes_has_no_effects():
    """The scene is gray."""
    scores = measured().scores
    told = {attribute.name: attribute.sd for attribute in scores.attributes}
    assert told["warmth"] is None
    assert told["brightness"] is not None
    assert effect(scores, LIGHT, "warmth") is None


def test_a_network_tells_different_directions_apart():
    scores = measured().scores
    assert scores.rca.chance == 0.2
    assert scores.directions[PLACE_REVERSED].rca > 0.8
    assert scores.rca.low <= scores.rca.accuracy <= scores.rca.high


def test_strips_show_the_range():
    strips = measured().strips
    assert strips.shape == (5, 3, 5, 16, 16, 3)
    light = strips[LIGHT].mean(axis=(2, 3, 4))  # [3, 5]
    assert (light[:, 1:] > light[:, :-1]).all()
    assert (strips[NOTHING] == strips[NOTHING][:, 2:3]).all()


def test_few_codes_see_classes_from_everywhere():
    """The first ids of ImageNet are fish and birds."""
    subject = scene(conditional=True)
    subject.generator.class_ids = tuple(range(1000))
    drawn = subject.codes(96, 0, "score").class_id
    assert len(set(drawn.tolist())) == 96
    assert 400 < drawn.double().mean() < 600
    assert torch.equal(drawn, subject.codes(96, 0, "score").class_id)
    assert not torch.equal(drawn, subject.codes(96, 0, "score unedited").class_id)
    assert torch.equal(subject.codes(96, 0, "score").p, scene().codes(96, 0, "score").p)
    subject.generator.class_ids = (1, 3)  # each as often as the other
    assert subject.codes(24, 0, "score").class_id.tolist().count(3) == 12


def test_classes_are_the_runs_and_all_is_the_same_again():
    scores = measured(conditional=True, codes=24).scores
    assert measured.__wrapped__(conditional=True, codes=24).scores == scores
    assert scores.directions[LIGHT].name == "brightness"
    assert scores.directions[BOTH].change[0] == pytest.approx(25 / 255, rel=0.1)
