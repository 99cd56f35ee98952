"""What a graph stores of its weights: float16 of which only some bits are used, cast to float32 when it is loaded.

All arithmetic stays in float32, so the error is that of the stored numbers alone. Rounding the last bits of each to
zero leaves the file as long as it was, and lets gzip make it short: a bit less is about a bit less of each weight.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

HALF_BITS = 10
"""Bits of the fraction of a float16."""
_SINGLE_BITS = 23  # and of a float32
STORED = 1024  # values of a tensor that is worth it
_LARGEST_POWER, _SMALLEST_NORMAL = 15, 2.0**-14  # of float16


def stored(model: Any, bits: int | None) -> Any:
    """Return a copy of an ONNX graph whose large float32 tensors are stored in fewer bits.

    Args:
        model: The graph, with its weights inside.
        bits: Of the fraction that are kept: float16 up to its 10, beyond that float32; None for float32 as it is.
    """
    new = ModelProto()
    new.CopyFrom(model)
    if bits is None:
        return new
    first, scales = [], []
    for tensor in new.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < STORED:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        if bits > HALF_BITS:
            tensor.CopyFrom(numpy_helper.from_array(rounded(values, bits), name))
            continue
        half, scale = halves(values, bits)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_stored"))
        if scale == 1:
            first.append(helper.make_node("Cast", [f"{name}_stored"], [name], to=TensorProto.FLOAT))
        else:
            scales.append(numpy_helper.from_array(np.float32(scale), f"{name}_scale"))
            first.append(helper.make_node("Cast", [f"{name}_stored"], [f"{name}_cast"], to=TensorProto.FLOAT))
            first.append(helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name]))
    new.graph.initializer.extend(scales)
    nodes = [*first, *new.graph.node]  # a graph's nodes stand in the order in which they can run
    del new.graph.node[:]
    new.graph.node.extend(nodes)
    return new


def halves(values: NDArray[np.float32], bits: int) -> tuple[NDArray[np.float16], float]:
    """Round finite numbers to float16 with so many bits of fraction.

    Numbers that float16 has only with fewer bits, or not at all, are brought into its range by a power of two.

    Returns:
        Float16 numbers, and what they are to be multiplied by: a power of two, most often 1.
    """
    sizes = np.abs(values)
    largest = float(sizes.max())
    scale = 1.0
    if largest and (largest >= 2.0**_LARGEST_POWER or ((sizes > 0) & (sizes < _SMALLEST_NORMAL)).any()):
        scale = 2.0 ** (math.frexp(largest)[1] - _LARGEST_POWER)  # the largest becomes [2^14, 2^15)
    return rounded(values / np.float32(scale), bits).astype(np.float16), scale


def rounded(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round finite numbers to so many bits of fraction, below 23, to the nearest, ties to even."""
    # Floats are in the order of their bits, so their last ones are rounded as those of a whole number are.
    cut, one = np.uint32(_SINGLE_BITS - bits), np.uint32(1)
    whole = np.ascontiguousarray(values).view(np.uint32)
    whole = (whole + (one << (cut - one)) - one + ((whole >> cut) & one)) >> cut << cut
    return whole.view(np.float32)
