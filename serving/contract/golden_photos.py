"""Golden photos: what eager PyTorch in float32 finds in pictures, and draws of it; `golden.npz` beside an encoder.

The arrays, of R rows: `picture` [R, H, W, 3], the codes under the name of the encoder's output (`z` [R, D], or `w`
[R, D] or [R, L, D]), `scale` [D], the prior's standard deviation of each number of a code, `class_id` [R] of
conditional generators, `image` [R, H, W, 3], what the editor draws of the codes, and `about`, JSON as bytes, which says
whose they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract.arrays import read_npz
from serving.contract.golden import LARGEST_FILE, GoldenError, Wanted, about_of, check_rows, identity_of, save_arrays
from serving.contract.tensors import CLASS_ID, IMAGE, PICTURE, code_tensor

CODES_APART = 1e-3
"""Largest difference of a number of a code, in standard deviations of the prior. Sums of thousands of float32 terms in
another order differ by far less, and so much moves no pixel by a step."""
SCALE = "scale"


@dataclass(frozen=True)
class GoldenPhotos:
    """R pictures with their codes.

    Attributes:
        pictures: [R, H, W, 3] uint8 RGB.
        codes: [R, D], or [R, L, D] for `w+`, float32.
        scale: Of the prior, [D] float32.
        class_id: [R] int64, None for generators without classes.
        images: [R, H, W, 3] uint8, drawn of the codes.
        about: What tells models apart, see `photos_identity_of`.
    """

    pictures: NDArray[np.uint8]
    codes: NDArray[np.float32]
    scale: NDArray[np.float32]
    class_id: NDArray[np.int64] | None
    images: NDArray[np.uint8]
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.pictures)

    def apart(self, row: int, codes: NDArray[np.float32]) -> float:
        """Return how far a found code [1, ...] is from that of a row: its largest number, in standard deviations."""
        return float((np.abs(codes - self.codes[row : row + 1]) / self.scale).max())


def photos_identity_of(manifest: Mapping[str, Any], encoder_sha256: str) -> dict[str, Any]:
    """Return what tells a model's codes and pictures from another's.

    Args:
        manifest: The editor's as plain data.
        encoder_sha256: Of the file that its encoder was exported from.
    """
    return {**identity_of(manifest), "encoder_sha256": encoder_sha256}


def write_golden_photos(path: Path, golden: GoldenPhotos) -> None:
    """Write golden photos; the same ones make the same bytes.

    Raises:
        OSError: They cannot be written.
    """
    classes = {} if golden.class_id is None else {CLASS_ID: golden.class_id}
    arrays: dict[str, NDArray[Any]] = {
        PICTURE: golden.pictures,
        code_tensor(golden.about["latent_input"]): golden.codes,
        SCALE: golden.scale,
        **classes,
        IMAGE: golden.images,
    }
    save_arrays(path, golden.about, arrays)


def read_golden_photos(path: Path) -> GoldenPhotos:
    """Read golden photos that anybody may have written.

    Raises:
        GoldenError: They cannot be read, or are none; one line.
    """
    try:
        arrays: dict[str, NDArray[Any]] = read_npz(path, LARGEST_FILE)
        about = about_of(arrays)
        golden = GoldenPhotos(
            pictures=arrays[PICTURE],
            codes=arrays[code_tensor(about["latent_input"])],
            scale=arrays[SCALE],
            class_id=arrays.get(CLASS_ID),
            images=arrays[IMAGE],
            about=about,
        )
        _check(golden)
        return golden
    except KeyError as error:
        raise GoldenError(f"{path} holds no golden photos: it lacks {error}") from None
    except ValueError as error:
        raise GoldenError(f"{path} {error}") from None


def _check(golden: GoldenPhotos) -> None:
    """Refuse arrays that do not fit together."""
    wanted: list[Wanted] = [
        (PICTURE, golden.pictures, np.uint8, (4,)),
        ("codes", golden.codes, np.float32, (2, 3)),
        (IMAGE, golden.images, np.uint8, (4,)),
        *([] if golden.class_id is None else [(CLASS_ID, golden.class_id, np.int64, (1,))]),
    ]
    check_rows(wanted, len(golden), "holds no golden photos")
    if (
        golden.scale.dtype != np.float32
        or golden.scale.shape != golden.codes.shape[-1:]
        or not (golden.scale > 0).all()
    ):
        raise ValueError(f"holds no golden photos: {SCALE} is {golden.scale.dtype} {list(golden.scale.shape)}")
    if golden.pictures.shape != golden.images.shape or golden.pictures.shape[3] != 3:
        raise ValueError("holds no golden photos: its arrays do not fit together")
