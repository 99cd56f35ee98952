"""The recipe of pictures: everything that makes them again, bit for bit, as JSON that a PNG file carries.

What counts are the resolved rows (direction, alpha at each latent input), since a named edit may mean something else
tomorrow. The edits as they were asked for stand beside them for people to read.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract.documents import read_json
from serving.contract.latents import SEEDS
from serving.contract.manifest import Manifest
from serving.contract.photo_record import PhotoRecord, parse_record
from serving.contract.tensors import ALPHA, CLASS_ID, DIRECTION
from serving.errors import ImageError, InvalidEdit, PhotoError

KEYWORD = "latentclr"
"""The keyword of the PNG text that holds a recipe."""
FORMAT = 1
MOST_PIXELS = 89_478_485
"""Of a picture that is read; more is what PIL calls a decompression bomb, and no picture of a recipe can have more."""
_LARGEST, _MOST_VALUES = 4_000_000, 200_000  # bytes and values of the text
_MOST_ROWS, _MOST_EDITS, _MOST_FILES, _LARGEST_SCALE = 1024, 64, 100, 8
_LONGEST_LABEL, _LONGEST_TITLE, _LONGEST_NAME = 40, 400, 500


@dataclass(frozen=True)
class Recipe:
    """How N pictures were made.

    Attributes:
        model: Name of the served model.
        files_sha256: Its files' hashes, by file name.
        weights_sha256: Hash of the generator's weights.
        latent_input: What the model takes: `z`, `w` or `w+`.
        seed: The seed, or None if codes were brought.
        codes: The codes that were brought, [1, ...] or [N, ...]; None for a seed, and always when read from a file.
        codes_sha256: Their hash when read from a file.
        edits: The edits as asked for.
        layers: The layers that the edits were restricted to, None for all.
        direction: Direction indices [N, M].
        alpha: Strengths [N, M, L].
        class_id: Class numbers [N], None without classes.
        labels: The texts under the pictures of a strip; empty for one picture.
        title: The text above a strip.
        scale: How many times each side of a picture was enlarged (see `images.enlarge`), after it was pasted.
        photo: The photo that the codes are of; None if they are of none.
    """

    model: str
    files_sha256: Mapping[str, str]
    weights_sha256: str
    latent_input: str
    seed: int | None
    codes: NDArray[np.float32] | None
    codes_sha256: str
    edits: Mapping[str, Any]
    layers: Sequence[int] | None
    direction: NDArray[np.int64]
    alpha: NDArray[np.float32]
    class_id: NDArray[np.int64] | None
    labels: Sequence[str] = ()
    title: str = ""
    scale: int = 1
    photo: PhotoRecord | None = None

    @staticmethod
    def of(
        manifest: Manifest,
        arrays: Mapping[str, NDArray[Any]],
        seed: int | None,
        codes: NDArray[np.float32] | None,
        edits: Mapping[int | str, Any] | None,
        layers: Sequence[int] | None,
    ) -> Recipe:
        """Describe a checked request."""
        class_id = arrays.get(CLASS_ID)
        return Recipe(
            model=manifest.name,
            files_sha256=manifest.files_sha256,
            weights_sha256=manifest.generator.weights_sha256,
            latent_input=manifest.latent.input,
            seed=seed,
            codes=None if codes is None else codes.copy(),  # the caller may go on writing into theirs
            codes_sha256="",
            edits={str(key): strength for key, strength in (edits or {}).items()},
            layers=layers,
            direction=arrays[DIRECTION].copy(),
            alpha=arrays[ALPHA].copy(),
            class_id=None if class_id is None else class_id.reshape(-1).copy(),
        )

    def __len__(self) -> int:
        """Return the number of pictures N."""
        return len(self.direction)

    def made_by(self, model: str) -> Recipe:
        """Return the recipe with the name under which the model is served."""
        return replace(self, model=model)

    def row(self, index: int) -> Recipe:
        """Return the recipe of one of the pictures."""
        rows = slice(index, index + 1)
        codes = self.codes if self.codes is None or len(self.codes) == 1 else self.codes[rows]
        class_id = None if self.class_id is None else self.class_id[rows]
        picture = replace(self, codes=codes, direction=self.direction[rows], alpha=self.alpha[rows], class_id=class_id)
        return replace(picture, labels=(), title="", edits=self.edits if len(self) == 1 else {})

    def enlarged(self, scale: int) -> Recipe:
        """Return the recipe of the same pictures, each side enlarged."""
        return replace(self, scale=scale)

    def as_strip(self, labels: Sequence[str], title: str) -> Recipe:
        """Return the recipe of the strip of all pictures."""
        return replace(self, labels=tuple(labels), title=title)

    def to_json(self) -> str:
        """Write it as ASCII JSON on one line."""
        codes = self.codes_sha256 if self.codes is None else codes_sha256(self.codes)
        record = {
            "format": FORMAT,
            "model": {
                "name": self.model,
                "files_sha256": dict(self.files_sha256),
                "weights_sha256": self.weights_sha256,
                "latent_input": self.latent_input,
            },
            "seed": self.seed,
            "codes_sha256": codes or None,
            "edits": self.edits,
            "layers": self.layers,
            "class_id": None if self.class_id is None else self.class_id.tolist(),
            "direction": self.direction.tolist(),
            "alpha": self.alpha.tolist(),
            "labels": list(self.labels),
            "title": self.title,
            **({} if self.scale == 1 else {"scale": self.scale}),
            **({} if self.photo is None else {"photo": self.photo.as_dict()}),
        }
        return json.dumps(record, default=_plain)

    def check_size(self, size: tuple[int, int]) -> None:
        """Do nothing if the pictures together are no larger than a picture file that can be read.

        Args:
            size: (H, W) of a picture in pixels, before it is enlarged: the model's, or the photo's if pasted back.

        Raises:
            InvalidEdit: They are larger, so no picture that was ever written is of this recipe.
        """
        height, width = (side * self.scale for side in size)
        if len(self) * height * width > MOST_PIXELS:
            raise InvalidEdit(
                f"the recipe is of {len(self)} pictures of {width} x {height} pixels, the most are {MOST_PIXELS} pixels"
            )

    def check_model(self, manifest: Manifest) -> None:
        """Do nothing if this model makes the same pictures.

        Raises:
            InvalidEdit: Its files or its generator's weights are others.
        """
        served = (dict(manifest.files_sha256), manifest.generator.weights_sha256)
        if (dict(self.files_sha256), self.weights_sha256) != served:
            raise InvalidEdit(
                f"the picture was made by model {self.model!r} ({_short(self.files_sha256, self.weights_sha256)}), "
                f"but {manifest.name!r} is served as {_short(*served)}; --force makes it with this one"
            )


def parse_recipe(text: str) -> Recipe:
    """Read a recipe, which may come from anybody.

    Raises:
        ImageError: It is not JSON, too large, of another format, or a part is missing or out of range.
    """
    try:
        raw = read_json(text, _LARGEST, _MOST_VALUES)
    except ValueError as error:
        raise ImageError(f"the picture's recipe {error}") from error
    try:
        if raw["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {reprlib.repr(raw['format'])}")
        return _build(raw)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, PhotoError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ImageError(f"the picture's recipe cannot be read: {' '.join(reason.split())[:200]}") from error


def printable_title(text: str) -> str:
    """Make of a text the title of a strip: one line of at most 400 characters that can be printed."""
    words = "".join(character if character.isprintable() else " " for character in text).split()
    return " ".join(words)[:_LONGEST_TITLE]


def codes_sha256(codes: NDArray[np.float32]) -> str:
    """Hash codes as little-endian float32 in C order."""
    return hashlib.sha256(np.ascontiguousarray(codes, dtype="<f4").tobytes()).hexdigest()


def _build(raw: Mapping[str, Any]) -> Recipe:
    model, seed, hashed = raw["model"], raw["seed"], raw["codes_sha256"]
    direction = _numbers(raw["direction"], "direction", "i").astype(np.int64)  # [N, M]
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the check of the request refuses
        alpha = _numbers(raw["alpha"], "alpha", "if").astype(np.float32)  # [N, M, L]
    rows = len(direction)
    if direction.ndim != 2 or alpha.ndim != 3 or alpha.shape[:2] != direction.shape:
        raise ValueError(f"direction {list(direction.shape)} and alpha {list(alpha.shape)} do not fit")
    if not 1 <= rows <= _MOST_ROWS:
        raise ValueError(f"there must be 1 to {_MOST_ROWS} pictures, got {rows}")
    if not 1 <= direction.shape[1] <= _MOST_EDITS:
        raise ValueError(f"there must be 1 to {_MOST_EDITS} edits of a picture, got {direction.shape[1]}")
    class_id = None if raw["class_id"] is None else _numbers(raw["class_id"], "class_id", "i").astype(np.int64)
    if class_id is not None and class_id.shape != (rows,):
        raise ValueError(f"class_id must hold {rows} numbers")
    if (seed is None) == (hashed is None) or not (seed is None or (type(seed) is int and 0 <= seed < SEEDS)):
        raise ValueError("there must be a seed or the hash of codes")
    labels, title = [_text(label, "a label", _LONGEST_LABEL) for label in _list(raw["labels"], "labels")], raw["title"]
    if len(labels) not in (0, rows) or (not labels and rows > 1):
        raise ValueError(f"there must be {rows} labels, got {len(labels)}")
    scale = raw.get("scale", 1)
    if type(scale) is not int or not 1 <= scale <= _LARGEST_SCALE:
        raise ValueError(f"scale must be in [1, {_LARGEST_SCALE}], got {reprlib.repr(scale)}")
    photo = parse_record(raw.get("photo"))
    if photo is not None and (seed is not None or (photo.pasted and rows > 1)):
        raise ValueError("a photo has a code and no seed, and takes one picture back")
    edits, files, layers = raw["edits"], model["files_sha256"], raw["layers"]
    if not isinstance(edits, dict) or not isinstance(files, dict) or len(files) > _MOST_FILES:
        raise ValueError(f"edits and files_sha256 must be tables, the latter of at most {_MOST_FILES} files")
    return Recipe(
        model=_text(model["name"], "model.name"),
        files_sha256={_text(name, "a file"): _text(value, "a hash") for name, value in files.items()},
        weights_sha256=_text(model["weights_sha256"], "weights_sha256"),
        latent_input=_text(model["latent_input"], "latent_input"),
        seed=seed,
        codes=None,
        codes_sha256=_text(hashed or "", "codes_sha256"),
        edits=edits,
        layers=None if layers is None else _list(layers, "layers"),
        direction=direction,
        alpha=alpha,
        class_id=class_id,
        labels=tuple(labels),
        title=_text(title, "title", _LONGEST_TITLE),
        scale=scale,
        photo=photo,
    )


def _numbers(value: Any, key: str, kinds: str) -> NDArray[Any]:
    array = np.asarray(_list(value, key))
    if array.dtype.kind not in kinds:  # numpy would take texts and cut fractions off
        raise ValueError(f"{key} must hold numbers, got {array.dtype}")
    return array


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list")
    return value


def _text(value: Any, key: str, longest: int = _LONGEST_NAME) -> str:
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise ValueError(f"{key} must be a printable text of at most {longest} characters")
    return value


def _plain(value: Any) -> Any:
    """What numpy numbers and arrays are in JSON."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _short(files: Mapping[str, str], weights: str) -> str:
    """Show the beginnings of the hashes."""
    parts = [f"{name} {value[:12]}" for name, value in sorted(files.items())] or [f"weights {weights[:12]}"]
    return ", ".join(parts)
