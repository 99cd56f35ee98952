"""The contrastive step: order of rows, chunks, layers that are fed, gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_generators import LAYERS, LayeredGenerator, dcgan_tensors
from tiny_generators import D as LAYERED_D

from latentclr.errors import ConfigError, GeneratorError
from latentclr.generators.dcgan import DCGAN
from latentclr.method.directions import build_directions
from latentclr.method.loss import contrastive_loss
from latentclr.method.projectors import LinearProjector, NonlinearProjector, Projector
from latentclr.method.step import ContrastiveStep, StepOptions, feed_mask
from latentclr.training.evaluation import evaluate, held_out
from latentclr.training.rng import stream

K, B = 3, 4


def make(generator=None, layer="layers.2", kind="nonlinear", projector="identity", **options) -> ContrastiveStep:
    generator = generator or LayeredGenerator()
    rng = torch.Generator().manual_seed(5)
    directions = build_directions(kind, K, generator.latent.dim, rng, depth=2)
    size = generator.feature_size(layer)
    projectors = {
        "identity": lambda: Projector(),
        "linear": lambda: LinearProjector(size, 9, rng),
        "nonlinear": lambda: NonlinearProjector(size, 11, 9, 2, rng),
    }
    options = {"alpha": (-3.0, 3.0), **options}
    return ContrastiveStep(generator, directions, projectors[projector](), StepOptions(layer, **options)).train()


def gradients(step, batch):
    step.zero_grad()
    loss, accuracy = step(batch)
    loss.backward()
    return loss.item(), accuracy.item(), {n: p.grad.clone() for n, p in step.named_parameters() if p.grad is not None}


def assert_same_gradients(got, expected):
    """Equal to float32 rounding, measured on the largest gradient (a bias before a batch norm has none but noise)."""
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert largest > 1e-6
    for name in expected:
        assert (got[name] - expected[name]).abs().max() <= 1e-5 * largest, name


@pytest.mark.parametrize("kind", ["dcgan", "layered", "conditional"])
@pytest.mark.parametrize("projector", ["identity", "nonlinear"])
def test_changes_are_direction_major(kind, projector):
    """Row k * B + b is the change by direction k at code b, with each direction's own batch statistics."""
    generator = DCGAN(dcgan_tensors()) if kind == "dcgan" else LayeredGenerator(kind == "conditional")
    layer = "main.2" if kind == "dcgan" else "layers.2"
    step = make(generator, layer, projector=projector)
    batch = step.sample(B, stream(0, "train", 0))
    assert (batch.class_id is None) == (kind != "conditional")
    reference = make(generator, layer, projector=projector)
    f = step.changes(batch)
    assert f.shape[0] == K * B
    with torch.no_grad():
        p = batch.z
        unedited = p[:, None].repeat(1, generator.latent.layers, 1)
        base = reference.projector(generator.features(unedited, layer, batch.class_id))
        d = reference.directions(p)
        for k in range(K):
            ps = (p + batch.alpha[k] * d[k])[:, None].repeat(1, generator.latent.layers, 1)
            change = reference.projector(generator.features(ps, layer, batch.class_id)) - base
            assert (f[k * B : (k + 1) * B] - F.normalize(change, dim=1)).abs().max() <= 1e-5
    assert (f.norm(dim=1) - 1).abs().max() <= 1e-5


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 11, 12, 100])
def test_chunked_gradients_are_those_of_the_whole_step(chunk, conditional):
    whole = make(LayeredGenerator(conditional), projector="linear")
    batch = whole.sample(B, stream(0, "train", 0))
    expected_loss, expected_accuracy, expected = gradients(whole, batch)
    chunked = make(LayeredGenerator(conditional), projector="linear", chunk=chunk)
    loss, accuracy, got = gradients(chunked, batch)
    assert got.keys() == expected.keys()
    assert accuracy == expected_accuracy
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert_same_gradients(got, expected)
    for name, buffer in whole.named_buffers():
        assert torch.allclose(buffer, chunked.get_buffer(name), atol=1e-6), name


@pytest.mark.parametrize("chunk", [3, 12])
def test_chunks_on_the_real_generator(faces, chunk):
    batch = make(faces, "main.2").sample(B, stream(0, "train", 0))
    _, _, expected = gradients(make(faces, "main.2"), batch)
    _, _, got = gradients(make(faces, "main.2", chunk=chunk), batch)
    assert_same_gradients(got, expected)


def test_chunks_do_not_keep_the_inner_activations():
    """Between forward and backward a chunked step holds only its chunks' inputs and outputs."""

    def kept(chunk):
        step = make(DCGAN(dcgan_tensors(channels=(64, 64))), "main.5", chunk=chunk)
        batch, held = step.sample(B, stream(0, "train", 0)), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.numel()) or t, lambda t: t):
            step(batch)
        return sum(held)

    assert kept(3) < kept(None) * 0.75


