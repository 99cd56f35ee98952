"""Sliders for scores, on generators whose code says what is in the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_generators import CLASSES
from torch import Tensor, nn

from latentclr.errors import ConfigError, ScorerError
from latentclr.generators.base import Generator, LatentSpec
from latentclr.method.attributes import fit_attributes, independent, picture_metric, ridge, scorers_for
from latentclr.pictures.pixels import to_uint8
from latentclr.scores.pixels import PixelScorer
from latentclr.scores.scorer import Scored
from latentclr.training.rng import stream

D, SIDE = 6, 16
PIXELS = [PixelScorer()]


class Lamp(Generator):
    """Code 0 is brightness, 1 warmth, 2 light from the right, 3 to 5 other patterns; L = 2, of which all is input 0's
    but warmth. Codes are `spread` times as wide as drawn."""

    name = "lamp"

    def __init__(self, spread: Tensor | None = None, conditional: bool = False) -> None:
        super().__init__()
        self.latent = LatentSpec(dim=D, layers=2, sampler="standard_normal")
        self.resolution, self.feature_layers = SIDE, ("all",)
        rng = torch.Generator().manual_seed(0)
        patterns = torch.randn(D, 3, SIDE, SIDE, generator=rng) * 0.1
        patterns -= patterns.mean((2, 3), keepdim=True)  # of no brightness and warmth
        across = torch.linspace(-1, 1, SIDE).expand(SIDE, SIDE)
        patterns[:3] = 0
        patterns[0] += 0.1
        patterns[1] += torch.tensor([0.1, -0.0315, -0.1])[:, None, None]  # as bright as before
        patterns[2] += 0.1 * across
        self.patterns = nn.Parameter(patterns)
        self.spread = nn.Parameter(torch.ones(D) if spread is None else spread)
        if conditional:
            self.class_names, self.class_ids = CLASSES, (1, 3)
        self.freeze()

    def encode(self, z: Tensor, class_id: Tensor | None = None) -> Tensor:
        return z * self.spread

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        code = torch.cat([ps[:, 0, :1], ps[:, 1, 1:2], ps[:, 0, 2:]], dim=1)
        images = torch.einsum("nd,dchw->nchw", code, self.patterns)  # [N, 3, H, W]
        return images if class_id is None else images + 0.2 * (class_id - 2)[:, None, None, None]

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        return self.synthesize(ps, class_id)

    def inputs_reaching(self, layer: str) -> int:
        return 2


class Doubtful:
    """A scorer of the mean that trusts a share of the pictures."""

    name, attributes = "doubtful", ("mean", "noise", "same")

    def __init__(self, share: float) -> None:
        self.share, self.rng = share, np.random.default_rng(0)

    def __call__(self, images):
        n = len(images)
        values = np.stack([images.mean((1, 2, 3)), self.rng.standard_normal(n), np.ones(n)], axis=1)
        trusted = self.rng.random(n) < self.share
        values[~trusted] = np.nan  # whatever stands there must not count
        return Scored(values, trusted)


def fit(generator, *names, scorers=None, fed=(1.0, 1.0), samples=600):
    rng = stream(0, "attributes")
    return fit_attributes(generator, scorers or PIXELS, names, samples, torch.tensor(fed), rng)


def test_each_slider_moves_its_own_attribute():
    fitted = fit(Lamp(), "warmth", "brightness", "light_right")
    axes = fitted.vectors.numpy()
    assert np.abs(np.linalg.norm(axes, axis=1) - 1).max() < 1e-9
    assert np.abs(axes[range(3), [1, 0, 2]] - 1).max() < 0.02
    assert (fitted.explained > 0.95).all()
    assert fitted.trusted == 1.0
    assert (fitted.left > 0.9).all()


def test_sliders_are_independent_of_each_other():
    """Every value of the code does something of everything."""
    generator, names = Lamp(), ("brightness", "light_right", "warmth")
    mix = torch.randn(D, D, generator=stream(2, "mix")) / D**0.5 + torch.ones(D, D) / D
    with torch.no_grad():
        generator.patterns.copy_(torch.einsum("de,echw->dchw", mix, generator.patterns))
    z = torch.randn(100, D, generator=stream(1, "z"))

    def scores(p):
        images = generator.synthesize(p[:, None].expand(-1, 2, -1))
        values = PIXELS[0](to_uint8(images).numpy()).values
        return values[:, [PIXELS[0].attributes.index(name) for name in names]]

    spread = scores(z).std(axis=0)
    for i, d in enumerate(fit(generator, *names).vectors.float()):
        moved = (scores(z + d) - scores(z - d)).mean(axis=0) / 2 / spread
        assert moved[i] > 0.2
        assert np.abs(np.delete(moved, i)).max() < 0.1 * moved[i]


def test_the_way_that_changes_the_picture_least_is_taken():
    """Two values of the code brighten the picture alike; one of them changes much else."""
    generator = Lamp()
    with torch.no_grad():
        generator.patterns[3] = generator.patterns[0]
        generator.patterns[3, :, ::2] += 0.3
        generator.patterns[3, :, 1::2] -= 0.3
    d = fit(generator, "brightness").vectors[0].numpy()
    assert d[0] > 0.95
    assert 0 < d[3] < 0.3


def test_codes_of_other_widths():
    """In a space such as W the answer is the same in units of what codes vary by."""
    spread = torch.tensor([3.0, 0.2, 1.0, 5.0, 0.1, 1.0])
    d = fit(Lamp(spread), "warmth", "brightness").vectors.numpy()
    assert d[0, 1] > 0.9
    assert d[1, 0] > 0.95


def test_only_what_is_fed_counts():
    assert fit(Lamp(), "brightness", fed=(1.0, 0.0)).vectors[0, 0] > 0.99
    with pytest.raises(ConfigError, match="brightness cannot be read from the codes of lamp"):
        fit(Lamp(), "brightness", fed=(0.0, 1.0))
    with pytest.raises(ConfigError, match="warmth cannot be read from the codes of lamp"):
        fit(Lamp(), "warmth", fed=(1.0, 0.0))


def test_differences_between_classes_are_nobodys_direction():
    fitted = fit(Lamp(conditional=True), "brightness", "warmth")
    assert fitted.vectors[0, 0] > 0.98
    assert (fitted.explained > 0.95).all()


def test_untrusted_pictures_are_left_out():
    fitted = fit(Lamp(), "mean", scorers=[Doubtful(0.4)])
    assert 0.3 < fitted.trusted < 0.5
    assert fitted.vectors[0, 0] > 0.98
    with pytest.raises(
        ConfigError, match=r"doubtful can be trusted on \d% of 600 pictures of lamp, too few to find mean"
    ):
        fit(Lamp(), "mean", scorers=[Doubtful(0.03)])


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["noise"], ConfigError, "noise cannot be read from the codes of lamp .*: there is no slider for it"),
        (["same"], ConfigError, "same is the same in all pictures of lamp"),
        (["men"], ScorerError, "no attribute 'men'; did you mean 'mean'"),
        (["mean", "mean"], ScorerError, "attribute 'mean' is asked for twice"),
    ],
)
def test_attributes_that_are_none(names, error, message):
    with pytest.raises(error, match=message):
        fit(Lamp(), *names, scorers=[Doubtful(1.0)])


def test_two_names_of_one_thing():
    generator = Lamp()
    with torch.no_grad():
        generator.patterns[1] = 0  # in grey pictures the mean of the colours is the luma
    with pytest.raises(ConfigError, match="says the same of these pictures as the other attributes: leave one"):
        fit(generator, "mean", "brightness", scorers=[Doubtful(1.0), *PIXELS])


def test_without_a_metric_it_is_the_projection_of_interfacegan():
    rng = np.random.default_rng(0)
    b = rng.standard_normal((9, 3))
    d, left = independent(b, np.eye(9))
    assert np.abs(b.T @ d - np.eye(3)).max() < 1e-12
    for a in range(3):
        others = np.delete(b, a, axis=1)
        normal = b[:, a] - others @ np.linalg.lstsq(others, b[:, a], rcond=None)[0]
        assert np.abs(d[:, a] / np.linalg.norm(d[:, a]) - normal / np.linalg.norm(normal)).max() < 1e-12
        assert abs(left[a] - np.linalg.norm(normal) / np.linalg.norm(b[:, a])) < 1e-12


def test_with_a_metric_it_is_the_shortest_of_all():
    rng = np.random.default_rng(1)
    b, root = rng.standard_normal((7, 2)), rng.standard_normal((7, 7))
    metric = root @ root.T + np.eye(7)
    d, _ = independent(b, np.linalg.inv(metric))
    assert np.abs(b.T @ d - np.eye(2)).max() < 1e-9
    aside = np.linalg.svd(b.T)[2][2:]  # along these no attribute changes
    assert np.abs(aside @ metric @ d).max() < 1e-9 * np.abs(metric @ d).max()


def test_one_thing_twice_leaves_nothing():
    b = np.random.default_rng(2).standard_normal((5, 1))
    assert (independent(np.concatenate([b, 2 * b], axis=1), np.eye(5))[1] == 0).all()


def test_ridge_is_least_squares_where_there_is_no_noise_and_shrinks_where_there_is():
    rng = np.random.default_rng(3)
    x, truth = rng.standard_normal((200, 8)), rng.standard_normal((8, 2))
    assert np.abs(ridge(x, x @ truth) - truth).max() < 1e-3
    noisy = x[:20] @ truth + 5 * rng.standard_normal((20, 2))
    plain = np.linalg.lstsq(x[:20], noisy, rcond=None)[0]
    assert np.linalg.norm(ridge(x[:20], noisy) - truth) < 0.8 * np.linalg.norm(plain - truth)
    wide = ridge(x[:5], x[:5] @ truth)  # fewer samples than values
    assert np.isfinite(wide).all()
    assert np.linalg.norm(wide) < 3 * np.linalg.norm(truth)


def test_the_metric_of_a_linear_generator_is_exact():
    generator = Lamp()
    axes = torch.randn(D, 4, generator=stream(5, "axes"), dtype=torch.float64) * 0.3
    with torch.no_grad():
        generator.patterns *= 0.2  # no pixel is cut off at black or white
    j = generator.patterns.detach().flatten(1).double()  # [D, P]
    found = picture_metric(generator, axes, 3, torch.ones(2), stream(0, "metric"))
    expected = (axes.T @ j @ j.T @ axes).numpy()
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    j[1] = 0  # warmth is input 1's
    found = picture_metric(generator, axes, 3, torch.tensor([1.0, 0.0]), stream(0, "metric"))
    expected = (axes.T @ j @ j.T @ axes).numpy()
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_who_is_asked_if_nobody_is_named():
    assert [scorer.name for scorer in scorers_for(None, ["warmth", "brightness"])] == ["pixels"]
    with pytest.raises(ScorerError, match="no attribute 'brighness'; did you mean 'brightness'"):
        scorers_for(None, ["brighness"])
    with pytest.raises(ScorerError, match="no scorer 'pixel'; did you mean 'pixels'"):
        scorers_for(["pixel"], ["brightness"])
    pytest.importorskip("ai_edge_litert")
    assert [scorer.name for scorer in scorers_for(None, ["happy"])] == ["faces"]
    assert [scorer.name for scorer in scorers_for(None, ["happy", "warmth"])] == ["pixels", "faces"]
