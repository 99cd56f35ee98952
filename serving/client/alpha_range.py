"""A word about strengths beyond the range that the model suggests; the pictures are drawn all the same."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.contract.edits import resolve_edit
from serving.contract.manifest import Manifest
from serving.errors import AlphaWarning

_HERE = str(Path(__file__).parents[1])
_SLACK = 1e-6  # of a range's larger end: the ends come through float32


def warn_outside(
    manifest: Manifest,
    direction: NDArray[np.int64],
    alphas: NDArray[np.float32],
    keys: Sequence[int | str] | None = None,
) -> None:
    """Warn, once for the request, if a strength is outside its range: the direction's, or a named edit's own.

    Args:
        manifest: The served editor.
        direction: Indices [N, M].
        alphas: Strengths [N, M, L]; 0 is no edit, and inside every range.
        keys: The direction index or edit name of each of the M; None for rows whose directions differ.
    """
    if keys is None:
        directions = manifest.directions
        own = np.array([score.range for score in directions.scores])  # [K, 2]
        limits = own[direction] if directions.scores else np.array([[directions.alpha_range]])  # [N or 1, M or 1, 2]
    else:
        named = [resolve_edit(manifest, key) for key in keys]
        limits = np.array([[edit.alpha for edit in named]])  # [1, M, 2]
        alphas = alphas * np.array([edit.sign for edit in named], np.float32)[None, :, None]  # as they were asked for
    slack = _SLACK * np.abs(limits).max(axis=2)
    low, high = (limits[..., 0] - slack)[..., None], (limits[..., 1] + slack)[..., None]
    outside = ((alphas < low) | (alphas > high)) & (alphas != 0)
    if not outside.any():
        return
    row, column, layer = np.unravel_index(int(np.argmax(np.where(outside, np.abs(alphas), 0))), alphas.shape)
    key = None if keys is None else keys[int(column)]
    of = "" if key is None else f" of {key!r}" if isinstance(key, str) else f" of direction {key}"
    bounds = "[{:g}, {:g}]".format(*np.broadcast_to(limits, (*alphas.shape[:2], 2))[row, column])
    line = f"alpha {alphas[row, column, layer]:g}{of} is outside the model's range {bounds}: expect a broken picture"
    tell(line, AlphaWarning)


def tell(line: str, kind: type[Warning]) -> None:
    """Tell whoever listens, by default Python's warnings."""
    _teller.get()(line, kind)


@contextmanager
def telling(teller: Callable[[str], object] | None) -> Iterator[None]:
    """Give the lines to somebody else than Python's warnings, within this thread or task.

    Args:
        teller: Takes the line; None if nobody should be told.
    """
    token = _teller.set(lambda line, _: None if teller is None else teller(line))
    try:
        yield
    finally:
        _teller.reset(token)


def _warn(line: str, kind: type[Warning]) -> None:
    """Warn at the caller's line, which is the first outside this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        level, frame = level + 1, frame.f_back
    warnings.warn(line, kind, stacklevel=level)


_teller: ContextVar[Callable[[str, type[Warning]], object]] = ContextVar("teller", default=_warn)
