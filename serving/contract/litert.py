"""The engine that runs other people's `.tflite` networks, on one thread: each takes a millisecond a picture."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import NetworkError

_GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate"
_screen = threading.Lock()  # over file descriptor 2


class LiteNetwork:
    """A `.tflite` network with one float32 input [1, ...], for one thread at a time.

    It is run on a picture at a time, which is as fast as many at once, and keeps them out of each other's sums.
    """

    def __init__(self, model: bytes, name: str) -> None:
        """Load it.

        Args:
            model: The file's content.
            name: Of the file, for messages.

        Raises:
            NetworkError: LiteRT is not installed, or does not understand it.
        """
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise NetworkError(f"{name} needs LiteRT: run `pip install 'latentclr[faces]'`") from None
        try:
            with without_greeting():
                self._interpreter: Any = Interpreter(model_content=model, num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise NetworkError(f"{name} cannot be run: {' '.join(str(error).split())[:200]}") from None
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Run it on inputs [N, ...]; return each of its outputs as [N, size]."""
        rows = []
        for row in inputs:
            self._interpreter.set_tensor(self._input, row[None])
            self._interpreter.invoke()
            rows.append([self._interpreter.get_tensor(index).reshape(-1) for index in self._outputs])
        return tuple(np.stack(output) for output in zip(*rows, strict=True))


@contextlib.contextmanager
def without_greeting() -> Iterator[None]:
    """Keep LiteRT's line about its XNNPACK delegate from the screen, and nothing else.

    It goes from C++ to file descriptor 2, once a process, and LiteRT's Python package has no switch for it. What else
    is written there meanwhile, by whatever thread, follows at the end.
    """
    with _screen:
        sys.stderr.flush()
        try:
            screen = os.dup(2)
        except OSError:  # there is none
            yield
            return
        with tempfile.TemporaryFile() as kept:
            os.dup2(kept.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(screen, 2)
                os.close(screen)
                kept.seek(0)
                for line in kept:
                    if not line.startswith(_GREETING):
                        os.write(2, line)
