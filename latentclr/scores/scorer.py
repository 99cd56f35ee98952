"""Scorers: pictures in, named numbers out, and the share of pictures for which the numbers mean anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from latentclr.errors import ScorerError, nearest

SCORERS = ("pixels", "faces", "onnx:PATH")
MOST_AT_ONCE = 16
"""Pictures that a scorer is given at once; more are no faster, and take memory."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a scorer says of N pictures.

    Attributes:
        values: Float64 [N, A], a column for each of the scorer's attributes; finite in every trusted row.
        trusted: Bool [N]; false where the numbers mean nothing, such as those of a face in a picture without one.
            Leave these rows out, and say their share.
    """

    values: NDArray[np.float64]
    trusted: NDArray[np.bool_]

    @property
    def share(self) -> float:
        """Return the share of trusted rows in [0, 1]; nan of no pictures."""
        return float(self.trusted.mean()) if len(self.trusted) else float("nan")


class Scorer(Protocol):
    """Maps pictures to attributes, in several threads at once.

    A picture's numbers do not depend on the pictures beside it, nor on what other threads do.

    Attributes:
        name: As it was asked for: `pixels`, `faces` or `onnx:PATH`.
        attributes: Names of the A columns; more of the named thing is a larger number.
    """

    name: str
    attributes: tuple[str, ...]

    def __call__(self, images: NDArray[np.uint8]) -> Scored:
        """Score RGB pictures [N, H, W, 3] of any size; N may be 0.

        Raises:
            ScorerError: They are no pictures of that form.
        """
        ...


def build_scorers(words: Sequence[str]) -> list[Scorer]:
    """Make the scorers that were asked for, in their order.

    Args:
        words: `pixels`, `faces` and `onnx:PATH`, each at most once.

    Raises:
        ScorerError: A word is unknown (the nearest are named) or comes twice, two scorers have an attribute of the same
            name, or a scorer cannot be made: what is missing and how to install it, or what is wrong with its files.
    """
    scorers = [_build(word) for word in words]
    if not scorers:
        raise ScorerError(f"expected one or more scorers ({', '.join(SCORERS)}), got none")
    owners: dict[str, str] = {}
    for scorer in scorers:
        if scorer.name in owners.values():
            raise ScorerError(f"scorer {scorer.name!r} is asked for twice")
        for attribute in scorer.attributes:
            if attribute in owners:
                raise ScorerError(f"{scorer.name} and {owners[attribute]} both have an attribute {attribute!r}")
            owners[attribute] = scorer.name
    return scorers


def _build(word: str) -> Scorer:
    if word == "pixels":
        from latentclr.scores.pixels import PixelScorer

        return PixelScorer()
    if word == "faces":
        from latentclr.scores.faces import FaceScorer

        return FaceScorer()
    if word.startswith("onnx:"):
        from latentclr.scores.onnx_scorer import OnnxScorer

        return OnnxScorer(word.removeprefix("onnx:"))
    raise ScorerError(f"no scorer {word!r}{nearest(word, SCORERS)} (known: {', '.join(SCORERS)})")


def score(scorers: Sequence[Scorer], images: NDArray[np.uint8]) -> list[Scored]:
    """Return what each scorer says of pictures [N, H, W, 3], which are shared out among as many threads as PyTorch has.

    The threads take subnormal numbers as 0: a CPU may need a hundred times as long for those, and trained networks have
    some among their weights. The age network of `faces` has 6,667, and took five times as long on an Intel.

    Raises:
        ScorerError: The pictures are no uint8 [N, H, W, 3], or a scorer fails.
    """
    threads = torch.get_num_threads()
    size = max(1, min(MOST_AT_ONCE, -(-len(images) // threads)))
    parts = [images[start : start + size] for start in range(0, max(1, len(images)), size)]
    with ThreadPoolExecutor(threads, "score", lambda: torch.set_flush_denormal(True)) as pool:
        rows = list(pool.map(lambda part: [scorer(part) for scorer in scorers], parts))
    return [
        Scored(np.concatenate([one.values for one in column]), np.concatenate([one.trusted for one in column]))
        for column in zip(*rows, strict=True)
    ]


def find_attributes(scorers: Sequence[Scorer], attributes: Sequence[str]) -> list[tuple[int, int]]:
    """Find attributes by name.

    Args:
        scorers: From `build_scorers`.
        attributes: Their names, each at most once.

    Returns:
        For each, the scorer's index in `scorers` and the column of its values.

    Raises:
        ScorerError: No scorer has the attribute (the nearest are named), or it comes twice.
    """
    known = {name: (i, j) for i, scorer in enumerate(scorers) for j, name in enumerate(scorer.attributes)}
    for name in attributes:
        if name not in known:
            raise ScorerError(f"no attribute {name!r}{nearest(name, known)} (known: {', '.join(known)})")
        if attributes.count(name) > 1:
            raise ScorerError(f"attribute {name!r} is asked for twice")
    return [known[name] for name in attributes]


def check_images(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Return RGB pictures uint8 [N, H, W, 3] in one piece of memory.

    Raises:
        ScorerError: They are of another type or shape, or have no pixels.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        raise ScorerError(f"pictures must be uint8 [N, H, W, 3], got {images.dtype} {list(images.shape)}")
    return np.ascontiguousarray(images)
