"""R3GAN: residual blocks from a 4 x 4 basis up, one latent input, no style network and no normalisation.

Architecture: Huang et al., "The GAN is dead; long live the GAN! A Modern Baseline GAN", arXiv 2501.05441 (Config E).
Written from the paper, with the authors' names of weights. Symbols: N batch, D latent size, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.errors import GeneratorError
from latentclr.files import sha256_of
from latentclr.generators.base import Generator, LatentSpec
from latentclr.generators.classes import chosen_classes, numbered_classes
from latentclr.generators.r3gan.layout import check_layout, random_tensors
from latentclr.generators.weights.files import load_tensors
from latentclr.generators.weights.modules import generator_of
from latentclr.generators.weights.safe_pickle import load_pickle

SLOPE = 0.2
PUBLISHED = {64: 5, 256: 7}  # pixels of FFHQ -> stages
WIDTHS, GROUPS = (768, 768, 768, 768, 384, 192, 96), (96, 96, 96, 96, 48, 24, 12)
SUPPORTED = "R3GAN (the authors' .pkl, .safetensors or plain tensors)"


class Options(Protocol):
    """What loading an R3GAN reads of a configuration.

    Attributes:
        weights: A weights file, `random` or `random:RESOLUTION`.
        classes: Of a class-conditional network: the ids that training draws from; None for all.
    """

    weights: str | None
    classes: Any


class Basis(nn.Module):
    """z [N, D], and a class, to [N, C, 4, 4]: 16 learned pixels of each channel times one number."""

    of_class: Tensor | None

    def __init__(self, basis: Tensor, weight: Tensor, embedding: Tensor | None) -> None:
        super().__init__()
        self.basis = nn.Parameter(basis)  # [C, 4, 4]
        dim = weight.shape[1] - (0 if embedding is None else embedding.shape[0])
        self.weight = nn.Parameter(weight[:, :dim].contiguous())  # [C, D]
        # The embedding is linear, and so is what it meets: one bias for each class.
        of_class = None if embedding is None else nn.Parameter((weight[:, dim:] @ embedding).T.contiguous())
        self.register_parameter("of_class", of_class)  # [classes, C]

    def forward(self, z: Tensor, class_id: Tensor | None) -> Tensor:
        """Return [N, C, 4, 4]."""
        x = F.linear(z, self.weight)  # [N, C]
        if self.of_class is not None:
            if class_id is None:
                raise GeneratorError("r3gan is class-conditional: expected class_id [N], got none")
            x = x + F.embedding(class_id, self.of_class)
        return x[:, :, None, None] * self.basis


class Upsample(nn.Module):
    """1x1 convolution where the channels change, then twice the size."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None) -> None:
        super().__init__()
        self.register_parameter("weight", None if weight is None else nn.Parameter(weight))

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C', 2h, 2w]."""
        if self.weight is not None:
            x = F.conv2d(x, self.weight)
        # Zeros between the pixels, then [1, 3, 3, 1] / 4 both ways: that is bilinear, in a frame of zeros.
        x = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2.0, mode="bilinear", align_corners=False)
        return x[:, :, 2:-2, 2:-2]


class Block(nn.Module):
    """Residual bottleneck turned inside out: 1x1 to more channels, grouped 3x3, 1x1 back; no bias at the end."""

    def __init__(self, tensors: dict[str, Tensor], name: str) -> None:
        super().__init__()
        self.weights = nn.ParameterList(tensors[f"{name}.LinearLayer{i}.Layer.weight"] for i in (1, 2, 3))
        self.biases = nn.ParameterList(tensors[f"{name}.NonLinearity{i}.Bias"] for i in (1, 2))
        self.groups = self.weights[1].shape[0] // self.weights[1].shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Return x's shape [N, C, h, w]."""
        h = F.leaky_relu(F.conv2d(x, self.weights[0], self.biases[0]), SLOPE)
        padding = self.weights[1].shape[2] // 2
        h = F.leaky_relu(F.conv2d(h, self.weights[1], self.biases[1], padding=padding, groups=self.groups), SLOPE)
        return x + F.conv2d(h, self.weights[2])