def test_generator_collects_no_gradient_and_the_unedited_branch_none_either():
    step = make()
    batch = step.sample(B, stream(0, "train", 0))
    graph_inputs = []
    original = step.generator.features

    def spy(ps, layer, class_id=None):
        graph_inputs.append((ps.shape[0], ps.requires_grad, torch.is_grad_enabled()))
        return original(ps, layer, class_id)

    step.generator.features = spy
    gradients(step, batch)
    assert graph_inputs == [(B, False, False), (K * B, True, True)]
    assert all(p.grad is None for p in step.generator.parameters())
    assert all(p.grad is not None for p in step.directions.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_feed_layers_reach_only_the_named_inputs(training):
    generator, seen = LayeredGenerator(), []
    step = make(generator, feed_layers=(1,)).train(training)
    original = generator.features
    generator.features = lambda ps, layer, class_id=None: seen.append(ps.detach()) or original(ps, layer, class_id)
    batch = step.sample(B, stream(0, "train", 0))
    step.changes(batch) if training else evaluate(step, B, 1, seed=0)
    edited = seen[-1].unflatten(0, (K, B))  # [K, B, L, D]
    unedited = seen[-2][:, 0]  # [B, D]
    assert edited.shape[2] == LAYERS
    assert torch.equal(edited[:, :, 0], unedited.expand(K, -1, -1))
    assert torch.equal(edited[:, :, 2], unedited.expand(K, -1, -1))
    assert ((edited[:, :, 1] - unedited).norm(dim=-1) > 0.1).all()


def test_feed_layers_change_training_and_evaluation_alike():
    """The origin's evaluation ignored them: the held-out loss must be that of the fed layers."""
    everywhere, last = make(), make(feed_layers=(2,))
    assert held_out(everywhere, B, 2, 0) != held_out(last, B, 2, 0)
    last.eval()
    with torch.no_grad():
        losses = [contrastive_loss(last.changes(last.sample(B, stream(0, "eval", i))), K)[0].item() for i in range(2)]
    assert held_out(last, B, 2, 0)[0] == pytest.approx(sum(losses) / 2)
    assert evaluate(last, B, 2, 0).loss == pytest.approx(sum(losses) / 2)


@pytest.mark.parametrize(
    ("layer", "feed_layers", "message"),
    [
        ("layers.0", (1, 2), r"feed_layers \[1, 2\] cannot change layers.0: only the latent inputs 0..0 reach it"),
        ("layers.1", (2,), r"cannot change layers.1: only the latent inputs 0..1"),
        ("layers.2", (3,), r"layers in \[0, 3\), got \[3\]"),
        ("layers.2", (-1,), r"layers in \[0, 3\), got \[-1\]"),
        ("layers.2", (), r"got \[\]"),
    ],
)
def test_feed_layers_refused(layer, feed_layers, message):
    with pytest.raises(ConfigError, match=message):
        make(layer=layer, feed_layers=feed_layers)


def test_partly_reaching_feed_layers_are_accepted():
    step = make(layer="layers.1", feed_layers=(1, 2))
    assert step.get_buffer("fed").tolist() == [0, 1, 1]
    assert feed_mask([0, 2], 3).tolist() == [1, 0, 1]
    loss, _, grads = gradients(step, step.sample(B, stream(0, "train", 0)))
    assert loss == loss
    assert all(torch.isfinite(g).all() for g in grads.values())


def test_wrong_layer_lists_the_layers():
    with pytest.raises(GeneratorError, match=r"no layer 'layers.10'.*\(layers: layers.0, layers.1, layers.2\)"):
        make(layer="layers.2").generator.check_layer("layers.10")


def test_bf16_is_close_and_the_loss_stays_float32():
    batch = make().sample(B, stream(0, "train", 0))
    exact, rounded = make(), make(rounding=torch.bfloat16)
    f = rounded.changes(batch)
    assert f.dtype == torch.float32
    assert F.cosine_similarity(f, exact.changes(batch)).min() > 0.98
    assert gradients(rounded, batch)[0] == pytest.approx(gradients(exact, batch)[0], abs=0.02)


def test_sampling_touches_no_global_state_and_depends_on_the_stream_only():
    step = make(LayeredGenerator(conditional=True))
    before = torch.get_rng_state()
    one, two = step.sample(B, stream(1, "train", 3)), step.sample(B, stream(1, "train", 3))
    other = step.sample(B, stream(1, "train", 4))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.z, two.z)
    assert torch.equal(one.alpha, two.alpha)
    assert torch.equal(one.class_id, two.class_id)
    assert not torch.equal(one.z, other.z)
    assert set(step.sample(200, stream(0, "x")).class_id.tolist()) == {1, 3}
    assert one.z.shape == (B, LAYERED_D)


def test_held_out_restores_the_mode():
    step = make()
    held_out(step, B, 1, 0)
    assert step.training
    assert step.directions.training
    assert not step.generator.training
