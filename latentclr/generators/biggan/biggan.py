"""BigGAN-deep, class-conditional ImageNet images of 128, 256 or 512 pixels, from DeepMind's published weights.

Architecture: Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", arXiv 1809.11096,
appendix B (BigGAN-deep), with the names and numerics of the `pytorch_pretrained_biggan` package.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.errors import GeneratorError
from latentclr.files import sha256_of
from latentclr.generators.base import Generator, LatentSpec
from latentclr.generators.biggan.imagenet import CLASSES, class_names, resolve_classes
from latentclr.generators.biggan.spec import BigGANSpec, find_weights, spec_for
from latentclr.generators.biggan.tensors import WeightTable, attention_shapes, convolution_shapes, random_tensors
from latentclr.generators.weights.download import fetch, weights_named
from latentclr.generators.weights.files import load_tensors

logger = logging.getLogger(__name__)

GEN_Z = "generator.gen_z"
RANDOM = "random"


class BigGAN(Generator):
    """BigGAN-deep for one truncation, with spectral norm, batch-norm statistics and unused channels folded away.

    L = 1 + number of GenBlocks: code 0 feeds `generator.gen_z`, code i the i-th GenBlock; self-attention takes none.
    Feature layers are `generator.gen_z` and `generator.layers.I`, as the package numbers them.
    """

    name = "biggan"

    def __init__(self, spec: BigGANSpec, tensors: dict[str, Tensor], truncation: float) -> None:
        """Fold the weights.

        Args:
            spec: The shape of the model.
            tensors: The package's state dict. Its tensors are taken out as they are folded, to save memory.
            truncation: In (0, 1]; chooses the batch-norm statistics, and scales z as it is drawn.

        Raises:
            GeneratorError: A tensor is missing or of a wrong shape, or the truncation out of range.
        """
        super().__init__()
        table = WeightTable(spec, tensors, truncation)
        width, condition = spec.channel_width, spec.condition_dim
        self.embeddings = _frozen(table.take("embeddings.weight", spec.class_embed_dim, spec.num_classes).T)
        # gen_z's rows are (height, width, channel); permuted to (channel, height, width) once, and not its output.
        rows = 4 * 4 * 16 * width
        weight, bias = table.spectral(GEN_Z, rows, condition), table.take(f"{GEN_Z}.bias", rows)
        self.gen_z = _frozen(weight.view(4, 4, 16 * width, condition).permute(2, 0, 1, 3).flatten(0, 2))
        self.gen_z_bias = _frozen(bias.view(4, 4, 16 * width).permute(2, 0, 1).flatten())
        self.first_shape = (16 * width, 4, 4)
        self.layers = nn.ModuleList()
        for name, block in spec.layer_names():
            if block is None:
                channels = spec.layers[spec.attention_layer_position][1] * width
                self.layers.append(SelfAttention(table, name, channels))
            else:
                self.layers.append(GenBlock(table, name, block, condition))
        mean, inverse = table.statistics("generator.bn", width)
        self.gain = _frozen((inverse * table.take("generator.bn.weight", width))[:, None, None])
        self.shift = _frozen(table.take("generator.bn.bias", width)[:, None, None] - mean[:, None, None] * self.gain)
        # The package computes channel_width channels and shows three.
        self.to_rgb = _frozen(table.spectral("generator.conv_to_rgb", width, width, 3, 3)[:3])
        self.to_rgb_bias = _frozen(table.take("generator.conv_to_rgb.bias", width)[:3])

        if tensors:
            logger.warning("ignored tensors that BigGAN-deep does not have: %s", ", ".join(sorted(tensors)[:5]))

        self.spec, self.truncation = spec, truncation
        blocks = sum(isinstance(layer, GenBlock) for layer in self.layers)
        self.latent = LatentSpec(spec.z_dim, 1 + blocks, sampler="truncated_normal", truncation=truncation)
        self.resolution = spec.output_dim
        self.class_names = class_names() if spec.num_classes == CLASSES else tuple(map(str, range(spec.num_classes)))
        self.class_ids = (0,)
        self.feature_layers = (GEN_Z, *(f"generator.layers.{i}" for i in range(len(self.layers))))
        self.freeze()

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Generate images.

        Args:
            ps: [N, L, D] codes as drawn, that is with truncation already multiplied in.
            class_id: [N] int64 in [0, num_classes).

        Returns:
            [N, 3, H, W] in [-1, 1].
        """
        x = self._run(ps, class_id, len(self.layers))  # [N, C, H, W]
        x = torch.relu(x * self.gain + self.shift)  # [N, C, H, W]
        return torch.tanh(F.conv2d(x, self.to_rgb, self.to_rgb_bias, padding=1))  # [N, 3, H, W]

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Return the output [N, C, h, w] of `layer` for ps [N, L, D] and class_id [N]; gen_z's is [N, C, 4, 4]."""
        return self._run(ps, class_id, self.feature_layers.index(self.check_layer(layer)))

    def inputs_reaching(self, layer: str) -> int:
        """Return 1 for gen_z, and one more for every GenBlock up to and including `layer`."""
        count = self.feature_layers.index(self.check_layer(layer))
        return 1 + sum(isinstance(module, GenBlock) for module in self.layers[:count])

    def first_weights(self, inputs: Sequence[int]) -> Tensor:
        """Return the code's part of gen_z (input 0) and of a block's conditional batch norms (input i) [R, D]."""
        blocks = [layer for layer in self.layers if isinstance(layer, GenBlock)]
        maps = [self.gen_z if i == 0 else blocks[i - 1].norm_weights() for i in inputs]
        return torch.cat([rows[:, : self.latent.dim] for rows in maps])

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint or manifest records: the base's, and the truncation."""
        return {**super().describe(), "truncation": self.truncation}

    def _run(self, ps: Tensor, class_id: Tensor | None, count: int) -> Tensor:
        # gen_z and the first `count` layers.
        if class_id is None:
            raise GeneratorError("biggan is class-conditional: expected class_id [N], got none")
        embedded = F.embedding(class_id, self.embeddings)[:, None].expand(-1, ps.shape[1], -1)  # [N, L, E]
        condition = torch.cat((ps, embedded), dim=2)  # [N, L, D + E]
        x: Tensor = F.linear(condition[:, 0], self.gen_z, self.gen_z_bias)
        x = x.unflatten(1, self.first_shape)  # [N, C, 4, 4]
        fed = 0
        for layer in self.layers[:count]:
            if isinstance(layer, GenBlock):
                fed += 1
                x = layer(x, condition[:, fed])  # [N, C', h', w']
            else:
                x = layer(x)  # [N, C, h, w]
        return x


