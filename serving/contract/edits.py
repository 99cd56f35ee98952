"""From what a person asks for to the three arrays that the served editor takes, checked on the way.

Everything here is arithmetic on the manifest; nothing talks to a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serving.contract.arguments import check_whole, shown
from serving.contract.manifest import Manifest
from serving.contract.named_edit import NamedEdit
from serving.contract.tensors import ALPHA, CLASS_ID, DIRECTION
from serving.errors import InvalidEdit

Strength = float | Sequence[float]
"""One alpha for all latent inputs, or one for each of the L."""


def resolve_edit(manifest: Manifest, key: int | str) -> NamedEdit:
    """Turn a direction's index or an edit's name into what it does.

    Args:
        manifest: The served editor.
        key: Index in [0, K), or a name of `manifest.edits`.

    Returns:
        Of a name what it stands for; of an index the direction as it is, with no layers of its own, and its range.

    Raises:
        InvalidEdit: The name is unknown or the index out of range.
    """
    if isinstance(key, str):
        edit = manifest.edits.get(key)
        if edit is None:
            raise InvalidEdit(f"the served model has no named edit {key!r}{_named(key, list(manifest.edits))}")
        return edit
    if isinstance(key, bool) or not isinstance(key, int | np.integer):
        raise InvalidEdit(f"direction must be an index or the name of an edit, got {key!r}")
    if not 0 <= key < manifest.directions.count:
        count = manifest.directions.count
        raise InvalidEdit(
            f"direction must be in [0, {count}), got {key}", field="direction", limits=(0, count), value=int(key)
        )
    return NamedEdit(int(key), alpha=manifest.directions.range_of(int(key)))


def resolve_class(manifest: Manifest, class_id: int | None, class_name: str | None) -> int | None:
    """Choose the class: the one given by number or name, else the model's default.

    Args:
        manifest: The served editor.
        class_id: Number of the class.
        class_name: Its name, compared without case; instead of `class_id`.

    Returns:
        The class number, or None for a generator without classes.

    Raises:
        InvalidEdit: The generator has no classes, the class is unknown, or there is none and no default.
    """
    classes = manifest.generator.classes
    if classes is None:
        if class_id is not None or class_name is not None:
            raise InvalidEdit(f"the generator {manifest.generator.name!r} has no classes")
        return None
    if class_id is not None and class_name is not None:
        raise InvalidEdit("give class_id or class_name, not both")
    if class_name is not None:
        if not isinstance(class_name, str):
            raise InvalidEdit(f"class_name must be a text, got {shown(class_name)}", field="class_name")
        for index, name in enumerate(classes.names):
            if name.casefold() == class_name.casefold():
                return index
        raise InvalidEdit(f"unknown class {class_name!r}: {_suggest(class_name, list(classes.names), 'classes')}")
    if class_id is None:
        if not classes.default:
            raise InvalidEdit("this generator needs a class_id or class_name")
        return classes.default[0]
    check_whole("class_id", class_id)
    limit = len(classes.names)
    if not 0 <= class_id < limit:
        raise InvalidEdit(
            f"class_id must be in [0, {limit}), got {class_id}", field="class_id", limits=(0, limit), value=class_id
        )
    return int(class_id)


def layer_strengths(
    manifest: Manifest, strength: Strength, own: Sequence[int], asked: Sequence[int] | None
) -> NDArray[np.float32]:
    """Spread a strength over the latent inputs.

    Args:
        manifest: The served editor.
        strength: One number, or L numbers.
        own: Layers of a named edit, which `asked` can only narrow. Empty: those that are asked for; where L numbers say
            what each layer gets, all; else the layers that the directions were trained on.
        asked: Layers that the caller names, each in [0, L); None for none.

    Returns:
        Alphas of shape [L], zero at the layers that the edit does not reach.

    Raises:
        InvalidEdit: A layer is out of range, the strength is not finite or of the wrong length, or no layer is left.
    """
    layers = manifest.latent.layers
    alpha = _as_array(strength, np.float32, "alpha")
    if alpha.shape not in ((), (layers,)):
        raise InvalidEdit(f"alpha must be one number or {layers} numbers (one for each layer), got shape {alpha.shape}")
    if not np.isfinite(alpha).all():
        raise InvalidEdit(f"alpha must be finite, got {shown(strength)}")
    for layer in asked if asked is not None else ():
        check_whole("layers", layer)
        if not 0 <= layer < layers:
            raise InvalidEdit(
                f"layers must be in [0, {layers}), got {layer}", field="layers", limits=(0, layers), value=layer
            )
    usual = own or (manifest.directions.layers if asked is None and alpha.ndim == 0 else ()) or range(layers)
    reached = set(usual) & set(range(layers) if asked is None else asked)
    if not reached:
        raise InvalidEdit(f"the edit reaches none of the layers {list(asked or ())}; its own are {list(own)}")
    mask = np.isin(np.arange(layers), sorted(reached))
    return np.where(mask, alpha, np.float32(0)).astype(np.float32)  # [L]


def edit_arrays(
    manifest: Manifest, edits: Mapping[int | str, Strength], layers: Sequence[int] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Write several edits, applied together, as arrays for one row.

    Args:
        manifest: The served editor.
        edits: Strength by direction index or edit name; empty means the unedited image.
        layers: Latent inputs at which the edits act: of named edits that have layers of their own, only these; None for
            each edit's own, and for the directions' (see `layer_strengths`).

    Returns:
        direction [M] int64 and alpha [M, L] float32; without edits M = 1 and alpha = 0.

    Raises:
        InvalidEdit: As `resolve_edit` and `layer_strengths`.
    """
    if not isinstance(edits, Mapping):
        raise InvalidEdit(f"edits must be a table from directions or names to strengths, got {shown(edits)}")
    if layers is not None and (isinstance(layers, str | bytes) or not isinstance(layers, Iterable)):
        raise InvalidEdit(f"layers must be a list of latent inputs, got {shown(layers)}", field="layers")
    directions, alphas = [], []
    for key, strength in edits.items():
        edit = resolve_edit(manifest, key)
        directions.append(edit.direction)
        alphas.append(edit.sign * layer_strengths(manifest, strength, edit.layers, layers))
    if not directions:
        directions, alphas = [0], [np.zeros(manifest.latent.layers, np.float32)]
    return np.asarray(directions, np.int64), np.stack(alphas)


