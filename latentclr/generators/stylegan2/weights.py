"""StyleGAN2 weights from files: rosinality's `.pt`, plain tensors, NVIDIA's `.pkl`; nothing in them is ever run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.stylegan2.nvidia import from_nvidia
from latentclr.generators.weights.files import load_tensors, table_of_tensors
from latentclr.generators.weights.modules import generator_of
from latentclr.generators.weights.safe_pickle import load_pickle
from latentclr.plain_load import load_plain, owned


class StyleGAN2Options(Protocol):
    """What loading a StyleGAN2 reads of a configuration.

    Attributes:
        weights: A weights file, `random`, `random:RESOLUTION`, or None for the class's file in the cache.
        class_name: One of the origin's eight.
        use_w: Directions live in W, else in Z.
        truncation: psi in [0, 1] of rendered images; 1 is none.
        noise_seed: Seed of the fixed noise; None for the noise in the weights file.
        classes: Of a class-conditional network: the ids that training draws from; None for all.
    """

    weights: str | None
    class_name: str
    use_w: bool
    truncation: float
    noise_seed: int | None
    classes: Any


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a weights file as name -> tensor under rosinality's names; what a file contains is never run.

    Raises:
        GeneratorError: The file is missing, damaged, asks to run code or is no StyleGAN2.
    """
    if path.suffix == ".safetensors":
        return load_tensors(path)
    if not path.is_file():
        raise GeneratorError(f"no weights file at {path}")
    if path.suffix in (".pkl", ".pickle"):
        return from_nvidia(generator_of(load_pickle(path), path), path)
    return _read_pt(path)


def _read_pt(path: Path) -> dict[str, Tensor]:
    try:
        # A training snapshot carries its command line; an argparse.Namespace is attributes and nothing else.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = load_plain(path)
    except ValueError as error:
        with open(path, "rb") as file:
            page = file.read(256).lstrip()[:1] == b"<"
        reason = "it is a web page: download it with a browser" if page else error
        raise GeneratorError(f"{path} is not a file of plain tensors: {reason}") from None
    table = content.get("g_ema", content) if isinstance(content, dict) else None
    tensors = dict(table_of_tensors(table, path, " under g_ema"))
    if isinstance(content.get("latent_avg"), Tensor):
        tensors["latent_avg"] = content["latent_avg"]
    if (
        "latent_avg" in tensors and tensors["latent_avg"].ndim == 2 and len(tensors["latent_avg"])
    ):  # encoders keep it once per latent input
        tensors["latent_avg"] = tensors["latent_avg"][0]
    return {name: owned(tensor) for name, tensor in tensors.items()}
