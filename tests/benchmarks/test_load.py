"""The load generator, and the two benchmarks that are made of it, against the real server."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_benchmarks import BENCHMARKS, needs_faces, needs_triton, record, run, run_apart
from tritonclient.grpc import service_pb2 as pb

sys.path.insert(0, str(BENCHMARKS))
from common.report import BenchmarkError
from load.wire import Prepared, load_requests, save_requests, serialise
from soak import growth


def answer(image: np.ndarray, valid: np.ndarray) -> bytes:
    return pb.ModelInferResponse(raw_output_contents=[image.tobytes(), valid.tobytes()]).SerializeToString()


def prepared() -> Prepared:
    image = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    return Prepared(b"message", image, np.array([True, False]))


def test_a_right_answer_has_no_fault_and_may_differ_by_one_step() -> None:
    request = prepared()
    assert request.fault(answer(request.image, request.valid), pixels=True) is None
    assert request.fault(answer(request.image + 1, request.valid), pixels=True) is None


def test_a_wrong_answer_is_told_by_what_is_wrong() -> None:
    request = prepared()
    assert "the first of 96 bytes, got [48, 2]" in (request.fault(answer(request.image[:1], request.valid), True) or "")
    marks = request.fault(answer(request.image, ~request.valid), pixels=False)
    assert marks == "expected valid [True, False], got [False, True]"
    assert request.fault(answer(request.image + 2, request.valid), pixels=False) is None
    assert "got 2" in (request.fault(answer(request.image + 2, request.valid), pixels=True) or "")


def test_requests_survive_their_file(tmp_path: Path) -> None:
    save_requests([prepared(), prepared()], tmp_path / "requests.npz")
    first, second = load_requests(tmp_path / "requests.npz")
    assert first.message == second.message == b"message"
    assert (first.image == prepared().image).all()
    assert first.valid.tolist() == [True, False]


def test_a_request_holds_its_arrays_and_asks_for_both_outputs() -> None:
    z = np.arange(6, dtype=np.float32).reshape(2, 3)
    message = pb.ModelInferRequest.FromString(serialise("model", {"z": z}, ("image", "valid")))
    assert (message.model_name, message.inputs[0].datatype, list(message.inputs[0].shape)) == ("model", "FP32", [2, 3])
    assert message.raw_input_contents[0] == z.tobytes()
    assert [output.name for output in message.outputs] == ["image", "valid"]


def test_growth_compares_the_end_with_the_time_after_warm_up() -> None:
    warming = [{"mib": value} for value in (10, 50, 100, 100, 100, 100, 100, 100, 110, 110)]
    assert growth(warming, "mib") == pytest.approx(0.1)
    assert growth([{"mib": 100.0}] * 5, "mib") == 0
    with pytest.raises(BenchmarkError, match="at least 5 samples"):
        growth(warming[:4], "mib")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shapes", "2"], "expected INSTANCESxTHREADS such as 1x0,2x1, got '2'"),
        (["--rates", "0.5,x"], "--rates: expected numbers in (0, 2)"),
        (["--repository", "none"], "none holds no model latent_edit"),
        (["--repository", "none", "--run", "other"], "give --run or --repository, not both"),
    ],
)
def test_serving_load_refuses_what_it_cannot_do(options: list[str], message: str) -> None:
    done = run("serving_load.py", *options)
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("load")
    done = run_apart("export_model.py", str(folder), "--threads", "1")
    assert done.returncode == 0, done.stderr
    return str(folder / "models")


@needs_faces
@needs_triton
@pytest.mark.full
def test_serving_load_measures_waiting_clients_and_arrivals(repository: str, tmp_path: Path) -> None:
    table, picture = tmp_path / "load.csv", tmp_path / "load.png"
    got = record(
        "serving_load.py", "--clients", "1,16", "--rows", "1,2", "--rates", "0.5", "--shapes", "1x1",
        "--repository", repository, "--max-batch-size", "4", "--seconds", "1", "--csv", str(table),
        "--plot", str(picture), apart=True,
    )  # fmt: skip
    one, sixteen, arrivals, *pairs = got["results"]
    assert [row["clients"] for row in got["results"]] == [1, 16, None, 1, 16]
    assert [row["request_rows"] for row in got["results"]] == [1, 1, 1, 2, 2]
    assert all(row["rows"] == 2 * row["requests"] for row in pairs)
    assert all(row["errors"] == 0 and row["requests"] > 0 for row in got["results"])
    assert all(row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] <= row["max_ms"] for row in got["results"])
    assert set(one["batch_sizes"]) == {"1"}  # the warm-up's larger batches are not among them
    assert one["mean_batch"] == 1 < sixteen["mean_batch"] <= 4
    assert 0 < sixteen["invalid_rows"] < sixteen["rows"] / 4
    assert sixteen["compute_ms"] > 0 < sixteen["queue_ms"]
    assert arrivals["rate"] == pytest.approx(0.5 * max(one["requests_per_s"], sixteen["requests_per_s"]), abs=0.1)
    assert arrivals["late_p99_ms"] is not None
    assert [entry["name"].split(":")[0] for entry in got["targets"]] == [
        "requests with an error", *2 * ["16 clients, requests of 1, 1x1"], *2 * ["16 clients, requests of 2, 1x1"]
    ]  # fmt: skip
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["Concurrency"] for row in rows] == ["1", "16", "", "1", "16"]
    assert [row["Request Rate"] for row in rows] == ["", "", str(arrivals["rate"]), "", ""]
    assert float(rows[1]["p50 latency"]) == pytest.approx(1000 * sixteen["p50_ms"], abs=1)
    with Image.open(picture) as drawn:
        assert drawn.width > 1000


@needs_faces
@needs_triton
@pytest.mark.full
def test_soak_counts_errors_and_watches_memory(repository: str, tmp_path: Path) -> None:
    options = ["--repository", repository, "--requests", "1500", "--plot", str(tmp_path / "soak.png")]
    got = record("soak.py", *options, apart=True)
    assert got["settings"]["figures"]["requests"] + got["settings"]["figures"]["errors"] >= 1000
    assert got["settings"]["figures"]["errors"] == 0
    assert [row["done"] for row in got["results"]] == sorted(row["done"] for row in got["results"])
    assert all(row["server_mib"] > 10 and row["model_mib"] > 10 for row in got["results"])
    assert [entry["at_most"] for entry in got["targets"]] == [0, 0.02, 0.02]
    with Image.open(tmp_path / "soak.png") as drawn:
        assert drawn.height > 500
