"""The ways of doing one training step on the faces that are compared, all from one seed and so the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from origin_way import OriginStep
from torch import Tensor, nn

from latentclr.config import DCGANConfig, HParamsConfig, ModelConfig, TrainConfig
from latentclr.experiment import new_step
from latentclr.generators.dcgan import _faces_path
from latentclr.generators.weights import load_tensors
from latentclr.optim import build_optimizer
from latentclr.rng import stream
from latentclr.step import Batch, ContrastiveStep

WAYS = ("origin", "lean", "lean chunked", "lean bf16")


@dataclass(frozen=True)
class Setting:
    """One training setting: features after `layer`, K directions, B codes, networks of `depth` linear layers."""

    layer: str = "main.2"
    k: int = 16
    batch_size: int = 8
    depth: int = 3
    chunk: int = 32

    def config(self, way: str) -> TrainConfig:
        """Return the configuration that a user of this setting would have."""
        chunk = self.chunk if way == "lean chunked" else None
        return TrainConfig(
            generator=DCGANConfig(feature_layer=self.layer),
            model=ModelConfig(name="nonlinear", alpha=[-3.0, 3.0], depth=self.depth),
            hparams=HParamsConfig(batch_size=self.batch_size, chunk=chunk),
            k=self.k,
            device="cpu",
            mixed_precision="bf16" if way == "lean bf16" else False,
        )


@dataclass
class Way:
    """A step with its optimizer.

    Attributes:
        lean: the lean step; of the origin's way only its sampling and its initial weights are used.
        loss_of: batch -> scalar loss.
        directions: the module that is trained.
        optimizer: Adam over the directions alone, as in both trainers.
        taken: steps done.
    """

    lean: ContrastiveStep
    loss_of: Callable[[Batch], Tensor]
    directions: nn.Module
    optimizer: torch.optim.Optimizer
    batch_size: int
    taken: int = field(default=0)

    def train_once(self) -> float:
        """Draw a batch, do one optimizer step, and return the loss before it."""
        batch = self.lean.sample(self.batch_size, stream(0, "train", self.taken))
        self.optimizer.zero_grad()
        loss = self.loss_of(batch)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.taken += 1
        return float(loss.item())


def build_way(way: str, setting: Setting) -> Way:
    """Set up a way of doing the step, with the weights that seed 0 gives.

    Raises:
        LatentCLRError: the faces' weights are not installed, or the layer does not exist.
    """
    config = setting.config(way)
    lean = new_step(config, torch.device("cpu")).train()
    directions: nn.Module = lean.directions

    def lean_loss(batch: Batch) -> Tensor:
        loss: Tensor = lean(batch)[0]
        return loss

    loss_of: Callable[[Batch], Tensor] = lean_loss
    if way == "origin":
        origin = OriginStep(lean, load_tensors(_faces_path(), nested="netG_state_dict"))
        # No optimizer owns the generator's weights and nothing clears their gradients: they pile up, as there.
        loss_of, directions = origin, origin.nets
    optimizer = build_optimizer(config.hparams.optimizer, directions.parameters())
    return Way(lean, loss_of, directions, optimizer, setting.batch_size)


def first_gradient(way: Way) -> Tensor:
    """Return the gradient of the first layers' weights [K, D, D] that the last `train_once` left."""
    named = dict(way.directions.named_parameters())
    if "weights.0" in named:  # stacked already
        gradient = named["weights.0"].grad
        assert gradient is not None
        return gradient
    apart = [weight.grad for name, weight in named.items() if name.endswith(".0.weight")]
    return torch.stack([gradient for gradient in apart if gradient is not None])
