"""Pickles in the layout of stylegan2-ada-pytorch, written by Python's own pickler from stand-ins for its classes.

The stand-ins are called as the real ones are and live under their names while a file is written, so the stream holds
what NVIDIA's training loop writes: GLOBALs of torch_utils.persistence, dnnlib.util, torch._utils, numpy and so on.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

SOURCE = "raise SystemExit('the embedded source was run')"


def _reconstruct_persistent_obj(meta: Any) -> None:
    raise AssertionError("a stand-in was called")


class EasyDict(dict[str, Any]):
    pass


class Persistent:
    """Pickles as a persistent class's instance does."""

    def __init__(self, class_name: str, **state: Any) -> None:
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": class_name, "state": state}
        self.meta = meta

    def __reduce__(self) -> tuple[Any, ...]:
        return _reconstruct_persistent_obj, (self.meta,), None


def module(
    class_name: str, tensors: dict[str, Tensor], children: dict[str, Persistent], **attributes: Any
) -> Persistent:
    """Return a torch.nn.Module of a persistent class: buffers are what has no gradient in NVIDIA's code."""
    buffers = {
        "resample_filter",
        "noise_const",
        "w_avg",
        "up_filter",
        "down_filter",
        "magnitude_ema",
        "freqs",
        "phases",
    }
    parameters = {n: torch.nn.Parameter(t, requires_grad=False) for n, t in tensors.items() if n not in buffers}
    return Persistent(
        class_name,
        training=False,
        _parameters=OrderedDict(parameters),
        _buffers=OrderedDict((n, t) for n, t in tensors.items() if n in buffers),
        _non_persistent_buffers_set=set(),
        _backward_hooks=OrderedDict(),
        _modules=OrderedDict(children),
        _init_args=(),
        _init_kwargs=EasyDict(synthesis_kwargs=EasyDict(channel_base=16384, num_fp16_res=4, conv_clamp=256)),
        **attributes,
    )


def generator(ours: dict[str, Tensor], **attributes: Any) -> Persistent:
    """Return rosinality-named tensors as NVIDIA's Generator.

    Args:
        ours: The tensors, with latent_avg.
        attributes: Of every convolution and torgb, such as conv_clamp.
    """
    kernel = ours["convs.0.conv.blur.kernel"] / 4

    def affine(name: str) -> Persistent:
        part = {p: ours[f"{name}.conv.modulation.{p}"] for p in ("weight", "bias")}
        return module("FullyConnectedLayer", part, {}, activation="linear", bias_gain=1)

    def conv(name: str, i: int) -> Persistent:
        tensors = {
            "weight": ours[f"{name}.conv.weight"][0],
            "bias": ours[f"{name}.activate.bias"],
            "noise_strength": ours[f"{name}.noise.weight"][0],
            "noise_const": ours[f"noises.noise_{i}"][0, 0],
            "resample_filter": kernel,
        }
        gain = {"act_gain": np.sqrt(2), "activation": "lrelu", "use_noise": True}
        return module("SynthesisLayer", tensors, {"affine": affine(name)}, **gain, **attributes)

    def rgb(name: str) -> Persistent:
        tensors = {"weight": ours[f"{name}.conv.weight"][0], "bias": ours[f"{name}.bias"].flatten()}
        return module("ToRGBLayer", tensors, {"affine": affine(name)}, **attributes)

    blocks = {
        "b4": module(
            "SynthesisBlock",
            {"const": ours["input.input"][0], "resample_filter": kernel},
            {"conv1": conv("conv1", 0), "torgb": rgb("to_rgb1")},
            architecture="skip",
        )
    }
    for b in range(sum(key.endswith("upsample.kernel") for key in ours)):
        parts = {"conv0": conv(f"convs.{2 * b}", 2 * b + 1), "conv1": conv(f"convs.{2 * b + 1}", 2 * b + 2)}
        children = parts | {"torgb": rgb(f"to_rgbs.{b}")}
        blocks[f"b{8 * 2**b}"] = module("SynthesisBlock", {"resample_filter": kernel}, children, architecture="skip")
    layers = {}
    for i in range(sum(key.startswith("style.") for key in ours) // 2):
        part = {p: ours[f"style.{i + 1}.{p}"] for p in ("weight", "bias")}
        gains = {"weight_gain": 0.01 / np.sqrt(part["weight"].shape[1]), "bias_gain": 0.01}
        layers[f"fc{i}"] = module("FullyConnectedLayer", part, {}, activation="lrelu", **gains)
    mapping = module("MappingNetwork", {"w_avg": ours["latent_avg"]}, layers, w_avg_beta=0.995)
    return module("Generator", {}, {"synthesis": module("SynthesisNetwork", {}, blocks), "mapping": mapping}, c_dim=0)


def one_storage(names: int, values: int) -> Persistent:
    """Return what an R3GAN looks like at first sight, with one parameter under many names."""
    parameter = torch.nn.Parameter(torch.zeros(values), requires_grad=False)
    stage = Persistent("GeneratorStage", _parameters={f"p{i}": parameter for i in range(names)})
    layers = Persistent("ModuleList", _modules={"0": stage})
    return Persistent("Generator", _modules={"Model": Persistent("Model", _modules={"MainLayers": layers})})


def dumps(content: Any, protocol: int = 4) -> bytes:
    """Pickle with the stand-ins under their real names."""
    names = {"torch_utils.persistence": [_reconstruct_persistent_obj], "dnnlib.util": [EasyDict]}
    modules: dict[str, types.ModuleType] = {}
    with mock.patch.dict(sys.modules):
        for name, objects in names.items():
            sys.modules[name.partition(".")[0]] = types.ModuleType(name.partition(".")[0])
            modules[name] = sys.modules[name] = types.ModuleType(name)
            for item in objects:
                setattr(modules[name], item.__name__, item)
                item.__module__ = name
        return pickle.dumps(content, protocol=protocol)


def write_pickle(path: Path, content: Any, protocol: int = 4) -> Path:
    """Write `content` as `dumps` pickles it."""
    path.write_bytes(dumps(content, protocol))
    return path
