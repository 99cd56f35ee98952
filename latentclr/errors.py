"""Errors that are messages to the user.

The command line prints them as one line and exits with `exit_code`; everything else that is raised is a bug.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

# How torch's allocators report that memory ran out, or that no memory is that large.
_NO_MEMORY = re.compile(
    r"allocate memory|out of memory|not enough memory|Storage size calculation overflowed|numel: integer"
)
_OF_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
_LONGEST = 300  # characters of an error in a table


class LatentCLRError(Exception):
    """Base of all errors that say what was expected and what came."""

    exit_code = 2


class ConfigError(LatentCLRError):
    """An option, override or configuration file that cannot be used."""


class GeneratorError(LatentCLRError):
    """Generator weights that are missing or unusable, or a layer or class that the generator does not have."""


class CheckpointError(LatentCLRError):
    """A run folder or checkpoint that is missing, damaged, hostile or of another shape."""


class ScorerError(LatentCLRError):
    """A scorer that is unknown, not installed or damaged, an attribute that none has, or pictures of a wrong form."""


class SaveError(LatentCLRError):
    """A file that could not be written; what stood there before is untouched."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``; did you mean 'model' or 'models'?``, empty if nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def first_reason(error: Exception) -> str:
    """Return an error's own words on one line: of torch's list of what does not fit, the first entry."""
    heading, *rest = str(error).splitlines() or [type(error).__name__]
    if heading.startswith("Error(s) in loading state_dict") and rest:
        return " ".join(rest[0].split())
    return " ".join(str(error).split())[:200]


def of_the_machine(error: Exception) -> str:
    """Say what the machine could not do for a request that is too large for it; nothing if the error is a bug."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(text)):
        return f"there is not enough memory for that ({text[:200] or type(error).__name__})"
    if isinstance(error, RecursionError):
        return "something that was given is nested too deeply"
    if isinstance(error, OverflowError):
        return f"a number is too large ({text[:200]})"
    if isinstance(error, OSError) and error.errno in _OF_PATHS:
        return f"{error.strerror}: {str(error.filename)[:80]!r}"
    return ""


def in_one_line(error: Exception) -> str:
    """Return any error as one line: in its own words if they are meant for the user, else with its kind before them."""
    text = " ".join(str(error).split())
    if getattr(error, "exit_code", None) is None:
        text = of_the_machine(error) or f"{type(error).__name__}: {text}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