class R3GAN(Generator):
    """The frozen generator. Feature layers: the authors' `MainLayers.S.Layers.B`; L = 1."""

    name = "r3gan"

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        """Fold the weights.

        Args:
            tensors: Weights under the authors' names, with or without `Model.` before them.

        Raises:
            GeneratorError: Keys are missing or unexpected, or shapes do not fit.
        """
        super().__init__()
        tensors, blocks = check_layout(tensors)
        first = "MainLayers.0.Layers.0"
        embedding = tensors.get("EmbeddingLayer.weight")  # [E, classes]
        self.basis = Basis(tensors[f"{first}.Basis"], tensors[f"{first}.LinearLayer.weight"], embedding)
        self.layers, names = nn.ModuleList(), [first]
        for s, count in enumerate(blocks):
            if s:
                names.append(f"MainLayers.{s}.Layers.0")
                self.layers.append(Upsample(tensors.get(f"{names[-1]}.LinearLayer.Layer.weight")))
            for b in range(1, count + 1):
                names.append(f"MainLayers.{s}.Layers.{b}")
                self.layers.append(Block(tensors, names[-1]))
        self.to_rgb = nn.Parameter(tensors["AggregationLayer.Layer.weight"])  # [3, C, 1, 1]
        self.latent = LatentSpec(dim=self.basis.weight.shape[1], layers=1, sampler="standard_normal")
        self.resolution = 4 * 2 ** (len(blocks) - 1)
        self.feature_layers = tuple(names)
        if embedding is not None:
            self.class_names = numbered_classes(embedding.shape[1])
            self.class_ids = chosen_classes(None, embedding.shape[1])
        self.freeze()

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Generate images [N, 3, H, W], not clamped, from ps [N, 1, D] and class_id [N]."""
        return F.conv2d(self._run(ps, class_id, len(self.layers)), self.to_rgb)

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Return the output [N, C, h, w] of `layer` for ps [N, 1, D] and class_id [N]."""
        return self._run(ps, class_id, self.feature_layers.index(self.check_layer(layer)))

    def inputs_reaching(self, layer: str) -> int:
        """Return 1: the one latent input reaches every layer."""
        self.check_layer(layer)
        return 1

    def first_weights(self, inputs: Sequence[int]) -> Tensor:
        """Return the map [C, D] from the code to the strengths of the basis."""
        return self.basis.weight

    def _run(self, ps: Tensor, class_id: Tensor | None, count: int) -> Tensor:
        x: Tensor = self.basis(ps[:, 0], class_id)  # [N, C, 4, 4]
        for layer in self.layers[:count]:
            x = layer(x)  # [N, C', h, w]
        return x


def load_r3gan(config: Options) -> R3GAN:
    """Load an R3GAN.

    Args:
        config: `weights` is a file (the authors' `.pkl`, `.safetensors` or plain tensors), `random` for seeded noise
            in the shape of the published FFHQ network of 64 pixels, or `random:256` for the larger one.

    Raises:
        GeneratorError: The weights are missing or unusable, or an option is out of range.
    """
    if config.weights is None:
        raise GeneratorError(
            "generator.weights must name an R3GAN file, such as the authors' ffhq-256x256.pkl; random, or random:256,"
            " makes noise for latency work"
        )
    kind, _, size = config.weights.partition(":")
    if kind == "random":
        if (size or "64") not in map(str, PUBLISHED):
            raise GeneratorError(f"generator.weights=random:RESOLUTION takes 64 or 256, got {size[:50]!r}")
        stages = PUBLISHED[int(size or 64)]
        tensors, digest = random_tensors(WIDTHS[:stages], GROUPS[:stages]), ""
    else:
        path = Path(config.weights)
        tensors, digest = read_tensors(path), sha256_of(path)
    generator = R3GAN(tensors)
    generator.class_ids = chosen_classes(config.classes, len(generator.class_names or ()))
    generator.random_weights, generator.weights_sha256 = kind == "random", digest
    return generator


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a weights file as name -> tensor under the authors' names; what a file contains is never run.

    Raises:
        GeneratorError: The file is missing, damaged, asks to run code or is no R3GAN.
    """
    if path.suffix not in (".pkl", ".pickle"):
        return load_tensors(path)
    tree = generator_of(load_pickle(path), path)
    tree.check_family("r3gan", SUPPORTED, path)
    return {name: stored.read() for name, stored in tree.tensors.items()}
