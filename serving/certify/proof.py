"""Sending golden requests to a running server, and what that says of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.client.alpha_range import telling
from serving.client.client import EditClient
from serving.contract.certificate import CertificateError, Comparison
from serving.contract.golden import GOLDEN_FILE, Golden, compare_golden
from serving.errors import InvalidEdit


@dataclass
class Proof:
    """What a server drew of the golden requests, and how long it took.

    Attributes:
        comparison: Every golden request twice: alone, and in the largest batches that the server takes.
        warm_up: Requests before the timed ones.
        seconds: Duration of each timed request: one picture, one edit, from the client's call to the pixels.
    """

    comparison: Comparison = field(default_factory=Comparison)
    warm_up: int = 0
    seconds: list[float] = field(default_factory=list)

    def latency(self) -> dict[str, Any] | None:
        """Return p50 and p99 in milliseconds, and of how many requests; None if none was timed."""
        if not self.seconds:
            return None
        p50, p99 = np.percentile(np.asarray(self.seconds) * 1e3, [50, 99])
        return {
            "p50_ms": round(float(p50), 3),
            "p99_ms": round(float(p99), 3),
            "requests": len(self.seconds),
            "warm_up": self.warm_up,
        }


def prove(
    client: EditClient, golden: Golden, requests: int, done: Callable[[int], object] = lambda count: None
) -> Proof:
    """Send golden requests to a server, compare its pictures and time it.

    Args:
        client: Of the served model.
        golden: Its golden requests.
        requests: How many to time, after all others.
        done: Is told after each request how many rows it had, see `work`.

    Raises:
        CertificateError: The server refused a request, answered with pictures of another shape, or turned to another
            version meanwhile.
        ServingError: The server cannot answer.
    """
    proof = Proof()
    before = client.manifest.files_sha256.get(GOLDEN_FILE)
    with telling(None):  # the strengths are the export's own
        for groups in (batches(golden, 1), batches(golden, client.description.max_batch_size)):
            drawn: dict[int, NDArray[np.uint8]] = {}
            for rows in groups:
                drawn |= zip(rows, _draw(client, golden, rows), strict=True)
                proof.warm_up += 1
                done(len(rows))
            compare_golden(proof.comparison, golden, drawn)
        single = [row for row in range(len(golden)) if golden.edits[row] == 1]
        for row in itertools.islice(itertools.cycle(single), requests):
            arrays = golden.request([row])
            start = time.perf_counter()
            client.edit_rows(*arrays)
            proof.seconds.append(time.perf_counter() - start)
            done(1)
    if client.manifest.files_sha256.get(GOLDEN_FILE) != before:
        raise CertificateError("the server turned to another version meanwhile: certify again")
    return proof


def work(golden: Golden, requests: int) -> int:
    """Return how many rows `prove` sends."""
    return 2 * len(golden) + requests


def batches(golden: Golden, most: int) -> Iterator[list[int]]:
    """Yield the golden rows in batches of rows with equally many edits, at most so many together (0: all)."""
    for m in np.unique(golden.edits):
        rows = np.flatnonzero(golden.edits == m).tolist()
        for start in range(0, len(rows), most or len(rows)):
            yield rows[start : start + (most or len(rows))]


def _draw(client: EditClient, golden: Golden, rows: list[int]) -> NDArray[np.uint8]:
    try:
        images = client.edit_rows(*golden.request(rows)).images
    except InvalidEdit as error:
        row = rows[error.row or 0]
        raise CertificateError(f"the server refused golden request {row}, which eager PyTorch drew: {error}") from error
    wanted = (len(rows), *golden.images.shape[1:])
    if images.shape != wanted:
        raise CertificateError(f"the server drew pictures of shape {list(images.shape)}, expected {list(wanted)}")
    return images
