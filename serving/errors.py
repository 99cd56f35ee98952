"""What can go wrong while serving, as types a caller can catch."""

from __future__ import annotations

from collections.abc import Sequence


class ServingError(Exception):
    """Base of all errors of this package; its text is one line that says what to do.

    The command line prints that line and leaves with `exit_code`.
    """

    exit_code = 2


class ServerStartError(ServingError):
    """Triton could not be started, or a model of its repository could not be loaded."""


class ServerUnavailable(ServingError):
    """No server answers: it is down, still loading, or died while it worked on the request."""


class ModelUnavailable(ServingError):
    """The server answers, but the model is unknown to it or not ready."""


class NoPreview(ServingError):
    """The model has no preview on this server; its full pictures are drawn as ever."""


class NoEncoder(ServingError):
    """The model has no encoder on this server, so it cannot edit photos."""


class RequestTimeout(ServingError):
    """The server did not answer within the client's timeout."""


class RequestFailed(ServingError):
    """The server refused or failed the request for another reason, which the message quotes."""


class Superseded(ServingError):
    """A newer edit took the place of this one before it was sent; see `serving.client.latest`."""


class ManifestError(ServingError):
    """The model does not describe itself in a way that this client understands."""


class InvalidEdit(ServingError):
    """The request is out of range; the message names the row, the range and the value.

    Attributes:
        field: What was wrong (`direction`, `alpha`, `z`, `class_id` ...), empty if no single field was.
        row: The first row at fault, None if the fault is not in one row.
        limits: The range [low, high) that the value must be in, None if there is none (`must be finite`).
        value: The value that came, None if there is no single one.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        row: int | None = None,
        limits: tuple[int, int] | None = None,
        value: float | None = None,
    ) -> None:
        """Keep the line and, where they are known, its parts."""
        super().__init__(message)
        self.field, self.row, self.limits, self.value = field, row, limits, value


class AlphaWarning(UserWarning):
    """A strength is outside the range that the model suggests; the picture is drawn all the same."""


class PhotoWarning(UserWarning):
    """A photo was cut out of its middle, since nobody could look for a face."""


class ImageError(ServingError):
    """A picture could not be written, or read back."""


class PhotoError(ServingError):
    """A photo cannot be read, or what is asked of it cannot be done; the message names the way out."""


class FaceError(PhotoError):
    """No face was found in a photo, or several of which none was chosen.

    Attributes:
        places: The middle of each face from left to right, (x, y) in shares of the photo's width and height; empty if
            there is none.
    """

    def __init__(self, message: str, places: Sequence[tuple[float, float]] = ()) -> None:
        """Keep the line, and where the faces are."""
        super().__init__(message)
        self.places = tuple(places)
