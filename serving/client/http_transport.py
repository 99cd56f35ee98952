"""HTTP with Triton's binary tensor extension, in nothing but the standard library: works where gRPC cannot go."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from serving.client.address import Address
from serving.client.description import Answer, Description, describe_model
from serving.client.failures import Failure, Kind
from serving.contract.documents import read_json
from serving.contract.layout import MAX_ROWS

_TYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
_DTYPES: dict[str, Any] = {"UINT8": np.uint8, "BOOL": np.bool_, "FP32": np.dtype("<f4")}
_KINDS = {404: Kind.NOT_FOUND, 502: Kind.UNAVAILABLE, 503: Kind.UNAVAILABLE, 504: Kind.TIMEOUT}
_CHUNK = 1 << 20
_LARGEST_JSON = 1 << 24  # bytes of an answer without pictures; a configuration holds the manifest as a text
_HEADER = "Inference-Header-Content-Length"
_LENGTH = re.compile("[0-9]{1,12}")


class HttpTransport:
    """HTTP/1.1 connections that are kept open: one for each request under way; threads may share it."""

    def __init__(self, address: Address) -> None:
        """Prepare; nothing is connected until it is used.

        Args:
            address: Where the server is.
        """
        parts = urlsplit(address.target)
        self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._closed = False

    def describe(self, model: str, timeout: float) -> Description:
        """Read a model's configuration."""
        config = _json(self._ask("GET", f"/v2/models/{quote(model, safe='')}/config", timeout)[1])
        try:
            accelerators = config.get("optimization", {}).get("execution_accelerators", {})
            named = [
                entry for kind in ("gpu", "cpu") for entry in accelerators.get(f"{kind}_execution_accelerator", [])
            ]
            return describe_model(
                config["name"],
                int(config["max_batch_size"]),
                {output["name"]: [int(size) for size in output["dims"]] for output in config["output"]},
                config.get("parameters", {}).get("manifest", {}).get("string_value"),
                config.get("version_policy", {}).get("specific", {}).get("versions", []),
                config.get("parameters", {}).get(MAX_ROWS, {}).get("string_value"),
                str(config.get("backend", "")),
                [(entry["name"], entry.get("parameters", {})) for entry in named],
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Failure(Kind.FOREIGN, f"its description of {model!r} cannot be read: {error!r}") from error

    def infer(self, model: str, description: Description, arrays: Mapping[str, NDArray[Any]], timeout: float) -> Answer:
        """Run one request."""
        head = {
            "inputs": [
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": _TYPES[array.dtype.name],
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for name, array in arrays.items()
            ],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in description.outputs],
        }
        text = json.dumps(head).encode()
        body = b"".join([text, *(array.tobytes() for array in arrays.values())])
        headers = {_HEADER: str(len(text)), "Content-Type": "application/octet-stream"}
        path = f"/v2/models/{quote(model, safe='')}/infer"
        rows = len(next(iter(arrays.values())))
        pictures = rows * description.image_bytes
        length, answer = self._ask("POST", path, timeout, body, headers, pictures)
        results, version = _read_tensors(length, answer)
        try:
            return Answer(tuple(results[name] for name in description.outputs), version)
        except KeyError as error:
            raise Failure(Kind.OTHER, f"the answer lacks the output {error}") from error

    def ready_models(self, timeout: float) -> list[str]:
        """List the models that are ready."""
        index = _json(self._ask("POST", "/v2/repository/index", timeout)[1])
        if not isinstance(index, list):
            raise Failure(Kind.FOREIGN, "its list of models is none")
        try:
            return sorted({str(entry["name"]) for entry in index if entry.get("state") == "READY"})
        except (KeyError, TypeError, AttributeError) as error:
            raise Failure(Kind.FOREIGN, f"its list of models cannot be read: {error!r}") from error

    def close(self) -> None:
        """Close the connections; those in use close when their answer is there."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(
        self,
        method: str,
        path: str,
        timeout: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        pictures: int = 0,
    ) -> tuple[int | None, bytes]:
        """Send a request, which is answered with so many bytes of pictures.

        Returns:
            The length of the answer's JSON part, None if it is all JSON, and the answer.
        """
        deadline = time.monotonic() + timeout
        while True:
            connection, kept = self._take()
            try:
                connection.begin(deadline)
                status, length, answer = _exchange(connection, method, self._path + path, body, headers or {}, pictures)
            except TimeoutError as error:
                connection.close()
                raise Failure(Kind.TIMEOUT, str(error)) from error
            except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last: a host that can be no name
                connection.close()
                if kept and isinstance(error, ConnectionError):
                    continue  # the server had closed an idle connection, which says nothing about the server
                raise Failure(Kind.UNAVAILABLE, f"{type(error).__name__}: {error}") from error
            except BaseException:
                connection.close()
                raise
            self._put_back(connection)
            if status != 200:
                raise _refusal(status, answer)
            return length, answer

    def _take(self) -> tuple[_Connection, bool]:
        with self._lock:
            if self._closed:
                raise Failure(Kind.CLOSED, "closed")
            if self._idle:
                return self._idle.pop(), True
        return _Connection(self._host, self._port), False

    def _put_back(self, connection: _Connection) -> None:
        if connection.sock is None:
            return  # the answer said `Connection: close`
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


class _Socket(socket.socket):
    """A socket with a deadline for everything that is done with it, where a timeout is for a single read.

    The deadline lies here since nobody else is there from the first byte to the last: after `Connection: close`,
    `http.client` lets go of the socket while the answer is still being read.
    """

    deadline: float

    def connect(self, address: Any) -> None:
        self.settimeout(_left(self.deadline))
        super().connect(address)

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(_left(self.deadline))
        super().sendall(*arguments)  # the timeout is for all of it

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(_left(self.deadline))
        return super().recv_into(*arguments)


class _Connection(http.client.HTTPConnection):
    """A connection that serves one exchange at a time, each with a deadline of its own."""

    sock: _Socket | None
    auto_open = 0  # opened by `begin` and by nobody else

    def begin(self, deadline: float) -> None:
        """Make ready for an exchange that ends at this time of the monotonic clock."""
        if self.sock is not None:
            self.sock.deadline = deadline
            return
        failure: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            opened = _Socket(family, kind, protocol)
            opened.deadline = deadline
            try:
                opened.connect(address)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                opened.close()
                failure = error
                continue
            self.sock = opened
            return
        raise failure or OSError(f"{self.host} has no address")


def _exchange(
    connection: _Connection, method: str, path: str, body: bytes | None, headers: Mapping[str, str], pictures: int
) -> tuple[int, int | None, bytes]:
    connection.request(method, path, body, dict(headers))
    response = connection.getresponse()
    parts = []
    with contextlib.closing(response):  # which may be all that still holds the socket
        length = response.getheader(_HEADER, "")
        most = _LARGEST_JSON + (pictures if response.status == 200 else 0)
        size = 0
        while part := response.read(_CHUNK):  # by pieces: what is promised may be more than the memory
            parts.append(part)
            size += len(part)
            if size > most:
                raise Failure(Kind.FOREIGN, f"the answer must be at most {most} bytes")
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
    return response.status, int(length) if _LENGTH.fullmatch(length) else None, b"".join(parts)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


def _json(text: bytes) -> Any:
    try:
        return read_json(text, _LARGEST_JSON)
    except ValueError as error:
        raise Failure(Kind.FOREIGN, f"the answer {error}") from error


def _read_tensors(length: int | None, answer: bytes) -> tuple[dict[str, NDArray[Any]], str]:
    """Cut an answer, JSON and then bytes one after another, into arrays by name and the model's version."""
    if length is None:
        raise Failure(Kind.FOREIGN, "the answer has no binary part")
    head, start, arrays = _json(answer[:length]), length, {}
    try:
        version = str(head.get("model_version") or "")
        for output in head["outputs"]:
            size = int(output["parameters"]["binary_data_size"])
            flat = np.frombuffer(answer[start : start + size], _DTYPES[output["datatype"]])
            arrays[str(output["name"])] = flat.reshape(output["shape"])
            start += size
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise Failure(Kind.FOREIGN, f"the answer cannot be read: {error!r}") from error
    return arrays, version


def _refusal(status: int, answer: bytes) -> Failure:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return Failure(_KINDS.get(status, Kind.OTHER), str(read_json(answer)["error"]))
    kind = Kind.FOREIGN if status == 404 else _KINDS.get(status, Kind.FOREIGN)  # Triton would have said why
    return Failure(kind, f"HTTP status {status}")
