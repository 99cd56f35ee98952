"""Names of shared-memory regions: they say whose a region is and until when, so that any later client can clear it.

Triton keeps a region until it is told otherwise, and a client that was killed tells nothing. The server's list of
names is then all that is left of it.
"""

from __future__ import annotations

import math
import os
import re
import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

GRACE_S = 60.0
"""Seconds after which a server has surely stopped to write for a request that nobody waits for any more.

Servers of before 2025 unmap a region under a running request, which ends them.
"""
_NAME = re.compile("latentclr_client_" + "([0-9]{1,20})_" * 4 + "[0-9a-f]{32}")


@dataclass(frozen=True)
class Owner:
    """A process, told apart from a later one of the same number.

    Attributes:
        namespace: Inode of its namespace of process numbers (each container has its own); 0 if unknown.
        pid: Its number there.
        start: When it started, in the kernel's ticks since boot; 0 if unknown.
    """

    namespace: int
    pid: int
    start: int

    def is_gone(self) -> bool:
        """Whether it certainly runs no more; False also where that cannot be told from here."""
        if not self.namespace or self.namespace != this_process().namespace:
            return False
        try:
            os.kill(self.pid, 0)  # also true of processes that /proc hides
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            pass
        found = _read_stat(str(self.pid))
        return found is not None and (found[1] in "ZX" or found[2] != self.start)


def this_process() -> Owner:
    """Describe the process that asks, also after a fork."""
    return _describe(os.getpid())


def make_name(until: float) -> str:
    """Make a new name.

    Args:
        until: By `time.monotonic`, which all processes share: after this no request uses the region.
    """
    owner = this_process()
    return f"latentclr_client_{owner.namespace}_{owner.pid}_{owner.start}_{math.ceil(until)}_{uuid.uuid4().hex}"


def is_lost(name: str) -> bool:
    """Whether a region is in nobody's use: its time is over, and it is this process's or a dead one's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    namespace, pid, start, until = map(int, match.groups())
    if time.monotonic() <= until + GRACE_S:
        return False
    owner = Owner(namespace, pid, start)
    return owner == this_process() or owner.is_gone()


@cache
def _describe(pid: int) -> Owner:
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return Owner(0, pid, 0)
    stat = _read_stat("self")
    # Where /proc is another namespace's, its numbers tell nothing about ours.
    return Owner(namespace, pid, stat[2]) if stat is not None and stat[0] == pid else Owner(0, pid, 0)


def _read_stat(process: str) -> tuple[int, str, int] | None:
    """Read number, state and start from /proc; the name between them is in brackets and may hold anything."""
    try:
        number, _, rest = Path(f"/proc/{process}/stat").read_text(errors="replace").partition(" ")
        fields = rest.rpartition(")")[2].split()
        return int(number), fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
