"""Projectors against layers of torch put together by hand (equality with the origin: test_golden_origin.py)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.method.projectors import LinearProjector, NonlinearProjector, Projector

IN, MIDDLE, OUT = 12, 7, 5
KINDS = ["identity", "linear", "nonlinear 1", "nonlinear 2", "nonlinear 3"]


def make(kind: str, normalize: bool = True, seed: int = 3) -> Projector:
    """A projector as after some training: its batch norms have gains, shifts and statistics of their own."""
    rng = torch.Generator().manual_seed(seed)
    name, _, depth = kind.partition(" ")
    if name == "identity":
        return Projector(normalize)
    if name == "linear":
        projector: Projector = LinearProjector(IN, OUT, rng, normalize)
    else:
        projector = NonlinearProjector(IN, MIDDLE, OUT, int(depth), rng, normalize)
    for part in projector.modules():
        if isinstance(part, nn.BatchNorm1d):
            for tensor in (part.weight.data, part.bias.data, part.running_mean, part.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=rng))
    return projector


def by_hand(projector: Projector, x: Tensor) -> Tensor:
    """The formula of each kind, from the tensors by name; not normalised."""
    tensors = {**dict(projector.named_parameters()), **dict(projector.named_buffers())}
    i = 1
    while f"net.linear_{i}.weight" in tensors:
        x = x @ tensors[f"net.linear_{i}.weight"].T
        if f"net.linear_{i}.bias" in tensors:
            x = x + tensors[f"net.linear_{i}.bias"]
        norm = f"net.batchnorm_{i}"
        if f"{norm}.weight" in tensors:
            if projector.training:
                mean, variance = x.mean(dim=0), x.var(dim=0, correction=0)
            else:
                mean, variance = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
            x = (x - mean) / (variance + 1e-5).sqrt() * tensors[f"{norm}.weight"] + tensors[f"{norm}.bias"]
            x = x if projector.kind == "linear" else x.relu()
        i += 1
    return x


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_value_is_the_formula(kind: str, normalize: bool, training: bool, rng: torch.Generator) -> None:
    projector = make(kind, normalize).train(training)
    features = torch.randn(6, 3, 2, 2, generator=rng)  # [N, channels, H, W]
    expected = by_hand(projector, features.reshape(6, IN))
    if normalize:
        expected = expected / expected.square().sum(dim=1, keepdim=True).sqrt()
    got = projector(features)
    assert got.shape == (6, IN if kind == "identity" else OUT)
    assert (got - expected).abs().max() <= 1e-5
    assert ((got.norm(dim=1) - 1).abs().max() <= 1e-5) == normalize


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("linear", ["linear_1 12-5 bias", "batchnorm_1 5"]),
        ("nonlinear 1", ["linear_1 12-5 bias"]),
        ("nonlinear 2", ["linear_1 12-7 bias", "batchnorm_1 7", "relu_1", "linear_2 7-5"]),
        ("nonlinear 3", ["linear_1 12-7 bias", "batchnorm_1 7", "relu_1", "linear_2 7-7 bias", "batchnorm_2 7",
                         "relu_2", "linear_3 7-5"]),
    ],
)  # fmt: skip
def test_layers_and_their_names(kind: str, layers: list[str]) -> None:
    """The names stand in checkpoints; the last of several Linears has no bias."""
    found = []
    for name, part in make(kind).net.named_children():
        if isinstance(part, nn.Linear):
            name += f" {part.in_features}-{part.out_features}" + " bias" * (part.bias is not None)
        elif isinstance(part, nn.BatchNorm1d):
            name += f" {part.num_features}"
        found.append(name)
    assert found == layers


def test_features_that_are_all_zero_do_not_become_nan() -> None:
    assert torch.equal(Projector()(torch.zeros(2, IN)), torch.zeros(2, IN))


@pytest.mark.parametrize("kind", KINDS)
def test_each_group_has_its_own_batch_statistics(kind: str, rng: torch.Generator) -> None:
    features = torch.randn(12, 3, 4, generator=rng) * torch.arange(1, 13)[:, None, None]  # groups of unlike spread
    grouped, one_by_one = make(kind).train(), make(kind).train()
    got = grouped.project_groups(features, 3)
    one_by_one.normalize = False
    expected = torch.cat([one_by_one(part) for part in features.split(4)])
    assert (got - expected).abs().max() <= 1e-5
    for name, buffer in one_by_one.named_buffers():  # and the running ones saw three batches
        assert torch.allclose(grouped.get_buffer(name), buffer, atol=1e-6), name
    if any(isinstance(part, nn.BatchNorm1d) for part in grouped.modules()):
        together = make(kind, normalize=False).train()(features)
        assert (got - together).abs().max() > 0.1
    assert not torch.allclose(got.norm(dim=1), torch.ones(12), atol=0.1)  # `change_similarity` normalises


@pytest.mark.parametrize("kind", KINDS)
def test_in_inference_groups_make_no_difference(kind: str, rng: torch.Generator) -> None:
    projector = make(kind).eval()
    features = torch.randn(12, IN, generator=rng)
    before = {name: buffer.clone() for name, buffer in projector.named_buffers()}
    got = projector.project_groups(features, 3)
    assert (F.normalize(got, dim=1) - projector(features)).abs().max() <= 1e-5
    assert all(torch.equal(buffer, before[name]) for name, buffer in projector.named_buffers())


def test_initialised_like_torch_linear_and_from_the_generator_only() -> None:
    before = torch.get_rng_state()
    one, two, other = (
        NonlinearProjector(64, 36, 16, 3, torch.Generator().manual_seed(seed), True) for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.get_rng_state())
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    for i, bound in ((1, 64**-0.5), (2, 36**-0.5), (3, 36**-0.5)):
        weight = one.get_parameter(f"net.linear_{i}.weight")
        assert 0.95 * bound < weight.abs().max() <= bound
        assert weight.mean().abs() < bound / 5
        assert not torch.equal(weight, other.get_parameter(f"net.linear_{i}.weight"))
        if i < 3:
            bias = one.get_parameter(f"net.linear_{i}.bias")
            assert bound / 2 < bias.abs().max() <= bound


@pytest.mark.parametrize("kind", KINDS[1:])
def test_gradient_reaches_every_parameter(kind: str, rng: torch.Generator) -> None:
    projector = make(kind).train()
    projector(torch.randn(6, IN, generator=rng)).pow(3).sum().backward()
    for name, parameter in projector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
