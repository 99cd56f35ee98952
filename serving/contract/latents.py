"""Seeds to latent codes, without torch or scipy.

A seed means what it means in the reference tools: row i of a request with seed s is `RandomState(s + i)`'s draw, so
row i does not depend on how many rows are asked for, and seed s + 1 is the next row.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from serving.contract.arguments import check_whole
from serving.contract.manifest import Latent
from serving.errors import InvalidEdit

SEEDS = 2**32  # RandomState takes 32 bits


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
    rows = [_draw_row(latent, np.random.RandomState(seed + row)) for row in range(count)]
    return np.stack(rows).astype(np.float32)  # [N, D]


def _draw_row(latent: Latent, random: np.random.RandomState) -> NDArray[np.float64]:
    """Draw one row of shape [D]."""
    draw: NDArray[np.float64]
    if latent.sampler == "standard_normal":
        draw = np.asarray(random.randn(latent.dim))
        return draw
    # A normal cut at +-2: uniform numbers through its quantile function, as scipy draws it for the reference tools.
    # Python's own quantile function gives the same float32, so that an app needs no scipy.
    normal = NormalDist()
    below, above = normal.cdf(-2.0), normal.cdf(2.0)
    u = random.uniform(size=latent.dim)
    row = np.array([normal.inv_cdf(p) for p in below + u * (above - below)])
    return row if latent.truncation is None else latent.truncation * row
