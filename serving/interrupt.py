"""Ctrl-C and SIGTERM as one exception, so that what was started is stopped in order."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, which has to be the caller's."""
    # SIGINT by hand too, since a shell starts background jobs with Ctrl-C ignored.
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kept_back() -> Iterator[None]:
    """Let a signal raise at the end of this, inside `interruptible`: what is started meanwhile is then known."""
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, keep) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _interrupt(number: int, frame: FrameType | None) -> None:
    logging.getLogger(__name__).info("%s", signal.Signals(number).name)
    raise KeyboardInterrupt
