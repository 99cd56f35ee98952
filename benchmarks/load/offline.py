"""What the same model does without a server: the throughput that serving is to be measured against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common.timing import calls_per_second

from export.onnx import OnnxEditor
from load.drive import Shape
from load.wire import Array

Feed = dict[str, Array]  # inputs in the graph's order


def join(feeds: list[Feed], rows: int) -> Feed:
    """Return one request of N = rows, made of one-row requests taken in turn."""
    return {name: np.concatenate([feeds[i % len(feeds)][name] for i in range(rows)]) for name in feeds[0]}


def throughput(model: Path, shape: Shape, feed: Feed, seconds: float) -> float:
    """Return images a second of sessions that do nothing but draw one batch after another.

    Args:
        model: A `model.onnx`.
        shape: Sessions, each driven by a thread of its own, and the threads inside each.
        feed: One batch [N, ...].
        seconds: Length of the measurement; a third of it goes before as warm-up.
    """
    sessions = [OnnxEditor(model, shape.threads) for _ in range(shape.instances)]
    inputs = tuple(feed.values())
    calls = [lambda session=session: session(*inputs) for session in sessions]  # type: ignore[misc]
    return len(inputs[0]) * calls_per_second(calls, seconds, warm_up_s=seconds / 3)
