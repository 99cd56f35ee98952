"""Reading weight files without ever running what they contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.plain_load import load_plain, load_safetensors, owned


def load_tensors(path: Path, nested: str | None = None) -> dict[str, Tensor]:
    """Read a flat table of tensors from a `.safetensors` or `torch.save` file, onto the CPU.

    Args:
        path: The file.
        nested: Key of the table inside a `torch.save` file that holds several; ignored if it is not there.

    Returns:
        name -> tensor, each in aligned memory of its own (see `plain_load`).

    Raises:
        GeneratorError: The file is missing, truncated, holds anything but tensors, or asks to run code.
    """
    if not path.is_file():
        raise GeneratorError(f"no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(path)
        content = load_plain(path)
    except ValueError as error:
        kind = "a whole safetensors file" if path.suffix == ".safetensors" else "a file of plain tensors"
        raise GeneratorError(f"{path} is not {kind}: {error}") from None
    if isinstance(content, dict) and isinstance(content.get(nested), dict):
        content = content[nested]
    return {name: owned(tensor) for name, tensor in table_of_tensors(content, path).items()}


def table_of_tensors(content: Any, path: Path, where: str = "") -> dict[str, Tensor]:
    """Check that something out of a file is a flat table of tensors.

    Args:
        content: What was read.
        path: The file, for messages.
        where: Where in the file, likewise.

    Raises:
        GeneratorError: It is something else, or a name is no short, printable text.
    """
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise GeneratorError(f"{path} holds no table of tensors{where}")
    if not all(isinstance(name, str) and name.isprintable() and len(name) <= 500 for name in content):
        raise GeneratorError(f"{path} holds tensors whose names are no short texts")
    return content
