"""The map between a photo and the frame of a generator: what is cut out, and where an edited picture goes back to.

Coordinates are continuous: the first pixel reaches from 0 to 1, its centre lies at 0.5, x to the right and y down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.errors import PhotoError

LARGEST_FRAME = 2048
"""Of a side of the frame, in pixels."""
_FARTHEST = 1e6  # of a shift, in pixels
_SCALES = (1e-3, 1e4)  # photo pixels in one of the frame
_LARGEST_BOX = 8  # of the frame in the photo, in the photo's sides along the same axis
_MARGIN = 4  # pixels around a window, more than a bicubic filter reaches
_BAND = 256  # rows that are pasted at once


@dataclass(frozen=True)
class Crop:
    """Where the frame lies in the photo.

    Attributes:
        matrix: (a, b, c, d, e, f): pixel (x, y) of the frame is (a x + b y + c, d x + e y + f) of the photo. A
            similarity (turn, scale, shift), or a scale along each axis and a shift; nothing is mirrored.
        size: (H, W) of the frame in pixels.
    """

    matrix: tuple[float, float, float, float, float, float]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        """Check the map.

        Raises:
            PhotoError: It is none of those, or out of bounds.
        """
        if len(self.size) != 2 or not all(type(side) is int and 1 <= side <= LARGEST_FRAME for side in self.size):
            raise PhotoError(f"a crop's size must be two whole numbers in [1, {LARGEST_FRAME}], got {self.size!r:.80}")
        numbers = self.matrix
        if len(numbers) != 6 or not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise PhotoError(f"a crop's matrix must be six finite numbers, got {numbers!r:.80}")
        a, b, c, d, e, f = numbers
        across, down = self.scales
        if not all(_SCALES[0] <= scale <= _SCALES[1] for scale in (across, down)) or max(abs(c), abs(f)) > _FARTHEST:
            raise PhotoError(f"a crop's scales must be in [{_SCALES[0]:g}, {_SCALES[1]:g}] and its shift at most 1e6")
        near = 1e-6 * max(across, down)
        upright = max(abs(b), abs(d)) <= near and a > 0 and e > 0
        if not upright and max(abs(a - e), abs(b + d)) > near:
            raise PhotoError("a crop's matrix must turn and scale, or scale along each axis")

    @property
    def scales(self) -> tuple[float, float]:
        """Pixels of the photo in one of the frame, along the frame's x and its y."""
        a, b, _, d, e, _ = self.matrix
        return math.hypot(a, d), math.hypot(b, e)

    def as_dict(self) -> dict[str, list[float] | list[int]]:
        """Return it as plain data, for JSON."""
        return {"matrix": list(self.matrix), "size": list(self.size)}

    @staticmethod
    def parse(raw: Any) -> Crop:
        """Read `as_dict`'s data, which may come from anybody.

        Raises:
            PhotoError: It is no crop, or out of bounds.
        """
        if not isinstance(raw, Mapping) or set(raw) != {"matrix", "size"}:
            raise PhotoError("a crop must be a table of matrix and size")
        matrix, size = raw["matrix"], raw["size"]
        if not (isinstance(matrix, list | tuple) and isinstance(size, list | tuple) and len(matrix) == 6):
            raise PhotoError("a crop's matrix must be a list of six numbers, and its size a list of two")
        if not all(type(number) in (int, float) and abs(number) <= _FARTHEST for number in matrix):  # no NaN either
            raise PhotoError(f"a crop's matrix must hold numbers of at most {_FARTHEST:g}")
        a, b, c, d, e, f = (float(number) for number in matrix)
        return Crop((a, b, c, d, e, f), tuple(size))  # whose check follows

    def to_photo(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move points [..., 2] of the frame to where they lie in the photo."""
        a, b, c, d, e, f = self.matrix
        x, y = points[..., 0], points[..., 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)

    def to_frame(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move points [..., 2] of the photo to where they lie in the frame."""
        a, b, c, d, e, f = _inverse(self.matrix)
        x, y = points[..., 0], points[..., 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)


def centre_crop(photo: tuple[int, int], frame: tuple[int, int]) -> Crop:
    """Return the largest upright crop in the middle.

    Args:
        photo: (h, w) of the photo in pixels.
        frame: (H, W) of the frame in pixels.
    """
    scale = min(photo[0] / frame[0], photo[1] / frame[1])
    left, top = (photo[1] - scale * frame[1]) / 2, (photo[0] - scale * frame[0]) / 2
    return Crop((scale, 0.0, left, 0.0, scale, top), (int(frame[0]), int(frame[1])))


def cut_out(photo: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """Cut the frame out of a photo: averaged where it shrinks, bicubic where it grows.

    Args:
        photo: RGB pixels [h, w, 3].
        crop: Where the frame lies; beyond the photo's edges their last pixels go on.

    Returns:
        RGB pixels [H, W, 3].

    Raises:
        PhotoError: The crop lies beside the photo, or is far larger.
    """
    (left, top), (right, bottom) = _box(crop.matrix, crop.size)
    height, width, _ = photo.shape
    beside = right <= 0 or bottom <= 0 or left >= width or top >= height
    # Along each axis by itself: `warp` makes a side no smaller than one pixel, and draws what is left.
    if beside or right - left > _LARGEST_BOX * width or bottom - top > _LARGEST_BOX * height:
        raise PhotoError(f"the crop must lie on the photo of {width} x {height} pixels, got {crop.matrix}")
    return warp(photo, crop.matrix, crop.size)


def paste(photo: NDArray[np.uint8], crop: Crop, picture: NDArray[np.uint8], feather: float = 0.1) -> NDArray[np.uint8]:
    """Put a picture of the frame back into the photo.

    Args:
        photo: RGB pixels [h, w, 3].
        crop: What the picture was cut out with.
        picture: RGB pixels [H, W, 3].
        feather: The share of the frame's side over which it fades out, at each side, in [0, 0.5].

    Returns:
        A new photo, RGB [h, w, 3]; outside the frame it is untouched.

    Raises:
        PhotoError: The picture is not of the crop's size, or the feather out of range.
    """
    if picture.shape != (*crop.size, 3) or picture.dtype != np.uint8:
        raise PhotoError(
            f"the picture must be uint8 {[*crop.size, 3]} as its crop, got {picture.dtype} {list(picture.shape)}"
        )
    if not 0 <= feather <= 0.5:
        raise PhotoError(f"feather must be in [0, 0.5], got {feather}")
    pasted = photo.copy()
    (left, first), (right, end) = _box(crop.matrix, crop.size)
    left, first = max(0, left), max(0, first)
    right, end = min(right, photo.shape[1]), min(end, photo.shape[0])
    if right <= left or end <= first:
        return pasted
    a, b, c, d, e, f = _inverse(crop.matrix)
    for top in range(first, end, _BAND):
        size = min(_BAND, end - top), right - left
        matrix = (a, b, a * left + b * top + c, d, e, d * left + e * top + f)
        weight = _weight(matrix, size, crop.size, feather)[..., None]
        there = pasted[top : top + size[0], left:right]
        mixed = there + weight * (warp(picture, matrix, size) - there.astype(np.float32))
        there[:] = np.floor(mixed + np.float32(0.5)).clip(0, 255)
    return pasted


def _weight(
    matrix: Sequence[float], size: tuple[int, int], frame: tuple[int, int], feather: float
) -> NDArray[np.float32]:
    """Return what a picture of the frame weighs at each pixel [h, w] of a window: 1 inside, 0 from its border on."""
    a, b, c, d, e, f = matrix
    x = (np.arange(size[1], dtype=np.float32) + 0.5)[None]
    y = (np.arange(size[0], dtype=np.float32) + 0.5)[:, None]
    across = (np.float32(a) * x + np.float32(b) * y + np.float32(c)) / np.float32(frame[1])
    down = (np.float32(d) * x + np.float32(e) * y + np.float32(f)) / np.float32(frame[0])
    weight = np.ones(size, dtype=np.float32)
    for place in (across, down):
        inside = np.minimum(place, 1 - place)  # 0 at the border
        if feather == 0:
            weight *= inside >= 0
        else:
            inside = (inside / np.float32(feather)).clip(0, 1)
            weight *= inside * inside * (3 - 2 * inside)
    return weight


def warp(pixels: NDArray[np.uint8], matrix: Sequence[float], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Sample a picture.

    Args:
        pixels: RGB [h, w, 3].
        matrix: From a pixel of what is made to the picture's, as in `Crop`.
        size: (H, W) of what is made.
    """
    a, b, c, d, e, f = matrix
    image = Image.fromarray(pixels)
    # Fewer pixels first: what is left shrinks by less than 2 along each axis of the picture, and takes little memory.
    spans = math.hypot(a, b), math.hypot(d, e)  # of one step across and one down, along the picture's x and its y
    fewer = min(max(1, int(spans[0])), image.width), min(max(1, int(spans[1])), image.height)
    if fewer != (1, 1):
        image = image.reduce(fewer)
        a, b, c = a / fewer[0], b / fewer[0], c / fewer[0]
        d, e, f = d / fewer[1], e / fewer[1], f / fewer[1]

    # The window with what is sampled; an index beyond the edge is the edge.
    (left, top), (right, bottom) = _box((a, b, c, d, e, f), size)
    columns = np.arange(left - _MARGIN, right + _MARGIN)
    rows = np.arange(top - _MARGIN, bottom + _MARGIN)
    inside = np.asarray(image)[rows.clip(0, image.height - 1)][:, columns.clip(0, image.width - 1)]
    c, f = c - columns[0], f - rows[0]

    # More samples than pixels, no farther apart than the picture's own, then their mean.
    finer = max(1, math.ceil(math.hypot(a, d) - 1e-9)), max(1, math.ceil(math.hypot(b, e) - 1e-9))
    sampled = Image.fromarray(inside).transform(
        (size[1] * finer[0], size[0] * finer[1]),
        Image.Transform.AFFINE,
        (a / finer[0], b / finer[1], c, d / finer[0], e / finer[1], f),
        Image.Resampling.BICUBIC,
    )
    return np.asarray(sampled if finer == (1, 1) else sampled.reduce(finer))


def _box(matrix: Sequence[float], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the whole pixels (left, top), (right, bottom) around a frame (H, W), the latter not included."""
    a, b, c, d, e, f = matrix
    x = [c + a * across + b * down for across in (0, size[1]) for down in (0, size[0])]
    y = [f + d * across + e * down for across in (0, size[1]) for down in (0, size[0])]
    return (math.floor(min(x)), math.floor(min(y))), (math.ceil(max(x)), math.ceil(max(y)))


def _inverse(matrix: Sequence[float]) -> tuple[float, float, float, float, float, float]:
    a, b, c, d, e, f = matrix
    area = a * e - b * d
    return e / area, -b / area, (b * f - e * c) / area, -d / area, a / area, (d * c - a * f) / area
