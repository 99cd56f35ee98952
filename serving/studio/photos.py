"""The photos that the studio was given: in memory alone, within bounds, each under a name that nobody can guess."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from serving.client.client import EditClient
from serving.client.photos import Inverted
from serving.client.refine import Step, refine
from serving.contract.photo_record import MOST_REFINED
from serving.studio.failures import UnknownPhoto

MOST = 16
"""Photos at once; the one that was used longest ago makes room."""
MOST_BYTES = 512 * 2**20
"""Of their pixels together, if there is more than one."""


@dataclass(eq=False)
class HeldPhoto:
    """One of them.

    Attributes:
        key: Its name.
        inverted: The photo with the best code so far.
        psnr: Of that code's unedited picture against the photo's, in dB; None if nobody compared them.
        face: Which of its faces was chosen, from left to right; None if there was no choice.
    """

    key: str
    inverted: Inverted
    psnr: float | None
    face: int | None
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _steps: Iterator[Step] | None = field(default=None, repr=False)

    def refine(self, client: EditClient) -> None:
        """Do one more step of refinement; those who ask at once take turns.

        Args:
            client: Talks to the model whose encoder found the code.

        Raises:
            InvalidEdit: The code is too large for this.
            ServingError: The server cannot answer; the code stays as it is.
        """
        with self._turn:
            try:
                if self._steps is None:
                    self._steps = refine(client, self.inverted, MOST_REFINED)
                    next(self._steps)  # where it begins
                step = next(self._steps)
            except Exception:
                self._steps = None  # it ended with its error, and would now say nothing more
                raise
            self.inverted, self.psnr = step.inverted, step.psnr

    def found_again(self, before: Inverted, now: Inverted) -> None:
        """Take a code that another encoder found, unless there is a newer one."""
        with self._turn:
            if self.inverted is before:
                self.inverted, self.psnr, self._steps = now, None, None


class Photos:
    """The photos that were used last, within the bounds; threads may share them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._held: dict[str, HeldPhoto] = {}  # the one that was used last comes last

    def add(self, inverted: Inverted, psnr: float, face: int | None) -> HeldPhoto:
        """Hold one more; the ones that were used longest ago make room."""
        held = HeldPhoto(secrets.token_urlsafe(16), inverted, psnr, face)
        with self._lock:
            self._held[held.key] = held
            while len(self._held) > 1 and (len(self._held) > MOST or self._bytes() > MOST_BYTES):
                self._held.pop(next(iter(self._held)))
        return held

    def get(self, key: str) -> HeldPhoto:
        """Return one, which counts as used.

        Raises:
            UnknownPhoto: It is not held, or not any more.
        """
        with self._lock:
            if key not in self._held:
                raise UnknownPhoto("the studio does not hold this photo any more: choose it again")
            self._held[key] = held = self._held.pop(key)
            return held

    def remove(self, key: str) -> None:
        """Forget one; nothing happens if it is not held."""
        with self._lock:
            self._held.pop(key, None)

    def _bytes(self) -> int:
        return sum(held.inverted.photo.pixels.nbytes for held in self._held.values())
