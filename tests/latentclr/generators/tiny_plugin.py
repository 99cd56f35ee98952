"""A user's file as tests name it on the command line: grey pictures of 12 x 16 pixels, with classes if asked."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from latentclr.generators.base import LatentSpec

WORD = f"generator={Path(__file__).resolve()}:make"


class Tiny(nn.Module):
    """D = 10, and L = `layers`; the last code alone reaches `late`."""

    def __init__(self, width: int, classes: bool, layers: int) -> None:
        super().__init__()
        self.latent = LatentSpec(dim=10, layers=layers)
        self.first = nn.Linear(10, width)
        self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(width, width), nn.Tanh())
        self.late = nn.Linear(10, width)
        self.paint = nn.ConvTranspose2d(width, 1, (12, 16))
        if classes:
            self.class_names = ["cold", "warm", "hot"]
            self.of_class = nn.Embedding(3, width)

    def forward(self, z: Tensor, class_id: Tensor | None = None) -> Tensor:
        first, last = (z, z) if z.ndim == 2 else (z[:, 0], z[:, -1])
        x = self.body(self.first(first)) + torch.tanh(self.late(last))
        if class_id is not None:
            x = x + self.of_class(class_id)
        return torch.tanh(self.paint(x[..., None, None]))  # [N, 1, 12, 16]


def make(width: int = 6, classes: bool = False, layers: int = 1, seed: int = 0) -> Tiny:
    """Return a module with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tiny(width, classes, layers)
