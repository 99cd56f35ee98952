"""Who holds connections or guesses tokens keeps nobody else out: tried over real sockets on the real web server."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from serving.studio import patience, security, tries
from serving.studio.runner import WebServer
from serving.studio.security import COOKIE, Policy

TOKEN = "correct horse battery staple"
ENOUGH_S = 20.0  # for an answer, on a busy machine; what starves takes for ever
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "
NO_BODY = (
    b"POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
)


@pytest.fixture
def lone(open_studio: Any, tmp_path: Any) -> Iterator[Any]:
    """A studio without a model server."""
    with open_studio("127.0.0.1:9", tmp_path / "catalog.yaml") as running:
        yield running


@pytest.fixture
def locked(open_studio: Any, tmp_path: Any) -> Iterator[Any]:
    """The same with a token."""
    with open_studio("127.0.0.1:9", tmp_path / "catalog.yaml", policy=Policy(token=TOKEN)) as running:
        yield running


@pytest.fixture
def connect() -> Iterator[Any]:
    """Open connections that the test need not close."""
    with ExitStack() as stack:

        def one(port: int, source: str = "127.0.0.1") -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", port), ENOUGH_S, (source, 0))
            return stack.enter_context(connection)

        yield one


def port_of(studio: Any) -> int:
    return int(httpx.URL(studio.url).port or 0)


def is_closed(connection: socket.socket, within_s: float) -> bool:
    """Whether the server closes a connection in time, without an answer."""
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def client(url: str, source: str) -> httpx.Client:
    return httpx.Client(base_url=url, transport=httpx.HTTPTransport(local_address=source), timeout=ENOUGH_S)


# ---- connections


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD, NO_BODY])
@pytest.mark.parametrize("sources", [("127.0.0.1",), ("127.0.0.1", "127.0.0.2", "127.0.0.3")])
def test_idle_connections_keep_no_request_out(
    lone: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, sent: bytes, sources: tuple[str, ...]
) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 600.0)  # room is made when it is needed, not when time is over
    monkeypatch.setattr(security, "_BODY_S", 600.0)
    for number in range(205):
        try:
            connect(port_of(lone), sources[number % len(sources)]).sendall(sent)
        except ConnectionError:
            pass  # it has made room already
    for source in ("127.0.0.1", "127.0.0.9"):
        with client(lone.url, source) as http:
            assert http.get("/static/app.js").status_code == 200


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD])
def test_headers_that_do_not_come_are_given_up(
    lone: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.3)
    connection = connect(port_of(lone))
    connection.sendall(sent)
    assert is_closed(connection, ENOUGH_S)


def test_headers_may_not_come_byte_by_byte(lone: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.5)
    connection, end = connect(port_of(lone)), time.monotonic() + ENOUGH_S
    connection.sendall(HALF_A_HEAD)
    while not is_closed(connection, 0.1):
        assert time.monotonic() < end
        try:
            connection.sendall(b"x")
        except ConnectionError:
            return


def test_a_connection_is_kept_between_requests(lone: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.3)
    connection = connect(port_of(lone))
    for pause_s in (0.0, 0.8):  # longer than the headers may take
        time.sleep(pause_s)
        connection.sendall(b"HEAD /static/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 ")
    connection.sendall(HALF_A_HEAD)  # and here they count again
    assert is_closed(connection, ENOUGH_S)


def test_another_address_has_fewer_connections(lone: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 600.0)
    monkeypatch.setattr(patience, "is_loopback", lambda address: False)
    connections = [connect(port_of(lone)) for _ in range(patience.MOST_REMOTE + 2)]
    assert all(is_closed(connection, ENOUGH_S) for connection in connections[:2])  # those that waited longest
    assert not any(is_closed(connection, 0.01) for connection in connections[2:])


def test_requests_that_are_being_answered_are_not_cut_off(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MOST_LOOPBACK", 3)
    begun, go_on = [], asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(asyncio.get_running_loop())
        await go_on.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with WebServer(app, "127.0.0.1", 0) as web:
        working = [connect(web.port) for _ in range(3)]
        for connection in working:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        end = time.monotonic() + ENOUGH_S
        while len(begun) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        assert is_closed(connect(web.port), ENOUGH_S)
        begun[0].call_soon_threadsafe(go_on.set)
        assert all(connection.recv(65536).startswith(b"HTTP/1.1 204") for connection in working)


def test_an_answer_that_is_not_read_is_given_up(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "UNREAD_S", 0.3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with WebServer(app, "127.0.0.1", 0) as web:
        connection = connect(web.port)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1.5)
        received = 0
        try:
            while chunk := connection.recv(1 << 20):
                received += len(chunk)
        except ConnectionError:
            pass
        assert received < 100_000_000


# ---- guesses


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_wrong_tokens_in_parallel_are_not_all_looked_at(locked: Any) -> None:
    def guess(number: int) -> int:
        return httpx.get(f"{locked.url}/api/nothing", headers=bearer(f"{number}"), timeout=ENOUGH_S).status_code

    assert locked.http.get("/", params={"token": TOKEN}).status_code == 200  # who is signed in stays so
    start = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(guess, range(60)))
    assert set(answers) == {401, 429}
    assert tries.MOST <= answers.count(401) <= tries.MOST + 1 + (time.monotonic() - start) / tries.BACK_S
    assert locked.http.get("/openapi.json").status_code == 200
    with client(locked.url, "127.0.0.2") as other:
        assert other.get("/openapi.json", headers=bearer(TOKEN)).status_code == 200


@pytest.mark.parametrize("way", ["header", "address", "form"])
def test_every_way_to_try_a_token_is_counted(locked: Any, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(tries, "BACK_S", 600.0)

    def attempt(token: str) -> int:
        if way == "header":
            return int(locked.http.get("/api/nothing", headers=bearer(token)).status_code)
        if way == "address":
            return int(locked.http.get("/", params={"token": token}).status_code)
        return int(locked.http.post("/api/session", json={"token": token}).status_code)

    wrong = 200 if way == "address" else 401  # the page asks for the token again
    assert [attempt("wrong") for _ in range(tries.MOST)] == [wrong] * tries.MOST
    assert attempt("wrong") == attempt(TOKEN) == 429
    assert httpx.get(f"{locked.url}/openapi.json", headers=bearer(TOKEN)).status_code == 429
    assert httpx.get(f"{locked.url}/").status_code == 200  # who tries none is not refused


def test_right_tokens_are_not_counted(locked: Any) -> None:
    for _ in range(2 * tries.MOST):
        assert locked.http.get("/openapi.json", headers=bearer(TOKEN)).status_code == 200


def test_the_cookie_cannot_be_made_from_a_guess(locked: Any) -> None:
    cookie = hashlib.sha256(f"cookie of {TOKEN}".encode()).hexdigest()
    assert locked.http.get("/openapi.json", headers={"cookie": f"{COOKIE}={cookie}"}).status_code == 401
    assert Policy(token=TOKEN).cookie() != Policy(token=TOKEN).cookie()


def test_tries_come_back_and_addresses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counted = tries.Tries()
    for _ in range(tries.MOST):
        assert counted.wait_s("a") <= 0
        counted.wrong("a")
    assert counted.wait_s("a") == tries.BACK_S
    now[0] += tries.BACK_S
    assert counted.wait_s("a") <= 0
    counted.wrong("a")
    assert counted.wait_s("a") > 0
    for number in range(2 * tries.MOST_ADDRESSES):
        counted.wrong(f"{number}")
    assert len(counted._all_back) == tries.MOST_ADDRESSES
    assert counted.wait_s("a") > 0
