"""Direction models and how strengths are drawn."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latentclr.method.directions import GlobalDirections, MLPDirections, build_directions, draw_alpha

MODELS = [("global", 1), ("linear", 1), ("nonlinear", 1), ("nonlinear", 2), ("nonlinear", 3)]


def model(kind, depth, k=5, dim=12, normalize=True):
    rng = torch.Generator().manual_seed(3)
    directions = build_directions(kind, k, dim, rng, depth, normalize)
    for name, buffer in directions.named_buffers():  # statistics as after training, not 0 and 1
        buffer.copy_(torch.rand(buffer.shape, generator=rng) + (0.5 if "var" in name else -0.5))
    for parameter in directions.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return directions.eval()


@pytest.mark.parametrize(("kind", "depth"), MODELS)
@pytest.mark.parametrize("normalize", [True, False])
def test_select_is_forward_gathered(kind, depth, normalize, rng):
    directions = model(kind, depth, normalize=normalize)
    p = torch.randn(6, 12, generator=rng)
    index = torch.randint(5, (6, 3), generator=rng)  # [N, M]
    everything = directions(p)  # [K, N, D]
    gathered = everything[index, torch.arange(6)[:, None]]  # [N, M, D]
    chosen = directions.select(p, index)
    assert everything.shape == (5, 6, 12)
    assert (chosen - gathered).abs().max() <= 1e-5
    lengths = chosen.norm(dim=-1)
    assert ((lengths - 1).abs().max() <= 1e-6) == normalize


@pytest.mark.parametrize("training", [True, False])
def test_mlp_equals_k_separate_networks(training, rng):
    directions = model("nonlinear", 3, normalize=False).train(training)
    networks = []
    for k in range(5):
        layers = []
        for i in range(3):
            linear = nn.Linear(12, 12, bias=i < 2)
            linear.weight.data = directions.weights[i][k].detach().clone()
            layers.append(linear)
            if i < 2:
                linear.bias.data = directions.biases[i][k].detach().clone()
                norm = nn.BatchNorm1d(12)
                norm.weight.data, norm.bias.data = directions.gains[i][k].clone(), directions.shifts[i][k].clone()
                norm.running_mean = directions.get_buffer(f"mean_{i}")[k].clone()
                norm.running_var = directions.get_buffer(f"var_{i}")[k].clone()
                layers += [norm, nn.ReLU()]
        networks.append(nn.Sequential(*layers).train(training))
    p = torch.randn(6, 12, generator=rng)
    expected = torch.stack([network(p) for network in networks])
    assert (directions(p) - expected).abs().max() <= 1e-5
    for i, position in ((0, 1), (1, 4)):  # the running statistics after that batch
        for buffer, name in (("mean", "running_mean"), ("var", "running_var")):
            expected = torch.stack([getattr(network[position], name) for network in networks])
            assert (directions.get_buffer(f"{buffer}_{i}") - expected).abs().max() <= 1e-6


def test_initialised_like_torch_linear_and_from_the_generator_only():
    directions = build_directions("nonlinear", 3, 64, torch.Generator().manual_seed(0), depth=2)
    bound = 64**-0.5
    for parameter in (*directions.weights, *directions.biases):
        assert bound * 0.98 < parameter.abs().max() <= bound
        assert abs(parameter.mean()) < bound / 5
    before = torch.get_rng_state()
    again = build_directions("nonlinear", 3, 64, torch.Generator().manual_seed(0), depth=2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(directions.parameters(), again.parameters(), strict=True))


def test_biases_as_in_the_origin(rng):
    assert len(MLPDirections(2, 4, 1, rng).biases) == 1  # the one Linear of depth 1 always has one
    assert len(MLPDirections(2, 4, 3, rng).biases) == 2  # the last of several never has
    assert build_directions("linear", 2, 4, rng, depth=3).depth == 1
    assert isinstance(build_directions("global", 2, 4, rng), GlobalDirections)


class _Largest(TorchDispatchMode):
    """Remember the largest tensor that any operation made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if "expand" not in str(func):  # a view, however large it says it is
            self.numbers = max([self.numbers, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
        return out


@pytest.mark.parametrize(("kind", "depth"), [("global", 1), ("nonlinear", 2)])
def test_cost_of_select_does_not_grow_with_k(kind, depth):
    dim, n, m = 16, 2, 3
    largest = {}
    for k in (4, 400):
        directions = build_directions(kind, k, dim, torch.Generator().manual_seed(0), depth).eval()
        with torch.no_grad(), _Largest() as seen:
            directions.select(torch.zeros(n, dim), torch.zeros(n, m, dtype=torch.int64))
        largest[k] = seen.numbers
    # Only the folded batch norm, one number per unit, is computed for all K; never a matrix for each of K.
    assert largest[400] <= max(n * m * dim * dim, 400 * dim)
    assert largest[4] <= n * m * dim * dim


@pytest.mark.parametrize(("kind", "depth"), MODELS)
def test_gradient_reaches_every_parameter(kind, depth, rng):
    directions = model(kind, depth).train()
    directions(torch.randn(6, 12, generator=rng)).pow(3).sum().backward()
    for name, parameter in directions.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_alpha_number_and_range(rng):
    assert torch.equal(draw_alpha(0.7, 3, True, rng), torch.full((3,), 0.7))
    assert torch.equal(draw_alpha(-2, 3, False, rng), torch.full((3,), -2.0))
    drawn = draw_alpha([-3.0, 3.0], 20_000, True, rng)
    assert drawn.min() >= -3
    assert drawn.max() <= 3
    assert drawn.abs().min() >= 0.05 * 3 - 1e-6  # the hole around zero
    assert drawn.abs().min() < 0.05 * 3 + 0.01  # and no larger one
    assert abs(drawn.mean()) < 0.1
    assert abs((drawn > 0).float().mean() - 0.5) < 0.02
    assert (drawn.abs() > 2.9).float().mean() == pytest.approx(0.1 / 2.85, abs=0.01)  # uniform outside it


@pytest.mark.parametrize(
    ("low", "high", "least", "most"),
    [(2.0, 5.0, 2.0, 5.0), (-5.0, -2.0, -5.0, -2.0), (0.0, 1.0, 0.05, 1.0), (-1.0, 0.01, -1.0, -0.05),
     (-0.01, 4.0, 0.2, 4.0), (-1.0, 4.0, -1.0, 4.0)],
)  # fmt: skip
def test_alpha_ranges_of_any_signs(low, high, least, most, rng):
    drawn = draw_alpha([low, high], 5000, True, rng)
    assert least - 1e-6 <= drawn.min() < least + 0.02 * (most - least)
    assert most + 1e-6 >= drawn.max() > most - 0.02 * (most - least)
    assert drawn.abs().min() >= min(0.05 * max(abs(low), abs(high)), abs(least), abs(most)) - 1e-6


def test_alpha_per_direction_or_for_all(rng):
    assert len(draw_alpha([1.0, 2.0], 6, True, rng).unique()) == 6
    assert len(draw_alpha([1.0, 2.0], 6, False, rng).unique()) == 1
    assert not build_directions("global", 2, 4, rng).per_direction_alpha
    assert build_directions("linear", 2, 4, rng).per_direction_alpha


def flipping(depth, orient, k=4, dim=8):
    """A model as the loss without sign leaves it: W of nearly one axis, which any code may be on either side of."""
    rng = torch.Generator().manual_seed(5)
    directions = build_directions("linear" if depth == 1 else "nonlinear", k, dim, rng, depth, orient=orient)
    weight = directions.weights[-1].data
    left, right = torch.randn(k, dim, 1, generator=rng), torch.randn(k, 1, dim, generator=rng)
    weight.copy_(left @ right + 0.1 * torch.randn(k, dim, dim, generator=rng))
    return directions.eval()


@pytest.mark.parametrize("depth", [1, 2])
def test_oriented_directions_have_one_sense(depth, rng):
    p = torch.randn(400, 8, generator=rng)
    plain, turned = flipping(depth, False), flipping(depth, True)
    assert torch.equal(plain(p), turned(p))  # without axes nothing is turned
    turned.set_axes(p[:200])
    d, t = plain(p), turned(p)
    same = (d * t).sum(dim=-1)  # each is the same line, in one sense or the other
    lengths = d.norm(dim=-1)  # 0 where all units of a network are off
    assert torch.allclose(same.abs(), lengths.square(), atol=1e-5)
    assert lengths.mean() > 0.9
    if depth == 1:
        assert (same < 0).float().mean(dim=1).min() > 0.2
        assert d[:, 200:].mean(dim=1).norm(dim=-1).max() < 0.6
    assert t[:, 200:].mean(dim=1).norm(dim=-1).min() > 0.8
    assert (t.mean(dim=1) * turned.axes).sum(dim=-1).min() > 0
    assert torch.allclose(turned.axes.norm(dim=-1), torch.ones(4), atol=1e-5)
    index = torch.randint(4, (400, 2), generator=rng)
    assert (turned.select(p, index) - t[index, torch.arange(400)[:, None]]).abs().max() < 1e-4


def test_orientation_leaves_training_alone(rng):
    p = torch.randn(20, 8, generator=rng)
    plain, turned = flipping(2, False).train(), flipping(2, True).train()
    turned.set_axes(p)
    assert turned.training
    assert torch.equal(turned(p), plain(p))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), turned.parameters(), strict=True))


def test_a_model_that_is_not_to_be_oriented_has_no_axes(rng):
    directions = flipping(1, False)
    directions.set_axes(torch.randn(20, 8, generator=rng))
    assert "axes" not in directions.state_dict()
