"""Pictures through shared memory: the server writes them where this process can see them, on the same machine.

Without it a picture is copied into a gRPC message, through a socket and out again. What that saves is measured by
`benchmarks/client_transport.py`; it takes large batches of large pictures to notice.

A region's file is unlinked as soon as the server has mapped it, so nothing stays in /dev/shm whoever is killed.
"""

import logging
import mmap
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.failures import Failure, Kind

logger = logging.getLogger(__name__)

SMALLEST = 512 * 1024
"""Bytes of pictures in one answer from which `auto` uses shared memory."""
_FOLDER = Path("/dev/shm")
_MOST_ABANDONED = 8
_UNREGISTER_S = 5.0

Call = Callable[..., Any]
"""Calls a method of tritonclient's client by name; raises `Failure` and nothing else."""


@dataclass(frozen=True)
class Region:
    """A piece of memory that the server has mapped too."""

    name: str
    size: int
    memory: mmap.mmap
    generation: int

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
        """
        self._smallest, self._required = smallest, required
        self._lock = threading.Lock()
        self._idle: list[Region] = []
        self._generation = 0
        self._abandoned = 0
        self._usable = _FOLDER.is_dir()

    def worth(self, size: int) -> bool:
        """Whether an answer of this size should come through shared memory."""
        return self._usable and size >= self._smallest and size > 0

    def take(self, size: int, call: Call, timeout: float) -> Region | None:
        """Find an idle region that is large enough, or make one and tell the server.

        Args:
            size: Bytes needed.
            call: Asks the server to register a new region.
            timeout: Seconds for that.

        Returns:
            The region; None if the server cannot map it and need not.

        Raises:
            ServingError: It must and cannot.
            Failure: The connection was closed.
        """
        with self._lock:
            for index, region in enumerate(self._idle):
                if region.size >= size:
                    return self._idle.pop(index)
            small = self._idle.pop() if self._idle else None
        if small is not None:  # replaced by a larger one, so that there are never more than requests under way
            _unregister(small, call)
        size = 1 << (size - 1).bit_length()
        name = f"latentclr_client_{uuid.uuid4().hex}"
        path = _FOLDER / name
        try:
            memory = _create(path, size)
        except OSError as error:
            self._give_up(f"cannot make shared memory: {error.strerror}")
            return None
        try:
            call("register_system_shared_memory", name, f"/{name}", size, client_timeout=timeout)
        except Failure as failure:
            memory.close()
            if failure.kind is Kind.CLOSED:
                raise
            if "is restricted" in failure.message:
                self._give_up("the server takes no shared memory; start it with `latentclr serve --shared-memory`")
            elif failure.kind not in (Kind.UNAVAILABLE, Kind.TIMEOUT):  # else the request itself will say so
                self._give_up(f"the server cannot map this machine's shared memory: {failure.message}")
            return None
        finally:
            path.unlink(missing_ok=True)
        return Region(name, size, memory, self._generation)

    def put_back(self, region: Region) -> None:
        """Keep a region for the next request."""
        with self._lock:
            if region.generation == self._generation:
                self._idle.append(region)

    def abandon(self, region: Region) -> None:
        """Never use a region again: the server may still write to it.

        It is not unregistered either, since old servers then unmap it under a running request. After some of these
        the memory that they hold is worth more than the time that shared memory saves.
        """
        logger.debug("abandoned shared memory region %s", region.name)
        with self._lock:
            self._abandoned += 1
            if self._abandoned >= _MOST_ABANDONED and not self._required:
                self._usable = False

    def forget(self) -> None:
        """Drop all idle regions: the server that knew them is gone."""
        with self._lock:
            self._generation += 1
            self._idle.clear()

    def close(self, call: Call) -> None:
        """Tell the server to unmap the idle regions."""
        with self._lock:
            idle, self._idle, self._generation = self._idle, [], self._generation + 1
        for region in idle:
            if not _unregister(region, call):
                return  # the server is gone or hangs, and each further one would wait as long

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


def _unregister(region: Region, call: Call) -> bool:
    """Tell the server to unmap a region; False if it could not be told."""
    try:
        call("unregister_system_shared_memory", region.name, client_timeout=_UNREGISTER_S)
    except Failure as failure:
        logger.debug("could not unregister %s: %s", region.name, failure)
        return False
    return True
