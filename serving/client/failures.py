"""What a transport reports when a request fails, and the typed error that the caller gets instead."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from serving.contract.printable import printable
from serving.errors import ModelUnavailable, RequestFailed, RequestTimeout, ServerUnavailable, ServingError


class Kind(enum.Enum):
    """The kinds of failure that gRPC and HTTP have in common; only `UNAVAILABLE` is worth another try."""

    UNAVAILABLE = enum.auto()
    NOT_FOUND = enum.auto()
    TIMEOUT = enum.auto()
    CLOSED = enum.auto()
    FOREIGN = enum.auto()  # an answer, but none that Triton gives
    OTHER = enum.auto()


class Failure(Exception):
    """A request failed; never seen outside this package.

    Attributes:
        kind: What kind of failure.
        message: The server's or the system's words, on one line.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        """Keep the kind and the words."""
        self.kind = kind
        self.message = printable(message)
        super().__init__(self.message)


def as_seen_before(failure: Failure) -> Failure:
    """Read the failure of a request for a model that this client has seen there.

    A server that is told to end unloads its models first and denies for seconds that it ever had them; who comes after
    it will have them again. So a model that was there and is not is one that is away for a while.
    """
    return Failure(Kind.UNAVAILABLE, failure.message) if failure.kind is Kind.NOT_FOUND else failure


def explain(
    failure: Failure, url: str, model: str, timeout: float, ready: Sequence[str] | None, door: str = ""
) -> ServingError:
    """Turn a failure into one line that says what to do.

    Args:
        failure: What happened.
        url: Where the server was asked.
        model: Name of the model.
        timeout: Seconds that the request had.
        ready: Names of the ready models; None if the server does not answer. Used where the model may be the reason.
        door: What answers there instead of the interface that was asked, see `doors`; empty if nothing does.
    """
    message = failure.message
    if failure.kind is Kind.CLOSED:
        return RequestFailed("this client was closed")
    if "Stub process" in message:  # and it stays dead, see `serving.triton.stubs`
        return ServerUnavailable(
            f"the process that runs model {model!r} at {url} died (out of memory?); start the server again"
        )
    if door:
        return ServerUnavailable(door)
    if failure.kind is Kind.UNAVAILABLE:
        if ready is None:
            return ServerUnavailable(
                f"no Triton server answers at {url}: it is down, still loading or was killed; "
                "start one with `latentclr serve --repository model_repository`"
            )
        if model in ready:
            return ServerUnavailable(f"the server at {url} has no room or was just restarted ({message}); try again")
        return ModelUnavailable(f"model {model!r} is not ready at {url}; {_list(ready)} ({message})")
    if failure.kind is Kind.TIMEOUT:
        return RequestTimeout(f"the server at {url} did not answer within {timeout:g} s; give it more with timeout")
    if failure.kind is Kind.NOT_FOUND or "unknown model" in message:
        return ModelUnavailable(f"there is no model {model!r} at {url}; {_list(ready)}")
    return RequestFailed(f"the server at {url} could not answer: {message}")


def asks_for_models(failure: Failure) -> bool:
    """Whether `explain` wants to know which models are ready."""
    return failure.kind in (Kind.UNAVAILABLE, Kind.NOT_FOUND, Kind.FOREIGN) or "unknown model" in failure.message


def asks_for_door(failure: Failure, ready: Sequence[str] | None) -> bool:
    """Whether `explain` wants to know who answers: where nothing that came was of Triton's making."""
    return ready is None and failure.kind in (Kind.UNAVAILABLE, Kind.FOREIGN)


def _list(ready: Sequence[str] | None) -> str:
    if ready is None:
        return "the server does not list its models"
    return f"ready models: {printable(', '.join(ready))}" if ready else "no model is ready"
