"""The studio's named edits: a catalog file, as far as the served model can carry it out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.contract.catalog import CatalogFile
from serving.contract.named_edit import NamedEdit, entry_of
from serving.manifest import Manifest
from serving.studio.failures import UnknownName

NOTE_LENGTH = 200


class Catalog:
    """The catalog file; threads may share it."""

    def __init__(self, path: Path) -> None:
        """Remember the file, which need not exist yet.

        Args:
            path: The YAML file; a link is followed.
        """
        self._file = CatalogFile(path, path.name)  # a browser need not know where it lies
        self._name = path.name

    def read(self) -> dict[str, NamedEdit]:
        """Read the entries that are understood; none if there is no file.

        Raises:
            CatalogError: The file cannot be read, or is no catalog.
        """
        return dict(self._file.read().edits)

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
        names = self._file.read()
        problems = list(names.problems)
        count, layers = manifest.directions.count, manifest.latent.layers
        for name, edit in names.edits.items():
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
            CatalogError: The file is no catalog or cannot be written.
        """
        self._file.update(lambda entries: {**entries, name: entry_of(edit)})

    def delete(self, name: str) -> None:
        """Remove an entry.

        Raises:
            UnknownName: There is none of that name.
            CatalogError: The file is no catalog or cannot be written.
        """

        def change(entries: dict[Any, Any]) -> Mapping[Any, Any]:
            if name not in entries:
                raise UnknownName(f"the catalog {self._name} has no edit {name!r}")
            del entries[name]
            return entries

        self._file.update(change)
