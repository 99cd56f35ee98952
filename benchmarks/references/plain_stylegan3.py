"""StyleGAN3 the plain way: styles multiplied into the weights of every image, zeros inserted and filtered in full.

Written from the paper (Karras et al., arXiv 2106.12423, section 3.2 and appendix D), not from code: modulated and
demodulated weights per image, one grouped convolution over the batch, then bias, zeros between the pixels, the
up-sampling filter, leaky ReLU, clamp, the down-sampling filter on every pixel, and every second of them kept. Filters
run along rows and then columns where they are separable. Equalised learning rates are multiplied in at run time.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.generators.base import Generator
from latentclr.generators.stylegan2.mapping import LEARNING_RATE
from latentclr.generators.stylegan3.config import StyleGAN3Config
from latentclr.generators.stylegan3.layout import check_layout, random_tensors
from latentclr.generators.stylegan3.stylegan3 import EPS, SLOPE, StyleGAN3, released
from latentclr.generators.stylegan3.weights import read_tensors


class PlainStyleGAN3(Generator):
    """Same weights, names and pictures as an unconditional `StyleGAN3`; parameters collect gradients.

    Attributes:
        table: All weights under NVIDIA's names, with `/` for `.`.
    """

    name = "stylegan3"
    use_w = True

    def __init__(self, lean: StyleGAN3, tensors: dict[str, Tensor]) -> None:
        """Keep the weights as they are.

        Args:
            lean: Ours, for its settings and `w_avg`.
            tensors: Weights under NVIDIA's names.
        """
        super().__init__()
        tensors, self.layer_names = check_layout(tensors)
        self.latent, self.resolution, self.feature_layers = lean.latent, lean.resolution, lean.feature_layers
        self.truncation, self.scale, self.clamp = lean.truncation, lean.scale, lean.layers[-1].clamp
        self.register_buffer("w_avg", lean.w_avg)
        self.table = nn.ParameterDict({_key(name): tensor for name, tensor in tensors.items()})
        for name, parameter in self.table.items():  # buffers there
            fixed = ("filter", "geometry", "ema", "freqs", "phases", "transform", "scale", "clamp", "avg")
            parameter.requires_grad_(not name.endswith(fixed))
        self.n_mlp = sum(name.startswith("mapping.fc") for name in tensors) // 2
        self.eval()

    def encode(self, z: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Map z [N, D] to w [N, D]."""
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPS)
        for i in range(self.n_mlp):
            weight, bias = self._get(f"mapping.fc{i}.weight"), self._get(f"mapping.fc{i}.bias")
            x = F.linear(x, weight * (LEARNING_RATE / math.sqrt(weight.shape[1])))
            x = F.leaky_relu(x + bias * LEARNING_RATE, SLOPE) * math.sqrt(2)
        return x

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Return images [N, 3, H, W] from ps [N, L, D], truncated after the edit."""
        average = self.get_buffer("w_avg")
        return self._run(average + self.truncation * (ps - average), len(self.layer_names)) * self.scale

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Return the output [N, C, h, w] of `layer` for untruncated ps [N, L, D]."""
        return self._run(ps, self.feature_layers.index(self.check_layer(layer)))

    def inputs_reaching(self, layer: str) -> int:
        """Return L: nothing here depends on it."""
        return self.latent.layers

    def _run(self, ws: Tensor, count: int) -> Tensor:
        x = self._input(ws[:, 0])  # [N, C, h, w]
        for i, name in enumerate(self.layer_names[:count]):
            x = self._layer(x, ws[:, i + 1], f"synthesis.{name}", rgb=i + 1 == len(self.layer_names))
        return x

    def _input(self, w: Tensor) -> Tensor:
        size, rate, band = self._get("synthesis.input.geometry").tolist()
        t = self._affine(w, "synthesis.input")  # [N, 4]
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        zero, one = torch.zeros_like(t[:, 0]), torch.ones_like(t[:, 0])
        turn = torch.stack([t[:, 0], -t[:, 1], zero, t[:, 1], t[:, 0], zero, zero, zero, one], 1).view(-1, 3, 3)
        shift = torch.stack([one, zero, -t[:, 2], zero, one, -t[:, 3], zero, zero, one], 1).view(-1, 3, 3)
        moved = turn @ shift  # [N, 3, 3]
        freqs, phases = self._get("synthesis.input.freqs"), self._get("synthesis.input.phases")
        phases = phases + (freqs @ moved[:, :2, 2:]).squeeze(2)  # [N, C]
        freqs = freqs @ moved[:, :2, :2]  # [N, C, 2]
        amplitudes = (1 - (freqs.norm(dim=2) - band) / (rate / 2 - band)).clamp(0, 1)
        axis = (torch.arange(int(size), device=w.device) * 2 + 1 - size) / (2 * rate)  # [H]
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2)  # [H, W, 2]
        waves = grid.flatten(0, 1) @ freqs.transpose(1, 2) + phases[:, None]  # [N, H * W, C]
        waves = torch.sin(waves * (2 * math.pi)) * amplitudes[:, None]
        weight = self._get("synthesis.input.weight")
        x = waves @ (weight / math.sqrt(len(weight))).T  # [N, H * W, C]
        return x.transpose(1, 2).unflatten(2, (int(size), int(size)))

    def _layer(self, x: Tensor, w: Tensor, key: str, rgb: bool) -> Tensor:
        weight, s = self._get(f"{key}.weight"), self._affine(w, key)  # [O, I, k, k], [N, I]
        outputs, inputs, k, _ = weight.shape
        if rgb:
            s = s / math.sqrt(inputs * k * k)
        else:
            weight = weight * torch.rsqrt(weight.square().mean((1, 2, 3), keepdim=True))
        weight = weight * s[:, None, :, None, None]  # [N, O, I, k, k]
        if not rgb:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + EPS)
        weight = weight * torch.rsqrt(self._get(f"{key}.magnitude_ema"))
        n, _, h, width = x.shape
        x = x.reshape(1, n * inputs, h, width)  # the batch as groups
        x = F.conv2d(x, weight.reshape(n * outputs, inputs, k, k), padding=k - 1, groups=n)
        x = x.reshape(n, outputs, *x.shape[2:]) + self._get(f"{key}.bias")[:, None, None]
        up, down, low, high, _ = (int(value) for value in self._get(f"{key}.geometry").tolist())
        if rgb:
            return F.pad(x, (low, high, low, high)).clamp(-self.clamp, self.clamp)
        x = filtered(x, self._get(f"{key}.up_filter") * up, up=up, pad=(low, high))
        x = (F.leaky_relu(x, SLOPE) * math.sqrt(2)).clamp(-self.clamp, self.clamp)
        return filtered(x, self._get(f"{key}.down_filter"))[:, :, ::down, ::down]

    def _affine(self, w: Tensor, key: str) -> Tensor:
        weight = self._get(f"{key}.affine.weight")
        return F.linear(w, weight / math.sqrt(weight.shape[1]), self._get(f"{key}.affine.bias"))

    def _get(self, name: str) -> Tensor:
        tensor: Tensor = self.table[_key(name)]
        return tensor


