"""The recipe of pictures: everything that makes them again, bit for bit, as JSON that a PNG file carries.

What counts are the resolved rows (direction, alpha at each latent input), since a named edit may mean something else
tomorrow. The edits as they were asked for stand beside them for people to read.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract.latents import SEEDS
from serving.contract.manifest import Manifest
from serving.errors import ImageError, InvalidEdit

KEYWORD = "latentclr"
"""The keyword of the PNG text that holds a recipe."""
FORMAT = 1
_MOST_ROWS, _LONGEST_LABEL, _LONGEST_TITLE, _LARGEST_SCALE = 1024, 40, 400, 8


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
        scale: How many times each side of a picture was enlarged (see `images.enlarge`).
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

    @staticmethod
    def of(
        manifest: Manifest,
        arrays: Mapping[str, NDArray[Any]],
        seed: int | None,
        codes: NDArray[np.float32] | None,
        edits: Mapping[int | str, Any] | None,
        layers: Sequence[int] | None,
    ) -> "Recipe":
        """Describe a checked request."""
        class_id = arrays.get("class_id")
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
            direction=arrays["direction"].copy(),
            alpha=arrays["alpha"].copy(),
            class_id=None if class_id is None else class_id.reshape(-1).copy(),
        )

    def __len__(self) -> int:
        """Return the number of pictures N."""
        return len(self.direction)

    def made_by(self, model: str) -> "Recipe":
        """Return the recipe with the name under which the model is served."""
        return replace(self, model=model)

    def row(self, index: int) -> "Recipe":
        """Return the recipe of one of the pictures."""
        rows = slice(index, index + 1)
        codes = self.codes if self.codes is None or len(self.codes) == 1 else self.codes[rows]
        class_id = None if self.class_id is None else self.class_id[rows]
        picture = replace(self, codes=codes, direction=self.direction[rows], alpha=self.alpha[rows], class_id=class_id)
        return replace(picture, labels=(), title="", edits=self.edits if len(self) == 1 else {})

    def of_seed(self, seed: int, edits: Mapping[str, Any]) -> "Recipe":
        """Return the recipe of rows whose only code is a seed's draw, with the edits as they were asked for."""
        return replace(self, seed=seed, codes=None, codes_sha256="", edits=edits)

    def enlarged(self, scale: int) -> "Recipe":
        """Return the recipe of the same pictures, each side enlarged."""
        return replace(self, scale=scale)

    def as_strip(self, labels: Sequence[str], title: str) -> "Recipe":
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
        }
        return json.dumps(record, default=_plain)

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
        ImageError: It is not JSON, of another format, or a part is missing or out of range.
    """
    try:
        raw = json.loads(text)
        if raw["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {raw['format']!r}")
        return _build(raw)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ImageError(f"the picture's recipe cannot be read: {' '.join(reason.split())[:200]}") from error


def codes_sha256(codes: NDArray[np.float32]) -> str:
    """Hash codes as little-endian float32 in C order."""
    return hashlib.sha256(np.ascontiguousarray(codes, dtype="<f4").tobytes()).hexdigest()


def _build(raw: Mapping[str, Any]) -> Recipe:
    model, seed, hashed = raw["model"], raw["seed"], raw["codes_sha256"]
    direction = np.asarray(raw["direction"], np.int64)  # [N, M]
    alpha = np.asarray(raw["alpha"], np.float32)  # [N, M, L]
    rows = len(direction)
    if direction.ndim != 2 or alpha.ndim != 3 or alpha.shape[:2] != direction.shape or not 1 <= rows <= _MOST_ROWS:
        raise ValueError(f"direction {list(direction.shape)} and alpha {list(alpha.shape)} do not fit")
    class_id = None if raw["class_id"] is None else np.asarray(raw["class_id"], np.int64)
    if class_id is not None and class_id.shape != (rows,):
        raise ValueError(f"class_id must hold {rows} numbers")
    if (seed is None) == (hashed is None) or not (seed is None or 0 <= int(seed) < SEEDS):
        raise ValueError("there must be a seed or the hash of codes")
    labels, title = [str(label) for label in raw["labels"]], str(raw["title"])
    if len(labels) not in (0, rows) or (not labels and rows > 1):
        raise ValueError(f"there must be {rows} labels, got {len(labels)}")
    scale = raw.get("scale", 1)
    if type(scale) is not int or not 1 <= scale <= _LARGEST_SCALE:
        raise ValueError(f"scale must be in [1, {_LARGEST_SCALE}], got {scale!r}")
    if len(title) > _LONGEST_TITLE or any(len(label) > _LONGEST_LABEL for label in labels):
        raise ValueError("a text is too long")
    return Recipe(
        model=str(model["name"]),
        files_sha256={str(name): str(value) for name, value in model["files_sha256"].items()},
        weights_sha256=str(model["weights_sha256"]),
        latent_input=str(model["latent_input"]),
        seed=None if seed is None else int(seed),
        codes=None,
        codes_sha256=str(hashed or ""),
        edits=dict(raw["edits"]),
        layers=raw["layers"],
        direction=direction,
        alpha=alpha,
        class_id=class_id,
        labels=tuple(labels),
        title=title,
        scale=scale,
    )


def _plain(value: Any) -> Any:
    """What numpy numbers and arrays are in JSON."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _short(files: Mapping[str, str], weights: str) -> str:
    """Show the beginnings of the hashes."""
    parts = [f"{name} {value[:12]}" for name, value in sorted(files.items())] or [f"weights {weights[:12]}"]
    return ", ".join(parts)
