"""NVIDIA's networks whose numbers lie in tests/data: tensors drawn by name, and their pickles, written by stand-ins."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import nvidia_files
import torch
from torch import Tensor

DATA = Path(__file__).parents[2] / "data"
TOLERANCE = 1e-4  # of the largest value


def load_golden(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Return the network's tensors under NVIDIA's names without those fixed by design, what it makes, and its spec."""
    spec = json.loads((DATA / name / "spec.json").read_text())
    with np.load(DATA / name / "expected.npz") as file:
        expected = {key: torch.from_numpy(file[key]) for key in file.files}
    tensors = {}
    for key, entry in spec["tensors"].items():
        draw = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(entry["shape"])
        if "abs" in entry:
            mean, std = entry["abs"]
            tensors[key] = torch.tensor(abs(mean + std * draw)).float()
        elif entry.get("stored"):
            tensors[key] = expected[f"stored.{key}"]
        elif not entry.get("keep"):
            values = np.asarray(entry["mean"] + entry["std"] * draw, dtype=np.float32).reshape(entry["shape"])
            tensors[key] = torch.from_numpy(values)
    return tensors, expected, spec


def assert_near(actual: Tensor, wanted: Tensor) -> None:
    """Compare with the tolerance that golden numbers have."""
    assert actual.shape == wanted.shape
    assert (actual - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


def as_modules(tensors: dict[str, Tensor], states: dict[str, dict[str, Any]]) -> nvidia_files.Persistent:
    """Return tensors by full name as a tree of persistent modules.

    Args:
        tensors: By name.
        states: Of each module by name ("" is the whole): its attributes, and its class as `class_name`.
    """

    def build(prefix: str) -> nvidia_files.Persistent:
        own = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        names = dict.fromkeys(key.partition(".")[0] for key in own if "." in key)
        state = dict(states.get(prefix.removesuffix("."), {}))
        class_name = state.pop("class_name", "FullyConnectedLayer")
        children = {name: build(f"{prefix}{name}.") for name in names}
        return nvidia_files.module(class_name, {k: t for k, t in own.items() if "." not in k}, children, **state)

    return build("")


def stylegan3_pickle(tensors: dict[str, Tensor]) -> nvidia_files.Persistent:
    """Return a StyleGAN3 as NVIDIA's training loop pickles it; its layers keep their sizes as numpy arrays.

    Args:
        tensors: With filters and geometry, as `with_design` completes them.
    """
    size, rate, band = tensors["synthesis.input.geometry"].tolist()
    states: dict[str, dict[str, Any]] = {
        "": {"class_name": "Generator", "c_dim": 0, "img_resolution": 32},
        "mapping": {"class_name": "MappingNetwork", "w_avg_beta": 0.998},
        "synthesis": {"class_name": "SynthesisNetwork", "output_scale": 0.25, "img_resolution": 32},
        "synthesis.input": {
            "class_name": "SynthesisInput",
            "size": np.broadcast_to(np.asarray(int(size)), [2]),
            "sampling_rate": np.float64(rate),
            "bandwidth": np.float64(band),
        },
    }
    for i in range(sum(key.startswith("mapping.fc") for key in tensors) // 2):
        width = tensors[f"mapping.fc{i}.weight"].shape[1]
        states[f"mapping.fc{i}"] = {"weight_gain": 0.01 / np.sqrt(width), "bias_gain": 0.01}
    for key, geometry in tensors.items():
        module, _, part = key.rpartition(".")
        if part == "geometry" and module != "synthesis.input":
            up, down, low, high, out = (int(value) for value in geometry.tolist())
            states[module] = {
                "class_name": "SynthesisLayer",
                "up_factor": np.int64(up),
                "down_factor": down,
                "padding": [low, high, low, high],
                "out_size": np.full(2, out),
                "conv_clamp": 256,
            }
    return as_modules({key: t for key, t in tensors.items() if not key.endswith("geometry")}, states)


def stylegan2_pickle(tensors: dict[str, Tensor], classes: int) -> nvidia_files.Persistent:
    """Return a StyleGAN2-ADA as NVIDIA's training loop pickles it, the fixed kernels put in."""
    states: dict[str, dict[str, Any]] = {"": {"class_name": "Generator", "c_dim": classes, "img_resolution": 32}}
    whole = dict(tensors)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    for key in tensors:
        module, _, part = key.rpartition(".")
        if part == "noise_const" or key.endswith("torgb.bias"):
            owner = module if part == "noise_const" else module.rpartition(".")[0]
            whole[f"{owner}.resample_filter"] = torch.outer(taps, taps) / 64
        if part == "noise_strength" or key.endswith("torgb.bias"):
            states[module] = {"class_name": "SynthesisLayer", "conv_clamp": 256}
        if module.startswith("mapping.fc"):
            gains = {"weight_gain": 0.01 / np.sqrt(tensors[f"{module}.weight"].shape[1]), "bias_gain": 0.01}
            states[module] = {"activation": "lrelu", **gains}
    return as_modules(whole, states)
