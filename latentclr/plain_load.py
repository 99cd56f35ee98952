"""Tensors from files that nobody vouches for: plain data that this process owns, or a reason in one line.

Every tensor that comes from a file passes through here. safetensors hands out views of a memory-mapped file: a file
that is cut short later kills the process that reads them, and they begin at any address, where the dot products of some
BLAS libraries add in another order than at an aligned one. What is folded from them would then differ in its last bits
from the same weights out of another file. So each is copied as it is read, into memory that torch's allocator aligns.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from serving.contract.documents import read_json

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How a `torch.save` file begins in the form from before torch 1.6."""
_MOST_MEMBERS, _LARGEST_PICKLE = 100_000, 16 << 20
_DEEPEST, _MOST_VALUES, _SMALL = 32, 1_000_000, 64 << 20
_NUMBERS = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
}  # fmt: skip
_LARGEST_HEADER, _MOST_IN_HEADER = 16 << 20, 1_000_000
_STORED = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "BOOL": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}
_ASKED = re.compile(r"GLOBAL ([\w.]+)")


class Refused(Exception):
    """The archive is not one that torch.save writes."""


def load_plain(source: Path | bytes) -> Any:
    """Read a `torch.save` file, or the bytes of one, onto the CPU; nothing in it is ever executed.

    Raises:
        ValueError: It is damaged, larger once read than the file, holds more than plain numbers, or names code to run
            (which is refused, and the message says what it named). torch's own message is not passed on, for it
            recommends loading the file without that protection.
    """
    try:
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        _check_archive(_file(source), size)
    except Refused as error:
        raise ValueError(str(error)) from None
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error)[:200]) from None
    content = _load(_file(source))
    _check_tensors(content, size)
    return content


def _file(source: Path | bytes) -> Path | io.BytesIO:
    return source if isinstance(source, Path) else io.BytesIO(source)


def load_storage(data: bytes) -> tuple[torch.UntypedStorage, torch.dtype]:
    """Read one storage of numbers, as torch pickles it; nothing in it is ever executed.

    Args:
        data: A `torch.save` file of its own, in the form from before torch 1.6: no archive, nothing compressed.

    Returns:
        The numbers' bytes and their type.

    Raises:
        ValueError: As `load_plain`.
    """
    if not data.startswith(LEGACY_MAGIC):
        raise ValueError("it is not in the form in which torch pickles storages")
    stored = _load(io.BytesIO(data))
    if type(stored) is not torch.storage.TypedStorage:
        raise ValueError(f"it holds a {type(stored).__name__}")
    if stored.dtype not in _NUMBERS:
        raise ValueError(f"it holds numbers of {str(stored.dtype).removeprefix('torch.')}, which are not read")
    untyped = stored._untyped_storage  # the public accessor warns that the class is old
    if untyped.device.type != "cpu" or untyped.nbytes() > len(data):
        raise ValueError("its numbers are not in it")
    return untyped, stored.dtype


def _load(file: Path | io.BytesIO) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on pickle protocols; what matters is raised
            return torch.load(file, map_location="cpu", weights_only=True)
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


def _check_archive(file: Path | io.BytesIO, size: int) -> None:
    """Check that what torch will unpack is no larger than the file; torch itself writes nothing compressed."""
    if not zipfile.is_zipfile(file):
        return  # the form from before torch 1.6, whose storages are read straight from the file
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if len(members) > _MOST_MEMBERS:
        raise Refused(f"it holds more than {_MOST_MEMBERS} members")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise Refused("its members are compressed, which torch.save never does")
    if sum(member.file_size for member in members) > size:
        raise Refused("its members are larger than the file")
    if any(member.filename.endswith(".pkl") and member.file_size > _LARGEST_PICKLE for member in members):
        raise Refused(f"its pickle is larger than {_LARGEST_PICKLE} bytes")


