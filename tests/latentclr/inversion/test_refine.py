"""Refinement comes nearer by pixels, never gets worse, and treats each picture by itself."""

from __future__ import annotations

import itertools

import pytest
import torch

from latentclr.generators.dcgan import load_dcgan
from latentclr.inversion.encoder import Encoder, EncoderSpec
from latentclr.inversion.objective import draw
from latentclr.inversion.refine import from_prior, refine
from latentclr.training.rng import stream


@pytest.fixture(scope="module")
def scene(tiny_weights):
    generator = load_dcgan(str(tiny_weights))
    drawn = draw(generator, 3, stream(0, "codes"))
    height, width = generator.size
    encoder = Encoder(EncoderSpec("z", generator.latent.dim, 1, height, width, 4))
    start = drawn.codes + 0.5 * torch.randn(drawn.codes.shape, generator=stream(1, "noise"))
    return generator, encoder, drawn, start


def errors_of(generator, codes, images):
    with torch.no_grad():
        return (generator.synthesize(codes[:, None]).clamp(-1, 1) - images).square().flatten(1).mean(1)


def test_it_comes_nearer_and_no_row_gets_worse(scene):
    generator, encoder, drawn, start = scene
    found = refine(generator, encoder, drawn.images, start, 60)
    before, after = errors_of(generator, start, drawn.images), errors_of(generator, found, drawn.images)
    assert (after < 0.1 * before).all()
    perfect = refine(generator, encoder, drawn.images, drawn.codes, 5)
    # The best code is kept, and this one cannot be bettered but by what the pixels' rounding hides.
    assert (errors_of(generator, perfect, drawn.images) <= errors_of(generator, drawn.codes, drawn.images) + 1e-9).all()


def test_rows_do_not_depend_on_each_other(scene):
    generator, encoder, drawn, start = scene
    together = refine(generator, encoder, drawn.images, start, 10)
    alone = refine(generator, encoder, drawn.images[1:2], start[1:2], 10)
    # Ten steps of Adam on sums that are rounded in another order: far below a hundredth of a standard deviation.
    assert torch.allclose(together[1:2], alone, atol=1e-2)


def test_it_tells_each_step_and_can_be_ended(scene):
    generator, encoder, drawn, start = scene
    seen = []

    def told(step, errors):
        seen.append((step, errors.clone()))
        return step < 4

    refine(generator, encoder, drawn.images, start, 50, told=told)
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    assert all((later <= earlier).all() for (_, earlier), (_, later) in itertools.pairwise(seen))


def test_w_plus_codes_are_held_together(scene):
    generator, _, drawn, _ = scene
    height, width = generator.size
    encoder = Encoder(EncoderSpec("w+", generator.latent.dim, 1, height, width, 4))
    found = refine(generator, encoder, drawn.images, torch.ones(3, 1, generator.latent.dim), 5)
    assert found.shape == (3, 1, generator.latent.dim)


def test_distance_from_the_prior(scene):
    _, encoder, *_ = scene
    encoder.set_prior(torch.randn(4000, encoder.spec.dim, generator=stream(0, "prior")) * 3 + 1)
    usual = torch.randn(500, encoder.spec.dim, generator=stream(1, "prior")) * 3 + 1
    assert from_prior(encoder, usual).mean() == pytest.approx(1, abs=0.05)
    assert from_prior(encoder, encoder.mean[None]).item() == pytest.approx(0, abs=1e-6)
