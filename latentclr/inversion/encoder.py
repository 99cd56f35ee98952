"""The encoder: a picture in, a code of the generator out.

A residual network over a picture of the generator's own size. It knows the prior of the codes (mean and standard
deviation of each number) and tells how far the picture's code is from its mean, so that an untrained one already
answers with a code that the generator knows. For `w+` it tells one w and, for each latent input, an offset from it
(e4e, arXiv 2102.02766, section 4.1), since codes near one w are those that stay editable.

RUN/encoder.safetensors holds it, with what made it in the header.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.errors import CheckpointError, first_reason
from latentclr.generators.base import Generator
from latentclr.plain_load import read_safetensors
from latentclr.plain_save import save_safetensors
from latentclr.training.finite import all_finite, tensors_in
from serving.contract.documents import read_json
from serving.contract.manifest import LATENT_INPUTS

ENCODER_FILE = "encoder.safetensors"
FORMAT = 1
_LARGEST_SIDE = 256  # a larger picture is averaged down to at most this before the first convolution
_SMALLEST_SIDE = 4  # of the last feature map
_MOST, _MOST_WIDTH, _MOST_STAGES = 1_000_000, 1024, 8


@dataclass(frozen=True)
class EncoderSpec:
    """The shape of an encoder.

    Attributes:
        space: `z`, `w` or `w+`: what it answers with.
        dim: D.
        layers: L, the generator's latent inputs.
        height: H of a picture in pixels.
        width: W of it.
        channels: Of the first convolution; each stage has twice as many as the one before, at most eight times these.
    """

    space: str
    dim: int
    layers: int
    height: int
    width: int
    channels: int = 32

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one code: [D], or [L, D] for `w+`."""
        return (self.layers, self.dim) if self.space == "w+" else (self.dim,)

    @property
    def shrink(self) -> int:
        """How many pixels a side are averaged into one before the first convolution."""
        return -(-max(self.height, self.width) // _LARGEST_SIDE)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width after the first convolution, which halves them."""
        height, width = (-(-(side // self.shrink) // 2) for side in (self.height, self.width))
        return height, width

    @property
    def stages(self) -> int:
        """How often a picture is halved after that, until its shorter side is 4 pixels."""
        side, stages = min(self.sides), 0
        while side >= 2 * _SMALLEST_SIDE and stages < _MOST_STAGES:
            side, stages = -(-side // 2), stages + 1
        return stages


class Encoder(nn.Module):
    """Pictures [N, H, W, 3] uint8 -> codes, [N, D] or [N, L, D] for `w+`.

    Attributes:
        spec: Its shape.
    """

    def __init__(self, spec: EncoderSpec, rng: torch.Generator | None = None) -> None:
        """Make one that answers with the prior's mean, and whose weights come from `rng`."""
        super().__init__()
        self.spec = spec
        widths = [min(spec.channels << stage, 8 * spec.channels) for stage in range(spec.stages + 1)]
        self.stem = nn.Conv2d(3, widths[0], 5, stride=2, padding=2)
        self.blocks = nn.Sequential(*(_Block(a, b) for a, b in itertools.pairwise(widths)))
        height, width = spec.sides
        for _ in range(spec.stages):
            height, width = -(-height // 2), -(-width // 2)
        features = 8 * spec.channels
        self.gather = nn.Linear(widths[-1] * height * width, features)
        self.base = nn.Linear(features, spec.dim)
        self.offsets = nn.Linear(features, spec.layers * spec.dim) if spec.space == "w+" else None
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(spec.dim))
        self.register_buffer("scale", torch.ones(spec.dim))
        self._draw(rng or torch.Generator().manual_seed(0))

    def forward(self, picture: Tensor) -> Tensor:
        """Find the codes of pictures.

        Args:
            picture: [N, H, W, 3] uint8 RGB.

        Returns:
            [N, D], or [N, L, D] for `w+`, float32.
        """
        return self.encode(picture.permute(0, 3, 1, 2).float() / 127.5 - 1.0)

    def encode(self, images: Tensor) -> Tensor:
        """Do the same for images [N, 3, H, W] in [-1, 1], with gradients."""
        base, offsets = self.whitened(images)
        code = base if offsets is None else base[:, None] + offsets  # [N, D] or [N, L, D]
        return self.mean + self.scale * code

    def whitened(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return base [N, D] and, for `w+`, offsets [N, L, D], in standard deviations of the prior."""
        if self.spec.shrink > 1:
            images = F.avg_pool2d(images, self.spec.shrink)
        h = self.blocks(self.stem(images))
        h = F.leaky_relu(self.gather(h.flatten(1)), 0.2)  # [N, F]
        offsets = None if self.offsets is None else self.offsets(h).unflatten(1, (self.spec.layers, self.spec.dim))
        return self.base(h), offsets

    def set_prior(self, codes: Tensor) -> None:
        """Take mean and standard deviation of the prior from codes [C, D]."""
        self.mean.copy_(codes.mean(0))
        self.scale.copy_(codes.std(0).clamp_min(1e-6))

    def _draw(self, rng: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                with torch.no_grad():
                    module.weight.copy_(torch.randn(module.weight.shape, generator=rng) * (2 / fan_in) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.base.weight)
        if self.offsets is not None:
            nn.init.zeros_(self.offsets.weight)


class _Block(nn.Module):
    """Halve a feature map: two convolutions with batch norm, beside an averaged shortcut (arXiv 1512.03385)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, padding=1, stride=2, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(after), nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.skip = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, before, h, w] to [N, after, ceil(h / 2), ceil(w / 2)]."""
        h = self.conv1(F.leaky_relu(self.norm1(x), 0.2))
        h = self.conv2(F.leaky_relu(self.norm2(h), 0.2))
        return torch.as_tensor(h + self.skip(F.avg_pool2d(x, 2, ceil_mode=True)))


@dataclass(frozen=True)
class SavedEncoder:
    """An encoder as its file has it.

    Attributes:
        encoder: In inference mode.
        generator: What `Generator.describe` said when it was trained.
        face: Where a face's five points lie in the generator's pictures, [5, 2] in [0, 1]; None if they show none.
        training: Steps, seconds, seed and settings.
        figures: What it reached on held-out codes, by name.
        path: The file.
        sha256: Of the bytes that were read, whatever stands at `path` by now; empty of one that was not read.
    """

    encoder: Encoder
    generator: Mapping[str, Any]
    face: tuple[tuple[float, float], ...] | None
    training: Mapping[str, Any]
    figures: Mapping[str, float]
    path: Path
    sha256: str = ""

    def check_generator(self, generator: Generator) -> None:
        """Do nothing if this encoder is of a generator.

        Raises:
            CheckpointError: It is of another one, or of other weights.
        """
        theirs, ours = self.generator.get("weights_sha256"), generator.weights_sha256
        if theirs != ours:
            raise CheckpointError(
                f"{self.path} is of another generator ({self.generator.get('name')}, weights {str(theirs)[:12]}), "
                f"expected {generator.name}, weights {ours[:12]}: run `latentclr invert train`"
            )
        spec = self.encoder.spec
        got = (spec.dim, spec.layers, spec.height, spec.width)
        wanted = (generator.latent.dim, generator.latent.layers, *generator.size)
        if got != wanted:
            raise CheckpointError(f"{self.path} is for D, L, H, W = {got}, expected {wanted}")


def save_encoder(path: Path, saved: SavedEncoder) -> None:
    """Write an encoder, whole or not at all.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "kind": "encoder",
        "spec": asdict(saved.encoder.spec),
        "generator": dict(saved.generator),
        "face": saved.face,
        "training": dict(saved.training),
        "figures": dict(saved.figures),
    }
    save_safetensors(path, saved.encoder.state_dict(), {"latentclr": json.dumps(metadata)})


def load_encoder(path: Path) -> SavedEncoder:
    """Read an encoder.

    Raises:
        CheckpointError: The file is missing, truncated, no encoder, or its tensors do not fit its header.
    """
    if not path.is_file():
        raise CheckpointError(f"no encoder at {path}: run `latentclr invert train`")
    try:
        tensors, metadata, digest = read_safetensors(path)
        meta = read_json(metadata.get("latentclr", "null"))
        if not isinstance(meta, dict) or meta.get("format") != FORMAT or meta.get("kind") != "encoder":
            raise CheckpointError(f"{path} is not an encoder of format {FORMAT}")
    except ValueError as error:
        raise CheckpointError(f"{path} is not a whole encoder: {error}") from None
    try:
        spec = _spec(meta["spec"])
        # Before anything is allocated: the header's sizes must be those of tensors that are in the file.
        rows, shape = tensors["base.weight"].shape, tensors["stem.weight"].shape
        if tuple(rows) != (spec.dim, 8 * spec.channels) or tuple(shape) != (spec.channels, 3, 5, 5):
            raise ValueError(f"its header tells of {spec.dim} numbers and {spec.channels} channels")
        if spec.space == "w+" and len(tensors["offsets.weight"]) != spec.layers * spec.dim:
            raise ValueError(f"its header tells of {spec.layers} latent inputs")
        with torch.device("meta"):
            wanted = {name: tensor.shape for name, tensor in Encoder(spec).state_dict().items()}
        found = {name: tensor.shape for name, tensor in tensors.items()}
        if wanted != found:
            raise ValueError("its tensors are not those of its header")
        if not all_finite(tensors_in(tensors)):
            raise ValueError("it holds numbers that are not finite")
        encoder = Encoder(spec)
        encoder.load_state_dict(tensors)
        generator, training, figures = (dict(meta[key]) for key in ("generator", "training", "figures"))
        return SavedEncoder(encoder.eval().requires_grad_(False), generator, _face(meta["face"]), training,
                            {name: float(value) for name, value in figures.items()}, path, digest)  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: weights and header do not fit: {first_reason(error)}") from None


def _spec(raw: Mapping[str, Any]) -> EncoderSpec:
    spec = EncoderSpec(**raw)
    if spec.space not in LATENT_INPUTS:
        raise ValueError(f"space must be one of {', '.join(LATENT_INPUTS)}, got {str(spec.space)[:40]!r}")
    for key in ("dim", "layers", "height", "width", "channels"):
        value, most = getattr(spec, key), _MOST_WIDTH if key == "channels" else _MOST
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{key} must be in [1, {most}], got {str(value)[:40]}")
    return spec


def _face(raw: Any) -> tuple[tuple[float, float], ...] | None:
    if raw is None:
        return None
    points = tuple((float(x), float(y)) for x, y in raw)
    if len(points) != 5 or not all(-1 <= value <= 2 for point in points for value in point):
        raise ValueError("face must be five points of the picture")
    return points
