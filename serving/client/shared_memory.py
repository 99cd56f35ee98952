"""Pictures through shared memory: the server writes them where this process can see them, on the same machine.

Without it a picture is copied into a gRPC message, through a socket and out again. What that saves is measured by
`benchmarks/client_transport.py`; it takes large batches of large pictures to notice.

A region's file is unlinked as soon as the server has mapped it, so nothing stays in /dev/shm whoever is killed. What
the server has mapped is bounded for each client, and cleared by a later client if its own cannot (`region_names`).
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.client.failures import Failure, Kind
from serving.client.region_names import GRACE_S, is_lost, make_name
from serving.errors import ServingError

logger = logging.getLogger(__name__)

SMALLEST = 512 * 1024
"""Bytes of pictures in one answer from which `auto` uses shared memory."""
_FOLDER = Path("/dev/shm")
_MOST, _MOST_ABANDONED = 16, 8
_LEASE_S, _LONGEST_S = 120.0, 86400.0
_UNREGISTER_S = 5.0
_UNTOLD = (Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.CLOSED)

Call = Callable[..., Any]
"""Calls a method of tritonclient's client by name; raises `Failure` and nothing else."""


@dataclass(frozen=True)
class Region:
    """A piece of memory that the server has mapped too; no request may last longer than `until`, a monotonic time."""

    name: str
    size: int
    memory: mmap.mmap
    generation: int
    until: float

    def read(self, size: int) -> NDArray[np.uint8]:
        """Copy the first bytes out."""
        return np.frombuffer(self.memory, np.uint8, size).copy()


