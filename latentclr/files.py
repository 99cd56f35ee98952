"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from latentclr.errors import SaveError
from serving.contract import files
from serving.contract.files import sha256_of as sha256_of  # the same for all


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; on success it replaces `path`, on failure it is removed.

    Args:
        path: The file to write; its folder is made if missing.

    Raises:
        SaveError: The disk is full, or the folder cannot be written. What stood at `path` is untouched.
    """
    try:
        with files.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise SaveError(f"could not write {path}: {error.strerror or error}") from error
