"""The contrastive loss against a plain double loop over pairs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from latentclr.errors import ConfigError
from latentclr.method.loss import contrastive_loss


def double_loop(f, k, temp, use_abs, reduce):
    """Loss and accuracy straight from the paper's words, in Python floats, and each row's pos - neg."""
    rows, b = len(f), len(f) // k
    losses, margins = [], []
    for i in range(rows):
        pos, neg = [], []
        for j in range(rows):
            similarity = sum(x * y for x, y in zip(f[i], f[j], strict=True))
            energy = math.exp((abs(similarity) if use_abs else similarity) * temp)
            if i // b != j // b:
                neg.append(energy)
            elif i != j:
                pos.append(energy)
        p, n = sum(pos), sum(neg)
        if reduce == "mean":
            p, n = p / len(pos), n / len(neg)
        losses.append(-math.log(p / n))
        margins.append(p - n)
    return sum(losses) / rows, margins


@settings(max_examples=60, deadline=None)
@given(
    k=st.integers(2, 5),
    b=st.integers(2, 5),
    size=st.integers(1, 6),
    temp=st.floats(0.05, 8.0),
    use_abs=st.booleans(),
    reduce=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 2**31),
)
def test_equals_double_loop(k, b, size, temp, use_abs, reduce, seed):
    f = F.normalize(torch.randn(k * b, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)
    loss, accuracy = contrastive_loss(f, k, temp, use_abs, reduce)
    expected, margins = double_loop(f.tolist(), k, temp, use_abs, reduce)
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    sure = [m for m in margins if abs(m) > 1e-9]  # a tie may fall on either side
    right = sum(m > 0 for m in sure)
    assert right - 1e-6 <= accuracy.item() * k * b <= right + len(margins) - len(sure) + 1e-6


def test_large_temperature_does_not_overflow():
    f = F.normalize(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), dim=1).requires_grad_()
    loss, _ = contrastive_loss(f, 4, temp=1000.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(f.grad).all()


def test_gradient_is_that_of_the_formula():
    f = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: contrastive_loss(F.normalize(x, dim=1), 3)[0], (f,))


@pytest.mark.parametrize(
    ("rows", "k", "reduce", "message"),
    [
        (4, 1, "mean", "k must be at least 2 .*got 1"),
        (4, 4, "mean", "batch_size must be at least 2 .*got 1"),
        (7, 3, "mean", "batch_size must be at least 2 .*got 2.33"),
        (8, 2, "median", "'mean' or 'sum', got 'median'"),
    ],
)
def test_refused(rows, k, reduce, message):
    with pytest.raises(ConfigError, match=message):
        contrastive_loss(torch.ones(rows, 2), k, reduce=reduce)
