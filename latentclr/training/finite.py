"""Whether all numbers are finite, told by a norm: one fused pass instead of a comparison for each tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Return whether every number is finite; where the norm itself overflows, each is looked at."""
    return math.isfinite(nn.utils.get_total_norm(tensors)) or all(bool(t.isfinite().all()) for t in tensors)


def tensors_in(state: Any) -> list[Tensor]:
    """Return the floating-point tensors in nested containers."""
    if isinstance(state, Tensor):
        return [state] if state.is_floating_point() else []
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]
