"""One process at a time in a folder; a second one is told at once who is there.

The lock is the kernel's (`flock`), so it goes with its holder, however that ends. The file `.lock` that carries it says
who the holder is. Triton takes only folders for models, and readers of run folders look for files by name.

Only its holder removes a lock file: whoever finds it removed makes another one, and would be inside as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import re
import shlex
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from serving.errors import ServingError

LOCK_FILE = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # some network file systems
_LENGTH = 300
_LOOK_S = 0.02


class Busy(ServingError):
    """Another process works in the folder; nothing was changed."""


@contextlib.contextmanager
def alone(folder: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Have a folder that exists for oneself, among all threads and processes that ask for it in this way.

    Args:
        folder: The folder.
        patience_s: Seconds to wait for whoever has it.

    Raises:
        Busy: Somebody has it, and still has after that time; the message says who.
        OSError: The folder cannot be written.
    """
    with holding(folder / LOCK_FILE, patience_s) as handle:
        with contextlib.suppress(OSError):  # who it is matters less than that it is locked: the disk may be full
            os.ftruncate(handle, 0)
            os.pwrite(handle, _myself().encode(errors="replace"), 0)
        yield


@contextlib.contextmanager
def holding(path: Path, patience_s: float = math.inf) -> Iterator[int]:
    """Hold a lock file, which is made if missing and goes when the work is done, and yield its handle.

    One that a killed process left holds nobody up.

    Args:
        path: The lock file, in a folder that exists.
        patience_s: Seconds to wait for whoever holds it.

    Raises:
        Busy: Somebody holds it, and still does after that time; the message says who.
        OSError: The folder cannot be written, or what stands there is no lock file.
    """
    handle = _take(path, time.monotonic() + patience_s)
    try:
        yield handle
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def holder(folder: Path) -> str:
    """Return who has a folder, empty if nobody has."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _text(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
    return ""


def _take(path: Path, until: float) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise OSError(errno.EINVAL, f"{path.name} is no lock file", str(path))
            try:
                _lock(handle)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Busy(f"{path.parent} is in use by {_text(handle)}") from None
                time.sleep(_LOOK_S)
            else:
                if _is_there(path, handle):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _is_there(path: Path, handle: int) -> bool:
    """Whether the locked file still has its name; else whoever comes later makes another file and locks that."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def _myself() -> str:
    words = [os.path.basename(sys.argv[0] or "python"), *sys.argv[1:]]
    # Others may read the file, and the studio shows it: what opens the studio is for neither.
    hidden = [
        "..." if before == "--token" else re.sub("(?s)^--token=.*", "--token=...", word)
        for before, word in zip(["", *words], words, strict=False)
    ]
    command = shlex.join(hidden)
    return f"process {os.getpid()} on {socket.gethostname()}: {command}"[:_LENGTH]


def _text(handle: int) -> str:
    text = os.pread(handle, _LENGTH, 0).decode(errors="replace")
    return "".join(character if character.isprintable() else " " for character in text) or "another process"
