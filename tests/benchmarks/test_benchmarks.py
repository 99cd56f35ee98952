"""Every benchmark runs with tiny settings and ends in one JSON line that says how it was made."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from latentclr.commands import run_train
from serving.contract.openvino_engine import has_bf16

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"

needs_faces = pytest.mark.skipif(
    importlib.util.find_spec("gan_face_generate") is None, reason="the face generator's weights are not installed"
)
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("pytriton") is None, reason="nvidia-pytriton is not installed"
)


def run(script: str, *options: str) -> Result:
    """Run a script in this process, where torch is imported already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", [str(BENCHMARKS / script), *options])
        main = importlib.import_module(script.removesuffix(".py")).main
        result = CliRunner().invoke(main, options, prog_name=script)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception  # what a user would see as a stack trace
    return result


def run_apart(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script as people do, in a process of its own."""
    command = [sys.executable, str(BENCHMARKS / script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def record(script: str, *options: str, random_weights: bool = False, apart: bool = False) -> dict[str, Any]:
    if apart:
        process = run_apart(script, *options)
        code, stdout, stderr = process.returncode, process.stdout, process.stderr
    else:
        result = run(script, *options)
        code, stdout, stderr = result.exit_code, result.stdout, result.stderr
    assert code == 0, stderr
    last: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    assert last["benchmark"] == script.removesuffix(".py")
    assert last["machine"]["cpu"] and last["machine"]["cores"] >= 1
    assert {"python", "torch", "numpy"} <= set(last["versions"])
    assert last["command"].startswith(f"python benchmarks/{script}")
    assert last["random_weights"] is random_weights
    assert last["results"]
    assert all({"name", "value", "met"} <= set(entry) for entry in last["targets"])
    assert str(ROOT) not in stdout.splitlines()[-1]
    return last


def rounding(longest_sum: int, smallest_change: float) -> float:
    """Bound how far apart rounding may take two ways of computing one gradient, relative to its largest entry.

    Features are sums of up to n = `longest_sum` products and then of unit length, so that float32, whose eps is 2^-23,
    leaves them wrong by eps sqrt(n) where the errors of a sum are independent. An edit's change is the difference of
    two of them, wrong by eps sqrt(2 n), and is itself scaled to unit length: relative to its length before,
    `smallest_change`, that error is what the loss and its gradient are computed from.

    It takes codes enough for the batch norms. Of two codes they make +1 and -1 whatever the codes are; of the gradient
    only what their eps of 1e-5 leaves comes through, and that is rounding.
    """
    return 2.0**-23 * math.sqrt(2 * longest_sum) / smallest_change


@pytest.mark.slow
@needs_faces
def test_training_step_shows_equal_losses_before_it_times(tmp_path: Path) -> None:
    output = tmp_path / "step.json"
    options = ["--layers", "main.2", "--k", "3", "--batch-size", "4", "--runs", "2", "--threads", "1"]
    got = record("training_step.py", *options, "--no-large", "--output", str(output), "--note", "a test")
    assert json.loads(output.read_text()) == got
    assert got["note"] == "a test"
    assert got["command"].endswith("--output step.json --note 'a test'")
    rows = {row["way"]: row for row in got["results"]}
    assert list(rows) == ["origin", "lean", "lean chunked", "lean bf16"]
    assert rows["lean"]["loss_difference"] <= 1e-4
    # 100 latent numbers make each feature of main.2; with seed 0 the smallest change is 0.11 long.
    assert rows["lean"]["gradient_difference"] <= rounding(100, 0.11)  # 1.5e-5
    assert all(row["runs"] == 2 and row["peak_mib"] > 0 for row in rows.values())
    assert got["targets"][0]["at_least"] == 2.5


@needs_faces
@needs_triton
@pytest.mark.full
def test_edit_latency_compares_all_engines(tmp_path: Path) -> None:
    got = record("edit_latency.py", "--batch", "1,2", "--runs", "2", "--threads", "1", apart=True)
    openvino = (
        ["openvino f32", *(["openvino bf16"] if has_bf16() else [])] if importlib.util.find_spec("openvino") else []
    )
    engines = ["eager", "torchscript", "onnxruntime", *openvino, "served, EditClient", "served, raw gRPC"]
    assert [(row["batch"], row["engine"]) for row in got["results"]] == [(n, name) for n in (1, 2) for name in engines]
    assert all(row["worst_step"] <= 1 for row in got["results"] if row["engine"] != "openvino bf16")
    assert all(row["p50_ms"] <= row["p99_ms"] for row in got["results"])
    assert all(row["gflop_per_image"] > 0 and row["gflops"] > 0 for row in got["results"])
    assert got["results"][engines.index("served, raw gRPC")]["server"]["compute_infer_ms"] > 0
    assert got["settings"]["triton"]
    assert [entry["at_most"] for entry in got["targets"] if entry["name"].startswith("served")] == [1.0, 1.0]
    assert got["targets"][-1]["name"] == "all engines in float32: worst difference of a pixel, steps"


@pytest.mark.full
def test_edit_latency_compares_with_the_reference_and_keeps_the_export(tmp_path: Path) -> None:
    folder, output = tmp_path / "kept", tmp_path / "latency.json"
    options = ["--generator", "stylegan2", "--resolution", "16", "--batch", "1,2", "--runs", "2", "--requests", "2",
               "--threads", "1", "--no-serve", "--folder", str(folder), "--output", str(output)]  # fmt: skip
    got = record("edit_latency.py", *options, random_weights=True, apart=True)
    engines = ["grouped reference", "eager", "torchscript", "onnxruntime"]
    assert [row["engine"] for row in got["results"] if row["batch"] == 2][:4] == engines
    assert all(row["worst_step"] <= 1 for row in got["results"] if row["engine"] != "openvino bf16")
    assert got["settings"]["speed_up_over"] == "grouped reference"
    assert got["settings"]["directions"] == "untrained"
    assert got["settings"]["export_peak_mib"] > 0
    exported = {path: path.stat().st_mtime_ns for path in folder.rglob("model.*")}
    record("edit_latency.py", *options, random_weights=True, apart=True)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.*")} == exported

    picture = tmp_path / "latency.png"
    done = run("plot_latency.py", str(output), "--output", str(picture))
    assert done.exit_code == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
def test_edit_latency_without_publishing() -> None:
    options = ["--generator", "stylegan3-r", "--batch", "1", "--runs", "1", "--requests", "1", "--seconds", "0"]
    got = record("edit_latency.py", *options, "--no-publish", random_weights=True)
    assert [row["engine"] for row in got["results"]] == ["plain operations", "eager", "onnxruntime"]
    assert got["settings"]["generator"] == "stylegan3-r" and got["settings"]["export_s"] is None
    assert [entry["name"] for entry in got["targets"]] == [
        "onnxruntime: times faster than plain operations at batch 1",
        "all engines in float32: worst difference of a pixel, steps",
    ]


@pytest.mark.full
def test_precision_of_a_run_and_its_picture(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "precision.json"
    options = ["--run", str(trained), "--edited", "8", "--runs", "2", "--seconds", "0", "--output", str(output)]
    got = record("precision.py", *options)
    rows = {row["engine"]: row for row in got["results"]}
    assert {"eager", "onnxruntime fp32", "onnxruntime fp16"} <= rows.keys()
    assert rows["onnxruntime fp32"]["gate"] == "exact" and rows["onnxruntime fp32"]["speed_up"] > 0
    assert rows["onnxruntime fp16"]["kept"] == "0 of 2" and "p50_ms" not in rows["onnxruntime fp16"]
    (point,) = got["settings"]["frontiers"]["onnxruntime fp16"]["points"]
    assert point["passed"] and point["best"] and point["proven"] and point["gate_share"] < 1
    bf16 = got["settings"]["frontiers"].get("openvino bf16")
    assert (bf16 is not None) == (has_bf16() or "avx512f" in got["machine"]["cpu_flags"])
    if bf16 is not None:
        assert (bf16["unit"] == "ms") == has_bf16() and ("speed_up_below" in bf16) != has_bf16()
    assert set(got["settings"]["matrix_product_peak_gops"]) == {"float32", "bfloat16", "int8"}

    picture = tmp_path / "precision.png"
    done = run("plot_precision.py", str(output), "--output", str(picture))
    assert done.exit_code == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
def test_training_step_of_stylegan2_shows_equal_losses_before_it_times() -> None:
    options = ["--generator", "stylegan2", "--resolution", "8", "--k", "3", "--batch-size", "4", "--runs", "2"]
    got = record("training_step.py", *options, "--threads", "1", "--no-memory", random_weights=True, apart=True)
    rows = {row["way"]: row for row in got["results"]}
    assert rows["lean"]["loss_difference"] <= 1e-4
    # A 3 x 3 convolution of 512 channels; with seed 0 the smallest change of an edit of alpha 1 is 0.024 long.
    assert rows["lean"]["gradient_difference"] <= rounding(512 * 9, 0.024)  # 4.8e-4
    assert got["settings"]["alpha"] == 1.0


@pytest.mark.slow
@needs_faces
def test_discovery_reads_the_clock_from_outside() -> None:
    got = record("discovery.py", "--iterations", "3", "--threads", "1", "hparams.batch_size=2", "k=2", "eval_iters=1")
    times = got["results"][0]
    assert 0 < times["start_s"] < times["whole_s"]
    assert times["fit_s"] < times["whole_s"]
    assert times["step_p50_ms"] > 0
    assert "hparams.iterations=3" in got["settings"]["train"]


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("edit_latency.py", ["--run", "nowhere"], "nowhere"),
        ("edit_latency.py", ["--resolution", "128"], "the faces have 64 pixels, got 128"),
        ("edit_latency.py", ["--resolution", "128", "--no-publish"], "the faces have 64 pixels, got 128"),
        ("edit_latency.py", ["--no-publish", "--tier", "openvino:bf16"], "leave out --no-publish"),
        ("edit_latency.py", ["--generator", "biggan", "--resolution", "100"], "must be one of 128, 256, 512"),
        ("plot_latency.py", ["pyproject.toml"], "pyproject.toml is no JSON"),
        ("plot_precision.py", ["pyproject.toml"], "pyproject.toml is no JSON"),
        ("precision.py", ["--quality", "good"], "quality must be exact, certified or numbers"),
        ("edit_latency.py", ["--batch", "0"], "expected numbers of at least 1"),
        ("training_step.py", ["--layers", "main.99"], "main.99"),
        ("discovery.py", ["k=1"], "k must be at least 2"),
        ("directions.py", ["--recipe", "today"], "--recipe must be NAME=OVERRIDES"),
        ("attributes_limit.py", ["benchmarks", "--attributes", "hapy"], "did you mean 'happy'?"),
    ],
)
@needs_faces
def test_bad_input_is_one_line_and_exit_code_2(script: str, options: list[str], message: str) -> None:
    done = run(script, *options)
    assert done.exit_code == 2
    assert message in done.stderr.splitlines()[-1]


def test_no_gpu_is_one_line() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run_apart("edit_latency.py", "--device", "cuda")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["Error: --device cuda: PyTorch finds no GPU here"]


def gpu_pack(folder: Path, engines: str, *options: str) -> dict[str, Any]:
    output = folder / "gpu.json"
    words = ["--device", "cpu", "--quick", "--engines", engines, "--batch", "1,2", "--folder", str(folder / "kept")]
    got = record("gpu_pack.py", *words, "--output", str(output), *options, random_weights=True)
    assert json.loads(output.read_text()) == got
    rows = {(row["engine"], row["batch"]): row for row in got["results"]}
    for engine in engines.split(","):
        if "left_out" in rows.get((engine, None), {}):
            assert rows[engine, None]["left_out"] == "needs a GPU"
            continue
        for batch in (1, 2):
            row = rows[engine, batch]
            assert 0 < row["p50_ms"] <= row["p99_ms"] and row["images_per_s"] > 0
            assert row["certificate"]["images"] == 8 and row["certificate"]["holds"] == ["exact", "certified"]
    assert got["targets"][0] == {"name": "rows in fp32 that are not exact", "value": 0, "at_most": 0, "met": True}
    return got


@needs_faces
@pytest.mark.full
def test_the_gpu_pack_stands_without_a_gpu(tmp_path: Path) -> None:
    got = gpu_pack(tmp_path, "eager,eager cuda-graph,onnxruntime", "--requests", "0")
    assert got["results"][0]["engine"] == "prepare" and got["results"][0]["onnx_s"] > 0
    assert [row["engine"] for row in got["results"] if "left_out" in row] == ["eager cuda-graph"]
    # A second call measures nothing again.
    again = gpu_pack(tmp_path, "eager,onnxruntime", "--requests", "0")
    assert again["results"] == [row for row in got["results"] if "certificate" in row]


@needs_faces
@needs_triton
@pytest.mark.full
def test_every_row_of_the_gpu_pack_that_a_cpu_can_have(tmp_path: Path) -> None:
    engines = "eager,eager channels-last,torchscript,onnxruntime,served,onnxruntime fp16,tensorrt,tensorrt tf32"
    got = gpu_pack(tmp_path, engines, "--requests", "200", "--row-seconds", "1")
    (memory,) = [row["memory"] for row in got["results"] if row["engine"] == "memory"]
    assert all(memory[name]["process_growth"] < 0.05 for name in ("onnxruntime", "served"))
    assert [entry["name"].partition(":")[0] for entry in got["targets"][1:]] == ["onnxruntime", "served"]


@needs_faces
@pytest.mark.full
def test_pages_in_a_browser(trained: Path, tmp_path: Path) -> None:
    got = record("web.py", "--run", str(trained), "--seconds", "0.5", "--folder", str(tmp_path))
    rows = got["results"]
    assert [(row["page"], row["way"].partition(",")[0]) for row in rows] == [("faces", "wasm")] * 2
    assert all(row["mean_step"] <= 0.5 and row["peak_mib"] > 0 and row["dragged_per_s"] > 0 for row in rows)
    assert got["targets"][0]["value"] == rows[0]["graph_mb"] < 1


@pytest.mark.full
@needs_faces
def test_scoring(trained: Path) -> None:
    got = record("scoring.py", "--run", str(trained), "--threads", "1", "--runs", "1", "codes=24")
    assert got["results"][0]["threads"] == 1 and got["results"][0]["pictures_per_s"] > 0
    assert got["settings"]["scorers"] == ["pixels", "faces"] and got["targets"] == []


@pytest.mark.full
@needs_faces
def test_encoders_of_a_style_network_that_was_trained_here(tmp_path: Path) -> None:
    weights, run_folder = tmp_path / "tiny.safetensors", tmp_path / "run"
    done = run("tiny_stylegan2.py", str(weights), "--steps", "2")
    assert done.exit_code == 0 and json.loads(done.stdout.splitlines()[-1])["steps"] == 2
    words = ["generator=stylegan2", f"generator.weights={weights}", "generator.feature_layer=convs.3", "k=2",
             "model=nonlinear", "hparams.iterations=2", "hparams.batch_size=2", "eval_iters=1", "tensorboard=false",
             f"output_dir={run_folder}"]  # fmt: skip
    assert run_train(words)
    plot = tmp_path / "encoder.png"
    options = ["--run", str(run_folder), "--steps", "1,2", "--folder", str(tmp_path / "encoders"), "--plot", str(plot)]
    got = record("encoder.py", *options)
    assert [row["steps"] for row in got["results"]] == [1, 2] and got["settings"]["space"] == "w+"
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert record("encoder.py", *options)["results"] == got["results"]  # nothing is done twice

    shutil.copy(tmp_path / "encoders" / "2" / "encoder.safetensors", run_folder)
    pictures = [tmp_path / "photos.png", tmp_path / "keep.png"]
    got = record("photos.py", "--run", str(run_folder), "--pictures", "4", "--steps", "2", "--plot", str(pictures[0]),
                 "--keep-plot", str(pictures[1]))  # fmt: skip
    ways = ["mean picture", "encoder", "refined", "refined without encoder"]
    assert [row["way"] for row in got["results"]] == ways and got["targets"] == []
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.full
def test_served_precision(trained: Path) -> None:
    got = record("served_precision.py", "--run", str(trained), "--rounds", "2", "--seconds", "0.2",
                 "--tier", "openvino int8", "--batch", "2")  # fmt: skip
    ways = [row["way"] for row in got["results"]]
    assert ways[:3] == ["eager", "served, onnxruntime fp32", "served, openvino fp32"]
    assert all(row["images_per_s"] > 0 for row in got["results"])


@pytest.mark.full
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_preview(engine: str) -> None:
    got = record("preview.py", "--resolution", "32", "--preview", "16", "--engine", engine, "--runs", "2",
                 "--pictures", "2", random_weights=True)  # fmt: skip
    assert [(row["way"], row["pixels"]) for row in got["results"]] == [
        ("session", 16), ("session", 32), ("served, edit", 32), ("served, preview", 16),
    ]  # fmt: skip
    assert got["targets"][0]["met"]
