"""Equality with the origin's reference code, from its own checkpoint files (1e-5 for directions, projectors, loss)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from latentclr.errors import CheckpointError
from latentclr.method.loss import contrastive_loss
from latentclr.origin.files import directions_from_origin, projector_from_origin
from latentclr.pictures.render import walk_codes

KINDS = {"global": ("global", 1), "linear": ("linear", 1), "nonlinear_depth1": ("nonlinear", 1),
         "nonlinear_depth3": ("nonlinear", 3)}  # fmt: skip
TOLERANCE = 1e-5


def model_state(folder: Path, name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / name / "best_model.pt", weights_only=True)["model"]
    return state


def close(got: torch.Tensor, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    assert np.abs(got.detach().numpy() - expected).max() <= TOLERANCE


@pytest.mark.parametrize("name", KINDS)
def test_directions(golden_folder, golden, name):
    directions = directions_from_origin(model_state(golden_folder, name), *KINDS[name])
    assert (directions.k, directions.dim, directions.kind, directions.training) == (4, 16, KINDS[name][0], False)
    z = torch.from_numpy(golden["z"])  # [5, 16]
    all_edited = z + 0.7 * directions(z)  # [4, 5, 16]
    close(all_edited.flatten(0, 1), golden[f"{name}.forward_alpha0.7"])
    index = torch.arange(4).expand(5, 4)  # [5, 4]
    for alpha in (-1.5, 2.0):
        single = z[:, None] + alpha * directions.select(z, index)  # [5, 4, 16]
        close(single.transpose(0, 1), golden[f"{name}.forward_single_alpha{alpha}"])


@pytest.mark.parametrize("name", KINDS)
def test_iterative_walk(golden_folder, golden, name):
    directions = directions_from_origin(model_state(golden_folder, name), *KINDS[name])
    walks = [walk_codes(directions, z[None], [1], [1.0, 2.0, 3.5], iterative=True) for z in torch.tensor(golden["z"])]
    close(torch.cat(walks).transpose(0, 1), golden[f"{name}.walk_k1_alphas_1_2_3.5"])  # [3, 5, 16]


@pytest.mark.parametrize(("kind", "depth"), [("identity", 3), ("linear", 3), ("nonlinear", 3)])
def test_projectors(golden_folder, golden, kind, depth):
    state = torch.load(golden_folder / f"projector_{kind}.pt", weights_only=True)
    projector = projector_from_origin(state, kind, depth)
    close(projector(torch.from_numpy(golden["projector.input"])), golden[f"projector.{kind}"])


@pytest.mark.parametrize("use_abs", [True, False])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("temp", [0.5, 2.0])
def test_loss(golden, use_abs, reduce, temp):
    loss, accuracy = contrastive_loss(torch.from_numpy(golden["loss.features"]), 4, temp, use_abs, reduce)
    expected_accuracy, expected_loss = golden[f"loss.abs={use_abs}.reduce={reduce}.temp={temp}"]
    assert accuracy.item() == expected_accuracy
    assert abs(loss.item() - expected_loss) <= TOLERANCE


def edited(state, **changes):
    return {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}


@pytest.mark.parametrize(
    ("name", "changes", "kind", "depth", "message"),
    [
        ("global", {}, "linear", 1, "missing"),
        ("linear", {}, "global", 1, "missing"),
        ("linear", {}, "bilinear", 1, "must be global, linear or nonlinear, got 'bilinear'"),
        ("linear", {"nets.2.linear_1.bias": None}, "linear", 1, r"missing \['nets.2.linear_1.bias'\]"),
        ("linear", {"nets.1.linear_1.weight": None, "nets.1.linear_1.bias": None}, "linear", 1, "numbered"),
        ("linear", {"extra": torch.zeros(1)}, "linear", 1, r"unexpected \['extra'\]"),
        ("linear", {"nets.3.linear_1.weight": torch.zeros(16, 15)}, "linear", 1, r"\[16, 16\], got \[16, 15\]"),
        ("linear", {"nets.3.linear_1.bias": torch.zeros(16, 1)}, "linear", 1, "1 dimension"),
        ("linear", {"nets.3.linear_1.bias": "text"}, "linear", 1, "got str"),
        ("nonlinear_depth3", {}, "nonlinear", 2, "unexpected"),
        ("nonlinear_depth3", {}, "nonlinear", 4, "missing"),
        ("nonlinear_depth3", {}, "nonlinear", 0, "at least 1, got 0"),
        ("nonlinear_depth3", {"nets.0.linear_3.bias": torch.zeros(16)}, "nonlinear", 3, "unexpected"),
        ("global", {"params": torch.zeros(0, 16)}, "global", 1, "empty"),
    ],
)
def test_directions_refused(golden_folder, name, changes, kind, depth, message):
    state = edited(model_state(golden_folder, name), **changes)
    with pytest.raises(CheckpointError, match=message):
        directions_from_origin(state, kind, depth)


@pytest.mark.parametrize(
    ("saved", "changes", "kind", "depth", "message"),
    [
        ("linear", {}, "identity", 1, "unexpected"),
        ("identity", {}, "linear", 1, "missing"),
        ("nonlinear", {}, "nonlinear", 2, "unexpected"),
        ("nonlinear", {}, "cubic", 2, "identity, linear or nonlinear"),
        ("nonlinear", {}, "nonlinear", 0, "at least 1"),
        ("linear", {"Projector.linear_1.bias": torch.zeros(10)}, "linear", 1, "no copy"),
        ("nonlinear", {"net.linear_2.weight": torch.zeros(16, 9), "Projector.linear_2.weight": None}, "nonlinear", 3,
         r"\[\*, 16\], got \[16, 9\]"),
        ("nonlinear", {"net.batchnorm_1.bias": torch.zeros(9), "Projector.batchnorm_1.bias": None}, "nonlinear", 3,
         "do not fit together"),
    ],
)  # fmt: skip
def test_projectors_refused(golden_folder, saved, changes, kind, depth, message):
    state = edited(torch.load(golden_folder / f"projector_{saved}.pt", weights_only=True), **changes)
    with pytest.raises(CheckpointError, match=message):
        projector_from_origin(state, kind, depth)
