"""Words of others, made fit for a line on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text on one line, without what cannot be printed: a terminal obeys some of it."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(filter(str.isprintable, line))
