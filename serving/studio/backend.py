"""The studio's line to the served model: the client, and a look at whether anybody answers."""

from __future__ import annotations

from serving.client.client import EditClient
from serving.errors import ServingError

_PROBE_S = 2.0


class Backend:
    """One served model of one server; threads may share it.

    Attributes:
        url: `host:port` of Triton's gRPC interface.
        model: Name of the served model.
        client: Draws. After a loss it connects again by itself, and asks anew what is served.
    """

    def __init__(self, url: str, model: str, timeout: float) -> None:
        """Describe the connection; nothing is sent until it is used.

        Args:
            url: `host:port` of Triton's gRPC interface.
            model: Name of the served model.
            timeout: Seconds to wait for each answer.

        Raises:
            ServingError: The address or the timeout is not one.
        """
        self.url, self.model = url, model
        self.client = EditClient(url, model, timeout, protocol="grpc")
        # Of its own, without patience: it says what is, while the other one waits for better.
        self._probe = EditClient(url, model, min(timeout, _PROBE_S), protocol="grpc", retries=0)

    def problem(self) -> str:
        """Ask whether the model describes itself, as only a model that is ready does.

        Returns:
            A line that says what is wrong, empty if nothing is.
        """
        try:
            self._probe.refresh()
        except ServingError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Close both connections."""
        self.client.close()
        self._probe.close()
