"""Generators by name."""

from __future__ import annotations

from latentclr.config import GENERATORS, DCGANConfig, GeneratorConfig
from latentclr.errors import GeneratorError
from latentclr.generators.base import Generator


def build_generator(config: GeneratorConfig) -> Generator:
    """Load the generator that a configuration names, frozen, on the CPU.

    Raises:
        GeneratorError: the name is unknown, or the weights are missing or unusable.
    """
    if isinstance(config, DCGANConfig):
        from latentclr.generators.dcgan import load_dcgan

        return load_dcgan(config.weights)
    raise GeneratorError(f"unknown generator {config.name!r}; expected one of {', '.join(GENERATORS)}")
