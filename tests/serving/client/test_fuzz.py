"""Property-based fuzzing of the editor's inputs through a real server.

Whatever comes, each good row is the picture that it would be alone, and each bad row is marked and black.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_editor
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_client import infer_raw

from export.editor import FusedEditor
from latentclr.config import TrainConfig
from latentclr.training.experiment import open_run, trained_generator
from serving import EditClient, TritonServer
from serving.errors import InvalidEdit
from serving.triton.ports import Ports

pytestmark = pytest.mark.filterwarnings("ignore::serving.errors.AlphaWarning")

INT64 = np.iinfo(np.int64)
BAD = [float("nan"), float("inf"), float("-inf")]
HUGE = [3.4e38, -3.4e38, 1e20, -1e30]  # finite, and too much for any generator
HARMLESS = [0.0, -0.0, 1e-45, -1e-30, 19.0, -20.0]

Case = tuple[int, int, int, list[tuple[str, int, int, float]]]
"""N, M, a seed for everything ordinary, and what is spoiled: array, row, place, value."""


def cases(largest: int) -> st.SearchStrategy[Case]:
    place = st.integers(0, 1000)
    numbers = st.one_of(
        st.sampled_from(BAD + HUGE + HARMLESS), st.floats(width=32, allow_nan=True, allow_infinity=True)
    )
    indices = st.one_of(st.integers(-3, 12), st.sampled_from([INT64.min, INT64.max, 2**31, 2**32, -(2**31) - 1]))
    spoiled = st.one_of(
        st.tuples(st.sampled_from(["z", "alpha"]), place, place, numbers),
        st.tuples(st.just("direction"), place, place, indices),
    )
    return st.tuples(
        st.integers(1, largest), st.integers(1, 6), st.integers(0, 2**32 - 1), st.lists(spoiled, max_size=8)
    )


@dataclass(frozen=True)
class Shape:
    """D, K and L of an editor."""

    dim: int
    count: int
    layers: int


def arrays_of(case: Case, shape: Shape) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Make the arrays of a case."""
    rows, edits, seed, spoiled = case
    random = np.random.RandomState(seed)
    arrays = {
        "z": random.randn(rows, shape.dim).astype(np.float32),
        "direction": random.randint(0, shape.count, (rows, edits)),
        "alpha": random.uniform(-6, 6, (rows, edits, shape.layers)).astype(np.float32),
    }
    for name, row, place, value in spoiled:
        flat = arrays[name].reshape(rows, -1)
        flat[row % rows, place % flat.shape[1]] = value
    return arrays["z"], arrays["direction"], arrays["alpha"]


Draw = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], NDArray[np.uint8]]


def check(case: Case, shape: Shape, answer: tuple[NDArray[Any], NDArray[Any]], draw: Draw) -> None:
    """Judge every row of an answer."""
    z, direction, alpha = arrays_of(case, shape)
    images, valid = answer[0], answer[1].reshape(-1)
    finite = np.isfinite(z).all(axis=1) & np.isfinite(alpha).all(axis=(1, 2))
    good = finite & ((direction >= 0) & (direction < shape.count)).all(axis=1)
    assert not valid[~good].any()
    assert not images[~valid].any()
    # What overflows inside, or loses all its digits, has no right picture.
    modest = good & (np.abs(np.nan_to_num(z)).max(axis=1) <= 30) & (np.abs(np.nan_to_num(alpha)).max(axis=(1, 2)) <= 30)
    assert valid[modest].all()
    if modest.any():
        wanted = draw(z[modest], direction[modest], alpha[modest])
        assert np.abs(images[modest].astype(int) - wanted.astype(int)).max() <= 1


OPTIONS: dict[str, Any] = {
    "deadline": None, "derandomize": True, "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}  # fmt: skip
ALL_BAD: Case = (2, 1, 0, [("z", 0, 0, float("nan")), ("direction", 1, 0, INT64.max)])
BESIDE_HUGE: Case = (3, 2, 1, [("alpha", 1, 0, 3.4e38), ("alpha", 1, 1, -3.4e38), ("direction", 2, 1, -1)])
TINY = Shape(tiny_editor.D, tiny_editor.K, tiny_editor.L)


@pytest.mark.parametrize("model", ["latent_edit", "latent_edit_torchscript"])
@settings(max_examples=80, **OPTIONS)
@example(case=ALL_BAD)
@given(case=cases(8))
def test_the_tiny_editor_equals_numpy(server: TritonServer, model: str, case: Case) -> None:
    check(case, TINY, infer_raw(server.grpc_url, model, *arrays_of(case, TINY)), tiny_editor.expected)


@settings(max_examples=60, **OPTIONS)
@example(case=ALL_BAD)
@given(case=cases(20))
def test_the_client_names_the_first_bad_row(client: EditClient, case: Case) -> None:
    z, direction, alpha = arrays_of(case, TINY)
    inside = ((direction >= 0) & (direction < TINY.count)).all(axis=1)
    bad = ~(inside & np.isfinite(z).all(axis=1) & np.isfinite(alpha).all(axis=(1, 2)))
    try:
        images = client.edit_rows(z, direction, alpha).images
    except InvalidEdit as error:
        assert error.row is not None
        assert bad[error.row]
        assert f"row {error.row}: {error.field} must be" in str(error)
    else:
        assert not bad.any()
        assert images.shape == (len(z), 8, 8, 3)


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FusedEditor]]:
    """A real export on a server, and the same editor in eager PyTorch."""
    from export.pipeline import export_run

    repository = tmp_path_factory.mktemp("fuzz")
    export_run(trained, [], repository, "real", max_batch_size=8, say=lambda _: None)
    config, checkpoint = open_run(trained, [], TrainConfig)
    editor = FusedEditor(trained_generator(config, checkpoint), checkpoint.directions).eval()
    with TritonServer(repository, ports=Ports(0, 0, 0)) as running:
        yield running.grpc_url, editor


@pytest.mark.triton
@pytest.mark.parametrize("model", ["real", "real_torchscript"])
@settings(max_examples=80, **OPTIONS)
@example(case=ALL_BAD)
@example(case=BESIDE_HUGE)
@given(case=cases(8))
def test_a_real_export_equals_eager_pytorch(exported: tuple[str, FusedEditor], model: str, case: Case) -> None:
    url, editor = exported

    def draw(*arrays: NDArray[Any]) -> NDArray[np.uint8]:
        with torch.no_grad():
            image, valid = editor(*map(torch.from_numpy, arrays))
        assert valid.all()
        return np.asarray(image.numpy())

    latent = editor.generator.latent
    shape = Shape(latent.dim, editor.directions.k, latent.layers)
    check(case, shape, infer_raw(url, model, *arrays_of(case, shape)), draw)
