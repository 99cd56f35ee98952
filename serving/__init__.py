"""Run NVIDIA Triton on this machine and talk to it.

What exporter and clients agree on: `contract`. Apps talk through `client`, whose names are this package's.
The server: `triton` (the wheel's own, or NVIDIA's container), `backends` that run inside it, `deploy/` to copy.
Help: `doctor` says what works here. The web page: `studio`. Commands: `cli`.
It imports neither torch nor the training code, so an app can depend on the client alone.
Names are loaded when first used: `import serving` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.client.async_client import AsyncEditClient
    from serving.client.client import EditClient
    from serving.client.edited import Edited
    from serving.client.images import save_image
    from serving.client.latest import AsyncLatestWins, LatestWins
    from serving.client.photos import Inverted
    from serving.client.refine import refine
    from serving.contract.manifest import Manifest
    from serving.errors import (
        AlphaWarning,
        FaceError,
        InvalidEdit,
        ManifestError,
        ModelUnavailable,
        NoEncoder,
        NoPreview,
        PhotoError,
        PhotoWarning,
        RequestFailed,
        RequestTimeout,
        ServerStartError,
        ServerUnavailable,
        ServingError,
        Superseded,
    )
    from serving.triton.ports import Ports
    from serving.triton.server import TritonServer

__all__ = [
    "AlphaWarning",
    "AsyncEditClient",
    "AsyncLatestWins",
    "EditClient",
    "Edited",
    "FaceError",
    "InvalidEdit",
    "Inverted",
    "LatestWins",
    "Manifest",
    "ManifestError",
    "ModelUnavailable",
    "NoEncoder",
    "NoPreview",
    "PhotoError",
    "PhotoWarning",
    "Ports",
    "RequestFailed",
    "RequestTimeout",
    "ServerStartError",
    "ServerUnavailable",
    "ServingError",
    "Superseded",
    "TritonServer",
    "refine",
    "save_image",
]

_HOME = {
    "AsyncEditClient": "client.async_client",
    "AsyncLatestWins": "client.latest",
    "EditClient": "client.client",
    "Edited": "client.edited",
    "Inverted": "client.photos",
    "LatestWins": "client.latest",
    "Manifest": "contract.manifest",
    "Ports": "triton.ports",
    "TritonServer": "triton.server",
    "refine": "client.refine",
    "save_image": "client.images",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'serving' has no attribute {name!r}")
    return getattr(import_module(f"serving.{_HOME.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
