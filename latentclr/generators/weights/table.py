"""A table of names and shapes that a file of weights must fit, whatever the network."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from latentclr.errors import GeneratorError

LISTED = 6  # keys that a report names before it counts the rest


def check_table(
    what: str,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    optional: Collection[str],
    *,
    integers: bool = False,
) -> None:
    """Check every key, shape and number.

    Args:
        what: The weights, as the report calls them.
        tensors: The weights by name.
        shapes: What is expected by name; an axis of length 0 is never right.
        optional: Names that may be missing.
        integers: Take tensors of integers too.

    Raises:
        GeneratorError: A report of all that is missing, unexpected, of a wrong shape or not finite.
    """
    report = {
        "missing": [key for key in shapes if key not in tensors and key not in optional],
        "unexpected": sorted(set(tensors) - set(shapes)),
        "wrong shape": [
            f"{key}: expected {list(shape)}, got {list(tensors[key].shape)}"
            for key, shape in shapes.items()
            if key in tensors and (tuple(tensors[key].shape) != shape or 0 in shape)
        ],
        "not finite numbers": [key for key in shapes if key in tensors and not _finite(tensors[key], integers)],
    }
    if any(report.values()):
        found = "; ".join(f"{fault}: {listed(keys)}" for fault, keys in report.items() if keys)
        raise GeneratorError(f"{what} do not fit: {found}")


def count_indices(keys: Iterable[str], pattern: str, limit: int) -> int:
    """Return the largest index that `pattern` finds in the keys, -1 for none; at most `limit`, as it bounds loops."""
    found = [int(m[1]) for key in keys if (m := re.match(pattern, key)) and len(m[1]) < 6]
    return min(max(found, default=-1), limit)


def listed(keys: list[str]) -> str:
    """Return the first keys and how many more there are."""
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(key[:100] for key in keys[:LISTED]) + more


def _finite(tensor: Tensor, integers: bool) -> bool:
    plain = tensor.layout == torch.strided and (integers or tensor.is_floating_point())
    return plain and bool(torch.isfinite(tensor.float() if integers else tensor).all())
