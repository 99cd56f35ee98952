"""Sliders for what has a score: one direction for each attribute that was asked for, independent of the others.

Codes are drawn, their pictures scored, and a linear model of each score is fitted to the codes, B [D, A]. Of all
directions d along which the model says +1 for the own attribute and 0 for the others (B^T d = e_a), the one is taken
that minimises

    d^T G d / mean + STAY * |d|^2,   so   [d_1 ... d_A] = M B (B^T M B)^-1   with   M = (G / mean + STAY)^-1.

G = E[J^T J] is how much a step changes the picture (J: the pixels' derivative by the code), mean that of a step in any
direction, and |d| how unlikely the step is among the generator's codes; all of it in whitened codes, which are spread
alike in all directions. With M = 1 this is InterFaceGAN's conditional manipulation (arXiv 1907.10786, section 2.3: a
normal less its projection on the others' span) and the least squares inverse of B, which are one thing. G is what makes
the slider do more of what it is called before the picture has become another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from latentclr.errors import ConfigError, ScorerError, nearest
from latentclr.generators.base import Generator
from latentclr.pictures.pixels import to_uint8
from latentclr.pictures.render import at_once
from latentclr.progress import progress_bar
from latentclr.scores.scorer import Scorer, build_scorers, find_attributes, score

SAMPLES = 4000
STAY = 0.1
"""Weight of the code's own distance against the picture's change; 0.03 to 0.3 do as well on the faces."""
METRIC_CODES, METRIC_STEP, METRIC_SIDE = 32, 0.5, 64
"""Codes whose derivatives G averages, at most and unless that takes more pictures than are scored; the step in standard
deviations; and the pixels to which pictures are reduced."""
LEAST_TRUSTED = 0.25
"""Share of the pictures that a scorer must trust."""
LEAST_EXPLAINED = 0.01
"""Share of an attribute's variance that must be linear in the codes, on samples that were held out."""
LEAST_LEFT = 0.05
"""Sine of the smallest angle between an attribute's normal and the span of the others'."""
_FLAT = 1e-6  # of the largest variance: codes do not vary along what has less
_RIDGES = np.logspace(-4, 4, 33)  # of the codes' mean square

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Directions for A attributes.

    Attributes:
        vectors: [A, D] of unit length; along each the linear model says more of its attribute, and of the others as
            much as before.
        explained: Share of each attribute's variance that is linear in the codes [A], on a fifth of the samples that
            the model had not seen.
        left: Sine of the angle between an attribute's normal and the span of the others' [A], in (0, 1].
        trusted: Share of the pictures that all scorers trust.
    """

    vectors: Tensor
    explained: Numbers
    left: Numbers
    trusted: float


def scorers_for(words: Sequence[str] | None, attributes: Sequence[str]) -> list[Scorer]:
    """Make the scorers of a run: those it names, or of `pixels` and `faces` those that have the attributes.

    Raises:
        ScorerError: An attribute is unknown (the nearest are named), or a scorer cannot be made.
    """
    if words is None:
        from latentclr.scores.faces import FaceScorer
        from latentclr.scores.pixels import PixelScorer

        known = {"pixels": PixelScorer.attributes, "faces": FaceScorer.attributes}
        names = [name for listed in known.values() for name in listed]
        for name in attributes:
            if name not in names:
                raise ScorerError(f"no attribute {name!r}{nearest(name, names)} (known: {', '.join(names)})")
        words = [word for word, listed in known.items() if set(listed) & set(attributes)]
    return build_scorers(words)


def fit_attributes(
    generator: Generator,
    scorers: Sequence[Scorer],
    attributes: Sequence[str],
    samples: int,
    fed: Tensor,
    rng: torch.Generator,
) -> Fitted:
    """Fit one direction for each attribute.

    Differences between a conditional generator's classes are not the directions' business: codes and scores count from
    their class's means. Where an edit is fed to some latent inputs only, the others get another code, so that a score
    tells what those inputs do.

    Args:
        generator: What is sampled, on its own device.
        scorers: Who tells the attributes.
        attributes: A names, each once.
        samples: Codes to draw.
        fed: [L], 1 at the latent inputs that will receive the edits.
        rng: Of codes and classes.

    Raises:
        ScorerError: No scorer has an attribute.
        ConfigError: Too few pictures are trusted, an attribute cannot be read from the codes, or it cannot be told from
            the others that were asked for.
    """
    columns = find_attributes(scorers, attributes)
    p, values, classes = _scored_samples(generator, scorers, columns, samples, fed, rng)
    good = np.isfinite(values).all(axis=1)
    if good.mean() < LEAST_TRUSTED or good.sum() < 2 * len(attributes) + 20:
        who = " and ".join(scorer.name for scorer in scorers)
        raise ConfigError(
            f"{who} can be trusted on {good.mean():.0%} of {samples} pictures of {generator.name}, too few to find"
            f" {', '.join(attributes)} (needs {LEAST_TRUSTED:.0%})"
        )
    p, values, classes = p[good], values[good], classes[good]
    for c in np.unique(classes):
        of_class = classes == c
        p[of_class] -= p[of_class].mean(axis=0)
        values[of_class] -= values[of_class].mean(axis=0)
    sd = values.std(axis=0)
    if still := [name for name, s in zip(attributes, sd, strict=True) if not s > 0]:
        raise ConfigError(
            f"{', '.join(still)} is the same in all pictures of {generator.name}: no direction changes it"
        )
    values = values / sd
    variance, axes = np.linalg.eigh(p.T @ p / len(p))
    kept = variance > _FLAT * variance[-1]
    to_code = axes[:, kept] * np.sqrt(variance[kept])  # [D, R]: whitened codes q to codes, p = to_code q
    q = p @ axes[:, kept] / np.sqrt(variance[kept])  # [N, R]

    seen = np.arange(len(q)) % 5 > 0
    guess = q[~seen] @ ridge(q[seen], values[seen])
    explained = 1 - ((values[~seen] - guess) ** 2).mean(axis=0) / values[~seen].var(axis=0)
    for name, share in zip(attributes, explained, strict=True):
        if not share >= LEAST_EXPLAINED:
            raise ConfigError(
                f"{name} cannot be read from the codes of {generator.name} ({max(share, 0):.1%} of its variance, on"
                f" {len(q)} pictures): there is no slider for it"
            )
    codes = max(2, min(METRIC_CODES, samples // (1 + q.shape[1])))
    change = picture_metric(generator, torch.from_numpy(to_code), codes, fed, rng)  # [R, R]
    m = np.linalg.inv(change / (np.trace(change) / len(change) or 1.0) + STAY * np.eye(len(change)))
    b = ridge(q, values)  # [R, A]
    found, left = independent(b, m)
    for name, sine in zip(attributes, left, strict=True):
        if sine < LEAST_LEFT:
            raise ConfigError(f"{name} says the same of these pictures as the other attributes: leave one of them out")
    vectors = torch.from_numpy((to_code @ found).T)
    return Fitted(vectors / vectors.norm(dim=1, keepdim=True), explained, left, float(good.mean()))


def ridge(x: Numbers, y: Numbers) -> Numbers:
    """Regress y [N, A] on x [N, R], both with mean 0: coefficients [R, A].

    Each column's ridge is that of a grid with the least error in generalised cross-validation (Golub, Heath and Wahba
    1979).
    """
    u, s, v = np.linalg.svd(x, full_matrices=False)
    seen = u.T @ y  # [R, A]
    best = np.full(y.shape[1], np.inf)
    chosen = np.zeros((len(s), y.shape[1]))
    for weight in _RIDGES * (s**2).mean():
        shrink = s**2 / (s**2 + weight)
        error = (y**2).sum(axis=0) - ((2 * shrink - shrink**2)[:, None] * seen**2).sum(axis=0)
        error /= (1 - (1 + shrink.sum()) / (len(x) + 1)) ** 2
        better = error < best
        best[better] = error[better]
        chosen[:, better] = ((shrink / s)[:, None] * seen)[:, better]
    coefficients: Numbers = v.T @ chosen
    return coefficients


def independent(b: Numbers, m: Numbers) -> tuple[Numbers, Numbers]:
    """Return d = M B (B^T M B)^-1 [R, A], for which B^T d = 1, and how much of each attribute the others leave [A].

    Args:
        b: Coefficients of A attributes [R, A].
        m: Symmetric, positive definite [R, R].
    """
    inner = b.T @ m @ b  # [A, A]
    inverse = np.linalg.pinv(inner, hermitian=True)
    # In the metric M, a normal's squared sine to the span of the others is 1 / (inner_aa * inverse_aa).
    left: Numbers = 1 / np.sqrt(np.maximum(np.diag(inner) * np.diag(inverse), 1.0))
    if np.linalg.matrix_rank(inner, hermitian=True) < len(inner):
        left = np.zeros(len(inner))
    found: Numbers = m @ b @ inverse
    return found, left


@torch.no_grad()
def picture_metric(generator: Generator, to_code: Tensor, codes: int, fed: Tensor, rng: torch.Generator) -> Numbers:
    """Return G = E[J^T J] [R, R], by finite differences along each axis of the whitened codes.

    Args:
        generator: The generator.
        to_code: [D, R], from whitened codes to codes.
        codes: How many are looked at; each costs 1 + R pictures.
        fed: [L], 1 at the latent inputs that are moved.
        rng: Of the codes and classes.
    """
    device, axes = fed.device, to_code.shape[1]
    steps = (METRIC_STEP * to_code.T).float().to(device)  # [R, D]
    z, classes = generator.sample(codes, rng).to(device), generator.sample_classes(codes, rng)
    classes = None if classes is None else classes.to(device)
    p = generator.encode(z, classes)  # [C, D]
    total = torch.zeros(axes, axes, dtype=torch.float64)
    with progress_bar(codes * (1 + axes), "picture", desc="changes", delay=1.0) as bar:
        for i, code in enumerate(p):
            rows = []
            moved = torch.cat([torch.zeros_like(steps[:1]), steps])  # [1 + R, D]
            for part in moved.split(at_once(generator)):
                ps = code + fed[:, None] * part[:, None]  # [B, L, D]
                class_id = None if classes is None else classes[i].expand(len(ps))
                images = generator.synthesize(ps, class_id).clamp(-1, 1)
                height, width = images.shape[2:]
                if max(height, width) > METRIC_SIDE:
                    images = F.adaptive_avg_pool2d(images, (min(height, METRIC_SIDE), min(width, METRIC_SIDE)))
                rows.append(images.flatten(1).cpu())
                bar.update(len(ps))
            images = torch.cat(rows)
            slopes = ((images[1:] - images[0]) / METRIC_STEP).double()  # [R, P]
            total += slopes @ slopes.T
    metric: Numbers = (total / codes).numpy()
    return metric


@torch.no_grad()
def _scored_samples(
    generator: Generator,
    scorers: Sequence[Scorer],
    columns: Sequence[tuple[int, int]],
    samples: int,
    fed: Tensor,
    rng: torch.Generator,
) -> tuple[Numbers, Numbers, NDArray[np.int64]]:
    """Return codes [N, D], scores [N, A] (nan where a scorer does not trust the picture) and classes [N]."""
    device, layers = fed.device, generator.latent.layers
    codes, values, classes = [], [], []
    with progress_bar(samples, "picture", desc="scores", delay=1.0) as bar:
        for start in range(0, samples, at_once(generator)):
            count = min(at_once(generator), samples - start)
            z = generator.sample(count, rng).to(device)
            other = None if fed.bool().all() else generator.sample(count, rng).to(device)
            class_id = generator.sample_classes(count, rng)
            there = None if class_id is None else class_id.to(device)
            p = generator.encode(z, there)  # [B, D]
            ps = p[:, None].expand(-1, layers, -1)  # [B, L, D]
            if other is not None:
                ps = torch.where(fed.bool()[:, None], ps, generator.encode(other, there)[:, None])
            images = generator.synthesize(ps, there)
            pixels = to_uint8(images).cpu().numpy()
            told = score(scorers, pixels)
            codes.append(p.double().cpu().numpy())
            values.append(
                np.stack([np.where(told[i].trusted, told[i].values[:, j], np.nan) for i, j in columns], axis=1)
            )
            classes.append(np.zeros(count, np.int64) if class_id is None else class_id.numpy())
            bar.update(count)
    return np.concatenate(codes), np.concatenate(values), np.concatenate(classes)
