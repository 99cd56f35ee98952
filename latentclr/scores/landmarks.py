"""What 468 landmarks of a face say, and where its parts lie: numbers, and maps that cut it out.

Points are (x, y, z) in pixels: x to the right of the picture, y down, z away from the camera, in the scale of x. Their
numbers are those of MediaPipe's face mesh (arXiv 1907.06724). `left` and `right` are sides of the picture, not the
person's. P are the points, d(a, b) is the distance of two of them in space. What lies across the face is divided by
w = d(33, 263), between the eyes' outer corners, and what lies along it by h = d(168, 2), from the nose's root to
its base: the depth is an estimate, so that a turned or raised head shortens both a little, but each alike.

| attribute | formula | unit | more of it is |
|---|---|---|---|
| yaw | atan2(z, x) of P454 - P234, from the face's left edge to its right | degrees | facing the picture's right |
| pitch | atan2(-z, y) of P2 - P10, from the forehead to the nose's base | degrees | looking up (zero is arbitrary) |
| roll | atan2(y, x) of P263 - P33, from the left eye to the right | degrees | tilted clockwise, as seen |
| mouth_open | d(13, 14) / h: between the lips | | opened |
| mouth_width | d(61, 291) / w: between the corners of the mouth | | wider |
| eyes_open | mean of d(159, 145) and d(386, 374), / h: between the lids | | opened |
| brow_height | mean of d(105, 159) and d(334, 386), / h: from the upper lids to the brows | | raised |
| face_size | root of the points' mean square distance to their centre, / side of the picture | | larger |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.contract.photo.mesh import COUNT, Maps, Points, around_face, mapped_back, maps_of, turns_of

__all__ = [
    "COUNT",
    "MEASURES",
    "Maps",
    "Points",
    "around_face",
    "dlib_chip",
    "expression_chip",
    "mapped_back",
    "measure",
]

MEASURES = ("yaw", "pitch", "roll", "mouth_open", "mouth_width", "eyes_open", "brow_height", "face_size")
"""The columns of `measure`."""

# dlib's get_face_chip_details (image_transforms/interpolation.h) for five points: outer and inner corner of the right
# eye, the same of the left eye, base of the nose; and the points of the mesh that they are.
_DLIB_POINTS = np.array(
    [
        [0.8595674595992, 0.2134981538014], [0.6460604764104, 0.2289674387677], [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242], [0.4901123135679, 0.6277975316475],
    ]
)  # fmt: skip
_DLIB_IN_MESH, _DLIB_PADDING = (263, 362, 33, 133, 2), 0.2
_EXPRESSION_SIDE, _EXPRESSION_DOWN = 2.7, 0.5  # of the eyes' distance: a face as FER-2013 frames it


def measure(points: Points, side: float) -> NDArray[np.float64]:
    """Measure faces in pictures of `side` pixels by the module's table; return [N, 8], the columns of `MEASURES`."""

    def distance(a: int, b: int) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(points[:, a] - points[:, b], axis=1))

    across, down, eyes = points[:, 454] - points[:, 234], points[:, 2] - points[:, 10], points[:, 263] - points[:, 33]
    width, height = distance(33, 263), distance(168, 2)
    spread = points - points.mean(1, keepdims=True)
    measured = (
        np.degrees(np.arctan2(across[:, 2], across[:, 0])),
        np.degrees(np.arctan2(-down[:, 2], down[:, 1])),
        np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0])),
        distance(13, 14) / height,
        distance(61, 291) / width,
        (distance(159, 145) + distance(386, 374)) / (2 * height),
        (distance(105, 159) + distance(334, 386)) / (2 * height),
        np.sqrt((spread**2).sum(2).mean(1)) / side,
    )
    return np.stack(measured, axis=1)


def expression_chip(points: Points, size: int) -> Maps:
    """Return the maps that cut out each face upright, from the brows to the chin, as FER-2013's pictures are."""
    right, left = _middle(points, 362, 263), _middle(points, 33, 133)
    turn, apart = turns_of(points), np.linalg.norm(right - left, axis=1)
    down = np.einsum("nij,nj->ni", turn, np.stack([np.zeros_like(apart), _EXPRESSION_DOWN * apart], axis=1))
    return maps_of(turn, ((left + right) / 2)[:, :2] + down, _EXPRESSION_SIDE * apart, size)


def dlib_chip(points: Points, size: int) -> Maps:
    """Return the maps that cut out each face as dlib's get_face_chip does, the least squares of five points."""
    there = (_DLIB_POINTS + _DLIB_PADDING) / (1 + 2 * _DLIB_PADDING) * size
    # As complex numbers a similarity is a product and a sum: mesh = scale * chip + shift.
    chip = there[:, 0] + 1j * there[:, 1]
    mesh = points[:, _DLIB_IN_MESH, 0] + 1j * points[:, _DLIB_IN_MESH, 1]  # [N, 5]
    centred = chip - chip.mean()
    scale = (mesh * centred.conj()).sum(1) / (np.abs(centred) ** 2).sum()
    shift = mesh.mean(1) - scale * chip.mean()
    rows = ((scale.real, -scale.imag, shift.real), (scale.imag, scale.real, shift.imag))
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def _middle(points: Points, a: int, b: int) -> Points:
    return (points[:, a] + points[:, b]) / 2
