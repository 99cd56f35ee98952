"""Run NVIDIA Triton on this machine and talk to it.

This package imports neither torch nor the training code, so an application can depend on the client alone. Names
are loaded when first used: `import serving` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.async_client import AsyncEditClient
    from serving.client import EditClient
    from serving.edited import Edited
    from serving.errors import (
        AlphaWarning,
        InvalidEdit,
        ManifestError,
        ModelUnavailable,
        RequestFailed,
        RequestTimeout,
        ServerStartError,
        ServerUnavailable,
        ServingError,
        Superseded,
    )
    from serving.latest import AsyncLatestWins, LatestWins
    from serving.manifest import Manifest
    from serving.server import TritonServer

__all__ = [
    "AlphaWarning",
    "AsyncEditClient",
    "AsyncLatestWins",
    "EditClient",
    "Edited",
    "InvalidEdit",
    "LatestWins",
    "Manifest",
    "ManifestError",
    "ModelUnavailable",
    "RequestFailed",
    "RequestTimeout",
    "ServerStartError",
    "ServerUnavailable",
    "ServingError",
    "Superseded",
    "TritonServer",
]

_HOME = {
    "AsyncEditClient": "async_client",
    "AsyncLatestWins": "latest",
    "EditClient": "client",
    "Edited": "edited",
    "LatestWins": "latest",
    "Manifest": "manifest",
    "TritonServer": "server",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'serving' has no attribute {name!r}")
    return getattr(import_module(f"serving.{_HOME.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
