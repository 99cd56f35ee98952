"""Who answers at an address: a look behind the door after a request has failed, for a message that says what to do."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from serving.client.address import Address
from serving.contract.documents import read_json

_MOST = 1 << 16  # bytes of an answer that are looked at
_GREETING = 4  # type of the frame (SETTINGS) with which every HTTP/2 server, and so gRPC, begins


@dataclass(frozen=True)
class Door:
    """What was found at a host and port.

    Attributes:
        kind: `no host` (the name has no address), `closed` (nobody listens), `silent` (it says nothing that we
            understand), `triton` (Triton's HTTP interface), `metrics` (Triton's metrics), `web` (another web server),
            `grpc` (gRPC, or another HTTP/2) or `tls` (it wants encryption).
        words: The system's reason, or how a web server calls itself.
        status: The status that a web server answered with.
    """

    kind: Literal["no host", "closed", "silent", "triton", "metrics", "web", "grpc", "tls"]
    words: str = ""
    status: str = ""


def knock(host: str, port: int, timeout: float, path: str = "") -> Door:
    """Find out who answers, with a harmless question in HTTP/1.1; gRPC answers that too, in its own way.

    Args:
        host: Name or address.
        port: The port.
        timeout: Seconds for everything but the look-up of the name.
        path: Under which a proxy has Triton's HTTP interface.
    """
    deadline = time.monotonic() + timeout
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
        return Door("no host", getattr(error, "strerror", None) or str(error))
    try:
        answer = _ask(host, port, f"{path}/v2", deadline)
    except OSError as error:
        return Door("closed", error.strerror or str(error))
    if len(answer) > 8 and answer[3] == _GREETING and answer[4:9] == bytes(5):
        return Door("grpc")
    if answer[:2] in (b"\x15\x03", b"\x16\x03"):  # an alert or a handshake
        return Door("tls")
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1."):
        return Door("silent")
    with suppress(ValueError, KeyError, TypeError):
        if read_json(body)["name"] == "triton":
            return Door("triton")
    lines = head.decode("latin-1").split("\r\n")
    if "400" in lines[0] and "HTTPS" in body.decode("latin-1").upper():
        return Door("tls")
    with suppress(OSError):
        if b"\n# HELP nv_" in b"\n" + _ask(host, port, "/metrics", deadline).partition(b"\r\n\r\n")[2]:
            return Door("metrics")
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("server:")]
    name = next((name for name in names if name.isprintable()), "")
    return Door("web", name, lines[0].partition(" ")[2].strip()[:3])


def wrong_door(address: Address, timeout: float) -> str:
    """Say in one line what answers at an address, if that explains why Triton does not.

    Args:
        address: Where Triton was asked.
        timeout: Seconds to find out.

    Returns:
        The line; empty if nobody answers, or the door is the right one.
    """
    place = _place(address)
    if place is None:
        return ""
    host, port, path = place
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    door = knock(host, port, timeout, path)
    mine = "the gRPC port, 8001 by default" if address.protocol == "grpc" else "the HTTP port, 8000 by default"
    if door.kind == "no host":
        return f"there is no host {host!r} ({door.words}): check the name in the address"
    if door.kind == "triton" and address.protocol == "grpc":
        other = "" if address.fixed else f"http://{where}, or "
        return f"{where} answers HTTP, not gRPC: use {other}{mine}"
    if door.kind == "grpc" and address.protocol == "http":
        other = "" if address.fixed else f"{where} without http://, or "
        return f"{where} answers gRPC, not HTTP: use {other}{mine}"
    if door.kind == "metrics":
        return f"{where} is the metrics port of a Triton: use {mine}"
    if door.kind == "tls":
        return f"{where} wants TLS, which this client does not speak: use {mine}, of a Triton or of a proxy without TLS"
    if door.kind == "web" and door.status not in ("502", "503", "504"):  # a proxy says these of a server that is down
        name = f" ({door.words})" if door.words else ""
        return f"{where} is a web server{name} and not Triton: use {mine}, of a running Triton"
    return ""


def _place(address: Address) -> tuple[str, int, str] | None:
    """Host, port and path of an address; None for gRPC's more exotic ones, such as `unix:`."""
    target = address.target if address.protocol == "http" else f"//{address.target}"
    for scheme in ("dns:///", "dns:", "ipv4:", "ipv6:"):
        target = target.replace(f"//{scheme}", "//", 1)
    try:
        parts = urlsplit(target)
        return (parts.hostname, parts.port, parts.path) if parts.hostname and parts.port else None
    except ValueError:
        return None


def _ask(host: str, port: int, path: str, deadline: float) -> bytes:
    """Return the first bytes of an answer; what came until the deadline, if it does not end.

    Raises:
        OSError: Nobody listens.
    """
    answer = b""
    with socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 1e-3)) as connection:
        with suppress(OSError):  # what came before a connection was cut counts
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            while len(answer) < _MOST and (left := deadline - time.monotonic()) > 0:
                connection.settimeout(left)
                part = connection.recv(_MOST)
                if not part:
                    break
                answer += part
    return answer