def filtered(x: Tensor, taps: Tensor, up: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Insert zeros, pad (or cut), and filter each channel.

    Args:
        x: [N, C, h, w].
        taps: [n], along rows and then columns, or [n, n].
        up: Pixels that one becomes, each way.
        pad: Zeros before and after, each way; negative to cut.

    Returns:
        [N, C, h * up + pad - n + 1, ...].
    """
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
    x = F.pad(x, (*pad, *pad))
    if taps.ndim == 2:
        return F.conv2d(x, taps.flip(0, 1)[None, None].repeat(c, 1, 1, 1), groups=c)
    kernel = taps.flip(0)[None, None, None].repeat(c, 1, 1, 1)  # [C, 1, 1, n]
    return F.conv2d(F.conv2d(x, kernel, groups=c), kernel.transpose(2, 3), groups=c)


def load_plain_stylegan3(config: StyleGAN3Config, lean: StyleGAN3) -> PlainStyleGAN3:
    """Load the plain way with the weights that `lean` was loaded with.

    Raises:
        LatentCLRError: The weights cannot be read.
    """
    if lean.random_weights:
        return PlainStyleGAN3(lean, random_tensors(released(lean.resolution, config.configuration)))
    return PlainStyleGAN3(lean, read_tensors(Path(config.weights or "")))


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's tables take no dots in names
