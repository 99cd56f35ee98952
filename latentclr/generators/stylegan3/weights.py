"""StyleGAN3 weights from files: NVIDIA's `.pkl`, safetensors, plain tensors; nothing in them is ever run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from latentclr.generators.stylegan3.nvidia import from_nvidia
from latentclr.generators.weights.files import load_tensors
from latentclr.generators.weights.modules import generator_of
from latentclr.generators.weights.safe_pickle import load_pickle


class StyleGAN3Options(Protocol):
    """What loading a StyleGAN3 reads of a configuration.

    Attributes:
        weights: A weights file, `random` or `random:RESOLUTION`.
        configuration: Of random weights: t or r.
        truncation: psi in [0, 1] of rendered images; 1 is none.
        classes: Of a class-conditional network: the ids that training draws from; None for all.
    """

    weights: str | None
    configuration: str
    truncation: float
    classes: Any


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a weights file as name -> tensor under NVIDIA's names; what a file contains is never run.

    Raises:
        GeneratorError: The file is missing, damaged, asks to run code or is no StyleGAN3.
    """
    if path.suffix in (".pkl", ".pickle"):
        return from_nvidia(generator_of(load_pickle(path), path), path)
    return load_tensors(path)
