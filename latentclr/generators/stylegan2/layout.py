"""StyleGAN2's table of names and shapes, which every weights file must fit, and seeded noise that fits it.

The names are rosinality's: its files, the origin's and those of the many encoders built on them load as they are. Sizes
are read from the weights themselves. D, I and O as in `stylegan2`.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.weights.table import check_table, count_indices

MAX_BLOCKS = 8  # 4 * 2 ** 8 = 1024 pixels


def blur_kernel(gain: float = 1.0) -> Tensor:
    """Return the [4, 4] kernel [1, 3, 3, 1] x [1, 3, 3, 1] with sum `gain`."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps)
    return kernel * (gain / kernel.sum())


def separate(kernel: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Split a [4, 4] kernel into a column and a row [4] whose outer product it is.

    Raises:
        GeneratorError: It is no such product.
    """
    u, s, v = torch.linalg.svd(kernel.double())
    column, row = u[:, 0] * s[0].sqrt(), v[0] * s[0].sqrt()  # [4], [4]
    if not torch.allclose(torch.outer(column, row), kernel.double(), rtol=0, atol=1e-5 * float(s[0])):
        raise GeneratorError(f"{name} must be separable (a column times a row), as [1, 3, 3, 1] is; this one is not")
    sign = column.sum().sign()
    return (column * sign).float(), (row * sign).float()


def expected_shapes(tensors: dict[str, Tensor], blocks: int, n_mlp: int) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of a generator whose sizes are read from the weights themselves.

    Args:
        tensors: Weights, of which only the channel counts of the convolutions are believed.
        blocks: Number of times the image doubles from 4 pixels.
        n_mlp: Number of mapping layers.
    """

    def size(key: str, axis: int, otherwise: int = 0) -> int:
        return tensors[key].shape[axis] if key in tensors and tensors[key].ndim > axis else otherwise

    dim = width = size("style.1.weight", 1)
    shapes: dict[str, tuple[int, ...]] = {}
    if "embed.weight" in tensors:  # of a class-conditional network: the first layer takes z and the class's embedding
        dim = size("embed.weight", 0)
        width = 2 * dim
        shapes |= {"embed.weight": (dim, size("embed.weight", 1)), "embed.bias": (dim,)}
    for i in range(1, n_mlp + 1):
        out = dim if i == n_mlp else size(f"style.{i}.weight", 0)
        shapes |= {f"style.{i}.weight": (out, width), f"style.{i}.bias": (out,)}
        width = out

    def modulated(name: str, channels_in: int, channels_out: int, kernel: int) -> None:
        shapes[f"{name}.conv.weight"] = (1, channels_out, channels_in, kernel, kernel)
        shapes[f"{name}.conv.modulation.weight"] = (channels_in, dim)
        shapes[f"{name}.conv.modulation.bias"] = (channels_in,)

    channels = size("input.input", 1)
    shapes["input.input"] = (1, channels, 4, 4)
    for i in range(-1, 2 * blocks):
        name = "conv1" if i < 0 else f"convs.{i}"
        out = size(f"{name}.conv.weight", 1, channels)
        modulated(name, channels, out, 3)
        channels = out
        shapes |= {f"{name}.noise.weight": (1,), f"{name}.activate.bias": (channels,)}
        pixels = 4 * 2 ** ((i + 2) // 2)
        shapes[f"noises.noise_{i + 1}"] = (1, 1, pixels, pixels)
        if i >= 0 and i % 2 == 0:
            shapes[f"{name}.conv.blur.kernel"] = (4, 4)
        else:
            rgb = "to_rgb1" if i < 0 else f"to_rgbs.{i // 2}"
            modulated(rgb, channels, 3, 1)
            shapes[f"{rgb}.bias"] = (1, 3, 1, 1)
            if i > 0:
                shapes[f"{rgb}.upsample.kernel"] = (4, 4)
    return shapes | {"latent_avg": (dim,), "conv_clamp": ()}


def check_layout(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Check every key and shape, and put in the kernels that a file may leave out.

    Returns:
        The tensors as float32, and the number of blocks.

    Raises:
        GeneratorError: A report of all that is missing, unexpected or of a wrong shape.
    """
    n_mlp = count_indices(tensors, r"style\.(\d+)\.", limit=64)
    blocks = (count_indices(tensors, r"convs\.(\d+)\.", limit=2 * MAX_BLOCKS - 1) + 2) // 2
    if n_mlp < 1 or not blocks:
        found = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise GeneratorError(f"not StyleGAN2 weights: expected style.*, convs.*, to_rgbs.*, found {found}")
    shapes = expected_shapes(tensors, blocks, n_mlp)
    optional = [key for key in shapes if key.startswith(("noises.", "latent_avg", "conv_clamp")) or "kernel" in key]
    check_table(f"StyleGAN2 weights ({4 * 2**blocks} px, {n_mlp} mapping layers)", tensors, shapes, optional)
    kernels = {key: blur_kernel(gain=4.0) for key in optional if "kernel" in key and key not in tensors}
    return {key: value.float() for key, value in (tensors | kernels).items()}, blocks


def random_tensors(
    resolution: int, *, n_mlp: int = 8, dim: int = 512, width: int = 512, classes: int = 0, seed: int = 0
) -> dict[str, Tensor]:
    """Return seeded noise in the shape of real weights (config F: channel multiplier 2), for latency and parity work.

    Args:
        resolution: 8, 16, ... 1024.
        n_mlp: Mapping layers.
        dim: D.
        width: Largest number of channels; 512 in published models.
        classes: Of a class-conditional network; 0 for none.
        seed: Of a local random generator.

    Raises:
        GeneratorError: The resolution is not one of those.
    """
    blocks = int(math.log2(max(resolution, 4))) - 2
    if resolution != 4 * 2**blocks or not 1 <= blocks <= MAX_BLOCKS:
        raise GeneratorError(f"StyleGAN2 resolutions are 8, 16, ... 1024, got {resolution}")
    sizes = {"style.1.weight": torch.empty(dim, dim), "input.input": torch.empty(1, width, 4, 4)}
    sizes |= {f"style.{i}.weight": torch.empty(dim, dim) for i in range(2, n_mlp + 1)}
    if classes:
        sizes["embed.weight"] = torch.empty(dim, classes)
    for i in range(2 * blocks):
        out = min(width, 64 * width // (4 * 2 ** (i // 2 + 1)))
        sizes[f"convs.{i}.conv.weight"] = torch.empty(1, out, 1, 1, 1)
    rng, tensors = torch.Generator().manual_seed(seed), {}
    for key, shape in expected_shapes(sizes, blocks, n_mlp).items():
        if key in ("latent_avg", "conv_clamp"):
            continue
        mean, std = next((stats for ending, stats in _STATISTICS.items() if re.search(ending, key)), (0.0, 1.0))
        tensors[key] = blur_kernel(gain=4.0) if "kernel" in key else torch.randn(shape, generator=rng) * std + mean
    return tensors


# Mean and deviation by key: about what training leaves, and images that mostly stay inside [-1, 1].
_STATISTICS = {
    r"^style.*weight": (0.0, 100.0),
    r"^style.*bias": (0.0, 10.0),
    r"modulation\.bias": (1.0, 0.1),
    r"noise\.weight": (0.0, 0.1),
    r"to_rgb.*conv\.weight": (0.0, 0.2),
    r"bias$": (0.0, 0.1),
}