def check_latents(manifest: Manifest, z: ArrayLike) -> NDArray[np.float32]:
    """Check latent codes that the caller brings.

    Args:
        manifest: The served editor.
        z: One code or N >= 1 of them, as the model takes them: z or w [D] or [N, D], w+ [L, D] or [N, L, D].

    Returns:
        Codes of shape [N, D] or [N, L, D], float32.

    Raises:
        InvalidEdit: Wrong size or type, or a row that is not finite.
    """
    name, shape = manifest.latent.input, manifest.latent.shape
    codes = _as_array(z, np.float32, name)
    if codes.ndim == len(shape):
        codes = codes[None]
    if codes.shape[1:] != shape or len(codes) == 0:
        one = ", ".join(map(str, shape))
        raise InvalidEdit(f"{name} must be of shape [N, {one}] or [{one}], got {list(codes.shape)}")
    flat = codes.reshape(len(codes), -1)
    _check_rows(np.isfinite(flat), flat, name)
    return codes


def check_rows(
    manifest: Manifest, z: ArrayLike, direction: ArrayLike, alpha: ArrayLike, class_id: ArrayLike | None
) -> dict[str, NDArray[Any]]:
    """Check a whole request before it is sent.

    Args:
        manifest: The served editor.
        z: Codes, see `check_latents`.
        direction: Direction indices [N, M], each in [0, K); M at least 1 and at most what the model takes.
        alpha: Strengths [N, M, L], finite.
        class_id: Class numbers [N], only for conditional generators.

    Returns:
        The arrays by input name, with the types that the server takes.

    Raises:
        InvalidEdit: A shape is wrong, or a row is out of range; the message names the first such row.
    """
    codes = check_latents(manifest, z)
    count, layers, rows = manifest.directions.count, manifest.latent.layers, len(codes)
    indices = _as_array(direction, np.int64, "direction")
    if indices.ndim != 2 or len(indices) != rows or indices.shape[1] == 0:
        raise InvalidEdit(f"direction must be of shape [{rows}, M] with M >= 1, got {list(indices.shape)}")
    most = manifest.directions.max_edits
    if most is not None and indices.shape[1] > most:
        raise InvalidEdit(f"at most {most} edits can be applied together, got {indices.shape[1]}", field="direction")
    _check_rows((indices >= 0) & (indices < count), indices, "direction", (0, count))
    alphas = _as_array(alpha, np.float32, "alpha")
    wanted = [rows, indices.shape[1], layers]
    if list(alphas.shape) != wanted:
        raise InvalidEdit(f"alpha must be of shape {wanted}, got {list(alphas.shape)}")
    _check_rows(np.isfinite(alphas), alphas, "alpha")
    arrays: dict[str, NDArray[Any]] = {manifest.latent.tensor: codes, DIRECTION: indices, ALPHA: alphas}
    classes = manifest.generator.classes
    if classes is None and class_id is not None:
        raise InvalidEdit(f"the generator {manifest.generator.name!r} has no classes")
    if classes is not None:
        if class_id is None:
            raise InvalidEdit("this generator needs a class_id for each row")
        numbers = _as_array(class_id, np.int64, "class_id")
        if numbers.shape != (rows,):
            raise InvalidEdit(f"class_id must be of shape [{rows}], got {list(numbers.shape)}")
        limit = len(classes.names)
        _check_rows((numbers >= 0) & (numbers < limit), numbers, "class_id", (0, limit))
        arrays[CLASS_ID] = numbers[:, None]  # [N, 1]: Triton knows no scalar per row
    return arrays


