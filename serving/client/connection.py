"""One connection to one served model, whatever the protocol: retries, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from serving.client.address import Address
from serving.client.description import Answer, Description
from serving.client.doors import wrong_door
from serving.client.failures import Failure, Kind, as_seen_before, asks_for_door, asks_for_models, explain
from serving.client.retry import attempt, check_patience, check_timeout
from serving.errors import ManifestError, ModelUnavailable, RequestFailed

T = TypeVar("T")

PROBE_S = 5.0  # the most that finding a reason for a failure may take
DOOR_S = 1.0  # and that finding out who answers there may take after that
STALE = (ModelUnavailable, RequestFailed)
"""After these the server may serve another version of the model, so it is asked again what it serves."""


class Transport(Protocol):
    """A protocol's part: one attempt at each question. All of them raise `Failure`; threads may share one."""

    def describe(self, model: str, timeout: float) -> Description:
        """Read a model's configuration."""

    def infer(self, model: str, description: Description, arrays: Mapping[str, NDArray[Any]], timeout: float) -> Answer:
        """Run one request."""

    def ready_models(self, timeout: float) -> list[str]:
        """List the models that are ready."""

    def close(self) -> None:
        """Give the connections back; a later question fails."""


class Connection:
    """Asks one model of one server; threads may share it."""

    def __init__(self, transport: Transport, address: Address, model: str, timeout: float, retries: int) -> None:
        """Put the parts together.

        Args:
            transport: Speaks the protocol.
            address: Where the server is.
            model: Name of the served model.
            timeout: Seconds to wait for each answer, above 0.
            retries: Further attempts while the server is unavailable.

        Raises:
            ServingError: The timeout or the retries are out of range.
        """
        check_patience(timeout, retries)
        self._transport, self._address, self._model = transport, address, model
        self._timeout, self._retries = timeout, retries
        self._description: Description | None = None
        self._seen = False

    def describe(self, timeout: float | None = None) -> Description:
        """Read the model's configuration; asked for once, and again after a loss.

        Args:
            timeout: Instead of the connection's own.

        Raises:
            ServingError: No server, no such model, not ready, or no usable manifest.
        """
        description = self._description
        if description is None:
            description = self._ask(lambda left: self._transport.describe(self._model, left), timeout)
            self._description, self._seen = description, True
        return description

    def outdated(self, description: Description, timeout: float | None = None) -> bool:
        """Ask once, without patience, whether the model describes itself otherwise by now; then that is remembered."""
        patience = self._timeout if timeout is None else check_timeout(timeout)
        try:
            now = self._transport.describe(self._model, min(patience, PROBE_S))
        except (Failure, ManifestError):
            return False
        if now.manifest == description.manifest:
            return False
        self._description = now
        return True

    def infer(
        self, description: Description, arrays: Mapping[str, NDArray[Any]], timeout: float | None = None
    ) -> Answer:
        """Run one request.

        Args:
            description: The model, as `describe` told.
            arrays: Input arrays by name, at most `max_batch_size` rows.
            timeout: Instead of the connection's own.

        Raises:
            ServingError: The server cannot answer or refuses.
        """
        return self._ask(lambda left: self._transport.infer(self._model, description, arrays, left), timeout)

    def drawn_by(self, description: Description, answer: Answer) -> Description | None:
        """Compare the version that drew an answer with the one described.

        Returns:
            The description for the next answer; None if another version drew, and then the next `describe` asks again.
        """
        now = description.seen(answer.version)
        if now is not description and self._description is description:
            self._description = now
        return now

    def forget(self) -> None:
        """Ask again what the server serves before the next request."""
        self._description = None

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _ask(self, question: Callable[[float], T], timeout: float | None) -> T:
        patience = self._timeout if timeout is None else check_timeout(timeout)

        def once(left: float) -> T:
            try:
                return question(left)
            except Failure as error:
                failure = as_seen_before(error) if self._seen else error
                if failure.kind is Kind.UNAVAILABLE:  # whoever answers next may serve something else
                    self.forget()
                raise failure from error

        try:
            return attempt(once, patience, self._retries)
        except Failure as failure:
            ready = self._ready_models(patience) if asks_for_models(failure) else None
            door = wrong_door(self._address, min(patience, DOOR_S)) if asks_for_door(failure, ready) else ""
            error = explain(failure, self._address.target, self._model, patience, ready, door)
            if isinstance(error, STALE):
                self.forget()
            raise error from failure

    def _ready_models(self, patience: float) -> list[str] | None:
        try:
            return self._transport.ready_models(min(patience, PROBE_S))
        except Failure:
            return None
