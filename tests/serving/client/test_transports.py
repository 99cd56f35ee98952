"""HTTP, shared memory, retries and deadlines: the same pictures and the same errors whatever carries them."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_client import draw
from test_server import wait_until
from tiny_editor import MANIFEST, L, assert_close, expected
from tritonclient.utils import InferenceServerException

from serving import EditClient, TritonServer
from serving.client.address import Address, parse_address
from serving.client.description import Description, describe_model
from serving.client.failures import Failure, Kind
from serving.client.http_transport import HttpTransport, _read_tensors
from serving.client.region_names import this_process
from serving.client.retry import LONGEST_S, attempt, pauses
from serving.contract.manifest import parse_manifest
from serving.errors import InvalidEdit, ModelUnavailable, RequestFailed, RequestTimeout, ServerUnavailable, ServingError

WAYS: dict[str, dict[str, Any]] = {"grpc": {}, "http": {}, "shared": {"shared_memory": True}}


def connect(server: TritonServer, way: str, model: str = "latent_edit", **options: Any) -> EditClient:
    url = server.http_url if way == "http" else server.grpc_url
    return EditClient(url, model, **WAYS[way], **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", ["latent_edit", "latent_edit_torchscript"])
def test_pictures_equal_numpy_and_each_other(server: TritonServer, way: str, model: str) -> None:
    with connect(server, way, model) as client, connect(server, "grpc", model) as other:
        for rows, edits in ((1, 1), (3, 2), (8, 1), (20, 2), (2, 1)):
            request = draw(rows, edits, seed=rows)
            images = client.edit_rows(*request).images
            assert_close(images, expected(*request))
            np.testing.assert_array_equal(images, other.edit_rows(*request).images)
            images[:] = 0  # the caller's own


@pytest.mark.parametrize("way", ["http", "shared"])
def test_threads_share_a_client(server: TritonServer, way: str) -> None:
    requests = [draw(1 + index % 5, 1 + index % 3, seed=index) for index in range(40)]
    with connect(server, way) as client, ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda request: client.edit_rows(*request), requests))
    for request, result in zip(requests, results, strict=True):
        assert_close(result.images, expected(*request))


def test_classes_over_http(server: TritonServer) -> None:
    with connect(server, "http", "conditional") as client:
        rows, numbers = draw(9, 2), np.arange(9) % 2
        assert_close(client.edit_rows(*rows, numbers).images, expected(*rows, numbers))


def test_http_keeps_one_connection(server: TritonServer) -> None:
    with connect(server, "http") as client:
        transport: Any = client._connection._transport
        client.edit(seed=1)
        first = transport._idle[0].sock
        for seed in range(5):
            client.edit(seed=seed)
        assert [connection.sock for connection in transport._idle] == [first]


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_errors_are_typed_and_one_line(server: TritonServer, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(server, way, "nothing") as client, pytest.raises(ModelUnavailable) as caught:
        client.edit(seed=1)
    assert "there is no model 'nothing'" in str(caught.value)
    assert "latent_edit, latent_edit_torchscript" in str(caught.value)
    with connect(server, way, "together") as client:
        assert client.manifest
        with pytest.raises(RequestTimeout, match=r"within 0\.02 s"):
            client.edit(seed=1, timeout=0.02)
        assert client.edit(seed=1).images.any()
    with connect(server, way, "fragile") as client:
        z, direction, alpha = draw(1, 1)
        arrays = {"z": z, "direction": direction + 99, "alpha": alpha}
        with pytest.raises(RequestFailed, match="out of data bounds"):
            client._connection.infer(client._connection.describe(), arrays)
        with pytest.raises(RequestFailed, match=r"unexpected inference input 'w'|expected 3 inputs but got 1"):
            client._connection.infer(client._connection.describe(), {"w": z})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("used", [True, False])
def test_a_closed_client_says_so(server: TritonServer, way: str, used: bool) -> None:
    closed = connect(server, way)
    assert closed.manifest
    if used:
        closed.edit(seed=1)
    for _ in range(2):
        closed.close()
        with pytest.raises(RequestFailed, match="this client was closed"):
            closed.edit(seed=1)
        with pytest.raises(RequestFailed, match="this client was closed"):
            closed.refresh()
    # Of this process: other tests run beside it.
    assert not list(Path("/dev/shm").glob(f"latentclr_client_*_{os.getpid()}_*"))


@pytest.mark.parametrize("url", ["127.0.0.1:9", "http://127.0.0.1:9"])
def test_nobody_there(url: str) -> None:
    with EditClient(url, retries=1) as client, pytest.raises(ServerUnavailable, match="latentclr serve") as caught:
        client.edit(seed=1)
    assert "\n" not in str(caught.value)


def test_the_error_names_row_field_range_and_value(client: EditClient) -> None:
    z, direction, alpha = draw(4, 2)
    direction[2, 1] = 7
    with pytest.raises(InvalidEdit, match=r"row 2: direction must be in \[0, 3\), got 7") as caught:
        client.edit_rows(z, direction, alpha)
    error = caught.value
    assert (error.row, error.field, error.limits, error.value) == (2, "direction", (0, 3), 7)
    alpha[1, 0, 1] = np.nan
    with pytest.raises(InvalidEdit) as caught:
        client.edit_rows(z, direction % 3, alpha)
    assert (caught.value.row, caught.value.field, caught.value.limits) == (1, "alpha", None)
    with pytest.raises(InvalidEdit) as caught:
        client.edit(seed=1, edits={5: 1.0})
    assert (caught.value.row, caught.value.field, caught.value.limits) == (None, "direction", (0, 3))


@pytest.mark.parametrize(
    ("url", "protocol", "wanted"),
    [
        ("a:1", None, Address("grpc", "a:1")),
        ("grpc://a:1", None, Address("grpc", "a:1")),
        ("a:1", "http", Address("http", "http://a:1")),
        ("http://a:1/triton/", None, Address("http", "http://a:1/triton")),
        ("http://[::1]:1", "http", Address("http", "http://[::1]:1")),
    ],
)
def test_addresses(url: str, protocol: str | None, wanted: Address) -> None:
    assert parse_address(url, protocol) == wanted


@pytest.mark.parametrize(
    ("target", "here"),
    [
        ("localhost:8001", True), ("127.9.9.9:8001", True), ("[::1]:8001", True), ("http://127.0.0.1:80/a:1", True),
        ("ipv4:127.0.0.1:8001", True), ("ipv6:[::1]:8001", True), ("localhost.example.org:8001", False),
        ("127.example.org:8001", False), ("http://localhost@example.org:80", False), ("10.0.0.1:8001", False),
    ],
)  # fmt: skip
def test_this_machine_is_told_by_the_whole_name(target: str, here: bool) -> None:
    """For others no shared memory is tried and no proxy passed by."""
    assert Address("grpc", target).is_loopback is here


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("a", None),
        ("https://a:1", None),
        ("http://a:1", "grpc"),
        ("a:1", "tcp"),
        ("http://a:x", None),
        ("http://:1", None),
    ],
)
def test_bad_addresses(url: str, protocol: str | None) -> None:
    with pytest.raises(ServingError):
        parse_address(url, protocol)


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"shared_memory": "often"},
        {"shared_memory": 1},
        {"shared_memory": 0},
        {"shared_memory": True, "protocol": "http"},
    ],
)
def test_bad_options(options: Any) -> None:
    with pytest.raises(ServingError):
        EditClient("127.0.0.1:1", **options)


class TestRetries:
    def test_pauses_grow_and_differ(self) -> None:
        found = [list(pauses(8)) for _ in range(20)]
        for number, column in enumerate(zip(*found, strict=True)):
            longest = min(0.1 * 2**number, LONGEST_S)
            assert all(longest / 2 <= pause <= longest for pause in column)
            assert len(set(column)) > 1

    @pytest.mark.parametrize("kind", list(Kind))
    def test_only_unavailable_is_tried_again(self, kind: Kind) -> None:
        calls: list[float] = []

        def fail(left: float) -> None:
            calls.append(left)
            raise Failure(kind, "no")

        with pytest.raises(Failure):
            attempt(fail, timeout=5, retries=2)
        assert len(calls) == (3 if kind is Kind.UNAVAILABLE else 1)
        assert calls == sorted(calls, reverse=True)

    def test_never_beyond_the_deadline(self) -> None:
        def fail(left: float) -> None:
            raise Failure(Kind.UNAVAILABLE, "no")

        start = time.monotonic()
        with pytest.raises(Failure):
            attempt(fail, timeout=0.3, retries=1000)
        assert time.monotonic() - start < 0.5


class Odd(http.server.BaseHTTPRequestHandler):
    """A web server that is not Triton."""

    protocol_version = "HTTP/1.1"
    status, body, promised, trickle = 200, b"{}", None, 0.0
    delay = head_trickle = 0.0
    requests, says_close, json_length = 0, False, ""

    def do_GET(self) -> None:
        type(self).requests += 1
        time.sleep(self.delay)
        for _ in range(20 if self.head_trickle else 0):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(self.head_trickle)
        self.send_response(self.status)
        if self.says_close:
            self.send_header("Connection", "close")
        if self.json_length:
            self.send_header("Inference-Header-Content-Length", self.json_length)
        self.send_header("Content-Length", str(len(self.body) if self.promised is None else self.promised))
        self.end_headers()
        step = 1 if self.trickle else len(self.body) or 1
        for start in range(0, len(self.body), step):
            try:
                self.wfile.write(self.body[start : start + step])
            except OSError:  # the client did not wait
                break
            time.sleep(self.trickle)
        self.close_connection = True  # without a word to the client

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def odd_server(**attributes: Any) -> Iterator[tuple[str, type[Odd]]]:
    handler = type("Handler", (Odd,), attributes)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.block_on_close = False  # a handler may sleep for longer than the test
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", handler
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({}, ServerUnavailable, "is a web server .* and not Triton"),
        ({"body": b"<html>"}, ServerUnavailable, "is a web server .* and not Triton"),
        ({"status": 500, "body": b"oops"}, ServerUnavailable, "is a web server .* and not Triton"),
        ({"status": 502, "body": b""}, ServerUnavailable, "no Triton server answers"),
        ({"promised": 10}, ServerUnavailable, "is a web server .* and not Triton"),
        ({"body": b"x" * 500, "trickle": 0.01}, RequestTimeout, "within 0.3 s"),
    ],
)
def test_a_server_that_is_not_triton(attributes: Any, error: type[ServingError], message: str) -> None:
    with odd_server(**attributes) as (url, _), EditClient(url, timeout=0.3, retries=1) as client:
        start = time.monotonic()
        with pytest.raises(error, match=message):
            client.edit(seed=1)
        assert time.monotonic() - start < 2


class Pours(Odd):
    """Says less of its answer than it sends, and goes on for ever."""

    def do_GET(self) -> None:
        self.send_response(200)
        if self.json_length:
            self.send_header("Inference-Header-Content-Length", self.json_length)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                type(self).sent += self.wfile.write(b" " * (1 << 20))

    sent = 0


@pytest.mark.parametrize("header", ["", "7"])
def test_an_answer_without_an_end_is_not_kept(header: str) -> None:
    """Also one that says to bring pictures where none were asked for."""
    with odd_server(do_GET=Pours.do_GET, do_POST=Pours.do_GET, sent=0, json_length=header) as (url, handler):
        with EditClient(url, timeout=30, retries=0) as client:
            transport: Any = client._connection._transport
            with pytest.raises(Failure, match="the answer must be at most 16777216 bytes"):
                transport.ready_models(30)
        assert handler.sent < 64 << 20  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 9_000, b"[" + b"0," * 60_000 + b"0]", b"9" * 5000])
def test_answers_that_are_no_json_of_ours(body: bytes) -> None:
    with odd_server(body=body) as (url, _), EditClient(url, timeout=30, retries=0) as client:
        transport: Any = client._connection._transport
        with pytest.raises(Failure) as caught:
            transport.ready_models(30)
        assert caught.value.kind == Kind.FOREIGN
        assert len(str(caught.value)) < 200


def test_pictures_are_bounded_by_what_was_asked_for() -> None:
    manifest = parse_manifest(json.dumps(MANIFEST))
    description = Description("latent_edit", manifest, 8, ("image", "valid"), 192)
    arrays = dict(zip(("z", "direction", "alpha"), draw(2, 1), strict=True))
    with odd_server(do_POST=Pours.do_GET, sent=0, json_length="7") as (url, handler):
        transport = HttpTransport(parse_address(url))
        with pytest.raises(Failure, match=f"the answer must be at most {(16 << 20) + 2 * 192} bytes"):
            transport.infer("latent_edit", description, arrays, 30)
    assert handler.sent < 64 << 20  # type: ignore[attr-defined]


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x", "\u00b2"])
def test_a_length_that_is_none_is_not_read(length: str) -> None:
    """Python refuses to read so many digits, with an error of its own."""
    with odd_server(body=INDEX, json_length=length) as (url, _):
        assert ready(url, 5) == [["a"]]


@pytest.mark.parametrize("size", ["1e999", "-1", '"x"', "[]", "9" * 5000])
def test_a_binary_answer_that_lies_about_its_tensors(size: str) -> None:
    output = f'"name": "image", "datatype": "UINT8", "shape": [1, 4], "parameters": {{"binary_data_size": {size}}}'
    head = f'{{"outputs": [{{{output}}}]}}'.encode()
    with pytest.raises(Failure) as caught:
        _read_tensors(len(head), head + b"\0" * 4)
    assert caught.value.kind == Kind.FOREIGN


def test_an_idle_connection_that_was_closed_is_no_failure() -> None:
    with odd_server(body=INDEX) as (url, handler):
        with EditClient(url, retries=0) as client:
            transport: Any = client._connection._transport
            for _ in range(4):
                assert transport.ready_models(5) == ["a"]
                time.sleep(0.02)
        assert handler.requests == 4


INDEX = json.dumps([{"name": "a", "state": "READY"}]).encode()


def ready(url: str, *timeouts: float) -> list[list[str]]:
    with EditClient(url, retries=0) as client:
        transport: Any = client._connection._transport
        return [transport.ready_models(timeout) for timeout in timeouts]


def test_each_call_has_its_own_deadline_after_connection_close() -> None:
    with odd_server(body=INDEX, says_close=True, delay=0.5) as (url, handler):
        with EditClient(url, retries=0) as client:
            transport: Any = client._connection._transport
            with pytest.raises(Failure) as caught:
                transport.ready_models(0.1)
            assert caught.value.kind is Kind.TIMEOUT
            assert transport.ready_models(60) == ["a"]
            with pytest.raises(Failure) as caught:  # not the 60 seconds of the call before
                transport.ready_models(0.1)
            assert caught.value.kind is Kind.TIMEOUT
            assert transport.ready_models(60) == ["a"]
        assert handler.requests == 4


@pytest.mark.parametrize("way", [{"trickle": 0.2}, {"head_trickle": 0.2}, {"delay": 3.0}], ids=str)
@pytest.mark.parametrize("says_close", [True, False])
def test_a_deadline_is_for_everything(way: dict[str, float], says_close: bool) -> None:
    with odd_server(body=INDEX, says_close=says_close, **way) as (url, _):
        start = time.monotonic()
        with pytest.raises(Failure) as caught:
            ready(url, 0.5)
        took = time.monotonic() - start
    assert caught.value.kind is Kind.TIMEOUT
    assert 0.4 < took < 5


def test_a_server_that_closes_every_connection_is_asked_on_new_ones() -> None:
    with odd_server(body=INDEX, says_close=True) as (url, handler):
        assert ready(url, 5, 5, 5) == [["a"]] * 3
        assert handler.requests == 3


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_never_answers(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"127.0.0.1:{mute.getsockname()[1]}"
        with EditClient(url, timeout=0.3, protocol=protocol) as client:
            start = time.monotonic()
            with pytest.raises((RequestTimeout, ServerUnavailable)):
                client.edit(seed=1)
            assert time.monotonic() - start < 2


class TestSharedMemory:
    def regions(self, client: EditClient) -> Any:
        transport: Any = client._connection._transport
        return transport._regions

    def registered(self, client: EditClient) -> set[str]:
        transport: Any = client._connection._transport
        return set(transport._client.get_system_shared_memory_status().regions)

    def test_nothing_is_left(self, server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "serving.client.shared_memory._UNREGISTER_S", 60.0
        )  # a busy machine's server is slow to answer
        me = this_process()
        with connect(server, "grpc") as other, connect(server, "shared") as client:
            before = self.registered(other)  # the server is other tests' too
            client.edit(seed=1)
            assert len(self.regions(client)._idle) == 1
            mine = f"latentclr_client_{me.namespace}_{me.pid}_{me.start}_*"  # others may draw on this machine as well
            assert not list(Path("/dev/shm").glob(mine))
            assert len(self.registered(other) - before) == 1
            # A server that has answered holds a region for a moment longer, and now and then does not let go of one
            # that is taken from it then: a later client clears that. After another answer it is done with the first.
            other.edit(seed=2)
            client.edit(z=np.zeros((8, 4)))  # needs a larger region, which takes the place of the first
            wait_until(lambda: len(self.registered(other) - before) == 1, 60)
            other.edit(seed=2)
            client.close()
            wait_until(lambda: not self.registered(other) - before, 60)

    def test_auto_is_for_large_answers(self, server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
        with EditClient(server.grpc_url) as client:
            client.edit(seed=1)
            assert not self.regions(client)._idle
        monkeypatch.setattr("serving.client.shared_memory.SMALLEST", 100)
        with EditClient(server.grpc_url, shared_memory="auto") as client:
            client.edit(seed=1)
            assert self.regions(client)._idle

    def test_a_server_that_forgot(self, server: TritonServer) -> None:
        with connect(server, "shared") as client:
            wanted = client.edit(seed=1).images
            transport: Any = client._connection._transport
            for patience in (0.1, 0.5, 2.0, 0.0):  # Triton lets go of a region a moment after its answer is here
                try:
                    transport._client.unregister_system_shared_memory()  # as a restart does
                    break
                except InferenceServerException:
                    if not patience:
                        raise
                    time.sleep(patience)
            np.testing.assert_array_equal(client.edit(seed=1).images, wanted)
            np.testing.assert_array_equal(client.edit(seed=1).images, wanted)
            assert len(self.regions(client)._idle) == 1

    def test_a_server_that_sees_other_memory(
        self, server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("serving.client.shared_memory._FOLDER", tmp_path)
        monkeypatch.setattr("serving.client.shared_memory.SMALLEST", 1)
        with EditClient(server.grpc_url, shared_memory="auto") as client:
            assert client.edit(seed=1).images.any()
            assert not self.regions(client)._usable
        with connect(server, "shared") as client, pytest.raises(ServingError, match="cannot map"):
            client.edit(seed=1)
        assert not list(tmp_path.iterdir())

    def test_a_machine_without_shared_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("serving.client.shared_memory._FOLDER", tmp_path / "none")
        with pytest.raises(ServingError, match=r"has no shared memory at .*none: leave out shared_memory"):
            EditClient("127.0.0.1:8001", shared_memory=True)
        EditClient("127.0.0.1:8001", shared_memory="auto").close()

    def test_a_configuration_that_leaves_the_size_open(self) -> None:
        """As one may that is written by hand: the manifest says it too."""
        described = describe_model("m", 8, {"image": [-1, -1, 3], "valid": [1]}, json.dumps(MANIFEST))
        assert described.image_bytes == 8 * 8 * 3

    def test_a_region_of_a_timed_out_request_is_not_used_again(self, server: TritonServer) -> None:
        with connect(server, "shared", "together") as client:
            client.edit(seed=1)
            with pytest.raises(RequestTimeout):
                client.edit(seed=1, timeout=0.02)
            assert not self.regions(client)._idle
            z, direction, alpha = draw(1, 1)
            assert_close(client.edit_rows(z, direction, alpha).images, expected(z, direction, alpha))


def test_refresh_asks_again(client: EditClient) -> None:
    before = client.manifest
    assert client.refresh() == before
    assert client.manifest is not before


def test_the_description_is_asked_for_again_after_a_loss(client: EditClient, monkeypatch: pytest.MonkeyPatch) -> None:
    transport: Any = client._connection._transport
    infer: Callable[..., Any] = transport.infer
    lost = [True]

    def once_lost(*arguments: Any) -> Any:
        if lost:
            lost.pop()
            raise Failure(Kind.UNAVAILABLE, "gone")
        return infer(*arguments)

    monkeypatch.setattr(transport, "infer", once_lost)
    before = client.manifest
    images = client.edit(seed=3, edits={1: np.full(L, 1.0).tolist()}).images
    assert images.any()
    assert client.manifest is not before


@pytest.mark.triton
def test_the_benchmark_runs() -> None:
    root = Path(__file__).parents[3]
    options = ["--pixels", "8", "--batch", "2", "--runs", "2"]
    command = [sys.executable, str(root / "benchmarks" / "client_transport.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=root)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["results"]
    assert [row["way"] for row in rows] == ["grpc", "grpc, shared memory", "http"]
