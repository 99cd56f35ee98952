"""What consistency and redundancy mean, on features made by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_generators import LayeredGenerator

from latentclr.method.directions import build_directions
from latentclr.method.projectors import Projector
from latentclr.method.step import ContrastiveStep, StepOptions
from latentclr.training.evaluation import Evaluation, _similarity, evaluate, held_out


def step(**options):
    generator = LayeredGenerator()
    directions = build_directions("linear", 3, generator.latent.dim, torch.Generator().manual_seed(0))
    return ContrastiveStep(generator, directions, Projector(), StepOptions("layers.2", alpha=2.0, **options))


def test_similarity_of_known_changes():
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    f = torch.stack([torch.stack([x, x]), torch.stack([-x, x]), torch.stack([x, y])])  # [K=3, B=2, F=2]
    signed = _similarity(f, use_abs=False)
    assert torch.equal(signed.diagonal(), torch.tensor([1.0, -1.0, 0.0]))
    assert signed[0, 1] == 0  # once opposite, once the same
    assert signed[0, 2] == 0.5
    assert signed[1, 2] == -0.5
    assert torch.equal(signed, signed.T)
    unsigned = _similarity(f, use_abs=True)
    assert torch.equal(unsigned.diagonal(), torch.tensor([1.0, 1.0, 0.0]))
    assert unsigned[0, 1] == 1


@pytest.mark.parametrize("use_abs", [True, False])
def test_similarity_against_loops(use_abs, rng):
    k, b = 4, 5
    f = F.normalize(torch.randn(k, b, 3, generator=rng), dim=2)
    got = _similarity(f, use_abs)
    for i in range(k):
        for j in range(k):
            pairs = [(f[i, s], f[j, t]) for s in range(b) for t in range(b) if (s != t if i == j else s == t)]
            cosines = [float(u @ v) for u, v in pairs]
            expected = sum(abs(c) if use_abs else c for c in cosines) / len(cosines)
            assert got[i, j].item() == pytest.approx(expected, abs=1e-6)


def test_nearest_other():
    similarity = torch.tensor([[0.9, 0.1, 0.7], [0.1, 0.2, 0.3], [0.7, 0.3, 0.5]])
    result = Evaluation(0.0, 1.0, similarity, 8)
    redundancy, other = result.nearest_other()
    assert other.tolist() == [2, 2, 0]
    assert redundancy.tolist() == pytest.approx([0.7, 0.3, 0.7])
    assert result.consistency.tolist() == pytest.approx([0.9, 0.2, 0.5])


def test_held_out_codes_are_the_same_at_each_call_and_never_the_training_ones():
    module, drawn = step(), []
    sample = module.sample

    def spy(batch_size, rng):
        drawn.append(sample(batch_size, rng))
        return drawn[-1]

    module.sample = spy
    assert held_out(module, 4, 3, seed=0) == held_out(module, 4, 3, seed=0)
    assert all(torch.equal(a.z, b.z) for a, b in zip(drawn[:3], drawn[3:], strict=True))
    assert held_out(module, 4, 3, seed=1) != held_out(module, 4, 3, seed=0)
    from latentclr.training.rng import stream

    training = [sample(4, stream(0, "train", i, 0)).z for i in range(20)]
    assert not any(torch.equal(batch.z, z) for batch in drawn for z in training)


def test_evaluate_agrees_with_held_out():
    module = step()
    result = evaluate(module, 4, 3, seed=0)
    loss, accuracy = held_out(module, 4, 3, seed=0)
    assert (result.loss, result.accuracy, result.samples) == (pytest.approx(loss), pytest.approx(accuracy), 12)
    assert result.similarity.shape == (3, 3)
    assert (result.similarity >= 0).all()
    assert (result.similarity <= 1 + 1e-6).all()