class GenBlock(nn.Module):
    """A bottleneck of 1x1, 3x3, 3x3, 1x1 convolutions, each after a conditional batch norm and ReLU, plus a shortcut.

    A conditional batch norm is an affine map of its input whose scale and offset are affine in the condition: the
    offset and scale of all four come from one matrix product, with statistics and the biases of the convolutions
    before them folded in.
    """

    def __init__(self, table: WeightTable, name: str, block: tuple[bool, int, int], condition: int) -> None:
        """Fold the tensors under `name`; `block` is (upsample, input channels, output channels)."""
        super().__init__()
        self.upsample, inputs, self.outputs = block
        self.weights, products, offsets = nn.ParameterList(), [], []
        self.sizes: list[int] = []
        bias = torch.zeros(inputs)
        for i, shape in enumerate(convolution_shapes(block)):
            channels = shape[1]
            mean, inverse = table.statistics(f"{name}.bn_{i}", channels)
            scale = table.spectral(f"{name}.bn_{i}.scale", channels, condition) * inverse[:, None]
            offset = table.spectral(f"{name}.bn_{i}.offset", channels, condition)
            shift = bias - mean
            products += [scale, offset + shift[:, None] * scale]
            offsets += [inverse, shift * inverse]
            self.sizes += [channels, channels]
            self.weights.append(_frozen(table.spectral(f"{name}.conv_{i}", *shape)))
            bias = table.take(f"{name}.conv_{i}.bias", shape[0])
        self.modulation, self.modulation_bias = _frozen(torch.cat(products)), _frozen(torch.cat(offsets))
        self.bias = _frozen(bias)

    def norm_weights(self) -> Tensor:
        """Return scale and offset of the conditional batch norms [R, D + E] without statistics and biases.

        Of an offset that is o + shift * s, with s the scale before it and the same sum of both biases, o is left.
        """
        rows = self.modulation.split(self.sizes)
        factors = self.modulation_bias.split(self.sizes)
        raw: list[Tensor] = []
        for scale, offset, inverse, shift in zip(rows[::2], rows[1::2], factors[::2], factors[1::2], strict=True):
            raw += [scale, offset - (shift / inverse)[:, None] * scale]
        return torch.cat(raw)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map x [N, C, h, w] and condition [N, D + E] to [N, C', h', w'], twice as large where the block upsamples."""
        affine = F.linear(condition, self.modulation, self.modulation_bias)[:, :, None, None]  # [N, sum of sizes, 1, 1]
        s0, o0, s1, o1, s2, o2, s3, o3 = affine.split(self.sizes, dim=1)  # [N, C, 1, 1] or [N, C / 4, 1, 1]
        h = F.conv2d(torch.relu(x * s0 + o0), self.weights[0])  # [N, C / 4, h, w]
        h = torch.relu(h * s1 + o1)
        shortcut = x[:, : self.outputs]  # [N, C', h, w]
        if self.upsample:
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")  # [N, C / 4, 2h, 2w]
            shortcut = F.interpolate(shortcut, scale_factor=2.0, mode="nearest")  # [N, C', 2h, 2w]
        h = F.conv2d(h, self.weights[1], padding=1)  # [N, C / 4, h', w']
        h = F.conv2d(torch.relu(h * s2 + o2), self.weights[2], padding=1)
        return shortcut + F.conv2d(torch.relu(h * s3 + o3), self.weights[3], self.bias)  # [N, C', h', w']


class SelfAttention(nn.Module):
    """Every pixel looks at every pixel of a half-size map (Zhang et al., arXiv 1805.08318)."""

    def __init__(self, table: WeightTable, name: str, channels: int) -> None:
        """Fold the tensors under `name`."""
        super().__init__()
        shapes = attention_shapes(channels)
        theta, phi, g, out = (table.spectral(f"{name}.snconv1x1_{part}", *shape) for part, shape in shapes.items())
        self.query = _frozen(theta)
        self.key_value = _frozen(torch.cat((phi, g)))
        self.out = _frozen(out * table.take(f"{name}.gamma", 1))
        self.sizes = [phi.shape[0], g.shape[0]]

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, C, h, w] to the same shape."""
        query = F.conv2d(x, self.query).flatten(2)  # [N, C / 8, h * w]
        pooled = F.max_pool2d(F.conv2d(x, self.key_value), 2).flatten(2)  # [N, C / 8 + C / 2, h * w / 4]
        key, value = pooled.split(self.sizes, dim=1)
        attention = torch.softmax(query.transpose(1, 2) @ key, dim=2)  # [N, h * w, h * w / 4]
        looked = (value @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])  # [N, C / 2, h, w]
        return x + F.conv2d(looked, self.out)


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous(), requires_grad=False)


def load_biggan(
    weights: str | None = None,
    resolution: int = 256,
    truncation: float = 0.4,
    class_name: int | str | Sequence[int | str] = "husky",
) -> BigGAN:
    """Load a BigGAN-deep.

    Args:
        weights: None for the published weights, from the cache or else downloaded; `random` for seeded random weights
            of full size; or a folder (`config.json` with `pytorch_model.bin` or `model.safetensors`) or a weights file.
        resolution: 128, 256 or 512; a `config.json` has the last word.
        truncation: In (0, 1].
        class_name: The class or classes to draw from in training: names, ids or synsets.

    Raises:
        GeneratorError: The weights are missing, damaged or something else, or a class does not exist.
    """
    if weights == RANDOM:
        spec = spec_for(resolution)
        generator = BigGAN(spec, random_tensors(spec), truncation)
        generator.random_weights = True
    else:
        spec_for(resolution)
        folder = Path(weights).expanduser() if weights else fetch(weights_named(f"biggan-deep-{resolution}"))
        path, spec = find_weights(folder, resolution)
        generator = BigGAN(spec, load_tensors(path), truncation)
        generator.weights_sha256 = sha256_of(path)
    generator.class_ids = _resolve(class_name, spec.num_classes)
    return generator


def _resolve(classes: int | str | Sequence[int | str], num_classes: int) -> tuple[int, ...]:
    ids = resolve_classes(classes)
    outside = [i for i in ids if i >= num_classes]
    if outside:
        raise GeneratorError(f"generator.class_name: this model has classes [0, {num_classes}), got {outside[0]}")
    return ids
