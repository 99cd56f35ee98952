"""BigGAN-deep's configuration, in the form of the `pytorch_pretrained_biggan` package, and where its files lie.

A folder holds `config.json` beside `pytorch_model.bin`, or a `model.safetensors` with the same names.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentclr.errors import GeneratorError, nearest
from serving.contract.documents import read_json_file

# (upsample, input channels, output channels) of each GenBlock, channels in units of channel_width.
_HEAD = ((False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8))
_TAIL = ((True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1))
LAYERS = {
    128: _HEAD + _TAIL,
    256: (*_HEAD, (True, 8, 8), (False, 8, 8), *_TAIL),
    512: (*_HEAD, (True, 8, 8), (False, 8, 8), *_TAIL, (False, 1, 1), (True, 1, 1)),
}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class BigGANSpec:
    """The package's `config.json`; the defaults are those of all three published models.

    Attributes:
        output_dim: Height and width of the image in pixels.
        layers: (upsample, input channels, output channels) of each GenBlock, channels in units of `channel_width`.
        attention_layer_position: Index in the chain of GenBlocks before which self-attention stands.
        eps: Added to the batch norms' variances.
        n_stats: Number of truncations in [0, 1], evenly spaced, for which batch-norm statistics are stored.
    """

    output_dim: int
    layers: tuple[tuple[bool, int, int], ...]
    z_dim: int = 128
    class_embed_dim: int = 128
    channel_width: int = 128
    num_classes: int = 1000
    attention_layer_position: int = 8
    eps: float = 1e-4
    n_stats: int = 51

    def __post_init__(self) -> None:
        """Check what a file may have got wrong.

        Raises:
            GeneratorError: Sizes are not positive integers, or the blocks do not fit together.
        """
        sizes = ("output_dim", "z_dim", "class_embed_dim", "channel_width", "num_classes", "n_stats")
        for name in sizes:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 1 << 16:
                raise GeneratorError(
                    f"BigGAN config: {name} must be an integer in [1, 65536], got {reprlib.repr(value)}"
                )
        if not isinstance(self.eps, float) or not 0 < self.eps < 1 or self.n_stats < 2:
            raise GeneratorError(
                f"BigGAN config: need 0 < eps < 1 and n_stats > 1, got {reprlib.repr(self.eps)}, {self.n_stats}"
            )
        if len(self.layers) > 64:
            raise GeneratorError(f"BigGAN config: at most 64 layers, got {len(self.layers)}")
        previous = 16  # gen_z's output
        for i, layer in enumerate(self.layers):
            fits = (
                len(layer) == 3
                and [type(part) for part in layer] == [bool, int, int]
                and layer[1] == previous
                and layer[2] in (previous, previous // 2)
                and layer[2] > 0
            )
            if not fits:
                raise GeneratorError(
                    f"BigGAN config: layer {i} must be [upsample, {previous}, {previous} or {previous // 2}],"
                    f" got {reprlib.repr(list(layer))}"
                )
            previous = layer[2]
        sides = 4 * 2 ** sum(up for up, _, _ in self.layers)
        attention = type(self.attention_layer_position) is int and 0 <= self.attention_layer_position < len(self.layers)
        if previous != 1 or sides != self.output_dim or not attention:
            raise GeneratorError(
                f"BigGAN config: the layers end with {previous} x channel_width at {sides} px, expected 1 x at"
                f" {self.output_dim}, with attention before one of them, got"
                f" {reprlib.repr(self.attention_layer_position)}"
            )

    @property
    def condition_dim(self) -> int:
        """Size of the vector (code, class embedding) that conditions a block."""
        return self.z_dim + self.class_embed_dim

    def layer_names(self) -> Iterator[tuple[str, tuple[bool, int, int] | None]]:
        """Yield the package's name of each layer, and of its GenBlock the shape in channels; None for attention."""
        index = 0
        for i, (up, inputs, outputs) in enumerate(self.layers):
            if i == self.attention_layer_position:
                yield f"generator.layers.{index}", None
                index += 1
            yield f"generator.layers.{index}", (up, inputs * self.channel_width, outputs * self.channel_width)
            index += 1


def spec_for(resolution: int) -> BigGANSpec:
    """Return the configuration of the published biggan-deep-128, -256 or -512.

    Raises:
        GeneratorError: There is none of that resolution.
    """
    if resolution not in LAYERS:
        raise GeneratorError(f"generator.resolution must be one of {', '.join(map(str, LAYERS))}, got {resolution!r}")
    return BigGANSpec(output_dim=resolution, layers=LAYERS[resolution])


def read_spec(path: Path) -> BigGANSpec:
    """Read a `config.json`.

    Raises:
        GeneratorError: It is missing, no such configuration, or its numbers do not fit together.
    """
    try:
        content = read_json_file(path)
    except OSError as error:
        raise GeneratorError(f"{path} is not a BigGAN config: {error}") from None
    except ValueError as error:
        raise GeneratorError(f"{path} is not a BigGAN config: it {error}") from None
    known = set(BigGANSpec.__dataclass_fields__)
    if not isinstance(content, dict) or not {"output_dim", "layers"} <= set(content):
        raise GeneratorError(f"{path} is not a BigGAN config: expected an object with output_dim and layers")
    fields: dict[str, Any] = {name: value for name, value in content.items() if name in known}
    layers = fields["layers"]
    if not isinstance(layers, list) or not all(isinstance(layer, list) for layer in layers):
        raise GeneratorError(
            f"{path}: layers must be a list of [upsample, inputs, outputs], got {reprlib.repr(layers)}"
        )
    fields["layers"] = tuple(map(tuple, layers))
    return BigGANSpec(**fields)


def find_weights(path: Path, resolution: int) -> tuple[Path, BigGANSpec]:
    """Find the weights file and the configuration that a user's path means.

    Args:
        path: A folder with `config.json` and weights, or a weights file, with its `config.json` beside it or of one of
            the published models.
        resolution: Of the published model, where no `config.json` says.

    Raises:
        GeneratorError: There is no such file.
    """
    if path.is_dir():
        found = [path / name for name in WEIGHT_FILES if (path / name).is_file()]
        if not found:
            present = sorted(p.name for p in path.iterdir())
            raise GeneratorError(
                f"generator.weights: {path} holds neither {' nor '.join(WEIGHT_FILES)} (found {present})"
            )
        return found[0], read_spec(path / CONFIG_FILE)
    if not path.is_file():
        hint = nearest(str(path), ["random"])
        raise GeneratorError(f"generator.weights: no file or folder at {path}{hint}")
    beside = path.with_name(CONFIG_FILE)
    return path, read_spec(beside) if beside.is_file() else spec_for(resolution)
