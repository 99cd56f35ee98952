"""Each formula of `pixels` against a second computation, a pixel at a time, and what a person would say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latentclr.errors import ScorerError
from latentclr.scores.pixels import PixelScorer

SCORE = PixelScorer()


def slowly(picture):
    """The table of the module, a pixel at a time."""
    height, width, _ = picture.shape
    rgb = [[tuple(int(v) / 255 for v in picture[i, j]) for j in range(width)] for i in range(height)]
    luma = [[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in rgb]
    everywhere = [(i, j) for i in range(height) for j in range(width)]

    def mean(values):
        values = list(values)
        return sum(values) / len(values) if values else 0.0

    def at(i, j):
        return luma[min(max(i, 0), height - 1)][min(max(j, 0), width - 1)]

    brightness = mean(luma[i][j] for i, j in everywhere)
    side, top = max(1, width // 8), max(1, height // 8)
    border = [(i, j) for i, j in everywhere if i < top or j < side or j >= width - side]
    colour = [mean(rgb[i][j][c] for i, j in border) for c in range(3)]
    weight = {(i, j): mean(abs(rgb[i][j][c] - colour[c]) for c in range(3)) for i, j in everywhere}
    weight = {place: w if w > 1e-9 else 0 for place, w in weight.items()}
    total = sum(weight.values()) or math.inf
    x = {(i, j): (2 * j + 1) / width - 1 for i, j in everywhere}
    y = {(i, j): 1 - (2 * i + 1) / height for i, j in everywhere}
    right = sum(weight[p] * x[p] for p in everywhere) / total
    up = sum(weight[p] * y[p] for p in everywhere) / total
    return {
        "brightness": brightness,
        "contrast": math.sqrt(mean((luma[i][j] - brightness) ** 2 for i, j in everywhere)),
        "saturation": mean(max(rgb[i][j]) - min(rgb[i][j]) for i, j in everywhere),
        "warmth": mean(rgb[i][j][0] - rgb[i][j][2] for i, j in everywhere),
        "greenness": mean(rgb[i][j][1] - (rgb[i][j][0] + rgb[i][j][2]) / 2 for i, j in everywhere),
        "light_right": mean(luma[i][j] for i, j in everywhere if j >= width - width // 2)
        - mean(luma[i][j] for i, j in everywhere if j < width // 2),
        "light_top": mean(luma[i][j] for i, j in everywhere if i < height // 2)
        - mean(luma[i][j] for i, j in everywhere if i >= height - height // 2),
        "background": mean(luma[i][j] for i, j in border),
        "sharpness": mean(
            abs(4 * at(i, j) - at(i - 1, j) - at(i + 1, j) - at(i, j - 1) - at(i, j + 1)) for i, j in everywhere
        ),
        "subject_right": right,
        "subject_top": up,
        "subject_size": math.sqrt(
            sum(weight[p] * ((x[p] - right) ** 2 + (y[p] - up) ** 2) for p in everywhere) / total
        ),
    }


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3), (7, 18), (16, 9), (17, 17), (1, 40)])
def test_each_formula(size):
    images = np.random.default_rng(sum(size)).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    scored = SCORE(images)
    assert scored.trusted.all() and scored.share == 1.0 and scored.values.dtype == np.float64
    for row, image in zip(scored.values, images, strict=True):
        expected = slowly(image)
        assert tuple(expected) == SCORE.attributes
        np.testing.assert_allclose(row, list(expected.values()), rtol=0, atol=1e-12)


def measured(picture):
    return dict(zip(SCORE.attributes, SCORE(picture[None]).values[0], strict=True))


def test_signs_are_what_the_names_say():
    picture = np.zeros((32, 48, 3), dtype=np.uint8)
    picture[4:12, 30:40] = (250, 120, 20)  # orange, at the upper right
    found = measured(picture)
    assert found["warmth"] > 0 and found["saturation"] > 0 and found["background"] == 0
    assert found["light_right"] > 0 and found["light_top"] > 0
    # Its middle: column 35 of 48 and row 8 of 32.
    assert found["subject_right"] == pytest.approx(2 * 35 / 48 - 1) and found["subject_top"] == pytest.approx(0.5)
    mirrored = measured(picture[::-1, ::-1])
    for name in ("light_right", "light_top", "subject_right", "subject_top"):
        assert mirrored[name] == pytest.approx(-found[name])
    larger = picture.copy()
    larger[2:14, 26:44] = (250, 120, 20)
    assert measured(larger)["subject_size"] > found["subject_size"]
    assert measured(picture[..., ::-1])["warmth"] == pytest.approx(-found["warmth"])
    assert measured(np.full_like(picture, (0, 200, 0)))["greenness"] > 0.5


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (37, 91, 203)])
def test_one_colour(colour):
    found = measured(np.full((20, 30, 3), colour, dtype=np.uint8))
    assert found["brightness"] == pytest.approx(found["background"])
    for name in ("contrast", "light_right", "light_top", "sharpness", "subject_right", "subject_top", "subject_size"):
        assert found[name] == pytest.approx(0, abs=1e-12)


def test_a_picture_is_scored_alike_in_any_company():
    images = np.random.default_rng(0).integers(0, 256, (40, 40, 60, 3), dtype=np.uint8)  # two chunks
    together = SCORE(images).values
    np.testing.assert_allclose(together[[0, 17, 39]], SCORE(images[[0, 17, 39]]).values, rtol=0, atol=1e-12)


def test_large_pictures_are_measured_smaller():
    """Each 3 x 3 pixels as their mean (of bytes: rounded), and no other than the smaller picture is."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (2, 260, 120, 3), dtype=np.uint8)
    large = small.repeat(3, axis=1).repeat(3, axis=2)
    np.testing.assert_allclose(SCORE(large).values, SCORE(small).values, rtol=0, atol=1e-12)
    noisy = rng.integers(0, 256, (1, 780, 361, 3), dtype=np.uint8)  # one column is left over: a narrower mean
    (found,), (expected,) = SCORE(noisy).values, SCORE(reduced(noisy)).values
    np.testing.assert_allclose(found[:8], expected[:8], rtol=0, atol=0.01)


def reduced(images):
    kept = images[:, :780, :360].reshape(-1, 260, 3, 120, 3, 3).astype(float).mean((2, 4))
    return np.round(kept).astype(np.uint8)


def test_no_pictures():
    scored = SCORE(np.zeros((0, 8, 8, 3), dtype=np.uint8))
    assert scored.values.shape == (0, len(SCORE.attributes)) and math.isnan(scored.share)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (np.zeros((2, 8, 8, 3)), r"float64 \[2, 8, 8, 3\]"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"uint8 \[2, 3, 8, 8\]"),
        (np.zeros((8, 8, 3), np.uint8), r"uint8 \[8, 8, 3\]"),
        (np.zeros((2, 0, 8, 3), np.uint8), r"uint8 \[2, 0, 8, 3\]"),
    ],
)
def test_what_is_no_picture(images, got):
    with pytest.raises(ScorerError, match=rf"^pictures must be uint8 \[N, H, W, 3\], got {got}$"):
        SCORE(images)
