"""The options of `generator=stylegan3`; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentclr.config import GeneratorConfig, option

if TYPE_CHECKING:
    from latentclr.generators.base import Generator


@dataclass
class StyleGAN3Config(GeneratorConfig):
    """generator=stylegan3: T or R, from NVIDIA's `.pkl`, safetensors or plain tensors."""

    name: str = "stylegan3"
    feature_layer: str = option("L2", "input, or LN for NVIDIA's LN_SIZE_CHANNELS")
    configuration: str = option("t", "of random weights: t or r; a file tells itself")
    truncation: float = option(0.7, "psi of rendered images, applied after the edit; 1 for none")
    classes: Any = option(None, "of a class-conditional network: ids that training draws from; null for all")

    def build(self) -> Generator:
        """Load it."""
        from latentclr.generators.stylegan3.stylegan3 import load_stylegan3

        return load_stylegan3(self)
