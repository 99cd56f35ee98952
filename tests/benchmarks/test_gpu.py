"""What a GPU draws, by every engine of the GPU pack; skipped where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("default"),  # of CUDA libraries that this project's tests have never met
]
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from gpu.engines import COMPILED, ENGINES  # noqa: E402
from gpu.models import Prepared, prepare  # noqa: E402
from gpu.worker import Task, certify, watch_memory  # noqa: E402

CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare("faces", tmp_path_factory.mktemp("gpu"), "cuda")


@pytest.mark.parametrize("name", [name for name in ENGINES if name != COMPILED])
def test_every_engine_draws_what_the_cpu_draws(name: str, prepared: Prepared) -> None:
    if name.startswith("tensorrt"):
        onnxruntime = pytest.importorskip("onnxruntime")
        if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("this ONNX Runtime has no TensorRT")
    if name == "served":
        pytest.importorskip("pytriton")
    with ENGINES[name].make(prepared, CUDA) as engine:
        for rows in (1, 8):
            held = certify(engine, prepared.golden, rows)["holds"]
            assert ("exact" if ENGINES[name].precision == "fp32" else "certified") in held


@pytest.mark.parametrize("name", ["eager", "onnxruntime"])
def test_a_bad_row_hurts_no_other(name: str, prepared: Prepared) -> None:
    """A gather out of range reads garbage on a GPU, where a CPU would raise."""
    with ENGINES[name].make(prepared, CUDA) as engine:
        code, direction, alpha = (array.copy() for array in prepared.golden.request([1, 2, 5]))
        good = engine(code, direction, alpha)
        direction[0], alpha[2] = 10_000, np.nan
        images = engine(code, direction, alpha)
        assert not images[0].any() and not images[2].any()
        assert np.array_equal(images[1], good[1])


def test_memory_stays_flat(prepared: Prepared) -> None:
    task = Task("faces", (), str(prepared.folder), "cuda", (1, 8), 10, 1.0, 2000)
    memory = watch_memory(prepared, CUDA, task)["memory"]["onnxruntime"]
    assert memory["requests"] == 2000
    assert memory["gpu_growth"] <= 0.02
    assert memory["process_growth"] <= 0.02
