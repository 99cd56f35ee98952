"""The 468 points of a face that MediaPipe's face mesh (arXiv 1907.06724) finds, and maps that cut a face out upright.

Points are (x, y, z) in pixels: x to the right of the picture, y down, z away from the camera, in the scale of x. `left`
and `right` are sides of the picture, not the person's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""[N, 468, 3]."""
Maps = NDArray[np.float64]
"""[N, 2, 3]: from a pixel (x, y, 1) of what is cut out to the pixel (x, y) of what it is cut from."""

Network = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], ...]]
"""Inputs [N, ...] to each output [N, size]."""

COUNT = 468
SIDE = 192
"""Pixels of the square that the network sees."""
ROI_SCALE = 1.5
"""Of MediaPipe's face_landmarks_to_roi: the square around a face that its network was trained on."""


def find_points(network: Network, squares: NDArray[np.uint8]) -> tuple[Points, NDArray[np.float64]]:
    """Return the landmarks in squares [N, 192, 192, 3], in their pixels, and whether each shows a face.

    Args:
        network: The landmark network.
        squares: RGB pictures.

    Returns:
        Points [N, 468, 3], and the network's log-odds [N, 1] that there is a face.
    """
    points, presence = network(np.divide(squares, np.float32(255), dtype=np.float32))
    return points.reshape(-1, COUNT, 3).astype(np.float64), presence.astype(np.float64)


def around_face(points: Points, size: int) -> Maps:
    """Return the maps that cut out the upright square around each face, as MediaPipe follows one from frame to frame.

    Args:
        points: Of the faces.
        size: Side of the square that is cut out, in pixels.
    """
    turn = turns_of(points)  # [N, 2, 2]
    upright = points[:, :, :2] @ turn  # each row times the inverse turn's transpose
    low, high = upright.min(1), upright.max(1)
    centre = np.einsum("nij,nj->ni", turn, (low + high) / 2)
    return maps_of(turn, centre, (high - low).max(1) * ROI_SCALE, size)


def mapped_back(points: Points, maps: Maps) -> Points:
    """Move points of what was cut out to where they are in what it was cut from."""
    flat = np.einsum("nij,npj->npi", maps[:, :, :2], points[:, :, :2]) + maps[:, None, :, 2]
    scale = np.sqrt(np.abs(np.linalg.det(maps[:, :, :2])))
    return np.concatenate([flat, points[:, :, 2:] * scale[:, None, None]], axis=2)


def turns_of(points: Points) -> NDArray[np.float64]:
    """Return the rotations [N, 2, 2] from an upright face to the one in the picture."""
    eyes = points[:, 263, :2] - points[:, 33, :2]
    length = np.linalg.norm(eyes, axis=1)
    x, y = eyes[:, 0] / length, eyes[:, 1] / length
    return np.stack([np.stack([x, -y], axis=1), np.stack([y, x], axis=1)], axis=1)


def maps_of(turn: NDArray[np.float64], centre: Points, side: NDArray[np.float64], size: int) -> Maps:
    """Return the maps of squares of `size` pixels that are cut out, from rotations, centres and sides."""
    linear = turn * (side / size)[:, None, None]
    shift = centre - linear @ np.full(2, size / 2)
    return np.concatenate([linear, shift[:, :, None]], axis=2)
