"""Random directions and SeFa, against numpy and the numbers in the weights' files."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from tiny_generators import LayeredGenerator, dcgan_tensors

from latentclr.errors import ConfigError, GeneratorError
from latentclr.generators.biggan.biggan import BigGAN
from latentclr.generators.biggan.spec import spec_for
from latentclr.generators.biggan.tensors import random_tensors as biggan_tensors
from latentclr.generators.dcgan import DCGAN
from latentclr.generators.stylegan2.layout import random_tensors as stylegan2_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.method.closed_form import random_directions, sefa, upright
from latentclr.training.rng import stream

SPEC = dataclasses.replace(spec_for(128), channel_width=4)


def by_numpy(matrices: list[np.ndarray], k: int) -> np.ndarray:
    """SeFa by a singular value decomposition of the rows, each of unit length."""
    a = np.concatenate([m.reshape(-1, m.shape[-1]) for m in matrices]).astype(np.float64)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    _, s, v = np.linalg.svd(a, full_matrices=False)
    # Two machines agree on a vector as well as its value is apart from the next: the tests' are.
    assert (s[:k] ** 2 - s[1 : k + 1] ** 2 > 1e-3 * s[0] ** 2).all()
    return v[:k] * np.sign(v[range(k), np.abs(v[:k]).argmax(axis=1)])[:, None]


def raw(tensors, name):
    return tensors[name].numpy()


def test_random_directions_are_orthonormal_and_seeded():
    for k in (1, 5, 24):
        d = random_directions(k, 24, stream(3, "random"))
        assert torch.allclose(d @ d.T, torch.eye(k, dtype=torch.float64), atol=1e-12)
    again = random_directions(24, 24, stream(3, "random"))
    assert torch.allclose(d, again, atol=1e-12)
    assert not torch.allclose(d, random_directions(24, 24, stream(4, "random")), atol=0.1)
    with pytest.raises(ConfigError, match=r"k must be at most 24 of model=random \(.*\), got 25"):
        random_directions(25, 24, stream(3, "random"))


def test_random_directions_have_no_preferred_side():
    """QR alone prefers one: the first components would all have one sign."""
    first = torch.stack([random_directions(1, 4, stream(seed, "random"))[0] for seed in range(400)])
    assert (first.mean(dim=0).abs() < 5 / (4 * 400) ** 0.5).all()  # five standard errors of a mean of variance 1 / 4


def test_upright():
    v = torch.tensor([[3.0, -4.0], [0.0, 2.0], [-5.0, 1.0]])
    turned = upright(v)
    assert torch.allclose(turned, torch.tensor([[-0.6, 0.8], [0.0, 1.0], [5.0, -1.0]]).double() / torch.tensor(
        [[1.0], [1.0], [26.0**0.5]]), atol=1e-12)  # fmt: skip
    assert torch.equal(upright(-v), turned)


def test_sefa_of_a_dcgan():
    tensors = dcgan_tensors()
    first = raw(tensors, "main.0.weight")  # [D, C, 4, 4]
    expected = by_numpy([first.reshape(24, -1).T], 6)
    found = sefa(DCGAN(tensors), 6, [0])
    assert np.abs(found.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("inputs", [[0], [2], [0, 1, 5], list(range(11))])
def test_sefa_of_a_biggan(inputs):
    tensors = biggan_tensors(SPEC, seed=1)
    blocks = [name for name, block in SPEC.layer_names() if block is not None]
    maps = []
    for i in inputs:
        names = ["generator.gen_z"] if i == 0 else [
            f"{blocks[i - 1]}.bn_{n}.{part}" for n, part in itertools.product(range(4), ("scale", "offset"))
        ]  # fmt: skip
        maps += [raw(tensors, f"{name}.weight_orig")[:, :128] for name in names]
    expected = by_numpy(maps, 3)
    found = sefa(BigGAN(SPEC, dict(tensors), 0.4), 3, inputs)
    assert np.abs(found.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("inputs", [[0], [1, 2], [7], list(range(8))])
def test_sefa_of_a_stylegan2(inputs):
    tensors = stylegan2_tensors(32, n_mlp=2, dim=16, width=24)
    names = ["conv1", *(f"convs.{i}" for i in range(6)), "to_rgbs.2"]
    expected = by_numpy([raw(tensors, f"{names[i]}.conv.modulation.weight") for i in inputs], 4)
    found = sefa(StyleGAN2(tensors), 4, inputs)
    assert np.abs(found.numpy() - expected).max() < 1e-5
    in_z = sefa(StyleGAN2(tensors, use_w=False), 4, inputs)
    assert np.abs(in_z.numpy() - by_numpy([raw(tensors, "style.1.weight")], 4)).max() < 1e-5


def test_sefa_finds_no_more_than_the_rank():
    tensors = dcgan_tensors(dim=8, channels=(4, 4))
    tensors["main.0.weight"][6:] = 2 * tensors["main.0.weight"][:2]  # two of eight values do what two others do
    assert sefa(DCGAN(tensors), 6, [0]).shape == (6, 8)
    with pytest.raises(ConfigError, match=r"k must be at most 6 of model=sefa \(that is the rank .*\), got 7"):
        sefa(DCGAN(tensors), 7, [0])


def test_a_unit_without_weights_is_no_obstacle():
    tensors = dcgan_tensors()
    tensors["main.1.weight"][3] = 0.0  # the batch norm switches a channel off, and with it 16 rows
    left = np.delete(raw(tensors, "main.0.weight"), 3, axis=1)
    found = sefa(DCGAN(tensors), 6, [0])
    assert np.abs(found.numpy() - by_numpy([left.reshape(24, -1).T], 6)).max() < 1e-5


def test_a_generator_that_does_not_tell():
    with pytest.raises(GeneratorError, match="layered does not tell which weights its code meets first"):
        sefa(LayeredGenerator(), 2, [0])
