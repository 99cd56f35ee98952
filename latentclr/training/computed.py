"""Directions that are computed in one go instead of trained, as runs like all others.

Such a run holds the same checkpoints (iteration 0, no loss), configuration, log and pictures, and so everything that
reads a run works on it. There is no state to resume and no curve.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from latentclr.catalog import NamedEdit, check_name, write_catalog
from latentclr.compose import plain, save_config
from latentclr.config import TrainConfig, slider_end
from latentclr.errors import ConfigError
from latentclr.generators.base import Generator
from latentclr.generators.registry import build_generator
from latentclr.method.closed_form import check_rank, random_directions, sefa
from latentclr.method.directions import Directions
from latentclr.method.step import feed_mask
from latentclr.training.checkpoint import make_directions, make_projector, save_checkpoint
from latentclr.training.rng import stream

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Computed:
    """What a method found.

    Attributes:
        vectors: [K, D], finite, no row zero.
        names: For a direction its name and a note, where it has one.
        said: Lines for the log.
    """

    vectors: Tensor
    names: dict[int, tuple[str, str]] = field(default_factory=dict)
    said: tuple[str, ...] = ()


def new_generator(config: TrainConfig, device: torch.device) -> Generator:
    """Load the generator of a computed run, and check what the run says of it.

    Raises:
        LatentCLRError: The generator, layer or feed layers cannot be used.
    """
    generator = build_generator(config.generator)
    generator.check_layer(config.generator.feature_layer)
    feed_mask(config.feed_layers, generator.latent.layers)
    return generator.to(device)


def compute_directions(config: TrainConfig, generator: Generator, *, k: int | None) -> Computed:
    """Find the directions of a model in `config.COMPUTED`.

    Args:
        config: Of the run.
        generator: Its generator.
        k: K; None if nobody asked for a number, and then it is the configuration's, or as many as there are.

    Raises:
        LatentCLRError: There are fewer directions than that, or a file or scorer cannot be used.
    """
    model, dim = config.model, generator.latent.dim
    rng, count = stream(config.seed, model.name), config.k if k is None else k
    if model.name == "random":
        return Computed(random_directions(count, dim, rng))
    if model.name == "sefa":
        fed = range(generator.latent.layers) if config.feed_layers is None else sorted(set(config.feed_layers))
        return Computed(sefa(generator, count, fed))
    if model.name == "ganspace":
        from latentclr.method.ganspace import SAMPLES, ganspace

        in_w, layer = bool(getattr(generator, "use_w", False)), config.generator.feature_layer
        vectors, explained = ganspace(generator, count, model.samples or SAMPLES, layer, rng, in_w=in_w)
        where = "W" if in_w else f"{layer}'s activations"
        return Computed(
            vectors, said=(f"the {count} components explain {explained.sum():.0%} of the variance of {where}",)
        )
    if model.name == "vectors":
        return _of_file(Path(str(model.vectors)), dim, k)
    if model.name == "attributes":
        return _of_scores(config, generator, k, rng)
    raise ConfigError(f"model={model.name} is not computed")


def _of_scores(config: TrainConfig, generator: Generator, k: int | None, rng: torch.Generator) -> Computed:
    from latentclr.method.attributes import SAMPLES, fit_attributes, scorers_for

    names = list(config.model.attributes or [])
    if k not in (None, len(names)):
        raise ConfigError(f"k is the number of attributes ({len(names)}), got {k}: leave it out")
    scorers = scorers_for(config.model.scorers, names)
    fed = feed_mask(config.feed_layers, generator.latent.layers).to(generator.device)
    fitted = fit_attributes(generator, scorers, names, config.model.samples or SAMPLES, fed, rng)
    said, named = [f"{fitted.trusted:.0%} of the pictures are trusted"], {}
    for i, name in enumerate(names):
        note = f"{fitted.explained[i]:.0%} of it is linear in the codes"
        said.append(f"{name}: {note}; {fitted.left[i]:.0%} of its direction is left beside the others")
        try:
            named[i] = check_name(name), note
        except ConfigError as error:
            said.append(f"direction {i} stays without a name: {error}")
    return Computed(fitted.vectors, named, tuple(said))


def _of_file(path: Path, dim: int, k: int | None) -> Computed:
    from latentclr.method.vectors import read_vectors

    vectors, names, problems = read_vectors(path, dim)
    count = len(vectors) if k is None else k
    check_rank(count, len(vectors), "vectors", f"so many are in {path}")
    named = {i: (name, f"from {path.name}") for i, name in enumerate(names[:count]) if name is not None}
    return Computed(vectors[:count], named, tuple(problems))


def directions_of(config: TrainConfig, vectors: Tensor) -> Directions:
    """Make vectors [K, D] the direction model of a run, in inference mode."""
    directions = make_directions(plain(config), *vectors.shape)
    directions.load_state_dict({"params": vectors.float()})
    return directions.eval()


def save_computed(
    config: TrainConfig, generator: Generator, directions: Directions, found: Computed, run: Path
) -> None:
    """Write configuration, names and checkpoints; the checkpoints last, for with them the folder is a run.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    save_config(config, run)
    end = slider_end(config.model.alpha)
    if found.names:
        edits = {name: NamedEdit(i, (), (-end, end), note) for i, (name, note) in found.names.items()}
        write_catalog(run, edits)
    for name in ("last", "best"):
        save_checkpoint(
            run / f"{name}.safetensors",
            directions,
            make_projector(plain(config), 0),
            config=plain(config),
            generator=generator,
            iteration=0,
            loss=None,
        )
