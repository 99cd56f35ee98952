"""The two engines that run other people's networks: LiteRT for `.tflite`, ONNX Runtime for `.onnx`.

Each computes with one thread, on a CPU: the networks here take a millisecond a picture, and the other cores are the
generator's.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentclr.errors import ScorerError, first_reason

MOST_AT_ONCE = 16
"""Pictures in one call of a network with a free batch size; more are no faster, and take memory."""
_GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate"


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
            ScorerError: LiteRT is not installed, or does not understand it.
        """
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise ScorerError(f"{name} needs LiteRT: run `pip install 'latentclr[faces]'`") from None
        try:
            with _without_greeting():
                self._interpreter: Any = Interpreter(model_content=model, num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ScorerError(f"{name} cannot be run: {first_reason(error)}") from None
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
def _without_greeting() -> Iterator[None]:
    """Keep LiteRT's line about its XNNPACK delegate from the screen, and nothing else.

    It goes from C++ to file descriptor 2, once a process, and LiteRT's Python package has no switch for it. What else
    is written there meanwhile, by whatever thread, follows at the end.
    """
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


def onnx_session(model: bytes | str, name: str) -> Any:
    """Make a session of ONNX Runtime.

    Args:
        model: The file's content; its path where its numbers lie in other files, and the caller has checked where.
        name: Of the file, for messages.

    Raises:
        ScorerError: ONNX Runtime is not installed, or cannot run it.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise ScorerError(f"{name} needs ONNX Runtime: run `pip install 'latentclr[cpu]'`") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what matters is raised
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own types, and RuntimeError and ValueError of its parser
        raise ScorerError(f"{name} cannot be run: {first_reason(error)}") from None
