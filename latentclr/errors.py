"""Errors that are messages to the user.

The command line prints them as one line and exits with `exit_code`; everything else that is raised is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
