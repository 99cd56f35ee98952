"""Golden requests and the pictures that eager PyTorch in float32 draws of them: `golden.npz` beside a published model.

The arrays, of R rows: the codes under the name of the model's own input (`z` [R, D], or `w` [R, D] or [R, L, D]), with
`direction` [R, M], `alpha` [R, M, L], `edits` [R] (how many of the M a row has: 0 for an unedited picture), `unedited`
[R] (the row that is the same code without edits), `class_id` [R] of conditional generators, `image` [R, H, W, 3], and
`about`, JSON as bytes, which says whose they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract.arrays import read_npz
from serving.contract.certificate import Comparison
from serving.contract.documents import read_json
from serving.contract.tensors import ALPHA, CLASS_ID, DIRECTION, IMAGE, code_tensor
from serving.errors import ServingError

GOLDEN_FILE = "golden.npz"
LARGEST_PICTURES = 32 << 20
"""Bytes of the pictures of one golden file, at most: ten of 1024 pixels."""
LARGEST_FILE = 128 << 20
"""Bytes of a file that is read, packed and unpacked."""
FORMAT = 1
Wanted = tuple[str, NDArray[Any], type, tuple[int, ...]]
_LARGEST_ABOUT, _MOST_ROWS = 10_000, 10_000


class GoldenError(ServingError):
    """There are no golden requests, they cannot be read, or they are another model's."""


@dataclass(frozen=True)
class Golden:
    """R golden requests with their pictures.

    Attributes:
        codes: [R, D], or [R, L, D] for `w+`, float32.
        direction: [R, M] int64; of row r only the first `edits[r]` count.
        alpha: [R, M, L] float32.
        edits: [R] int64, edits of each row; 0 where it is drawn unedited.
        unedited: [R] int64, the row with the same code and class without edits.
        class_id: [R] int64, None for generators without classes.
        images: [R, H, W, 3] uint8.
        about: `checkpoint_sha256`, `weights_sha256`, `latent_input` and what else tells models apart.
    """

    codes: NDArray[np.float32]
    direction: NDArray[np.int64]
    alpha: NDArray[np.float32]
    edits: NDArray[np.int64]
    unedited: NDArray[np.int64]
    class_id: NDArray[np.int64] | None
    images: NDArray[np.uint8]
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.images)

    def request(self, rows: slice | list[int]) -> tuple[NDArray[Any], ...]:
        """Return the arrays of rows with equally many edits, as `EditClient.edit_rows` takes them.

        An unedited row is direction 0 at strength zero, as clients send it: Triton takes no empty tensors over HTTP.
        """
        m = max(1, int(self.edits[rows].max()))
        direction, alpha = self.direction[rows, :m], self.alpha[rows, :m]
        return self.codes[rows], direction, alpha, *(() if self.class_id is None else (self.class_id[rows],))

    def without(self, rows: Sequence[int]) -> Golden:
        """Leave edited rows out."""
        keep = ~np.isin(np.arange(len(self)), rows)
        number = np.cumsum(keep) - 1  # of each row that is kept
        return Golden(
            codes=self.codes[keep],
            direction=self.direction[keep],
            alpha=self.alpha[keep],
            edits=self.edits[keep],
            unedited=number[self.unedited[keep]],
            class_id=None if self.class_id is None else self.class_id[keep],
            images=self.images[keep],
            about=self.about,
        )


def compare_golden(
    comparison: Comparison, golden: Golden, drawn: NDArray[np.uint8] | Mapping[int, NDArray[np.uint8]]
) -> None:
    """Compare the pictures that an engine drew of all golden rows, [H, W, 3] by row, with those of the file.

    Raises:
        CertificateError: Their shapes or types differ.
    """
    for row in range(len(golden)):
        edits, base = int(golden.edits[row]), int(golden.unedited[row])
        unedited = (golden.images[base : base + 1], drawn[base][None]) if edits else None
        directions = [golden.direction[row, :edits].tolist()]
        comparison.add(golden.images[row : row + 1], drawn[row][None], directions, unedited)


