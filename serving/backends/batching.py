"""Run all requests of one execution as one batch, and keep their faults apart.

Triton's dynamic batcher hands several requests to one `execute()`. All backends join them along the batch axis, run
the model once and cut the result; only how the model is run differs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # exists only inside Triton's Python stub
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]


class Signature:
    """Names and types of a model's inputs and outputs, from its configuration.

    A `reshape` needs no work here: Triton's core applies it before the backend sees an input and after it hands out an
    output, so a scalar per row arrives as [N].
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Read the `input` and `output` entries of a model configuration."""
        self.inputs: dict[str, Any] = {entry["name"]: _dtype(entry) for entry in config["input"]}
        self.outputs: dict[str, Any] = {entry["name"]: _dtype(entry) for entry in config["output"]}
        self.batched = int(config.get("max_batch_size", 0)) > 0

    def require(self, inputs: Collection[str], outputs: Collection[str], file: str) -> None:
        """Check that a model has the configured inputs and outputs; a configuration may leave outputs out.

        Args:
            inputs: Names of the model's.
            outputs: The same.
            file: Its name, for the message.

        Raises:
            ValueError: They differ.
        """
        if set(self.inputs) != set(inputs):
            raise ValueError(f"config.pbtxt has inputs {sorted(self.inputs)}, {file} has {sorted(inputs)}")
        if not set(self.outputs) <= set(outputs):
            raise ValueError(f"config.pbtxt has outputs {sorted(self.outputs)}, {file} has {sorted(outputs)}")


def read_config(args: Mapping[str, str]) -> dict[str, Any]:
    """Parse the model configuration that Triton passes to `initialize`."""
    config: dict[str, Any] = json.loads(args["model_config"])
    return config


def model_file(args: Mapping[str, str], config: Mapping[str, Any], default: str) -> Path:
    """Return the file that an instance runs: of its version, by the configuration's name or the backend's own.

    Raises:
        FileNotFoundError: There is none.
    """
    name = config.get("default_model_filename") or default
    path = Path(args["model_repository"]) / args["model_version"] / name
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    return path


def parameter(config: Mapping[str, Any], key: str, default: int) -> int:
    """Read an integer of the configuration's `parameters`.

    Raises:
        ValueError: The value is not an integer; the message names the key.
    """
    entry = config.get("parameters", {}).get(key)
    if entry is None:
        return default
    try:
        return int(entry["string_value"])
    except ValueError:
        raise ValueError(f"parameter {key} must be an integer, got {entry['string_value']!r}") from None


def execute(requests: Sequence[Any], signature: Signature, run: Run) -> list[Any]:
    """Answer every request, with one run of the model where their shapes allow it.

    Args:
        requests: Triton's inference requests.
        signature: The model's inputs and outputs.
        run: Maps input arrays [N, ...] to output arrays [N, ...].

    Returns:
        One response for each request, in order. A request that makes the model raise gets a `TritonError`, and the
        others get their results.
    """
    inputs = [_read(request, signature) for request in requests]
    groups: dict[Any, list[int]] = defaultdict(list)
    for index, arrays in enumerate(inputs):
        # The dynamic batcher already joins only equal shapes; this also holds for any other scheduler.
        key = tuple(array.shape[1:] for array in arrays.values()) if signature.batched else index
        groups[key].append(index)
    responses: list[Any] = [None] * len(requests)
    for members in groups.values():
        results = _run_together([inputs[index] for index in members], run)
        for index, result in zip(members, results, strict=True):
            responses[index] = _respond(requests[index], result, signature)
    return responses


def _run_together(batches: list[Arrays], run: Run) -> list[Arrays | Exception]:
    """Run equal-shaped batches as one; if that raises, run each alone to find out whose fault it was."""
    if len(batches) == 1:
        return [_run_alone(batches[0], run)]
    sizes = [len(next(iter(batch.values()))) for batch in batches]
    try:
        joined = run({name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]})
    except Exception as error:
        pb_utils.Logger.log_warn(f"a batch of {len(batches)} requests failed, running them one by one: {error}")
        return [_run_alone(batch, run) for batch in batches]
    cuts = np.cumsum(sizes)[:-1]
    pieces = {name: np.split(array, cuts) for name, array in joined.items()}
    return [{name: parts[index] for name, parts in pieces.items()} for index in range(len(batches))]


def _run_alone(batch: Arrays, run: Run) -> Arrays | Exception:
    try:
        return run(batch)
    except Exception as error:
        return error


def _read(request: Any, signature: Signature) -> Arrays:
    """Take the request's arrays in the order and type that the configuration promises."""
    arrays = {}
    for name, dtype in signature.inputs.items():
        array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        arrays[name] = np.ascontiguousarray(array, dtype=dtype)
    return arrays


def _respond(request: Any, result: Arrays | Exception, signature: Signature) -> Any:
    if isinstance(result, Exception):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(_one_line(result)))
    wanted = set(request.requested_output_names())
    tensors = [
        pb_utils.Tensor(name, np.ascontiguousarray(result[name], dtype=dtype))
        for name, dtype in signature.outputs.items()
        if name in wanted
    ]
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _dtype(entry: Mapping[str, Any]) -> Any:
    return pb_utils.triton_string_to_numpy(entry["data_type"])
