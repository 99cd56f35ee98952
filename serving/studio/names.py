"""Where the studio keeps names: with the run, with the served model, or with both; and who may not lose one.

The run's catalog is the truth where a run is known, and the served model gets each change too, so that the studio and
every other client of the model draw the same. Without a run the served model's own names are all there is.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from serving.contract.catalog import CatalogFile, understand, without
from serving.contract.errors import CatalogError
from serving.contract.manifest import Manifest, edit_entry, parse_manifest
from serving.contract.named_edit import NamedEdit, entry_of
from serving.contract.published import PublishedModel
from serving.studio.failures import NameTaken, UnknownName

NOTE_LENGTH = 200
_REMEMBERED = 100
Check = Callable[[NamedEdit | None, NamedEdit | None], None]
"""Gets what a name means in the catalog and in the model, and raises where it must stay so."""


@dataclass(frozen=True)
class Held:
    """A named edit and where it stands.

    Attributes:
        edit: What the name means.
        source: `catalog` (the run's or another file) or `model` (the served one's manifest).
        removable: Whether this studio can take it away.
    """

    edit: NamedEdit
    source: str
    removable: bool


class Names:
    """The names that a studio shows and changes; threads may share it.

    Attributes:
        writable: Whether names can be given here.
        note: Where they go, or why they cannot be given: a line for the page.
    """

    def __init__(
        self,
        catalog: CatalogFile | None = None,
        model: PublishedModel | None = None,
        note: str = "",
        checkpoints: frozenset[str] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            catalog: A file of names, which win over the model's.
            model: The served model's folder, if this studio may write it.
            note: Where names go, or why they cannot be given.
            checkpoints: Hashes of the checkpoints of the run whose catalog it is; names fit no other directions.
        """
        self.writable, self.note = catalog is not None or model is not None, note
        self._catalog, self._model = catalog, model
        self._checkpoints = checkpoints
        self._lock = threading.Lock()
        self._parsed: tuple[Mapping[str, Any], Manifest] | None = None
        self._removed: dict[str, tuple[Any, Any]] = {}

    def for_model(self, manifest: Manifest) -> tuple[dict[str, Held], list[str]]:
        """Choose the names that a model can carry out.

        Args:
            manifest: The served model.

        Returns:
            The named edits in the order of their names, and a line for each that was left out.

        Raises:
            CatalogError: A file cannot be read, or is none.
        """
        edits, problems = _fitting(self._of_model(manifest), manifest)
        held = {name: Held(edit, "model", self._model is not None) for name, edit in edits.items()}
        problem = self._mismatch(manifest)
        if problem:
            return {name: replace(one, removable=False) for name, one in held.items()}, [*problems, problem]
        if self._catalog is not None:
            names = self._catalog.read()
            edits, beyond = _fitting(names.edits, manifest)
            problems += [*names.problems, *beyond]
            held |= {name: Held(edit, "catalog", True) for name, edit in edits.items()}
        return dict(sorted(held.items(), key=lambda item: item[0].casefold())), problems

    def save(self, manifest: Manifest, name: str, edit: NamedEdit, move: bool = False) -> None:
        """Give a name.

        Args:
            manifest: The served model.
            name: See `check_name`.
            edit: What it means.
            move: Also if the name means something else now.

        Raises:
            NameTaken: It does, and `move` is not set.
            CatalogError: Names cannot be given here, or a file cannot be written; nothing has changed.
        """

        def check(own: NamedEdit | None, of_model: NamedEdit | None) -> None:
            standing = own or of_model
            if standing is not None and standing != edit and not move:
                raise NameTaken(f"{name} is {describe(standing)} already")

        self._change(manifest, name, entry_of(edit), edit_entry(edit), check)

    def remove(self, manifest: Manifest, name: str) -> None:
        """Take a name away; `restore` gives it back.

        Raises:
            UnknownName: Nothing that this studio can change has it.
            CatalogError: A file cannot be written; nothing has changed.
        """
        before = self._change(manifest, name, None, None, lambda own, of_model: None)
        if before == (None, None):
            raise UnknownName(f"no edit {name!r} stands where this studio keeps names")
        with self._lock:
            self._removed[name] = before
            while len(self._removed) > _REMEMBERED:
                del self._removed[next(iter(self._removed))]

    def restore(self, manifest: Manifest, name: str) -> None:
        """Give back what `remove` took, exactly as it was written.

        Raises:
            UnknownName: Nothing of that name was removed here.
            NameTaken: The name was given anew meanwhile.
            CatalogError: A file cannot be written; nothing has changed.
        """
        with self._lock:
            removed = self._removed.pop(name, None)  # nobody else gives it back meanwhile
        if removed is None:
            raise UnknownName(f"no edit {name!r} was removed here")

        def check(own: NamedEdit | None, of_model: NamedEdit | None) -> None:
            # A model that cannot be written kept its name all the time, under the one that comes back.
            standing = own or (None if self._model is None else of_model)
            if standing is not None:
                raise NameTaken(f"{name} is {describe(standing)} by now")

        try:
            self._change(manifest, name, *removed, check)
        except BaseException:
            with self._lock:
                self._removed.setdefault(name, removed)
            raise

    def _of_model(self, manifest: Manifest) -> Mapping[str, NamedEdit]:
        """The model's names: as its folder has them, else as it was loaded with them."""
        if self._model is None or self._mismatch(manifest):
            return manifest.edits
        return self._published(self._model).edits

    def _mismatch(self, manifest: Manifest) -> str:
        """Say why names that are kept here are not for the model that is served; empty if they are."""
        served = manifest.directions.checkpoint_sha256
        if self._checkpoints is not None and served not in self._checkpoints:
            return f"{manifest.name} was not exported from this run, whose names fit no other directions: left out"
        if self._model is not None:
            published = self._published(self._model)
            if (published.files_sha256, published.directions) != (manifest.files_sha256, manifest.directions):
                return f"the server serves another version of {manifest.name} than its repository holds: start it again"
        return ""

    def _published(self, model: PublishedModel) -> Manifest:
        raw, known = model.manifest(), self._parsed
        if known is None or known[0] is not raw:
            known = self._parsed = raw, parse_manifest(json.dumps(raw))
        return known[1]

    def _change(self, manifest: Manifest, name: str, in_file: Any, in_model: Any, check: Check) -> tuple[Any, Any]:
        """Change an entry in both places or in none; returns what stood there."""
        problem = self._mismatch(manifest) if self.writable else self.note
        if problem:
            raise CatalogError(problem)
        before: list[Any] = [None, None]
        with self._lock, contextlib.ExitStack() as undo:
            of_model = self._of_model(manifest)
            if self._catalog is not None:

                def in_catalog(entries: dict[Any, Any]) -> dict[Any, Any]:
                    first = in_file is not None or name in of_model
                    if first and not entries and self._checkpoints is not None:  # it keeps the names it came with
                        entries = {known: entry_of(edit) for known, edit in of_model.items()}
                    standing = understand(entries).edits
                    check(standing.get(name), of_model.get(name))
                    left = without(entries, name)
                    before[0] = next((entries[key] for key in entries if key not in left), None)
                    return left if in_file is None else {**left, name: in_file}

                self._catalog.update(in_catalog)
                undo.callback(self._catalog.update, lambda now: _put(now, name, before[0]))
            if self._model is not None:

                def in_manifest(entries: dict[str, Any]) -> dict[str, Any]:
                    if self._catalog is None:
                        check(None, of_model.get(name))
                    before[1] = entries.get(name)
                    return _put(entries, name, in_model)

                self._model.update(in_manifest)
            undo.pop_all()
        return before[0], before[1]

    def bring_up(self) -> list[str]:
        """Let the served model have the names of the catalog, which is the truth.

        Returns:
            A line for each name that it did not have, or had for another edit.

        Raises:
            ServingError: A file cannot be read or written.
        """
        if self._catalog is None or self._model is None:
            return []
        manifest = self._published(self._model)
        wanted, _ = _fitting(self._catalog.read().edits, manifest)
        has = manifest.edits
        # A run's name without layers may have got the layers that the run was trained on when it was exported.
        new = {
            name: edit
            for name, edit in wanted.items()
            if name not in has or (edit if edit.layers else replace(edit, layers=has[name].layers)) != has[name]
        }
        if new:
            entries = {name: edit_entry(edit) for name, edit in new.items()}
            self._model.update(lambda standing: {**standing, **entries})
        before = {name: f", before {describe(has[name])}" if name in has else "" for name in new}
        return [f"{name}: {describe(edit)}{before[name]}" for name, edit in new.items()]


