"""The hand-written derivative of the similarity against automatic differentiation of the plain formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latentclr.method.similarity import change_similarity, feature_changes

K, B, SIZE = 3, 4, 7


def plain(x: Tensor, base: Tensor, normalize: bool) -> Tensor:
    y = F.normalize(x, dim=1) if normalize else x
    f = F.normalize(y - base.repeat(K, 1), dim=1)
    return f @ f.T


@pytest.fixture(params=[True, False], ids=["normalised", "raw"])
def case(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, bool]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(K * B, SIZE, generator=rng, dtype=torch.float64, requires_grad=True)
    base = torch.randn(B, SIZE, generator=rng, dtype=torch.float64)
    return x, F.normalize(base, dim=1) if request.param else base, request.param


def test_value_is_the_plain_formula(case: tuple[Tensor, Tensor, bool]) -> None:
    x, base, normalize = case
    torch.testing.assert_close(change_similarity(x, base, normalize), plain(x, base, normalize))
    f = feature_changes(x.detach(), base, normalize)
    torch.testing.assert_close(f.norm(dim=1), torch.ones(K * B, dtype=torch.float64))
    torch.testing.assert_close(f @ f.T, plain(x, base, normalize))


def test_gradient_is_that_of_the_plain_formula(case: tuple[Tensor, Tensor, bool]) -> None:
    x, base, normalize = case
    weight = torch.randn(K * B, K * B, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (ours,) = torch.autograd.grad((change_similarity(x, base, normalize) * weight).sum(), x)
    (expected,) = torch.autograd.grad((plain(x, base, normalize) * weight).sum(), x)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: change_similarity(x, base, normalize), (x,))
