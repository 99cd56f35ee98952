"""StyleGAN3, configurations T and R, in a form that trains, folds and exports.

Architecture: Karras et al., "Alias-Free Generative Adversarial Networks", arXiv 2106.12423, with NVIDIA's names of
weights. Symbols: N batch, L latent inputs, D style size, I and O channels in and out, P phases.

Three things make it lean. The modulated convolution is not fused with the batch, as in `stylegan2`. The signal between
the two filters of a filtered leaky ReLU, at twice the resolution, is never put together: of its pixels, those with even
and odd coordinates are kept apart, as P = 2 x 2 tensors at the resolution of the output, each made by an ordinary
depthwise convolution with every second tap of the filter, for neither a leaky ReLU nor the second filter cares where a
pixel stands. And channels are filled up with zeros to a multiple of 16, which is what wide vectors and the blocked
layouts of inference engines want.
"""

from __future__ import annotations

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
from latentclr.generators.stylegan2.mapping import Mapping
from latentclr.generators.stylegan3.layout import CLAMP, OUTPUT_SCALE, Design, check_layout, random_tensors
from latentclr.generators.stylegan3.weights import StyleGAN3Options, read_tensors

SLOPE = 0.2  # of the leaky ReLU, whose output is multiplied by sqrt(2): folded here, as lrelu(a * x) = a * lrelu(x)
EPS = 1e-8
VECTOR = 16  # channels are filled up to a multiple of it


