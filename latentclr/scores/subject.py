"""What is scored: a generator with directions, moved, rendered in parts and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from latentclr.generators.base import Generator
from latentclr.method.directions import Directions
from latentclr.pictures.pixels import to_uint8
from latentclr.pictures.render import at_once
from latentclr.training.rng import stream

Pixels = NDArray[np.uint8]
POOLED = 4  # features are averaged over a grid of this side: no layer is too large, and places still count


@dataclass(frozen=True)
class Codes:
    """Latent codes and all directions at them, computed once.

    Attributes:
        p: Codes [C, D].
        d: Directions [K, C, D].
        class_id: [C] int64, for class-conditional generators.
        fed: Mask [L] of the latent inputs that receive an edit.
    """

    p: Tensor
    d: Tensor
    class_id: Tensor | None
    fed: Tensor

    def __len__(self) -> int:
        """Return C."""
        return len(self.p)

    def first(self, count: int) -> Codes:
        """Return the first `count` of them."""
        classes = None if self.class_id is None else self.class_id[:count]
        return Codes(self.p[:count], self.d[:, :count], classes, self.fed)

    def moved(self, direction: int, alpha: float) -> Tensor:
        """Return every code moved along a direction [C, L, D]; at 0 the codes as they are."""
        return self.p[:, None] + self.fed[:, None] * (alpha * self.d[direction])[:, None]

    def still(self) -> Tensor:
        """Return the codes as they are [C, L, D]."""
        return self.p[:, None].expand(-1, len(self.fed), -1)


class Subject:
    """A generator with directions, on one device.

    Attributes:
        generator: The generator.
        directions: K directions, in inference mode.
        layers: The feature layers that are looked at, without those named twice.
        pictures: How many pictures were rendered so far.
    """

    def __init__(
        self,
        generator: Generator,
        directions: Directions,
        fed: Tensor,
        layers: Sequence[str],
        told: Callable[[int], Any] | None = None,
    ) -> None:
        """Keep the parts.

        Args:
            generator: The generator.
            directions: In inference mode, on the same device.
            fed: Mask [L] of the latent inputs that receive an edit.
            layers: Names from `feature_layers`.
            told: Called with the number of pictures whenever some were rendered.
        """
        self.generator, self.directions, self.fed = generator, directions, fed
        self.layers = tuple(dict.fromkeys(generator.check_layer(layer) for layer in layers))
        self.pictures = 0
        self._told = told

    def codes(self, count: int, seed: int, purpose: str) -> Codes:
        """Draw codes, the same ones at every call; a conditional generator's take the run's classes in turn.

        In which order is drawn too: where there are fewer codes than classes, the first ids alone would be seen.
        """
        z = self.generator.sample(count, stream(seed, purpose)).to(self.fed.device)
        ids, classes = torch.tensor(self.generator.class_ids), None
        if len(ids):
            order = torch.randperm(len(ids), generator=stream(seed, f"{purpose} classes"))
            classes = ids[order[torch.arange(count) % len(ids)]].to(self.fed.device)
        with torch.no_grad():
            p = self.generator.encode(z, classes)
            return Codes(p, self.directions(p), classes, self.fed)

    def render(self, ps: Tensor, class_id: Tensor | None) -> Pixels:
        """Render ps [N, L, D] in parts: uint8 [N, H, W, 3]."""
        images = []
        for part, classes in self._parts(ps, class_id):
            images.append(to_uint8(self.generator.synthesize(part, classes)).cpu())
            self.pictures += len(part)
            if self._told is not None:
                self._told(len(part))
        pixels: Pixels = torch.cat(images).numpy()
        return pixels

    def features(self, ps: Tensor, class_id: Tensor | None, layer: str) -> Tensor:
        """Return a layer's output for ps [N, L, D], averaged over a grid of 4 x 4 where it has places: [N, F]."""
        return torch.cat([
            pooled(self.generator.features(part, layer, classes)) for part, classes in self._parts(ps, class_id)
        ])  # fmt: skip

    def _parts(self, ps: Tensor, class_id: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
        count = at_once(self.generator)
        parts = ps.split(count)
        return list(zip(parts, [None] * len(parts) if class_id is None else class_id.split(count), strict=True))


def pooled(features: Tensor) -> Tensor:
    """Average [N, C, h, w] over a grid of 4 x 4, where there is more, and flatten: [N, F]."""
    if features.ndim == 4 and max(features.shape[2:]) > POOLED:
        features = F.adaptive_avg_pool2d(features, POOLED)
    return features.flatten(1).float()
