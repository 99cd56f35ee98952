"""The map between photo and frame: there and back, and what stays untouched."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from PIL import Image

from serving.contract.photo.crop import Crop, centre_crop, cut_out, paste
from serving.contract.photo.keep import keep_unedited
from serving.errors import PhotoError


def turned(scale, degrees, at=(0.0, 0.0), size=(32, 48)):
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return Crop((a, -b, float(at[0]), b, a, float(at[1])), size)


@pytest.fixture(scope="module")
def photo():
    """A smooth picture of 120 x 200: what a filter loses of it is little."""
    y, x = np.mgrid[:120, :200]
    waves = [np.sin(x / 17) + np.cos(y / 13), np.cos((x + y) / 23), np.sin((x - 2 * y) / 29)]
    return np.stack([127 + 60 * wave for wave in waves], axis=-1).astype(np.uint8)


def test_as_it_is(photo):
    crop = Crop((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (120, 200))
    assert np.array_equal(cut_out(photo, crop), photo)
    assert np.array_equal(cut_out(photo, Crop((1.0, 0.0, 30.0, 0.0, 1.0, 20.0), (50, 60))), photo[20:70, 30:90])
    assert np.array_equal(paste(photo, crop, photo), photo)


def test_what_shrinks_is_averaged(photo):
    crop = centre_crop((120, 200), (30, 30))
    assert crop == Crop((4.0, 0.0, 40.0, 0.0, 4.0, 0.0), (30, 30))
    mean = photo[:, 40:160].reshape(30, 4, 30, 4, 3).mean((1, 3))
    assert np.abs(cut_out(photo, crop) - mean).max() <= 1
    stripes = np.zeros((120, 200, 3), np.uint8)
    stripes[:, ::2] = 254
    for scale, degrees in ((2.7, 0), (3.5, 25), (1.5, 0)):
        grey = cut_out(stripes, turned(scale, degrees, (60, 10), (16, 16)))
        assert np.abs(grey.astype(int) - 127).max() < 50, "no moiré"


@pytest.mark.parametrize("crop", [turned(1.4, 20, (60, 5)), turned(0.6, -35, (80, 70)), turned(2.0, 180, (180, 110))])
def test_what_is_cut_out_is_what_the_map_says(photo, crop):
    y, x = np.mgrid[:32, :48] + 0.5
    there = crop.to_photo(np.stack([x, y], axis=-1))
    np.testing.assert_allclose(crop.to_frame(there), np.stack([x, y], axis=-1), rtol=0, atol=1e-9)
    inside = ((there > 4) & (there < [196, 116])).all(-1)
    u, v = there[..., 0] - 0.5, there[..., 1] - 0.5
    exact = 127 + 60 * np.stack([np.sin(u / 17) + np.cos(v / 13), np.cos((u + v) / 23), np.sin((u - 2 * v) / 29)], -1)
    assert inside.mean() > 0.5 and np.abs(cut_out(photo, crop) - exact.clip(0, 255))[inside].max() < 4


@pytest.mark.parametrize("crop", [turned(1.4, 20, (60, 5)), turned(0.6, -35, (80, 70)), turned(4.0, 10, (20, -30))])
def test_pasted_back_a_cut_is_where_it_was(photo, crop):
    back = paste(photo, crop, cut_out(photo, crop), feather=0.1)
    assert np.abs(back.astype(int) - photo).max() < 8
    black = paste(photo, crop, np.zeros((*crop.size, 3), np.uint8), feather=0.2)
    y, x = np.mgrid[:120, :200] + 0.5
    share = crop.to_frame(np.stack([x, y], axis=-1)) / [48, 32]
    outside = ((share < 0) | (share > 1)).any(-1)
    middle = ((share > 0.2) & (share < 0.8)).all(-1)
    assert np.array_equal(black[outside], photo[outside]) and (black[middle] == 0).all()
    assert not np.array_equal(black, photo) and black is not photo
    hard = paste(photo, crop, np.zeros((*crop.size, 3), np.uint8), feather=0)
    assert (hard[~outside] == 0).all() and np.array_equal(hard[outside], photo[outside])


def test_beyond_the_edge_the_last_pixels_go_on(photo):
    cut = cut_out(photo, Crop((1.0, 0.0, -10.0, 0.0, 1.0, -5.0), (20, 20)))
    assert np.array_equal(cut[5:, 10:], photo[:15, :10]) and (cut[:5, :10] == photo[0, 0]).all()
    for far in (Crop((1.0, 0.0, 900.0, 0.0, 1.0, 0.0), (8, 8)), Crop((999.0, 0.0, 0.0, 0.0, 999.0, 0.0), (64, 64))):
        with pytest.raises(PhotoError, match="the crop must lie on the photo of 200 x 120 pixels"):
            cut_out(photo, far)
    assert np.array_equal(paste(photo, Crop((1.0, 0.0, 900.0, 0.0, 1.0, 0.0), (8, 8)), cut[:8, :8]), photo)


@pytest.mark.parametrize("shape", [(10, 200_000), (200_000, 10)])
def test_a_crop_far_wider_than_a_narrow_photo_is_refused(shape):
    """It fits eight of the photo's long sides, but a thousand of its short ones, each of which would be drawn."""
    with pytest.raises(PhotoError, match="the crop must lie on the photo"):
        cut_out(np.zeros((*shape, 3), np.uint8), turned(200.0, 0, size=(512, 512)))


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 2)])
def test_odd_photos(size):
    photo = np.full((*size, 3), 77, np.uint8)
    crop = centre_crop(size, (64, 48))
    assert (cut_out(photo, crop) == 77).all() and (paste(photo, crop, cut_out(photo, crop)) == 77).all()


