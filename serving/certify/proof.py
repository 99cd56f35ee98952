"""Sending golden requests and photos to a running server, and what that says of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.client.alpha_range import telling
from serving.client.client import EditClient
from serving.client.photos import CENTRE
from serving.contract.certificate import GATES, Certificate, CertificateError, Comparison, Gate
from serving.contract.golden import GOLDEN_FILE, Golden, compare_golden
from serving.contract.golden_photos import CODES_APART, GoldenPhotos
from serving.errors import InvalidEdit, PhotoError


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


@dataclass
class PhotoProof:
    """What a server's encoder found in the golden photos, and what its editor drew of that.

    Attributes:
        comparison: The pictures of the codes that were found, each against that of the code in the file.
        apart: The largest difference of any number of a code, in standard deviations of the prior.
        seconds: From the client's call to the code, of each photo but the first.
    """

    comparison: Comparison = field(default_factory=Comparison)
    apart: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def certificate(self, engine: str, precision: str, gate: Gate) -> Certificate:
        """Return what the pictures say, and the codes of a gate that allows pictures no more than rounding."""
        return replace(self.comparison.certificate(engine, precision, gate), passed=not self.misses(gate))

    def misses(self, gate: Gate) -> list[str]:
        """Return what the gate asks and is not there; codes by themselves are asked for by `exact` alone."""
        missed = gate.misses(self.comparison.measured())
        if gate.name == GATES["exact"].name and not self.apart <= CODES_APART:
            missed = [*missed, f"codes {self.apart:.2g} standard deviations apart instead of at most {CODES_APART:g}"]
        return missed

    def p50_ms(self) -> float:
        """Return the median time of one photo in milliseconds."""
        return float(np.median(self.seconds)) * 1e3


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
        for turn, row in enumerate(itertools.islice(itertools.cycle(single), requests), start=1):
            code, direction, alpha, *rest = golden.request([row])
            unlike = np.float32(1 + turn * np.finfo(np.float32).eps)  # the others, or a response cache would answer
            arrays = (code, direction, alpha * unlike, *rest)
            start = time.perf_counter()
            client.edit_rows(*arrays)
            proof.seconds.append(time.perf_counter() - start)
            done(1)
    if client.manifest.files_sha256.get(GOLDEN_FILE) != before:
        raise CertificateError("the server turned to another version meanwhile: certify again")
    return proof


def prove_photos(
    client: EditClient, golden: GoldenPhotos, done: Callable[[int], object] = lambda count: None
) -> PhotoProof:
    """Have a server's encoder find the codes of golden photos, and its editor draw them.

    Args:
        client: Of the served editor.
        golden: The golden photos of its encoder.
        done: Is told after each photo.

    Raises:
        CertificateError: The server refused a photo or its code, or answered with pictures of another shape.
        ServingError: The server cannot answer.
    """
    proof = PhotoProof()
    layers = client.manifest.latent.layers
    nothing = np.zeros((1, 1), np.int64), np.zeros((1, 1, layers), np.float32)
    for row, picture in enumerate(golden.pictures):
        try:
            start = time.perf_counter()
            codes = client.invert(picture, align=CENTRE).codes
            proof.seconds += [time.perf_counter() - start] if row else []
            classes = () if golden.class_id is None else (golden.class_id[row : row + 1],)
            image = client.edit_rows(codes, *nothing, *classes).images
        except (InvalidEdit, PhotoError) as error:
            raise CertificateError(
                f"the server refused golden photo {row}, which eager PyTorch drew: {error}"
            ) from error
        if image.shape != (1, *golden.images.shape[1:]):
            raise CertificateError(f"the server drew a picture of shape {list(image.shape)} of golden photo {row}")
        proof.apart = float(np.maximum(proof.apart, golden.apart(row, codes)))  # keeps what is not a number
        proof.comparison.add(golden.images[row : row + 1], image, [[]])
        done(1)
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