def identity_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a model's pictures from another's, out of its manifest as plain data.

    Args:
        manifest: As it is published.
    """
    generator, latent, directions = manifest["generator"], manifest["latent"], manifest["directions"]
    return {
        "format": FORMAT,
        "generator": generator["name"],
        "weights_sha256": generator["weights_sha256"],
        "resolution": generator["resolution"],
        "checkpoint_sha256": directions["checkpoint_sha256"],
        "latent_input": latent["input"],
    }


def write_golden(path: Path, golden: Golden) -> None:
    """Write a golden file; the same requests and pictures make the same bytes.

    Raises:
        OSError: It cannot be written.
    """
    classes = {} if golden.class_id is None else {CLASS_ID: golden.class_id}
    arrays: dict[str, NDArray[Any]] = {
        code_tensor(golden.about["latent_input"]): golden.codes,
        DIRECTION: golden.direction,
        ALPHA: golden.alpha,
        "edits": golden.edits,
        "unedited": golden.unedited,
        **classes,
        IMAGE: golden.images,
    }
    save_arrays(path, golden.about, arrays)


def save_arrays(path: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays, and whose they are, as a golden file.

    Raises:
        OSError: It cannot be written.
    """
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    with open(path, "wb") as file:
        np.savez_compressed(file, **{"about": text, **arrays})


def about_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what a golden file says of itself, with the `latent_input` that its codes are.

    Raises:
        KeyError: It says nothing.
        ValueError: It is no golden file; one line, a verb first.
    """
    note = arrays["about"]
    if note.dtype != np.uint8 or note.ndim != 1 or len(note) > _LARGEST_ABOUT:
        raise ValueError("is no golden file: `about` is not a text")
    said = read_json(note.tobytes())
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise ValueError(f"is no golden file of format {FORMAT}")
    if said["latent_input"] not in ("z", "w", "w+"):
        raise ValueError("is no golden file: it does not say what its codes are")
    return said


def read_golden(path: Path) -> Golden:
    """Read a golden file that anybody may have written.

    Raises:
        GoldenError: It cannot be read, or is none; one line.
    """
    try:
        arrays = read_npz(path, LARGEST_FILE)
        golden = _golden(arrays)
        _check(golden)
        return golden
    except ValueError as error:
        raise GoldenError(f"{path} {error}") from None


def _golden(arrays: Mapping[str, NDArray[Any]]) -> Golden:
    try:
        said = about_of(arrays)
        return Golden(
            codes=arrays[code_tensor(said["latent_input"])],
            direction=arrays[DIRECTION],
            alpha=arrays[ALPHA],
            edits=arrays["edits"],
            unedited=arrays["unedited"],
            class_id=arrays.get(CLASS_ID),
            images=arrays[IMAGE],
            about=said,
        )
    except KeyError as error:
        raise ValueError(f"is no golden file: it lacks {error}") from None


def check_rows(wanted: Sequence[Wanted], rows: int, otherwise: str) -> None:
    """Check the arrays of a golden file one by one.

    Args:
        wanted: Name, array, its type and how many axes it may have.
        rows: Length of each one's first axis.
        otherwise: What to say of the file, a verb first.

    Raises:
        ValueError: One is of another type or shape, or empty; `otherwise` and which.
    """
    for name, array, dtype, axes in wanted:
        if array.dtype != dtype or array.ndim not in axes or array.shape[:1] != (rows,) or array.size == 0:
            raise ValueError(f"{otherwise}: {name} is {array.dtype} {list(array.shape)}")


def _check(golden: Golden) -> None:
    """Refuse arrays that do not fit together: what is sent and compared is sliced by them."""
    wanted: list[Wanted] = [
        ("codes", golden.codes, np.float32, (2, 3)),
        (DIRECTION, golden.direction, np.int64, (2,)),
        (ALPHA, golden.alpha, np.float32, (3,)),
        ("edits", golden.edits, np.int64, (1,)),
        ("unedited", golden.unedited, np.int64, (1,)),
        (IMAGE, golden.images, np.uint8, (4,)),
        *([] if golden.class_id is None else [(CLASS_ID, golden.class_id, np.int64, (1,))]),
    ]
    check_rows(wanted, len(golden), "is no golden file")
    count, m = len(golden), golden.direction.shape[1]
    if count > _MOST_ROWS or golden.alpha.shape[1] != m or golden.images.shape[3] != 3:
        raise ValueError("is no golden file: its arrays do not fit together")
    if not ((golden.edits >= 0) & (golden.edits <= m)).all():
        raise ValueError(f"is no golden file: edits are not in [0, {m}]")
    if not ((golden.unedited >= 0) & (golden.unedited < count)).all() or golden.edits[golden.unedited].any():
        raise ValueError("is no golden file: a row has no unedited picture")
