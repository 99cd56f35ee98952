"""A small number format for training: it rounds the change that an edit makes, not the features that are changed.

An edit changes features by a few per cent, often less, and bfloat16 rounds to a third of a per cent. The difference of
rounded features is then mostly rounding, and so is its gradient. But a linear operation of edited features is

    W x = W x0 + W (x - x0)

with the unedited x0, whose product is computed once in float32 for all K edits of a code. Only x - x0 is rounded, so
the error is a third of a per cent of the change, however small that is, and all but one of K + 1 products run in the
small format. What is not linear (activations, modulation, normalisation) stays in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LINEAR = (F.linear, F.conv2d, F.conv_transpose2d)


@dataclass
class Unedited:
    """The linear operations of a pass over B = `count` codes: operand [B, ...], weight and result [B, ...] of each."""

    count: int
    operations: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)


class Recorded(TorchFunctionMode):
    """While it is entered, linear operations are remembered; enter it for the pass over unedited codes."""

    def __init__(self, unedited: Unedited) -> None:
        """Take the memory."""
        super().__init__()
        self.unedited = unedited

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and remember it if it is linear: copies, for what follows may work in place."""
        if function not in LINEAR or len(args) < 2:
            return function(*args, **(kwargs or {}))
        operand = args[0].detach().clone()
        result = function(*args, **(kwargs or {}))
        self.unedited.operations.append((operand, args[1], result.detach().clone()))
        return result


class Differences(TorchFunctionMode):
    """While it is entered, linear operations apply to differences, in a small format; enter it for edited codes."""

    def __init__(self, unedited: Unedited, dtype: torch.dtype, start: int = 0) -> None:
        """Prepare one pass over edits, of which number i is one of the unedited code i % B.

        Args:
            unedited: What `Recorded` remembered of the same pass over the B unedited codes.
            dtype: The small format, bfloat16 or float16.
            start: Number of the first edit.
        """
        super().__init__()
        self.unedited, self.dtype, self.start = unedited, dtype, start
        self._next = iter(unedited.operations)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function; W x0 + W (x - x0) if it is linear, with the weights that the unedited codes met."""
        if function not in LINEAR or len(args) < 2:
            return function(*args, **(kwargs or {}))
        x, weight, _, *rest = (*args, None)[: max(3, len(args))]
        x0, same, y0 = next(self._next)
        if weight is not same or x.shape[1:] != x0.shape[1:]:  # W belongs to the code, or rows are not the first axis
            return function(*args, **(kwargs or {}))
        start = self.start * (len(x0) // self.unedited.count)  # L rows for each code, where latent inputs are rows
        change = _add(x, x0, start, -1)  # [N, ...]
        plain = {key: value for key, value in (kwargs or {}).items() if key != "bias"}
        scale = None
        if self.dtype is torch.float16:  # whose smallest numbers are larger than a small change
            scale = change.detach().abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
            change = change / scale
        product = function(change.to(self.dtype), weight.to(self.dtype), None, *rest, **plain).to(x.dtype)
        return _add(product if scale is None else product * scale, y0, start)


def _add(x: Tensor, x0: Tensor, start: int, sign: int = 1) -> Tensor:
    """Return x [N, ...] with row (start + i) % B of x0 [B, ...] added to row i, or taken from it."""
    count, size = len(x), len(x0)
    if start % size == 0 and count % size == 0:
        return torch.add(x.unflatten(0, (-1, size)), x0, alpha=sign).flatten(0, 1)  # no copy of x0
    return torch.add(x, x0[torch.arange(start, start + count, device=x.device) % size], alpha=sign)
