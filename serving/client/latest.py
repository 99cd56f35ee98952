"""The latest edit wins: for sliders, which ask faster than a server can draw.

    slider = LatestWins(client)
    future = slider.submit(seed=7, edits={3: 4.0})     # at every move; replaces the one that still waits

One request is under way at a time, and at most one waits. A newer one takes the place of the one that waits, so the
screen follows the slider as fast as the server allows, and the last position is always drawn. The one under way is
left to finish: cancelling it too would leave the screen without any picture for as long as somebody drags.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from serving.client.async_client import AsyncEditClient
from serving.client.client import EditClient
from serving.client.edited import Edited
from serving.errors import RequestFailed, Superseded


class LatestWins:
    """Sends one client's newest edit; any thread may ask."""

    def __init__(self, client: EditClient) -> None:
        """Start a thread that waits for work.

        Args:
            client: Sends the edits; it is not closed with this.
        """
        self._client = client
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="latest-edit")
        self._newest: Future[Edited] | None = None
        self._closed = False

    def submit(self, *arguments: Any, **options: Any) -> Future[Edited]:
        """Ask for an edit and return at once.

        Args:
            arguments: As for `EditClient.edit`.
            options: The same.

        Returns:
            The future pictures; a newer edit, or `close`, cancels the future while it waits.

        Raises:
            RequestFailed: This was closed.
        """
        return self._put(self._client.edit, *arguments, **options)

    def edit(self, *arguments: Any, **options: Any) -> Edited:
        """Do as `EditClient.edit`.

        Raises:
            Superseded: Another thread asked for a newer one before this was sent.
            ServingError: As `EditClient.edit`, or this was closed.
        """
        return self._wait(self.submit(*arguments, **options))

    def preview(self, *arguments: Any, **options: Any) -> Edited:
        """Do as `EditClient.preview`.

        Raises:
            Superseded: Another thread asked for a newer one before this was sent.
            ServingError: As `EditClient.preview`, or this was closed.
        """
        return self._wait(self._put(self._client.preview, *arguments, **options))

    def sweep(self, *arguments: Any, **options: Any) -> Edited:
        """Do as `EditClient.sweep`.

        Raises:
            Superseded: Another thread asked for a newer one before this was sent.
            ServingError: As `EditClient.sweep`, or this was closed.
        """
        return self._wait(self._put(self._client.sweep, *arguments, **options))

    def close(self) -> None:
        """Drop what waits, and wait for the one under way; any later edit raises `RequestFailed`."""
        with self._lock:
            self._closed = True
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> LatestWins:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what waits."""
        self.close()

    def _put(self, call: Callable[..., Edited], *arguments: Any, **options: Any) -> Future[Edited]:
        with self._lock:
            if self._closed:
                raise RequestFailed("this slider was closed")
            if self._newest is not None:
                self._newest.cancel()  # does nothing to one that runs or is done
            self._newest = self._thread.submit(call, *arguments, **options)
            return self._newest

    def _wait(self, future: Future[Edited]) -> Edited:
        try:
            return future.result()
        except CancelledError as error:
            with self._lock:
                closed = future is self._newest  # so no newer one took its place
            if closed:
                raise RequestFailed("this slider was closed before the edit was sent") from error
            raise Superseded("a newer edit took the place of this one") from error


class AsyncLatestWins:
    """Sends one client's newest edit; any task of its event loop may ask."""

    def __init__(self, client: AsyncEditClient) -> None:
        """Prepare.

        Args:
            client: Sends the edits.
        """
        self._client = client
        self._busy = False
        self._waiting: asyncio.Future[None] | None = None

    async def edit(self, *arguments: Any, **options: Any) -> Edited:
        """Do as `AsyncEditClient.edit`.

        Raises:
            Superseded: A newer one was asked for before this was sent.
            ServingError: As `AsyncEditClient.edit`.
        """
        return await self._take_turn(lambda: self._client.edit(*arguments, **options))

    async def preview(self, *arguments: Any, **options: Any) -> Edited:
        """Do as `AsyncEditClient.preview`.

        Raises:
            Superseded: A newer one was asked for before this was sent.
            ServingError: As `AsyncEditClient.preview`.
        """
        return await self._take_turn(lambda: self._client.preview(*arguments, **options))

    async def sweep(self, *arguments: Any, **options: Any) -> Edited:
        """Do as `AsyncEditClient.sweep`.

        Raises:
            Superseded: A newer one was asked for before this was sent.
            ServingError: As `AsyncEditClient.sweep`.
        """
        return await self._take_turn(lambda: self._client.sweep(*arguments, **options))

    async def _take_turn(self, call: Callable[[], Awaitable[Edited]]) -> Edited:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(Superseded("a newer edit took the place of this one"))
        if self._busy:
            turn = self._waiting = asyncio.get_running_loop().create_future()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    self._pass_on()  # the turn came and nobody takes it
                raise
        self._busy = True
        try:
            return await call()
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Let the one that waits go; it keeps `_busy` set on behalf of its turn."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        else:
            self._busy = False
