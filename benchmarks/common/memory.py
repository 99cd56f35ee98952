"""The memory of this process and its peak, which psutil does not tell."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import psutil


def give_back_memory() -> None:
    """Give freed memory back to the system: what loading needed must not count as free room for what comes."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def reset_peak_kib() -> int:
    """Start the peak anew where the system can do that, and return the memory in use."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark becomes the present size
    except OSError:
        return peak_kib()
    return int(psutil.Process().memory_info().rss) // 1024


def peak_kib() -> int:
    """Return this process's peak so far."""
    # On Linux ru_maxrss also remembers the parent from before the exec, so the kernel's own mark is asked first.
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak
