"""ONNX and TorchScript graphs: dynamic sizes, bad rows, conditional generators, and the parity check itself."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from tiny_generators import CLASSES, SIZE, LayeredGenerator

import export.parity
from export.editor import MAX_EDITS, FusedEditor
from export.errors import ExportError
from export.onnx import OnnxEditor, export_onnx
from export.parity import EDITED, Judge, check_parity, parity_cases, run_eager, slider_alphas
from export.torchscript import TorchScriptEditor, export_torchscript
from latentclr.method.directions import build_directions
from serving.contract.certificate import GATES, Certificate

K = 4
ALPHAS = [-6.0, -3.0, 1.5, 6.0]


def editor(conditional):
    generator = LayeredGenerator(conditional)
    directions = build_directions("nonlinear", K, generator.latent.dim, torch.Generator().manual_seed(1), depth=3)
    return FusedEditor(generator, directions)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "conditional"])
def exported(request, tmp_path_factory):
    """(editor, ONNX under ONNX Runtime, TorchScript), and the folder of the files."""
    folder = tmp_path_factory.mktemp("graphs")
    made = editor(request.param)
    export_onnx(made, folder / "model.onnx")
    export_torchscript(made, folder / "model.pt")
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "model.pt"]  # weights inside, nothing else
    return made, OnnxEditor(folder / "model.onnx", threads=1), TorchScriptEditor(folder / "model.pt"), folder


def request_of(made, n, m, seed=0):
    rng = np.random.RandomState(seed)
    latent = made.generator.latent
    given = [rng.randn(n, latent.dim).astype(np.float32), rng.randint(K, size=(n, m)).astype(np.int64),
             (3 * rng.randn(n, m, latent.layers)).astype(np.float32)]  # fmt: skip
    return [*given, rng.randint(len(CLASSES), size=n).astype(np.int64)] if made.conditional else given


@pytest.mark.parametrize("n", [1, 2, 5, 17])
@pytest.mark.parametrize("m", [0, 1, 2, 3, 9])
def test_dynamic_sizes(exported, n, m):
    made, *engines, _ = exported
    given = request_of(made, n, m)
    expected, _ = run_eager(made, *given)
    for engine in engines:
        image, valid = engine(*given)
        assert image.shape == (n, SIZE, SIZE, 3)
        assert (image.dtype, valid.dtype) == (np.uint8, np.bool_)
        assert valid.all()
        assert np.abs(image.astype(int) - expected.astype(int)).max() <= 1


def test_bad_rows_on_every_engine(exported):
    made, *engines, _ = exported
    good = request_of(made, 8, 3)
    bad = [array.copy() for array in good]
    bad[0][0, 1] = np.nan
    bad[0][1, 0] = -np.inf
    bad[1][2, 2] = K
    bad[1][3, 0] = -1
    bad[1][4, 1] = 2**62
    bad[2][5, 0, 2] = np.inf
    wrong = [0, 1, 2, 3, 4, 5]
    if made.conditional:
        bad[3][6] = len(CLASSES)
        wrong.append(6)
    for engine in engines:
        clean, _ = engine(*good)
        image, valid = engine(*bad)
        assert np.flatnonzero(~valid).tolist() == wrong
        assert not image[wrong].any()
        rest = [row for row in range(8) if row not in wrong]
        assert np.array_equal(image[rest], clean[rest])  # bit for bit


def test_no_strength_is_the_unedited_image(exported):
    made, *engines, _ = exported
    given = request_of(made, 3, 2)
    given[2] *= 0
    for engine in engines:
        first = engine(*given)[0]
        given[1] = (given[1] + 1) % K  # whatever the direction
        assert np.array_equal(engine(*given)[0], first)


def test_no_edits_are_the_unedited_image_every_time(exported):
    """ONNX Runtime 1.27 to 1.30 drew another picture now and then, and 1.19 to 1.26 none."""
    made, *engines, _ = exported
    for engine in engines:
        for seed in range(5):
            given = request_of(made, 3, 2, seed)
            expected, _ = engine(given[0], given[1], 0 * given[2], *given[3:])
            for _ in range(20):
                image, valid = engine(given[0], given[1][:, :0], given[2][:, :0], *given[3:])
                assert valid.all()
                assert np.array_equal(image, expected)


@pytest.mark.parametrize("m", [MAX_EDITS - 1, MAX_EDITS, MAX_EDITS + 1, 5000])
def test_too_many_edits_are_not_valid_on_any_engine(exported, m):
    made, *engines, _ = exported
    given = request_of(made, 2, m)
    expected, valid = run_eager(made, *given)
    assert valid.tolist() == [m <= MAX_EDITS] * 2
    for engine in engines:
        image, engine_valid = engine(*given)
        assert engine_valid.tolist() == valid.tolist()
        assert np.abs(image.astype(int) - expected.astype(int)).max() <= 1


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from export.onnx import OnnxEditor
from export.torchscript import TorchScriptEditor

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

kind, path = sys.argv[1:]
engine = (OnnxEditor if kind == "onnx" else TorchScriptEditor)(Path(path))
peaks = []
for m in (1, 64, 5000):
    for _ in range(3):
        engine(np.zeros((1, 100), np.float32), np.zeros((1, m), np.int64), np.zeros((1, m, 1), np.float32))
    peaks.append(peak())
print(*peaks)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_memory_of_one_request_is_bounded(kind, faces, tmp_path, start):
    """Five thousand copies of a direction's 100 x 100 numbers would be 190 MiB."""
    made = FusedEditor(faces, build_directions("nonlinear", K, 100, torch.Generator().manual_seed(1), depth=2))
    (export_onnx if kind == "onnx" else export_torchscript)(made, tmp_path / "model")
    process = start(kind, tmp_path / "model", code=MEASURE)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    one, most, beyond = map(float, out.split())
    assert most - one < 40, out
    assert beyond - most < 40, out


def test_onnx_names_types_and_axes(exported):
    made, _, _, folder = exported
    graph = onnx.load(folder / "model.onnx")
    assert graph.opset_import[0].version == 18
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    names = ["z", "direction", "alpha"] + (["class_id"] if made.conditional else [])
    assert list(shapes) == [*names, "image", "valid"]
    assert shapes["z"][1:] == [6]
    assert shapes["alpha"][2:] == [3]
    n, m = shapes["z"][0], shapes["direction"][1]
    assert isinstance(n, str)
    assert isinstance(m, str)
    assert shapes["direction"] == [n, m]
    assert shapes["alpha"][:2] == [n, m]
    assert shapes["image"] == [n, SIZE, SIZE, 3]
    assert shapes["valid"] == [n]


@pytest.mark.slow
@pytest.mark.parametrize("opset", [19, 20])
def test_newer_opsets(tmp_path, opset):
    made = editor(False)
    export_onnx(made, tmp_path / "model.onnx", opset)
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == opset
    (report,) = check_parity(Judge(made, ALPHAS), {"onnx": OnnxEditor(tmp_path / "model.onnx")})
    assert report.worst_step <= 1


@pytest.mark.parametrize("opset", [-1, 17, 21])
def test_opsets_out_of_range(tmp_path, opset):
    with pytest.raises(ExportError, match=rf"opset must be in \[18, 20\].*got {opset}"):
        export_onnx(editor(False), tmp_path / "model.onnx", opset)
    assert not list(tmp_path.iterdir())


def test_engines_refuse_what_is_no_graph(tmp_path):
    (tmp_path / "x").write_bytes(b"no graph")
    with pytest.raises(ExportError, match="ONNX Runtime cannot load"):
        OnnxEditor(tmp_path / "x")
    with pytest.raises(ExportError, match="torch cannot load"):
        TorchScriptEditor(tmp_path / "x")


