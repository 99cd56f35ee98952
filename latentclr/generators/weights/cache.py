"""Where downloaded weights lie, and how a file gets there that only a browser can download."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return LATENTCLR_CACHE, or ~/.cache/latentclr."""
    return Path(os.environ.get("LATENTCLR_CACHE") or Path.home() / ".cache" / "latentclr").expanduser()


def by_hand(name: str, url: str, path: Path) -> str:
    """Say what to do about a file that only a browser can download.

    Args:
        name: Of the weights.
        url: What to open.
        path: Where to put it.
    """
    return (
        f"open {url} in a browser, save the file as {path} and run `latentclr weights verify {name}`, which compares"
        " its SHA-256 with the lock file's, or pins it there"
    )
