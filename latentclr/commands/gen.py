"""`latentclr gen`, from words to pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from latentclr.catalog import Edits, NamedEdit, NamedGenConfig, chosen_edits
from latentclr.commands.notice import RANDOM_NOTICE
from latentclr.compose import parse_overrides
from latentclr.config import GenConfig, shown_alphas
from latentclr.errors import ConfigError
from latentclr.generators.base import Generator
from latentclr.method.step import feed_mask
from latentclr.pictures.gallery import Gallery
from latentclr.pictures.overview import NOTICE_S, seconds_a_picture
from latentclr.pictures.render import Drawing, alpha_label, corner_label, grid, save_picture, save_walk
from latentclr.progress import duration
from latentclr.scores.report import SCORE_FILE, read_scores
from latentclr.training.checkpoint import Checkpoint
from latentclr.training.distributed import resolve_device
from latentclr.training.experiment import named_edits, open_run, trained_generator
from latentclr.training.rng import stream
from serving.contract.arrays import read_npy

WALK_FRAMES = 25  # from one end of the walk to the other


def run_gen(run: Path, words: Sequence[str]) -> list[Path]:
    """Draw one labelled grid (and walk) for each sample into `RUN/gen` or `output_dir`.

    Raises:
        LatentCLRError: The run cannot be opened, an option is out of range, or a file that is not `gen`'s would be
            overwritten.
    """
    overrides = parse_overrides(words)
    config, checkpoint = open_run(run, overrides, NamedGenConfig)
    given = overrides.keys
    if config.edits is not None and "iterative" not in given:
        config = dataclasses.replace(config, iterative=False)  # what names were given to, and what is served
    alphas = _alphas(shown_alphas(config.model.alpha) if config.alphas is None else config.alphas)
    chosen = _chosen(config.n_dirs, config.k, config.seed)
    if config.walk not in ("none", "gif", "webp"):
        raise ConfigError(f"walk must be none, gif or webp, got {config.walk!r}")
    if config.image_size is not None and not 8 <= config.image_size <= 4096:
        raise ConfigError(f"image_size must be in [8, 4096] or null, got {config.image_size}")
    device = resolve_device(config)
    generator = trained_generator(config, checkpoint).to(device)
    fed = feed_mask(config.feed_layers, generator.latent.layers).to(device)
    draw = Drawing(generator, checkpoint.directions.to(device), fed, config.iterative)
    edits = _scored(config, checkpoint, chosen)
    if config.edits is not None:
        edits = _edits(config, checkpoint, generator.latent.layers)
    own_alphas = None if config.alphas is None else alphas
    samples = _samples(config, generator).to(device)
    if generator.random_weights:
        click.echo(RANDOM_NOTICE)
    folder = Path(config.output_dir) if "output_dir" in given and config.output_dir else checkpoint.path.parent / "gen"
    gallery = Gallery(folder)
    walks = [] if config.walk == "none" else [f"walk_{i}.{config.walk}" for i in range(len(samples))]
    gallery.check_free([*(f"sample_{i}.png" for i in range(len(samples))), *walks])
    first_class = generator.class_ids[0] if generator.class_ids else None
    shown = len(chosen) * len(alphas) if edits is None else len(edits) * len(own_alphas or alphas)
    walked = 0 if config.walk == "none" else WALK_FRAMES * (len(chosen) if edits is None else len(edits))
    needed = len(samples) * (shown + walked) * seconds_a_picture(generator, samples[:1], first_class)
    if needed > NOTICE_S:
        click.echo(f"drawing takes {duration(needed)}; Ctrl-C keeps what is drawn by then")
    try:
        for i, z in enumerate(tqdm(samples, unit="sample", dynamic_ncols=True)):
            class_id = generator.class_ids[i % len(generator.class_ids)] if generator.class_ids else None
            if edits is None:
                images = draw.numbers(z[None], class_id, chosen, alphas)  # [M, A, H, W, 3]
                rows, columns = [f"k={k}" for k in chosen], [alpha_label(a) for a in alphas]
            else:
                images, rows, columns = draw.edits(z[None], class_id, edits, own_alphas)
            picture = grid(images, rows, columns, config.image_size, corner_label(generator))
            gallery.save(f"sample_{i}.png", partial(save_picture, picture))
            if config.walk == "none":
                continue
            if edits is None:
                smooth = np.linspace(alphas[0], alphas[-1], WALK_FRAMES).tolist()
                images, labels = draw.numbers(z[None], class_id, chosen, smooth), [f"{a:+.1f}" for a in smooth]
            else:
                images, rows, labels = draw.walk(z[None], class_id, edits, own_alphas, WALK_FRAMES)
            frames = [
                grid(images[None, :, a], [label], rows, config.image_size, corner_label(generator))
                for a, label in enumerate(labels)
            ]
            gallery.save(f"walk_{i}.{config.walk}", partial(save_walk, frames))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"wrote {len(gallery.written)} files to {folder}") from None
    click.echo(f"wrote {len(gallery.written)} files to {folder}")
    if others := gallery.others():
        names = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
        click.echo(f"left alone there, as gen did not write them or they were changed since: {names}")
    return gallery.written


def _scored(config: NamedGenConfig, checkpoint: Checkpoint, chosen: Sequence[int]) -> Edits | None:
    """Return directions over the ranges that were measured; None where they were not, or strengths are given."""
    folder = checkpoint.path.parent
    if config.alphas is not None or not (folder / SCORE_FILE).is_file():
        return None
    scores = read_scores(folder, checkpoint.sha256)
    if scores is None or len(scores.directions) != config.k:
        return None
    return {f"k={k}": (NamedEdit(k, (), scores.directions[k].slider), None) for k in chosen}


def _edits(config: NamedGenConfig, checkpoint: Checkpoint, layers: int) -> Edits:
    edits, problems = named_edits(config, checkpoint, layers)
    try:
        chosen = chosen_edits(config.edits, edits, config.k)
    except ConfigError as error:  # one line, as ever
        raise ConfigError("; ".join([str(error), *problems])) from None
    for problem in problems:
        click.echo(f"named edits: {problem}", err=True)
    return chosen


def _samples(config: GenConfig, generator: Generator) -> Tensor:
    wanted = config.n_samples
    if isinstance(wanted, int) and wanted >= 1:
        return generator.sample_seeds(config.seed, wanted)
    expected = f"n_samples must be a number of at least 1 or an .npy file of [N, {generator.latent.dim}] numbers"
    if not isinstance(wanted, str):
        raise ConfigError(f"{expected}, got {wanted!r}")
    try:
        z = read_npy(Path(wanted))
    except ValueError as error:
        raise ConfigError(f"{expected}, but {wanted} {error}") from None
    if z.ndim != 2 or len(z) == 0 or z.shape[1] != generator.latent.dim or z.dtype.kind not in "iuf":
        raise ConfigError(f"{expected}, got {wanted} with shape {list(z.shape)} of {z.dtype}")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused
        z = z.astype(np.float32)
    if not np.isfinite(z).all():
        raise ConfigError(f"{wanted} holds numbers that are not finite")
    return torch.from_numpy(z)


def _chosen(wanted: Any, k: int, seed: int) -> list[int]:
    if wanted == -1:
        return list(range(k))
    if isinstance(wanted, int) and 1 <= wanted:
        return sorted(torch.randperm(k, generator=stream(seed, "dirs"))[: min(wanted, k)].tolist())
    if isinstance(wanted, list) and wanted and all(isinstance(i, int) and 0 <= i < k for i in wanted):
        return [int(i) for i in wanted]
    raise ConfigError(
        f"n_dirs must be a number of at least 1, -1 for all, or a list of indices in [0, {k}), got {wanted}"
    )


def _alphas(wanted: Sequence[float]) -> list[float]:
    if not wanted or not all(np.isfinite(a) for a in wanted):
        raise ConfigError(f"alphas must be finite numbers, got {list(wanted)}")
    return sorted({0.0, *(float(a) for a in wanted)})