class Flat(LayeredGenerator):
    """Draws one colour, 0.9 and the code's first number, at any size and in any precision."""

    def __init__(self, side, dtype):
        super().__init__()
        self.resolution, self.dtype = side, dtype

    def synthesize(self, ps, class_id=None):
        colour = (0.9 + ps[:, 0, 0]).to(self.dtype)  # [N]
        return colour[:, None, None, None] * torch.ones(1, 3, self.resolution, self.resolution, dtype=self.dtype)


def flat(side, dtype):
    return FusedEditor(Flat(side, dtype), build_directions("global", K, 6, torch.Generator().manual_seed(1)))


def flat_request():
    z = np.zeros((5, 6), np.float32)
    z[1:, 0] = 0.1, 3e38, -3e38, 0.0  # in half precision the third and fourth are infinite
    return z, np.zeros((5, 1), np.int64), np.zeros((5, 1, 3), np.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_large_good_picture_is_valid_in_any_precision(dtype, tmp_path):
    """Three million pixels of one have a sum that half precision cannot hold, and of 1e33 one that float32 cannot."""
    made = flat(1024, dtype)
    z, direction, alpha = flat_request()
    overflows = dtype is torch.float16  # 3e38 is a number in the others, and its picture is saturated
    if not overflows:
        z[2:4, 0] = np.inf, np.nan
    image, valid = run_eager(made, z, direction, alpha)
    assert valid.tolist() == [True, True, False, False, True]
    assert (image[[0, 4]] == image[0, 0, 0, 0]).all() and (image[1] == 255).all() and not image[2:4].any()
    export_torchscript(made, tmp_path / "model.pt")
    for once_more in range(3):  # TorchScript rewrites a graph after it has seen it run
        image, valid = TorchScriptEditor(tmp_path / "model.pt")(z, direction, alpha)
        assert valid.tolist() == [True, True, False, False, True], once_more


@pytest.fixture(scope="module")
def half_graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("half") / "model.onnx"
    export_onnx(flat(1024, torch.float16), path)
    return path


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_no_optimiser_takes_the_check_for_overflow_away(level, half_graph):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(str(half_graph), options, providers=["CPUExecutionProvider"])
    image, valid = session.run(None, dict(zip(("z", "direction", "alpha"), flat_request(), strict=True)))
    assert valid.tolist() == [True, True, False, False, True]
    assert not image[2:4].any() and image[[0, 1, 4]].all()


def test_the_check_for_overflow_in_half_precision_all_the_way(half_graph):
    """ONNX's reference in numpy adds half precision in half precision, as a GPU without a wider adder would."""
    given = dict(zip(("z", "direction", "alpha"), flat_request(), strict=True))
    with np.errstate(over="ignore"):
        _, valid = ReferenceEvaluator(str(half_graph)).run(None, given)
    assert valid.tolist() == [True, True, False, False, True]


def test_each_direction_is_proven_up_to_its_own_ends():
    made = editor(False)
    made.directions = build_directions("global", 3, 6, torch.Generator().manual_seed(1))
    ranges = [(-1.0, 2.0), (-8.0, 0.5), (-3.0, 3.0)]
    for case in parity_cases(made, slider_alphas(ranges)):
        for which, alpha in zip(case.inputs[1].ravel(), case.inputs[2].reshape(-1, 3), strict=True):
            low, high = ranges[which]
            assert np.all((low <= alpha) & (alpha <= high))
            if case.inputs[1].shape[1] == 1:
                assert set(alpha) <= {low, low / 2, high / 4, high}


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 10, 16, 17, 24, 25, 33, 47, 100])
def test_parity_covers_what_it_promises(k):
    made = editor(True)
    made.directions = build_directions("global", k, 6, torch.Generator().manual_seed(1))
    cases = parity_cases(made, ALPHAS)
    given = [case.inputs for case in cases]
    unedited, alone, combined = ([case for case in given if case[1].shape[1] == m] for m in (0, 1, 3))
    large = [case for case in given if case[1].shape[1] > 3]
    assert {case[1].shape[1] for case in large} == ({7} if k == 100 else set())
    assert {len(case[0]) for case in given} >= {1, 2, 5}
    assert sum(len(case[0]) for case in (*alone, *combined)) == EDITED
    for group in (alone, combined, *([large] if large else [])):
        assert set(np.concatenate([case[1].ravel() for case in group])) == set(range(k))
    assert set(np.concatenate([case[2].ravel() for case in alone])) == set(map(np.float32, ALPHAS))
    for direction in range(k):
        strengths = {
            float(a)
            for case in (*alone, *combined)
            for row, alphas in zip(case[1], np.abs(case[2]).max(2), strict=True)
            for d, a in zip(row, alphas, strict=True)
            if d == direction
        }
        assert len(strengths) >= 2
    per_layer = np.concatenate([case[2].reshape(-1, 3) for case in combined])
    assert any(len(set(row)) == 3 for row in per_layer)
    assert all(len(set(row)) == len(row) for case in (*combined, *large) for row in case[1] if k >= 3)
    assert all(case[3].dtype == np.int64 for case in given)
    drawn = {code: tuple(row) for case in cases if not case.directions[0] for code, row in _rows_of(case)}
    assert len(drawn) == EDITED // 8 == sum(len(case[0]) for case in unedited)
    assert all(drawn[code] == tuple(row) for case in cases for code, row in _rows_of(case))
    pairs = {(code, d) for case in cases for code, row in zip(case.codes, case.directions, strict=True) for d in row}
    assert len(pairs) > min(5 * k, 100)  # a direction meets several codes


