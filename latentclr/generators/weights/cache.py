"""Where downloaded weights lie."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return LATENTCLR_CACHE, or ~/.cache/latentclr."""
    return Path(os.environ.get("LATENTCLR_CACHE") or Path.home() / ".cache" / "latentclr").expanduser()
