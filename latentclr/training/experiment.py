"""From a configuration to the parts of an experiment: generator, directions, projector and step, on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch

from latentclr.catalog import CATALOG_FILE, NamedEdit, fitting_edits, published_edits, readable_edits
from latentclr.compose import Words, compose_run, parse_overrides, plain
from latentclr.config import StyleGAN2Config, TrainConfig, check_alpha
from latentclr.errors import CheckpointError, ConfigError
from latentclr.generators.base import Generator
from latentclr.generators.registry import build_generator, is_built_in
from latentclr.method.step import ContrastiveStep, StepOptions
from latentclr.origin.run import SUFFIXES, load_origin_run
from latentclr.training.checkpoint import (
    Checkpoint,
    check_generator,
    find_checkpoint,
    load_checkpoint,
    make_directions,
    make_projector,
)
from latentclr.training.rng import stream

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
        rounding=dtypes[config.mixed_precision],
    )


def new_step(config: TrainConfig, device: torch.device) -> ContrastiveStep:
    """Make a step with freshly initialised directions and projector.

    Raises:
        LatentCLRError: The generator, layer or feed layers cannot be used.
    """
    generator = build_generator(config.generator)
    features = generator.feature_size(generator.check_layer(config.generator.feature_layer))
    rng = stream(config.seed, "init")
    directions = make_directions(plain(config), config.k, generator.latent.dim, rng)
    projector = make_projector(plain(config), features, rng)
    return ContrastiveStep(generator, directions, projector, step_options(config, device)).to(device)


def open_run(run: Path, words: Words, schema: type[C], *, closed: bool = False) -> tuple[C, Checkpoint]:
    """Read a checkpoint of a run, and the run's configuration with overrides laid over it.

    Args:
        run: A run folder or a checkpoint file, ours or of the origin's trainer.
        words: Overrides; `checkpoint=best|last|FILE` chooses the checkpoint.
        schema: TrainConfig or GenConfig.
        closed: The generator is not going to be built, see `compose_run`.

    Raises:
        LatentCLRError: There is no usable checkpoint, or an override is wrong or would change the trained model.
    """
    words = parse_overrides(words)
    which = words.value("checkpoint")
    path = find_checkpoint(run, None if which is None else str(which))
    checkpoint = load_origin_run(path, run) if path.suffix in SUFFIXES else load_checkpoint(path)
    config = compose_run(checkpoint.config, words, schema, closed=closed)
    trained = checkpoint.config
    for section, keys in {
        "model": ("name", "depth", "normalize", "orient"),
        "projector": ("name", "depth", "normalize"),
    }.items():
        for key in keys:
            now = getattr(getattr(config, section), key)
            default = getattr(type(getattr(config, section))(), key)  # of a run that is older than the option
            then = trained[section].get(key, default)
            if now != then:
                raise ConfigError(f"{section}.{key}={now}: {checkpoint.path} was trained with {then}")
    if config.k != checkpoint.directions.k:
        raise ConfigError(f"k={config.k}: {checkpoint.path} has {checkpoint.directions.k} directions")
    return config, checkpoint


def catalog_of(config: TrainConfig, checkpoint: Checkpoint) -> tuple[dict[str, NamedEdit], list[str]]:
    """Return a run's catalog as it stands, and what needs saying: entries that are no edits, or why there are none.

    A checkpoint of the origin without a catalog gets the names that its authors published for the class, if they are
    for such a checkpoint at all.

    Raises:
        CheckpointError: The catalog cannot be read, or is none.
    """
    generator, folder = config.generator, checkpoint.path.parent
    of_origin = checkpoint.path.suffix in SUFFIXES and not (folder / CATALOG_FILE).is_file()
    if of_origin and isinstance(generator, StyleGAN2Config) and generator.use_w:
        edits, reason = published_edits(generator.class_name, checkpoint.directions.k)
        return edits, [reason] if reason else []
    return readable_edits(folder)


def named_edits(
    config: TrainConfig, checkpoint: Checkpoint, layers: int | None
) -> tuple[dict[str, NamedEdit], list[str]]:
    """Return the named edits of a run that can be carried out, and a line for each thing that was dropped.

    Args:
        config: The run's configuration.
        checkpoint: The run's checkpoint.
        layers: L of its generator; None if it is not known.

    Raises:
        CheckpointError: The catalog cannot be read or understood.
    """
    edits, problems = catalog_of(config, checkpoint)
    fitting, dropped = fitting_edits(edits, checkpoint.directions.k, layers, config.feed_layers)
    return fitting, problems + dropped


def trained_generator(config: TrainConfig, checkpoint: Checkpoint) -> Generator:
    """Load the generator that a checkpoint edits.

    Raises:
        LatentCLRError: It cannot be used, or does not fit the checkpoint.
    """
    generator = build_generator(config.generator)
    recorded, now = checkpoint.generator.get("weights_sha256"), generator.weights_sha256
    same = {**checkpoint.config["generator"], "name": config.generator.name} == plain(config)["generator"]
    if not is_built_in(config.generator.name) and same and now != recorded:
        # A plug-in's name may mean something else today, so that this is no wish for other weights.
        raise CheckpointError(
            f"{config.generator.name} is not the generator that {checkpoint.path} was trained on: its weights have"
            f" SHA-256 {now[:12]}..., expected {str(recorded)[:12]}..."
        )
    check_generator(checkpoint, generator)
    return generator


def trained_step(config: TrainConfig, checkpoint: Checkpoint, device: torch.device) -> ContrastiveStep:
    """Make a step with the directions and projector of a checkpoint, in inference mode.

    Raises:
        LatentCLRError: The generator cannot be used, or does not fit the checkpoint.
    """
    generator = trained_generator(config, checkpoint)
    options = step_options(config, device)
    return ContrastiveStep(generator, checkpoint.directions, checkpoint.projector, options).to(device).eval()
