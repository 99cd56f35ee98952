"""Tensors from files that nobody vouches for: plain data that this process owns, or a reason in one line.

Every tensor that comes from a file passes through here. safetensors hands out views of a memory-mapped file: a file
that is cut short later kills the process that reads them, and they begin at any address, where the dot products of some
BLAS libraries add in another order than at an aligned one. What is folded from them would then differ in its last bits
from the same weights out of another file. So each is copied as it is read, into memory that torch's allocator aligns.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_ASKED = re.compile(r"GLOBAL ([\w.]+)")


def load_plain(path: Path) -> Any:
    """Read a `torch.save` file onto the CPU; nothing in it is ever executed.

    Raises:
        ValueError: it is damaged, or names code to run (which is refused, and the message says what it named). torch's
            own message is not passed on, for it recommends loading the file without that protection.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on pickle protocols; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes lead the unpickler to IndexError, struct.error and almost any other
        text = str(error)
        asked = _ASKED.search(text)
        if asked is not None:
            raise ValueError(f"it asks for {asked[1]}, and only tensors and plain containers are read") from None
        if isinstance(error, OSError):
            raise ValueError(error.strerror or text) from None
        if "weights_only" in text:
            text = text.partition("WeightsUnpickler error:")[2].strip() or "not a torch.save file of plain tensors"
        reason = (text.strip().splitlines() or [""])[0][:200]
        raise ValueError(f"{type(error).__name__}: {reason}" if reason else type(error).__name__) from None


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU, each tensor into memory of its own.

    Raises:
        ValueError: it is damaged, cannot be read or is larger than the memory; the message says why.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file; its tensors are not read.

    Raises:
        ValueError: it is damaged or cannot be read; the message says why.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except (SafetensorError, RuntimeError) as error:  # the latter is how torch reports that memory ran out
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None


def owned(tensor: Tensor) -> Tensor:
    """Return a tensor that begins at the start of its memory, its numbers in order: itself, or a copy.

    A view into a larger storage, as `torch.save` keeps them, is no more aligned than a mapped file. An expanded tensor
    is left as it is, for its copy could be larger than any memory; so is one that is not strided.
    """
    tensor = tensor.detach()
    if tensor.layout != torch.strided or (tensor.storage_offset() == 0 and tensor.is_contiguous()):
        return tensor
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
