"""How a person writes which latent inputs an edit acts on: `--layers 0,2,5-7`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from serving.errors import InvalidEdit

_PART = re.compile(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", re.ASCII)


def parse_layers(text: str) -> tuple[int, ...]:
    """Read layer numbers and ranges, both ends included: `4-5` or `0,2,5-7`.

    Returns:
        The numbers in rising order, each once.

    Raises:
        InvalidEdit: A part is neither.
    """
    layers: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InvalidEdit(f"--layers must be like 4-5 or 0,2,5-7, got {text[:80]!r}")
        layers |= set(range(first, last + 1))
    return tuple(sorted(layers))


def show_layers(layers: Iterable[int]) -> str:
    """Write layers as `parse_layers` takes them; `all` for none."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts) or "all"
