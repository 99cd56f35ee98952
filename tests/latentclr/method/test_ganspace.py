"""GANSpace against numpy on all samples at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_generators import LAYERS, LayeredGenerator, dcgan_tensors

from latentclr.errors import ConfigError
from latentclr.generators.dcgan import DCGAN
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.method.ganspace import ROWS_AT_ONCE, IncrementalPCA, ganspace
from latentclr.training.rng import stream


def turned(v):
    v = v / np.linalg.norm(v, axis=1, keepdims=True)
    return v * np.sign(v[range(len(v)), np.abs(v).argmax(axis=1)])[:, None]


def codes(generator, samples, classes=1):
    """What `ganspace` draws: batches of a class, one after the other."""
    rng = stream(0, "ganspace")
    each, drawn = samples // classes, []
    for _ in range(classes):
        sizes = [min(ROWS_AT_ONCE, each - start) for start in range(0, each, ROWS_AT_ONCE)]
        drawn.append(torch.cat([generator.sample(size, rng) for size in sizes]))
    return drawn


def apart(values, k):
    """Check that eigenvalues are so far apart that no rounding mixes their vectors."""
    assert (values[:k] - values[1 : k + 1] > 1e-3 * values[0]).all()


@pytest.mark.parametrize("sizes", [(7, 128, 30, 3), (400,), (1,) * 40])
def test_incremental_pca(sizes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((sum(sizes), 12)) * np.arange(1, 13) + rng.standard_normal(12) * 30
    pca = IncrementalPCA(12, 12)
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        pca.add(torch.from_numpy(part))
    _, s, v = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    assert np.abs(pca.mean.numpy() - x.mean(axis=0)).max() < 1e-9
    assert np.abs(pca.energy.numpy() / s**2 - 1).max() < 1e-8
    assert np.abs(np.abs((pca.components.numpy() * v).sum(axis=1)) - 1).max() < 1e-8


def test_incremental_pca_keeps_the_leading_components_when_it_cuts_off():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2000, 60)) * 0.8 ** np.arange(60)
    pca = IncrementalPCA(60, 20)
    for part in np.split(x, 20):
        pca.add(torch.from_numpy(part))
    assert pca.components.shape == (20, 60)
    _, s, v = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    assert np.abs((pca.components.numpy()[:5] * v[:5]).sum(axis=1)).min() > 0.9999
    assert np.abs(pca.energy.numpy()[:5] / s[:5] ** 2 - 1).max() < 1e-3


def test_in_w():
    generator = StyleGAN2(random_tensors(16, n_mlp=2, dim=16, width=8))
    w = generator.encode(codes(generator, 300)[0]).double().numpy()
    _, s, v = np.linalg.svd(w - w.mean(axis=0), full_matrices=False)
    apart(s**2, 4)
    found, explained = ganspace(generator, 4, 300, "conv1", stream(0, "ganspace"), in_w=True)
    assert np.abs(found.numpy() - turned(v[:4])).max() < 1e-4
    assert np.abs(explained.numpy() - s[:4] ** 2 / (s**2).sum()).max() < 1e-6


@pytest.mark.parametrize("layer", ["main.0", "main.2"])
def test_of_a_layer_carried_back_to_z(layer):
    """The paper's own words: coordinates of the activations, and least squares from them to the codes."""
    generator = DCGAN(dcgan_tensors(dim=8, channels=(6, 4)))
    (z,) = codes(generator, 500)
    y = generator.features(z[:, None], layer).flatten(1).double().numpy()
    _, s, v = np.linalg.svd(y - y.mean(axis=0), full_matrices=False)
    apart(s**2, 3)
    x = (y - y.mean(axis=0)) @ v.T[:, :20]
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    u = np.linalg.lstsq(x, z.double().numpy(), rcond=None)[0]  # [20 + 1, D]
    found, _ = ganspace(generator, 3, 500, layer, stream(0, "ganspace"), in_w=False)
    assert found.shape == (3, 8)
    assert np.abs(found.numpy() - turned(u[:3])).max() < 1e-4


def test_classes_are_no_variance():
    """Of two classes with other means the pooled covariance within them counts, not the difference between them."""
    generator = LayeredGenerator(conditional=True)
    with torch.no_grad():
        generator.classes *= 20  # differences between classes dwarf those of codes
        generator.inputs *= 0.2
    z = codes(generator, 400, classes=2)
    parts = [
        generator.features(part[:, None].expand(-1, LAYERS, -1), "layers.1", torch.full((200,), c)).double().numpy()
        for part, c in zip(z, generator.class_ids, strict=True)
    ]
    y = np.concatenate([part - part.mean(axis=0) for part in parts])
    _, s, v = np.linalg.svd(y, full_matrices=False)
    apart(s**2, 2)
    expected = turned(v[:2] @ y.T @ np.concatenate(z).astype(np.float64))
    found, _ = ganspace(generator, 2, 400, "layers.1", stream(0, "ganspace"), in_w=False)
    assert np.abs(found.numpy() - expected).max() < 1e-4


def test_one_seed_one_result_and_what_is_refused(monkeypatch):
    generator = DCGAN(dcgan_tensors(dim=8, channels=(6, 4)))

    def compute(k=3, samples=200, seed=0, layer="main.0", g=generator):
        return ganspace(g, k, samples, layer, stream(seed, "ganspace"), in_w=False)[0]

    assert torch.allclose(compute(), compute(), atol=1e-9)
    assert not torch.allclose(compute(), compute(seed=1), atol=1e-3)
    with pytest.raises(ConfigError, match=r"k must be at most 8 of model=ganspace \(.*vary in 200 samples\), got 9"):
        compute(k=9)
    with pytest.raises(ConfigError, match=r"k must be at most 4 of model=ganspace \(.*vary in 5 samples\), got 5"):
        compute(k=5, samples=5)
    with pytest.raises(ConfigError, match=r"model.samples must be at least 2 for each of 2 classes, got 3"):
        compute(samples=3, g=LayeredGenerator(conditional=True), layer="layers.0")
    monkeypatch.setattr("latentclr.method.ganspace.MOST_MEMORY", 1000)
    with pytest.raises(ConfigError, match=r"would need .* GiB for the 96 values of main.0"):
        compute()


def test_a_part_of_the_samples_says_the_same():
    """More samples, hardly another answer: what 4,000 codes say of W is what 20,000 do."""
    generator = StyleGAN2(random_tensors(8, n_mlp=1, dim=8, width=4))
    few, many = (ganspace(generator, 2, n, "conv1", stream(n, "ganspace"), in_w=True)[0] for n in (4000, 20_000))
    assert (few * many).sum(dim=1).abs().min() > 0.95
