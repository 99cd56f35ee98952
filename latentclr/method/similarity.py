"""How alike feature changes are, with a backward pass that is one matrix product.

Normalise, subtract the unedited features, normalise, f f^T: written as tensor operations, that chain reads and writes
[K * B, F] a dozen times and its automatic derivative twice as often, which on a CPU is most of a training step and most
of its memory. By hand, the derivative needs only f, the unedited rows and matrices of size [K * B, K * B]:

    y = x r, r = 1/|x|;  c = y - base;  f = c m, m = 1/|c|;  S = f f^T
    given dS, W = dS + dS^T:  df = W f
    dc = m (df - f (f . df)) = A f,  A = diag(m) (W - diag(rowsum(W * S))),  since f . df = rowsum(W * S)
    dx = r (dc - y (y . dc)), y = f / m + base, and y . dc = base . dc =: t, since f . dc = 0
       = diag(r) (A - diag(t / m)) f - r t base
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALLEST_NORM = 1e-12


class ChangeSimilarity(torch.autograd.Function):
    """S = f f^T for the changes f of projected features, see `feature_changes`; no gradient reaches the base."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Tensor, normalize: bool) -> Tensor:
        """Map x [K * B, F] and base [B, F] to S [K * B, K * B]."""
        f, r, m = _changes(x, base, normalize)
        s = f @ f.T  # [K * B, K * B]
        ctx.save_for_backward(f, base, r, m, s)
        ctx.normalize = normalize
        return s

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ds: Tensor) -> tuple[Tensor, None, None]:
        """Map dS [K * B, K * B] to dx [K * B, F]."""
        f, base, r, m, s = ctx.saved_tensors
        w = ds + ds.T  # [K * B, K * B]
        a = m * (w - torch.diag((w * s).sum(dim=1)))  # dc = a f
        if not ctx.normalize:
            return a @ f, None, None
        own = torch.arange(len(f), device=f.device) % len(base)
        t = (a @ (f @ base.T)).gather(1, own[:, None])  # [K * B, 1]
        dx = (r * (a - torch.diag((t / m)[:, 0]))) @ f  # [K * B, F]
        dx.view(-1, *base.shape).addcmul_((-r * t).view(-1, len(base), 1), base)
        return dx, None, None


def change_similarity(x: Tensor, base: Tensor, normalize: bool) -> Tensor:
    """Return S = f f^T [K * B, K * B] of `feature_changes`, differentiable with respect to x."""
    s: Tensor = ChangeSimilarity.apply(x, base, normalize)  # type: ignore[no-untyped-call]
    return s


def feature_changes(x: Tensor, base: Tensor, normalize: bool) -> Tensor:
    """Return f [K * B, F], unit rows: how edits change projected features. For evaluation: x itself is not kept.

    Args:
        x: [K * B, F] projected features of edited codes, direction-major, not normalised.
        base: [B, F] projected features of the unedited codes, normalised if `normalize`.
        normalize: Whether x is normalised before the difference is taken.
    """
    return _changes(x, base, normalize)[0]


def _changes(x: Tensor, base: Tensor, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    r = _inverse_norm(x) if normalize else torch.ones_like(x[:, :1])  # [K * B, 1]
    f = x * r
    f.view(-1, *base.shape).sub_(base)  # [K, B, F]
    m = _inverse_norm(f)  # [K * B, 1]
    return f.mul_(m), r, m


def _inverse_norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return norm.clamp_min(SMALLEST_NORM).reciprocal()
