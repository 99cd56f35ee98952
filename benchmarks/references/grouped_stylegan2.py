"""StyleGAN2 the reference's way: the style is multiplied into the weights, so that every image has weights of its own.

Written from the paper (Karras et al., arXiv 1912.04958, section 2 and appendix B), not from code: modulated and
demodulated weights per image, one grouped convolution over the batch, the blur as a 2-D kernel after zero-insertion
(upfirdn), equalised learning rates multiplied in at run time, noise, bias and activation one after another.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.config import StyleGAN2Config
from latentclr.generators.base import Generator
from latentclr.generators.stylegan2.layout import check_layout, random_tensors
from latentclr.generators.stylegan2.mapping import LEARNING_RATE
from latentclr.generators.stylegan2.stylegan2 import EPS, SLOPE, StyleGAN2
from latentclr.generators.stylegan2.weights import read_tensors


class GroupedStyleGAN2(Generator):
    """Same weights, names and pictures as `StyleGAN2`; parameters collect gradients.

    Attributes:
        table: All weights under rosinality's names, with `/` for `.`.
    """

    name = "stylegan2"

    def __init__(self, lean: StyleGAN2, tensors: dict[str, Tensor]) -> None:
        """Keep the weights as they are.

        Args:
            lean: Ours, for its settings, `latent_avg` and noise.
            tensors: Weights under rosinality's names.
        """
        super().__init__()
        tensors, self.blocks = check_layout(tensors)
        self.latent, self.resolution, self.feature_layers = lean.latent, lean.resolution, lean.feature_layers
        self.use_w, self.truncation = lean.use_w, lean.truncation
        self.register_buffer("latent_avg", lean.latent_avg)
        self.table = nn.ParameterDict({_key(name): tensor for name, tensor in tensors.items()})
        for name, parameter in self.table.items():  # buffers there
            parameter.requires_grad_("kernel" not in name and not name.startswith("noises"))
        self.n_mlp = sum(name.startswith("style.") for name in tensors) // 2
        self.eval()

    def encode(self, z: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Map z [N, D] to w [N, D], or return it where directions live in Z."""
        return self._mapping(z) if self.use_w else z

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Return images [N, 3, H, W] from ps [N, L, D], truncated after the edit."""
        average = self.get_buffer("latent_avg")
        return self._run(average + self.truncation * (self._styles(ps) - average), self.feature_layers[-1])

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Return the output [N, C, h, w] of `layer` for untruncated ps [N, L, D]."""
        return self._run(self._styles(ps), self.check_layer(layer))

    def inputs_reaching(self, layer: str) -> int:
        """Return L: nothing here depends on it."""
        return self.latent.layers

    def _styles(self, ps: Tensor) -> Tensor:
        return ps if self.use_w else self._mapping(ps)

    def _mapping(self, z: Tensor) -> Tensor:
        x = z * torch.rsqrt(z.square().mean(-1, keepdim=True) + EPS)  # [..., D]
        for i in range(1, self.n_mlp + 1):
            weight, bias = self._get(f"style.{i}.weight"), self._get(f"style.{i}.bias")
            x = F.linear(x, weight * (LEARNING_RATE / math.sqrt(weight.shape[1])))  # [..., D]
            x = F.leaky_relu(x + bias * LEARNING_RATE, SLOPE) * math.sqrt(2)
        return x

    def _run(self, ws: Tensor, last: str) -> Tensor:
        x = self._get("input.input").repeat(len(ws), 1, 1, 1)  # [N, C, 4, 4]
        x = self._styled(x, ws[:, 0], "conv1", "noises.noise_0")
        if last == "conv1":
            return x
        image = self._to_rgb(x, ws[:, 1], "to_rgb1", None)  # [N, 3, 4, 4]
        for i in range(2 * self.blocks):
            if last == ("to_rgb1" if i == 0 else f"to_rgbs.{i // 2 - 1}"):
                return image
            x = self._styled(x, ws[:, i + 1], f"convs.{i}", f"noises.noise_{i + 1}")  # [N, C, h, w]
            if last == f"convs.{i}":
                return x
            if i % 2:
                image = self._to_rgb(x, ws[:, i + 2], f"to_rgbs.{i // 2}", image)  # [N, 3, h, w]
        return image

    def _styled(self, x: Tensor, w: Tensor, name: str, noise: str) -> Tensor:
        kernel = self.table[key] if (key := _key(f"{name}.conv.blur.kernel")) in self.table else None
        x = self._modulated(x, w, name, demodulate=True, up=kernel is not None)  # [N, O, h, w]
        if kernel is not None:
            x = self._upfirdn(x, kernel, pad=(1, 1))  # [N, O, 2h, 2w] from the transposed convolution's 2h + 1
        x = x + self._get(f"{name}.noise.weight") * self._get(noise)
        return F.leaky_relu(x + self._get(f"{name}.activate.bias")[:, None, None], SLOPE) * math.sqrt(2)

    def _to_rgb(self, x: Tensor, w: Tensor, name: str, image: Tensor | None) -> Tensor:
        rgb = self._modulated(x, w, name, demodulate=False, up=False) + self._get(f"{name}.bias")  # [N, 3, h, w]
        if image is None:
            return rgb
        return rgb + self._upfirdn(image, self._get(f"{name}.upsample.kernel"), up=2, pad=(2, 1))

    def _modulated(self, x: Tensor, w: Tensor, name: str, *, demodulate: bool, up: bool) -> Tensor:
        affine = self._get(f"{name}.conv.modulation.weight")  # [I, D]
        s = F.linear(w, affine / math.sqrt(affine.shape[1]), self._get(f"{name}.conv.modulation.bias"))  # [N, I]
        weight = self._get(f"{name}.conv.weight")  # [1, O, I, k, k]
        _, outputs, inputs, k, _ = weight.shape
        weight = weight / math.sqrt(inputs * k * k) * s[:, None, :, None, None]  # [N, O, I, k, k]
        if demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + EPS)
        n, _, h, width = x.shape
        x = x.reshape(1, n * inputs, h, width)  # the batch as groups
        if up:
            weight = weight.transpose(1, 2).reshape(n * inputs, outputs, k, k)
            x = F.conv_transpose2d(x, weight, stride=2, groups=n)  # [1, N * O, 2h + 1, 2w + 1]
        else:
            x = F.conv2d(x, weight.reshape(n * outputs, inputs, k, k), padding=k // 2, groups=n)  # [1, N * O, h, w]
        return x.reshape(n, outputs, *x.shape[2:])

    def _upfirdn(self, x: Tensor, kernel: Tensor, up: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
        return upfirdn(x, kernel, up, pad)

    def _get(self, name: str) -> Tensor:
        tensor: Tensor = self.table[_key(name)]
        return tensor


def upfirdn(x: Tensor, kernel: Tensor, up: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Insert zeros, pad, and convolve each channel with one 2-D kernel.

    Args:
        x: [N, C, h, w].
        kernel: [k, k].
        up: Pixels that one becomes, each way.
        pad: Zeros before and after, each way.

    Returns:
        [N, C, h * up + pad - k + 1, ...].
    """
    n, c, h, w = x.shape
    x = x.reshape(n * c, 1, h, 1, w, 1)
    x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(n * c, 1, h * up, w * up)  # [N * C, 1, h * up, w * up]
    x = F.conv2d(F.pad(x, (*pad, *pad)), kernel.flip(0, 1)[None, None])
    return x.reshape(n, c, *x.shape[2:])


def load_grouped_stylegan2(config: StyleGAN2Config, lean: StyleGAN2) -> GroupedStyleGAN2:
    """Load the reference's way with the weights that `lean` was loaded with.

    Raises:
        LatentCLRError: The weights cannot be read.
    """
    if lean.random_weights:
        return GroupedStyleGAN2(lean, random_tensors(lean.resolution))
    return GroupedStyleGAN2(lean, read_tensors(Path(config.weights or "")))


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's tables take no dots in names
