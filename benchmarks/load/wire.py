"""Requests as the bytes that go over the wire, and what a right answer to each looks like.

A load generator that builds every request and every picture anew measures itself: here requests are serialised once,
as perf_analyzer does, and each answer is checked for its shape and its marks, every so often for its pixels too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import np_to_triton_dtype

WORST_STEP = 1  # a batch of another size sums in another order
SERVICE = "/inference.GRPCInferenceService"

Array = NDArray[Any]


@dataclass(frozen=True)
class Prepared:
    """One request and its answer.

    Attributes:
        message: A serialised `ModelInferRequest`.
        image: What a bare session draws, uint8 [N, H, W, 3].
        valid: Which of its rows are good, bool [N].
    """

    message: bytes
    image: Array
    valid: Array

    def fault(self, answer: bytes, pixels: bool) -> str | None:
        """Return what is wrong with a serialised `ModelInferResponse`; None if nothing is.

        Args:
            answer: The bytes that came.
            pixels: Compare the pictures too, not their size alone.
        """
        contents = pb.ModelInferResponse.FromString(answer).raw_output_contents
        if len(contents) != 2 or len(contents[0]) != self.image.size:
            return f"expected 2 outputs, the first of {self.image.size} bytes, got {[len(part) for part in contents]}"
        if contents[1] != self.valid.tobytes():
            return f"expected valid {self.valid.tolist()}, got {list(map(bool, contents[1]))}"
        if not pixels:
            return None
        image = np.frombuffer(contents[0], np.uint8).reshape(self.image.shape)  # [N, H, W, 3]
        worst = int(np.abs(image.astype(np.int16) - self.image.astype(np.int16)).max())
        return (
            f"expected pixels at most {WORST_STEP} step from a bare session's, got {worst}"
            if worst > WORST_STEP
            else None
        )


def serialise(model: str, inputs: dict[str, Array], outputs: Sequence[str]) -> bytes:
    """Return a `ModelInferRequest` as bytes.

    Args:
        model: Name of the served model.
        inputs: Arrays by tensor name.
        outputs: Names of the tensors that are wanted, pictures first.
    """
    request = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    message: bytes = request.SerializeToString()
    return message


def save_requests(requests: Sequence[Prepared], path: Path) -> None:
    """Write requests for `load.generator`, which runs elsewhere."""
    arrays: dict[str, Array] = {}
    for index, request in enumerate(requests):
        arrays[f"message_{index}"] = np.frombuffer(request.message, np.uint8)
        arrays[f"image_{index}"], arrays[f"valid_{index}"] = request.image, request.valid
    np.savez(path, **arrays)


def load_requests(path: Path) -> list[Prepared]:
    """Read what `save_requests` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return [
            Prepared(arrays[f"message_{index}"].tobytes(), arrays[f"image_{index}"], arrays[f"valid_{index}"])
            for index in range(len(arrays.files) // 3)
        ]
