"""The folder that `gen` draws into: it knows which files are its own, and the next call replaces exactly those."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from latentclr.errors import ConfigError
from latentclr.files import replacing, sha256_of
from serving.contract.documents import read_json_file

RECORD_FILE = "gen.json"
_NAME = re.compile(r"(sample|walk)_\d{1,9}\.(png|gif|webp)", re.ASCII)


class Gallery:
    """Pictures of one call in a folder.

    Attributes:
        folder: Where they lie.
        written: Files of this call, in order.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is read or written yet."""
        self.folder = folder
        self.written: list[Path] = []
        self._digests: dict[str, str] = {}

    def check_free(self, names: Iterable[str]) -> None:
        """Check, before anything is drawn, that files of these names are missing or of the call before.

        Raises:
            ConfigError: One is not, or was changed since; the message names it.
        """
        recorded = self._recorded()
        for name in names:
            path = self.folder / name
            if path.exists() and not (path.is_file() and sha256_of(path) == recorded.get(name)):
                raise ConfigError(
                    f"{path} would be overwritten, and gen did not write it or it was changed since: move it, or choose"
                    " another output_dir"
                )

    def save(self, name: str, write: Callable[[Path], None]) -> None:
        """Write a file; after the first, what the call before wrote and nobody has changed since is removed.

        Args:
            name: Such as `sample_0.png`.
            write: Writes it to a path, whole or not at all.

        Raises:
            SaveError: The disk is full or the folder cannot be written.
        """
        path = self.folder / name
        write(path)
        if not self.written:
            for old, digest in self._recorded().items():
                if old != name and (self.folder / old).is_file() and sha256_of(self.folder / old) == digest:
                    (self.folder / old).unlink()
        self.written.append(path)
        self._digests[name] = sha256_of(path)
        with replacing(self.folder / RECORD_FILE) as temporary:
            temporary.write_text(json.dumps({"files_sha256": self._digests}, indent=1))

    def others(self) -> list[str]:
        """Return names like this call's of files that are not its own, and so were left alone."""
        names = sorted(path.name for path in self.folder.glob("*") if _NAME.fullmatch(path.name))
        return [name for name in names if name not in self._digests]

    def _recorded(self) -> dict[str, str]:
        try:
            files = read_json_file(self.folder / RECORD_FILE)["files_sha256"]
            return {name: digest for name, digest in files.items() if _NAME.fullmatch(name)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # none, or not a record of ours: then nothing here is ours