def _rows_of(case):
    """Each row's code: its number, and its numbers with its class."""
    rows = np.concatenate([case.inputs[0], case.inputs[3][:, None]], axis=1)
    return zip(case.codes, rows.tolist(), strict=True)


@pytest.mark.parametrize("k", [1024, 1100, 3000])
def test_parity_of_very_many_directions_keeps_the_bound(k):
    made = editor(False)
    made.directions = build_directions("global", k, 6, torch.Generator().manual_seed(1))
    combined = [case.inputs[1] for case in parity_cases(made, ALPHAS) if case.inputs[1].shape[1] > 3]
    assert {direction.shape[1] for direction in combined} == {MAX_EDITS}
    assert set(np.concatenate([direction.ravel() for direction in combined])) == set(range(k))
    alone = np.concatenate(
        [case.inputs[1].ravel() for case in parity_cases(made, ALPHAS) if case.inputs[1].shape[1] == 1]
    )
    assert len(set(alone)) == len(alone) and max(alone) >= 0.9 * (k - 1)


class OffBy:
    """The eager editor, but for one pixel of one picture."""

    def __init__(self, made, steps, valid_too=False):
        self.made, self.steps, self.calls, self.valid_too = made, steps, 0, valid_too

    def __call__(self, *given):
        image, valid = run_eager(self.made, *given)
        self.calls += 1
        if self.calls == 2:
            pixel = image[0, 3, 4, 1]
            image[0, 3, 4, 1] = pixel + self.steps if pixel < 128 else pixel - self.steps
            if self.valid_too:
                valid = ~valid
        return image, valid


def test_parity_numbers():
    made = editor(False)
    (same,) = check_parity(Judge(made, ALPHAS), {"same": lambda *given: run_eager(made, *given)})
    assert dataclasses.asdict(same) == {
        "engine": "same", "precision": "fp32", "images": 225, "worst_step": 0, "mean_step": 0.0, "p999_step": 0,
        "psnr_db": None, "ssim": 1.0, "edit_fidelity": pytest.approx(1), "gate": "exact", "passed": True,
    }  # fmt: skip
    start = "same fp32: 225 images, worst 0/255, mean 0/255, 99.9 % within 0/255, identical, SSIM 1.0000, edit fidelity"
    assert str(same) == f"{start} 1.0000; holds exact"
    (one,) = check_parity(Judge(made, ALPHAS), {"one": OffBy(made, 1)})
    pixels = SIZE * SIZE * 3
    assert (one.worst_step, one.images) == (1, 225)
    assert one.mean_step == pytest.approx(1 / pixels)
    assert one.psnr_db == pytest.approx(10 * np.log10(255**2 * pixels))
    assert Certificate(**one.as_dict()) == one


