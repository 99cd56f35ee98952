"""Keeping an embedded Triton alive: an old release, which a single request can bring down."""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.errors import ServerUnavailable, ServingError
from serving.triton.server import TritonServer

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


def keep_alive(triton: TritonServer, say: Callable[[str], None]) -> None:
    """Look at an embedded Triton once; start it again if it died, with growing pauses, for as long as that takes.

    Args:
        triton: A server that was ready before.
        say: Tells the user what happens.
    """
    try:
        triton.check_alive()
        return
    except ServerUnavailable as error:
        say(f"{error}; starting Triton again")
    pause = _FIRST_PAUSE_S
    while True:
        try:
            triton.stop()
            triton.start()  # on the same ports, so that the client finds it
            triton.wait_ready()
            say("Triton is back")
            return
        except ServingError as error:
            say(f"{error}; trying again in {pause:g} s")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
