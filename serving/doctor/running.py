"""What a running Triton serves, as its HTTP interface tells: the doctor compares it with the repository."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from serving.contract.documents import read_json, read_manifest
from serving.contract.printable import printable

_TIMEOUT_S = 2.0
_LARGEST = 1 << 24  # bytes of an answer; a configuration holds the manifest as a text


@dataclass(frozen=True)
class Served:
    """One model: the versions that are ready, and the SHA-256 by file name of the newest of them."""

    versions: tuple[int, ...]
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A Triton and its ready models by name."""

    url: str
    models: Mapping[str, Served]

    def __str__(self) -> str:
        """Say what it serves."""
        names = [f"{name} (version {', '.join(map(str, it.versions))})" for name, it in self.models.items()]
        return printable(f"a running Triton that serves {', '.join(names) or 'no model yet'}")


def find_running(host: str, port: int) -> Running | None:
    """Ask whoever listens; None if it is not Triton's HTTP interface.

    Args:
        host: Name or address.
        port: Of the HTTP interface.
    """
    try:
        if _ask(host, port, "GET", "/v2")["name"] != "triton":
            return None
        versions: dict[str, list[int]] = {}
        for entry in _ask(host, port, "POST", "/v2/repository/index"):
            if entry.get("state") == "READY":
                versions.setdefault(str(entry["name"]), []).append(int(entry["version"]))
        models = {name: Served(tuple(sorted(found)), _files(host, port, name)) for name, found in versions.items()}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return Running(f"http://{host}:{port}", models)


def _files(host: str, port: int, model: str) -> dict[str, str]:
    """The files that a served model's manifest names; none where it has no manifest."""
    config = _ask(host, port, "GET", f"/v2/models/{quote(model, safe='')}/config")
    try:
        return dict(read_manifest(config["parameters"]["manifest"]["string_value"])["files_sha256"])
    except (ValueError, KeyError, TypeError):
        return {}


def _ask(host: str, port: int, method: str, path: str) -> Any:
    with closing(http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)) as connection:
        connection.request(method, path)
        return read_json(connection.getresponse().read(_LARGEST + 1), _LARGEST)
