"""How long work says how far it is: a bar with rate and time left, or to whoever minds several such works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

Watch = Callable[[int, int], bool]
"""Told how many of how many steps are done; true asks to stop, as Ctrl-C does. Who is watched writes to no screen."""


def progress_bar(total: int, unit: str, **options: Any) -> Any:
    """Return a tqdm bar that moves on a screen and is a line now and then in a log file.

    Args:
        total: How many units there are.
        unit: Such as `step`.
        options: tqdm's others, such as `desc`, or `delay` in seconds for work that is long only sometimes.
    """
    pause = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, unit=unit, dynamic_ncols=True, mininterval=pause, **options)


class WatchedBar:
    """A progress bar that somebody else draws; used as tqdm's is."""

    def __init__(self, total: int, watch: Watch) -> None:
        self.total, self.done, self._watch = total, 0.0, watch

    def update(self, steps: float = 1) -> None:
        """Count steps.

        Raises:
            KeyboardInterrupt: The watch asks to stop.
        """
        self.done += steps
        if self._watch(min(self.total, int(self.done)), self.total):
            raise KeyboardInterrupt

    def close(self) -> None:
        """Nothing is left to be drawn."""

    def __enter__(self) -> WatchedBar:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to be drawn."""


def duration(seconds: float) -> str:
    """Return roughly how long something takes, such as `about 45 s`, `about 7 min` or `about 1.5 h`."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
