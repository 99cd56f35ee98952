"""From the generator's [-1, 1] to what a screen shows."""

from __future__ import annotations

import torch
from torch import Tensor


def to_uint8(images: Tensor) -> Tensor:
    """Convert [N, 3, H, W] in [-1, 1] to RGB bytes [N, H, W, 3]: floor(clip((x + 1) * 127.5 + 0.5, 0, 255))."""
    scaled = ((images.float() + 1.0) * 127.5 + 0.5).clamp(0.0, 255.0)
    return scaled.permute(0, 2, 3, 1).floor().to(torch.uint8)