def _as_array(values: ArrayLike, dtype: type[np.generic], name: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
        if array.dtype == dtype:
            return _in_order(array)
        if array.dtype.kind not in "iuf":  # numpy would drop the imaginary part, and count dates in nanoseconds
            raise InvalidEdit(f"{name} must be an array of numbers, got {array.dtype}", field=name)
        whole = np.issubdtype(array.dtype, np.integer)
        if dtype is np.int64 and not whole:
            raise InvalidEdit(f"{name} must hold integers, got {array.dtype}")
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused with the row
            return _in_order(array.astype(dtype))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidEdit(
            f"{name} must be an array of numbers: {' '.join(str(error).split())[:200]}", field=name
        ) from error


def _in_order(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array).reshape(array.shape)  # numpy makes one number a list of one


def _check_rows(
    good: NDArray[np.bool_], values: NDArray[Any], name: str, limits: tuple[int, int] | None = None
) -> None:
    """Name the first row with a bad value, and that value."""
    if good.all():  # nearly always, and in every request
        return
    bad = np.argwhere(~good)
    row, value = int(bad[0][0]), values[tuple(bad[0])].item()
    rule = "must be finite" if limits is None else f"must be in [{limits[0]}, {limits[1]})"
    raise InvalidEdit(f"row {row}: {name} {rule}, got {value}", field=name, row=row, limits=limits, value=value)


def _named(name: str, known: list[str]) -> str:
    """Say which edits there are, and how one that was named after the export comes to be among them."""
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    meant = f": did you mean {', '.join(near)}?" if near else ""
    has = f"it has {shown}" if known else "it has none"
    return f"{meant} ({has}); after `latentclr name`, export again and restart the server, or serve with --poll"


def _suggest(name: str, known: list[str], what: str) -> str:
    if not known:
        return f"the model has no {what}"
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    shown = ", ".join(known[:10])
    return f"the {what} are {shown}{', ...' if len(known) > 10 else ''}"
