"""Weights of the origin's trainer (github.com/catlab-team/latentclr) as this package's modules.

Its checkpoints keep K separate networks, `nets.{k}.linear_1.weight` and so on; here they are stacked to [K, ...].
Conversion is strict: a tensor that is missing, left over or of another shape is an error, never a guess.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from latentclr.errors import CheckpointError, first_reason
from latentclr.method.directions import Directions, build_directions
from latentclr.method.projectors import LinearProjector, NonlinearProjector, Projector

_NETWORK = re.compile(r"nets\.(\d{1,6})\.", re.ASCII)
_ALIAS = "Projector."  # the origin registers the projector's network twice, under `net.` and under this


def directions_from_origin(
    state: Mapping[str, Tensor], kind: str, depth: int = 1, normalize: bool = True
) -> Directions:
    """Stack the origin's direction model.

    Args:
        state: The checkpoint's `model`: `params` [K, D] (global), or for each k in [0, K) `nets.{k}.linear_{i}.weight`
            [D, D], `.bias` [D] and between two of them `nets.{k}.batchnorm_{i}.*` [D]. As in the origin the last
            Linear has no bias when depth > 1, and the one Linear of depth 1 always has one.
        kind: `global`, `linear` or `nonlinear`.
        depth: Linears of a nonlinear model, at least 1; the others have none or one.
        normalize: Whether directions get unit length.

    Returns:
        The same directions, in inference mode, float32.

    Raises:
        CheckpointError: `kind` or `depth` is out of range, or the tensors are not those of such a model.
    """
    if kind not in ("global", "linear", "nonlinear"):
        raise CheckpointError(f"the origin's model must be global, linear or nonlinear, got {kind!r}")
    if depth < 1:
        raise CheckpointError(f"the depth of the origin's model must be at least 1, got {depth}")
    if kind == "global":
        _check_names(state, ["params"], "a global model")
        params = _checked(state, "params", 2)
        stacked, k, dim = {"params": params}, *params.shape
    else:
        stacked, k, dim = _stacked(state, depth if kind == "nonlinear" else 1, kind)
    if k < 1 or dim < 1:
        raise CheckpointError(f"the origin's {kind} model is empty: {k} directions over {dim} values")
    directions = build_directions(kind, k, dim, torch.Generator().manual_seed(0), depth, normalize)
    directions.load_state_dict(stacked)
    return directions.eval()


def projector_from_origin(state: Mapping[str, Tensor], kind: str, depth: int = 3, normalize: bool = True) -> Projector:
    """Rebuild the origin's projector; sizes are read from the tensors.

    Args:
        state: The checkpoint's `projector`: `net.linear_{i}.*`, `net.batchnorm_{i}.*`; the origin stores the same
            tensors again under `Projector.*`, which must then be equal.
        kind: `identity`, `linear` or `nonlinear`.
        depth: Linears of a nonlinear projector, at least 1.
        normalize: Whether projected features get unit length.

    Returns:
        The same projector, in inference mode, float32.

    Raises:
        CheckpointError: `kind` or `depth` is out of range, or the tensors are not those of such a projector.
    """
    if kind not in ("identity", "linear", "nonlinear"):
        raise CheckpointError(f"the origin's projector must be identity, linear or nonlinear, got {kind!r}")
    if depth < 1:
        raise CheckpointError(f"the depth of the origin's projector must be at least 1, got {depth}")
    own = {name: tensor for name, tensor in state.items() if not name.startswith(_ALIAS)}
    for name, tensor in state.items():
        twin = own.get("net." + name.removeprefix(_ALIAS))
        if name.startswith(_ALIAS) and (twin is None or not torch.equal(tensor, twin)):
            raise CheckpointError(f"the origin's projector holds {name!r}, which is no copy of its `net.` tensor")
    what = f"a {kind} projector" + (f" of depth {depth}" if kind == "nonlinear" else "")
    names = [] if kind == "identity" else _names(depth, "net.") if kind == "nonlinear" else _names(1, "net.", norms=1)
    _check_names(own, names, what)
    rng = torch.Generator().manual_seed(0)
    projector = Projector(normalize)
    if kind != "identity":
        shapes = [_checked(own, f"net.linear_{i + 1}.weight", 2).shape for i in range(depth if kind != "linear" else 1)]
        middle = shapes[0][0]
        # Before anything is allocated: the layers must fit each other.
        for i, (before, after) in enumerate(itertools.pairwise(shapes)):
            if after[1] != middle or before[0] != middle:
                raise CheckpointError(
                    f"the origin's net.linear_{i + 2}.weight must be [*, {middle}], got {list(after)}"
                )
        if kind == "linear":
            projector = LinearProjector(shapes[0][1], middle, rng, normalize)
        else:
            projector = NonlinearProjector(shapes[0][1], middle, shapes[-1][0], depth, rng, normalize)
    _load(projector, own, what)
    return projector.eval()


def _stacked(state: Mapping[str, Tensor], depth: int, kind: str) -> tuple[dict[str, Tensor], int, int]:
    """Return (this package's state, K, D) of K networks."""
    found = {int(match[1]) for name in state if (match := _NETWORK.match(name))}
    what = f"a {kind} model of depth {depth}"
    if found != set(range(len(found))):
        raise CheckpointError(f"the origin's networks must be numbered 0, 1, ...; found {sorted(found)[:10]}")
    k = max(1, len(found))
    parts = _names(depth)
    _check_names(state, [f"nets.{j}.{part}" for j in range(k) for part in parts], what)
    dim = _checked(state, "nets.0.linear_1.weight", 2).shape[1]

    def stack(part: str) -> Tensor:
        wanted = [] if part.endswith("tracked") else [dim, dim] if "linear" in part and "weight" in part else [dim]
        tensors = [_checked(state, f"nets.{j}.{part}", len(wanted)) for j in range(k)]
        for j, tensor in enumerate(tensors):
            if list(tensor.shape) != wanted:
                raise CheckpointError(f"the origin's nets.{j}.{part} must be {wanted}, got {list(tensor.shape)}")
        return torch.stack(tensors)  # [K, ...]

    ours = {"linear.weight": "weights.{}", "linear.bias": "biases.{}", "batchnorm.weight": "gains.{}",
            "batchnorm.bias": "shifts.{}", "batchnorm.running_mean": "mean_{}",
            "batchnorm.running_var": "var_{}"}  # fmt: skip
    stacked = {}
    for part in parts:
        layer, leaf = part.split(".")
        block, number = layer.split("_")
        if (name := ours.get(f"{block}.{leaf}")) is not None:
            stacked[name.format(int(number) - 1)] = stack(part)
    return stacked, k, dim


def _names(depth: int, prefix: str = "", norms: int | None = None) -> list[str]:
    """Return the tensor names of one network: `depth` Linears, a batch norm after each but the last."""
    names, norms = [], depth - 1 if norms is None else norms
    for i in range(1, depth + 1):
        names.append(f"{prefix}linear_{i}.weight")
        if i < depth or depth == 1:
            names.append(f"{prefix}linear_{i}.bias")
        if i <= norms:
            parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            names += [f"{prefix}batchnorm_{i}.{part}" for part in parts]
    return names


def _check_names(state: Mapping[str, Tensor], expected: Sequence[str], what: str) -> None:
    missing = [name for name in expected if name not in state]
    unexpected = sorted(set(state) - set(expected))
    if missing or unexpected:
        raise CheckpointError(
            f"not {what} of the origin: missing {missing[:4] or 'nothing'}, unexpected {unexpected[:4] or 'nothing'}"
        )


def _checked(state: Mapping[str, Tensor], name: str, dims: int) -> Tensor:
    tensor = state[name]
    if not isinstance(tensor, Tensor) or tensor.ndim != dims:
        came = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise CheckpointError(f"the origin's {name} must be a tensor of {dims} dimension(s), got {came}")
    return tensor.float()


def _load(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    try:
        module.load_state_dict(dict(state))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the tensors of {what} of the origin do not fit together: {first_reason(error)}"
        ) from None