def test_a_long_proof_is_announced():
    made, lines = editor(False), []
    engine = {"same": lambda *given: run_eager(made, *given)}
    check_parity(Judge(made, ALPHAS), engine, say=lines.append, notice=1e9)
    assert lines == []
    check_parity(Judge(made, ALPHAS), engine, say=lines.append, notice=0.0)
    (line,) = lines
    assert re.fullmatch(r"parity of 225 images takes about .+; Ctrl-C ends it, and nothing is published", line)


def test_two_steps_in_one_pixel_fail():
    made = editor(False)
    message = (
        r"parity failed, nothing is published: bad fp32: .*worst 2/255, .*; MISSES exact: "
        r"worst step 2 instead of at most 1 \(unedited pictures\)"
    )
    with pytest.raises(ExportError, match=message):
        check_parity(Judge(made, ALPHAS), {"good": lambda *given: run_eager(made, *given), "bad": OffBy(made, 2)})


@pytest.mark.parametrize(("wrong", "named"), [
    ({2, 5}, r"directions 2, 5"), (set(range(1, 20)), r"directions 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 7 more"),
])  # fmt: skip
def test_the_directions_that_fail_are_named(wrong, named):
    """An engine in which some directions have the weights of the first."""
    made = editor(False)
    made.directions = build_directions("global", 20, 6, torch.Generator().manual_seed(1))

    def engine(z, direction, alpha):
        return run_eager(made, z, np.where(np.isin(direction, list(wrong)), 0, direction), alpha)

    message = rf"engine int8: .*; MISSES certified: .*edit fidelity \S+ instead of at least 0.98 \({named}\)$"
    with pytest.raises(ExportError, match=message):
        check_parity(Judge(made, ALPHAS), {"engine": engine}, gate=GATES["certified"], precision="int8")


def test_eager_pictures_are_drawn_once(monkeypatch):
    made, calls = editor(False), []
    monkeypatch.setattr(export.parity, "run_eager", lambda *given: (calls.append(1), run_eager(*given))[1])
    judge = Judge(made, ALPHAS, edited=16)
    for _ in range(2):
        comparison = judge.compare({"same": lambda *given: run_eager(made, *given)})["same"]
        assert comparison.measured()["worst_step"] == 0
    assert len(calls) == len(judge.cases)


def test_what_eager_itself_cannot_draw_proves_nothing():
    made = editor(False)
    line = r"own picture is not finite for directions [\d, ]+ with strengths up to \S+e\+38"
    with pytest.raises(ExportError, match=line):
        check_parity(Judge(made, [3e38, -3e38]), {"same": lambda *given: run_eager(made, *given)})


def test_other_faults_of_an_engine_fail():
    made = editor(False)

    def eager(*given):
        return run_eager(made, *given)

    def halved(*given):
        image, valid = eager(*given)
        return image[:, ::2], valid

    def floating(*given):
        image, valid = eager(*given)
        return image.astype(np.float32), valid

    def trusting(*given):  # reports every row as good
        image, valid = eager(*given)
        return image, np.ones_like(valid)

    def contagious(*given):  # one bad row darkens all
        image, valid = eager(*given)
        return (image if valid.all() else image // 2), valid

    def showing(*given):  # shows what a bad row would have been
        image, valid = eager(*given)
        return np.where(valid[:, None, None, None], image, 7).astype(np.uint8), valid

    def lost(*given):  # without edits
        image, valid = eager(*given)
        return (image, valid) if given[1].size else (0 * image, ~valid)

    def boundless(*given):  # applies any number of edits, here of strength zero
        return eager(given[0], given[1][:, :3], given[2][:, :3], *given[3:])

    for engine in (halved, floating, trusting, contagious, showing, lost, boundless, OffBy(made, 0, valid_too=True)):
        with pytest.raises(ExportError):
            check_parity(Judge(made, ALPHAS), {"engine": engine})
