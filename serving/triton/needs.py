"""What the configurations in a model repository ask of the server that loads them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.contract.layout import CONFIG_FILE, LayoutError, models_in, read_config

CACHE_BYTES = 256 << 20  # of Triton's response cache: 20,000 pictures of 64x64, or 80 of 1024x1024


@dataclass(frozen=True)
class Needs:
    """What the models want.

    Attributes:
        gpu: One is to run on a GPU and nowhere else.
        cache: One wants its answers cached, which the server has to allow.
        tensorrt: One runs on TensorRT, whose engines take minutes to build and are worth keeping.
    """

    gpu: bool = False
    cache: bool = False
    tensorrt: bool = False


def repository_needs(repository: Path) -> Needs:
    """Read all configurations of a repository; those that cannot be read are left to Triton to refuse.

    Args:
        repository: Folder with one folder per model.
    """
    gpu = cache = tensorrt = False
    for config in _configs(repository):
        gpu |= any(group.kind == group.KIND_GPU for group in config.instance_group)
        cache |= config.response_cache.enable
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        tensorrt |= any(accelerator.name == "tensorrt" for accelerator in accelerators)
    return Needs(gpu, cache, tensorrt)


def _configs(repository: Path) -> Iterator[Any]:
    for model in models_in(repository):
        with contextlib.suppress(LayoutError):
            yield read_config(model / CONFIG_FILE)
