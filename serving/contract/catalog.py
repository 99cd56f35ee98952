"""The catalog: a YAML file of named edits.

    smile: {direction: 28, layers: [4, 5], alpha: [-7, 7], note: "closed mouth"}

It is looked at whenever it is asked for, so an edit made in a text editor shows at once, but read only when it has
changed. An entry that is not understood is told and left alone; a file that is no catalog is never overwritten.
"""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.contract.documents import read_yaml
from serving.contract.errors import CatalogError, CatalogWriteError
from serving.contract.files import Stamp, locked, stamp_of, write_whole
from serving.contract.named_edit import NamedEdit, parse_entry

CATALOG_FILE = "catalog.yaml"
_LARGEST_FILE, _MOST_ENTRIES = 1_000_000, 2000
_TICK_NS = 100_000_000  # files changed twice within one tick of a file system's clock have one time


@dataclass(frozen=True)
class Names:
    """What a catalog says.

    Attributes:
        edits: The named edits, in the file's order.
        problems: A line for each entry that is not understood, which begins with the entry's name.
        entries: All entries as they were written, those too.
    """

    edits: Mapping[str, NamedEdit]
    problems: tuple[str, ...]
    entries: Mapping[Any, Any]


class CatalogFile:
    """One catalog file; threads may share it."""

    def __init__(self, path: Path, shown: str | None = None) -> None:
        """Remember the file, which need not exist yet.

        Args:
            path: The YAML file; a link is followed.
            shown: What messages call it; its path if not given.
        """
        self.path = path.resolve()
        self._shown = shown or str(path)
        self._known: tuple[Stamp, Names] | None = None

    def read(self) -> Names:
        """Read all entries; none if there is no file.

        Raises:
            CatalogError: The file cannot be read, or is no catalog.
        """
        known = self._known
        try:
            if known is not None and stamp_of(os.stat(self.path)) == known[0]:
                return known[1]
        except OSError:  # told below
            pass
        stamp, text = self._text()
        names = understand(self._load(text), f"the catalog {self._shown}")
        fresh = stamp is None or time.time_ns() - stamp[0] < _TICK_NS
        self._known = None if stamp is None or fresh else (stamp, names)
        return names

    def update(self, change: Callable[[dict[Any, Any]], Mapping[Any, Any]]) -> None:
        """Change the entries; nobody else changes them meanwhile.

        Args:
            change: Gets the entries as they stand and returns those that shall stand there. What it raises leaves
                the file as it is.

        Raises:
            CatalogError: What stands there is no catalog.
            CatalogWriteError: It would be too large, or cannot be written.
        """
        try:
            with locked(self.path):
                text = self._text()[1]
                before = self._load(text)
                after = change(dict(before))
                if after == before:
                    return
                if len(after) > max(_MOST_ENTRIES, len(before)):
                    raise CatalogWriteError(f"the catalog {self._shown} is full: it has {len(before)} edits")
                # New entries are appended, which keeps the comments of a file written by hand.
                added = {name: entry for name, entry in after.items() if name not in before}
                longer = text + ("" if not text or text.endswith("\n") else "\n") + _lines(added)
                text = longer if self._means(longer, after) else _lines(after)
                if not self._means(text, after):  # a note with ${...}, say, would make the whole file unreadable
                    raise CatalogWriteError(f"the catalog {self._shown} could not be read again with this entry")
                write_whole(self.path, text)
        except OSError as error:
            raise CatalogWriteError(f"cannot write the catalog {self._shown}: {error.strerror}") from error

    def _text(self) -> tuple[Stamp | None, str]:
        try:
            with self.path.open("rb") as file:
                stamp = stamp_of(os.fstat(file.fileno()))
                data = file.read(_LARGEST_FILE + 1)
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            raise CatalogError(f"cannot read the catalog {self._shown}: {error.strerror}") from error
        if len(data) > _LARGEST_FILE:
            raise CatalogError(f"the catalog {self._shown} must be at most {_LARGEST_FILE} bytes")
        try:
            return stamp, data.decode()
        except UnicodeDecodeError as error:
            raise CatalogError(f"the catalog {self._shown} is not UTF-8 text") from error

    def _load(self, text: str) -> dict[Any, Any]:
        try:
            entries = read_yaml(text)
        except ValueError as error:
            raise CatalogError(f"the catalog {self._shown} {error}") from error
        if entries is None:
            return {}
        if not isinstance(entries, dict):
            raise CatalogError(f"the catalog {self._shown} must be a table from names to edits")
        return entries

    def _means(self, text: str, entries: Mapping[Any, Any]) -> bool:
        try:
            return self._load(text) == entries
        except CatalogError:
            return False


def understand(entries: Mapping[Any, Any], where: str = "") -> Names:
    """Read entries, as `CatalogFile.update` hands them out.

    Args:
        entries: The entries as written.
        where: Begins the line of each problem.
    """
    edits: dict[str, NamedEdit] = {}
    problems = []
    for key, entry in entries.items():
        try:
            name, edit = parse_entry(key, entry)
            if name in edits:
                raise ValueError(f"{name} stands there twice")
            edits[name] = edit
        except ValueError as error:
            problems.append(f"{where}: {error}" if where else str(error))
    return Names(edits, tuple(problems), entries)


def without(entries: Mapping[Any, Any], name: str) -> dict[Any, Any]:
    """Leave out whatever stands under a name, in whichever of Unicode's forms it was written."""
    return {key: entry for key, entry in entries.items() if unicodedata.normalize("NFC", str(key)) != name}


def _lines(entries: Mapping[Any, Any]) -> str:
    """Write entries, one on a line."""
    import yaml

    text = ""
    for name, entry in entries.items():
        line = yaml.safe_dump({name: entry}, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1e9)
        text += str(line).strip()[1:-1] + "\n"
    return text
