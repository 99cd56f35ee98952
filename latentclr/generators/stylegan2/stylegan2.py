"""StyleGAN2 in a form that trains, folds and exports: 8 to 1024 pixels, any mapping depth and channel table.

Architecture: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv 1912.04958 (skip generator).
Weights use rosinality's key names; `stylegan2_weights` reads them from `.pt`, `.safetensors` and NVIDIA's `.pkl`.

The modulated convolution is not fused with the batch: scale the input by the style, convolve with one static weight,
scale the output by the demodulation factor. Every operation is then an ordinary one with a dynamic batch, and the
weight is a constant of an exported graph. Symbols: N batch, L latent inputs, D style size, I and O channels in and out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.errors import GeneratorError
from latentclr.files import sha256_of
from latentclr.generators.base import Generator, LatentSpec
from latentclr.generators.classes import chosen_classes, numbered_classes
from latentclr.generators.stylegan2.classes import find_weights, resolution_of
from latentclr.generators.stylegan2.layout import check_layout, random_tensors, separate
from latentclr.generators.stylegan2.mapping import Mapping
from latentclr.generators.stylegan2.weights import StyleGAN2Options, read_tensors

SLOPE = 0.2  # of the leaky ReLU, whose output is multiplied by sqrt(2): folded here, as lrelu(a * x) = a * lrelu(x)
EPS = 1e-8


class Affine(nn.Module):
    """w [N, D] -> style s [N, I], one factor per input channel."""

    def __init__(self, tensors: dict[str, Tensor], name: str) -> None:
        super().__init__()
        weight = tensors[f"{name}.conv.modulation.weight"]  # [I, D]
        self.weight = nn.Parameter(weight / math.sqrt(weight.shape[1]))
        self.bias = nn.Parameter(tensors[f"{name}.conv.modulation.bias"].clone())

    def forward(self, w: Tensor) -> Tensor:
        """Return s [N, I]."""
        return F.linear(w, self.weight, self.bias)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, optionally to twice the size, then noise, bias and leaky ReLU."""

    noise: Tensor | None

    def __init__(self, tensors: dict[str, Tensor], name: str, noise: Tensor) -> None:
        super().__init__()
        weight = tensors[f"{name}.conv.weight"][0]  # [O, I, 3, 3]
        weight = weight / math.sqrt(weight[0].numel())
        self.affine = Affine(tensors, name)
        # Half, because the demodulation factor carries the activation's sqrt(2): rsqrt(a / 2) = sqrt(2) * rsqrt(a).
        self.energy = nn.Parameter(weight.square().sum((2, 3)) / 2)  # [O, I]
        self.bias = nn.Parameter(tensors[f"{name}.activate.bias"] * math.sqrt(2))  # [O]
        strength = tensors[f"{name}.noise.weight"].flatten() * math.sqrt(2)  # [1]
        self.register_buffer("noise", noise * strength if strength.any() else None)  # [1, 1, H, W]
        self.clamp = float(tensors["conv_clamp"]) if "conv_clamp" in tensors else None
        kernel = tensors.get(f"{name}.conv.blur.kernel")
        self.up = kernel is not None
        if kernel is not None:
            weight = weight.transpose(0, 1).contiguous()  # [I, O, 3, 3], as a transposed convolution wants it
            column, row = separate(kernel.flip(0, 1), f"{name}.conv.blur.kernel")  # 4 taps each
            channels = weight.shape[1]
            self.blur_down = nn.Parameter(column.reshape(1, 1, 4, 1).repeat(channels, 1, 1, 1))  # [O, 1, 4, 1]
            self.blur_across = nn.Parameter(row.reshape(1, 1, 1, 4).repeat(channels, 1, 1, 1))  # [O, 1, 1, 4]
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return [N, O, H, W] (H twice x's if the layer upsamples) from x [N or 1, I, h, w] and w [N, D]."""
        s = self.affine(w)  # [N, I]
        # The demodulation takes any common factor of the style out again, so that large styles may as well be brought
        # to 1 before the convolution, whose sums then fit into half precision. A constant for the gradient, too.
        largest = s.detach().abs().amax(1, keepdim=True).clamp_min(EPS)  # [N, 1]
        s = s / largest  # [N, I]
        energy = F.linear(s * s, self.energy) + EPS / 2 / largest.square()  # [N, O]
        d = torch.rsqrt(energy)[:, :, None, None]  # [N, O, 1, 1]
        x = x * s[:, :, None, None].to(x.dtype)  # [N, I, h, w]
        if self.up:
            x = F.conv_transpose2d(x, self.weight, stride=2)  # [N, O, 2h + 1, 2w + 1]
            x = x * d.to(x.dtype)  # a factor per channel may as well come before the blur, which then adds the bias
            x = F.conv2d(x, self.blur_down, padding=(1, 0), groups=x.shape[1])  # [N, O, 2h, 2w + 1]
            x = F.conv2d(x, self.blur_across, self.bias, padding=(0, 1), groups=x.shape[1])  # [N, O, 2h, 2w]
        else:
            x = F.conv2d(x, self.weight, padding=1)  # [N, O, h, w]
            x = x * d.to(x.dtype) + self.bias[:, None, None].to(x.dtype)
        if self.noise is not None:
            x = x + self.noise.to(x.dtype)
        x = F.leaky_relu(x, SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three channels, added to the image so far at twice its size."""

    kernel: Tensor | None

    def __init__(self, tensors: dict[str, Tensor], name: str) -> None:
        super().__init__()
        weight = tensors[f"{name}.conv.weight"][0]  # [3, I, 1, 1]
        self.affine = Affine(tensors, name)
        self.weight = nn.Parameter((weight / math.sqrt(weight.shape[1])).flatten(1))  # [3, I]
        self.bias = nn.Parameter(tensors[f"{name}.bias"].view(3, 1))
        self.clamp = float(tensors["conv_clamp"]) if "conv_clamp" in tensors else None
        kernel = tensors.get(f"{name}.upsample.kernel")
        self.register_buffer("kernel", None if kernel is None else kernel.expand(3, 1, 4, 4).contiguous())

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None = None) -> Tensor:
        """Return [N, 3, h, w] from x [N, I, h, w], w [N, D] and the image of half the size."""
        s = self.affine(w)  # [N, I]
        # Three rows of weights are cheaper to modulate than the I channels of x, the largest tensor of all.
        weight = self.weight * s[:, None]  # [N, 3, I]
        rgb: Tensor = weight.to(x.dtype) @ x.flatten(2) + self.bias  # [N, 3, h * w]
        rgb = rgb.unflatten(2, x.shape[2:])  # [N, 3, h, w]
        if self.clamp is not None:
            rgb = rgb.clamp(-self.clamp, self.clamp)
        if image is None or self.kernel is None:
            return rgb
        # Zeros between the pixels, then the 4x4 kernel: a depthwise transposed convolution says both at once.
        return rgb + F.conv_transpose2d(image, self.kernel, stride=2, padding=1, groups=3)


class StyleGAN2(Generator):
    """The frozen generator. Feature layers: `conv1`, `to_rgb1`, `convs.{i}`, `to_rgbs.{i}` (the image so far)."""

    name = "stylegan2"
    const: Tensor
    latent_avg: Tensor

    def __init__(
        self,
        tensors: dict[str, Tensor],
        *,
        use_w: bool = True,
        truncation: float = 1.0,
        noise_seed: int | None = None,
    ) -> None:
        """Fold the weights.

        Args:
            tensors: Weights under rosinality's names, as `read_tensors` returns them.
            use_w: `encode` maps to W; else directions live in Z and `synthesize` maps.
            truncation: psi of `synthesize`; `features` never truncates.
            noise_seed: Draw the noise from this seed; None takes the file's, or seed 0 where the file has none.

        Raises:
            GeneratorError: Keys are missing or unexpected, or shapes do not fit.
        """
        super().__init__()
        tensors, blocks = check_layout(tensors)
        self.use_w, self.truncation = use_w, truncation
        self.resolution = 4 * 2**blocks
        dim = tensors["conv1.conv.modulation.weight"].shape[1]
        self.latent = LatentSpec(dim=dim, layers=2 * blocks + 2, sampler="standard_normal")
        rng = torch.Generator().manual_seed(noise_seed or 0)
        noises = []
        for i in range(2 * blocks + 1):
            size = 4 * 2 ** ((i + 1) // 2)
            drawn, stored = torch.randn(1, 1, size, size, generator=rng), tensors.get(f"noises.noise_{i}")
            noises.append(drawn if stored is None or noise_seed is not None else stored)
        depth = sum(key.startswith("style.") for key in tensors) // 2
        weights, biases = ([tensors[f"style.{i + 1}.{p}"] for i in range(depth)] for p in ("weight", "bias"))
        embed = (tensors["embed.weight"], tensors["embed.bias"]) if "embed.weight" in tensors else None
        self.mapping = Mapping(weights, biases, embed)
        if self.mapping.classes:
            self.class_names = numbered_classes(self.mapping.classes)
            self.class_ids = chosen_classes(None, self.mapping.classes)
        self.register_buffer("const", tensors["input.input"].clone())  # [1, C, 4, 4]
        self.conv1, self.to_rgb1 = StyledConv(tensors, "conv1", noises[0]), ToRGB(tensors, "to_rgb1")
        self.convs = nn.ModuleList(StyledConv(tensors, f"convs.{i}", noises[i + 1]) for i in range(2 * blocks))
        self.to_rgbs = nn.ModuleList(ToRGB(tensors, f"to_rgbs.{i}") for i in range(blocks))
        layers = ["conv1", "to_rgb1"]
        for i in range(blocks):
            layers += [f"convs.{2 * i}", f"convs.{2 * i + 1}", f"to_rgbs.{i}"]
        self.feature_layers = tuple(layers)
        average = tensors["latent_avg"] if "latent_avg" in tensors else self.mapping.average()
        self.register_buffer("latent_avg", average.clone())  # [D]
        self.freeze()

    def encode(self, z: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Map z [N, D], and class_id [N] of a conditional network, to w [N, D]; z where directions live in Z."""
        w: Tensor = self.mapping(z, class_id) if self.use_w else z  # [N, D]
        return w

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Generate images [N, 3, H, W], not clamped, from ps [N, L, D], truncated after the edit."""
        ws = self._styles(ps, class_id)
        if self.truncation != 1:
            ws = self.latent_avg + self.truncation * (ws - self.latent_avg)  # [N, L, D]
        return self._run(ws, self.feature_layers[-1])

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Return the output [N, C, h, w] of `layer` for untruncated ps [N, L, D]."""
        return self._run(self._styles(ps[:, : self.inputs_reaching(layer)], class_id), layer)

    def inputs_reaching(self, layer: str) -> int:
        """Return how many of the first latent inputs reach `layer`: conv1 takes 0, to_rgb1 1, convs.i i + 1, ..."""
        kind, _, index = self.check_layer(layer).partition(".")
        if kind == "convs":
            return int(index) + 2
        return {"conv1": 1, "to_rgb1": 2}.get(layer) or 2 * int(index) + 4

    def previews(self) -> tuple[int, ...]:
        """Return 8, 16, ... up to half the resolution: the skip image of each block but the last."""
        return tuple(2**power for power in range(3, self.resolution.bit_length() - 1))

    def stopping_at(self, size: int) -> StyleGAN2:
        """Return the generator whose picture is the skip image of `size` pixels; see `Generator.stopping_at`."""
        if size not in self.previews():
            raise self.no_preview(size)
        blocks = size.bit_length() - 3  # 8 pixels are one block
        smaller = copy.copy(self)
        smaller._modules = dict(self._modules)  # the copy is shallow: its table of modules would be this one's
        smaller.convs, smaller.to_rgbs = self.convs[: 2 * blocks], self.to_rgbs[:blocks]
        smaller.resolution, smaller.feature_layers = size, self.feature_layers[: 2 + 3 * blocks]
        return smaller

    def first_weights(self, inputs: Sequence[int]) -> Tensor:
        """Return the affine maps from w to styles [R, D], or the mapping's first layer where directions live in Z.

        As in the authors' code, an input's map is that of its convolution; the last input has only a `to_rgb`.
        """
        if not self.use_w:
            first: Tensor = self.mapping.weights[0]
            return first
        layers: list[Any] = [self.conv1, *self.convs, self.to_rgbs[-1]]  # L
        return torch.cat([layers[i].affine.weight for i in inputs])

    def _styles(self, ps: Tensor, class_id: Tensor | None) -> Tensor:
        ws: Tensor = ps if self.use_w else self.mapping(ps, class_id)  # [N, L, D]
        return ws

    def _run(self, ws: Tensor, last: str) -> Tensor:
        wants_image = last.startswith("to_rgb")
        x: Tensor = self.conv1(self.const, ws[:, 0])  # [N, C, 4, 4]: the style's N broadcasts the constant's 1
        if last == "conv1":
            return x
        image: Tensor = self.to_rgb1(x, ws[:, 1]) if wants_image else x  # [N, 3, 4, 4]
        if last == "to_rgb1":
            return image
        for i, layer in enumerate(self.convs):
            x = layer(x, ws[:, i + 1])  # [N, C, h, w]
            if last == f"convs.{i}":
                return x
            if wants_image and i % 2:
                image = self.to_rgbs[i // 2](x, ws[:, i + 2], image)  # [N, 3, h, w]
                if last == f"to_rgbs.{i // 2}":
                    return image
        raise AssertionError("unreachable: the last layer returns")


def load_stylegan2(config: StyleGAN2Options) -> StyleGAN2:
    """Load a StyleGAN2.

    Args:
        config: `weights` is a file (`.pt` of rosinality's or plain tensors, `.safetensors`, NVIDIA's `.pkl`), `random`
            for seeded noise at the class's resolution, `random:RESOLUTION`, or None for the class's file in the cache.

    Raises:
        GeneratorError: The weights are missing or unusable, or an option is out of range.
    """
    if not 0 <= config.truncation <= 1:
        raise GeneratorError(f"generator.truncation must be in [0, 1], got {config.truncation}")
    if config.noise_seed is not None and not -(2**63) <= config.noise_seed < 2**64:  # what torch takes
        raise GeneratorError("generator.noise_seed must be in [-2**63, 2**64)")
    path, digest = Path(config.weights or find_weights(config.class_name)), ""
    kind, _, size = str(path).partition(":")
    if kind == "random":
        if size and not (size.isdecimal() and len(size) < 6):
            raise GeneratorError(f"generator.weights=random:RESOLUTION takes a number of pixels, got {size[:50]!r}")
        tensors = random_tensors(int(size) if size else resolution_of(config.class_name))
    else:
        tensors, digest = read_tensors(path), sha256_of(path)
    generator = StyleGAN2(tensors, use_w=config.use_w, truncation=config.truncation, noise_seed=config.noise_seed)
    generator.class_ids = chosen_classes(config.classes, generator.mapping.classes)
    generator.random_weights, generator.weights_sha256 = kind == "random", digest
    return generator
