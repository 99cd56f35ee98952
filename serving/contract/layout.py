"""The layout of a Triton model repository, as export writes it and everybody else reads it.

REPOSITORY/NAME/config.pbtxt                 what Triton reads; the parameter `manifest` describes the editor
REPOSITORY/NAME/VERSION/model.onnx           the graph of a version; generator.bin beside it if that is large
REPOSITORY/NAME/VERSION/config.pbtxt         the configuration of that version, to which `rollback` returns
REPOSITORY/NAME_torchscript/...              the TorchScript twin, with model.pt
REPOSITORY/NAME_preview/...                  the preview, if there is one: a smaller picture while a slider moves; its
                                             twin is NAME_preview_torchscript
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from serving.contract.pbtxt import read_pbtxt
from serving.errors import ServingError

DEFAULT_MODEL = "latent_edit"
TWIN, PREVIEW = "_torchscript", "_preview"
_VERSION = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)  # str.isdigit() is true of ² and of digits without end, too
CONFIG_FILE = "config.pbtxt"
MODEL_FILES = {"onnxruntime": "model.onnx", "pytorch": "model.pt"}
"""Backend -> the file that Triton looks for in a version's folder."""
WEIGHTS_FILE = "generator.bin"
"""A large generator's tensors, beside model.onnx."""
TENSORRT_CACHE = "/tensorrt-cache"
"""Where TensorRT keeps its engines in a container, which sees the repository read-only."""


class LayoutError(ServingError):
    """A model's configuration cannot be read."""


def twin_of(name: str) -> str:
    """Return the name of a model's TorchScript twin."""
    return name + TWIN


def preview_of(name: str) -> str:
    """Return the name of a model's preview; that of a twin is the preview's twin."""
    base = name.removesuffix(TWIN)
    return base + PREVIEW + name[len(base) :]


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
