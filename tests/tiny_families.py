"""A tiny generator of each family, as the command line names it; a new family adds a function here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file
from tiny_generators import dcgan_tensors
from tiny_plugin import WORD

from latentclr.generators.biggan.spec import spec_for
from latentclr.generators.biggan.tensors import random_tensors as biggan_tensors
from latentclr.generators.stylegan2.layout import random_tensors as stylegan2_tensors
from latentclr.generators.stylegan3.layout import Design
from latentclr.generators.stylegan3.layout import random_tensors as stylegan3_tensors


def dcgan(folder: Path) -> list[str]:
    """16 x 16 pixels, D = 24."""
    save_file(dcgan_tensors(), folder / "dcgan.safetensors")
    return ["generator=dcgan", f"generator.weights={folder / 'dcgan.safetensors'}"]


def biggan(folder: Path) -> list[str]:
    """128 x 128 pixels, D = 8, L = 11, two of ImageNet's classes; noise, which strong edits make chaos of."""
    spec = dataclasses.replace(spec_for(128), channel_width=4, z_dim=8, class_embed_dim=2)
    (folder / "biggan").mkdir()
    config = {**dataclasses.asdict(spec), "layers": [list(layer) for layer in spec.layers]}
    (folder / "biggan" / "config.json").write_text(json.dumps(config))
    save_file(biggan_tensors(spec), folder / "biggan" / "model.safetensors")
    return ["generator=biggan", f"generator.weights={folder / 'biggan'}", "generator.class_name=[robin,husky]",
            "generator.feature_layer=generator.layers.1", "model.alpha=[-0.3,+0.3]"]  # fmt: skip


def stylegan2(folder: Path) -> list[str]:
    """8 x 8 pixels, D = 16, L = 4."""
    save_file(stylegan2_tensors(8, n_mlp=2, dim=16, width=8), folder / "stylegan2.safetensors")
    return ["generator=stylegan2", f"generator.weights={folder / 'stylegan2.safetensors'}"]


def stylegan2_classes(folder: Path) -> list[str]:
    """8 x 8 pixels, D = 16, L = 4, three classes, of which training sees two."""
    save_file(stylegan2_tensors(8, n_mlp=2, dim=16, width=8, classes=3), folder / "stylegan2.safetensors")
    return ["generator=stylegan2", f"generator.weights={folder / 'stylegan2.safetensors'}", "generator.classes=[1,2]"]


def stylegan3_t(folder: Path) -> list[str]:
    """16 x 16 pixels, D = 12, L = 6, three classes."""
    design = Design(16, channel_base=80, channel_max=20, layers=4, margin=2)
    save_file(stylegan3_tensors(design, dim=12, classes=3), folder / "stylegan3.safetensors")
    return ["generator=stylegan3", f"generator.weights={folder / 'stylegan3.safetensors'}"]


def stylegan3_r(folder: Path) -> list[str]:
    """16 x 16 pixels, D = 12, L = 6."""
    design = Design(16, channel_base=80, channel_max=20, layers=4, margin=2, kernel=1, radial=True)
    save_file(stylegan3_tensors(design, dim=12), folder / "stylegan3.safetensors")
    return ["generator=stylegan3", f"generator.weights={folder / 'stylegan3.safetensors'}"]


def r3gan(folder: Path) -> list[str]:
    """16 x 16 pixels, D = 12, L = 1, three classes, from a pickle of its authors' code."""
    return ["generator=r3gan", f"generator.weights={Path(__file__).parent / 'data' / 'r3gan_16' / 'network.pkl'}"]


def plugin(folder: Path) -> list[str]:
    """Grey, 12 high and 16 wide, D = 10."""
    return [WORD]


def plugin_layers(folder: Path) -> list[str]:
    """The same with L = 3."""
    return [WORD, "generator.layers=3", "generator.feature_layer=body"]


def plugin_classes(folder: Path) -> list[str]:
    """The same with three classes."""
    return [WORD, "generator.classes=true"]


FAMILIES: dict[str, Callable[[Path], list[str]]] = {
    "plugin": plugin,
    "plugin_classes": plugin_classes,
    "plugin_layers": plugin_layers,
    "dcgan": dcgan,
    "biggan": biggan,
    "stylegan2": stylegan2,
    "stylegan2_classes": stylegan2_classes,
    "stylegan3_t": stylegan3_t,
    "stylegan3_r": stylegan3_r,
    "r3gan": r3gan,
}
QUICK = ("plugin_classes",)
"""Those that `make test` walks; the rest are in `make test-full`."""
