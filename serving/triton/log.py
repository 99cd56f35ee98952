"""What Triton's log says about a failed start, in one line, and about a stop.

A log goes on over many starts, so each of these reads from a byte on, its size at the moment in question. One that was
rotated away reads as empty.
"""

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


def model_failures(log: Path, start: int = 0) -> dict[str, str]:
    """Find the models that failed to load and Triton's reason for each.

    Args:
        log: Triton's log file.
        start: Its size when Triton was started.

    Returns:
        Reasons by model name, in the order of the log; empty when no model failed. Ensembles are left out where they
        failed for want of a model that is among them.
    """
    failures: dict[str, str] = {}
    ensembles: dict[str, str] = {}
    for line in _text(log, start).splitlines():
        match = _MODEL.search(line) or _POLL.search(line)
        if match:
            failures.setdefault(match["model"], _tidy(match["reason"]))
        elif match := _ENSEMBLE.search(line):
            ensembles.setdefault(match["model"], _tidy(match["reason"]))
    return failures or ensembles


def last_error(log: Path, start: int = 0) -> str:
    """Return the line that says best why the server ended.

    Args:
        log: Triton's log file.
        start: Its size when Triton was started.

    Returns:
        The last fatal error, else the last error, else the last line of the log.
    """
    lines = [line for line in _text(log, start).splitlines() if line.strip()]
    for pattern in (_FATAL, _ERROR):
        for line in reversed(lines):
            match = pattern.search(line)
            if match:
                return _tidy(match["reason"])
    return _tidy(lines[-1]) if lines else "it wrote no log"


def was_serving(log: Path, start: int = 0) -> bool:
    """Return whether all models were loaded, and requests answered.

    Args:
        log: Triton's log file.
        start: Its size when Triton was started.
    """
    return "Started GRPCInferenceService" in _text(log, start)


def have_models_stopped(log: Path, start: int) -> bool:
    """Return whether no request is in flight any more, and no other can come; False also where no log tells.

    Args:
        log: Triton's log file.
        start: Its size when Triton was asked to end.
    """
    return "All models are stopped" in _text(log, start)


def _text(log: Path, start: int) -> str:
    try:
        if not log.is_file():  # a pipe (`--log-file /dev/stderr`) would keep us waiting
            return ""
        with log.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _tidy(reason: str) -> str:
    """Drop Triton's status words and anything that would break the line."""
    reason = reason.split("\\n\\nAt:")[0]  # a Python traceback, whose newlines Triton's log has escaped
    return _STATUS.sub("", " ".join(reason.split())).strip('"')
