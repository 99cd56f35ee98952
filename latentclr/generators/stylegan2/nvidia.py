"""NVIDIA's StyleGAN2 pickles (stylegan2-ada-pytorch), translated to rosinality's names.

A class-conditional network has `mapping.embed` besides, which becomes `embed.weight` and `embed.bias`.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.weights.modules import ModuleTree, learning_rate_gains, number
from latentclr.generators.weights.pickle_objects import StoredTensor
from latentclr.generators.weights.table import count_indices, listed

SUPPORTED = (
    "StyleGAN2 (NVIDIA's .pkl of stylegan2-ada-pytorch or training.networks_stylegan2, rosinality's .pt, .safetensors)"
)


def from_nvidia(tree: ModuleTree, path: Path) -> dict[str, Tensor]:
    """Translate the network of a stylegan2-ada-pytorch pickle.

    Args:
        tree: As `generator_of` reads it.
        path: Named in errors.

    Raises:
        GeneratorError: It is another network, or keys are missing or left over.
    """
    tree.check_family("stylegan2", SUPPORTED, path)
    try:
        return _translate(tree)
    except GeneratorError as error:
        raise GeneratorError(f"{path}: {error}") from None


def _translate(tree: ModuleTree) -> dict[str, Tensor]:
    theirs, modules = dict(tree.tensors), tree.modules
    for name, state in modules.items():
        if state.get("activation", "lrelu") not in ("lrelu", "linear") or state.get("architecture", "skip") != "skip":
            raise GeneratorError(f"{name} is not of the skip architecture with lrelu, as StyleGAN2's generators are")
    ours: dict[str, Tensor] = {}
    missing: list[str] = []

    def take(key: str, name: str, shape: tuple[int, ...] | None = None) -> None:
        if key in theirs:
            tensor = theirs.pop(key).read().float()
            fits = shape is not None and tensor.numel() == math.prod(shape)  # else the table of shapes reports it
            ours[name] = tensor.reshape(shape) if shape is not None and fits else tensor
        else:
            missing.append(key)

    def layer(key: str, name: str) -> None:
        take(f"{key}.affine.weight", f"{name}.conv.modulation.weight")
        take(f"{key}.affine.bias", f"{name}.conv.modulation.bias")
        take(f"{key}.weight", f"{name}.conv.weight")
        if f"{name}.conv.weight" in ours:
            ours[f"{name}.conv.weight"] = ours[f"{name}.conv.weight"][None]  # [1, O, I, k, k]

    for i in range(count_indices(theirs, r"mapping\.fc(\d+)\.", limit=63) + 1):
        take(f"mapping.fc{i}.weight", f"style.{i + 1}.weight")
        take(f"mapping.fc{i}.bias", f"style.{i + 1}.bias")
        keys = [f"style.{i + 1}.{part}" for part in ("weight", "bias")]
        if all(key in ours for key in keys):
            gained = learning_rate_gains(ours[keys[0]], ours[keys[1]], tree, f"mapping.fc{i}")
            ours |= dict(zip(keys, gained, strict=True))
    for part in ("weight", "bias"):
        if f"mapping.embed.{part}" in theirs:
            take(f"mapping.embed.{part}", f"embed.{part}")
    if "mapping.w_avg" in theirs:
        take("mapping.w_avg", "latent_avg")
    take("synthesis.b4.const", "input.input")
    if "input.input" in ours:
        ours["input.input"] = ours["input.input"][None]  # [1, C, 4, 4]
    filters = {key: theirs.pop(key) for key in list(theirs) if key.endswith(".resample_filter")}
    blocks = int(math.log2(max(4, min(1024, count_indices(theirs, r"synthesis\.b(\d+)\.", limit=2048))))) - 2
    for i in range(-1, 2 * blocks):
        key, name = f"synthesis.b{4 * 2 ** ((i + 2) // 2)}", "conv1" if i < 0 else f"convs.{i}"
        conv = f"{key}.conv{1 if i < 0 else i % 2}"
        layer(conv, name)
        take(f"{conv}.bias", f"{name}.activate.bias")
        if modules.get(conv, {}).get("use_noise", True):
            take(f"{conv}.noise_strength", f"{name}.noise.weight", (1,))
            pixels = 4 * 2 ** ((i + 2) // 2)
            take(f"{conv}.noise_const", f"noises.noise_{i + 1}", (1, 1, pixels, pixels))
        else:
            ours[f"{name}.noise.weight"] = torch.zeros(1)
        if i >= 0 and i % 2 == 0:
            _take_filter(ours, f"{name}.conv.blur.kernel", filters.get(f"{conv}.resample_filter"))
            continue
        rgb = "to_rgb1" if i < 0 else f"to_rgbs.{i // 2}"
        layer(f"{key}.torgb", rgb)
        take(f"{key}.torgb.bias", f"{rgb}.bias", (1, 3, 1, 1))
        if i > 0:
            _take_filter(ours, f"{rgb}.upsample.kernel", filters.get(f"{key}.resample_filter"))
    if missing or theirs:
        lists = {"missing": missing, "unexpected": sorted(theirs)}
        raise GeneratorError("not StyleGAN2: " + "; ".join(f"{what}: {listed(k)}" for what, k in lists.items() if k))
    clamps = {number(state["conv_clamp"]) for state in modules.values() if "conv_clamp" in state}
    if len(clamps) > 1:
        raise GeneratorError("expected one conv_clamp for all layers")
    if clamps and (clamp := clamps.pop()) is not None:
        ours["conv_clamp"] = torch.tensor(clamp)
    return ours


def _take_filter(ours: dict[str, Tensor], name: str, stored: StoredTensor | None) -> None:
    if stored is not None:  # theirs sums to 1 and is multiplied where it is used
        ours[name] = stored.read().float() * 4
