"""The requests of a load: random faces, random edits, and among them some that must be marked as not valid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.onnx import OnnxEditor
from load.offline import Feed
from load.wire import Prepared, save_requests, serialise
from serving import Manifest
from serving.contract.tensors import OUTPUTS

NOT_VALID_EVERY = 16  # requests: one bad row, whose neighbours in a batch must not notice


def draw_feed(manifest: Manifest, rows: int, random: np.random.RandomState, bad: bool = False) -> Feed:
    """Draw N = rows edits of random codes, M = 1.

    Args:
        manifest: Of a served model whose input is z and which has no classes.
        rows: N.
        random: Where everything comes from.
        bad: The first row's direction does not exist.
    """
    latent, (low, high) = manifest.latent, manifest.directions.alpha_range
    direction = random.randint(manifest.directions.count, size=(rows, 1))
    if bad:
        direction[0] = manifest.directions.count
    alpha = random.uniform(low, high, size=(rows, 1, 1)) * np.ones(latent.layers)
    return {
        "z": random.standard_normal((rows, latent.dim)).astype(np.float32),
        "direction": direction.astype(np.int64),
        "alpha": alpha.astype(np.float32),
    }


def prepare(
    model: Path, name: str, manifest: Manifest, path: Path, *, count: int, sizes: Sequence[int] = (1,), seed: int = 0
) -> list[Feed]:
    """Write requests with their right answers for `load.generator`; return their inputs.

    Args:
        model: The `model.onnx` that is served; a bare session of it draws the right answers.
        name: Of the served model.
        manifest: Of the served model.
        path: The file to write.
        count: How many different requests.
        sizes: Rows of a request, taken in turn.
        seed: Of everything random.
    """
    session, random = OnnxEditor(model), np.random.RandomState(seed)
    feeds, requests = [], []
    for index in range(count):
        bad = index % NOT_VALID_EVERY == NOT_VALID_EVERY - 1
        feeds.append(draw_feed(manifest, sizes[index % len(sizes)], random, bad))
        image, valid = session(*feeds[-1].values())
        requests.append(Prepared(serialise(name, feeds[-1], OUTPUTS), image, valid))
    save_requests(requests, path)
    return feeds
