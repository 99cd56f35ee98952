"""What can be wrong with the things that several programs share."""

from __future__ import annotations

from serving.errors import ServingError


class CatalogError(ServingError):
    """Named edits cannot be read or understood; what stood there is untouched."""


class CatalogWriteError(CatalogError):
    """Named edits cannot be written; what stood there is untouched."""


class NetworkError(ServingError):
    """A network that looks at faces is not installed, damaged, or cannot be run; the message says how to get it."""
