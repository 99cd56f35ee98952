"""`torch.load` for files that nobody vouches for: tensors and plain containers, or a reason in one line."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch

_ASKED = re.compile(r"GLOBAL ([\w.]+)")


def load_plain(path: Path) -> Any:
    """Read a `torch.save` file onto the CPU; nothing in it is ever executed.

    Raises:
        ValueError: it is damaged, or names code to run (which is refused, and the message says what it named). torch's
            own message is not passed on, for it recommends loading the file without that protection.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on pickle protocols; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes lead the unpickler to IndexError, struct.error and almost any other
        text = str(error)
        asked = _ASKED.search(text)
        if asked is not None:
            raise ValueError(f"it asks for {asked[1]}, and only tensors and plain containers are read") from None
        if isinstance(error, OSError):
            raise ValueError(error.strerror or text) from None
        if "weights_only" in text:
            text = text.partition("WeightsUnpickler error:")[2].strip() or "not a torch.save file of plain tensors"
        reason = (text.strip().splitlines() or [""])[0][:200]
        raise ValueError(f"{type(error).__name__}: {reason}" if reason else type(error).__name__) from None
