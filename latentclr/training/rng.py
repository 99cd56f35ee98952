"""Random streams: every draw has its own generator, derived from the seed and what it is for.

Nothing depends on how many draws came before, so a resumed run, a longer run and another process count all draw the
same numbers for the same step, and no global state is touched.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def stream(seed: int, purpose: str, *index: int) -> torch.Generator:
    """Return a CPU generator for one purpose.

    Args:
        seed: The run's seed, at least 0.
        purpose: Such as `train` or `eval`.
        index: Step, rank and so on, each at least 0.
    """
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *index])
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]) >> 1)
