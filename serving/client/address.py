"""Where a server is, and which protocol it is asked in."""

from __future__ import annotations

import ipaddress
import reprlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from serving.errors import ServingError

PROTOCOLS = ("grpc", "http")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens at an address, as far as the name tells."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Address:
    """One interface of one server.

    Attributes:
        protocol: `grpc` or `http`.
        target: `host:port` for gRPC; `http://host:port` and perhaps a path for HTTP.
        fixed: Whether the caller speaks this protocol only.
    """

    protocol: str
    target: str
    fixed: bool = field(default=False, compare=False)

    @property
    def is_loopback(self) -> bool:
        """Whether the server runs on this machine, as far as the name tells."""
        place = self.target
        for scheme in ("http://", "ipv4:", "ipv6:"):  # the last two are gRPC's
            place = place.removeprefix(scheme)
        return is_loopback(place.partition("/")[0].rpartition(":")[0])


def parse_address(url: str, protocol: str | None = None) -> Address:
    """Read `host:port`, `grpc://host:port` or `http://host:port`.

    Args:
        url: The address.
        protocol: `grpc` or `http`; if not given, the url says, and `host:port` alone means gRPC.

    Raises:
        ServingError: It is neither, or the url says another protocol than the argument.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise ServingError(f"protocol must be grpc or http, got {protocol!r}")
    if not isinstance(url, str):
        raise ServingError(f"the url must be a text such as 127.0.0.1:8001, got {reprlib.repr(url)}")
    scheme, mark, rest = url.partition("://")
    scheme, rest = (scheme, rest) if mark else (protocol or "grpc", url)
    if scheme == "https":
        raise ServingError(f"Triton's HTTP interface has no TLS: give http://host:port, got {url!r}")
    if scheme not in PROTOCOLS or ":" not in rest:
        raise ServingError(f"the url must be host:port of the gRPC interface or http://host:port, got {url!r}")
    if protocol is not None and protocol != scheme:
        wanted = "host:port" if protocol == "grpc" else "http://host:port"
        raise ServingError(f"the url must be {wanted} for protocol {protocol!r}, got {url!r}")
    if scheme == "grpc":
        return Address("grpc", rest, protocol is not None)
    try:
        parts = urlsplit(f"http://{rest}")
        whole = bool(parts.hostname) and parts.port is not None and not (parts.query or parts.fragment)
    except ValueError:
        whole = False
    if not whole:
        raise ServingError(f"the url must be http://host:port of the HTTP interface, got {url!r}")
    return Address("http", f"http://{rest.rstrip('/')}", protocol is not None)
