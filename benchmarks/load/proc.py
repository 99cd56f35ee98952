"""What processes cost, read from Linux's /proc: nothing to install, and it can be asked of processes of others."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """Return the processes that this one started, oldest first."""
    found = []
    for folder in _PROC.glob("[0-9]*"):
        try:
            if int(_stat(int(folder.name))[1]) == pid:
                found.append(int(folder.name))
        except OSError:
            continue  # it ended meanwhile
    return sorted(found)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used so far, in user and in kernel mode, all threads together.

    Raises:
        OSError: there is no such process.
    """
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields behind the program's name, which may hold blanks: state, parent, ..."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
