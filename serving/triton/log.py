"""What Triton's log says about a failed start, in one line, and about a stop."""

from __future__ import annotations

import re
from pathlib import Path

_MODEL = re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.+)")
_POLL = re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.+)")
# Triton says this once all other models are there: "ensemble faces_photo allows ...", "in ensemble faces_photo, ...".
_ENSEMBLE = re.compile(
    r"model_repository_manager\.cc:\d+\] \"?([A-Z][a-z ]+: )?(in )?ensemble '?(?P<model>[\w.-]+)'?,? (?P<reason>.+)"
)
_ERROR = re.compile(r"^E\d{4} \S+ +\d+ [^\]]+\] (?P<reason>.+)")
_FATAL = re.compile(r"^error: (?P<reason>.+)")
_STATUS = re.compile(
    r"^(Internal|Invalid argument|Not found|Unavailable|Unsupported|Unknown|Already exists)( error)?: "
)


def model_failures(log: Path) -> dict[str, str]:
    """Find the models that failed to load and Triton's reason for each.

    Args:
        log: Triton's log file.

    Returns:
        Reasons by model name, in the order of the log; empty when no model failed. Ensembles are left out where they
        failed for want of a model that is among them.
    """
    failures: dict[str, str] = {}
    ensembles: dict[str, str] = {}
    for line in _lines(log):
        match = _MODEL.search(line) or _POLL.search(line)
        if match:
            failures.setdefault(match["model"], _tidy(match["reason"]))
        elif match := _ENSEMBLE.search(line):
            ensembles.setdefault(match["model"], _tidy(match["reason"]))
    return failures or ensembles


def last_error(log: Path) -> str:
    """Return the line that says best why the server ended.

    Args:
        log: Triton's log file.

    Returns:
        The last fatal error, else the last error, else the last line of the log.
    """
    lines = [line for line in _lines(log) if line.strip()]
    for pattern in (_FATAL, _ERROR):
        for line in reversed(lines):
            match = pattern.search(line)
            if match:
                return _tidy(match["reason"])
    return _tidy(lines[-1]) if lines else "it wrote no log"


def have_models_stopped(log: Path, start: int) -> bool:
    """Return whether no request is in flight any more, and no other can come.

    Args:
        log: Triton's log file.
        start: Its size when Triton was asked to end.
    """
    with log.open("rb") as file:
        file.seek(start)
        return b"All models are stopped" in file.read()


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _tidy(reason: str) -> str:
    """Drop Triton's status words and anything that would break the line."""
    reason = reason.split("\\n\\nAt:")[0]  # a Python traceback, whose newlines Triton's log has escaped
    return _STATUS.sub("", " ".join(reason.split())).strip('"')
