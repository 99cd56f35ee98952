"""Reading weight files without ever running what they contain."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from latentclr.errors import GeneratorError


def load_tensors(path: Path, nested: str | None = None) -> dict[str, Tensor]:
    """Read a flat table of tensors from a `.safetensors` or `torch.save` file, onto the CPU.

    Args:
        path: the file.
        nested: key of the table inside a `torch.save` file that holds several; ignored if it is not there.

    Returns:
        name -> tensor.

    Raises:
        GeneratorError: the file is missing, truncated, holds anything but tensors, or asks to run code.
    """
    if not path.is_file():
        raise GeneratorError(f"no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise GeneratorError(f"{path} is not a whole safetensors file: {error}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise GeneratorError(f"{path} is not a file of plain tensors: {reason[0]}") from None
    if isinstance(content, dict) and isinstance(content.get(nested), dict):
        content = content[nested]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise GeneratorError(f"{path} holds no table of tensors")
    return content
