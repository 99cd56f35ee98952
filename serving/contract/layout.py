"""The layout of a Triton model repository, as export writes it and everybody else reads it.

REPOSITORY/NAME/config.pbtxt                 what Triton reads; the parameter `manifest` describes the editor
REPOSITORY/NAME/VERSION/model.onnx           the graph of a version; generator.bin beside it if that is large
REPOSITORY/NAME/VERSION/config.pbtxt         the configuration of that version, to which `rollback` returns
REPOSITORY/NAME_torchscript/...              the same editor for another engine, a twin; with model.pt
REPOSITORY/NAME_preview/...                  the preview, if there is one: a smaller picture while a slider moves; its
                                             twins are NAME_preview_ENGINE
REPOSITORY/NAME_encoder/...                  the encoder, if there is one: from a photo to its code; NAME_encoder_ENGINE
REPOSITORY/NAME_photo/...                    with it the ensemble that edits a photo in one request, which has no files
                                             of its own; NAME_photo_ENGINE

The first engine of an export is published as NAME, each further one as NAME_ENGINE, and preview, encoder and ensemble
for the same engines. They change together or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.contract.pbtxt import read_pbtxt
from serving.errors import ServingError

DEFAULT_MODEL = "latent_edit"
PREVIEW, ENCODER, PHOTO = "_preview", "_encoder", "_photo"
ENSEMBLE = "ensemble"
"""Triton's platform of a model that only passes tensors on from model to model."""
_VERSION = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)  # str.isdigit() is true of ² and of digits without end, too
CONFIG_FILE = "config.pbtxt"
WEIGHTS_FILE = "generator.bin"
"""A large generator's tensors, beside model.onnx."""


@dataclass(frozen=True)
class Engine:
    """What runs a published editor.

    Attributes:
        name: As users say it; a twin's name ends in it.
        file: What Triton looks for in a version's folder.
        weights: A file that may lie beside it, without which it then cannot be loaded.
    """

    name: str
    file: str
    weights: str | None = None


ENGINES = {
    "onnxruntime": Engine("onnxruntime", "model.onnx", WEIGHTS_FILE),
    "openvino": Engine("openvino", "model.xml", "model.bin"),
    "pytorch": Engine("torchscript", "model.pt"),
}
"""Triton's backend -> engine."""
_ENGINE_SUFFIXES = re.compile(rf"(_({'|'.join(engine.name for engine in ENGINES.values())}))+\Z")
MODEL_FILES = {backend: engine.file for backend, engine in ENGINES.items()}
"""Backend -> the file that Triton looks for in a version's folder."""
MAX_ROWS = "MAX_ROWS"
"""Parameter of a model without a max_batch_size: rows that a request may have. NVIDIA's backends do not know it."""
BF16 = "HINT_BF16"
"""Parameter of OpenVINO's backend: YES for arithmetic in bfloat16."""
TENSORRT_CACHE = "/tensorrt-cache"
"""Where TensorRT keeps its engines in a container, which sees the repository read-only."""


class LayoutError(ServingError):
    """A model's configuration cannot be read."""


def twin_of(name: str, backend: str) -> str:
    """Return the name of a model's twin for another backend."""
    return f"{name}_{ENGINES[backend].name}"


def twins_of(repository: Path, name: str) -> list[str]:
    """Return the names of a model's twins that a repository holds."""
    names = (twin_of(name, backend) for backend in ENGINES)
    return [twin for twin in names if (repository / twin / CONFIG_FILE).is_file()]


def original_of(repository: Path, name: str) -> str:
    """Return the name of the model that this one is a twin of; its own if it is none."""
    for engine in ENGINES.values():
        base = name.removesuffix(f"_{engine.name}")
        if base not in ("", name) and (repository / base / CONFIG_FILE).is_file():
            return base
    return name


def files_of(backend: str, names: Collection[str]) -> set[str]:
    """Return those of a manifest's file names that this backend cannot do without; what Triton looks for, always."""
    engine = ENGINES[backend]
    return {engine.file} | ({engine.weights} & {*names} if engine.weights else set())


def preview_of(name: str) -> str:
    """Return the name of a model's preview; that of a twin is the preview's twin."""
    return _beside(name, PREVIEW)


def encoder_of(name: str) -> str:
    """Return the name of a model's encoder; that of a twin is the encoder's twin."""
    return _beside(name, ENCODER)


def photo_of(name: str) -> str:
    """Return the name of the ensemble that edits photos with a model; a twin has one of its own."""
    return _beside(name, PHOTO)


def _beside(name: str, suffix: str) -> str:
    base = _ENGINE_SUFFIXES.sub("", name) or name
    return base + suffix + name[len(base) :]


def steps_of(config: Any) -> list[str]:
    """Return the models that an ensemble passes requests on to, each once, in its order; none of any other model."""
    return list(dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step))


def models_in(repository: Path) -> list[Path]:
    """Return the folders of a repository that hold a model, by name."""
    return sorted(config.parent for config in repository.glob(f"*/{CONFIG_FILE}"))


def versions_of(model: Path) -> list[int]:
    """Return the version numbers in a model's folder, in order."""
    return sorted(int(entry.name) for entry in model.glob("*") if _VERSION.fullmatch(entry.name) and entry.is_dir())


def served_versions(model: Path) -> list[int]:
    """Return the versions that a model's configuration names, in order; without any, Triton serves the newest.

    Raises:
        LayoutError: The configuration cannot be read.
    """
    chosen = sorted(map(int, read_config(model / CONFIG_FILE).version_policy.specific.versions))
    return chosen or versions_of(model)[-1:]


def read_config(path: Path) -> Any:
    """Read a config.pbtxt as Triton's own protobuf.

    Raises:
        LayoutError: It cannot be read, or is no configuration of Triton's.
    """
    try:
        return read_pbtxt(path)
    except ValueError as error:
        raise LayoutError(f"cannot read {path}: {error}") from None
