"""The scorer `onnx:PATH`: any classifier, or CLIP with texts, as an ONNX file and a JSON of the same name beside it.

`latentclr.scores.onnx_spec` says what stands in the JSON. Of CLIP the score is 100 cos(picture, text), in the scale of
CLIP's own logits (arXiv 2103.00020), or, of a text and its opposite, 100 (cos(picture, text) - cos(picture, opposite)):
the log-odds of the first of the two (antonym prompts, arXiv 2207.12396). A picture is trusted where all its scores are
finite.

A network is a program of mathematics: it can be slow and large, but it reads no file that is not in its own folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentclr.errors import ScorerError, first_reason, nearest
from latentclr.scores.external_data import check_external_files
from latentclr.scores.onnx_spec import InputSpec, OnnxSpec, read_spec
from latentclr.scores.runtime import onnx_session
from latentclr.scores.scorer import MOST_AT_ONCE, Scored, check_images
from serving.contract.arrays import read_npy

LARGEST_MODEL = (1 << 31) - 1
"""Bytes of an `.onnx` file, as protobuf allows; what is larger keeps its numbers in files beside it."""
_LARGEST_TEXTS = 1 << 26
_LUMA = np.array([0.299, 0.587, 0.114])
_SMALLEST = 1e-6  # a probability
_LOGIT_SCALE = 100.0
_INPUTS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxScorer:
    """The scorer `onnx:PATH`; the module says what is measured."""

    def __init__(self, path: str) -> None:
        """Read the files and try the network on a black picture.

        Args:
            path: Of the `.onnx` file.

        Raises:
            ScorerError: A file is missing or damaged, they do not fit together, or ONNX Runtime is not installed.
        """
        self.name = f"onnx:{path}"
        file = Path(path)
        self._spec = _read_spec(self.name, file)
        self.attributes: tuple[str, ...] = self._spec.attributes
        self._texts = None if self._spec.text is None else _read_texts(self.name, self._spec)
        model = _read_model(self.name, file)
        try:
            apart = check_external_files(model, file.parent)
        except ValueError as error:
            raise ScorerError(f"{self.name} {error}") from None
        # By its path only where it must be, for ONNX Runtime 1.20 finds the other files in no other way.
        self._session = onnx_session(str(file) if apart else model, self.name)
        self._input, self._dtype, self._at_once = _check_input(self.name, self._session, self._spec.input)
        known = [output.name for output in self._session.get_outputs()]
        for name in self._spec.outputs:
            if name not in known:
                raise ScorerError(
                    f"{self.name} has no output {name!r}{nearest(name, known)} (known: {', '.join(known)})"
                )
        self(np.zeros((1, 8, 8, 3), dtype=np.uint8))

    def __call__(self, images: NDArray[np.uint8]) -> Scored:
        """Score RGB pictures [N, H, W, 3]; those whose scores are finite are trusted.

        Raises:
            ScorerError: They are no uint8 [N, H, W, 3], or the network fails or its output is not what the JSON says.
        """
        images = check_images(images)
        values = np.empty((len(images), len(self.attributes)))
        for start in range(0, len(images), self._at_once):
            part = images[start : start + self._at_once]
            values[start : start + len(part)] = self._run(np.stack([_seen(self._spec.input, image) for image in part]))
        return Scored(values, np.isfinite(values).all(1))

    def _run(self, seen: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):  # of float16, and of means that only a mistake can be: inf, not trusted
            given: NDArray[Any] = seen.astype(self._dtype)
        try:
            found = self._session.run(list(self._spec.outputs), {self._input: given})
        except Exception as error:  # whatever a network that does not fit its own description runs into
            raise ScorerError(f"{self.name} failed: {first_reason(error)}") from None
        columns = []
        for (name, names), output in zip(self._spec.outputs.items(), found, strict=True):
            wanted = len(names) if self._texts is None else self._texts.shape[-1]
            numbers = self._checked(name, output, len(seen), wanted)
            if self._texts is not None:
                columns.append(_compared(numbers, self._texts))
            else:
                kept = [index for index, label in enumerate(names) if label is not None]
                columns.append(self._activated(numbers, name, kept))
        return np.concatenate(columns, axis=1)

    def _checked(self, name: str, output: Any, rows: int, wanted: int) -> NDArray[np.float64]:
        """Return an output as [N, wanted]; sides of one pixel may follow."""
        if not isinstance(output, np.ndarray):
            raise ScorerError(f"{self.name}: output {name!r} must be an array, got {type(output).__name__}")
        fits = output.shape[:1] == (rows,) and output.size == rows * wanted
        if output.dtype.kind not in "fiu" or not fits:
            got = f"{output.dtype} {list(output.shape)}"
            raise ScorerError(f"{self.name}: output {name!r} must be numbers [{rows}, {wanted}], got {got}")
        return output.reshape(rows, wanted).astype(np.float64)

    def _activated(self, numbers: NDArray[np.float64], name: str, kept: list[int]) -> NDArray[np.float64]:
        if self._spec.activation == "softmax":
            return _log_odds_of_logits(numbers, kept)
        numbers = numbers[:, kept]
        if self._spec.activation == "probabilities":
            finite = numbers[np.isfinite(numbers)]
            if finite.size and not (-1e-3 <= finite.min() and finite.max() <= 1 + 1e-3):
                wrong = finite[np.argmax(np.abs(finite - 0.5))]
                raise ScorerError(f"{self.name}: output {name!r} must be probabilities in [0, 1], got {wrong:.4g}")
            p = numbers.clip(_SMALLEST, 1 - _SMALLEST)
            return np.asarray(np.log(p / (1 - p)))
        return numbers


def _read_spec(name: str, file: Path) -> OnnxSpec:
    if not file.is_file():
        raise ScorerError(f"{name}: there is no file {file}")
    beside = file.with_suffix(".json")
    if not beside.is_file():
        raise ScorerError(
            f"{name} needs {beside} beside it, which says what it sees and what its outputs are called, such as"
            ' {"input": {"size": 224}, "outputs": {"logits": ["smiling"]}}'
        )
    try:
        return read_spec(beside)
    except OSError as error:
        raise ScorerError(f"{name}: {beside} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ScorerError(f"{name}: {beside} {error}") from None


def _read_model(name: str, file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            model = opened.read(LARGEST_MODEL + 1)
    except (OSError, MemoryError) as error:
        raise ScorerError(f"{name} cannot be read: {getattr(error, 'strerror', None) or 'it is too large'}") from None
    if len(model) > LARGEST_MODEL:
        raise ScorerError(f"{name} must be at most {LARGEST_MODEL} bytes")
    return model


def _read_texts(name: str, spec: OnnxSpec) -> NDArray[np.float64]:
    """Return unit vectors [A, D], or [A, 2, D] of texts and opposites."""
    assert spec.text is not None
    count = len(spec.attributes)
    try:
        texts = read_npy(spec.text, _LARGEST_TEXTS).astype(np.float64)
    except ValueError as error:
        raise ScorerError(f"{name}: {spec.text} {error}") from None
    if texts.ndim not in (2, 3) or texts.shape[0] != count or texts.shape[1:-1] not in ((), (2,)) or not texts.size:
        raise ScorerError(
            f"{name}: {spec.text} must be [{count}, D] or [{count}, 2, D] for {count} labels, got {list(texts.shape)}"
        )
    length = np.linalg.norm(texts, axis=-1, keepdims=True)
    if not np.isfinite(length).all() or (length < 1e-9).any():
        raise ScorerError(f"{name}: {spec.text} must hold finite embeddings, none of them zero")
    return np.asarray(texts / length)


def _check_input(name: str, session: Any, spec: InputSpec) -> tuple[str, type, int]:
    """Return the input's name and type, and how many pictures go in at once."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ScorerError(
            f"{name} must have one input, the pictures, got {', '.join(i.name for i in inputs) or 'none'}"
        )
    (entry,) = inputs
    height, width = spec.size
    wanted = [spec.depth, height, width] if spec.layout == "NCHW" else [height, width, spec.depth]
    shape = list(entry.shape)
    free = len(shape) == 4 and not isinstance(shape[0], int)
    fits = len(shape) == 4 and (free or shape[0] == 1)
    if not fits or any(isinstance(got, int) and got != side for got, side in zip(shape[1:], wanted, strict=True)):
        raise ScorerError(f"{name} takes {shape}, and its JSON describes [N or 1, {', '.join(map(str, wanted))}]")
    if entry.type not in _INPUTS:
        raise ScorerError(f"{name} must take float or float16, got {entry.type}")
    return entry.name, _INPUTS[entry.type], MOST_AT_ONCE if free else 1


