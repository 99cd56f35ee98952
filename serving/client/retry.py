"""When to try again: only if the server was unavailable, with growing pauses, and never beyond the deadline.

An edit changes nothing on the server, so asking twice is harmless. Nothing else is tried again: a refused request
would be refused again, and a deadline is the caller's last word.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from serving.client.failures import Failure, Kind
from serving.contract.arguments import check_seconds, check_whole
from serving.errors import ServingError

T = TypeVar("T")

FIRST_S, LONGEST_S = 0.1, 2.0


class Attempts:
    """The attempts of one request: how long the next may take, and how long to wait before it."""

    def __init__(self, timeout: float, retries: int) -> None:
        """Start the clock.

        Args:
            timeout: Seconds for all attempts and pauses together.
            retries: Attempts after the first.
        """
        self._deadline = time.monotonic() + timeout
        self._pauses = pauses(retries)

    def left(self) -> float:
        """Seconds until the deadline, above 0 even when it has passed (a transport then times out at once)."""
        return max(self._deadline - time.monotonic(), 1e-3)

    def pause_after(self, failure: Failure) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            Failure: The given one, if there is to be no other attempt.
        """
        pause = next(self._pauses, None) if failure.kind is Kind.UNAVAILABLE else None
        if pause is None or time.monotonic() + pause >= self._deadline:
            raise failure
        return pause


def pauses(retries: int) -> Iterator[float]:
    """Yield the pauses before each further attempt, in seconds: doubled each time, less up to a half.

    The random part keeps clients that lost the same server from coming back all at once.
    """
    for number in range(retries):
        yield min(FIRST_S * 2**number, LONGEST_S) * random.uniform(0.5, 1)


def attempt(call: Callable[[float], T], timeout: float, retries: int) -> T:
    """Call until it works.

    Args:
        call: Gets the seconds that it may take.
        timeout: Seconds for everything.
        retries: Attempts after the first.

    Raises:
        Failure: The last one.
    """
    attempts = Attempts(timeout, retries)
    while True:
        try:
            return call(attempts.left())
        except Failure as failure:
            time.sleep(attempts.pause_after(failure))


def check_patience(timeout: float, retries: int) -> None:
    """Check what a client was given.

    Raises:
        ServingError: The timeout is not above 0, or there are fewer than 0 retries.
    """
    check_timeout(timeout)
    check_whole("retries", retries)
    if retries < 0:
        raise ServingError(f"retries must be at least 0, got {retries}")


def check_timeout(timeout: float) -> float:
    """Check a timeout and return it.

    Raises:
        ServingError: It is no number of seconds, or not above 0.
    """
    check_seconds("timeout", timeout)
    return timeout
