"""Ctrl-C and SIGTERM as one exception, so that what was started is stopped in order."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, which has to be the caller's."""
    with _handled_by(_interrupt):
        yield


@contextlib.contextmanager
def kept_back() -> Iterator[None]:
    """Let a signal raise at the end of this, inside `interruptible`: what is started meanwhile is then known."""
    came: list[int] = []
    with _handled_by(lambda number, frame: came.append(number)):
        yield
    if came:
        signal.raise_signal(came[0])


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # SIGINT by hand too, since a shell starts background jobs with Ctrl-C ignored.
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _interrupt(number: int, frame: FrameType | None) -> None:
    logging.getLogger(__name__).info("%s", signal.Signals(number).name)
    raise KeyboardInterrupt
