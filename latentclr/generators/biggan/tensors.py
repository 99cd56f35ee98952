"""BigGAN-deep's tensors under the names of the `pytorch_pretrained_biggan` package: folded, or random."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.biggan.spec import BigGANSpec

BOTTLENECK = 4  # a block's inner convolutions have a quarter of its input channels


class WeightTable:
    """The package's tensors, taken out one by one: checked, folded and in float32."""

    def __init__(self, spec: BigGANSpec, tensors: dict[str, Tensor], truncation: float) -> None:
        """Remember what to take from.

        Args:
            spec: The shape of the model.
            tensors: The package's state dict; its tensors are taken out as they are folded, to save memory.
            truncation: In (0, 1], chooses the batch-norm statistics.

        Raises:
            GeneratorError: The truncation is out of range.
        """
        self.spec, self.tensors, self.blend = spec, tensors, blend_of(truncation, spec.n_stats)

    def take(self, name: str, *shape: int) -> Tensor:
        """Take a tensor out.

        Raises:
            GeneratorError: It is missing or of another shape.
        """
        if name not in self.tensors:
            raise GeneratorError(f"BigGAN weights lack {name!r}")
        tensor = self.tensors.pop(name)
        if tuple(tensor.shape) != shape:
            raise GeneratorError(f"BigGAN weights: {name} must be {list(shape)}, got {list(tensor.shape)}")
        return tensor.float()

    def spectral(self, name: str, *shape: int) -> Tensor:
        """Divide a weight by its spectral norm's estimate u^T W v, as `torch.nn.utils.spectral_norm` does in eval.

        Raises:
            GeneratorError: A tensor is missing or of another shape, or the norm is zero or not finite.
        """
        weight = self.take(f"{name}.weight_orig", *shape)
        matrix = weight.flatten(1)
        u, v = self.take(f"{name}.weight_u", shape[0]), self.take(f"{name}.weight_v", matrix.shape[1])
        norm = torch.dot(u, matrix @ v)
        if not torch.isfinite(norm) or norm == 0:
            raise GeneratorError(f"BigGAN weights: {name} has spectral norm {norm.item()}")
        return weight / norm

    def statistics(self, name: str, channels: int) -> tuple[Tensor, Tensor]:
        """Return mean and 1 / sqrt(variance + eps) [channels] of a batch norm at the chosen truncation."""
        means, variances = (
            self.take(f"{name}.running_{part}", self.spec.n_stats, channels) for part in ("means", "vars")
        )
        rows, weights = [row for row, _ in self.blend], torch.tensor([weight for _, weight in self.blend])
        mean, variance = weights @ means[rows], weights @ variances[rows]  # [channels]
        return mean, 1 / torch.sqrt(variance + self.spec.eps)


def random_tensors(spec: BigGANSpec, seed: int = 0) -> dict[str, Tensor]:
    """Draw all tensors, seeded, under the package's names: for latency work and tests, not for pictures.

    Every weight is divided by what makes its gain one (v = W^T u, normalised), so that activations neither die nor grow
    and tanh is far from saturated.

    Returns:
        The package's state dict.
    """
    rng = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    def spectral(name: str, *shape: int, bias: bool = True) -> None:
        weight = normal(*shape)
        u = F.normalize(normal(shape[0]), dim=0)
        v = F.normalize(weight.flatten(1).T @ u, dim=0)
        tensors[f"{name}.weight_orig"], tensors[f"{name}.weight_u"], tensors[f"{name}.weight_v"] = weight, u, v
        if bias:
            tensors[f"{name}.bias"] = 0.1 * normal(shape[0])

    def statistics(name: str, channels: int) -> None:
        tensors[f"{name}.running_means"] = 0.1 * normal(spec.n_stats, channels)
        tensors[f"{name}.running_vars"] = torch.exp(0.2 * normal(spec.n_stats, channels))

    condition, width = spec.condition_dim, spec.channel_width
    tensors["embeddings.weight"] = 0.5 * normal(spec.class_embed_dim, spec.num_classes)
    spectral("generator.gen_z", 4 * 4 * 16 * width, condition)
    for name, block in spec.layer_names():
        if block is None:
            channels = spec.layers[spec.attention_layer_position][1] * width
            tensors[f"{name}.gamma"] = torch.ones(1)
            for part, shape in attention_shapes(channels).items():
                spectral(f"{name}.snconv1x1_{part}", *shape, bias=False)
            continue
        for i, shape in enumerate(convolution_shapes(block)):
            statistics(f"{name}.bn_{i}", shape[1])
            for part in ("scale", "offset"):
                spectral(f"{name}.bn_{i}.{part}", shape[1], condition, bias=False)
            spectral(f"{name}.conv_{i}", *shape)
    statistics("generator.bn", width)
    tensors["generator.bn.weight"], tensors["generator.bn.bias"] = torch.full((width,), 0.4), 0.1 * normal(width)
    spectral("generator.conv_to_rgb", width, width, 3, 3)
    return tensors


def convolution_shapes(block: tuple[bool, int, int]) -> list[tuple[int, int, int, int]]:
    """Return the weight shapes [out, in, k, k] of a GenBlock's four convolutions."""
    _, inputs, outputs = block
    middle = inputs // BOTTLENECK
    return [(middle, inputs, 1, 1), (middle, middle, 3, 3), (middle, middle, 3, 3), (outputs, middle, 1, 1)]


def attention_shapes(channels: int) -> dict[str, tuple[int, int, int, int]]:
    """Return the weight shapes of self-attention's 1 x 1 convolutions by name."""
    key, value = channels // 8, channels // 2
    return {
        "theta": (key, channels, 1, 1),
        "phi": (key, channels, 1, 1),
        "g": (value, channels, 1, 1),
        "o_conv": (channels, value, 1, 1),
    }


def blend_of(truncation: float, n_stats: int) -> list[tuple[int, float]]:
    """Return the (index, weight) pairs that blend a batch norm's statistics for a truncation.

    Between two stored truncations the package gives the fraction's weight to the *lower* one. That looks swapped, but
    parity with it is what published directions were trained on.

    Raises:
        GeneratorError: Truncation is not in (0, 1].
    """
    if not 0 < truncation <= 1:
        raise GeneratorError(f"generator.truncation must be in (0, 1], got {truncation}")
    fraction, whole = math.modf(truncation / (1.0 / (n_stats - 1)))
    start = int(whole)
    return [(start, 1.0)] if fraction == 0.0 else [(start, fraction), (start + 1, 1 - fraction)]
