"""NVIDIA's StyleGAN3 pickles as a table of tensors under the same names, with what the modules' attributes say."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.stylegan3.layout import layer_names
from latentclr.generators.weights.modules import ModuleTree, learning_rate_gains, numbers
from latentclr.generators.weights.table import count_indices

SUPPORTED = "StyleGAN3 (NVIDIA's .pkl of training.networks_stylegan3, .safetensors or plain tensors)"


def from_nvidia(tree: ModuleTree, path: Path) -> dict[str, Tensor]:
    """Translate a network out of a pickle.

    Raises:
        GeneratorError: It is another network, or its attributes are not those of StyleGAN3.
    """
    tree.check_family("stylegan3", SUPPORTED, path)
    try:
        return _translate(tree)
    except GeneratorError as error:
        raise GeneratorError(f"{path}: {error}") from None


def _translate(tree: ModuleTree) -> dict[str, Tensor]:
    tensors = {name: stored.read().float() for name, stored in tree.tensors.items()}
    for i in range(count_indices(tensors, r"mapping\.fc(\d+)\.", limit=63) + 1):
        keys = [f"mapping.fc{i}.{part}" for part in ("weight", "bias")]
        if all(key in tensors for key in keys):
            gained = learning_rate_gains(tensors[keys[0]], tensors[keys[1]], tree, f"mapping.fc{i}")
            tensors |= dict(zip(keys, gained, strict=True))
    names = layer_names(tensors)
    size = _side(tree, "synthesis.input", "size")
    tensors["synthesis.input.geometry"] = torch.tensor(
        [size, *(_number(tree, "synthesis.input", key) for key in ("sampling_rate", "bandwidth"))]
    )
    clamps = set()
    for name in names:
        module = f"synthesis.{name}"
        padding = numbers(tree.attribute(module, "padding"))
        if padding is None or len(padding) != 4 or padding[:2] != padding[2:]:
            raise GeneratorError(f"{module}.padding must be two numbers, twice")
        up, down = (_number(tree, module, key) for key in ("up_factor", "down_factor"))
        out = _side(tree, module, "out_size")
        tensors[f"{module}.geometry"] = torch.tensor([up, down, *padding[:2], out])
        clamp = tree.attribute(module, "conv_clamp")
        clamps.add(float("inf") if clamp is None else _number(tree, module, "conv_clamp"))
    for part in ("up_filter", "down_filter") if names else ():  # the last layer does not resample
        tensors.pop(f"synthesis.{names[-1]}.{part}", None)
    if len(clamps) != 1:
        raise GeneratorError("expected one conv_clamp for all layers")
    clamp = clamps.pop()
    tensors["synthesis.conv_clamp"] = torch.tensor(min(clamp, torch.finfo(torch.float32).max))
    scale = tree.number("synthesis", "output_scale")
    if scale is not None:
        tensors["synthesis.output_scale"] = torch.tensor(scale)
    return tensors


def _number(tree: ModuleTree, module: str, name: str) -> float:
    value = tree.number(module, name)
    if value is None:
        raise GeneratorError(f"{module}.{name} must be a number")
    return value


def _side(tree: ModuleTree, module: str, name: str) -> float:
    sides = numbers(tree.attribute(module, name))
    if sides is None or len(sides) != 2 or sides[0] != sides[1]:
        raise GeneratorError(f"{module}.{name} must be two sides of one length: pictures are square here")
    return sides[0]
