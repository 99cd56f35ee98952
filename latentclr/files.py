"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from latentclr.errors import SaveError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; on success it replaces `path`, on failure it is removed.

    Args:
        path: the file to write; its folder is made if missing.

    Raises:
        SaveError: the disk is full, or the folder cannot be written. What stood at `path` is untouched.
    """
    temporary = path.with_name(f".tmp-{path.stem}-{secrets.token_hex(6)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        open(temporary, "xb").close()  # with the permissions of any new file: a server of another user may read it
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # a rename must never be older than the bytes it names
        os.replace(temporary, path)
    except OSError as error:
        raise SaveError(f"could not write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # after the rename it is not there
            temporary.unlink()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
