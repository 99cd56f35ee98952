"""The named edits of a published model: they stand in its manifest, and may change while its weights stay.

A model in a repository is a folder with a `config.pbtxt`, whose parameter `manifest` clients read. New names are a
rename of that file, so a server that polls takes them up, and so does one that starts; the served version's own copy,
to which `rollback` returns, learns them too, and so do the TorchScript twin and the preview: all of these files or none
(`journal`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from serving.contract.documents import read_manifest
from serving.contract.errors import CatalogError, CatalogWriteError
from serving.contract.files import Stamp, sha256_of, stamp_of
from serving.contract.journal import changing, rename_together
from serving.contract.layout import CONFIG_FILE, LayoutError, original_of, preview_of, read_config, twins_of

_CHECKPOINTS = (".safetensors", ".pt")
_MOST = 10_000_000  # directions, latent inputs


class PublishedModel:
    """A model in a repository, together with its twin and its preview; threads may share it."""

    def __init__(self, repository: Path, name: str) -> None:
        """Remember the folder.

        Args:
            repository: The model repository.
            name: Of the model or of its twin.
        """
        self.repository, self.name = repository, name
        self._known: tuple[Stamp, Mapping[str, Any]] | None = None

    def manifest(self) -> Mapping[str, Any]:
        """Read the manifest as it was written.

        Raises:
            CatalogError: There is no such model, or it does not describe itself.
        """
        path = self.repository / self.name / CONFIG_FILE
        try:
            stamp = stamp_of(os.stat(path))
        except OSError as error:
            raise CatalogError(f"{self.repository} has no model {self.name!r}: {error.strerror}") from None
        known = self._known
        if known is None or known[0] != stamp:
            known = self._known = stamp, _manifest_of(_read(path), path)
        return known[1]

    def entries(self) -> dict[str, Any]:
        """Return the named edits as they were written.

        Raises:
            CatalogError: As `manifest`.
        """
        return {name: entry for name, entry in (self.manifest().get("edits") or {}).items() if isinstance(entry, dict)}

    def sizes(self) -> tuple[int, int]:
        """Return how many directions K and latent inputs L the model has.

        Raises:
            CatalogError: As `manifest`, or it does not say.
        """
        manifest = self.manifest()
        found = []
        for section, key in (("directions", "count"), ("latent", "layers")):
            table = manifest.get(section)
            value = table.get(key) if isinstance(table, dict) else None
            if type(value) is not int or not 0 < value <= _MOST:
                raise CatalogError(f"the manifest of {self.name} in {self.repository} has no whole {section}.{key}")
            found.append(value)
        return found[0], found[1]

    def update(self, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Change the named edits; nothing else of the model changes, and nobody else changes it meanwhile.

        Args:
            change: Gets the entries as they stand and returns those that shall stand there (see `edit_entry`).
                What it raises leaves everything as it is.

        Raises:
            CatalogError: There is no such model, or it does not describe itself.
            CatalogWriteError: The repository cannot be written; nothing has changed.
            Busy: Another process changes the repository.
        """
        if self.name not in self._together():
            raise CatalogError(f"{self.repository} has no model {self.name!r}")
        try:
            with changing(self.repository) as staging:
                self._known = None
                entries, moves = dict(change(self.entries())), []
                for path, text in [
                    pair for name in self._together() for pair in _rewritten(self.repository / name, entries)
                ]:
                    inside = path.relative_to(self.repository)
                    (staging / inside).parent.mkdir(parents=True, exist_ok=True)
                    (staging / inside).write_text(text)
                    moves.append((staging / inside, self.repository.resolve() / inside))
                rename_together(self.repository, staging, moves)
        except OSError as error:
            raise CatalogWriteError(
                f"cannot write the names of {self.name} in {self.repository}: {error.strerror}"
            ) from error
        finally:
            self._known = None

    def _together(self) -> list[str]:
        """Return the models that have the same names; a preview of another version is none of them."""
        base = original_of(self.repository, self.name)
        names = [base, *twins_of(self.repository, base)]
        names = [name for name in names if (self.repository / name / CONFIG_FILE).is_file()]
        if names and (files := preview_files(self.manifest())):
            for name in map(preview_of, list(names)):
                path = self.repository / name / CONFIG_FILE
                if path.is_file() and _manifest_of(_read(path), path).get("files_sha256") == files:
                    names.append(name)
        return names


def preview_files(manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the SHA-256 by file name of a model's preview, as its manifest has them; None if it has no preview."""
    preview = manifest.get("preview")
    files = preview.get("files_sha256") if isinstance(preview, dict) else None
    return files if isinstance(files, dict) else None


def holds_checkpoint(run: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether a model was exported from a checkpoint that lies in a run folder; names fit no other directions.

    Args:
        run: The folder.
        manifest: The model's.
    """
    wanted = (manifest.get("directions") or {}).get("checkpoint_sha256")
    return isinstance(wanted, str) and bool(wanted) and wanted in checkpoint_hashes(run)


def checkpoint_hashes(run: Path) -> frozenset[str]:
    """Return the SHA-256 of each checkpoint in a run folder, ours or the origin's."""
    hashes = set()
    for path in sorted(run.glob("*")):
        if path.suffix in _CHECKPOINTS and path.name != "resume.pt":
            with contextlib.suppress(OSError):
                hashes.add(sha256_of(path))
    return frozenset(hashes)


def _rewritten(model: Path, entries: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Return the configurations of a model with other names: the served version's own copy first, then the model's."""
    from google.protobuf import text_format

    config = _read(model / CONFIG_FILE)
    manifest = {**_manifest_of(config, model / CONFIG_FILE), "edits": dict(entries)}
    places = [model / str(version) / CONFIG_FILE for version in config.version_policy.specific.versions]
    written = json.dumps(manifest, sort_keys=True)
    try:
        read_manifest(written)
    except ValueError as error:  # a note with ${...}, say, would make the model unreadable
        raise CatalogWriteError(f"{model.name} could not be read again with these names: it {error}") from None
    config.parameters["manifest"].string_value = written
    text = text_format.MessageToString(config)
    return [(path, text) for path in [*(path for path in places if path.is_file()), model / CONFIG_FILE]]


def _read(path: Path) -> Any:
    try:
        return read_config(path)
    except LayoutError as error:
        raise CatalogError(str(error)) from None


def _manifest_of(config: Any, path: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(config.parameters["manifest"].string_value)
        if isinstance(manifest, dict) and isinstance(manifest.get("edits") or {}, dict):
            return manifest
    except ValueError:
        pass
    raise CatalogError(f"{path} has no manifest; `latentclr export` writes one")
