"""Become another program that ends together with the one that started it.

Run as a script in front of Triton: `python -I -S launch.py PARENT_PID PROGRAM ARG...`. The kernel then sends Triton
SIGTERM when the parent dies, however it dies, so a killed `latentclr serve` leaves no server behind that holds its
ports. (A `preexec_fn` would do the same in the forked child, but forking a process in which gRPC threads run is
not safe.) The setting survives `exec`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)  # the parent died before the setting took hold
    os.execv(sys.argv[2], sys.argv[2:])
