"""Folders for temporary files, and how to tell those of processes that were killed.

A folder is in use as long as somebody holds the lock of the file `lock` in it: the process that made it, or one that
inherited the open file and may outlive it. The kernel lets go of a lock however its holder ends, so nobody is taken for
alive whose process number has been given away again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX, _LOCK = "latentclr-", "lock"
_NEW_S, _DAY_S = 60, 86400


@contextlib.contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """Have a new folder for the length of a `with` block.

    Args:
        kind: `export` or `doctor`; its name tells it.

    Raises:
        OSError: The system's folder for temporary files cannot be written.
    """
    path, lock = make_folder(kind)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def remove_dead_folders() -> None:
    """Remove what killed processes left, but for servers: with their folders goes shared memory."""
    for path, _ in dead_folders(("doctor", "export")):
        shutil.rmtree(path, ignore_errors=True)


def make_folder(kind: str, text: str = "") -> tuple[Path, int]:
    """Make a folder, and a lock in it that this process holds until it closes the file or ends.

    Args:
        kind: Part of its name.
        text: What the lock file says; `dead_folders` gives it back.

    Returns:
        The folder, and the open lock file.

    Raises:
        OSError: The system's folder for temporary files cannot be written.
    """
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
    new = path / f"{_LOCK}.new"
    handle = -1
    try:
        handle = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, text.encode())
        os.rename(new, path / _LOCK)  # it appears when it is locked
    except BaseException:
        if handle >= 0:
            os.close(handle)
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path, handle


def dead_folders(kinds: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Find the folders of this user whose process is gone.

    Args:
        kinds: As given to `make_folder`.

    Yields:
        The folder and the text of its lock.
    """
    for path in sorted(path for kind in kinds for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}{kind}-*")):
        try:
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            handle = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            if _is_old(path) and not is_mentioned(str(path)):
                yield path, ""
            continue
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = os.read(handle, 100).decode(errors="replace")
        except OSError:
            continue  # somebody holds it
        finally:
            os.close(handle)
        yield path, text


def is_mentioned(text: str) -> bool:
    """Whether a process has this among its arguments, as Triton has its backends' folder and its memory's name."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(text) in file.read_bytes():
                return True
        except OSError:
            continue
    return False


def _is_old(path: Path) -> bool:
    """Whether a folder without a lock is one of a version without locks, or of a process that died making it."""
    try:
        age = time.time() - path.stat().st_mtime
        return path.is_dir() and age > (_DAY_S if any(path.iterdir()) else _NEW_S)
    except OSError:
        return False
