"""The studio's web server: uvicorn in a thread."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Any

import uvicorn

from serving.errors import ServerStartError
from serving.studio.patience import ImpatientProtocol

_START_S, _STOP_S = 10.0, 5.0


class WebServer:
    """Serves an application from a thread, so that the main thread can look after Triton.

    Attributes:
        port: The port it listens on, never 0.
    """

    def __init__(self, app: Any, host: str, port: int) -> None:
        """Take the port at once, so that a port in use is known before anything slow starts.

        Args:
            app: An ASGI application.
            host: Address to bind.
            port: Port; 0 picks a free one.

        Raises:
            ServerStartError: The address or the port cannot be used.
        """
        self._socket = _listen(host, port)
        self.port = int(self._socket.getsockname()[1])
        # Nobody's word is taken for who the client is; the log does not keep addresses, which may hold a token.
        config = uvicorn.Config(
            app,
            log_config=None,  # its own shuts the process's handlers down, and absl's with it the screen
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            lifespan="off",
            ws="none",
            http=ImpatientProtocol,
            h11_max_incomplete_event_size=32 * 1024,
            limit_concurrency=200,
            timeout_keep_alive=20,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="studio", daemon=True)

    def __enter__(self) -> WebServer:
        """Start and wait until it listens."""
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ServerStartError("the studio's web server did not start")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let answers under way finish, then stop."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)
        self.close()

    def close(self) -> None:
        """Give the port back, also if it was never served."""
        self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise ServerStartError(f"cannot listen on {host}:{port}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ServerStartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    return listener
