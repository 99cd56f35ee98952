"""Generators by name."""

from __future__ import annotations

from latentclr.config import GENERATORS, BigGANConfig, DCGANConfig, GeneratorConfig, StyleGAN2Config, StyleGAN3Config
from latentclr.errors import GeneratorError
from latentclr.generators.base import Generator


def build_generator(config: GeneratorConfig) -> Generator:
    """Load the generator that a configuration names, frozen, on the CPU.

    Raises:
        GeneratorError: The name is unknown, or the weights are missing or unusable.
    """
    if isinstance(config, DCGANConfig):
        from latentclr.generators.dcgan import load_dcgan

        return load_dcgan(config.weights)
    if isinstance(config, BigGANConfig):
        from latentclr.generators.biggan.biggan import load_biggan

        return load_biggan(config.weights, config.resolution, config.truncation, config.class_name)
    if isinstance(config, StyleGAN2Config):
        from latentclr.generators.stylegan2.stylegan2 import load_stylegan2

        return load_stylegan2(config)
    if isinstance(config, StyleGAN3Config):
        from latentclr.generators.stylegan3.stylegan3 import load_stylegan3

        return load_stylegan3(config)
    raise GeneratorError(f"unknown generator {config.name!r}; expected one of {', '.join(GENERATORS)}")
