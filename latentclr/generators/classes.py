"""Classes of generators whose files number them and do not name them."""

from __future__ import annotations

import reprlib
from typing import Any

from latentclr.errors import GeneratorError


def numbered_classes(count: int) -> tuple[str, ...]:
    """Return names for classes that have none: `class 0`, `class 1`, ..."""
    return tuple(f"class {i}" for i in range(count))


def chosen_classes(chosen: Any, count: int) -> tuple[int, ...]:
    """Return the classes that training draws from.

    Args:
        chosen: What generator.classes says: None for all, a class id, or a list of them.
        count: How many classes the generator has; 0 for an unconditional one.

    Raises:
        GeneratorError: There is no such class, or there are no classes at all.
    """
    if chosen is None:
        return tuple(range(count))
    if not count:
        raise GeneratorError(f"generator.classes: the generator has no classes, got {reprlib.repr(chosen)}")
    ids = chosen if isinstance(chosen, list | tuple) else [chosen]
    if not ids or not all(type(i) is int and 0 <= i < count for i in ids):
        raise GeneratorError(f"generator.classes must be ids in [0, {count}), got {reprlib.repr(chosen)}")
    return tuple(ids)
