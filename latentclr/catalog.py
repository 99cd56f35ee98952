"""Named edits: `catalog.yaml` in a run folder says what a direction is called, where it acts and how far it goes.

    smile: {direction: 28, layers: [4, 5], alpha: [-7, 7], note: "mouth only"}

`layers` are the latent inputs that receive the edit; none means all. The studio reads and writes the same file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from latentclr.config import GenConfig
from latentclr.errors import CheckpointError, ConfigError, nearest
from latentclr.files import replacing

CATALOG_FILE = "catalog.yaml"
NAME_LENGTH = 40
_LARGEST_FILE = 1_000_000


@dataclass(frozen=True)
class NamedEdit:
    """A direction that somebody gave a name to.

    Attributes:
        direction: its index in [0, K).
        layers: latent inputs at which it acts, in rising order; empty for all.
        alpha: (low, high), how far a slider should reach.
        note: what the name does not say.
    """

    direction: int
    layers: tuple[int, ...] = ()
    alpha: tuple[float, float] = (-6.0, 6.0)
    note: str = ""


Edits = dict[str, tuple[NamedEdit, float | None]]
"""What to draw: name -> edit and strength, None for the whole range."""


@dataclass
class NamedGenConfig(GenConfig):
    """latentclr gen: what to draw, by number or by name."""

    edits: Any = field(
        default=None,
        metadata={
            "help": "named edits instead of n_dirs: all, [smile,old], or strengths {smile: 3, old: -2}, also together"
        },
    )


def check_name(name: str) -> str:
    """Return a name in Unicode's composed form.

    Raises:
        ConfigError: it is not 1 to 40 letters, digits, blanks, - or _ that begin with a letter, so that it is never
            taken for a direction's number and needs no quoting in an address.
    """
    name = unicodedata.normalize("NFC", name)
    kinds = [unicodedata.category(character)[0] for character in name]
    good = all(kind in "LMN" or character in " -_" for kind, character in zip(kinds, name, strict=True))
    if not name or len(name) > NAME_LENGTH or not good or kinds[0] != "L" or name != name.strip():
        raise ConfigError(
            f"a name must be 1 to {NAME_LENGTH} letters, digits, blanks, - or _, and begin with a letter, got {name!r}"
        )
    return name


def read_catalog(run: Path) -> dict[str, NamedEdit]:
    """Read the named edits of a run folder; none if it has no catalog.

    Raises:
        CheckpointError: the file cannot be read, or an entry is not understood.
    """
    return _parse(_text(run / CATALOG_FILE), run / CATALOG_FILE)


def write_catalog(run: Path, edits: Mapping[str, NamedEdit]) -> None:
    """Write the named edits of a run folder, whole or not at all; comments that were in the file are kept.

    Raises:
        CheckpointError: what stands there is not understood, and so is not overwritten.
        SaveError: the disk is full or the folder cannot be written.
    """
    path = run / CATALOG_FILE
    text = _text(path)
    before = _parse(text, path)
    added = {name: edit for name, edit in edits.items() if before.get(name) != edit}
    longer = text + ("" if not text or text.endswith("\n") else "\n") + _lines(added)
    grows = not set(added) & set(before) and {**before, **added} == dict(edits)
    try:
        grows = grows and _parse(longer, path) == dict(edits)
    except CheckpointError:  # the file is written in a way that no line can be added to
        grows = False
    with replacing(path) as temporary:
        temporary.write_text(longer if grows else _lines(edits), encoding="utf-8")


def published_edits(class_name: str, k: int) -> tuple[dict[str, NamedEdit], str]:
    """Return the names that the origin's authors published for their StyleGAN2 checkpoint of a class.

    Args:
        class_name: ffhq, car, cat, church or bedrooms; others have none.
        k: K of the checkpoint that they are for; the published ones have 100, and names fit no other training.

    Returns:
        The edits, and why there are none although the class has names (else empty).
    """
    data = json.loads(resources.files("latentclr").joinpath("data/catalogs.json").read_text("utf-8"))
    catalog = data["catalogs"].get(class_name)
    if catalog is None:
        return {}, ""
    if k != data["directions"]:
        reason = f"its authors' names for {class_name} belong to their checkpoint with K = {data['directions']}"
        return {}, f"{reason}; this one has {k}, so it gets none"
    low, high = data["alpha"]
    note = f"named by the origin's authors for their own {class_name} checkpoint"
    return {
        name: NamedEdit(entry["direction"], tuple(entry["layers"]), (float(low), float(high)), note)
        for name, entry in catalog["edits"].items()
    }, ""


def fitting_edits(
    edits: Mapping[str, NamedEdit], k: int, layers: int | None, feed_layers: Sequence[int] | None = None
) -> tuple[dict[str, NamedEdit], list[str]]:
    """Choose what a run can carry out, and report the rest.

    Args:
        edits: from a catalog.
        k: K.
        layers: L; None where it is not known yet, and then nothing is said of layers.
        feed_layers: the latent inputs that the run was trained on, for edits that name none.

    Returns:
        The edits, without layers beyond L, and a line for each thing that was dropped.
    """
    good, problems = {}, []
    for name, edit in edits.items():
        if not 0 <= edit.direction < k:
            problems.append(f"{name}: direction must be in [0, {k}), got {edit.direction}: left out")
            continue
        if not edit.layers and feed_layers is not None:
            edit = dataclasses.replace(edit, layers=tuple(sorted(set(feed_layers))))
        beyond = [] if layers is None else [layer for layer in edit.layers if not 0 <= layer < layers]
        if beyond:
            kept = tuple(layer for layer in edit.layers if layer not in beyond)
            done = "dropped" if kept else "left out"
            problems.append(f"{name}: this generator has the layers 0 to {(layers or 0) - 1}, not {beyond}: {done}")
            if not kept:
                continue
            edit = dataclasses.replace(edit, layers=kept)
        good[name] = edit
    return good, problems


def chosen_edits(asked: Any, edits: Mapping[str, NamedEdit], k: int) -> Edits:
    """Understand `edits=` of `latentclr gen`.

    Args:
        asked: `all`, a name, a list of names, or a table from names (or direction indices) to strengths.
        edits: the run's named edits.
        k: K.

    Returns:
        name -> edit and strength (None where none was given), in the order asked for.

    Raises:
        ConfigError: a name is unknown (the nearest ones are given), or a strength is not a finite number.
    """
    if asked == "all" and edits:
        return {name: (edit, None) for name, edit in edits.items()}
    table = asked if isinstance(asked, dict) else {}
    names = list(asked) if isinstance(asked, dict | list) else [asked]
    if not names or not all(isinstance(name, str) or type(name) is int for name in names):
        raise ConfigError(f"edits must be all, names [smile,old] or strengths {{smile: 3, old: -2}}, got {asked}")
    chosen: Edits = {}
    for name in names:
        strength = table.get(name)
        if table and (isinstance(strength, bool | str | None) or not math.isfinite(strength)):
            raise ConfigError(f"edits: the strength of {name} must be a finite number, got {strength}")
        edit = edits.get(str(name))
        if edit is None and isinstance(name, int) and 0 <= name < k:
            edit = NamedEdit(name)
        if edit is None:
            known = ", ".join(edits) or "it has none: latentclr name RUN NAME --direction N"
            raise ConfigError(f"edits: this run names no edit {name!r}{nearest(str(name), edits)} (names: {known})")
        chosen[str(name)] = edit, None if strength is None else float(strength)
    return chosen


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise CheckpointError(f"{path} must be at most {_LARGEST_FILE} bytes")
        return data.decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not UTF-8 text") from None


def _parse(text: str, path: Path) -> dict[str, NamedEdit]:
    try:
        entries = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise CheckpointError(f"{path} is not YAML{place}: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(entries or {}, dict):
        raise CheckpointError(f"{path} must be a table from names to edits")
    return {_name(name, path): _entry(name, entry, path) for name, entry in (entries or {}).items()}


def _name(name: Any, path: Path) -> str:
    try:
        return check_name(name if isinstance(name, str) else str(name)[:NAME_LENGTH])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _entry(name: str, entry: Any, path: Path) -> NamedEdit:
    try:
        layers = entry.get("layers") or []
        low, high = (float(end) for end in entry.get("alpha", NamedEdit.alpha))
        if any(type(number) is not int or number < 0 for number in (entry["direction"], *layers)):
            raise ValueError
        if not -math.inf < low < high < math.inf:
            raise ValueError
        note = " ".join(str(entry.get("note") or "").split())
        return NamedEdit(entry["direction"], tuple(sorted(set(layers))), (low, high), note)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):  # what was written is not repeated here
        raise CheckpointError(
            f"{path}: {name} must be like {{direction: 28, layers: [4, 5], alpha: [-7, 7], note: text}} with low < high"
        ) from None


def _lines(edits: Mapping[str, NamedEdit]) -> str:
    text = ""
    for name, edit in edits.items():
        alpha = [int(end) if end == int(end) else end for end in edit.alpha]
        entry = {"direction": edit.direction, "layers": list(edit.layers), "alpha": alpha, "note": edit.note}
        line = yaml.safe_dump({name: entry}, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1e9)
        text += str(line).strip()[1:-1] + "\n"
    return text
