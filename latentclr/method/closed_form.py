"""Directions that are written down in one go: at random, and by SeFa from a generator's weights.

All results are rows of unit length, float64 on the CPU until they become a model's parameters, and the sign of each is
fixed: its component of the largest magnitude is positive. So one machine finds what another did.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentclr.errors import ConfigError
from latentclr.generators.base import Generator


def upright(vectors: Tensor) -> Tensor:
    """Return rows [K, D] of unit length, each with the sign that makes its largest component positive."""
    vectors = vectors.double()
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))  # [K, 1]
    turned: Tensor = vectors / vectors.norm(dim=1, keepdim=True) * largest.sign()
    return turned


def random_directions(k: int, dim: int, rng: torch.Generator) -> Tensor:
    """Draw K orthonormal directions [K, D], each uniform on the sphere.

    Raises:
        ConfigError: K is larger than D.
    """
    check_rank(k, dim, "random", "a code has as many values")
    q, r = torch.linalg.qr(torch.randn(dim, k, generator=rng, dtype=torch.float64))
    columns: Tensor = q * r.diagonal().sign()  # with R's diagonal positive, Q is uniform (Mezzadri, math-ph/0609050)
    return columns.T


def sefa(generator: Generator, k: int, inputs: Sequence[int]) -> Tensor:
    """Compute SeFa's K directions: arXiv 2007.06600, equation 6, the leading eigenvectors of A^T A.

    A are the linear maps that the code meets first. As in the authors' code its rows have unit length, so that no unit
    counts for more because of a factor that a norm takes away again.

    Args:
        generator: Whose weights are read; nothing is sampled.
        k: K.
        inputs: The latent inputs that the directions are for.

    Returns:
        [K, D], orthonormal, the one that changes the most first.

    Raises:
        ConfigError: K is larger than the rank of A.
        GeneratorError: The generator does not tell its weights.
    """
    a = generator.first_weights(inputs).detach().double().cpu()  # [R, D]
    norms = a.norm(dim=1, keepdim=True)
    a = torch.where(norms > 0, a / norms.clamp_min(torch.finfo(a.dtype).tiny), a)
    values, vectors = torch.linalg.eigh(a.T @ a)  # rising, [D] and [D, D]
    # The weights are float32, and so are what was folded into them: below that the eigenvalues are rounding.
    rank = int((values > values[-1] * a.shape[1] * torch.finfo(torch.float32).eps ** 2).sum())
    check_rank(k, rank, "sefa", f"that is the rank of the {a.shape[0]} x {a.shape[1]} weights it reads")
    return upright(vectors.T.flip(0)[:k])


def check_rank(k: int, most: int, model: str, why: str) -> None:
    """Check that there are K directions.

    Raises:
        ConfigError: There are only `most`; the message says why.
    """
    if k > most:
        raise ConfigError(f"k must be at most {most} of model={model} ({why}), got {k}")
