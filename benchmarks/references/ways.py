"""The ways of doing one training step that are compared, all from one seed and so the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from latentclr.config import (
    BigGANConfig,
    DCGANConfig,
    GeneratorConfig,
    HParamsConfig,
    ModelConfig,
    StyleGAN2Config,
    TrainConfig,
)
from latentclr.generators.base import Generator
from latentclr.generators.biggan.biggan import BigGAN
from latentclr.generators.dcgan import faces_path
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.generators.weights.files import load_tensors
from latentclr.method.step import Batch, ContrastiveStep
from latentclr.training.experiment import new_step
from latentclr.training.optim import build_optimizer
from latentclr.training.rng import stream
from references.grouped_stylegan2 import load_grouped_stylegan2
from references.origin_way import OriginGenerator, OriginStep, stock_dcgan
from references.package_biggan import load_package_biggan

WAYS = ("origin", "lean", "lean chunked", "lean bf16")
ALL_WAYS = (*WAYS, "lean bf16 chunked")
RESOLUTIONS = {"dcgan": 64, "biggan": 256, "stylegan2": 1024}  # of the origin's examples


@dataclass(frozen=True)
class Setting:
    """One training setting: features after `layer`, K directions, B codes, networks of `depth` linear layers.

    BigGAN and StyleGAN2 have random weights of full size; chunks are of `chunk` rows, where a way is chunked.
    """

    layer: str = "main.2"
    k: int = 16
    batch_size: int = 8
    depth: int = 3
    chunk: int = 32
    generator: str = "dcgan"
    resolution: int = 64

    def config(self, way: str) -> TrainConfig:
        """Return the configuration that a user of this setting would have."""
        generator: GeneratorConfig = DCGANConfig(feature_layer=self.layer)
        if self.generator == "biggan":
            generator = BigGANConfig(
                feature_layer=self.layer, weights="random", resolution=self.resolution, class_name="bulbul"
            )
        elif self.generator == "stylegan2":
            generator = StyleGAN2Config(feature_layer=self.layer, weights=f"random:{self.resolution}")
        return TrainConfig(
            generator=generator,
            model=ModelConfig(
                name="nonlinear", alpha=1.0 if self.generator == "stylegan2" else [-3.0, 3.0], depth=self.depth
            ),
            hparams=HParamsConfig(batch_size=self.batch_size, chunk=self.chunk if "chunked" in way else None),
            k=self.k,
            device="cpu",
            mixed_precision="bf16" if "bf16" in way else False,
        )


@dataclass
class Way:
    """A step with its optimizer.

    Attributes:
        lean: The lean step; of the origin's way only its sampling and its initial weights are used.
        loss_of: batch -> scalar loss.
        directions: The module that is trained.
        optimizer: Adam over the directions alone, as in both trainers.
        taken: Steps done.
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
        LatentCLRError: The faces' weights are not installed, or the layer does not exist.
    """
    config = setting.config(way)
    lean = new_step(config, torch.device("cpu")).train()
    directions: nn.Module = lean.directions

    def lean_loss(batch: Batch) -> Tensor:
        loss: Tensor = lean(batch)[0]
        return loss

    loss_of: Callable[[Batch], Tensor] = lean_loss
    if way == "origin":
        origin = OriginStep(lean, _origin_generator(config.generator, lean.generator))
        # No optimizer owns the generator's weights and nothing clears their gradients: they pile up, as there.
        loss_of, directions = origin, origin.nets
    optimizer = build_optimizer(config.hparams.optimizer, directions.parameters())
    return Way(lean, loss_of, directions, optimizer, setting.batch_size)


def _origin_generator(config: GeneratorConfig, lean: Generator) -> OriginGenerator:
    layer = config.feature_layer
    if isinstance(config, BigGANConfig) and isinstance(lean, BigGAN):
        package = load_package_biggan(config, lean)
        return OriginGenerator(lambda z: z, lambda p, class_id: package.features(p[:, None], layer, class_id))
    if isinstance(config, StyleGAN2Config) and isinstance(lean, StyleGAN2):
        grouped, count = load_grouped_stylegan2(config, lean), lean.latent.layers
        return OriginGenerator(grouped.encode, lambda p, _: grouped.features(p[:, None].expand(-1, count, -1), layer))
    stock = stock_dcgan(load_tensors(faces_path(), nested="netG_state_dict"), layer)
    return OriginGenerator(lambda z: z, lambda p, _: stock(p[:, :, None, None]))


def first_gradient(way: Way) -> Tensor:
    """Return the gradient of the first layers' weights [K, D, D] that the last `train_once` left."""
    named = dict(way.directions.named_parameters())
    if "weights.0" in named:  # stacked already
        gradient = named["weights.0"].grad
        assert gradient is not None
        return gradient
    apart = [weight.grad for name, weight in named.items() if name.endswith(".0.weight")]
    return torch.stack([gradient for gradient in apart if gradient is not None])
