"""Small pictures of one edit each, remembered while the model stays the same."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract.manifest import Manifest

Key = tuple[object, ...]
"""What a picture depends on, beside the model."""
MOST_BYTES = 32 * 1024 * 1024


class Thumbnails:
    """The pictures [H, W, 3] drawn last, within `MOST_BYTES`; threads may share them."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._model: Manifest | None = None
        self._pictures: dict[Key, NDArray[np.uint8]] = {}  # the one that was wanted last comes last
        self._bytes = 0

    def known(self, model: Manifest, keys: Iterable[Key]) -> dict[Key, NDArray[np.uint8]]:
        """Return those of the pictures that are remembered of this model."""
        with self._lock:
            if self._model is not model and self._model != model:
                return {}
            found = {key: self._pictures.pop(key) for key in dict.fromkeys(keys) if key in self._pictures}
            self._pictures |= found
            return found

    def keep(self, model: Manifest, drawn: Mapping[Key, NDArray[np.uint8]]) -> None:
        """Remember pictures of a model; those of another are forgotten, and the oldest beyond the bound."""
        with self._lock:
            if self._model is not model and self._model != model:
                self._pictures, self._bytes = {}, 0
            self._model = model
            for key, picture in drawn.items():
                self._bytes += picture.nbytes - (self._pictures.pop(key).nbytes if key in self._pictures else 0)
                self._pictures[key] = picture
            while self._bytes > MOST_BYTES:
                self._bytes -= self._pictures.pop(next(iter(self._pictures))).nbytes


def shrink(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Make pictures [N, H, W, 3] smaller, the longer side S, unless they are as small already."""
    height, width = images.shape[1:3]
    if max(height, width) <= side:
        return images
    size = (max(1, round(side * width / max(height, width))), max(1, round(side * height / max(height, width))))
    small = [Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3) for image in images]
    return np.stack([np.asarray(picture) for picture in small])
