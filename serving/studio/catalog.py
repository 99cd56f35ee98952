"""Named edits in a YAML file.

    smile: {direction: 28, layers: [4, 5], alpha: [-7, 7], note: "closed mouth"}

The file is read again whenever it is asked for, so an edit made in a text editor shows at once. It is written under
a temporary name and renamed, and a file that cannot be understood is never overwritten.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from serving.manifest import Manifest, NamedEdit
from serving.studio.failures import CatalogError, UnknownName

NAME_LENGTH, NOTE_LENGTH = 40, 200
_LARGEST_FILE, _MOST_ENTRIES = 1_000_000, 2000


def check_name(name: str) -> str:
    """Check a new name: letters of any script, digits, blank, `-` and `_`, beginning with a letter.

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
        raise ValueError(
            f"a name must be 1 to {NAME_LENGTH} letters, digits, blanks, - or _, and begin with a letter, got {name!r}"
        )
    return name


class Catalog:
    """The catalog file; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Remember the file, which need not exist yet.

        Args:
            path: The YAML file; a link is followed.
        """
        self.path = path.resolve()
        self._lock = threading.Lock()

    def read(self) -> dict[str, NamedEdit]:
        """Read all entries; none if there is no file.

        Raises:
            CatalogError: The file cannot be read or an entry is not understood.
        """
        return {name: self._parse(name, entry) for name, entry in self._load(self._text()).items()}

    def for_model(self, manifest: Manifest) -> tuple[dict[str, NamedEdit], list[str]]:
        """Choose the entries that this model can carry out.

        Args:
            manifest: The served editor.

        Returns:
            The entries by name, and a line for each that was left out.

        Raises:
            CatalogError: As `read`.
        """
        good: dict[str, NamedEdit] = {}
        problems = []
        count, layers = manifest.directions.count, manifest.latent.layers
        for name, edit in self.read().items():
            if not 0 <= edit.direction < count:
                problems.append(f"{name}: direction must be in [0, {count}), got {edit.direction}")
            elif any(not 0 <= layer < layers for layer in edit.layers):
                problems.append(f"{name}: layers must be in [0, {layers}), got {list(edit.layers)}")
            else:
                good[name] = edit
        return good, problems

    def save(self, name: str, edit: NamedEdit) -> None:
        """Add or replace an entry.

        Args:
            name: Its name, see `check_name`.
            edit: What it means.

        Raises:
            CatalogError: The file is not understood or cannot be written.
        """
        entry = {
            "direction": edit.direction,
            "layers": list(edit.layers),
            "alpha": [_tidy(end) for end in edit.alpha_range],
            "note": edit.note,
        }
        with self._lock:
            text = self._text()
            entries = self._load(text)
            wanted = {**entries, name: entry}
            if len(wanted) > _MOST_ENTRIES:
                raise CatalogError(f"the catalog {self.path.name} is full: it has {len(entries)} edits")
            # A new entry is appended, which keeps the comments of a file written by hand.
            longer = text + ("" if not text or text.endswith("\n") else "\n") + _line(name, entry)
            self._write(longer if name not in entries and self._means(longer, wanted) else _dump(wanted))

    def delete(self, name: str) -> None:
        """Remove an entry.

        Raises:
            UnknownName: There is none of that name.
            CatalogError: The file is not understood or cannot be written.
        """
        with self._lock:
            entries = self._load(self._text())
            if name not in entries:
                raise UnknownName(f"the catalog {self.path.name} has no edit {name!r}")
            del entries[name]
            self._write(_dump(entries))

    def _text(self) -> str:
        try:
            with self.path.open("rb") as file:
                data = file.read(_LARGEST_FILE + 1)
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise CatalogError(f"cannot read the catalog {self.path.name}: {error.strerror}") from error
        if len(data) > _LARGEST_FILE:
            raise CatalogError(f"the catalog {self.path.name} must be at most {_LARGEST_FILE} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise CatalogError(f"the catalog {self.path.name} is not UTF-8 text") from error

    def _load(self, text: str) -> dict[str, Any]:
        try:
            entries = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 1}" if mark is not None else ""
            reason = getattr(error, "problem", None) or "it cannot be parsed"
            raise CatalogError(f"the catalog {self.path.name} is not YAML{place}: {reason}") from error
        if entries is None:
            return {}
        if not isinstance(entries, dict) or not all(isinstance(name, str) and name for name in entries):
            raise CatalogError(f"the catalog {self.path.name} must be a mapping from names to edits")
        return entries

    def _parse(self, name: str, entry: Any) -> NamedEdit:
        try:
            if not isinstance(entry, dict) or type(entry.get("direction")) is not int:
                raise TypeError
            layers = entry.get("layers") or []
            low, high = (float(end) for end in entry.get("alpha", (-6.0, 6.0)))
            if any(type(layer) is not int for layer in layers) or not (math.isfinite(low) and low < high < math.inf):
                raise TypeError
            return NamedEdit(entry["direction"], tuple(layers), (low, high), str(entry.get("note") or ""))
        except (TypeError, ValueError, OverflowError):
            raise CatalogError(
                f"the catalog {self.path.name}: {name} must be like "
                "{direction: 28, layers: [4, 5], alpha: [-7, 7]} with low < high, "
                f"got {str(entry)[:80]}"
            ) from None

    def _means(self, text: str, entries: Mapping[str, Any]) -> bool:
        try:
            return self._load(text) == entries
        except CatalogError:
            return False

    def _write(self, text: str) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            with open(temporary, "x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise CatalogError(f"cannot write the catalog {self.path.name}: {error.strerror}") from error


def _tidy(number: float) -> float | int:
    """Write 7 rather than 7.0."""
    return int(number) if number == int(number) else number


def _line(name: str, entry: Mapping[str, Any]) -> str:
    """Write one entry on one line."""
    text = yaml.safe_dump({name: dict(entry)}, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1e9)
    return str(text).strip()[1:-1] + "\n"


def _dump(entries: Mapping[str, Any]) -> str:
    return "".join(_line(name, entry) for name, entry in entries.items())