def _seen(spec: InputSpec, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what the network sees of a picture [H, W, 3]: [C, h, w] or [h, w, C]."""
    height, width = spec.size
    picture = Image.fromarray(image)
    box = None
    if spec.fit == "crop":  # the largest part in the middle with the proportions of what is seen
        wide, high = (
            min(picture.width, picture.height * width / height),
            min(picture.height, picture.width * height / width),
        )
        left, top = (picture.width - wide) / 2, (picture.height - high) / 2
        box = (left, top, left + wide, top + high)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC, box)  # which averages, where it makes smaller
    rgb = np.asarray(resized, dtype=np.float64) / 255
    channels = {"RGB": rgb, "BGR": rgb[..., ::-1], "gray": (rgb @ _LUMA)[..., None]}[spec.channels]
    seen = (channels - np.array(spec.mean)) / np.array(spec.scale)
    return np.asarray(seen.transpose(2, 0, 1) if spec.layout == "NCHW" else seen)


def _compared(embeddings: NDArray[np.float64], texts: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):  # an embedding of zeros has no direction: nan, not trusted
        pictures = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    if texts.ndim == 2:
        return np.asarray(_LOGIT_SCALE * pictures @ texts.T)
    return np.asarray(_LOGIT_SCALE * pictures @ (texts[:, 0] - texts[:, 1]).T)


def _log_odds_of_logits(logits: NDArray[np.float64], kept: list[int]) -> NDArray[np.float64]:
    """Return log(p / (1 - p)) of the kept classes of softmax p, from the others' logits: no p is rounded to 0 or 1."""
    odds = np.empty((len(logits), len(kept)))
    with np.errstate(invalid="ignore"):  # inf - inf: nan, not trusted
        for column, index in enumerate(kept):
            others = np.delete(logits, index, axis=1)
            largest = others.max(1, keepdims=True)
            odds[:, column] = logits[:, index] - largest[:, 0] - np.log(np.exp(others - largest).sum(1))
    return odds
