"""Files that several processes read and change: whole or not there, and no change lost."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from serving.contract.lock import holding

Stamp = tuple[int, int, int]
"""Time of the last change (ns), size and inode: a file with the same three is the same file."""


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what tells a file from the one that stood there before."""
    return status.st_mtime_ns, status.st_size, status.st_ino


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()  # hashlib.file_digest is younger than Python 3.10
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading, and do not wait for what is none: a pipe into which nobody writes, a device.

    Raises:
        OSError: It cannot be read, or is a folder, a pipe or a device.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a file")
    return file


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; on success it replaces `path`, on failure it is removed.

    Args:
        path: The file to write; its folder is made if missing.

    Raises:
        OSError: The disk is full, or the folder cannot be written. What stood at `path` is untouched.
    """
    temporary = path.with_name(f".tmp-{path.stem}-{secrets.token_hex(6)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        open(temporary, "xb").close()  # with the permissions of any new file: a server of another user may read it
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # a rename must never be older than the bytes it names
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # after the rename it is not there
            temporary.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name beside it and rename it.

    Raises:
        OSError: It cannot be written; what stood there is untouched.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every other process and thread that wants to change `path` waiting.

    The lock is a file beside it, which goes when the work is done; one that a killed process left holds nobody up. What
    such a process left half-written (`write_whole`) is removed.

    Raises:
        OSError: The folder cannot be written, or what stands there is no lock file.
    """
    with holding(path.with_name(f".{path.name}.lock")):
        _sweep(path)
        yield


def _sweep(path: Path) -> None:
    hexadecimal = "[0-9a-f]" * 12
    for left in path.parent.glob(f".tmp-{glob.escape(path.stem)}-{hexadecimal}{glob.escape(path.suffix)}"):
        left.unlink(missing_ok=True)
