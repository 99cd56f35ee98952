"""Refinement through the served models: a photo's code is moved until its unedited picture is nearer to the photo.

    for step in refine(client, inverted):
        print(step.number, step.psnr)

Gauss-Newton with Levenberg and Marquardt's damping (Levenberg 1944, Marquardt 1963), in numpy: the derivatives are
differences of drawn pictures, a batch of them a step, and the pictures are averaged down first, since few numbers tell
as much of a code as many. Pixels of 8 bits are coarse, so a difference is over a good part of a standard deviation. A
weak prior keeps the code where edits work. The best code, by pixels, is kept: no step makes it worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serving.client.photos import Inverted
from serving.errors import InvalidEdit

if TYPE_CHECKING:
    from serving.client.client import EditClient

Codes = NDArray[np.float32]
Draw = Callable[[Codes], NDArray[np.uint8]]
"""Codes [N, ...] -> their unedited pictures [N, H, W, 3]."""
STEPS = 12
REACH = 0.25  # of a finite difference, in standard deviations of the prior
PRIOR = 1.0  # variance of a pixel, in steps of 255 squared, that one standard deviation of a number weighs as much as
MOST_NUMBERS = 1024  # of a code: each step draws a picture for each of them
_SIDE = 32  # of the pictures that are compared
_DAMPINGS = (0.0, 1.0, 10.0, 100.0)  # all tried in one batch


@dataclass(frozen=True)
class Step:
    """Where a refinement is.

    Attributes:
        number: Steps done; 0 for the code that it began with.
        steps: Of all.
        psnr: Of the best code's unedited picture against the photo's, in dB.
        inverted: The photo with the best code.
    """

    number: int
    steps: int
    psnr: float
    inverted: Inverted


def refine(client: EditClient, inverted: Inverted, steps: int = STEPS, timeout: float | None = None) -> Iterator[Step]:
    """Refine a photo's code; whoever stops asking for the next step has cancelled the rest.

    Args:
        client: Talks to the model whose encoder found the code. A model that takes `z`, or `w`.
        inverted: The photo and its code.
        steps: The most to do, at least 1; each draws a picture for each number of a code.
        timeout: Seconds to wait for each answer, instead of the client's.

    Yields:
        The beginning, and then each step.

    Raises:
        InvalidEdit: The codes are too large for this, or the steps out of range.
        ServingError: The server cannot answer.
    """
    manifest = client.manifest
    layers, classes = manifest.latent.layers, manifest.generator.classes
    default = None if classes is None else (classes.default or (0,))[0]

    def draw(codes: Codes) -> NDArray[np.uint8]:
        rows = len(codes)
        class_id = None if default is None else np.full(rows, default)
        nothing = np.zeros((rows, 1), np.int64), np.zeros((rows, 1, layers), np.float32)
        return client.edit_rows(codes, *nothing, class_id, timeout=timeout).images

    mean, spread = np.zeros(1, np.float32), np.ones(1, np.float32)
    if manifest.latent.input != "z":  # of w only the code itself tells where the prior is
        mean, spread = inverted.codes.copy(), np.full(1, max(float(inverted.codes.std()), 1e-3), np.float32)
    for number, psnr, codes in refine_codes(draw, inverted.codes, inverted.picture, steps, mean, spread):
        best = inverted if number == 0 else inverted.with_codes(codes, inverted.refined + number)
        yield Step(number, steps, psnr, best)


def refined(client: EditClient, inverted: Inverted, steps: int, timeout: float | None = None) -> Inverted:
    """Do all steps of `refine`, and return the photo with the best code."""
    best = inverted
    for step in refine(client, inverted, steps, timeout):
        best = step.inverted
    return best


def refine_codes(
    draw: Draw, start: Codes, picture: NDArray[np.uint8], steps: int, mean: Codes, spread: Codes
) -> Iterator[tuple[int, float, Codes]]:
    """Do the arithmetic of `refine` with any way to draw.

    Args:
        draw: Draws codes.
        start: The code [1, ...].
        picture: What to come near to, [H, W, 3].
        steps: The most to do.
        mean: Of the prior, one number or one for each of a code's.
        spread: Its standard deviations, likewise.

    Yields:
        Number of the step, PSNR of the best code, and that code [1, ...].

    Raises:
        InvalidEdit: The codes are too large for this, or the steps out of range.
    """
    size = math.prod(start.shape[1:])
    if not 1 <= steps <= 10_000:
        raise InvalidEdit(f"steps must be in [1, 10000], got {steps}")
    if size > MOST_NUMBERS:
        raise InvalidEdit(
            f"refinement through the server takes codes of at most {MOST_NUMBERS} numbers, got {size}: "
            "`latentclr invert --steps` refines them by gradient"
        )
    shape, wanted = start.shape[1:], _small(picture[None])[0]
    prior = PRIOR * wanted.size / size  # the whole code weighs as one variance of all pixels
    x = ((start - mean) / spread).reshape(-1).astype(np.float64)  # [D]
    drawn = draw(start)
    best, error = x, _error(drawn, picture)[0]
    residual = wanted - _small(drawn)[0]  # [F]
    yield 0, _psnr(error), start
    damping = 1.0
    for number in range(1, steps + 1):
        moved = np.concatenate([x + REACH * np.eye(size), x - REACH * np.eye(size)])  # [2 D, D]
        features = _small(draw(_codes(moved, mean, spread, shape)))  # [2 D, F]
        slope = (features[:size] - features[size:]) / (2 * REACH)  # [D, F]
        curvature, gradient = slope @ slope.T + prior * np.eye(size), slope @ residual - prior * x
        scale = damping * np.trace(curvature) / size / 100
        tries = np.stack(
            [x + np.linalg.solve(curvature + factor * scale * np.eye(size), gradient) for factor in _DAMPINGS]
        )
        drawn = draw(_codes(tries, mean, spread, shape))
        errors = _error(drawn, picture)
        at = int(errors.argmin())
        damping = damping * (0.5, 1.0, 2.0, 4.0)[at]
        if errors[at] < error:
            best, error = tries[at], errors[at]
            x, residual = tries[at], wanted - _small(drawn)[at]
        else:
            damping *= 8
        yield number, _psnr(error), _codes(best[None], mean, spread, shape)


def _codes(x: NDArray[np.float64], mean: Codes, spread: Codes, shape: tuple[int, ...]) -> Codes:
    return np.asarray(mean + spread * x.reshape(len(x), *shape), np.float32)


def _small(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Average pictures [N, H, W, 3] down to about 32 pixels a side, as [N, F]."""
    height, width = pictures.shape[1:3]
    tall, wide = max(1, height // _SIDE), max(1, width // _SIDE)
    cut = pictures[:, : height // tall * tall, : width // wide * wide]
    cells = cut.reshape(len(cut), height // tall, tall, width // wide, wide, 3)
    return np.asarray(cells.mean((2, 4), dtype=np.float64).reshape(len(cut), -1))


def _error(pictures: NDArray[np.uint8], picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean square of the differences [N], in steps of 255."""
    return np.asarray(np.square(pictures.astype(np.float32) - picture).mean((1, 2, 3), dtype=np.float64))


def _psnr(error: float) -> float:
    return 10 * math.log10(255**2 / max(error, 1e-2))
