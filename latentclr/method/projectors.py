"""Projectors: flatten features, map them (or not), and normalise to unit length. [N, ...] -> [N, F']."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projector(nn.Module):
    """Base and identity projector: flatten and normalise."""

    kind = "identity"

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self.net: nn.Module = nn.Identity()
        self.normalize = normalize

    def forward(self, features: Tensor) -> Tensor:
        """Project features [N, ...] to [N, F'], rows of unit length if `normalize`."""
        x = self.net(features.flatten(1))
        return F.normalize(x, dim=1, eps=1e-12) if self.normalize else x

    def project_groups(self, features: Tensor, groups: int) -> Tensor:
        """Project [groups * B, ...] to [groups * B, F'], not normalised.

        Batch statistics are each group's own, as in the origin, which projects one direction at a time.
        """
        flat = features.flatten(1)
        if not self.training or not any(isinstance(part, nn.BatchNorm1d) for part in self.modules()):
            out: Tensor = self.net(flat)
            return out
        return torch.cat([self.net(part) for part in flat.chunk(groups)])


class LinearProjector(Projector):
    """Linear, then batch norm."""

    kind = "linear"

    def __init__(self, in_features: int, out_features: int, rng: torch.Generator, normalize: bool = True) -> None:
        """Initialise like `torch.nn.Linear`, from `rng`."""
        super().__init__(normalize)
        self.net = nn.Sequential(
            OrderedDict(
                linear_1=_linear(in_features, out_features, rng),
                batchnorm_1=nn.BatchNorm1d(out_features),
            )
        )


class NonlinearProjector(Projector):
    """Linear, then (batch norm, ReLU, Linear) x (depth - 1), the last Linear without bias."""

    kind = "nonlinear"

    def __init__(
        self,
        in_features: int,
        middle_features: int,
        out_features: int,
        depth: int,
        rng: torch.Generator,
        normalize: bool = True,
    ) -> None:
        """Initialise like `torch.nn.Linear`, from `rng`."""
        super().__init__(normalize)
        sizes = [in_features] + [middle_features] * (depth - 1) + [out_features]
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(depth):
            layers[f"linear_{i + 1}"] = _linear(sizes[i], sizes[i + 1], rng, bias=i + 1 < depth or depth == 1)
            if i + 1 < depth:
                layers[f"batchnorm_{i + 1}"] = nn.BatchNorm1d(middle_features)
                layers[f"relu_{i + 1}"] = nn.ReLU()
        self.net = nn.Sequential(layers)


def _linear(in_features: int, out_features: int, rng: torch.Generator, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias=bias, device="meta").to_empty(device="cpu")
    bound = in_features**-0.5
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=rng)
    return layer
