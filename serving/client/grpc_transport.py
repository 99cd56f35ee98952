"""gRPC through NVIDIA's tritonclient: the blocking transport, and what the asyncio client has in common with it."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.client.address import Address
from serving.client.description import Answer, Description, describe_model
from serving.client.failures import Failure, Kind
from serving.client.shared_memory import Region, Regions
from serving.contract.layout import MAX_ROWS

_UNLIMITED = 2**31 - 1
_KINDS = {
    "UNAVAILABLE": Kind.UNAVAILABLE,
    "CANCELLED": Kind.UNAVAILABLE,  # by the server, which is going down
    "DEADLINE_EXCEEDED": Kind.TIMEOUT,
    "NOT_FOUND": Kind.NOT_FOUND,
    "UNIMPLEMENTED": Kind.FOREIGN,
}


class GrpcTransport:
    """One gRPC channel, which threads may share."""

    def __init__(self, address: Address, regions: Regions | None = None) -> None:
        """Prepare the channel; gRPC connects when it is first used, and again after a loss.

        Args:
            address: Where the server is.
            regions: Shared memory for the pictures, if they should come that way.
        """
        self._client: Any = triton.InferenceServerClient(address.target, channel_args=channel_options(address))
        self._regions = regions

    def describe(self, model: str, timeout: float) -> Description:
        """Read a model's configuration."""
        return read_config(self._call("get_model_config", model, client_timeout=timeout).config)

    def infer(self, model: str, description: Description, arrays: Mapping[str, NDArray[Any]], timeout: float) -> Answer:
        """Run one request."""
        size = len(next(iter(arrays.values()))) * description.image_bytes
        if self._regions is not None and self._regions.worth(size):
            deadline = time.monotonic() + timeout
            region = self._regions.take(size, self._call, timeout)
            timeout = max(deadline - time.monotonic(), 1e-3)
            if region is not None:
                shared = self._infer_shared(self._regions, region, size, model, description, arrays, timeout)
                if shared is not None:
                    return shared
                timeout = max(deadline - time.monotonic(), 1e-3)
        outputs = requested(description)
        result = self._call("infer", model, tensors(arrays), outputs=outputs, client_timeout=timeout)
        return read_answer(result, description)

    def ready_models(self, timeout: float) -> list[str]:
        """List the models that are ready."""
        return ready_names(self._call("get_model_repository_index", client_timeout=timeout))

    def close(self) -> None:
        """Give back the shared memory and the channel."""
        if self._regions is not None:
            self._regions.close(self._call)
        self._client.close()

    def _infer_shared(
        self,
        regions: Regions,
        region: Region,
        size: int,
        model: str,
        description: Description,
        arrays: Mapping[str, NDArray[Any]],
        timeout: float,
    ) -> Answer | None:
        """Let the server write the pictures into a region; None if it does not know the region any more."""
        outputs = requested(description)
        outputs[0].set_shared_memory(region.name, size)
        try:
            result = self._call("infer", model, tensors(arrays), outputs=outputs, client_timeout=timeout)
        except BaseException as error:
            answered = isinstance(error, Failure) and error.kind in (Kind.OTHER, Kind.NOT_FOUND)
            if not answered:  # the server may still write
                regions.abandon(region)
            elif "shared memory region" in str(error):  # a restarted server knows nothing of its predecessor's regions
                regions.forget(region)
                return None
            else:
                regions.put_back(region)
            raise
        pixels = region.read(size)
        regions.put_back(region)
        return read_answer(result, description, pixels)

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self._client, method)(*arguments, **options)
        except InferenceServerException as error:
            raise to_failure(error) from error
        except ValueError as error:  # gRPC's way to say that the channel was closed
            raise Failure(Kind.CLOSED, str(error)) from error


def channel_options(address: Address) -> list[tuple[str, int]]:
    """Return gRPC's settings for a channel."""
    options = [
        ("grpc.max_send_message_length", _UNLIMITED),
        ("grpc.max_receive_message_length", _UNLIMITED),
        # gRPC would wait up to two minutes before it looks again for a server that was away for long.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Else all channels of a process to one address share a connection, and its pauses.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if address.is_loopback:
        # gRPC honours http_proxy even for this machine, which no proxy can reach.
        options.append(("grpc.enable_http_proxy", 0))
    return options


def tensors(arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
    """Wrap arrays for tritonclient."""
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        inputs.append(tensor.set_data_from_numpy(array))
    return inputs


def requested(description: Description) -> list[Any]:
    """Name the outputs, pictures first."""
    return [triton.InferRequestedOutput(name) for name in description.outputs]


def read_config(config: Any) -> Description:
    """Read Triton's `ModelConfig` message."""
    accelerators = config.optimization.execution_accelerators
    named = [*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator]
    return describe_model(
        config.name,
        int(config.max_batch_size),
        {output.name: list(output.dims) for output in config.output},
        config.parameters["manifest"].string_value if "manifest" in config.parameters else None,
        list(config.version_policy.specific.versions),
        config.parameters[MAX_ROWS].string_value if MAX_ROWS in config.parameters else None,
        config.backend,
        [(entry.name, dict(entry.parameters)) for entry in named],
    )


def read_answer(result: Any, description: Description, pixels: NDArray[np.uint8] | None = None) -> Answer:
    """Read tritonclient's result of a request.

    Args:
        result: What the server sent.
        description: The model, as `describe` told.
        pixels: All bytes of the pictures, if they came through shared memory.

    Raises:
        Failure: An output is missing, or its bytes are not of its shape.
    """
    shared = [pixels] + [None] * (len(description.outputs) - 1)  # pictures first
    outputs = tuple(_output(result, name, data) for name, data in zip(description.outputs, shared, strict=True))
    return Answer(outputs, str(result.get_response().model_version))


def _output(result: Any, name: str, data: NDArray[np.uint8] | None) -> NDArray[Any]:
    found = result.get_output(name)
    if found is None:
        raise Failure(Kind.OTHER, f"the answer lacks the output {name!r}")
    try:
        array: NDArray[Any] = result.as_numpy(name) if data is None else data.reshape(tuple(found.shape))
    except (ValueError, struct.error) as error:  # the latter: of texts
        raise Failure(Kind.OTHER, f"the output {name!r} cannot be read: {error}") from error
    return array


def ready_names(index: Any) -> list[str]:
    """Read the ready models from Triton's `RepositoryIndexResponse`."""
    return sorted({entry.name for entry in index.models if entry.state == "READY"})


def to_failure(error: InferenceServerException) -> Failure:
    """Read a gRPC status."""
    status = str(error.status() or "").removeprefix("StatusCode.")
    return Failure(_KINDS.get(status, Kind.OTHER), str(error.message() or error))
