"""How every failure looks to the browser: a status code and one JSON object, never a stack trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving.contract.errors import CatalogError
from serving.contract.journal import JournalError
from serving.contract.lock import Busy
from serving.errors import (
    FaceError,
    InvalidEdit,
    ManifestError,
    ModelUnavailable,
    NoEncoder,
    PhotoError,
    RequestFailed,
    RequestTimeout,
    ServerUnavailable,
    ServingError,
)


class UnknownName(ServingError):
    """No edit of that name stands where this studio keeps names."""


class UnknownPhoto(ServingError):
    """The studio does not hold that photo."""


class NameTaken(ServingError):
    """The name means something else now; the message says what."""


# The first type that fits decides; the last one is the base of them all.
_STATUS: tuple[tuple[type[ServingError], int, str], ...] = (
    (InvalidEdit, 400, "invalid_edit"),
    (FaceError, 400, "face"),
    (PhotoError, 400, "photo"),
    (NoEncoder, 400, "no_encoder"),
    (UnknownName, 404, "unknown_name"),
    (UnknownPhoto, 404, "unknown_photo"),
    (NameTaken, 409, "name_taken"),
    (CatalogError, 409, "catalog"),
    (JournalError, 409, "catalog"),
    (Busy, 423, "busy"),
    (RequestFailed, 502, "request_failed"),
    (ManifestError, 502, "manifest"),
    (ServerUnavailable, 503, "server_unavailable"),
    (ModelUnavailable, 503, "model_unavailable"),
    (RequestTimeout, 504, "timeout"),
    (ServingError, 503, "unavailable"),
)


def status_of(error: ServingError) -> tuple[int, str]:
    """Return the HTTP status and the code word of an error."""
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return status, code
    raise AssertionError("ServingError is the last entry")


def failure(
    code: str, message: str, where: str = "", places: Sequence[tuple[float, float]] = ()
) -> dict[str, dict[str, Any]]:
    """Build the JSON object of a failure.

    Args:
        code: A word that programs can compare.
        message: One line for people.
        where: The field that is wrong, such as `body.edits.0.alpha`; empty if none.
        places: Of the faces to choose from, as `FaceError` has them.
    """
    return {"error": {"code": code, "message": _plain(message), "where": _plain(where), "places": list(places)}}


def _plain(text: str) -> str:
    """Make text safe to encode and to show: half a surrogate pair from a hostile request would break the answer."""
    return " ".join(text.encode("utf-8", "replace").decode().split())[:500]
