"""The two engines that run other people's networks: LiteRT for `.tflite`, ONNX Runtime for `.onnx`.

Each computes with one thread, on a CPU: the networks here take a millisecond a picture, and the other cores are the
generator's.
"""

from __future__ import annotations

from typing import Any

from latentclr.errors import ScorerError, first_reason
from serving.contract import litert
from serving.contract.errors import NetworkError

MOST_AT_ONCE = 16
"""Pictures in one call of a network with a free batch size; more are no faster, and take memory."""


class LiteNetwork(litert.LiteNetwork):
    """A `.tflite` network, as `serving.contract.litert` runs it; here what is wrong with it is a `ScorerError`."""

    def __init__(self, model: bytes, name: str) -> None:
        """Load it.

        Args:
            model: The file's content.
            name: Of the file, for messages.

        Raises:
            ScorerError: LiteRT is not installed, or does not understand it.
        """
        try:
            super().__init__(model, name)
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
