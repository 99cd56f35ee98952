"""The module tree of a NVIDIA network pickle, as tables of tensors and of plain attributes.

Of a pickle only tensors and plain data are left (`safe_pickle`); a module is a `Record` whose state holds
`_parameters`, `_buffers`, `_modules` and whatever numbers its constructor kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.weights.pickle_objects import Record, StoredArray, StoredTensor

MAX_MODULES, MAX_DEPTH = 1000, 16  # of a module tree; a real generator has about 100 and 5
FEW_VALUES = 1 << 24  # that tensors may have beyond a number for each byte of the file: 64 MiB, as for .pt
SHOWN = 100  # characters of a class's name in a message
FAMILIES = {"stylegan2": "a StyleGAN2", "stylegan3": "a StyleGAN3", "r3gan": "an R3GAN"}


@dataclass
class ModuleTree:
    """A network out of a pickle.

    Attributes:
        class_name: Of the whole.
        tensors: Parameters and buffers by their full names, not decoded yet; readers take out what they understand.
        modules: Full name of a module ("" is the whole) -> its attributes.
        classes: Full name of a module -> its class's name.
    """

    class_name: str
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)

    def family(self) -> str | None:
        """Return the generator's family by what only that has: a pickle names classes, and most are a `Generator`."""
        if self.classes.get("synthesis.input") == "SynthesisInput":
            return "stylegan3"
        if "synthesis.b4" in self.modules:
            return "stylegan2"
        if self.classes.get("Model.MainLayers.0") == "GeneratorStage":
            return "r3gan"
        return None

    def check_family(self, wanted: str, supported: str, path: Path) -> None:
        """Check that the network is of one family.

        Args:
            wanted: The family.
            supported: What to give instead, in words.
            path: The file, for messages.

        Raises:
            GeneratorError: It is another; the message says which, or the name of its class.
        """
        family = self.family()
        if family == wanted:
            return
        pixels = self.attribute("", "img_resolution")
        size = f" of {pixels} px" if type(pixels) is int and 0 < pixels <= 2**16 else ""
        if family is not None:
            raise GeneratorError(f"{path} holds {FAMILIES[family]} generator{size}: use generator={family}")
        name = self.class_name[:SHOWN]
        name = name if name.isprintable() else ascii(name)
        raise GeneratorError(f"{path} holds a network of class {name}{size}; expected {supported}")

    def attribute(self, module: str, name: str) -> Any:
        """Return an attribute of a module, None where it has none."""
        return self.modules.get(module, {}).get(name)

    def number(self, module: str, name: str) -> float | None:
        """Return an attribute of a module if it is a number."""
        return number(self.attribute(module, name))


def generator_of(content: Any, path: Path) -> ModuleTree:
    """Return the generator in what `load_pickle` read: `G_ema` of a dict, or all of it.

    Raises:
        GeneratorError: There is none, its modules are no bounded tree, or its tensors are larger than the file.
    """
    generator = content.get("G_ema") if isinstance(content, dict) else content
    if not isinstance(generator, Record):
        raise GeneratorError(f"{path} holds no generator: expected a dict with G_ema, or a bare generator")
    tree = ModuleTree(generator.class_name)
    try:
        _flatten(generator, "", tree)
        _check_room(tree, path.stat().st_size)
    except GeneratorError as error:
        raise GeneratorError(f"{path}: {error}") from None
    return tree


def number(value: Any) -> float | None:
    """Return a finite number that a file tells, None for anything else."""
    small = isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)  # a huge int is no float
    return float(value) if small and math.isfinite(value) else None


def numbers(value: Any) -> list[float] | None:
    """Return a short list of finite numbers that a file tells, as a list, a tuple or a numpy array; else None."""
    if isinstance(value, StoredArray):
        value = value.read().ravel()[:SHOWN].astype(np.float64).tolist()
    found = [number(item) for item in value[:SHOWN]] if isinstance(value, list | tuple) else [None]
    return None if None in found else [item for item in found if item is not None]


def learning_rate_gains(weight: Tensor, bias: Tensor, tree: ModuleTree, module: str) -> tuple[Tensor, Tensor]:
    """Return a mapping layer's weight [O, I] and bias [O], scaled to the usual learning-rate factor.

    Their layer keeps its factors as attributes; the tables of names here have the usual 0.01.
    """
    usual = 0.01
    gain, shift = tree.number(module, "weight_gain"), tree.number(module, "bias_gain")
    expected = usual / math.sqrt(max(1, math.prod(weight.shape[1:])))
    if gain is not None and not math.isclose(gain, expected, rel_tol=1e-6):
        weight = weight * (gain / expected)
    if shift is not None and not math.isclose(shift, usual, rel_tol=1e-6):
        bias = bias * (shift / usual)
    return weight, bias


def _flatten(record: Record, prefix: str, tree: ModuleTree) -> None:
    # Bounded, because a hostile file can make a module its own child, or double the paths at every level.
    if len(tree.modules) >= MAX_MODULES or prefix.count(".") >= MAX_DEPTH:
        raise GeneratorError("it nests modules too deeply for a generator")
    name = prefix.removesuffix(".")
    tree.modules[name], tree.classes[name] = record.state, record.class_name
    for table in ("_parameters", "_buffers"):
        for key, value in _table(record, table).items():
            if isinstance(value, StoredTensor):
                tree.tensors[f"{prefix}{key}"] = value
    for key, child in _table(record, "_modules").items():
        if isinstance(child, Record):
            _flatten(child, f"{prefix}{key}.", tree)


def _check_room(tree: ModuleTree, size: int) -> None:
    """Check that reading all tensors cannot take much more memory than the file has: many may share one storage."""
    values = sum(math.prod(stored.size) for stored in tree.tensors.values())
    if values > size + FEW_VALUES:
        raise GeneratorError(f"its tensors are larger than the file: {values} numbers of {size} bytes")


def _table(record: Record, name: str) -> dict[str, Any]:
    table = record.state.get(name, {})
    if not isinstance(table, dict) or not all(isinstance(key, str) and _is_path_part(key) for key in table):
        raise GeneratorError(f"a module's {name} must be a dict of names")
    return table


def _is_path_part(key: str) -> bool:
    return key.isidentifier() or (key.isascii() and key.isdecimal() and len(key) < 6)  # digits: of a ModuleList
