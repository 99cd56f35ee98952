"""The studio's line to the served model: it notices a loss, and a server that came back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from serving.client.client import EditClient
from serving.errors import ModelUnavailable, RequestFailed, ServerUnavailable
from serving.studio.security import is_loopback

logger = logging.getLogger(__name__)

_PROBE_S = 2.0
T = TypeVar("T")


class Backend:
    """One served model of one server; threads may share it.

    Attributes:
        url: `host:port` of Triton's gRPC interface.
        model: Name of the served model.
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
        self._timeout = timeout
        self._lock = threading.Lock()
        self._client: EditClient | None = EditClient(url, model, timeout, protocol="grpc")
        # Without these a probe could wait two minutes for the next attempt after a long outage.
        options = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.use_local_subchannel_pool", 1)]
        if is_loopback(url.rpartition(":")[0]):
            options.append(("grpc.enable_http_proxy", 0))  # no proxy can reach this machine's own addresses
        self._probe: Any = triton.InferenceServerClient(url, channel_args=options)

    def ask(self, question: Callable[[EditClient], T]) -> T:
        """Put a question to the model.

        Args:
            question: What to do with the client.

        Raises:
            ServingError: As the client; after a loss the next question gets a new connection.
        """
        with self._lock:
            if self._client is None:
                self._client = EditClient(self.url, self.model, self._timeout, protocol="grpc")
            client = self._client
        try:
            return question(client)
        except (ServerUnavailable, ModelUnavailable, RequestFailed):
            # A restarted server may serve another version, and a lost channel waits longer and longer before it
            # tries again. It is not closed here, since other threads may be using it: it goes with the last of them.
            with self._lock:
                if self._client is client:
                    self._client = None
            raise

    def problem(self) -> str:
        """Ask whether the model is ready.

        Returns:
            A line that says what is wrong, empty if nothing is.
        """
        try:
            if self._probe.is_model_ready(self.model, client_timeout=_PROBE_S):
                return ""
            return f"the model {self.model!r} is not ready"
        except InferenceServerException as error:
            logger.debug("probe: %s", error)
            return "the model server does not answer"

    def close(self) -> None:
        """Close both connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()
        self._probe.close()
