"""Faults against a real server: nothing crashes, errors are typed, and other clients' answers stay right."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from test_client import draw, infer_raw
from test_server import wait_until
from tiny_editor import D, K, L, add_model, assert_close, config, expected, save_onnx
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving import AsyncEditClient, EditClient, TritonServer
from serving.contract.lock import alone
from serving.errors import ModelUnavailable, RequestFailed, ServerStartError, ServerUnavailable, ServingError
from serving.triton.ports import Ports

FREE = Ports(0, 0, 0)


class Checker:
    """A well-behaved client that asks all the time and compares every answer with numpy's."""

    def __init__(self, url: str) -> None:
        self.answers, self.problems = 0, list[str]()
        self._url, self._stop = url, threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Checker:
        self._thread.start()
        wait_until(lambda: self.answers > 0 or bool(self.problems))
        return self

    def __exit__(self, *_: object) -> None:
        seen = self.answers
        try:
            wait_until(lambda: self.answers > seen + 2 or bool(self.problems))  # it lives after the fault, too
        finally:
            self._stop.set()
            self._thread.join()
        assert self.problems == []

    def _ask(self) -> None:
        with EditClient(self._url, timeout=10) as client:
            while not self._stop.is_set():
                request = draw(1 + self.answers % 3, 1 + self.answers % 2, seed=self.answers)
                try:
                    assert_close(client.edit_rows(*request).images, expected(*request))
                except (ServingError, AssertionError) as error:
                    self.problems.append(repr(error))
                    return
                self.answers += 1
                time.sleep(0.002)


@pytest.fixture
def checked(server: TritonServer) -> Iterator[TritonServer]:
    """The shared server, with a checker at work."""
    with Checker(server.grpc_url):
        yield server
    server.check_alive()


def send(url: str, model: str = "latent_edit", **arrays: Any) -> Any:
    """Send whatever arrays are given, nothing checked."""
    with triton.InferenceServerClient(url) as connection:
        inputs = []
        for name, array in arrays.items():
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            inputs.append(tensor.set_data_from_numpy(array))
        return connection.infer(model, inputs, client_timeout=20)


Z, DIRECTION, ALPHA = draw(2, 2)


@pytest.mark.parametrize(
    "arrays",
    [
        {"z": Z.astype(np.float64), "direction": DIRECTION, "alpha": ALPHA},
        {"z": Z, "direction": DIRECTION.astype(np.float32), "alpha": ALPHA},
        {"z": Z.astype(np.int64), "direction": DIRECTION, "alpha": ALPHA},
        {"z": Z[:, :3], "direction": DIRECTION, "alpha": ALPHA},
        {"z": Z[0], "direction": DIRECTION, "alpha": ALPHA},
        {"z": Z[:1], "direction": DIRECTION, "alpha": ALPHA},
        {"z": Z, "direction": DIRECTION, "alpha": np.zeros((2, 3, L), np.float32)},
        {"z": Z, "direction": DIRECTION, "alpha": ALPHA[..., :1]},
        {"z": Z, "direction": DIRECTION},
        {"z": Z, "direction": DIRECTION, "alpha": ALPHA, "surprise": Z},
        {
            "z": np.zeros((9, D), np.float32),
            "direction": np.zeros((9, 1), int),
            "alpha": np.zeros((9, 1, L), np.float32),
        },
        {"z": np.array([[b"text"] * D] * 2, object), "direction": DIRECTION, "alpha": ALPHA},
    ],
    ids=["z64", "direction32", "z_int", "z_short", "z_flat", "rows", "m", "l", "missing", "extra", "batch", "bytes"],
)
def test_wrong_types_and_shapes_are_refused(checked: TritonServer, arrays: dict[str, Any]) -> None:
    with pytest.raises(InferenceServerException):
        send(checked.grpc_url, **arrays)


def test_values_out_of_range_blacken_their_row_alone(checked: TritonServer) -> None:
    z, direction, alpha = draw(8, 3)
    direction[0, 0], direction[1, 2], direction[2, 1] = K, -1, np.iinfo(np.int64).min
    z[3, 0], alpha[4, 1, 0], alpha[5, 0, 1] = np.nan, np.inf, -np.inf
    images, valid = infer_raw(checked.grpc_url, "latent_edit", z, direction, alpha)
    assert valid.reshape(-1).tolist() == [False] * 6 + [True] * 2
    assert not images[:6].any()
    assert_close(images[6:], expected(z[6:], direction[6:], alpha[6:]))


