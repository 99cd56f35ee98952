"""StyleGAN3's low-pass filters: a sinc or jinc under a Kaiser window (arXiv 2106.12423, appendix C)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def low_pass(taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False) -> Tensor:
    """Design a filter with a gain of 1 at frequency 0.

    Args:
        taps: Its length n, a positive even number, or 1 for no filter.
        cutoff: Where the gain is a half, in cycles per picture, as `width` and `rate`.
        width: Of the band in which the gain falls, both sides of `cutoff` together.
        rate: Sampling rate.
        radial: Two-dimensional, the same in all directions, and then not separable.

    Returns:
        [n], or [n, n] of a radial filter, float32.
    """
    if taps == 1:
        return torch.ones(1, 1) if radial else torch.ones(1)
    window = np.kaiser(taps, _kaiser_beta(taps, width / (rate / 2)))  # [n]
    t = (np.arange(taps) - (taps - 1) / 2) / rate  # [n]
    if not radial:
        separable = np.sinc(2 * cutoff * t) * window  # [n]
        return torch.from_numpy(separable / separable.sum()).float()
    r = np.hypot(t[:, None], t[None, :])  # [n, n], never 0, for n is even
    jinc = torch.special.bessel_j1(torch.from_numpy(2 * math.pi * cutoff * r)).numpy() / r  # [n, n]
    two = jinc * np.outer(window, window)
    return torch.from_numpy(two / two.sum()).float()


def _kaiser_beta(taps: int, width: float) -> float:
    """Return the window's beta for a transition band of `width` (1 is half the sampling rate), by Kaiser's formulas."""
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # dB
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return float(0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21))
    return 0.0
