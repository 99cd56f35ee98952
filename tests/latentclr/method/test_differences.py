"""Rounding the changes that edits make: the same features and gradients, however small the change is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_families import FAMILIES
from tiny_generators import LayeredGenerator, dcgan_tensors

from latentclr.compose import compose_train
from latentclr.generators.dcgan import DCGAN
from latentclr.generators.registry import build_generator
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.method.differences import LINEAR, Differences, Recorded, Unedited
from latentclr.method.directions import build_directions
from latentclr.method.projectors import LinearProjector, Projector
from latentclr.method.step import ContrastiveStep, StepOptions
from latentclr.training.rng import stream
from latentclr.training.rounding import measure_rounding

K, B = 4, 3


def stylegan2(use_w=True):
    return StyleGAN2(random_tensors(32, n_mlp=2, dim=32, width=32), use_w=use_w)


GENERATORS = {
    "stylegan2 early": lambda: (stylegan2(), "conv1"),
    "stylegan2": lambda: (stylegan2(), "convs.3"),
    "stylegan2 picture": lambda: (stylegan2(), "to_rgbs.1"),
    "stylegan2 in Z": lambda: (stylegan2(use_w=False), "convs.1"),
    "dcgan": lambda: (DCGAN(dcgan_tensors()), "main.2"),
    "no linear operation": lambda: (LayeredGenerator(True), "layers.2"),
}


def make(name="stylegan2", alpha=1.0, rounding=None, chunk=None, projector=None):
    generator, layer = GENERATORS[name]()
    directions = build_directions("nonlinear", K, generator.latent.dim, torch.Generator().manual_seed(5), depth=2)
    # |S| has a kink at 0, where the smallest error turns a sign and with it a part of the gradient.
    options = StepOptions(layer, alpha=alpha, rounding=rounding, chunk=chunk, use_abs=False)
    return ContrastiveStep(generator, directions, projector or Projector(), options).train()


def gradient(step, batch):
    step.zero_grad()
    loss, _ = step(batch)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in step.parameters() if p.grad is not None])


def error(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("chunk", [None, 1, 2, 5, 6, 100])
@pytest.mark.parametrize("name", GENERATORS)
def test_with_float32_as_the_small_format_nothing_changes(name, chunk):
    """The algebra alone: W x0 + W (x - x0) is W x, in whole batches and in chunks that begin anywhere."""
    exact, other = make(name), make(name, rounding=torch.float32, chunk=chunk)
    batch = exact.sample(B, stream(0, "train", 0))
    assert (other.changes(batch) - exact.changes(batch)).abs().max() <= 1e-4
    assert error(gradient(other, batch), gradient(exact, batch)) <= 1e-3


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("name", ["stylegan2 early", "stylegan2", "stylegan2 in Z", "dcgan"])
def test_bf16_does_not_drown_small_edits(name, alpha):
    exact, rounded = make(name, alpha), make(name, alpha, torch.bfloat16)
    batch = exact.sample(B, stream(0, "train", 0))
    f, wanted = rounded.changes(batch), exact.changes(batch)
    assert f.dtype == torch.float32
    assert (f - wanted).norm(dim=1).mean() <= 0.02  # bf16 has 8 bits, and there are at most 7 operations in a row
    assert error(gradient(rounded, batch), gradient(exact, batch)) <= 0.05


def test_rounded_features_would_drown_them():
    """What the first gradient would be if the generator ran in bf16, as under autocast."""
    exact = make("stylegan2 early", 0.01)
    batch = exact.sample(B, stream(0, "train", 0))
    wanted = gradient(exact, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        drowned = gradient(exact, batch)
    assert error(drowned, wanted) > 0.5
    assert error(gradient(make("stylegan2 early", 0.01, torch.bfloat16), batch), wanted) <= 0.05


@pytest.mark.parametrize("function", [F.linear, F.conv2d, F.conv_transpose2d])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.001), (torch.bfloat16, 0.01)])
def test_changes_below_the_smallest_numbers_of_float16_are_kept(function, dtype, bound):
    rng = torch.Generator().manual_seed(1)
    shape, kernel = ((5,), ()) if function is F.linear else ((5, 4, 4), (3, 3))
    weight, bias = torch.randn(5, 5, *kernel, generator=rng), torch.randn(5, generator=rng)
    x0, memory = torch.zeros(2, *shape), Unedited(2)  # so that float32 holds small changes of it
    change = 1e-8 * torch.randn(4, *shape, generator=rng)  # float16 begins at 6e-8
    with Recorded(memory):
        y0 = function(x0, weight, bias)
    memory.operations[:] = [(*memory.operations[0][:2], 0 * y0)]
    with Differences(memory, dtype):
        got = function(change, weight, bias)
    assert error(got, function(change, weight)) <= bound


@pytest.mark.parametrize("family", ["plugin_layers", "biggan", "stylegan3_t", "r3gan"])
def test_families(family, tmp_path):
    """Also a user's module, which works in place."""
    config = compose_train([*FAMILIES[family](tmp_path), "device=cpu"])
    generator, steps = build_generator(config.generator), {}
    for rounding in (None, torch.float32, torch.bfloat16):
        directions = build_directions("nonlinear", K, generator.latent.dim, torch.Generator().manual_seed(5), depth=2)
        options = StepOptions(config.generator.feature_layer, alpha=0.1, rounding=rounding, use_abs=False)
        steps[rounding] = ContrastiveStep(generator, directions, Projector(), options).train()
    batch = steps[None].sample(B, stream(0, "train", 0))
    f, wanted = steps[None].changes(batch), gradient(steps[None], batch)
    assert (steps[torch.float32].changes(batch) - f).abs().max() <= 1e-3
    assert error(gradient(steps[torch.float32], batch), wanted) <= 1e-3
    assert (steps[torch.bfloat16].changes(batch) - f).norm(dim=1).mean() <= 0.02
    assert error(gradient(steps[torch.bfloat16], batch), wanted) <= 0.05


