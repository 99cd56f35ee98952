"""Named edits: `catalog.yaml` in a run folder says what a direction is called, where it acts and how far it goes.

    smile: {direction: 28, layers: [4, 5], alpha: [-7, 7], note: "mouth only"}

`layers` are the latent inputs that receive the edit; none means all. The file's grammar is `serving.contract`'s, so the
studio reads and writes the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from latentclr.config import GenConfig
from latentclr.errors import CheckpointError, ConfigError, SaveError, nearest
from serving.contract import named_edit
from serving.contract.catalog import CATALOG_FILE, CatalogFile
from serving.contract.errors import CatalogError, CatalogWriteError
from serving.contract.named_edit import NamedEdit, entry_of

__all__ = ["CATALOG_FILE", "Edits", "NamedEdit", "NamedGenConfig", "check_name", "chosen_edits", "fitting_edits",
           "published_edits", "read_catalog", "readable_edits", "update_catalog", "write_catalog"]  # fmt: skip

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
        ConfigError: It is not 1 to 40 letters, digits, blanks, - or _ that begin with a letter, so that it is never
            taken for a direction's number and needs no quoting in an address.
    """
    try:
        return named_edit.check_name(name)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def read_catalog(run: Path) -> dict[str, NamedEdit]:
    """Read the named edits of a run folder; none if it has no catalog.

    Raises:
        CheckpointError: The file cannot be read, or an entry is not understood.
    """
    edits, problems = readable_edits(run)
    if problems:
        raise CheckpointError(problems[0])
    return edits


def readable_edits(run: Path) -> tuple[dict[str, NamedEdit], list[str]]:
    """Read the named edits of a run folder, and a line for each entry that is not understood.

    Raises:
        CheckpointError: The file cannot be read, or is no catalog.
    """
    with _errors_of_a_run():
        names = CatalogFile(run / CATALOG_FILE).read()
    return dict(names.edits), [f"{problem}: left out" for problem in names.problems]


def write_catalog(run: Path, edits: Mapping[str, NamedEdit]) -> None:
    """Write the named edits of a run folder, whole or not at all; comments that were in the file are kept.

    Raises:
        CheckpointError: What stands there is not understood, and so is not overwritten.
        SaveError: The disk is full or the folder cannot be written.
    """

    def change(entries: Mapping[Any, Any]) -> Mapping[Any, Any]:
        before = {}
        for key, entry in entries.items():
            try:
                name, edit = named_edit.parse_entry(key, entry)
            except ValueError as error:
                raise CheckpointError(f"{run / CATALOG_FILE}: {error}") from None
            before[name] = (edit, entry)
        kept = {name: entry for name, (edit, entry) in before.items() if edits.get(name) == edit}
        return {name: kept[name] if name in kept else entry_of(edit) for name, edit in edits.items()}

    update_catalog(run, change)


def update_catalog(run: Path, change: Callable[[dict[Any, Any]], Mapping[Any, Any]]) -> None:
    """Change the entries of a run folder's catalog; no other process changes them meanwhile.

    Args:
        run: The run folder; made if missing.
        change: Gets the entries as written and returns what shall stand there (see `serving.contract.catalog`).

    Raises:
        CheckpointError: What stands there is no catalog.
        SaveError: It cannot be written.
    """
    with _errors_of_a_run():
        try:
            run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"could not write {run / CATALOG_FILE}: {error.strerror}") from None
        CatalogFile(run / CATALOG_FILE).update(change)


@contextlib.contextmanager
def _errors_of_a_run() -> Iterator[None]:
    try:
        yield
    except CatalogWriteError as error:
        raise SaveError(str(error)) from None
    except CatalogError as error:
        raise CheckpointError(str(error)) from None


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
        edits: From a catalog.
        k: K.
        layers: L; None where it is not known yet, and then nothing is said of layers.
        feed_layers: The latent inputs that the run was trained on, for edits that name none.

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
        edits: The run's named edits.
        k: K.

    Returns:
        name -> edit and strength (None where none was given), in the order asked for.

    Raises:
        ConfigError: A name is unknown (the nearest ones are given), or a strength is not a finite number.
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
        if table and not (isinstance(strength, int | float) and type(strength) is not bool and math.isfinite(strength)):
            raise ConfigError(f"edits: the strength of {name} must be a finite number, got {strength}")
        edit = edits.get(str(name))
        if edit is None and isinstance(name, int) and 0 <= name < k:
            edit = NamedEdit(name)
        if edit is None:
            known = ", ".join(edits) or "it has none: latentclr name RUN NAME --direction N"
            raise ConfigError(f"edits: this run names no edit {name!r}{nearest(str(name), edits)} (names: {known})")
        chosen[str(name)] = edit, None if strength is None else float(strength)
    return chosen
