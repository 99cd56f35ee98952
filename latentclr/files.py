"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all of them are replaced, or none.

    Ctrl-C waits while they are renamed, after all bytes are on the disk. Only a process that is killed in that moment
    leaves some old and some new; they are renamed from the last to the first.

    Args:
        contents: What each file is to hold; their folders are made if missing.

    Raises:
        SaveError: The disk is full, a folder cannot be written, or a folder stands where a file is to be. What stood
            there is untouched.
    """
    for path in contents:
        if path.is_dir():  # the only thing that a rename would fail at, after others
            raise SaveError(f"could not write {path}: {os.strerror(errno.EISDIR)}")
    with contextlib.ExitStack() as stack:
        for path, content in contents.items():
            with open(stack.enter_context(replacing(path)), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # what may still fail does so before the first rename
        with _interrupts_wait():
            stack.close()


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is done."""
    came: list[int] = []

    def note(number: int, frame: Any) -> None:
        came.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals interrupt another one
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for late in came:
        signal.raise_signal(late)