class OwnWeights(LayeredGenerator):
    """Each code makes its own weights, and one operation has codes in its channels."""

    def features(self, ps, layer, class_id=None):
        weight = self.hidden[0] * ps.mean()
        x = F.linear(ps[:, 0], self.inputs[0].T)  # [N, WIDTH], the only one that may be rounded
        x = F.linear(x, weight)
        return F.conv1d(x[None], torch.ones(len(x), 1, 3), groups=len(x))[0]


def test_what_is_not_linear_in_the_edit_is_left_alone():
    rng = torch.Generator().manual_seed(0)
    generator, memory = OwnWeights(), Unedited(2)
    ps = torch.randn(2, 3, 6, generator=rng)
    with Recorded(memory):
        generator.features(ps, "layers.0")
    assert len(memory.operations) == 2
    edited = (ps.repeat(2, 1, 1) + 0.1 * torch.randn(4, 3, 6, generator=rng)).requires_grad_()
    with Differences(memory, torch.bfloat16):
        got = generator.features(edited, "layers.0")
    expected = generator.features(edited, "layers.0")
    assert (got - expected).abs().max() <= 0.01 * expected.abs().max()
    got.sum().backward()
    assert edited.grad.abs().max() > 0


def test_operations_of_generators_are_rounded():
    """Their weights are the same objects for edited and unedited codes, or all would be float32 without a word."""
    for name, (generator, layer) in ((name, build()) for name, build in GENERATORS.items()):
        if name == "no linear operation":
            continue
        memory, seen = Unedited(2), []
        ps = generator.sample(2, torch.Generator().manual_seed(0))[:, None].expand(-1, generator.latent.layers, -1)
        with torch.no_grad():
            with Recorded(memory):
                generator.features(ps, layer)

            class Watched(Differences):
                def __torch_function__(self, function, types, args=(), kwargs=None, seen=seen):
                    result = super().__torch_function__(function, types, args, kwargs)
                    if function in LINEAR:
                        seen.append(result.equal(function(*args, **(kwargs or {}))))
                    return result

            with Watched(memory, torch.bfloat16):
                generator.features(ps + 0.3, layer)
        assert len(seen) == len(memory.operations) >= 1
        assert sum(seen) <= len(seen) // 4, name  # that some operation has no rounding to do is well possible


@pytest.mark.parametrize("projector", [False, True])
def test_the_measurement_tells_the_truth_and_changes_nothing(projector):
    size = stylegan2().feature_size("conv1")
    linear = LinearProjector(size, 8, torch.Generator().manual_seed(1)) if projector else None
    step = make("stylegan2 early", 0.1, torch.bfloat16, projector=linear)
    batch = step.sample(B, stream(0, "rounding"))
    before = {key: value.clone() for key, value in step.state_dict().items()}
    modes = [module.training for module in step.modules()]
    measured = measure_rounding(step, batch)
    assert [module.training for module in step.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in step.state_dict().items())
    assert step.options.rounding is torch.bfloat16
    assert 0 < measured.of_changes < 0.03 < 0.1 < measured.of_features < 1.5
    assert 0 < measured.change < 0.05 or projector
    assert str(measured).startswith("mixed_precision=bf16 rounds changes of features, ")
    step.eval()
    exact = make("stylegan2 early", 0.1, projector=step.projector).eval()
    exact.options = replace(step.options, rounding=None)
    wanted = (step.changes(batch) - exact.changes(batch)).norm(dim=1).mean()
    assert measured.of_changes == pytest.approx(float(wanted), rel=1e-5)
