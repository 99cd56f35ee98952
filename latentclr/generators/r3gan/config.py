"""The options of `generator=r3gan`; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentclr.config import GeneratorConfig, option

if TYPE_CHECKING:
    from latentclr.generators.base import Generator


@dataclass
class R3GANConfig(GeneratorConfig):
    """generator=r3gan: R3GAN, from its authors' `.pkl`, safetensors or plain tensors."""

    name: str = "r3gan"
    feature_layer: str = option("MainLayers.0.Layers.1", "MainLayers.N.Layers.M: stage N, its first layer or block M")
    classes: Any = option(None, "of a class-conditional network: ids that training draws from; null for all")

    def build(self) -> Generator:
        """Load it."""
        from latentclr.generators.r3gan.r3gan import load_r3gan

        return load_r3gan(self)
