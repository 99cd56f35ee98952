"""From a configuration to the parts of an experiment: generator, directions, projector and step, on a device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch

from latentclr.checkpoint import (
    Checkpoint,
    check_generator,
    find_checkpoint,
    load_checkpoint,
    make_directions,
    make_projector,
)
from latentclr.compose import compose_run, parse_overrides, plain
from latentclr.config import TrainConfig, check_alpha
from latentclr.errors import ConfigError
from latentclr.generators.base import Generator
from latentclr.generators.registry import build_generator
from latentclr.rng import stream
from latentclr.step import ContrastiveStep, StepOptions

C = TypeVar("C", bound=TrainConfig)


def step_options(config: TrainConfig, device: torch.device) -> StepOptions:
    """Return what a step computes under a configuration.

    Raises:
        ConfigError: fp16 is asked for on a CPU.
    """
    if config.mixed_precision == "fp16" and device.type != "cuda":
        raise ConfigError("mixed_precision=fp16 needs a GPU; use bf16 on the CPU")
    dtypes = {False: None, True: torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
    return StepOptions(
        layer=config.generator.feature_layer,
        feed_layers=None if config.feed_layers is None else tuple(config.feed_layers),
        alpha=check_alpha(config.model.alpha),
        temp=config.loss.temp,
        use_abs=config.loss.abs,
        reduce=config.loss.reduce,
        chunk=config.hparams.chunk,
        autocast=dtypes[config.mixed_precision],
    )


def new_step(config: TrainConfig, device: torch.device) -> ContrastiveStep:
    """Make a step with freshly initialised directions and projector.

    Raises:
        LatentCLRError: the generator, layer or feed layers cannot be used.
    """
    generator = build_generator(config.generator)
    features = generator.feature_size(generator.check_layer(config.generator.feature_layer))
    rng = stream(config.seed, "init")
    directions = make_directions(plain(config), config.k, generator.latent.dim, rng)
    projector = make_projector(plain(config), features, rng)
    return ContrastiveStep(generator, directions, projector, step_options(config, device)).to(device)


def open_run(run: Path, words: Sequence[str], schema: type[C]) -> tuple[C, Checkpoint]:
    """Read a checkpoint of a run, and the run's configuration with overrides laid over it.

    Args:
        run: a run folder or a checkpoint file.
        words: overrides; `checkpoint=best|last|FILE` chooses the checkpoint.
        schema: TrainConfig or GenConfig.

    Raises:
        LatentCLRError: there is no usable checkpoint, or an override is wrong or would change the trained model.
    """
    overrides = {o.key_or_group: o.value() for o in parse_overrides(words)}
    which = overrides.get("checkpoint")
    checkpoint = load_checkpoint(find_checkpoint(run, None if which is None else str(which)))
    config = compose_run(checkpoint.config, words, schema)
    trained = checkpoint.config
    for section, keys in {"model": ("name", "depth", "normalize"), "projector": ("name", "depth", "normalize")}.items():
        for key in keys:
            now = getattr(getattr(config, section), key)
            if now != trained[section][key]:
                raise ConfigError(f"{section}.{key}={now}: {checkpoint.path} was trained with {trained[section][key]}")
    if config.k != checkpoint.directions.k:
        raise ConfigError(f"k={config.k}: {checkpoint.path} has {checkpoint.directions.k} directions")
    return config, checkpoint


def trained_generator(config: TrainConfig, checkpoint: Checkpoint) -> Generator:
    """Load the generator that a checkpoint edits.

    Raises:
        LatentCLRError: it cannot be used, or does not fit the checkpoint.
    """
    generator = build_generator(config.generator)
    check_generator(checkpoint, generator)
    return generator


def trained_step(config: TrainConfig, checkpoint: Checkpoint, device: torch.device) -> ContrastiveStep:
    """Make a step with the directions and projector of a checkpoint, in inference mode.

    Raises:
        LatentCLRError: the generator cannot be used, or does not fit the checkpoint.
    """
    generator = trained_generator(config, checkpoint)
    options = step_options(config, device)
    return ContrastiveStep(generator, checkpoint.directions, checkpoint.projector, options).to(device).eval()
