"""How much arithmetic a picture takes, and how much this machine can do at best."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.engines import Array

SIDE = 2048  # of the square matrices: large enough for the peak, small enough for a moment


def gflop_per_image(editor: Any, arrays: tuple[Array, ...]) -> float:
    """Count an editor's arithmetic for one image: convolutions and matrix products, a multiply-add as two.

    Element-wise work is not counted; it moves memory rather than computing.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        editor(*(torch.from_numpy(array) for array in arrays))
    return float(counter.get_total_flops()) / len(arrays[0]) / 1e9


def matrix_product_peak(dtype: torch.dtype = torch.float32, seconds: float = 1.0) -> float:
    """Measure a square matrix product on the CPU with PyTorch's threads; return the best GFLOP/s seen.

    Of `torch.int8` the product's sums are int32, as in a network that computes in int8.
    """
    a, b = torch.randn(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(dtype)
    multiply = torch._int_mm if dtype == torch.int8 else torch.matmul
    best, end = float("inf"), time.perf_counter() + seconds
    multiply(a, b)
    while time.perf_counter() < end:
        start = time.perf_counter()
        multiply(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best / 1e9
