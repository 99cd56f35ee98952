"""The memory of this process and its peak, and that of others."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path


def give_back_memory() -> None:
    """Give freed memory back to the system: what loading needed must not count as free room for what comes."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def reset_peak_kib() -> int:
    """Start the peak anew where the system can do that, and return the memory in use."""
    reset = Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # Linux: the high-water mark becomes the present size
        return status_kib("VmRSS")
    except OSError:
        return peak_kib()


def peak_kib() -> int:
    """Return this process's peak so far."""
    # On Linux ru_maxrss also remembers the parent from before the exec, so the kernel's own mark is asked first.
    try:
        return status_kib("VmHWM")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak


def status_kib(key: str, process: int | str = "self") -> int:
    """Return a line of Linux's account of a process, such as `VmRSS`: resident memory, shared pages included.

    Raises:
        OSError: there is no such process or line.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise OSError(f"no {key}")