def describe(edit: NamedEdit) -> str:
    """Say what a name means: `direction 2, layers 4, 5`."""
    layers = f", layer{'s' if len(edit.layers) > 1 else ''} {', '.join(map(str, edit.layers))}" if edit.layers else ""
    direction = f"direction {edit.direction}{' reversed' if edit.reverse else ''}"
    return f"{direction}{layers} from {edit.alpha[0]:g} to {edit.alpha[1]:g}"


def _put(entries: Mapping[Any, Any], name: str, entry: Any) -> dict[Any, Any]:
    left = without(entries, name)
    return left if entry is None else {**left, name: entry}


def _fitting(edits: Mapping[str, NamedEdit], manifest: Manifest) -> tuple[dict[str, NamedEdit], list[str]]:
    """The edits that a model can carry out, and a line for each other one."""
    good: dict[str, NamedEdit] = {}
    problems = []
    count, layers = manifest.directions.count, manifest.latent.layers
    for name, edit in edits.items():
        if not 0 <= edit.direction < count:
            problems.append(f"{name}: direction must be in [0, {count}), got {edit.direction}")
        elif any(not 0 <= layer < layers for layer in edit.layers):
            problems.append(f"{name}: layers must be in [0, {layers}), got {list(edit.layers)}")
        else:
            good[name] = edit
    return good, problems
