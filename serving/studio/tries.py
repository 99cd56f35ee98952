"""Guessing the token is slow: an address has a few wrong tries, and gets one back every few seconds."""

from __future__ import annotations

import time

MOST = 10
"""Wrong tries that an address has."""
BACK_S = 5.0
"""Seconds after which it gets one of them back."""
MOST_ADDRESSES = 1000


class Tries:
    """The wrong tries of late, by address.

    Nobody waits for an answer here: waiting holds connections, and who guesses in parallel does not mind.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._all_back: dict[str, float] = {}  # by address: when it has all of its tries again

    def wait_s(self, address: str) -> float:
        """Seconds until an address may try a token; 0 or less if it may now."""
        return self._all_back.get(address, 0.0) - time.monotonic() - (MOST - 1) * BACK_S

    def wrong(self, address: str) -> None:
        """Count a wrong one."""
        before = self._all_back.pop(address, 0.0)
        if len(self._all_back) >= MOST_ADDRESSES:  # forget the one with the fewest wrong tries
            del self._all_back[min(self._all_back, key=self._all_back.__getitem__)]
        self._all_back[address] = max(time.monotonic(), before) + BACK_S
