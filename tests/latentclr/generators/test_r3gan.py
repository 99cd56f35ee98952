"""R3GAN against numbers from its authors' code, and what training and export need of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import nvidia_files
import pytest
import torch
from golden_networks import DATA, assert_near
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.r3gan.config import R3GANConfig
from latentclr.generators.r3gan.layout import random_tensors
from latentclr.generators.r3gan.r3gan import R3GAN, load_r3gan
from latentclr.generators.weights.convert import convert_weights
from latentclr.generators.weights.modules import generator_of
from latentclr.generators.weights.pickle_objects import StoredTensor
from latentclr.generators.weights.safe_pickle import load_pickle

PICKLE = DATA / "r3gan_16" / "network.pkl"


def load_expected() -> dict[str, Tensor]:
    with np.load(PICKLE.with_name("expected.npz")) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def tensors_of(path: Path) -> dict[str, Tensor]:
    return {name: stored.read() for name, stored in generator_of(load_pickle(path), path).tensors.items()}


def test_golden_numbers_from_the_authors_own_pickle(tmp_path: Path) -> None:
    expected = load_expected()
    ps, class_id = expected["z"][:, None], expected["class_id"]
    convert_weights(PICKLE, tmp_path / "a.safetensors")
    torch.save({key.removeprefix("Model."): t for key, t in tensors_of(PICKLE).items()}, tmp_path / "a.pt")
    for path in (PICKLE, tmp_path / "a.safetensors", tmp_path / "a.pt"):
        g = load_r3gan(R3GANConfig(weights=str(path), classes=[2]))
        assert (g.latent.dim, g.latent.layers, g.resolution, g.class_ids) == (12, 1, 16, (2,))
        assert_near(g.synthesize(ps, class_id), expected["image"])
    assert {f"feature.{name}" for name in g.feature_layers} == {key for key in expected if key.startswith("feature.")}
    for name in g.feature_layers:
        assert_near(g.features(ps, name, class_id)[:, :4], expected[f"feature.{name}"])
        assert g.inputs_reaching(name) == 1
    with pytest.raises(GeneratorError, match="r3gan is class-conditional: expected class_id"):
        g.synthesize(ps)


def test_gradients_reach_the_code_and_no_weight() -> None:
    g = R3GAN(random_tensors((8, 8, 4), (4, 4, 2), dim=6))
    ps = torch.randn(2, 1, 6, requires_grad=True)
    image = g.train().synthesize(ps)
    image.square().sum().backward()
    assert image.shape == (2, 3, 16, 16) and image.std() > 0.01
    assert ps.grad is not None and ps.grad.abs().min() > 0
    assert all(p.grad is None and not p.requires_grad for p in g.parameters()) and not g.training
    assert g.class_names is None and g.class_ids == () and g.first_weights([0]).shape == (8, 6)


def test_published_networks_have_the_published_shapes() -> None:
    g = load_r3gan(R3GANConfig(weights="random"))
    assert g.random_weights and g.resolution == 64 and g.latent.dim == 64 and len(g.feature_layers) == 5 * 3
    assert g.feature_size("MainLayers.4.Layers.2") == 384 * 64 * 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": torch.zeros(1)}, "unexpected: extra"),
        ({"AggregationLayer.Layer.weight": torch.zeros(4, 4, 1, 1)}, r"expected \[3, 4, 1, 1\], got \[4, 4, 1, 1\]"),
        ({"MainLayers.0.Layers.1.NonLinearity1.Bias": torch.full((16,), float("nan"))}, "not finite numbers"),
        ({"MainLayers.1.Layers.0.Resampler.Kernel": torch.ones(4, 4)}, r"Kernel must be \[1, 3, 3, 1\]"),
        ({"MainLayers.0.Layers.1.LinearLayer2.Layer.weight": torch.zeros(16, 3, 3, 3)}, "16 channels in groups of 3"),
        ({"EmbeddingLayer.weight": torch.zeros(6, 3)}, "leaves no room for a code"),
        ({"MainLayers.99999.Layers.1.x": torch.zeros(1)}, "do not fit"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_what_does_not_fit_is_told(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(GeneratorError, match=message):
        R3GAN(random_tensors((8, 8, 4), (4, 4, 2), dim=6) | change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": None}, "weights must name an R3GAN file"),
        ({"weights": "random:32"}, "takes 64 or 256, got '32'"),
        ({"weights": "none.pkl"}, r"cannot read none\.pkl"),
    ],
    ids=lambda value: None if isinstance(value, str) else "options",
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GeneratorError, match=message):
        load_r3gan(R3GANConfig(**options))


def test_one_storage_under_many_names_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name would be a copy of its own: a hundred times the file, here of a megabyte."""
    path = nvidia_files.write_pickle(tmp_path / "a.pkl", nvidia_files.one_storage(100, 2**18))
    assert path.stat().st_size < 1_100_000
    monkeypatch.delattr(StoredTensor, "read")
    with pytest.raises(GeneratorError, match=r"a\.pkl: its tensors are larger than the file: 26214400 numbers of 10"):
        load_r3gan(R3GANConfig(weights=str(path)))


def test_other_and_cut_files_are_refused(tmp_path: Path) -> None:
    other = nvidia_files.write_pickle(tmp_path / "x.pkl", nvidia_files.module("Other", {}, {}))
    with pytest.raises(GeneratorError, match=r"x\.pkl holds a network of class Other; expected R3GAN"):
        load_r3gan(R3GANConfig(weights=str(other)))
    data = PICKLE.read_bytes()
    for length in (0, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.pkl").write_bytes(data[:length])
        with pytest.raises(GeneratorError, match=r"cut\.pkl"):
            load_r3gan(R3GANConfig(weights=str(tmp_path / "cut.pkl")))
    with pytest.raises(GeneratorError, match="not R3GAN weights: expected MainLayers"):
        R3GAN({"a": torch.zeros(1)})
