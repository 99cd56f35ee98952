"""A generator goes as a whole to the device and precision that it is moved to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_generators import dcgan_tensors
from torch import Tensor

from latentclr.generators.base import Generator
from latentclr.generators.biggan.biggan import load_biggan
from latentclr.generators.dcgan import DCGAN
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2

GOLDEN = Path(__file__).parents[2] / "data" / "biggan_tiny"


def make(name: str) -> Generator:
    if name == "dcgan":
        return DCGAN(dcgan_tensors())
    if name == "biggan":
        return load_biggan(str(GOLDEN), class_name=[0])
    return StyleGAN2(random_tensors(16, n_mlp=2, dim=16, width=16), use_w=name == "stylegan2 in W", truncation=0.7)


GENERATORS = ("dcgan", "biggan", "stylegan2 in W", "stylegan2 in Z")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in an attribute, however deep in plain containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from tensors_in(item)


@pytest.mark.parametrize("name", GENERATORS)
def test_no_tensor_stays_behind(name: str) -> None:
    generator = make(name).to("meta")
    for path, module in generator.named_modules():
        for attribute, value in vars(module).items():
            left = [tensor.shape for tensor in tensors_in(value) if tensor.device.type != "meta"]
            assert not left, f"{path or name}.{attribute}: {left}"


@pytest.mark.parametrize("name", GENERATORS)
def test_every_layer_runs_where_the_generator_is(name: str) -> None:
    """On the meta device, which refuses a tensor of another one; in float64 all results are float64 and closer."""
    generator = make(name)
    count, spec = 2, generator.latent
    ps = torch.randn(count, spec.layers, spec.dim, generator=torch.Generator().manual_seed(0))
    class_id = torch.zeros(count, dtype=torch.int64) if generator.class_names else None
    shapes = {}
    for layer in generator.feature_layers:
        features = generator.features(ps, layer, class_id)
        shapes[layer] = features.shape
        exact = make(name).double().features(ps.double(), layer, class_id)
        assert exact.dtype == torch.float64
        torch.testing.assert_close(features.double(), exact, rtol=0, atol=1e-4 * float(exact.abs().max()))
    generator.to("meta")
    meta_class = None if class_id is None else class_id.to("meta")
    for layer, shape in shapes.items():
        features = generator.features(ps.to("meta"), layer, meta_class)
        assert (features.shape, features.device.type) == (shape, "meta"), layer
