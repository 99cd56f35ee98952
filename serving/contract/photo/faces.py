"""Faces in a photo (signatures first; the finder follows)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.contract.photo.crop import Crop, centre_crop
from serving.contract.photo.reader import Photo


@dataclass(frozen=True)
class Face:
    """A face in a photo: 468 points [468, 3] in photo pixels, and the network's log-odds that it is one."""

    points: NDArray[np.float64]
    score: float


def choose_crop(
    photo: Photo, frame: tuple[int, int], template: NDArray[np.float64] | None = None, face: int | None = None
) -> tuple[Crop, str]:
    """Return the crop for a generator's frame (H, W), and how it was found: `face` or `centre`."""
    return centre_crop(photo.size, frame), "centre"
