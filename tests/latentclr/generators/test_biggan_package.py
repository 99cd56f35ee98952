"""Parity with the `pytorch_pretrained_biggan` package itself, on seeded random weights."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latentclr.generators.biggan.biggan import BigGAN
from latentclr.generators.biggan.spec import LAYERS, BigGANSpec, spec_for
from latentclr.generators.biggan.tensors import random_tensors

with warnings.catch_warnings():  # a package of 2019
    warnings.simplefilter("ignore")
    package = pytest.importorskip("pytorch_pretrained_biggan")

# Its spectral norm is the old hook form, which torch now warns about.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
TOLERANCE = 1e-4


def package_model(spec: BigGANSpec, tensors: dict[str, Tensor]) -> Any:
    model = package.BigGAN(package.BigGANConfig.from_dict(dataclasses.asdict(spec)))
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def one_hot(class_id: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(class_id, classes).float()


@pytest.mark.parametrize(
    ("resolution", "truncation"), [*((128, t) for t in (0.02, 0.4, 0.37, 0.58, 0.995, 1.0)), (256, 0.37), (512, 0.37)]
)
def test_small_channels(resolution: int, truncation: float) -> None:
    width = 8 if resolution == 128 else 4
    spec = BigGANSpec(resolution, LAYERS[resolution], channel_width=width, num_classes=10)
    tensors = random_tensors(spec, seed=resolution)
    model = package_model(spec, tensors)
    generator = BigGAN(spec, dict(tensors), truncation)
    z = generator.sample(1, torch.Generator().manual_seed(1))
    class_id = torch.tensor([7])
    with torch.no_grad():
        expected = model(z, one_hot(class_id, 10), truncation)
        image = generator.synthesize(z[:, None].expand(-1, generator.latent.layers, -1), class_id)
    torch.testing.assert_close(image, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "resolution",
    [pytest.param(128, marks=pytest.mark.slow), *(pytest.param(n, marks=pytest.mark.full) for n in (256, 512))],
)
def test_full_size(resolution: int) -> None:
    spec = spec_for(resolution)
    tensors = random_tensors(spec)
    model = package_model(spec, tensors)
    generator = BigGAN(spec, tensors, 0.4)
    z, class_id = generator.sample_seeds(7, 1), torch.tensor([16])
    with torch.no_grad():
        expected = model(z, one_hot(class_id, 1000), 0.4)
        image = generator.synthesize(z[:, None].expand(-1, generator.latent.layers, -1), class_id)
    assert image.shape == (1, 3, resolution, resolution)
    torch.testing.assert_close(image, expected, atol=TOLERANCE, rtol=0)
    assert (image.abs() > 0.99).float().mean() < 0.05  # a saturated image would compare nothing


def test_a_seed_means_what_it_means_to_the_package() -> None:
    spec = BigGANSpec(128, LAYERS[128], channel_width=4, num_classes=10)
    generator = BigGAN(spec, random_tensors(spec), 0.4)
    drawn = generator.sample_seeds(85, 2)
    for i in range(2):
        np.testing.assert_allclose(
            drawn[i], package.truncated_noise_sample(1, truncation=0.4, seed=85 + i)[0], rtol=1e-6
        )
