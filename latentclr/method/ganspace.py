"""GANSpace: directions along which a generator varies most (arXiv 2004.02546, section 2.2 and 2.3).

Where directions live in W, they are the principal components of W. Where they live in z, which has the same variance in
all directions, they are the components of a layer's activations y, carried back: with coordinates x = V^T (y - mean y),
the paper solves min_U sum ||z - U x||^2. For principal components, whose coordinates are uncorrelated, column j of the
solution is E[z (y - mean y)^T] v_j / variance_j, so that one pass over the samples is enough.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latentclr.errors import ConfigError
from latentclr.generators.base import Generator
from latentclr.method.closed_form import check_rank, upright
from latentclr.progress import progress_bar

SAMPLES = 10_000
LEAST_KEPT = 128  # components that are carried along; what is cut off below them disturbs the leading ones little
ROWS_AT_ONCE = 128
ROWS_THROUGH = 16  # of them through the generator together
MOST_MEMORY = 2 << 30  # bytes; a later layer of 1024 pixels has 30 million values


class IncrementalPCA:
    """Principal components of a stream of rows, as Ross et al. do it (IJCV 2008), and GANSpace with scikit-learn.

    It is exact as long as no more than `keep` components have any variance. Memory: (2 * keep + rows of a batch) rows
    of F float64 numbers.

    Attributes:
        count: Rows of the present group so far.
        mean: Their mean [F].
        components: [R, F] orthonormal rows, R at most `keep`, by falling variance.
        energy: [R], sums of squares of the rows' coordinates along them.
    """

    def __init__(self, size: int, keep: int) -> None:
        """Begin without rows of F = `size` numbers."""
        self.keep, self.count = keep, 0
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.components = torch.zeros(0, size, dtype=torch.float64)
        self.energy = torch.zeros(0, dtype=torch.float64)

    def begin_group(self) -> None:
        """Let what follows have a mean of its own, so that differences between the groups are no variance."""
        self.count, self.mean = 0, torch.zeros_like(self.mean)

    def add(self, rows: Tensor) -> None:
        """Take in rows [B, F], float64."""
        batch, mean = len(rows), rows.mean(dim=0)
        shift = (self.count * batch / (self.count + batch)) ** 0.5 * (self.mean - mean)  # between the two means
        stacked = torch.cat([self.energy.sqrt()[:, None] * self.components, rows - mean, shift[None]])
        self.mean = self.mean + (mean - self.mean) * (batch / (self.count + batch))
        self.count += batch
        # The right singular vectors of S, [rows, F], from the small S S^T = U diag(e) U^T: V^T = diag(e)^-1/2 U^T S.
        energy, left = torch.linalg.eigh(stacked @ stacked.T)
        energy, left = energy.flip(0)[: self.keep], left.flip(1)[:, : self.keep]
        there = energy > energy[0] * len(stacked) * torch.finfo(torch.float32).eps ** 2
        self.energy = energy[there]
        self.components = (left[:, there].T @ stacked) / self.energy.sqrt()[:, None]


def ganspace(
    generator: Generator, k: int, samples: int, layer: str, rng: torch.Generator, *, in_w: bool
) -> tuple[Tensor, Tensor]:
    """Compute GANSpace's K directions.

    Of a class-conditional generator the variance is that within its classes, which have equal shares of the samples.

    Args:
        generator: What is sampled, on its own device.
        k: K.
        samples: Codes, at least 2.
        layer: The feature layer whose activations are looked at; not read in W.
        rng: Of the codes.
        in_w: Whether directions are the principal components of `generator.encode(z)`.

    Returns:
        Directions [K, D], by falling variance; orthonormal in W, of unit length in z. And the share of the variance
        that each component explains [K], of all that were carried along.

    Raises:
        ConfigError: There are fewer than K components, too few samples for the classes, or the layer is too large.
    """
    dim, size = generator.latent.dim, generator.latent.dim if in_w else generator.feature_size(layer)
    classes: list[int | None] = [*generator.class_ids] or [None]
    each = samples // len(classes)
    if each < 2:
        raise ConfigError(f"model.samples must be at least 2 for each of {len(classes)} classes, got {samples}")
    keep = min(size, max(LEAST_KEPT, 4 * k))
    needed = 8 * size * (2 * keep + ROWS_AT_ONCE + dim)
    if needed > MOST_MEMORY:
        raise ConfigError(
            f"model=ganspace would need {needed / 2**30:.1f} GiB for the {size} values of {layer}, and takes at most"
            f" {MOST_MEMORY >> 30}: choose an earlier generator.feature_layer or a smaller k"
        )
    pca = IncrementalPCA(size, keep)
    covariance = torch.zeros(size, 0 if in_w else dim, dtype=torch.float64)  # of activations and codes, times samples
    with progress_bar(each * len(classes), "code", desc="ganspace", delay=1.0) as bar:
        for class_id in classes:
            pca.begin_group()
            total = torch.zeros(dim, dtype=torch.float64)
            for start in range(0, each, ROWS_AT_ONCE):
                z = generator.sample(min(ROWS_AT_ONCE, each - start), rng)
                rows = _rows(generator, z, None if in_w else layer, class_id)
                pca.add(rows)
                if not in_w:
                    covariance += rows.T @ z.double()
                    total += z.double().sum(dim=0)
                bar.update(len(z))
            if not in_w:
                covariance -= torch.outer(pca.mean, total)
    check_rank(k, len(pca.components), "ganspace", f"so many components vary in {samples} samples")
    explained = (pca.energy / pca.energy.sum())[:k]
    return upright(pca.components[:k] if in_w else pca.components[:k] @ covariance), explained


@torch.no_grad()
def _rows(generator: Generator, z: Tensor, layer: str | None, class_id: int | None) -> Tensor:
    """Return w [B, D], or the flattened activations of a layer [B, F], float64 on the CPU."""
    device, parts = generator.device, []
    for part in z.to(device).split(ROWS_THROUGH):
        classes = None if class_id is None else torch.full((len(part),), class_id, device=device)
        p = generator.encode(part, classes)
        if layer is not None:
            p = generator.features(p[:, None].expand(-1, generator.latent.layers, -1), layer, classes).flatten(1)
        parts.append(p.double().cpu())
    return torch.cat(parts)
