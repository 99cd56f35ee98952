"""R3GAN's table of names and shapes, which every weights file must fit, and seeded noise that fits it.

The names are the authors', without the `Model.` before them: `MainLayers.S.Layers.0` begins stage S, a basis of 4 x 4
pixels or an up-sampling, and `MainLayers.S.Layers.B` are its residual blocks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.stylegan2.layout import blur_kernel
from latentclr.generators.weights.table import check_table, count_indices

MAX_STAGES, MAX_BLOCKS = 9, 64  # 4 * 2 ** 8 = 1024 pixels


def expected_shapes(tensors: dict[str, Tensor], blocks: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of a generator whose sizes are read from the weights themselves.

    Args:
        tensors: Weights, of which only the channel counts are believed.
        blocks: Number of residual blocks of each stage.
    """

    def size(key: str, axis: int, otherwise: int = 0) -> int:
        return tensors[key].shape[axis] if key in tensors and tensors[key].ndim > axis else otherwise

    first = "MainLayers.0.Layers.0"
    channels = size(f"{first}.Basis", 0)
    shapes: dict[str, tuple[int, ...]] = {f"{first}.Basis": (channels, 4, 4)}
    shapes[f"{first}.LinearLayer.weight"] = (channels, size(f"{first}.LinearLayer.weight", 1))
    if "EmbeddingLayer.weight" in tensors:
        shapes["EmbeddingLayer.weight"] = (size("EmbeddingLayer.weight", 0), size("EmbeddingLayer.weight", 1))
    for s, count in enumerate(blocks):
        stage = f"MainLayers.{s}.Layers"
        if s:
            shapes[f"{stage}.0.Resampler.Kernel"] = (4, 4)
            mixed = f"{stage}.0.LinearLayer.Layer.weight"
            if mixed in tensors:
                shapes[mixed] = (size(mixed, 0), channels, 1, 1)
                channels = size(mixed, 0)
        for b in range(1, count + 1):
            wide = size(f"{stage}.{b}.LinearLayer1.Layer.weight", 0)
            kernel = size(f"{stage}.{b}.LinearLayer2.Layer.weight", 2)
            group = size(f"{stage}.{b}.LinearLayer2.Layer.weight", 1)
            shapes |= {
                f"{stage}.{b}.LinearLayer1.Layer.weight": (wide, channels, 1, 1),
                f"{stage}.{b}.NonLinearity1.Bias": (wide,),
                f"{stage}.{b}.LinearLayer2.Layer.weight": (wide, group, kernel, kernel),
                f"{stage}.{b}.NonLinearity2.Bias": (wide,),
                f"{stage}.{b}.LinearLayer3.Layer.weight": (channels, wide, 1, 1),
            }
    return shapes | {"AggregationLayer.Layer.weight": (3, channels, 1, 1)}


def check_layout(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[int]]:
    """Check every key and shape.

    Returns:
        The tensors as float32, and the number of residual blocks of each stage.

    Raises:
        GeneratorError: A report of all that is missing, unexpected or of a wrong shape.
    """
    tensors = {key.removeprefix("Model."): value for key, value in tensors.items()}
    stages = count_indices(tensors, r"MainLayers\.(\d+)\.", limit=MAX_STAGES - 1) + 1
    blocks = [
        max(0, count_indices(tensors, rf"MainLayers\.{s}\.Layers\.(\d+)\.", limit=MAX_BLOCKS)) for s in range(stages)
    ]
    if not stages:
        found = ", ".join(sorted(tensors)[:3])[:200] or "nothing"
        raise GeneratorError(f"not R3GAN weights: expected MainLayers.*, AggregationLayer.*, found {found}")
    shapes = expected_shapes(tensors, blocks)
    kernels = [key for key in shapes if key.endswith("Kernel")]
    check_table(f"R3GAN weights ({4 * 2 ** (stages - 1)} px)", tensors, shapes, kernels, integers=True)
    for key in shapes:
        if key.endswith("Kernel") and key in tensors and not torch.allclose(tensors[key].float(), blur_kernel()):
            raise GeneratorError(f"{key} must be [1, 3, 3, 1] both ways, as in all published R3GANs")
        if key.endswith("LinearLayer2.Layer.weight"):
            wide, group, kernel, _ = tensors[key].shape
            if wide % group or not kernel % 2:
                raise GeneratorError(f"{key}: {wide} channels in groups of {group}, kernel {kernel}: not of R3GAN")
    dim = tensors["MainLayers.0.Layers.0.LinearLayer.weight"].shape[1]
    if "EmbeddingLayer.weight" in tensors and dim <= tensors["EmbeddingLayer.weight"].shape[0]:
        raise GeneratorError("R3GAN weights: the class's embedding leaves no room for a code")
    return {key: value.float() for key, value in tensors.items()}, blocks


def random_tensors(
    widths: Sequence[int], groups: Sequence[int], *, dim: int = 64, blocks: int = 2, classes: int = 0, seed: int = 0
) -> dict[str, Tensor]:
    """Return seeded noise in the shape of real weights, for latency and parity work.

    Args:
        widths: Channels of each stage, from 4 x 4 pixels on.
        groups: Of each stage's grouped convolutions.
        dim: D.
        blocks: Residual blocks of each stage.
        classes: Of a class-conditional network; 0 for none.
        seed: Of a local random generator.
    """
    embedding = dim if classes else 0
    sizes = {
        "MainLayers.0.Layers.0.Basis": torch.empty(widths[0], 4, 4),
        "MainLayers.0.Layers.0.LinearLayer.weight": torch.empty(widths[0], dim + embedding),
    }
    if classes:
        sizes["EmbeddingLayer.weight"] = torch.empty(embedding, classes)
    for s, (width, count) in enumerate(zip(widths, groups, strict=True)):
        stage, wide = f"MainLayers.{s}.Layers", 2 * width
        if s and width != widths[s - 1]:
            sizes[f"{stage}.0.LinearLayer.Layer.weight"] = torch.empty(width, 1, 1, 1)
        for b in range(1, blocks + 1):
            sizes[f"{stage}.{b}.LinearLayer1.Layer.weight"] = torch.empty(wide, 1, 1, 1)
            sizes[f"{stage}.{b}.LinearLayer2.Layer.weight"] = torch.empty(wide, wide // count, 3, 3)
    rng, tensors = torch.Generator().manual_seed(seed), {}
    for key, shape in expected_shapes(sizes, [blocks] * len(widths)).items():
        if key.endswith("Kernel"):
            continue
        weak = re.search(r"LinearLayer3|Aggregation", key) is not None  # so that pictures mostly stay inside [-1, 1]
        std = 0.1 if key.endswith("Bias") else (0.3 if weak else 1.0) / math.sqrt(math.prod(shape[1:]))
        tensors[key] = torch.randn(shape, generator=rng) * (1.0 if key.endswith("Basis") else std)
    return tensors
