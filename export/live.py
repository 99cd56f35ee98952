"""How much memory a piece of code has in tensors at its fullest moment."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and alive together, views once.

    Attributes:
        peak: The most so far.
    """

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        """Begin with none; `known` were there before, and so their views count nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self._now = 0, 0
        self._users = {tensor.untyped_storage().data_ptr(): 1 for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                storage = tensor.untyped_storage()
                key, size = storage.data_ptr(), storage.nbytes()
                if self._users.setdefault(key, 0) == 0:
                    self._now += size
                    self.peak = max(self.peak, self._now)
                self._users[key] += 1
                weakref.finalize(tensor, self._gone, key, size)
        return made

    def _gone(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if self._users[key] == 0:
            self._now -= size