def _check_tensors(content: Any, size: int) -> None:
    """Check that containers are few and flat, and tensors plain numbers that the file really holds."""
    todo, seen, numbers = [(content, 0)], 0, 0
    while todo:
        item, depth = todo.pop()
        seen += 1
        if isinstance(item, Tensor):
            numbers += _bytes_of(item)
        elif isinstance(item, Mapping | list | tuple | set):
            if depth == _DEEPEST:
                raise ValueError(f"its containers are nested more than {_DEEPEST} deep")
            parts = [*item.keys(), *item.values()] if isinstance(item, Mapping) else list(item)
            seen += len(parts)
            todo += [(part, depth + 1) for part in parts if not isinstance(part, int | float | str | None)]
        if seen > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES} values")
        if numbers > 4 * size + _SMALL:
            raise ValueError(f"its tensors are larger than the file: {numbers} bytes of {size}")


def _bytes_of(tensor: Tensor) -> int:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu" or tensor.is_nested:
        kind = "quantized" if tensor.is_quantized else str(tensor.layout if tensor.is_sparse else tensor.device)
        raise ValueError(f"it holds a tensor that is not plain numbers ({kind.removeprefix('torch.')})")
    if tensor.dtype not in _NUMBERS:
        raise ValueError(f"it holds a tensor of {str(tensor.dtype).removeprefix('torch.')}, which is not read")
    return tensor.nbytes


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU, each tensor into memory of its own.

    Raises:
        ValueError: It is damaged, cannot be read or is larger than the memory; the message says why.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Read a safetensors file that may be replaced at any moment, once and whole.

    Returns:
        Its tensors, each in memory of its own, its metadata, and the SHA-256 of the very bytes that held them.

    Raises:
        ValueError: As `load_safetensors`.
    """
    with _reasons(), open(path, "rb") as file:
        header = _check_header(file, os.fstat(file.fileno()).st_size)
        file.seek(0)
        data = file.read()
        tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load(data).items()}
    return tensors, header.get("__metadata__") or {}, hashlib.sha256(data).hexdigest()


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file; its tensors are not read.

    Raises:
        ValueError: It is damaged or cannot be read; the message says why.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with _reasons():
        with open(path, "rb") as raw:
            _check_header(raw, path.stat().st_size)
        with safe_open(path, framework="pt") as file:
            yield file


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except MemoryError:
        raise ValueError("it is larger than the memory") from None
    except (SafetensorError, RuntimeError) as error:  # the latter is how torch reports that memory ran out
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from None


def _check_header(file: BinaryIO, size: int) -> dict[str, Any]:
    """Check what a safetensors file of some bytes says of its tensors before any of them is made: types, sizes, places.

    Returns:
        Its header.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
        raise ValueError(f"it is no safetensors file, or incomplete: its header would have {length} bytes")
    try:
        header = read_json(file.read(length), _LARGEST_HEADER, _MOST_IN_HEADER)
    except ValueError as error:
        raise ValueError(f"its header {error}") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    total = sum(_stored_bytes(entry) for name, entry in header.items() if name != "__metadata__")
    if total != size - 8 - length:
        part = "incomplete: " if total > size - 8 - length else ""
        raise ValueError(f"it is {part}a file of {size - 8 - length} bytes of numbers, its header tells of {total}")
    return header


def _stored_bytes(entry: Any) -> int:
    """Return the bytes of a tensor that an entry of a header describes."""
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if type(dtype) is not str or len(shape) > _DEEPEST or any(type(n) is not int for n in (*shape, start, end)):
            raise TypeError
    except (TypeError, KeyError, ValueError):
        raise ValueError("its header is not one of tensors") from None
    if dtype not in _STORED:
        raise ValueError(f"it holds a tensor of {dtype[:40]}, which is not read (known: {', '.join(_STORED)})")
    if any(not 0 <= n < 2**48 for n in shape) or math.prod(shape) * _STORED[dtype] != end - start or start < 0:
        raise ValueError(f"it holds a tensor of {dtype} whose shape and size do not fit together")
    return int(end - start)


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
