"""What may come out of a pickle, and the names that may ask for it: the allow-list of `safe_pickle`.

Every function here returns inert data; none imports, calls or looks up anything that the file says.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.plain_load import load_storage

MAX_RANK, MAX_NAME = 8, 200


class Refused(Exception):
    """The pickle asks for something that is not on the list, or is malformed."""


@dataclass(frozen=True)
class Record:
    """What is left of a module: its class's name and its attributes."""

    class_name: str
    state: dict[str, Any]


@dataclass(frozen=True)
class Name:
    """A name that the file asks for and the list allows."""

    path: str


@dataclass(frozen=True)
class Storage:
    """The bytes of a tensor's storage, as torch pickles them."""

    data: bytes


@dataclass
class DType:
    """A numpy number type, such as `f8` in little-endian order."""

    code: str
    order: str = "<"


@dataclass
class StoredArray:
    """A numpy array of numbers that has not been decoded yet; empty until the file sets its state."""

    shape: tuple[int, ...] = (0,)
    dtype: DType = field(default_factory=lambda: DType("f8"))
    data: bytes = b""
    order: Literal["C", "F"] = "C"

    def set_state(self, shape: Any, dtype: Any, data: Any, order: Literal["C", "F"]) -> None:
        """Take over what the file says.

        Raises:
            ValueError: It is no array of numbers, or shape and bytes do not fit together.
        """
        plain = type(shape) is tuple and type(dtype) is DType and type(data) is bytes and len(shape) <= MAX_RANK
        if not plain or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
            raise ValueError
        if math.prod(shape) * int(dtype.code[1]) != len(data):
            raise ValueError
        self.shape, self.dtype, self.data, self.order = shape, dtype, data, order

    def read(self) -> np.ndarray[Any, np.dtype[Any]]:
        """Decode the array, as a copy in C order."""
        dtype = np.dtype(self.dtype.order + self.dtype.code)
        return np.frombuffer(self.data, dtype).reshape(self.shape, order=self.order).copy(order="C")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been decoded yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """Decode the tensor, as a copy that shares nothing with other tensors of the file.

        Raises:
            GeneratorError: The storage is damaged, hostile, or smaller than the tensor.
        """
        try:
            data, dtype = load_storage(self.storage.data)
        except ValueError as error:
            raise GeneratorError(f"a tensor's storage cannot be read: {error}") from None
        available = data.nbytes() // dtype.itemsize
        # Checked by hand: `set_` would enlarge a storage that is too small, with whatever lies in memory there.
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if math.prod(self.size) > available or (0 not in self.size and last >= available):
            raise GeneratorError(f"a tensor of size {list(self.size)} lies outside its storage of {available} values")
        view = torch.empty(0, dtype=dtype).set_(data, self.offset, self.size, self.stride)
        return view.clone(memory_format=torch.contiguous_format)


# The allow-list: what a name does when it is applied. Every function returns inert data.


def _record(meta: Any) -> Record:
    if type(meta) is not dict or type(meta.get("type")) is not str or type(meta.get("state")) is not dict:
        raise ValueError
    name = meta.get("class_name")
    if meta["type"] != "class" or type(name) is not str or len(name) > MAX_NAME:
        raise ValueError  # a list would be written out by `str`, however large or deep it is
    return Record(name, meta["state"])


def _load_from_bytes(data: Any) -> Storage:
    if type(data) is not bytes:
        raise TypeError
    return Storage(data)


def _rebuild_tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> StoredTensor:
    if (
        type(size) is not tuple
        or type(stride) is not tuple
        or type(storage) is not Storage
        or len(size) != len(stride)
        or len(size) > MAX_RANK
    ):
        raise TypeError
    if not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *size, *stride)):
        raise ValueError
    return StoredTensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> StoredTensor:
    if type(data) is not StoredTensor:
        raise TypeError
    return data


def _dtype(code: Any, *flags: Any) -> DType:
    if type(code) is not str or code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise ValueError
    return DType(code)