class Regions:
    """The regions of one connection, one for each request under way; threads may share it."""

    def __init__(self, smallest: int, required: bool) -> None:
        """Describe when to use shared memory.

        Args:
            smallest: Bytes of pictures from which it is used.
            required: Whether it is an error if the server does not see this machine's memory.

        Raises:
            ServingError: It is required, and this machine has none.
        """
        self._smallest, self._required = smallest, required
        self._lock = threading.Lock()
        self._idle: list[Region] = []
        self._used: set[str] = set()
        self._abandoned: list[tuple[float, str]] = []  # since when, and the name
        self._generation = 0
        self._usable = _FOLDER.is_dir()
        if required and not self._usable:
            raise ServingError(f"this machine has no shared memory at {_FOLDER}: leave out shared_memory")

    def worth(self, size: int) -> bool:
        """Whether an answer of this size should come through shared memory."""
        return self._usable and size >= self._smallest and size > 0

    def take(self, size: int, call: Call, timeout: float) -> Region | None:
        """Find an idle region that is large enough, or make one and tell the server.

        Args:
            size: Bytes needed.
            call: Asks the server to register a new region.
            timeout: Seconds for that and for the request after it.

        Returns:
            The region; None if the server cannot map it and need not, or has too many of this client.

        Raises:
            ServingError: It must and cannot.
            Failure: The connection was closed.
        """
        now = time.monotonic()
        longest = min(timeout, _LONGEST_S)
        until = now + max(_LEASE_S, 2 * longest)
        name = make_name(until)
        with self._lock:
            for index, region in enumerate(self._idle):
                if region.size >= size and region.until >= now + longest:
                    self._used.add(region.name)
                    return self._idle.pop(index)
            obsolete = self._pop_old_abandoned(now)
            registered = len(self._idle) + len(self._used) + len(self._abandoned)
            room = len(self._abandoned) < _MOST_ABANDONED and registered - bool(self._idle) < _MOST
            if room:
                self._used.add(name)
                if self._idle:  # too small or too old: replaced
                    obsolete.append(self._idle.pop().name)
        self._unregister(obsolete, call, now + timeout)
        return self._make(name, 1 << (size - 1).bit_length(), until, call, now + timeout) if room else None

    def _make(self, name: str, size: int, until: float, call: Call, deadline: float) -> Region | None:
        path = _FOLDER / name
        try:
            memory = _create(path, size)
        except OSError as error:
            self._drop(name)
            self._give_up(f"cannot make shared memory: {error.strerror}")
            return None
        try:
            call("register_system_shared_memory", name, f"/{name}", size, client_timeout=_left(deadline, _LONGEST_S))
        except BaseException as error:
            memory.close()
            kind = error.kind if isinstance(error, Failure) else None
            if kind in (None, *_UNTOLD):
                self._abandon(name)  # the server may have done it all the same
            else:
                self._drop(name)
            if not isinstance(error, Failure) or kind is Kind.CLOSED:
                raise
            if "is restricted" in error.message:
                self._give_up("the server takes no shared memory; start it with `latentclr serve --shared-memory`")
            elif kind not in _UNTOLD:  # else the request itself will say so
                self._give_up(f"the server cannot map this machine's shared memory: {error.message}")
            return None
        finally:
            path.unlink(missing_ok=True)
        region = Region(name, size, memory, self._generation, until)
        try:
            _clear_lost(call, deadline)
        except BaseException:
            self.put_back(region)
            raise
        return region

    def put_back(self, region: Region) -> None:
        """Keep a region for the next request."""
        with self._lock:
            self._used.discard(region.name)
            if region.generation == self._generation:
                self._idle.append(region)

    def abandon(self, region: Region) -> None:
        """Never use a region again: the server may still write to it.

        It is unregistered after `GRACE_S`. While there are many such regions no further ones are made: the pictures
        come over gRPC.
        """
        self._abandon(region.name)

    def forget(self, region: Region) -> None:
        """Drop a region and all idle and abandoned ones: the server that knew them is gone."""
        with self._lock:
            self._generation += 1
            self._used.discard(region.name)
            self._idle.clear()
            self._abandoned.clear()

    def close(self, call: Call) -> None:
        """Tell the server to unmap what no request uses; the rest is cleared by later clients."""
        with self._lock:
            names = [region.name for region in self._idle] + self._pop_old_abandoned(time.monotonic())
            self._idle, self._generation = [], self._generation + 1
        self._unregister(names, call, time.monotonic() + _UNREGISTER_S)

    def _abandon(self, name: str) -> None:
        logger.debug("abandoned shared memory region %s", name)
        with self._lock:
            self._used.discard(name)
            self._abandoned.append((time.monotonic(), name))

    def _drop(self, name: str) -> None:
        with self._lock:
            self._used.discard(name)

    def _pop_old_abandoned(self, now: float) -> list[str]:
        old = [name for since, name in self._abandoned if now - since > GRACE_S]
        self._abandoned = [(since, name) for since, name in self._abandoned if now - since <= GRACE_S]
        return old

    def _unregister(self, names: list[str], call: Call, deadline: float) -> None:
        """Tell the server to unmap regions; what it could not be told is told later."""
        for index, name in enumerate(names):
            if not _unregister(name, call, deadline):
                for left in names[index:]:  # the server is gone or hangs, and each further one would wait as long
                    self._abandon(left)
                return

    def _give_up(self, reason: str) -> None:
        if self._required:
            raise ServingError(f"{reason}; leave out shared_memory, or use the server's machine")
        logger.debug("no shared memory: %s", reason)
        self._usable = False


def _create(path: Path, size: int) -> mmap.mmap:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.posix_fallocate(handle, 0, size)  # a full /dev/shm is an error here, not a SIGBUS later
        return mmap.mmap(handle, size)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _clear_lost(call: Call, deadline: float) -> None:
    """Unregister what this process and dead ones left; the server has just shown that it is on this machine."""
    try:
        names = list(call("get_system_shared_memory_status", client_timeout=_left(deadline)).regions)
    except Failure as failure:
        logger.debug("could not list shared memory: %s", failure)
        return
    for name in filter(is_lost, names):
        logger.debug("clearing lost shared memory region %s", name)
        if not _unregister(name, call, deadline):
            return


def _unregister(name: str, call: Call, deadline: float) -> bool:
    """Tell the server to unmap a region; False if it could not be told."""
    try:
        call("unregister_system_shared_memory", name, client_timeout=_left(deadline))
    except Failure as failure:
        logger.debug("could not unregister %s: %s", name, failure)
        return failure.kind not in _UNTOLD
    return True


def _left(deadline: float, most: float | None = None) -> float:
    """Seconds for one call, above 0."""
    return min(max(deadline - time.monotonic(), 1e-3), _UNREGISTER_S if most is None else most)
