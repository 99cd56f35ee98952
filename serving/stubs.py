"""The processes in which Triton's Python backend runs models: one "stub" for each model instance.

Triton 2.51 does not replace a stub that died (killed for its memory, say) and goes on saying that it is ready, so
somebody else has to look. Stubs are known by the name of their shared memory, which stands among their arguments and
is unique to the server; a process group's number could have been reused.
"""

import os
import signal
from pathlib import Path


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
    """End the stubs that outlived their server.

    Args:
        mark: The server's prefix for shared memory.
    """
    for pid in find_stubs(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended meanwhile


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
