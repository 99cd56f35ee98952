"""Boxes of faces: MediaPipe's full-range BlazeFace (arXiv 1907.05047), read out as its SSD calculators are described.

The network sees a square of 192 pixels, in [-1, 1], and answers at each of 48 x 48 cells of 4 pixels: a logit that a
face is there, and 16 numbers in pixels: the box's centre from the cell's, its width and height, and six points, also
from the cell's centre (the eyes, the nose, the mouth, the ears). Of boxes that overlap, the likeliest is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract.litert import LiteNetwork

SIDE, STRIDE = 192, 4
_LEAST = 0.0  # logit: the likelier half
_OVERLAP = 0.3  # intersection over union from which two boxes are of one face
_SMALLEST_TILE = 128  # pixels of a photo; smaller ones show no more than the whole
_MOST_BOXES = 200


@dataclass(frozen=True, eq=False)
class Box:
    """Where a face may be.

    Attributes:
        centre: (x, y) in pixels.
        side: The larger of width and height in pixels.
        eyes: The left and the right eye [2, 2] in pixels, sides of the picture.
        logit: The network's log-odds.
    """

    centre: NDArray[np.float64]
    side: float
    eyes: NDArray[np.float64]
    logit: float


def cell_centres() -> NDArray[np.float64]:
    """Return the centres (x, y) of the cells [2304, 2] in pixels of the square, row by row."""
    places = (np.arange(SIDE // STRIDE) + 0.5) * STRIDE
    x, y = np.meshgrid(places, places)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def find_boxes(network: LiteNetwork, pixels: NDArray[np.uint8]) -> list[Box]:
    """Find faces in a picture [h, w, 3] of any size, the likeliest first; in its tiles, if the whole shows none."""
    height, width, _ = pixels.shape
    found = _in_square(network, pixels, (0, 0, width, height))
    for parts in (2, 4):
        side = max(height, width) // parts
        if found or side < _SMALLEST_TILE:
            break
        for top in _starts(height, side):
            for left in _starts(width, side):
                right, bottom = min(width, left + side), min(height, top + side)
                found += _in_square(network, pixels, (left, top, right, bottom))
    return strongest(found)


def strongest(boxes: list[Box]) -> list[Box]:
    """Keep the likeliest of boxes that overlap (non-maximum suppression), the likeliest first."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.logit)[:_MOST_BOXES]:
        if all(_overlap(box, other) < _OVERLAP for other in kept):
            kept.append(box)
    return kept


def _starts(length: int, side: int) -> list[int]:
    """Return where tiles begin that overlap by half and reach both ends."""
    if length <= side:
        return [0]
    count = 1 + -(-(length - side) * 2 // side)
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _in_square(network: LiteNetwork, pixels: NDArray[np.uint8], tile: tuple[int, int, int, int]) -> list[Box]:
    """Find faces in a tile (left, top, right, bottom), fitted into the middle of a black square."""
    left, top, right, bottom = tile
    image = Image.fromarray(pixels[top:bottom, left:right])
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    square = Image.new("RGB", (SIDE, SIDE))
    corner = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    square.paste(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0), corner)
    inputs = np.asarray(square, dtype=np.float32)[None] / np.float32(127.5) - 1
    regressed, logits = network(inputs)  # [1, 2304 * 16], [1, 2304]
    likely = np.flatnonzero(logits[0] > _LEAST)
    numbers = regressed.reshape(-1, 8, 2)[likely].astype(np.float64)  # centre, size, six points
    numbers[:, [0, 2, 3]] += cell_centres()[likely, None]
    shift = np.array([left, top]) - np.array(corner) / scale
    return [
        Box(row[0] / scale + shift, float(row[1].max() / scale), row[2:4] / scale + shift, float(logit))
        for row, logit in zip(numbers, logits[0][likely], strict=True)
        if np.isfinite(row).all() and row[1].min() > 0
    ]


def _overlap(a: Box, b: Box) -> float:
    """Return the intersection of two squares over their union."""
    low = np.maximum(a.centre - a.side / 2, b.centre - b.side / 2)
    high = np.minimum(a.centre + a.side / 2, b.centre + b.side / 2)
    both = float((high - low).clip(0).prod())
    return both / (a.side**2 + b.side**2 - both)