def test_very_many_edits(checked: TritonServer) -> None:
    request = draw(2, 20_000)
    request[2][:] *= 1e-3
    with EditClient(checked.grpc_url) as client:
        assert client.edit_rows(*request).images.shape == (2, 8, 8, 3)


def test_no_edits_at_all(checked: TritonServer) -> None:
    z, direction, alpha = draw(2, 1)
    images, valid = infer_raw(checked.grpc_url, "latent_edit", z, direction[:, :0], alpha[:, :0])  # an empty sum
    assert valid.all()
    assert_close(images, expected(z, direction[:, :0], alpha[:, :0]))


def raw(port: int, data: bytes, read: bool = True) -> bytes:
    """Write bytes to a port and read what comes, if anything."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        try:
            connection.sendall(data)
            connection.settimeout(0.3)
            while read and (part := connection.recv(65536)):
                answer += part
        except OSError:
            pass  # it may hang up on us, or say nothing
    return answer


JUNK = np.random.RandomState(0).bytes(10 << 20)
POST = b"POST /v2/models/latent_edit/infer HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "data",
    [
        JUNK,
        POST + b"Content-Length: %d\r\n\r\n" % len(JUNK) + JUNK,
        POST + b"Inference-Header-Content-Length: 100\r\nContent-Length: %d\r\n\r\n" % len(JUNK) + JUNK,
        POST + b"Content-Length: 100\r\n\r\n" + b'{"inputs": [',
        POST + b"Inference-Header-Content-Length: 50\r\nContent-Length: 7\r\n\r\n{} junk",
        POST + b"Content-Length: 2\r\n\r\n[]",
        POST + b"Content-Length: -5\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\nx",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + JUNK[:100_000],
    ],
    ids=["junk", "junk_body", "junk_binary", "half", "header", "list", "negative", "chunk", "http2"],
)
@pytest.mark.parametrize("port", ["http", "grpc"])
def test_junk_on_the_wire(checked: TritonServer, data: bytes, port: str) -> None:
    answer = raw(getattr(checked.ports, port), data, read=len(data) < 1000)
    assert b" 200 " not in answer.split(b"\r\n", 1)[0]


def test_http_bodies_that_lie_about_their_tensors(checked: TritonServer) -> None:
    import http.client
    import json

    def post(head: Any, tail: bytes = b"") -> int:
        text = json.dumps(head).encode()
        connection = http.client.HTTPConnection("127.0.0.1", checked.ports.http, timeout=10)
        try:
            headers = {"Inference-Header-Content-Length": str(len(text))}
            connection.request("POST", "/v2/models/latent_edit/infer", text + tail, headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def inputs(**z: Any) -> Any:
        plain = {"name": "z", "shape": [1, D], "datatype": "FP32", "data": [0.0] * D}
        direction = {"name": "direction", "shape": [1, 1], "datatype": "INT64", "data": [0]}
        alpha = {"name": "alpha", "shape": [1, 1, L], "datatype": "FP32", "data": [0.0] * L}
        return {"inputs": [{**plain, **z}, direction, alpha]}

    assert post(inputs()) == 200
    for z in (
        {"shape": [1, -4]}, {"shape": [2**40, 2**40]}, {"shape": [1, D], "data": [0.0]}, {"datatype": "BYTES"},
        {"data": ["a"] * D}, {"data": None}, {"datatype": "FP99"}, {"name": ""}, {"shape": "x"},
    ):  # fmt: skip
        assert post(inputs(**z)) >= 400, z
    for size in (4 * D - 1, 4 * D + 1, 2**31, -1):
        assert post(inputs(data=[], parameters={"binary_data_size": size}), b"\0" * 4 * D) >= 400, size


def test_clients_that_leave_in_the_middle(checked: TritonServer) -> None:
    z, direction, alpha = draw(4, 2)
    for delay in (0.0, 0.001, 0.05):  # this model's queue waits 200 ms, so they are gone before it runs
        connection = triton.InferenceServerClient(checked.grpc_url)
        inputs = []
        for name, array in (("z", z), ("direction", direction), ("alpha", alpha)):
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            inputs.append(tensor.set_data_from_numpy(array))
        for _ in range(5):
            connection.async_infer("together", inputs, callback=lambda result, error: None)
        time.sleep(delay)
        connection.close()
        raw(checked.ports.http, POST + b"Content-Length: 1000\r\n\r\n{", read=False)
    with EditClient(checked.grpc_url, "together") as client:
        assert_close(client.edit_rows(z, direction, alpha).images, expected(z, direction, alpha))


def test_slow_clients_hold_up_nobody(checked: TritonServer) -> None:
    slow = [socket.create_connection(("127.0.0.1", checked.ports.http)) for _ in range(30)]
    slow += [socket.create_connection(("127.0.0.1", checked.ports.grpc)) for _ in range(30)]
    try:
        for connection in slow[:30]:
            connection.sendall(POST + b"Content-Length: 1000\r\n\r\n")
        for connection in slow[30:]:
            connection.sendall(b"PRI * HTTP/2.0\r\n")
        for _ in range(5):
            for connection in slow[:30]:
                connection.sendall(b" ")
        request = draw(3, 1)
        for url in (checked.grpc_url, checked.http_url):
            with EditClient(url, timeout=5) as client:
                assert_close(client.edit_rows(*request).images, expected(*request))
    finally:
        for connection in slow:
            connection.close()


@pytest.fixture
def one_model(tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    save_onnx(add_model(repository, "latent_edit", config("latent_edit")) / "model.onnx")
    return repository


@pytest.mark.triton
def test_a_killed_server_gives_typed_errors_and_clients_recover(one_model: Path) -> None:
    server = TritonServer(one_model, ports=FREE, shared_memory=True)
    stop, outcomes = threading.Event(), list[tuple[float, str]]()

    def load(url: str, **options: Any) -> None:
        with EditClient(url, timeout=5, retries=1, **options) as client:
            number = 0
            while not stop.is_set():
                request = draw(2, 1, seed=number)
                number += 1
                try:
                    assert_close(client.edit_rows(*request).images, expected(*request))
                    outcomes.append((time.monotonic(), "right"))
                except ServerUnavailable:
                    outcomes.append((time.monotonic(), "unavailable"))
                except Exception as error:
                    outcomes.append((time.monotonic(), repr(error)))

    def seen(outcome: str, since: float) -> int:
        return sum(kind == outcome for at, kind in list(outcomes) if at > since)

    server.start()
    threads: list[threading.Thread] = []
    try:
        server.wait_ready()
        ways: list[tuple[str, dict[str, Any]]] = [
            (server.grpc_url, {}), (server.grpc_url, {"shared_memory": True}), (server.http_url, {})
        ]  # fmt: skip
        threads = [threading.Thread(target=load, args=(url,), kwargs=options) for url, options in ways]
        with EditClient(server.grpc_url, timeout=30, retries=60) as patient:
            patient.edit(seed=1)
            for thread in threads:
                thread.start()
            wait_until(lambda: seen("right", 0) > 30)
            assert server.pid is not None
            killed = time.monotonic()
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: seen("unavailable", killed) > 3)
            server.stop()
            again = threading.Timer(0.3, server.start)  # on the same ports
            again.start()
            request = draw(3, 2)
            assert_close(patient.edit_rows(*request).images, expected(*request))  # waited for it
            again.join()
            back = time.monotonic()
            wait_until(lambda: seen("right", back) > 30)
        stop.set()
        for thread in threads:
            thread.join()
        assert {kind for _, kind in outcomes} == {"right", "unavailable"}
        last_failure = max(at for at, kind in outcomes if kind == "unavailable")
        assert last_failure - back < 3  # all of them, not only one
    finally:
        stop.set()
        for thread in threads:
            if thread.is_alive():
                thread.join()
        server.stop()


@pytest.mark.triton
def test_asyncio_clients_get_typed_errors_of_a_killed_server_and_recover(one_model: Path) -> None:
    async def work(server: TritonServer) -> None:
        stop, outcomes = asyncio.Event(), list[str]()

        async def load(client: AsyncEditClient, index: int) -> None:
            for number in itertools.count(100 * index):
                if stop.is_set():
                    return
                request = draw(2, 1, seed=number)
                try:
                    assert_close((await client.edit_rows(*request)).images, expected(*request))
                    outcomes.append("right")
                except ServerUnavailable:
                    outcomes.append("unavailable")
                    await asyncio.sleep(0.01)
                except Exception as error:
                    outcomes.append(repr(error))

        async def until(outcome: str, more: int) -> None:
            wanted = outcomes.count(outcome) + more
            while outcomes.count(outcome) < wanted:
                assert set(outcomes) <= {"right", "unavailable"}
                await asyncio.sleep(0.01)

        async with AsyncEditClient(server.grpc_url, timeout=5, retries=1) as client:
            tasks = [asyncio.create_task(load(client, index)) for index in range(4)]
            await until("right", 20)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await until("unavailable", 4)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)  # on the same ports
            await until("right", 20)
            stop.set()
            await asyncio.gather(*tasks)
        assert set(outcomes) == {"right", "unavailable"}

    with TritonServer(one_model, ports=FREE) as server:
        asyncio.run(asyncio.wait_for(work(server), 60))


def truncated(model: Path) -> None:
    data = (model / "1" / "model.onnx").read_bytes()
    (model / "1" / "model.onnx").write_bytes(data[: len(data) // 2])


def random_bytes(model: Path) -> None:
    (model / "1" / "model.onnx").write_bytes(JUNK[:10_000])


def missing_file(model: Path) -> None:
    (model / "1" / "model.onnx").unlink()


def empty_version(model: Path) -> None:
    (model / "2").mkdir()


@pytest.mark.slow
@pytest.mark.triton
def test_a_half_written_version_does_not_disturb_the_one_that_is_served(one_model: Path) -> None:
    model = one_model / "latent_edit"
    (model / ".tmp-2").mkdir()
    shutil.copy(model / "1" / "model.onnx", model / ".tmp-2" / "model.onnx")
    with TritonServer(one_model, ports=FREE, poll_s=1) as server:
        assert server.log_path is not None
        log = server.log_path

        def refusals() -> int:
            return log.read_text(errors="replace").count("failed to load 'latent_edit' version 2")

        with Checker(server.grpc_url):
            empty_version(model)  # somebody copies it file by file
            wait_until(lambda: refusals() > 0)
            (model / "2" / "model.onnx").write_bytes((model / "1" / "model.onnx").read_bytes()[:500])
            wait_until(lambda: refusals() > 1)
        with Checker(server.grpc_url):
            shutil.copy(model / "1" / "model.onnx", model / "2" / "model.onnx")  # and now it is whole
            wait_until(lambda: "successfully loaded 'latent_edit'" in log.read_text().rpartition("failed to load")[2])
        with triton.InferenceServerClient(server.grpc_url) as connection:
            assert [entry.version for entry in connection.get_model_repository_index().models
                    if entry.state == "READY"] == ["2"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.triton
def test_an_unfinished_model_is_named(one_model: Path) -> None:
    (one_model / ".tmp-abc" / "latent_edit" / "2").mkdir(parents=True)
    with alone(one_model):  # by an export that is at work; of one that was killed it is removed
        with pytest.raises(ServerStartError, match=r"\.tmp-abc") as caught, TritonServer(one_model, ports=FREE):
            pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [truncated, random_bytes, missing_file, empty_version])
@pytest.mark.triton
def test_a_damaged_model_is_named_in_one_line(one_model: Path, damage: Callable[[Path], None]) -> None:
    damage(one_model / "latent_edit")
    server = TritonServer(one_model, ports=FREE)
    with pytest.raises(ServerStartError, match="model 'latent_edit' failed to load: ") as caught, server:
        pass
    assert "\n" not in str(caught.value)
    assert server.pid is None


def test_a_request_for_a_model_that_is_not_there_harms_nobody(checked: TritonServer) -> None:
    for model in ("nothing", "../latent_edit", "latent_edit/versions/9", "", "\N{SNOWMAN}" * 1000):
        for url in (checked.grpc_url, checked.http_url):
            with EditClient(url, model) as client, pytest.raises((ModelUnavailable, RequestFailed)):
                client.edit(seed=1)
