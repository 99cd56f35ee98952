"""The progress bar of long work, with rate and time left."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, unit: str, **options: Any) -> Any:
    """Return a tqdm bar that moves on a screen and is a line now and then in a log file.

    Args:
        total: How many units there are.
        unit: Such as `step`.
        options: tqdm's others, such as `desc`, or `delay` in seconds for work that is long only sometimes.
    """
    pause = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, unit=unit, dynamic_ncols=True, mininterval=pause, **options)


def duration(seconds: float) -> str:
    """Return roughly how long something takes, such as `about 45 s`, `about 7 min` or `about 1.5 h`."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
