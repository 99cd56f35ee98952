"""Reading weight files without ever running what they contain."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.plain_load import load_plain


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
        content = load_plain(path)
    except SafetensorError as error:
        raise GeneratorError(f"{path} is not a whole safetensors file: {error}") from None
    except (ValueError, OSError) as error:
        raise GeneratorError(f"{path} is not a file of plain tensors: {error}") from None
    if isinstance(content, dict) and isinstance(content.get(nested), dict):
        content = content[nested]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise GeneratorError(f"{path} holds no table of tensors")
    return content
