"""The contrastive loss of LatentCLR (arXiv 2104.00820, equation 4), as the origin computes it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentclr.errors import ConfigError


def contrastive_loss(
    f: Tensor, k: int, temp: float = 0.5, use_abs: bool = True, reduce: str = "mean"
) -> tuple[Tensor, Tensor]:
    """Return `similarity_loss` of S = f f^T for feature changes f [K * B, F], rows of unit length, direction-major."""
    return similarity_loss(f @ f.T, k, temp, use_abs, reduce)


def similarity_loss(
    s: Tensor, k: int, temp: float = 0.5, use_abs: bool = True, reduce: str = "mean"
) -> tuple[Tensor, Tensor]:
    """Pull one direction's feature changes together and push the directions apart.

    S (its absolute value if `use_abs`); E = exp(S * temp). As in the origin the temperature *multiplies*, so a
    larger one is sharper. pos: mean or sum of E over the other samples of the same direction; neg: over all samples of
    the other directions. loss = mean(-log(pos / neg)), computed in logarithms so that no temperature overflows.

    Args:
        s: [K * B, K * B] cosines of feature changes, direction-major (row k * B + b).
        k: K, at least 2.
        temp: Multiplies the similarities.
        use_abs: Compare without sign, so that an edit and its reverse count as one direction.
        reduce: `mean` or `sum`.

    Returns:
        (loss, accuracy): scalars; accuracy in [0, 1] is the share of rows with pos > neg.

    Raises:
        ConfigError: K or B is below 2, or `reduce` is neither.
    """
    rows = s.shape[0]
    if k < 2:
        raise ConfigError(f"k must be at least 2 (the loss compares directions with each other), got {k}")
    if rows % k or rows // k < 2:
        raise ConfigError(f"hparams.batch_size must be at least 2 (the loss compares samples), got {rows / k:g}")
    if reduce not in ("mean", "sum"):
        raise ConfigError(f"loss.reduce must be 'mean' or 'sum', got {reduce!r}")
    b = rows // k
    s = (s.abs() if use_abs else s) * temp
    own = torch.arange(rows, device=s.device) // b
    same = own[:, None] == own[None, :]
    itself = torch.eye(rows, dtype=torch.bool, device=s.device)
    pos = torch.logsumexp(s.masked_fill(~same | itself, -torch.inf), dim=1)  # [K * B]
    neg = torch.logsumexp(s.masked_fill(same, -torch.inf), dim=1)
    if reduce == "mean":
        pos, neg = pos - math.log(b - 1), neg - math.log(rows - b)
    return (neg - pos).mean(), (pos > neg).float().mean()
