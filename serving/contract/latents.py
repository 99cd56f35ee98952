"""Seeds to latent codes, without torch or scipy.

A seed means what it means in the reference tools: row i of a request with seed s is `RandomState(s + i)`'s draw, so
row i does not depend on how many rows are asked for, and seed s + 1 is the next row.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.contract.arguments import check_whole
from serving.contract.manifest import Latent
from serving.errors import InvalidEdit

SEEDS = 2**32  # RandomState takes 32 bits


class Distribution(Protocol):
    """What a code is drawn from: a manifest's latent, or a generator's before it is exported."""

    @property
    def dim(self) -> int:
        """Size D."""

    @property
    def sampler(self) -> str:
        """`standard_normal` or `truncated_normal`."""

    @property
    def truncation(self) -> float | None:
        """What a truncated normal is multiplied by; None for 1."""


def draw_latents(latent: Latent, seed: int, count: int = 1) -> NDArray[np.float32]:
    """Draw latent codes.

    Args:
        latent: The served editor's latent description (size and sampler).
        seed: Seed of the first row, in [0, 2**32 - count].
        count: Number of rows N, at least 1.

    Returns:
        Codes z of shape [N, D], float32.

    Raises:
        InvalidEdit: The seed or the count is out of range, or the model takes codes that no seed can draw.
    """
    if latent.input != "z":
        raise InvalidEdit(f"this model takes {latent.input} codes, as GAN inversion finds them, and no seed: give w")
    check_whole("seed", seed)
    check_whole("count", count)
    if count < 1:
        raise InvalidEdit(f"count must be at least 1, got {count}")
    if not 0 <= seed <= SEEDS - count:
        raise InvalidEdit(f"seed must be in [0, {SEEDS - count}], got {seed}")
    return np.stack([draw_row(latent, seed + row) for row in range(count)])


def draw_row(latent: Distribution, seed: int) -> NDArray[np.float32]:
    """Draw the code of one seed.

    Args:
        latent: Its size and sampler.
        seed: In [0, 2**32).

    Returns:
        A code z of shape [D], float32.
    """
    random = np.random.RandomState(seed)
    if latent.sampler == "standard_normal":
        return np.asarray(random.randn(latent.dim)).astype(np.float32)
    # A normal cut at +-2: uniform numbers through its quantile function, as scipy draws it for the reference tools.
    # Python's own quantile function gives the same float32, so that an app needs no scipy.
    normal = NormalDist()
    below, above = normal.cdf(-2.0), normal.cdf(2.0)
    u = random.uniform(size=latent.dim)
    row = np.array([normal.inv_cdf(p) for p in below + u * (above - below)])
    return (row * (latent.truncation or 1.0)).astype(np.float32)
