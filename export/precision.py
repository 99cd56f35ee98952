"""Reduced precision: which operations may have it, found by search, so that the graph holds its gate and is fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from export.parity import Engine

PRECISIONS = ("fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class Operation:
    """Something of a graph that can stay in float32 by itself, such as a convolution.

    Attributes:
        name: Unique in its graph.
        cost: Its share of the graph's arithmetic, in (0, 1].
    """

    name: str
    cost: float


@dataclass(frozen=True)
class Built:
    """A graph as it would be published.

    Attributes:
        files: What belongs into the version's folder, the graph first.
        engine: It, loaded as the server loads it.
    """

    files: Sequence[Path]
    engine: Engine


class Lowered(Protocol):
    """A graph in reduced precision, in which any operations can be kept in float32."""

    engine: str
    precision: str
    operations: Sequence[Operation]

    def build(self, keep: frozenset[str], folder: Path) -> Built:
        """Write the graph with the operations `keep` in float32 and all others in reduced precision, and load it.

        Args:
            keep: Names of operations.
            folder: Where to write; empty, and this build's own.

        Raises:
            ExportError: The engine does not take the graph.
        """
