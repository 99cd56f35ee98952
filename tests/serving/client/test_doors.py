"""A wrong address: one line says what answers there and what to use instead."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from test_transports import odd_server

from serving import AsyncEditClient, EditClient, TritonServer
from serving.cli import edit
from serving.client.address import Address
from serving.client.doors import knock, wrong_door
from serving.errors import ModelUnavailable, RequestFailed, ServerUnavailable, ServingError


def refusal(url: str) -> str:
    """What `latentclr edit --url` says."""
    result = CliRunner().invoke(edit, ["--url", url, "--timeout", "10"])
    assert isinstance(result.exception, ServingError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_the_other_ports_of_a_running_triton(server: TritonServer) -> None:
    http, grpc, metrics = (f"127.0.0.1:{port}" for port in (server.ports.http, server.ports.grpc, server.ports.metrics))
    said = refusal(http)
    assert said == f"{http} answers HTTP, not gRPC: use http://{http}, or the gRPC port, 8001 by default"
    said = refusal(f"http://{grpc}")
    assert said == f"{grpc} answers gRPC, not HTTP: use {grpc} without http://, or the HTTP port, 8000 by default"
    assert refusal(metrics) == f"{metrics} is the metrics port of a Triton: use the gRPC port, 8001 by default"
    assert "metrics port of a Triton: use the HTTP port" in refusal(f"http://{metrics}")


def test_who_speaks_grpc_only_is_not_sent_to_http(server: TritonServer) -> None:
    url = f"127.0.0.1:{server.ports.http}"

    async def ask() -> None:
        async with AsyncEditClient(url) as client:
            await client.edit(seed=1)

    for call in (lambda: asyncio.run(ask()), lambda: EditClient(url, protocol="grpc").edit(seed=1)):
        with pytest.raises(ServerUnavailable) as caught:
            call()
        assert str(caught.value) == f"{url} answers HTTP, not gRPC: use the gRPC port, 8001 by default"


@pytest.mark.parametrize("scheme", ["", "http://"])
@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70 + ".b"], ids=["unknown", "impossible"])
def test_a_host_that_has_no_address(scheme: str, host: str) -> None:
    assert f"there is no host {host!r} (" in refusal(f"{scheme}{host}:8001")


@pytest.mark.parametrize("scheme", ["", "http://"])
@pytest.mark.parametrize(
    "attributes",
    [{}, {"body": b"<html>"}, {"body": b"[1]"}, {"body": b"[" * 9_000}, {"status": 404}, {"status": 500, "body": b""}],
    ids=["json", "html", "list", "deep", "404", "500"],
)
def test_a_foreign_web_server(scheme: str, attributes: dict[str, object]) -> None:
    with odd_server(**attributes) as (url, _):
        said = refusal(scheme + url.removeprefix("http://"))
        assert said.startswith(f"{url.removeprefix('http://')} is a web server (BaseHTTP/")
        assert "and not Triton: use the " in said


def test_a_proxy_whose_server_is_down_is_not_called_foreign() -> None:
    with odd_server(status=502, body=b"<html>") as (url, _):
        assert "no Triton server answers" in refusal(url)


@contextmanager
def says(answer: bytes) -> Iterator[int]:
    """Somebody who answers everything with the same bytes; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_all() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        thread = threading.Thread(target=answer_all)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [b"\x15\x03\x01\x00\x02\x02\x16", b"HTTP/1.1 400 Bad\r\n\r\nplain HTTP to HTTPS port"],
    ids=["alert", "page"],
)
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_tls(answer: bytes, scheme: str) -> None:
    with says(answer) as port:
        assert f"127.0.0.1:{port} wants TLS" in refusal(f"{scheme}127.0.0.1:{port}")


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9\r\n", bytes(100), b"HTTP/1.1 200", b"\xff" * 70_000], ids=range(5)
)
def test_anything_else_is_no_triton(answer: bytes) -> None:
    with says(answer) as port:
        for scheme in ("", "http://"):
            assert "no Triton server answers" in refusal(f"{scheme}127.0.0.1:{port}") or answer.startswith(b"HTTP")
        assert knock("127.0.0.1", port, 5).kind in ("silent", "web")


def test_nobody_and_exotic_addresses() -> None:
    assert knock("127.0.0.1", 9, 5).kind == "closed"
    assert wrong_door(Address("grpc", "unix:/tmp/socket"), 1) == ""
    assert wrong_door(Address("grpc", "127.0.0.1:9"), 1) == ""
    for target in ("dns:///nowhere.invalid:1", "a" * 70 + ".b:1", "..:1"):
        assert "there is no host" in wrong_door(Address("grpc", target), 1)


def test_the_right_door_and_an_unknown_model(server: TritonServer) -> None:
    for url in (server.grpc_url, server.http_url):
        with (
            EditClient(url, "nothing") as client,
            pytest.raises(ModelUnavailable, match=r"no model 'nothing'.*latent_edit"),
        ):
            client.edit(seed=1)
        with EditClient(url) as client, pytest.raises(RequestFailed, match=r"unexpected inference|expected 3 inputs"):
            client._connection.infer(
                client._connection.describe(), {"w": client.edit(seed=1).images.astype("float32")[:, 0, 0]}
            )
