"""HTTP/1.1 that waits for nobody: who sends no request makes room for those who do, and no address has all the room."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.client.address import is_loopback

HEAD_S = 5.0
"""Seconds for a request's complete headers, from the connection's start or, on a kept one, from their first byte."""
UNREAD_S = 60.0
"""Seconds in which a client must take what was sent to it before more is."""
MOST, MOST_LOOPBACK, MOST_REMOTE = 150, 100, 32
"""Connections together, of an address of this machine, and of any other address; fewer than uvicorn's own limit."""


class ImpatientProtocol(H11Protocol):
    """One connection.

    Where an address, or all of them, have too many, the one that has waited longest for its client makes room; only if
    all have requests that are being answered, the new one is closed. So idle connections, however many, keep no
    request out.
    """

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Take a connection if there is, or can be made, room for it."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._head = self.loop.call_later(HEAD_S, self._abort)
        others = [each for each in self.connections if isinstance(each, ImpatientProtocol) and each is not self]
        same = [each for each in others if each._address() == self._address()]
        if len(same) >= (MOST_LOOPBACK if is_loopback(self._address()) else MOST_REMOTE):
            self._make_room(same)
        elif len(others) >= MOST:
            self._make_room(others)

    def data_received(self, data: bytes) -> None:
        """Read on; headers that have begun must go on."""
        before = self.conn.their_state
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._head = self._head or self.loop.call_later(HEAD_S, self._abort)
            return
        _cancel(self._head)
        self._head = None
        if before is h11.IDLE:
            self._since = self.loop.time()

    def on_response_complete(self) -> None:
        """Remember since when it is the client's turn."""
        self._since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give the client time to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self._abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        _cancel(self._unread)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        _cancel(self._head)
        _cancel(self._unread)
        super().connection_lost(exc)

    def _make_room(self, others: list[ImpatientProtocol]) -> None:
        waiting = [each for each in others if each._waits()]
        (min(waiting, key=lambda each: each._since) if waiting else self)._abort()

    def _waits(self) -> bool:
        """Whether it is the client's turn: to send headers or a body, or to read the last answer."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY) or self.transport.is_closing()

    def _abort(self) -> None:
        self.connections.discard(self)  # at once, and not only when the loop comes to it
        self.transport.abort()

    def _address(self) -> str:
        return self.client[0] if self.client else ""


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
