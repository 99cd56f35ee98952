"""NVIDIA's StyleGAN2 pickles (stylegan2-ada-pytorch), translated to rosinality's names.

Of a pickle only tensors and plain attributes are left (`safe_pickle`); a module is a `Record` whose state holds
`_parameters`, `_buffers`, `_modules` and the constructor's numbers.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.stylegan2.layout import count_indices, listed
from latentclr.generators.weights.pickle_objects import Record, StoredTensor

MAX_MODULES, MAX_DEPTH = 1000, 16  # of a module tree; a real generator has about 100 and 5
SUPPORTED = (
    "StyleGAN2 without classes (NVIDIA's .pkl of stylegan2-ada-pytorch or training.networks_stylegan2,"
    " rosinality's .pt, .safetensors)"
)


def from_nvidia(content: Any, path: Path) -> dict[str, Tensor]:
    """Translate what `load_pickle` read of a stylegan2-ada-pytorch pickle.

    Args:
        content: A dict with `G_ema`, or a generator's record.
        path: Named in errors.

    Raises:
        GeneratorError: It holds another network, or keys are missing or left over.
    """
    generator = content.get("G_ema") if isinstance(content, dict) else content
    if not isinstance(generator, Record):
        raise GeneratorError(f"{path} holds no generator: expected a dict with G_ema, or a bare generator")
    theirs: dict[str, StoredTensor] = {}
    modules: dict[str, dict[str, Any]] = {}
    try:
        _check_kind(generator)
        _flatten(generator, "", theirs, modules)
        return _translate(theirs, modules)
    except GeneratorError as error:
        raise GeneratorError(f"{path}: {error}") from None


def _translate(theirs: dict[str, StoredTensor], modules: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
    for name, state in modules.items():
        if state.get("activation", "lrelu") not in ("lrelu", "linear") or state.get("architecture", "skip") != "skip":
            raise GeneratorError(f"{name} is not of the skip architecture with lrelu, as StyleGAN2's generators are")
    if any(key.startswith("mapping.embed") for key in theirs):
        raise GeneratorError("class-conditional StyleGAN2 is not supported (mapping.embed)")
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
        _apply_gains(ours, f"style.{i + 1}", modules.get(f"mapping.fc{i}", {}))
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
    clamps = {_number(state["conv_clamp"]) for state in modules.values() if "conv_clamp" in state}
    if len(clamps) > 1:
        raise GeneratorError("expected one conv_clamp for all layers")
    if clamps and (clamp := clamps.pop()) is not None:
        ours["conv_clamp"] = torch.tensor(clamp)
    return ours


def _check_kind(generator: Record) -> None:
    # A pickle names classes and not their modules, and every network of NVIDIA's is a Generator: look inside. Only
    # StyleGAN3's synthesis network has a layer for its input.
    synthesis = _table(generator, "_modules").get("synthesis")
    first = _table(synthesis, "_modules").get("input") if isinstance(synthesis, Record) else None
    if isinstance(first, Record) and first.class_name == "SynthesisInput":
        pixels = generator.state.get("img_resolution")
        size = f" of {pixels} px" if type(pixels) is int and 0 < pixels <= 2**16 else ""
        raise GeneratorError(
            f"this is a StyleGAN3 generator{size} (training.networks_stylegan3.Generator); supported: {SUPPORTED}"
        )


def _take_filter(ours: dict[str, Tensor], name: str, stored: StoredTensor | None) -> None:
    if stored is not None:  # theirs sums to 1 and is multiplied where it is used
        ours[name] = stored.read().float() * 4


def _apply_gains(ours: dict[str, Tensor], name: str, state: dict[str, Any]) -> None:
    # Their mapping layer keeps its learning-rate factors as attributes; ours has the usual ones, so scale by the ratio.
    usual = 0.01
    for part in ("weight", "bias"):
        gain, tensor = _number(state.get(f"{part}_gain")), ours.get(f"{name}.{part}")
        if gain is not None and tensor is not None:
            expected = usual / math.sqrt(max(1, math.prod(tensor.shape[1:]))) if part == "weight" else usual
            if not math.isclose(gain, expected, rel_tol=1e-6):
                ours[f"{name}.{part}"] = tensor * (gain / expected)


def _flatten(record: Record, prefix: str, tensors: dict[str, StoredTensor], modules: dict[str, dict[str, Any]]) -> None:
    # Bounded, because a hostile file can make a module its own child, or double the paths at every level.
    if len(modules) >= MAX_MODULES or prefix.count(".") >= MAX_DEPTH:
        raise GeneratorError("it nests modules too deeply for a generator")
    modules[prefix.removesuffix(".")] = record.state
    for table in ("_parameters", "_buffers"):
        for name, value in _table(record, table).items():
            if isinstance(value, StoredTensor):
                tensors[f"{prefix}{name}"] = value
    for name, child in _table(record, "_modules").items():
        if isinstance(child, Record):
            _flatten(child, f"{prefix}{name}.", tensors, modules)


def _table(record: Record, name: str) -> dict[str, Any]:
    table = record.state.get(name, {})
    if not isinstance(table, dict) or not all(isinstance(key, str) and key.isidentifier() for key in table):
        raise GeneratorError(f"a module's {name} must be a dict of names")
    return table


def _number(value: Any) -> float | None:
    small = isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)  # a huge int is no float
    return float(value) if small else None
