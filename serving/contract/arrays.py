"""Arrays of numbers from `.npy` and `.npz` files that anybody may have written."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST_ARRAY = 1 << 30
"""Bytes of an array, as it is stored."""
_MOST_AXES, _LONGEST_HEADER, _MOST_MEMBERS = 8, 10_000, 10_000


def read_npy(path: Path, largest: int = LARGEST_ARRAY) -> NDArray[np.generic]:
    """Read one array of booleans, whole numbers or floating-point numbers; no pickle, no archive.

    Args:
        path: The file.
        largest: Its most bytes; checked, as type and shape are, before its numbers are read.

    Raises:
        ValueError: It cannot be read, is cut short, or holds something else; the message is one short line, a verb
            first, to stand after the name of what was read.
    """
    try:
        with open(path, "rb") as file:
            there = os.fstat(file.fileno())
            return _read(file, there.st_size if stat.S_ISREG(there.st_mode) else None, largest)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None


def read_npz(path: Path, largest: int = LARGEST_ARRAY) -> dict[str, NDArray[np.generic]]:
    """Read the arrays of an `.npz` archive, as `numpy.savez` and `savez_compressed` write it, in the order of the file.

    Args:
        path: The file.
        largest: The most bytes of all its arrays; checked before their numbers are read.

    Raises:
        ValueError: As `read_npy`; the message names the array.
    """
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS:
                raise ValueError(f"holds more than {_MOST_MEMBERS} arrays")
            arrays: dict[str, NDArray[np.generic]] = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name == member.filename or name in arrays:
                    raise ValueError(f"is not a plain .npz archive: it holds {member.filename[:80]!r}")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # numpy writes no others
                    raise ValueError(f"is not a plain .npz archive: it compresses {member.filename[:80]!r} otherwise")
                with archive.open(member) as file:
                    try:
                        arrays[name] = array = _read(file, member.file_size, largest)
                    except ValueError as error:
                        raise ValueError(f"holds {name[:80]!r}, which {error}") from None
                largest -= array.nbytes
            return arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:  # also: encrypted
        raise ValueError(f"is not a plain .npz archive: {str(error)[:200]}") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None


def _read(file: Any, size: int | None, largest: int) -> NDArray[np.generic]:
    """Read one array of a file of so many bytes, or of nobody knows how many."""
    import numpy as np

    shape, columns, dtype = _header(file)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ValueError(f"must hold numbers, got {str(dtype)[:40]}")
    count = math.prod(shape)
    if count * dtype.itemsize > largest:
        raise ValueError(f"is of shape {list(shape)} and must be at most {largest} bytes")
    wanted = count * dtype.itemsize
    left = wanted if size is None else size - file.tell()
    data = file.read(wanted) if left >= wanted else b""
    if len(data) != wanted:
        raise ValueError(f"is cut short: it lacks some of {wanted} bytes")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if columns else array.reshape(shape)


class _Short:
    """A file of which no more than a header is read at once: numpy would first read whatever length stands there."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise ValueError
        return bytes(self._file.read(size))


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    import numpy as np

    form: Any = np.lib.format
    readers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    try:
        reader = readers[form.read_magic(file)]
        shape, columns, dtype = reader(_Short(file), max_header_size=_LONGEST_HEADER)
    except OSError:
        raise
    except Exception:  # numpy evaluates the header as a Python literal: almost any error can come of it
        raise ValueError("is not a plain .npy array") from None
    if len(shape) > _MOST_AXES or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise ValueError(f"is not a plain .npy array: it has the shape {str(shape)[:80]}")
    return shape, columns, dtype
