"""`latentclr invert train`, from words to an encoder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from latentclr.cli import is_path
from latentclr.commands.notice import RANDOM_NOTICE
from latentclr.compose import compose_new, parse_overrides, plain
from latentclr.config import InvertConfig
from latentclr.errors import ConfigError, SaveError
from latentclr.generators.base import Generator
from latentclr.generators.registry import build_generator
from latentclr.inversion.encoder import ENCODER_FILE
from latentclr.inversion.objective import at_layers, sample_codes
from latentclr.inversion.trainer import PICTURE_FILE, RESUME_FILE, EncoderTrainer
from latentclr.pictures.render import draw_codes
from latentclr.progress import duration
from latentclr.training.distributed import resolve_device
from latentclr.training.experiment import open_run, trained_generator
from latentclr.training.rng import stream
from serving.contract.lock import alone
from serving.contract.photo.face_models import INSTALL
from serving.contract.photo.faces import face_template, faces_installed

TEMPLATE_PICTURES = 48  # a third of that of large ones, which take seconds each on a CPU
_LARGEST, _NOTICE_S = 100_000_000, 60.0


def run_invert_train(words: Sequence[str]) -> bool:
    """Train an encoder, or go on with one; return False if interrupted.

    Raises:
        LatentCLRError: The run cannot be opened, an option is out of range, or the disk is full.
        Busy: Another process trains in the folder.
    """
    config, generator, folder = _opened(words)
    _check(config)
    if generator.random_weights:
        click.echo(RANDOM_NOTICE)
    generator = generator.to(resolve_device(config))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"could not make {folder}: {error.strerror or error}") from error
    with alone(folder):
        done, begun = folder / ENCODER_FILE, folder / RESUME_FILE
        if done.exists() and not begun.exists() and not config.anew:
            raise ConfigError(f"{done} is there already: anew=true trains another")
        trainer = EncoderTrainer(config, generator, folder, plain(config))
        if begun.exists() and not config.anew:
            trainer.resume(begun)
            click.echo(f"going on after step {trainer.step}")
        spec = trainer.encoder.spec
        numbers = sum(parameter.numel() for parameter in trainer.encoder.parameters())
        click.echo(
            f"{generator.name}: pictures of {spec.width} x {spec.height} pixels to {spec.space} "
            f"{list(spec.shape)}, {numbers:,} weights, {trainer.batch} pictures a step; folder {folder}"
        )
        if not trainer.fit(click.echo, time.perf_counter):
            click.echo(f"interrupted at step {trainer.step}; the same command goes on from there")
            return False
        path = trainer.save(_face_template(generator))
    click.echo(f"wrote {path} ({duration(trainer.seconds)}); look at {folder / PICTURE_FILE}")
    return True


def _opened(words: Sequence[str]) -> tuple[InvertConfig, Generator, Path]:
    """Return configuration, generator and folder: of a run, or of generator=... alone."""
    if words and is_path(words[0]):
        run, overrides = Path(words[0]), parse_overrides(words[1:])
        config, checkpoint = open_run(run, overrides, InvertConfig)
        given = config.output_dir if "output_dir" in overrides.keys else None
        return config, trained_generator(config, checkpoint), Path(given) if given else checkpoint.path.parent
    overrides = parse_overrides(words)
    if overrides.value("generator") is None:
        raise ConfigError("expected a run folder, or generator=NAME output_dir=FOLDER")
    config = compose_new(overrides, InvertConfig)
    if not config.output_dir:
        raise ConfigError("generator=... without a run needs output_dir=FOLDER for the encoder")
    return config, build_generator(config.generator), Path(config.output_dir)


def _check(config: InvertConfig) -> None:
    for key, low, high in (("steps", 1, _LARGEST), ("channels", 4, 1024), ("batch", 2, 100_000)):
        value = getattr(config, key)
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{key} must be in [{low}, {high}], got {value}")
    if not 0 < config.learning_rate < 1:
        raise ConfigError(f"learning_rate must be between 0 and 1, got {config.learning_rate}")
    if not 0 <= config.changed <= 1:
        raise ConfigError(f"changed must be in [0, 1], got {config.changed}")


def _face_template(generator: Generator) -> tuple[tuple[float, float], ...] | None:
    """Return where faces have their five points in the generator's pictures; None if it draws none or none is found.

    Without the networks for faces that is said: photos are then cut out of their middle.
    """
    if not faces_installed():
        click.echo(f"photos will be cut out of their middle: where faces lie cannot be told, {INSTALL}")
        return None
    count = TEMPLATE_PICTURES if max(generator.size) <= 256 else TEMPLATE_PICTURES // 3
    codes, class_id = sample_codes(generator, count, stream(0, "face-template"))
    with torch.no_grad():
        template = face_template(draw_codes(generator, at_layers(generator, codes), class_id))
    return None if template is None else tuple((float(x), float(y)) for x, y in template)
