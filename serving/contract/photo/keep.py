"""Keep what was not edited: the photo's own pixels, and on them only what the edit changed.

A generator draws a photo roughly: background and detail are others. Where the edited picture differs from the unedited
one, the difference counts; elsewhere the photo does:

    difference = edited - reconstruction                                [H, W, 3], in steps of 255
    change     = max over the channels of |difference|, mean over (2 r + 1)^2 pixels, r = max(1, longest side / 64)
    mask       = s(clip((change - low) / (high - low), 0, 1)),  s(t) = t^2 (3 - 2 t)
    result     = clip(round(original + mask * difference), 0, 255)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.errors import PhotoError

LOW, HIGH = 3.0, 12.0
"""Steps of 255: changes up to the first are left out, those from the second on count whole."""


def keep_unedited(
    original: NDArray[np.uint8],
    reconstruction: NDArray[np.uint8],
    edited: NDArray[np.uint8],
    low: float = LOW,
    high: float = HIGH,
) -> NDArray[np.uint8]:
    """Add an edit to a photo, by the module's formula.

    Args:
        original: What was cut out of the photo, RGB [..., H, W, 3].
        reconstruction: The generator's picture of its code, unedited, of the same shape.
        edited: The edited picture, of the same shape.
        low: Changes up to it are left out, in steps of 255.
        high: Changes from it on count whole.

    Returns:
        RGB [..., H, W, 3]; exactly `original` where nothing was changed.

    Raises:
        PhotoError: The pictures differ in shape, or low and high are no range.
    """
    shapes = [list(picture.shape) for picture in (original, reconstruction, edited)]
    if original.ndim < 3 or original.shape[-1] != 3 or not shapes[0] == shapes[1] == shapes[2]:
        raise PhotoError(f"the pictures must have one shape [..., H, W, 3], got {', '.join(map(str, shapes))}")
    if not 0 <= low < high <= 255:
        raise PhotoError(f"low and high must be a range in [0, 255], got {low} and {high}")
    difference = edited.astype(np.float32) - reconstruction  # [..., H, W, 3]
    change = np.abs(difference).max(-1)  # [..., H, W]
    reach = max(1, max(change.shape[-2:]) // 64)
    for axis in (-2, -1):
        change = _mean(change, reach, axis)
    mask = ((change - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    mask *= mask * (3 - 2 * mask)
    kept = np.floor(original + mask[..., None] * difference + np.float32(0.5)).clip(0, 255)
    return np.asarray(kept, dtype=np.uint8)


def _mean(values: NDArray[np.float32], reach: int, axis: int) -> NDArray[np.float32]:
    """Average along an axis over each pixel and `reach` on both sides; beyond the edge the last one goes on."""
    length, total = values.shape[axis], np.zeros_like(values)
    for shift in range(-reach, reach + 1):
        total += np.take(values, np.arange(shift, shift + length).clip(0, length - 1), axis)
    return total / np.float32(2 * reach + 1)