def test_a_large_photo_takes_no_longer_than_it_must():
    photo, start = np.asarray(Image.new("RGB", (6000, 4000), "teal")), time.process_time()
    assert (cut_out(photo, turned(12.0, 30, (2000, 300), (256, 256))) == [0, 128, 128]).all()
    assert time.process_time() - start < 5


def test_as_data_and_back():
    crop = turned(1.7, 33, (4.25, -9.5))
    assert Crop.parse(json.loads(json.dumps(crop.as_dict()))) == crop


GOOD = {"matrix": [1, 0, 0, 0, 1, 0], "size": [8, 8]}


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {"matrix": [1, 0, 0, 0, 1, 0]},
        {**GOOD, "more": 1},
        *({**GOOD, "size": size} for size in (None, [8], [8, 8, 8], [0, 8], [8, 5000], [8.0, 8], [True, 8], "88")),
        *(
            {**GOOD, "matrix": matrix}
            for matrix in (
                None, "123456", [1, 0, 0, 0, 1], [1, 0, 0, 0, 1, "0"], [1, 0, float("nan"), 0, 1, 0],
                [1, 0, float("inf"), 0, 1, 0], [1, 0, 2e6, 0, 1, 0], [1, 0, 10**400, 0, 1, 0], [0, 0, 0, 0, 0, 0],
                [1e-9, 0, 0, 0, 1e-9, 0], [-1, 0, 0, 0, 1, 0], [1, 0.5, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0],
            )
        ),
    ],
)  # fmt: skip
def test_crops_of_anybody_are_checked(raw):
    assert Crop.parse(GOOD).size == (8, 8)
    with pytest.raises(PhotoError, match="a crop") as caught:
        Crop.parse(raw)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_picture_of_another_size(photo):
    crop = turned(1.0, 0)
    with pytest.raises(PhotoError, match=r"must be uint8 \[32, 48, 3\] as its crop, got uint8 \[48, 32, 3\]"):
        paste(photo, crop, np.zeros((48, 32, 3), np.uint8))
    with pytest.raises(PhotoError, match=r"feather must be in \[0, 0.5\], got nan"):
        paste(photo, crop, np.zeros((32, 48, 3), np.uint8), float("nan"))


def test_what_was_not_edited_is_kept():
    rng = np.random.default_rng(0)
    original = rng.integers(60, 190, (64, 64, 3), dtype=np.uint8)
    drawn = np.full((64, 64, 3), 100, np.uint8)
    edited = drawn.copy()
    edited[:32] += rng.integers(0, 3, (32, 64, 3), dtype=np.uint8)  # noise of a generator
    edited[40:60, 10:50] += 40
    kept = keep_unedited(original, drawn, edited)
    assert np.array_equal(kept[:32], original[:32]) and np.array_equal(kept[:, 52:], original[:, 52:])
    assert np.array_equal(kept[42:58, 12:48], original[42:58, 12:48] + 40)
    assert np.array_equal(keep_unedited(original, drawn, drawn), original)
    pair = keep_unedited(np.stack([original] * 2), np.stack([drawn] * 2), np.stack([edited, drawn]))
    assert np.array_equal(pair[0], kept) and np.array_equal(pair[1], original)
    dark = keep_unedited(np.zeros_like(original), drawn, np.zeros_like(drawn))
    assert (dark == 0).all(), "clipped, not wrapped around"


def test_keeping_needs_pictures_of_one_shape():
    a, b = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)
    with pytest.raises(PhotoError, match="must have one shape"):
        keep_unedited(a, b, a)
    with pytest.raises(PhotoError, match="must be a range"):
        keep_unedited(a, a, a, 12, 3)
