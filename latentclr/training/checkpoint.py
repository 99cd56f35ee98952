"""Run folders: what a training run leaves behind, and reading it back without trusting it.

RUN/.hydra/config.yaml      the configuration, for people and for Hydra's tools
RUN/best.safetensors        directions and projector with the lowest held-out loss, metadata in the header
RUN/last.safetensors        the same at the last save
RUN/resume.pt               everything an exact resume needs: weights, optimizer, scheduler, scaler, counters
RUN/train.log, events.*, loss.png, grid.png

A run whose directions were computed, not trained, has neither resume.pt nor curves.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentclr.config import FIXED_VECTORS
from latentclr.errors import CheckpointError, first_reason
from latentclr.files import replacing
from latentclr.generators.base import Generator
from latentclr.method.directions import Directions, build_directions
from latentclr.method.projectors import LinearProjector, NonlinearProjector, Projector
from latentclr.plain_load import load_plain, read_safetensors, safetensors_metadata
from latentclr.plain_save import save_safetensors
from latentclr.training.finite import all_finite, tensors_in
from serving.contract.documents import check_plain, read_json

logger = logging.getLogger(__name__)

FORMAT = 1
RESUME_FILE = "resume.pt"
# What the origin's trainer and its authors call their checkpoints; `origin_run` reads them.
ORIGIN_BEST, ORIGIN_LAST = ("best_model.pt", "model.pt"), ("final_model.pt", "most_recent.pt")


@dataclass(frozen=True)
class Checkpoint:
    """Trained directions and projector, in inference mode, and what is known of them.

    Attributes:
        directions: K directions over D.
        projector: The projector they were trained with.
        config: The run's whole configuration as plain data.
        generator: What `Generator.describe` said at training time, the classes of the training, and L as `layers`; of
            one of the origin's runs only what its configuration tells.
        iteration: Training steps done.
        loss: Held-out loss, None where it was not measured.
        path: The file.
        sha256: Of the bytes that were read, whatever stands at `path` by now; empty of one that was not read.
    """

    directions: Directions
    projector: Projector
    config: dict[str, Any]
    generator: dict[str, Any]
    iteration: int
    loss: float | None
    path: Path
    sha256: str = ""


def save_checkpoint(
    path: Path,
    directions: Directions,
    projector: Projector,
    *,
    config: dict[str, Any],
    generator: Generator,
    iteration: int,
    loss: float | None,
) -> None:
    """Write directions and projector as safetensors with readable metadata, whole or not at all.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    described = {**generator.describe(), "classes": list(generator.class_ids), "layers": generator.latent.layers}
    write_checkpoint(path, Checkpoint(directions, projector, config, described, iteration, loss, path))


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as `save_checkpoint` does.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    directions, config = checkpoint.directions, checkpoint.config
    parts = {"directions": directions, "projector": checkpoint.projector}
    tensors = {
        f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "k": directions.k,
        "dim": directions.dim,
        "feature_layer": config["generator"]["feature_layer"],
        "alpha": config["model"]["alpha"],
        "generator": checkpoint.generator,
        "iteration": checkpoint.iteration,
        "loss": checkpoint.loss,
        "config": config,
    }
    save_safetensors(path, tensors, {"latentclr": json.dumps(metadata)})


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file written by `save_checkpoint`.

    Raises:
        CheckpointError: The file is missing, truncated, not ours, or its tensors do not fit its metadata.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        tensors, metadata, digest = read_safetensors(path)
        meta = _metadata(metadata, path)
    except ValueError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from None
    try:
        config, k, dim = meta["config"], int(meta["k"]), int(meta["dim"])
        if not isinstance(config, dict) or not isinstance(meta["generator"], dict):
            raise TypeError("config and generator must be tables")
        _check_sizes(config, k, dim, tensors)
        if not all_finite(tensors_in(tensors)):
            raise ValueError("it holds numbers that are not finite")
        directions = make_directions(config, k, dim)
        directions.load_state_dict(_section(tensors, "directions."))
        saved = _section(tensors, "projector.")
        projector = make_projector(config, saved["net.linear_1.weight"].shape[1] if saved else 0)
        projector.load_state_dict(saved)
        return Checkpoint(
            directions.eval(), projector.eval(), config, meta["generator"], int(meta["iteration"]), meta["loss"], path,
            digest,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: weights and metadata do not fit: {first_reason(error)}") from None


def find_checkpoint(run: Path, which: str | None = None) -> Path:
    """Return the checkpoint file of a run, ours or the origin's.

    Args:
        run: A run folder, or a checkpoint file itself.
        which: `best`, `last`, or the path of a file; None for the best, or the last of a run that was interrupted
            before its first evaluation.

    Raises:
        CheckpointError: There is none; the message says what the folder holds.
    """
    if which not in (None, "best", "last"):
        return Path(str(which))
    if run.is_file():
        return run
    if not run.is_dir():
        raise CheckpointError(f"no run folder at {run}")
    path = run / f"{which or 'best'}.safetensors"
    if which is None and not path.is_file():
        last = run / "last.safetensors"
        path = last if last.is_file() else path
    if not path.is_file():
        named = {"best": ORIGIN_BEST, "last": ORIGIN_LAST, None: ORIGIN_BEST + ORIGIN_LAST}[which]
        if of_origin := [run / name for name in named if (run / name).is_file()]:
            return of_origin[0]
        found = sorted(p.name for p in run.glob("*.safetensors"))
        raise CheckpointError(
            f"{run} holds no {path.name} ({'found ' + ', '.join(found) if found else 'no checkpoint'})"
        )
    return path


def holds_run(folder: Path) -> bool:
    """Return whether a run lies here, ours or the origin's, whose configuration another would overwrite."""
    named = (RESUME_FILE, *ORIGIN_BEST, *ORIGIN_LAST)
    return any((folder / name).exists() for name in named) or any(folder.glob("*.safetensors"))


def remove_temporary(run: Path) -> None:
    """Remove what a killed training left half-written in its run folder, which the caller has alone.

    `gen` and `eval` may be at work there too: their files have other names.
    """
    for name in ("best-*.safetensors", "last-*.safetensors", "resume-*.pt", "loss-*.png", "grid-*.png"):
        for path in run.glob(f".tmp-{name}"):
            path.unlink(missing_ok=True)
    for path in (run / ".hydra").glob(".tmp-config-*.yaml"):
        path.unlink(missing_ok=True)


def check_generator(checkpoint: Checkpoint, generator: Generator) -> None:
    """Warn if the generator is not the one that the directions were trained on.

    Raises:
        CheckpointError: They cannot work together at all.
    """
    if generator.latent.dim != checkpoint.directions.dim:
        raise CheckpointError(
            f"{checkpoint.path} edits codes of size {checkpoint.directions.dim},"
            f" but {generator.name} has {generator.latent.dim}"
        )
    trained_on = checkpoint.generator.get("weights_sha256")  # the origin records none
    if trained_on is not None and generator.weights_sha256 != trained_on:
        logger.warning("the generator's weights are not those that %s was trained on", checkpoint.path)


def make_directions(config: Mapping[str, Any], k: int, dim: int, rng: torch.Generator | None = None) -> Directions:
    """Make the direction model that a configuration describes; weights from `rng`, or arbitrary without one."""
    model = config["model"]
    rng = rng or torch.Generator().manual_seed(0)
    orient = model.get("orient", False) is True  # which older checkpoints and the origin's do not know
    return build_directions(model["name"], k, dim, rng, model["depth"], model["normalize"], orient)


def make_projector(config: Mapping[str, Any], features: int, rng: torch.Generator | None = None) -> Projector:
    """Make the projector that a configuration describes, for flattened features of size F = `features`."""
    p = config["projector"]
    rng = rng or torch.Generator().manual_seed(0)
    if p["name"] == "linear":
        return LinearProjector(features, p["out_features"], rng, p["normalize"])
    if p["name"] == "nonlinear":
        return NonlinearProjector(features, p["middle_features"], p["out_features"], p["depth"], rng, p["normalize"])
    return Projector(p["normalize"])


def save_resume(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a run, whole or not at all.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # how torch's zip writer reports a full disk
            raise OSError(str(error).splitlines()[0]) from None


def load_resume(path: Path) -> dict[str, Any]:
    """Read the state of a run; nothing in the file is ever executed.

    Raises:
        CheckpointError: The file is missing, damaged or not such a state.
    """
    if not path.is_file():
        raise CheckpointError(f"nothing to resume: no {path}")
    try:
        state = load_plain(path)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be resumed from: {error}") from None
    version = state.get("format") if isinstance(state, dict) else None
    if (
        not isinstance(state, dict)
        or not isinstance(state.get("config"), dict)
        or type(version) is not int
        or version != FORMAT
    ):
        raise CheckpointError(f"{path} is not a latentclr run state of format {FORMAT}")
    try:
        check_plain(state["config"])
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be resumed from: its configuration {error}") from None
    return state


def steps_of_checkpoint(path: Path) -> int:
    """Return how many training steps a checkpoint has had, as its header says; its tensors are not read.

    Raises:
        CheckpointError: The file is missing, damaged or from a foreign program.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        return int(_metadata(safetensors_metadata(path), path)["iteration"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from None


def _metadata(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        meta = read_json(metadata.get("latentclr", "null"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: its metadata {error}") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a latentclr checkpoint of format {FORMAT}")
    return meta


def _section(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _check_sizes(config: Mapping[str, Any], k: int, dim: int, tensors: Mapping[str, Tensor]) -> None:
    # Before anything is allocated: the numbers in the header must be those of tensors that are really in the file.
    vectors = config["model"]["name"] in FIXED_VECTORS
    name, shape = ("params", (k, dim)) if vectors else ("weights.0", (k, dim, dim))
    found = tensors[f"directions.{name}"].shape
    if tuple(found) != shape:
        raise ValueError(f"directions.{name} is {tuple(found)}, expected {shape}")
    model_depth = int(config["model"]["depth"]) if config["model"]["name"] == "nonlinear" else 1
    _check_room("directions.", tensors, model_depth, model_depth * found.numel())
    p = config["projector"]
    if p["name"] == "identity":
        return
    first = tensors["projector.net.linear_1.weight"]
    if first.ndim != 2 or 0 in first.shape:
        raise ValueError(f"projector.net.linear_1.weight is {list(first.shape)}, expected two sizes above zero")
    features, out, middle, depth = first.shape[1], p["out_features"], 0, 1
    if p["name"] == "nonlinear":
        middle, depth = p["middle_features"], p["depth"]
    widths = (features + 1) * (out if depth == 1 else middle) + max(0, depth - 2) * middle * (middle + 1)
    _check_room("projector.", tensors, depth, widths + (middle * out if depth > 1 else 0))


def _check_room(prefix: str, tensors: Mapping[str, Tensor], layers: int, numbers: int) -> None:
    held = _section(tensors, prefix)
    if layers > len(held) or numbers > sum(tensor.numel() for tensor in held.values()):
        raise ValueError(
            f"the header asks for {layers} layers of {numbers} weights, {prefix}* holds {len(held)} tensors"
        )
