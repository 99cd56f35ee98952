"""One gRPC connection to one served model, with errors that say what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving.errors import (
    ManifestError,
    ModelUnavailable,
    RequestFailed,
    RequestTimeout,
    ServerUnavailable,
    ServingError,
)
from serving.manifest import Manifest, parse_manifest

_LOOPBACK = ("127.", "localhost", "[::1]", "ipv4:127.", "ipv6:[::1]")
_UNLIMITED = 2**31 - 1


@dataclass(frozen=True)
class Description:
    """What a client has to know of the served model.

    Attributes:
        manifest: The model's own description.
        max_batch_size: Rows a request may have; 0 means that the server sets no limit.
        image: Name of the output that holds the pictures.
        valid: Name of the output that marks good rows.
    """

    manifest: Manifest
    max_batch_size: int
    image: str
    valid: str


class Connection:
    """Asks one model of one server; threads may share it."""

    def __init__(self, url: str, model: str, timeout: float) -> None:
        """Prepare the channel; gRPC connects when it is first used, and again after a loss.

        Args:
            url: `host:port`.
            model: Name of the served model.
            timeout: Seconds to wait for each answer, above 0.

        Raises:
            ServingError: The timeout or the address is not one.
        """
        if not timeout > 0:
            raise ServingError(f"timeout must be above 0 seconds, got {timeout:g}")
        if "://" in url or ":" not in url:
            raise ServingError(f"the url must be host:port of the gRPC interface, got {url!r}")
        self._url, self._model, self._timeout = url, model, timeout
        options: list[tuple[str, int]] = [
            ("grpc.max_send_message_length", _UNLIMITED),
            ("grpc.max_receive_message_length", _UNLIMITED),
        ]
        if url.startswith(_LOOPBACK):
            # gRPC honours http_proxy even for this machine, which no proxy can reach.
            options.append(("grpc.enable_http_proxy", 0))
        self._client: Any = triton.InferenceServerClient(url, channel_args=options)
        self._description: Description | None = None

    def describe(self) -> Description:
        """Read the model's configuration; asked for once.

        Raises:
            ServingError: No server, no such model, not ready, or no usable manifest.
        """
        if self._description is None:
            try:
                answer = self._client.get_model_config(self._model, client_timeout=self._timeout)
            except InferenceServerException as error:
                raise self._explain(error) from error
            self._description = _describe(answer.config)
        return self._description

    def infer(self, arrays: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Run one request.

        Args:
            arrays: Input arrays by name, at most `max_batch_size` rows.

        Returns:
            Pictures [N, H, W, 3] and marks [N, 1].

        Raises:
            ServingError: The server cannot answer or refuses.
        """
        description = self.describe()
        inputs = []
        for name, array in arrays.items():
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        outputs = [triton.InferRequestedOutput(name) for name in (description.image, description.valid)]
        try:
            result = self._client.infer(self._model, inputs, outputs=outputs, client_timeout=self._timeout)
        except InferenceServerException as error:
            raise self._explain(error) from error
        return result.as_numpy(description.image), result.as_numpy(description.valid)

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _explain(self, error: InferenceServerException) -> ServingError:
        """Turn a gRPC status into one line that says what to do."""
        status = str(error.status() or "")
        message = " ".join(str(error.message() or error).split())
        if "UNAVAILABLE" in status or "CANCELLED" in status:
            ready = self._ready_models()
            if ready is None:
                return ServerUnavailable(
                    f"no Triton server answers at {self._url}: it is down, still loading or was killed; "
                    "start one with `latentclr serve --repository model_repository`"
                )
            return ModelUnavailable(f"model {self._model!r} is not ready at {self._url}; {_list(ready)} ({message})")
        if "DEADLINE_EXCEEDED" in status:
            return RequestTimeout(
                f"the server at {self._url} did not answer within {self._timeout:g} s; give it more with timeout"
            )
        if "NOT_FOUND" in status or "unknown model" in message:
            return ModelUnavailable(f"there is no model {self._model!r} at {self._url}; {_list(self._ready_models())}")
        if "Stub process" in message:  # and it stays dead, see `serving.stubs`
            return ServerUnavailable(
                f"the process that runs model {self._model!r} at {self._url} died (out of memory?); "
                "start the server again"
            )
        return RequestFailed(f"the server at {self._url} could not answer: {message}")

    def _ready_models(self) -> list[str] | None:
        """Names of the ready models; None when the server does not answer."""
        try:
            index = self._client.get_model_repository_index(client_timeout=min(self._timeout, 5.0))
        except InferenceServerException:
            return None
        return sorted({entry.name for entry in index.models if entry.state == "READY"})


def _list(ready: list[str] | None) -> str:
    return f"ready models: {', '.join(ready)}" if ready else "no model is ready"


def _describe(config: Any) -> Description:
    """Read a model configuration (Triton's `ModelConfig` message)."""
    if "manifest" not in config.parameters:
        raise ManifestError(f"model {config.name!r} has no manifest; `latentclr export` writes one")
    outputs = [output.name for output in config.output]
    return Description(
        manifest=parse_manifest(config.parameters["manifest"].string_value),
        max_batch_size=int(config.max_batch_size),
        image=_output(outputs, "image"),
        valid=_output(outputs, "valid"),
    )


def _output(names: list[str], base: str) -> str:
    """Find an output by its plain name or by LibTorch's `<name>__<index>`."""
    for name in names:
        if name == base or name.startswith(f"{base}__"):
            return name
    raise ManifestError(f"the served model has no output {base!r}, only {', '.join(names)}")
