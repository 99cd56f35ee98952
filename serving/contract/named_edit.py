"""A direction that somebody gave a name to, and which names there can be."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Any

from serving.contract.printable import printable

NAME_LENGTH = 40
DEFAULT_ALPHA = (-6.0, 6.0)
"""How far a slider reaches where nobody said: twice what directions are usually trained with."""
NO_NAMES = ("none", "null", "true", "false", "nan", "inf", "all")
"""What Python, YAML or Hydra's grammar (`edits=...`) read as something else than a name, in any case."""


@dataclass(frozen=True)
class NamedEdit:
    """A direction that somebody gave a name to.

    Attributes:
        direction: Its index in [0, K).
        layers: Latent inputs at which it acts, in rising order; empty where the name says nothing of layers.
        alpha: (low, high), how far a slider should reach.
        note: What the name does not say, in one printable line; what it is made with becomes one.
        reverse: Whether a strength of this name goes against the direction, so that `+` is more of what it names.
    """

    direction: int
    layers: tuple[int, ...] = ()
    alpha: tuple[float, float] = DEFAULT_ALPHA
    note: str = ""
    reverse: bool = False

    def __post_init__(self) -> None:
        """Make a line of the note, which comes from files and servers and is printed as it is."""
        object.__setattr__(self, "note", printable(self.note))

    @property
    def alpha_range(self) -> tuple[float, float]:
        """`alpha`, as a manifest calls it."""
        return self.alpha

    @property
    def sign(self) -> int:
        """What a strength of this name is multiplied by to be one of the direction: 1, or -1 if it is reversed."""
        return -1 if self.reverse else 1


def check_name(name: str) -> str:
    """Check a name: letters of any script, digits, blank, `-` and `_`, beginning with a letter.

    So a name is never taken for a direction's number and needs no quoting in a shell option or an address.

    Args:
        name: The name.

    Returns:
        The name in Unicode's composed form.

    Raises:
        ValueError: It is not such a name; the message says why.
    """
    name = unicodedata.normalize("NFC", name)
    kinds = [unicodedata.category(character)[0] for character in name]
    good = all(kind in "LMN" or character in " -_" for kind, character in zip(kinds, name, strict=True))
    if not name or len(name) > NAME_LENGTH or not good or kinds[0] != "L" or name != name.strip():
        shown = name if len(name) <= 2 * NAME_LENGTH else f"{name[:NAME_LENGTH]}..."
        raise ValueError(
            f"a name must be 1 to {NAME_LENGTH} letters, digits, blanks, - or _, and begin with a letter, got {shown!r}"
        )
    if name.casefold() in NO_NAMES:
        raise ValueError(f"{name} cannot be a name, as it means something else in edits=...: choose another one")
    return name


def parse_entry(name: Any, entry: Any) -> tuple[str, NamedEdit]:
    """Read one entry of a catalog.

    Args:
        name: Its key, as YAML read it.
        entry: Its value.

    Returns:
        The name in composed form, and what it means.

    Raises:
        ValueError: It is not a name, or not an edit; the message begins with the name.
    """
    if isinstance(name, bool) or name is None:
        raise ValueError(f"YAML reads a name as {name}: write it in quotes")
    name = check_name(name if isinstance(name, str) else str(name)[: NAME_LENGTH + 1])
    try:
        layers = entry.get("layers") or []
        alpha = entry.get("alpha", NamedEdit.alpha)
        reverse = entry.get("reverse", False)
        if not isinstance(layers, list | tuple) or not isinstance(alpha, list | tuple):
            raise ValueError
        if any(type(number) is not int or number < 0 for number in (entry["direction"], *layers)):
            raise ValueError
        if any(type(end) not in (int, float) for end in alpha):  # of "19", float would make 1 and 9
            raise ValueError
        low, high = map(float, alpha)
        if not -math.inf < low < high < math.inf or type(reverse) is not bool:
            raise ValueError
        note = str(entry.get("note") or "")
        return name, NamedEdit(entry["direction"], tuple(sorted(set(layers))), (low, high), note, reverse)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):  # what was written is not repeated here
        raise ValueError(
            f"{name} must be like {{direction: 28, layers: [4, 5], alpha: [-7, 7], note: text}} with low < high,"
            " and may have reverse: true"
        ) from None


def entry_of(edit: NamedEdit) -> dict[str, Any]:
    """Write an edit as an entry of a catalog."""
    alpha = [int(end) if end == int(end) else end for end in edit.alpha]
    reverse = {"reverse": True} if edit.reverse else {}
    return {"direction": edit.direction, "layers": list(edit.layers), "alpha": alpha, "note": edit.note, **reverse}
