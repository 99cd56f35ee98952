"""The two engines that run other people's networks: LiteRT for `.tflite`, ONNX Runtime for `.onnx`.

Each computes in the thread that asks, on a CPU: the networks here take a millisecond a picture, so the cores have a
picture each (`latentclr.scores.scorer.score`).
"""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentclr.errors import ScorerError, first_reason
from serving.contract import litert
from serving.contract.errors import NetworkError


class LiteNetwork:
    """A `.tflite` network for any number of threads: each that runs it at the same time has a copy of its own."""

    def __init__(self, model: bytes, name: str) -> None:
        """Load it.

        Args:
            model: The file's content.
            name: Of the file, for messages.

        Raises:
            ScorerError: LiteRT is not installed, or does not understand it.
        """
        self._model, self._name = model, name
        self._idle: queue.SimpleQueue[litert.LiteNetwork] = queue.SimpleQueue()
        self._idle.put(self._copy())

    def __call__(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Run it on inputs [N, ...]; return each of its outputs as [N, size]."""
        try:
            network = self._idle.get_nowait()
        except queue.Empty:
            network = self._copy()
        try:
            return network(inputs)
        finally:
            self._idle.put(network)

    def _copy(self) -> litert.LiteNetwork:
        try:
            return litert.LiteNetwork(self._model, self._name)
        except NetworkError as error:
            raise ScorerError(str(error)) from None


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
