"""What a served model says of itself: everything a client needs beyond the server's address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from export.editor import MAX_EDITS
from latentclr import __version__
from latentclr.catalog import NamedEdit
from latentclr.config import slider_end
from latentclr.files import sha256_of
from latentclr.generators.base import Generator
from latentclr.scores.report import RunScores, manifest_scores, read_scores
from latentclr.training.checkpoint import Checkpoint
from serving.contract.certificate import Certificate
from serving.contract.manifest import Directions, Latent, Manifest, read_generator


def slider_ranges(checkpoint: Checkpoint) -> list[tuple[float, float]]:
    """Return the lowest and highest strength of each direction's slider: as scored, or the run's own for all."""
    if (scores := _scores_of(checkpoint)) is not None:
        return [one.range for one in scores.directions]
    end = slider_end(checkpoint.config["model"]["alpha"])
    return [(-end, end)] * checkpoint.directions.k


def _scores_of(checkpoint: Checkpoint) -> RunScores | None:
    scores = read_scores(checkpoint.path.parent, checkpoint.sha256)
    return scores if scores and len(scores.directions) == checkpoint.directions.k else None


def build_manifest(
    name: str,
    generator: Generator,
    checkpoint: Checkpoint,
    files: Sequence[Path],
    parity: Sequence[Certificate],
    edits: Mapping[str, NamedEdit] | None = None,
    latent_input: str = "z",
    layers: Sequence[int] | None = None,
    precision: str = "fp32",
) -> dict[str, Any]:
    """Describe an exported editor as plain data.

    Args:
        name: The model's name in the repository.
        generator: What draws.
        checkpoint: What edits.
        files: The exported files, to be hashed.
        parity: The proof that they draw what eager PyTorch draws.
        edits: The run's named edits, of this generator's layers.
        latent_input: `z`, `w` or `w+`, see `FusedEditor`.
        layers: The latent inputs that the run was trained on, where its directions act by default; None for all.
        precision: Of the exported files.
    """
    end = slider_end(checkpoint.config["model"]["alpha"])
    packages = ["onnx", "onnxruntime", *(["openvino"] if any(path.suffix == ".xml" for path in files) else [])]
    scores = _scores_of(checkpoint)
    return Manifest(
        name=name,
        generator=read_generator(generator.describe()),
        latent=Latent(input=latent_input, **asdict(generator.latent)),
        directions=Directions(
            count=checkpoint.directions.k,
            model=checkpoint.directions.kind,
            alpha_range=(-end, end),
            max_edits=MAX_EDITS,
            checkpoint_sha256=checkpoint.sha256,
            layers=tuple(sorted(set(layers or ()))),
            iteration=checkpoint.iteration,
            feature_layer=checkpoint.config["generator"]["feature_layer"],
            scores=manifest_scores(scores) if scores else (),
        ),
        edits=dict(edits or {}),
        files_sha256={path.name: sha256_of(path) for path in files},
        versions={"latentclr": __version__, "torch": torch.__version__, **_versions(*packages)},
        precision=precision,
        parity={certificate.engine: certificate.as_dict() for certificate in parity},
    ).as_dict()


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