class FourierInput(nn.Module):
    """w [N, D] -> waves [N, C, H, W], turned and shifted as w says, then mixed."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        weight = tensors["synthesis.input.weight"]  # [C, C]
        channels = weight.shape[0]
        size, rate, self.band = tensors["synthesis.input.geometry"].tolist()
        self.fade = rate / 2 - self.band
        affine = tensors["synthesis.input.affine.weight"]  # [4, D]
        self.affine = nn.Parameter(affine / math.sqrt(affine.shape[1]))
        self.affine_bias = nn.Parameter(tensors["synthesis.input.affine.bias"].clone())
        transform = tensors.get("synthesis.input.transform", torch.eye(3))
        self.turn, self.shift = nn.Parameter(transform[:2, :2].clone()), nn.Parameter(transform[:2, 2].clone())
        self.freqs = nn.Parameter(tensors["synthesis.input.freqs"].clone())  # [C, 2], cycles per picture
        self.phases = nn.Parameter(tensors["synthesis.input.phases"].clone())  # [C]
        self.grid = nn.Parameter((torch.arange(int(size)) * 2 + 1 - size) / (2 * rate))  # [H] = [W]
        self.weight = nn.Parameter(_padded(weight / math.sqrt(channels), 0)[:, :, None, None].contiguous())

    def forward(self, w: Tensor) -> Tensor:
        """Return [N, O, H, W]."""
        # Not F.linear, which autocast would compute with 8 bits: too few for a phase.
        t = (w[:, None] * self.affine).sum(2) + self.affine_bias  # [N, 4]: cosine, sine, and a shift
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cosine, sine = t[:, 0:1], t[:, 1:2]
        x, y = self.freqs[:, 0], self.freqs[:, 1]  # [C]
        turned = torch.stack((x * cosine + y * sine, y * cosine - x * sine), 2)  # [N, C, 2]
        phases = self.phases + (turned * (self.shift - t[:, None, 2:])).sum(2)  # [N, C]
        freqs = (turned[..., None] * self.turn).sum(2)  # [N, C, 2]
        amplitude = (1 - (freqs.norm(dim=2) - self.band) / self.fade).clamp(0, 1)[..., None]  # [N, C, 1]
        # sin(a + b) of a column's and a row's part: sines of H + W numbers rather than of H * W.
        a = 2 * math.pi * (freqs[..., 0:1] * self.grid + phases[..., None])  # [N, C, W]
        b = 2 * math.pi * freqs[..., 1:2] * self.grid  # [N, C, H]
        sine_b, cosine_b = b.sin() * amplitude, b.cos() * amplitude
        waves = a.sin()[:, :, None] * cosine_b[..., None] + a.cos()[:, :, None] * sine_b[..., None]  # [N, C, H, W]
        return F.conv2d(waves, self.weight)


class Layer(nn.Module):
    """Modulated convolution, bias, and a leaky ReLU between an up-sampling and a down-sampling filter."""

    def __init__(self, tensors: dict[str, Tensor], name: str, size: int, clamp: float | None) -> None:
        """Fold the weights of `name`, which takes pictures of `size` x `size` pixels."""
        super().__init__()
        key = f"synthesis.{name}"
        self.clamp = clamp
        up, down, low, _, self.size = (int(value) for value in tensors[f"{key}.geometry"].tolist())
        weight = tensors[f"{key}.weight"]  # [O, I, k, k]
        weight = weight * torch.rsqrt(weight.square().mean((1, 2, 3), keepdim=True))
        kernel = weight.shape[2]
        self.affine = nn.Parameter(_padded(_affine(tensors, key), 0))  # [I, D]
        self.affine_bias = nn.Parameter(_padded(tensors[f"{key}.affine.bias"], 0))  # [I]
        # The demodulation factor carries the activation's sqrt(2) and the gain of the input, rsqrt(magnitude_ema).
        energy = weight.square().sum((2, 3)) * (tensors[f"{key}.magnitude_ema"] / 2)  # [O, I]
        self.energy = nn.Parameter(_padded(energy, 0, 1))
        # As a bias, for the exporter takes so small a constant for nothing: what fills up would be divided by 0.
        self.floor = nn.Parameter(torch.full((self.energy.shape[0],), EPS))
        self.bias = nn.Parameter(_padded(tensors[f"{key}.bias"] * math.sqrt(2), 0))  # [O]
        self.weight = nn.Parameter(_padded(weight, 0, 1))

        first, offset = _phases(tensors[f"{key}.up_filter"].flip(0) * up, down, low)  # P kernels, as long as each other
        second = _split(tensors[f"{key}.down_filter"].flip(-1), down)
        channels = self.bias.shape[0]
        self.up_across = nn.ParameterList(taps.repeat(channels, 1, 1, 1) for taps in first[:, None, None, None])
        self.up_down = nn.ParameterList(taps.repeat(channels, 1, 1, 1) for taps in first[:, None, None, :, None])
        if second.ndim == 2:  # separable
            self.down_down = nn.ParameterList(taps.repeat(channels, 1, 1, 1) for taps in second[:, None, None, :, None])
            self.down_across = nn.ParameterList(taps.repeat(channels, 1, 1, 1) for taps in second[:, None, None, None])
        else:
            self.down_both = nn.ParameterList(
                taps.repeat(channels, 1, 1, 1) for row in second for taps in row[:, None, None]
            )

        # Which pixels of the convolution (as large as its zero padding lets it be) can reach the output at all. They
        # are `spread` apart on the grid of the output, with zeros between them.
        self.spread = up // down
        end = offset + self.size - 1 + second.shape[-1] - 1 + first.shape[-1]  # on that grid, past the last one
        begin_pixel = max(0, offset // self.spread)
        end_pixel = min(size + kernel - 1, (end - 1) // self.spread + 1)
        self.around_x = (kernel - 1 - begin_pixel, end_pixel - size)  # zeros before and after; to cut, where negative
        self.around_up = (begin_pixel * self.spread - offset, end - end_pixel * self.spread)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return [N, O, H, W] from x [N, I, h, w] and w [N, D]."""
        s = F.linear(w, self.affine, self.affine_bias)  # [N, I]
        d = torch.rsqrt(F.linear(s * s, self.energy, self.floor))[:, :, None, None]  # [N, O, 1, 1]
        x = x * s[:, :, None, None].to(x.dtype)
        x, edge = _around(x, self.around_x)
        x = F.conv2d(x, self.weight, padding=edge)  # [N, O, h', w']
        x = x * d.to(x.dtype) + self.bias[:, None, None].to(x.dtype)
        if self.spread > 1:
            x = _spread(x, self.spread)  # [N, O, spread * h', spread * w']
        x, edge = _around(x, self.around_up)
        groups = self.bias.shape[0]
        rows = [F.conv2d(x, taps, padding=(0, edge), groups=groups) for taps in self.up_across]
        fine = [
            [self._activated(F.conv2d(row, taps, padding=(edge, 0), groups=groups)) for row in rows]
            for taps in self.up_down
        ]  # [P][P] of [N, O, H + taps - 1, W + taps - 1]
        if hasattr(self, "down_both"):
            flat = [part for row in fine for part in row]
            return _summed(flat, self.down_both, groups)
        columns = [
            _summed(list(parts), self.down_down, groups) for parts in zip(*fine, strict=True)
        ]  # P of [.., H, ..]
        return _summed(columns, self.down_across, groups)  # [N, O, H, W]

    def _activated(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(x, SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three channels."""

    def __init__(self, tensors: dict[str, Tensor], name: str, size: int, clamp: float | None) -> None:
        super().__init__()
        key = f"synthesis.{name}"
        self.clamp = clamp
        low = int(tensors[f"{key}.geometry"][2])
        self.size = int(tensors[f"{key}.geometry"][4])
        self.around = (low, self.size - size - low)
        weight = tensors[f"{key}.weight"].flatten(1)  # [3, I]
        gain = torch.rsqrt(tensors[f"{key}.magnitude_ema"]) / math.sqrt(weight.shape[1])
        self.affine = nn.Parameter(_padded(_affine(tensors, key), 0))  # [I, D]
        self.affine_bias = nn.Parameter(_padded(tensors[f"{key}.affine.bias"], 0))  # [I]
        self.weight = nn.Parameter(_padded(weight * gain, 1))
        self.bias = nn.Parameter(tensors[f"{key}.bias"].view(3, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return [N, 3, H, W] from x [N, I, h, w] and w [N, D]."""
        s = F.linear(w, self.affine, self.affine_bias)  # [N, I]
        # Three rows of weights are cheaper to modulate than the I channels of x.
        rgb = (self.weight * s[:, None]).to(x.dtype) @ x.flatten(2) + self.bias  # [N, 3, h * w]
        rgb = rgb.unflatten(2, x.shape[2:])
        if any(self.around):
            rgb = F.pad(rgb, (*self.around, *self.around))
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


class StyleGAN3(Generator):
    """The frozen generator. Feature layers: `input`, and `L{i}` for NVIDIA's `L{i}_SIZE_CHANNELS`; the last is RGB.

    Directions live in W. L = layers + 1: code 0 turns and shifts the input, code i + 1 feeds `L{i}`.
    """

    name = "stylegan3"
    use_w = True  # as `stylegan2` says of itself
    w_avg: Tensor

    def __init__(self, tensors: dict[str, Tensor], *, truncation: float = 1.0) -> None:
        """Fold the weights.

        Args:
            tensors: Weights under NVIDIA's names, as `read_tensors` returns them.
            truncation: psi of `synthesize`; `features` never truncates.

        Raises:
            GeneratorError: Keys are missing or unexpected, or shapes do not fit.
        """
        super().__init__()
        tensors, names = check_layout(tensors)
        self.truncation, self.full_names = truncation, names
        depth = sum(key.startswith("mapping.fc") for key in tensors) // 2
        weights, biases = ([tensors[f"mapping.fc{i}.{p}"] for i in range(depth)] for p in ("weight", "bias"))
        embed = None
        if "mapping.embed.weight" in tensors:
            embed = tensors["mapping.embed.weight"], tensors["mapping.embed.bias"]
        self.mapping = Mapping(weights, biases, embed)
        clamp = float(tensors.get("synthesis.conv_clamp", torch.tensor(CLAMP)))
        self.scale = float(tensors.get("synthesis.output_scale", torch.tensor(OUTPUT_SCALE)))
        self.input = FourierInput(tensors)
        self.layers, self.channels = nn.ModuleList(), [self.input.freqs.shape[0]]
        size = self.input.grid.shape[0]
        for i, name in enumerate(names):
            kind = ToRGB if i + 1 == len(names) else Layer
            layer = kind(tensors, name, size, clamp if math.isfinite(clamp) else None)
            self.layers.append(layer)
            self.channels.append(tensors[f"synthesis.{name}.weight"].shape[0])
            size = layer.size
        self.resolution = size
        dim = tensors["synthesis.input.affine.weight"].shape[1]
        self.latent = LatentSpec(dim=dim, layers=1 + len(names), sampler="standard_normal")
        self.feature_layers = ("input", *(f"L{i}" for i in range(len(names))))
        if self.mapping.classes:
            self.class_names = numbered_classes(self.mapping.classes)
            self.class_ids = chosen_classes(None, self.mapping.classes)
        average = tensors["mapping.w_avg"] if "mapping.w_avg" in tensors else self.mapping.average()
        self.register_buffer("w_avg", average.clone())  # [D]
        self.freeze()

    def encode(self, z: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Map z [N, D], and class_id [N] of a class-conditional network, to w [N, D]."""
        w: Tensor = self.mapping(z, class_id)
        return w

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Generate images [N, 3, H, W], not clamped, from ps [N, L, D], truncated after the edit."""
        if self.truncation != 1:
            ps = self.w_avg + self.truncation * (ps - self.w_avg)  # [N, L, D]
        return self._run(ps, len(self.layers)) * self.scale

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Return the output [N, C, h, w] of `layer` for untruncated ps [N, L, D]."""
        count = self.feature_layers.index(self.check_layer(layer))
        return self._run(ps, count)[:, : self.channels[count]]

    def inputs_reaching(self, layer: str) -> int:
        """Return 1 for the input, and one more for every layer up to and including `layer`."""
        return self.feature_layers.index(self.check_layer(layer)) + 1

    def first_weights(self, inputs: Sequence[int]) -> Tensor:
        """Return the affine maps [R, D] from w to the input's turn and shift (input 0) and to styles (input i)."""
        layers: list[Any] = [self.input, *self.layers]  # L
        widths = [4, *self.channels]  # without those that fill up
        return torch.cat([layers[i].affine[: widths[i]] for i in inputs])

    def _run(self, ws: Tensor, count: int) -> Tensor:
        # The input and the first `count` layers.
        x: Tensor = self.input(ws[:, 0])  # [N, C, h, w]
        for i, layer in enumerate(self.layers[:count]):
            x = layer(x, ws[:, i + 1])  # [N, C', h', w']
        return x


def load_stylegan3(config: StyleGAN3Options) -> StyleGAN3:
    """Load a StyleGAN3.

    Args:
        config: `weights` is a file (NVIDIA's `.pkl`, `.safetensors` or plain tensors under NVIDIA's names), `random`
            for seeded noise at 256 pixels, or `random:RESOLUTION`; noise is of the `configuration` t or r.

    Raises:
        GeneratorError: The weights are missing or unusable, or an option is out of range.
    """
    if not 0 <= config.truncation <= 1:
        raise GeneratorError(f"generator.truncation must be in [0, 1], got {config.truncation}")
    if config.weights is None:
        raise GeneratorError(
            "generator.weights must name a StyleGAN3 file, such as NVIDIA's stylegan3-t-ffhq-1024x1024.pkl; random, or"
            " random:RESOLUTION, makes noise for latency work"
        )
    kind, _, size = config.weights.partition(":")
    if kind == "random":
        if size and not (size.isdecimal() and len(size) < 6):
            raise GeneratorError(f"generator.weights=random:RESOLUTION takes a number of pixels, got {size[:50]!r}")
        design = released(int(size or 256), config.configuration)
        tensors, digest = random_tensors(design), ""
    else:
        path = Path(config.weights)
        tensors, digest = read_tensors(path), sha256_of(path)
    generator = StyleGAN3(tensors, truncation=config.truncation)
    generator.class_ids = chosen_classes(config.classes, generator.mapping.classes)
    generator.random_weights, generator.weights_sha256 = kind == "random", digest
    return generator


def released(resolution: int, configuration: str) -> Design:
    """Return the design of NVIDIA's released networks: half the channels at 256 pixels, twice as many in R.

    Raises:
        GeneratorError: There is no such configuration or resolution.
    """
    if configuration not in ("t", "r"):
        raise GeneratorError(f"generator.configuration must be t or r, got {configuration!r}")
    if resolution not in (256, 512, 1024):
        raise GeneratorError(f"StyleGAN3 resolutions are 256, 512 and 1024, got {resolution}")
    base = 16384 if resolution == 256 else 32768
    if configuration == "t":
        return Design(resolution, channel_base=base)
    return Design(resolution, channel_base=2 * base, channel_max=1024, kernel=1, radial=True)


def _affine(tensors: dict[str, Tensor], key: str) -> Tensor:
    weight = tensors[f"{key}.affine.weight"]  # [I, D]
    return weight / math.sqrt(weight.shape[1])


def _padded(tensor: Tensor, *axes: int) -> Tensor:
    """Return the tensor with zeros behind it, so that its sizes along `axes` are multiples of `VECTOR`."""
    for axis in axes:
        missing = -tensor.shape[axis] % VECTOR
        if missing:
            zeros = tensor.new_zeros([missing if i == axis else n for i, n in enumerate(tensor.shape)])
            tensor = torch.cat((tensor, zeros), axis)
    return tensor.contiguous()


def _phases(taps: Tensor, phases: int, low: int) -> tuple[Tensor, int]:
    """Split an up-sampling filter.

    Pixel m at the fine resolution is the sum over k of taps[k] * x[m + k - low], x having zeros between its pixels.

    Args:
        taps: [n], in the order in which they are multiplied.
        phases: P: pixel P * j + p is pixel j of phase p.
        low: Zeros before x at the fine resolution; negative to cut.

    Returns:
        Kernels [P, q], and where on the grid of the phases they begin for j = 0.
    """
    starts = [(low - p) % phases for p in range(phases)]  # the first tap that meets a pixel and no zero
    offsets = [(p + start - low) // phases for p, start in enumerate(starts)]
    offset = min(offsets)
    kernels = [F.pad(taps[start::phases], (at - offset, 0)) for start, at in zip(starts, offsets, strict=True)]
    length = max(len(kernel) for kernel in kernels)
    return torch.stack([F.pad(kernel, (0, length - len(kernel))) for kernel in kernels]), offset


def _split(taps: Tensor, phases: int) -> Tensor:
    """Split a down-sampling filter [n] or [n, n] into kernels [P, q] or [P, P, q, q], one for each phase."""
    q = -(-taps.shape[-1] // phases)
    missing = q * phases - taps.shape[-1]
    if taps.ndim == 1:
        return F.pad(taps, (0, missing)).view(q, phases).T.contiguous()
    square = F.pad(taps.flip(0), (0, missing, 0, missing)).view(q, phases, q, phases)
    return square.permute(1, 3, 0, 2).contiguous()


def _around(x: Tensor, edges: tuple[int, int]) -> tuple[Tensor, int]:
    """Return x with zeros around it, and how many more on each side a convolution may as well add by itself."""
    # Cut by slices, not by negative padding, which ONNX allows and ONNX Runtime gets wrong.
    begin, end = (max(0, -edge) for edge in edges)
    if begin or end:
        x = x[:, :, begin : x.shape[2] - end, begin : x.shape[3] - end]
    more = [max(0, edge) for edge in edges]
    return (x, more[0]) if more[0] == more[1] else (F.pad(x, (*more, *more)), 0)


def _spread(x: Tensor, factor: int) -> Tensor:
    """Return [N, C, factor * h, factor * w], x's pixels with zeros between them."""
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, factor - 1, 0, 0, 0, factor - 1))
    return x.reshape(n, c, h * factor, w * factor)


def _summed(parts: list[Tensor], kernels: nn.ParameterList, groups: int) -> Tensor:
    total = F.conv2d(parts[0], kernels[0], groups=groups)
    for part, kernel in zip(parts[1:], kernels[1:], strict=True):
        total = total + F.conv2d(part, kernel, groups=groups)
    return total
