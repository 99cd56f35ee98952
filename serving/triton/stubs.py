"""The processes in which Triton's Python backend runs models: one "stub" for each model instance.

Triton 2.51 does not replace a stub that died (killed for its memory, say) and goes on saying that it is ready, so
somebody else has to look. Stubs are known by the name of their shared memory, which stands among their arguments and
is unique to the server; a process group's number could have been reused.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_GONE_S = 5.0


def find_stubs(mark: str) -> dict[int, str]:
    """Find the running stubs of a server.

    Args:
        mark: The server's prefix for shared memory.

    Returns:
        The names of the model instances by process id.
    """
    stubs = {}
    for folder in Path("/proc").glob("[0-9]*"):
        arguments = _arguments(int(folder.name))
        marked = [index for index, argument in enumerate(arguments) if argument.startswith(mark)]
        if marked:
            # PROGRAM MODEL_FILE REGION SIZE GROWTH PARENT FOLDER OFFSET INSTANCE ...
            instance = marked[0] + 6
            stubs[int(folder.name)] = arguments[instance] if instance < len(arguments) else "a model"
    return stubs


def is_stub(pid: int, mark: str) -> bool:
    """Whether this process still is a running stub of the server; a zombie has no arguments and is none."""
    return any(argument.startswith(mark) for argument in _arguments(pid))


def kill_stubs(mark: str) -> None:
    """End the stubs that outlived their server, and wait until the kernel has taken their memory back.

    Args:
        mark: The server's prefix for shared memory.
    """
    deadline = time.monotonic() + _GONE_S
    while stubs := find_stubs(mark):
        for pid in stubs:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
