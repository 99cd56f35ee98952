"""How far a slider should go: the largest strength, each way, at which the pictures are still the generator's own.

Two measures of process monitoring say how unusual a picture is, by its features at a layer of the generator (Jackson
and Mudholkar 1979): Hotelling's T, the Mahalanobis distance within the principal components of unedited features, and
Q, the distance to their subspace. Either is divided by its 99 % quantile over unedited codes that the components were
not fitted on, and the larger one counts. Two layers are looked at: the one that the run was trained on, which sees a
code that is none of the generator's, and one in the middle, which sees a picture fall apart that begins with a usual
code. A side reaches to where half of the edited pictures are above 1 at either of them. With a scorer that does not
trust every picture, such as `faces`, it ends earlier where the share of trusted pictures falls below 90 % of what it is
unedited. And no side reaches beyond 4 times the strength of the training, or that of equal change where this is larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentclr.generators.base import Generator
from latentclr.scores.move import SIDES, crossing
from latentclr.scores.subject import Codes, Subject

QUANTILE = 0.99
UNEDITED = 512  # codes that components are fitted on, and as many others for the quantiles
COMPONENTS = 64
MOST = 4.0
"""No side reaches beyond this multiple of the larger of two strengths: the training's, and that of equal change."""
TRUSTED = 0.9
"""A side ends where the share of trusted pictures is below this part of what it is unedited."""


def middle_layer(generator: Generator, fed: Tensor) -> str:
    """Return the feature layer that unusual pictures show at: the first from the middle on that most edits can change.

    Early layers are nearly linear in the code, and late ones see textures only.

    Args:
        generator: The generator.
        fed: Mask [L] of the latent inputs that receive an edit.
    """
    layers = generator.feature_layers
    for layer in layers[(len(layers) - 1) // 2 :]:
        if 2 * fed[: generator.inputs_reaching(layer)].sum() >= fed.sum():
            return layer
    return layers[-1]


@dataclass(frozen=True)
class Usual:
    """What is usual of a generator's features [N, F].

    Attributes:
        mean: [F].
        components: Principal components, scaled to unit variance [R, F].
        limits: The quantiles of T and Q over unedited features; infinite for Q where nothing is left for it.
    """

    mean: Tensor
    components: Tensor
    limits: tuple[float, float]

    def distance(self, features: Tensor) -> Tensor:
        """Return how unusual features [N, F] are: max(T / its quantile, Q / its quantile) [N]."""
        t, q = _measures(features, self.mean, self.components)
        return torch.maximum(t / self.limits[0], q / self.limits[1])


@torch.no_grad()
def learn_usual(subject: Subject, seed: int) -> dict[str, Usual]:
    """Learn what is usual at each of the subject's layers; one that does not depend on the code is left out."""
    fit, other = (subject.codes(UNEDITED, seed, f"score features {part}") for part in (0, 1))
    found = {
        layer: fit_usual(*(subject.features(codes.still(), codes.class_id, layer) for codes in (fit, other)))
        for layer in subject.layers
    }
    return {layer: usual for layer, usual in found.items() if usual is not None}


def fit_usual(fit: Tensor, other: Tensor) -> Usual | None:
    """Learn what is usual.

    Args:
        fit: Features [N, F] of unedited codes, for mean and components.
        other: Features [N', F] of others, for the quantiles.

    Returns:
        None if the features do not depend on the code.
    """
    fit, other = fit.double(), other.double()
    mean = fit.mean(dim=0)
    _, s, v = torch.linalg.svd(fit - mean, full_matrices=False)
    count = min(COMPONENTS, len(fit) // 4, int((s > 1e-6 * s[0]).sum()) if s[0] > 0 else 0)
    if count == 0:
        return None
    components = v[:count] * (len(fit) - 1) ** 0.5 / s[:count, None]
    t, q = _measures(other, mean, components)
    limits = [float(torch.quantile(values, QUANTILE)) for values in (t, q)]
    nothing_left = limits[1] <= 1e-3 * float((other - mean).norm(dim=1).median())
    return Usual(mean, components, (limits[0], float("inf") if nothing_left else limits[1]))


def _unusual(subject: Subject, ps: Tensor, class_id: Tensor | None, usual: Mapping[str, Usual]) -> float:
    """Return the largest median over codes of any layer."""
    return max(float(known.distance(subject.features(ps, class_id, layer)).median()) for layer, known in usual.items())


def _measures(features: Tensor, mean: Tensor, components: Tensor) -> tuple[Tensor, Tensor]:
    x = features.double() - mean
    inside = x @ components.T  # [N, R]
    explained = inside @ (components / (components**2).sum(dim=1, keepdim=True))  # [N, F]
    return inside.norm(dim=1), (x - explained).norm(dim=1)


@torch.no_grad()
def feature_reach(
    subject: Subject, codes: Codes, usual: Mapping[str, Usual], start: NDArray[np.float64], trained: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Find how far each direction's sides reach by the features.

    Args:
        subject: What is moved.
        codes: C codes.
        usual: Of each layer; without any, every side reaches to its cap.
        start: Strengths [K, 2] of equal change.
        trained: The largest strength of the training.

    Returns:
        Strengths [K, 2], all above 0, and where they are the cap [K, 2].
    """
    reach, capped = np.empty_like(start), np.zeros(start.shape, np.bool_)
    still = _unusual(subject, codes.still(), codes.class_id, usual) if usual else 0.0
    for k in range(len(start)):
        cap = MOST * max(trained, *start[k])
        for side, sign in enumerate(SIDES):

            def measure(at: float, k: int = k, sign: float = sign) -> float:
                return _unusual(subject, codes.moved(k, sign * at), codes.class_id, usual)

            if not usual:
                reach[k, side], capped[k, side] = cap, True
                continue
            reach[k, side], there = crossing(measure, 1.0, min(still, 0.99), float(start[k, side]), cap)
            capped[k, side] = reach[k, side] >= cap and there < 1.0
    return reach, capped


def trusted_reach(alphas: Sequence[float], shares: Sequence[float]) -> float:
    """Return the strength at which the share of trusted pictures falls below 90 % of the first one's.

    Args:
        alphas: Strengths, rising from 0.
        shares: The shares there, in [0, 1]; between two of them a straight line is assumed.
    """
    least = TRUSTED * shares[0]
    for i in range(1, len(alphas)):
        if shares[i] < least:
            part = (shares[i - 1] - least) / (shares[i - 1] - shares[i])
            return float(alphas[i - 1] + part * (alphas[i] - alphas[i - 1]))
    return float(alphas[-1])
