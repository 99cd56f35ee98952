"""Directions that somebody else found: K vectors [K, D] from an `.npy`, `.npz` or `.safetensors` file, with names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentclr.errors import ConfigError
from latentclr.plain_load import load_safetensors, safetensors_metadata
from serving.contract.arrays import read_npy, read_npz
from serving.contract.documents import read_json
from serving.contract.named_edit import check_name

LARGEST = 1 << 28  # bytes: 10,000 directions of 6,700 float32 values
_NUMPYS_OWN = re.compile(r"arr_\d+")  # keys of numpy.savez for arrays that got none


def read_vectors(path: Path, dim: int) -> tuple[Tensor, list[str | None], list[str]]:
    """Read directions.

    An `.npy` holds one array. In the other two each array is one direction, [D] or [1, D], called as its key is, or
    several, [K, D], without names; the metadata of a safetensors file may name all directions, as a JSON list under
    `names`. Directions stand in the order of the file; of safetensors, which has none, in that of the keys.

    Args:
        path: The file.
        dim: D.

    Returns:
        Vectors [K, D] float32, finite and not zero; for each its name, None without one; and a line for each name in
        the file that cannot be one here.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    names: list[str] | None = None
    try:
        if path.suffix == ".npy":
            arrays: Mapping[str, Tensor] = {"": _tensor(read_npy(path, LARGEST))}
        elif path.suffix == ".npz":
            arrays = {key: _tensor(array) for key, array in read_npz(path, LARGEST).items()}
        elif path.suffix == ".safetensors":
            if path.is_file() and path.stat().st_size > LARGEST:
                raise ValueError(f"must be at most {LARGEST} bytes")
            arrays = dict(sorted(load_safetensors(path).items()))
            listed = safetensors_metadata(path).get("names")
            names = None if listed is None else _names(listed)
        else:
            raise ValueError("must end in .npy, .npz or .safetensors")
    except ValueError as error:
        raise ConfigError(f"cannot read vectors={path}: {error}") from None
    rows, found = [], []
    for key, array in arrays.items():
        where = f"vectors={path}" + (f", {key[:80]}" if key else "")
        wanted = f"[K, {dim}] or [{dim}]" if array.ndim == 1 else f"[K, {dim}]"
        block = array[None] if array.ndim == 1 else array
        if block.ndim != 2 or block.shape[1] != dim or len(block) == 0:
            raise ConfigError(f"{where}: expected {wanted}, as the generator's codes have {dim} values, got"
                              f" {list(array.shape)}")  # fmt: skip
        block = block.float()
        if not torch.isfinite(block).all():
            raise ConfigError(f"{where} holds numbers that are not finite")
        if (zero := (block == 0).all(dim=1)).any():
            raise ConfigError(f"{where}: direction {int(zero.nonzero()[0])} is zero")
        rows.append(block)
        found += [key if len(block) == 1 else None] * len(block)
    if not rows:
        raise ConfigError(f"vectors={path} holds no arrays")
    vectors = torch.cat(rows)
    if names is not None:
        if len(names) != len(vectors):
            raise ConfigError(
                f"vectors={path}: its metadata names {len(names)} directions, and it holds {len(vectors)}"
            )
        found = list(names)
    return vectors, *_usable(found)


def _tensor(array: NDArray[np.generic]) -> Tensor:
    if array.dtype.kind not in "iuf":
        raise ValueError(f"must hold whole or floating-point numbers, got {array.dtype}")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused
        return torch.from_numpy(array.astype(np.float32))


def _names(text: str) -> list[str]:
    names = read_json(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its metadata has `names` that are no list of texts")
    return names


def _usable(found: Sequence[str | None]) -> tuple[list[str | None], list[str]]:
    """Return names as a catalog has them, each once, and why the others are none."""
    names: list[str | None] = []
    problems = []
    for i, name in enumerate(found):
        usable = None
        if name and not _NUMPYS_OWN.fullmatch(name):
            try:
                usable = check_name(name)
                if usable in names:
                    raise ValueError(f"{usable} comes twice")
            except ValueError as error:
                problems.append(f"direction {i} stays without a name: {error}")
                usable = None
        names.append(usable)
    return names, problems
