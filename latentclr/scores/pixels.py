"""The scorer `pixels`: light, colour, sharpness and the subject's place, by formulas, in pictures of anything.

A picture has H rows and W columns; R, G and B are in [0, 1]; Y = 0.299 R + 0.587 G + 0.114 B is its luma
(ITU-R BT.601); mean and sd are over all pixels. x is -1 at the left edge and +1 at the right, y is -1 at the bottom and
+1 at the top, both at the middle of a pixel. A picture of 512 pixels or more is measured smaller, each f x f pixels as
their mean, with f = floor(longer side / 256); so all but sharpness hardly depend on the resolution.

The border is the outermost eighth of the columns at both sides and of the rows at the top, at least one of each; the
bottom is left out, for there stands what carries the pictured thing. d is a pixel's distance to the border's mean
colour, the mean of the absolute differences of R, G and B: what stands out.

| attribute | formula | range |
|---|---|---|
| brightness | mean Y | [0, 1] |
| contrast | sd Y | [0, 0.5] |
| saturation | mean (max(R, G, B) - min(R, G, B)); HSV's own saturation jumps in the dark | [0, 1] |
| warmth | mean (R - B) | [-1, 1] |
| greenness | mean (G - (R + B) / 2); with warmth it is the mean hue, without the jump of an angle | [-1, 1] |
| light_right | mean Y of the right half - mean Y of the left half; a middle column belongs to neither | [-1, 1] |
| light_top | mean Y of the upper half - mean Y of the lower half; a middle row belongs to neither | [-1, 1] |
| background | mean Y of the border | [0, 1] |
| sharpness | mean of abs(4 Y - the four neighbours' Y); beyond the edge Y goes on as at the edge | [0, 4] |
| subject_right | sum(d x) / sum(d) | [-1, 1] |
| subject_top | sum(d y) / sum(d) | [-1, 1] |
| subject_size | sqrt(sum(d ((x - subject_right)^2 + (y - subject_top)^2)) / sum(d)) | [0, 1.42] |

Where nothing stands out (sum(d) = 0) the last three are 0. Every picture is trusted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentclr.scores.scorer import Scored, check_images

LUMA = np.array([0.299, 0.587, 0.114])
_SIDE = 256
_PIXELS_AT_ONCE = 1 << 16  # of float64: what fits into a CPU's cache is measured twice as fast


class PixelScorer:
    """The scorer `pixels`; the module says by which formulas."""

    name = "pixels"
    attributes: tuple[str, ...] = (
        "brightness", "contrast", "saturation", "warmth", "greenness", "light_right", "light_top", "background",
        "sharpness", "subject_right", "subject_top", "subject_size",
    )  # fmt: skip

    def __call__(self, images: NDArray[np.uint8]) -> Scored:
        """Score RGB pictures [N, H, W, 3]; all are trusted.

        Raises:
            ScorerError: They are no uint8 [N, H, W, 3].
        """
        images = check_images(images)
        count, height, width, _ = images.shape
        factor = max(height, width) // _SIDE
        step = max(1, _PIXELS_AT_ONCE // (height * width))
        values = np.empty((count, len(self.attributes)))
        for start in range(0, count, step):
            part = images[start : start + step]
            if factor > 1:
                part = np.stack([np.asarray(Image.fromarray(image).reduce(factor)) for image in part])
            values[start : start + step] = _measure(part.transpose(3, 0, 1, 2) / 255.0)
        return Scored(values, np.ones(count, dtype=np.bool_))


def _measure(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure pictures [3, N, H, W] in [0, 1]; return [N, A]."""
    _, _, height, width = rgb.shape
    red, green, blue = rgb
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue  # [N, H, W]
    mean = rgb.mean((2, 3))  # [3, N]
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)

    def gray(part: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean luma [N] of a part; 0 of one without pixels."""
        return part.mean((1, 2)) if part.size else np.zeros(len(part))

    half_w, half_h = width // 2, height // 2
    light_right = gray(luma[:, :, width - half_w :]) - gray(luma[:, :, :half_w])
    light_top = gray(luma[:, :half_h]) - gray(luma[:, height - half_h :])

    border = np.zeros((height, width), dtype=np.bool_)
    side = max(1, width // 8)
    border[: max(1, height // 8)] = border[:, :side] = border[:, width - side :] = True

    padded = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
    neighbours = padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:] + padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]

    edge = rgb[:, :, border].mean(2)  # [3, N], the border's colour
    weight = np.abs(rgb - edge[:, :, None, None]).mean(0)  # [N, H, W]
    weight[weight < 1e-9] = 0.0  # rounding, where a picture has one colour
    total = weight.sum((1, 2))
    total[total == 0] = np.inf
    x = (2 * np.arange(width) + 1) / width - 1
    y = 1 - (2 * np.arange(height) + 1) / height
    columns, rows = weight.sum(1), weight.sum(2)  # [N, W], [N, H]
    right, top = columns @ x / total, rows @ y / total
    spread = (columns * (x - right[:, None]) ** 2).sum(1) + (rows * (y - top[:, None]) ** 2).sum(1)

    measured = (
        luma.mean((1, 2)), luma.std((1, 2)), chroma.mean((1, 2)), mean[0] - mean[2],
        mean[1] - (mean[0] + mean[2]) / 2, light_right, light_top, luma[:, border].mean(1),
        np.abs(4 * luma - neighbours).mean((1, 2)), right, top, np.sqrt(spread / total),
    )  # fmt: skip
    return np.stack(measured, axis=1)