def _scalar(dtype: Any, data: Any) -> int | float | bool:
    if type(dtype) is not DType or type(data) is not bytes:
        raise TypeError
    letter = {"b1": "?", "f2": "e", "f4": "f", "f8": "d"}.get(dtype.code)
    letter = letter or dict(zip("1248", "bhiq", strict=True))[dtype.code[1]]
    value: int | float | bool = struct.unpack(("=" if dtype.order == "|" else dtype.order) + letter, data)[0]
    return value if dtype.code[0] != "u" else value % 256 ** len(data)  # unpacked as signed


def _array(kind: Any, shape: Any, code: Any) -> StoredArray:
    flat = type(shape) is tuple and len(shape) == 1 and type(shape[0]) is int and type(code) is bytes
    if not flat or type(kind) is not Name or kind.path != "numpy.ndarray" or shape != (0,) or code != b"b":
        raise TypeError  # numpy always makes an empty array of bytes first, and fills it by its state
    return StoredArray()


def _array_of_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
    if type(order) is not str:  # comparing may run through something large
        raise TypeError
    if order not in ("C", "F"):
        raise ValueError
    array = StoredArray()
    array.set_state(shape, dtype, data, "C" if order == "C" else "F")
    return array


def _plain(class_name: str) -> Callable[..., Record]:
    def make(*args: Any) -> Record:
        if args:
            raise TypeError  # a module is made bare, and gets its attributes as its state
        return Record(class_name, {})

    return make


def _never(*_: Any) -> Any:
    raise TypeError  # a name that is only ever an argument


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    if (
        type(text) is not str or type(encoding) is not str or encoding != "latin1"
    ):  # how protocol 2 writes bytes; empty ones as bytes()
        raise TypeError
    return text.encode("latin1")


def mapping(items: Any = ()) -> dict[Any, Any]:
    """Return a plain dict in place of whatever kind of dict the file asks for."""
    return {key_of(key): value for key, value in (items.items() if type(items) is dict else items)}


def _set(items: Any = ()) -> set[Any]:
    return {key_of(item) for item in items}


ALLOWED: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _record,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.storage._load_from_bytes": _load_from_bytes,
    "collections.OrderedDict": mapping,
    "dnnlib.util.EasyDict": mapping,
    "builtins.set": _set,
    "__builtin__.set": _set,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.ndarray": _never,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.core.numeric._frombuffer": _array_of_buffer,
    "numpy._core.numeric._frombuffer": _array_of_buffer,
    "_codecs.encode": _bytes,
    "__builtin__.bytes": _bytes,
    **{f"torch.{name}": _never for name in ("float32", "float16", "bfloat16")},
    # R3GAN's modules, which are pickled as any object is: a class by name, and the attributes as its state.
    **{
        f"{module}.{name}": _plain(name)
        for module, names in {
            "training.networks": "Generator Discriminator",
            "R3GAN.Networks": "Generator GeneratorStage GenerativeBasis UpsampleLayer ResidualBlock Convolution"
            " Discriminator DiscriminatorStage DiscriminativeBasis DownsampleLayer",
            "R3GAN.FusedOperators": "BiasedActivationCUDA BiasedActivationReference",
            "R3GAN.Resamplers": "InterpolativeUpsamplerCUDA InterpolativeDownsamplerCUDA"
            " InterpolativeUpsamplerReference InterpolativeDownsamplerReference",
            "torch.nn.modules.container": "ModuleList",
            "torch.nn.modules.conv": "Conv2d",
            "torch.nn.modules.linear": "Linear",
        }.items()
        for name in names.split()
    },
}


def key_of(key: Any) -> Any:
    """Return a key of a dict or set if it is flat and small.

    Hashing a deeply nested tuple overflows the C stack, and huge integers can be made to collide.

    Raises:
        Refused: It is anything else.
    """
    if type(key) in (str, bool, type(None)) or (type(key) is int and abs(key) < 2**31):
        return key
    raise Refused(f"a {kind_of(key)} as a key")


def kind_of(value: Any) -> str:
    """Say what a value is, without printing it: it may be huge."""
    return value.path if type(value) is Name else type(value).__name__.strip("_")
