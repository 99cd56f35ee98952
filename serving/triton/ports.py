"""The three ports of a Triton server."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServerStartError


@dataclass(frozen=True)
class Ports:
    """HTTP, gRPC and metrics ports; 0 asks for a free one."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


def claim_ports(host: str, ports: Ports) -> Ports:
    """Check that the ports can be bound, and replace each 0 by a free port.

    Args:
        host: The address to bind.
        ports: The wanted ports.

    Returns:
        Three different ports, none of which was in use a moment ago.

    Raises:
        ServerStartError: A port is in use or may not be bound, or the address is not this machine's.
    """
    wanted = {"http": ports.http, "grpc": ports.grpc, "metrics": ports.metrics}
    found: dict[str, int] = {}
    with ExitStack() as held:  # hold all three until the last is found, so that they differ
        # Fixed ones first: a free port must not be one of them.
        for name, port in sorted(wanted.items(), key=lambda item: item[1] == 0):
            found[name] = _bind(held, host, name, port)
    return Ports(**found)


def unsent(ports: Ports) -> bool:
    """Return whether the kernel holds bytes that connections to these ports have not taken yet."""
    numbers = {port for port in (ports.http, ports.grpc, ports.metrics) if port}
    tables = [table for name in ("tcp", "tcp6") if (table := Path("/proc/net", name)).is_file()]
    for table in tables:
        for line in table.read_text().splitlines()[1:]:
            _, local, _, _, queues, *_ = line.split()
            if int(local.rpartition(":")[2], 16) in numbers and int(queues.partition(":")[0], 16):
                return True
    return False


def _bind(held: ExitStack, host: str, name: str, port: int) -> int:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, OverflowError) as error:
        raise ServerStartError(f"cannot listen on {host}:{port}: {error}") from error
    listener = held.enter_context(socket.socket(family, kind, protocol))
    # Without this, connections of an earlier server that are still winding down look like a port in use.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(1)
    except OSError as error:
        hint = f"; choose another with --{name}-port"
        raise ServerStartError(f"the {name} port {port} on {host} cannot be used: {error.strerror}{hint}") from error
    return int(listener.getsockname()[1])
