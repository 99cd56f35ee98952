"""RCA: can a fresh small network tell which direction was applied, from the picture before and after?

The reconstructor classification accuracy of Voynov and Babenko, Unsupervised Discovery of Interpretable Directions in
the GAN Latent Space (arXiv 2002.03754, section 4.2): directions that are easy to tell apart are different and clear.
Theirs is trained with strengths of the code; here every direction, either way, changes the picture by the same mean
RMS, so that no direction is told by how much it does. The codes that the accuracy is measured on were never seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from latentclr.scores.subject import Pixels
from latentclr.training.rng import stream

SIDE = 32  # pixels that the network sees
EPOCHS = 8
BATCH = 64
RESAMPLES = 1000


@dataclass(frozen=True)
class Rca:
    """How well the network guesses.

    Attributes:
        accuracy: Share of right guesses over held-out codes, in [0, 1].
        low: Lower end of its 95 % bootstrap interval over codes.
        high: Upper end.
        by_code: Share of right guesses at each held-out code [C].
        by_direction: Share of right guesses for each direction [K].
    """

    accuracy: float
    low: float
    high: float
    by_code: NDArray[np.float64]
    by_direction: NDArray[np.float64]


def small(images: Pixels) -> Tensor:
    """Shrink pictures [N, H, W, 3] to what the network sees: uint8 [N, 3, 32, 32]."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(pixels, SIDE).round().to(torch.uint8)


class Guesser(nn.Module):
    """Three convolutions and a linear layer: a picture and its change [N, 6, 32, 32] -> K scores."""

    def __init__(self, k: int) -> None:
        """Make the layers; weights are drawn by `guess`."""
        super().__init__()
        widths = (6, 24, 48, 96)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.last = nn.Linear(widths[-1] * (SIDE // 8) ** 2, k)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Guess from uint8 pictures [N, 3, 32, 32]: [N, K]."""
        x = torch.cat([before.float() / 127.5 - 1, (after.float() - before.float()) / 32], dim=1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        scores: Tensor = self.last(x.flatten(1))
        return scores


@dataclass(frozen=True)
class Pairs:
    """N pairs of pictures.

    Attributes:
        before: Pictures of C codes, uint8 [C, 3, 32, 32].
        after: Uint8 [N, 3, 32, 32].
        code: Index of the picture before [N].
        direction: Which direction was applied [N].
    """

    before: Tensor
    after: Tensor
    code: Tensor
    direction: Tensor


def guess(train: Pairs, held_out: Pairs, k: int, seed: int, told: Callable[[int], Any] | None = None) -> Rca:
    """Train a network on pairs, and measure it on others.

    Args:
        train: Pairs to learn from.
        held_out: Pairs of other codes.
        k: K.
        seed: Of the network's weights and the order of the pairs.
        told: Called with the number of pairs after each step.
    """
    rng = stream(seed, "score rca")
    network = Guesser(k)
    for parameter in network.parameters():  # as PyTorch does, from our own stream
        if parameter.ndim > 1:
            bound = float(parameter[0].numel()) ** -0.5
            parameter.data.uniform_(-bound, bound, generator=rng)
    for layer in (*network.convolutions, network.last):
        layer.bias.data.zero_()
    steps = EPOCHS * -(-len(train.after) // BATCH)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train.after), generator=rng).split(BATCH):
            if len(rows) > 1:  # the norms compare pictures
                scores = network(train.before[train.code[rows]], train.after[rows])
                optimizer.zero_grad()
                F.cross_entropy(scores, train.direction[rows]).backward()
                optimizer.step()
            scheduler.step()
            if told is not None:
                told(len(rows))
    network.eval()
    with torch.no_grad():
        guesses = torch.cat([
            network(held_out.before[held_out.code[rows]], held_out.after[rows]).argmax(dim=1)
            for rows in torch.arange(len(held_out.after)).split(256)
        ])  # fmt: skip
    right = (guesses == held_out.direction).double()
    by_code = _means(right, held_out.code, len(held_out.before))
    drawn = torch.randint(len(by_code), (RESAMPLES, len(by_code)), generator=stream(seed, "score rca bootstrap"))
    low, high = np.percentile(by_code[drawn.numpy()].mean(axis=1), (2.5, 97.5))
    return Rca(float(by_code.mean()), float(low), float(high), by_code, _means(right, held_out.direction, k))


def _means(values: Tensor, group: Tensor, groups: int) -> NDArray[np.float64]:
    total = torch.zeros(groups, dtype=torch.float64).index_add_(0, group, values)
    means: NDArray[np.float64] = (total / torch.bincount(group, minlength=groups).clamp(min=1)).numpy()
    return means
