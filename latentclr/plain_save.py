"""Tensors to a safetensors file, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from latentclr.files import replacing


def save_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and what the header says of them.

    Args:
        path: The file; what stood there is replaced.
        tensors: On any device.
        metadata: Texts by key.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata=None if metadata is None else dict(metadata))
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from None
