"""Reduced precision: float16 and int8 graphs, the search for what stays in float32, and what is said of it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper
from PIL import Image
from torch import nn

import export.precision
from export.editor import FusedEditor
from export.errors import ExportError
from export.frontier import frontier_picture, frontier_table
from export.half import HalfGraph, half_nodes, typed
from export.int8 import Int8Graph
from export.onnx import OnnxEditor, export_onnx
from export.operations import find_operations
from export.options import TritonOptions
from export.parity import Judge, check_parity, parity_cases, run_eager
from export.precision import Built, Clock, Operation, search
from export.reduced import calibration_samples, check_precision, export_reduced, reference_of, why_none
from latentclr.generators.base import Generator, LatentSpec
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.method.directions import build_directions
from serving.contract.certificate import GATES, Gate
from serving.contract.manifest import parse_manifest

K, ALPHAS = 3, [-3.0, 1.5, 3.0]
CERTIFIED, LOOSE = GATES["certified"], Gate.parse("psnr=15")


class Loud(Generator):
    """Four convolutions on 8 x 8 pixels, of which the second's sums go to a hundred thousand and come back at once."""

    name = "loud"

    def __init__(self, loudness=1e5):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.latent, self.resolution = LatentSpec(dim=8, layers=1, sampler="standard_normal"), 8
        self.feature_layers = ("picture",)
        self.weights = nn.ParameterList(torch.randn(c, 8, 3, 3, generator=rng) / 72**0.5 for c in (8, 8, 8, 3))
        self.places = nn.Parameter(torch.randn(8, 8, 8, generator=rng))
        self.loudness = loudness
        self.weights[1].data *= loudness
        self.weights_sha256 = "0" * 64
        self.freeze()

    def synthesize(self, ps, class_id=None):
        x = ps[:, 0, :, None, None] * self.places  # [N, 8, 8, 8]
        for i, weight in enumerate(self.weights):
            x = torch.tanh(F.conv2d(x, weight, padding=1) / (self.loudness if i == 1 else 1.0))
        return x

    def features(self, ps, layer, class_id=None):
        return self.synthesize(ps)

    def inputs_reaching(self, layer):
        return 1


def fused(generator):
    directions = build_directions("global", K, generator.latent.dim, torch.Generator().manual_seed(1))
    return FusedEditor(generator, directions)


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    editor, path = fused(Loud()), tmp_path_factory.mktemp("loud") / "model.onnx"
    export_onnx(editor, path)
    return editor, path


def style_tensors():
    return random_tensors(8, n_mlp=1, dim=16, width=16)


@pytest.fixture(scope="module")
def styled(tmp_path_factory):
    editor, path = fused(StyleGAN2(style_tensors())), tmp_path_factory.mktemp("styled") / "model.onnx"
    export_onnx(editor, path)
    return editor, path


@pytest.fixture(scope="module")
def judges(styled):
    return Judge(styled[0], ALPHAS, seed=1, edited=8), Judge(styled[0], ALPHAS)


@pytest.fixture
def samples(styled):
    return calibration_samples(styled[0], [(-3.0, 3.0)] * K)


def test_the_operations_of_a_graph(styled):
    graph = find_operations(onnx.load(styled[1]))
    names = [operation.name for operation in graph.operations]
    assert [name for name in names if name.startswith("conv")][:3] == ["conv1", "convs.0", "convs.0.blur_down"]
    assert sum(operation.cost for operation in graph.operations) == pytest.approx(1)
    assert max(graph.operations, key=lambda one: one.cost).name == "convs.1"
    nodes = onnx.load(styled[1]).graph.node
    assert all(nodes[i].op_type in ("Conv", "ConvTranspose", "MatMul") for i in graph.nodes.values())
    assert {nodes[i].op_type for i in graph.between} >= {"LeakyRelu", "Mul", "Add"}
    assert not {"Where", "Floor", "GatherND", "Gemm"} & {nodes[i].op_type for i in graph.between}


@pytest.mark.parametrize("kept", ["none", "one", "all"])
def test_a_typed_graph(styled, judges, tmp_path, kept):
    lowered = HalfGraph(styled[1])
    names = [operation.name for operation in lowered.operations]
    keep = frozenset({"none": [], "one": ["convs.0"], "all": names}[kept])
    built = lowered.build(keep, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx"]
    model = onnx.load(built.files[0])
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {TensorProto.FLOAT, TensorProto.INT64}
    for name, index in lowered.graph.nodes.items():
        (node,) = (n for n in model.graph.node if n.name == lowered.model.graph.node[index].name)
        expected = TensorProto.FLOAT if name in keep else TensorProto.FLOAT16
        assert {kinds[given] for given in node.input if given in kinds} <= {expected}, name
    types = {kinds[name] for name in kinds}
    assert (TensorProto.FLOAT16 in types) == (kept != "all")
    found = judges[0].compare({"twin": built.engine, "typed": OnnxEditor(built.files[0], threads=1)})
    steps = {name: comparison.measured() for name, comparison in found.items()}
    assert all(measured["worst_step"] <= (1 if kept == "all" else 3) for measured in steps.values())
    assert not CERTIFIED.misses(steps["twin"])
    if kept == "all":
        assert steps["twin"] == steps["typed"]
    else:
        assert steps["twin"]["mean_step"] > 0.005  # it does round


def test_what_follows_a_kept_operation_stays_in_float32(styled):
    lowered = HalfGraph(styled[1])
    everything = half_nodes(lowered.model, lowered.graph, [])
    some = half_nodes(lowered.model, lowered.graph, ["convs.0"])
    nodes = lowered.model.graph.node
    left = [nodes[i].op_type for i in sorted(everything - some)]
    assert left[0] == "ConvTranspose" and left[1:] == ["Mul"]  # up to the blur, which is an operation of its own
    assert not some - everything
    with pytest.raises(KeyError):
        half_nodes(lowered.model, lowered.graph, ["nonsense"])


def test_a_half_that_overflows_is_found_and_stays_in_float32(loud, tmp_path):
    """A CPU does not notice: ONNX Runtime computes a float16 graph in float32 there."""
    editor, path = loud
    lowered, ranking, judge = HalfGraph(path), Judge(editor, ALPHAS, seed=1, edited=8), Judge(editor, ALPHAS)
    built = lowered.build(frozenset(), tmp_path)
    with pytest.raises(ExportError, match=r"parity failed|valid is"):
        check_parity(Judge(editor, ALPHAS), {"twin": built.engine}, CERTIFIED, "fp16")
    lines = []
    found = search(lowered, ranking, judge, CERTIFIED, tmp_path / "search", say=lines.append)
    assert lines == ["fp16 misses the gate where all is lowered: ranking 4 operations"]
    assert found.best is not None and found.best.keep == {"weights.1"}
    assert found.best.proven and found.best.measured["images"] == 225
    assert not found.points[0].passed
    assert found.best.cost == pytest.approx(100 * 8 / 27, rel=0.01)


def test_large_styles_draw_the_same_picture_and_fit_into_half(judges):
    """Demodulation takes a factor of the style out again; without it conv1's sums would be beyond 65504."""
    tensors = style_tensors()
    plain = StyleGAN2(tensors)
    for key in [key for key in tensors if "conv" in key and "modulation" in key and "rgb" not in key]:
        tensors[key] = tensors[key] * 1e4
    large = StyleGAN2(tensors)
    z = plain.sample(2, torch.Generator().manual_seed(0))
    ps = plain.encode(z)[:, None].expand(-1, plain.latent.layers, -1)
    expected = plain.synthesize(ps)
    assert torch.allclose(large.synthesize(ps), expected, atol=1e-4)
    seen = []
    hooked = F.conv2d

    def conv2d(x, *rest, **options):
        seen.append(float(x.abs().max()))
        return hooked(x, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "conv2d", conv2d)
        large.synthesize(ps)
    assert max(seen) < 100
    zero = {
        **style_tensors(),
        "conv1.conv.modulation.bias": torch.zeros(16),
        "conv1.conv.modulation.weight": torch.zeros(16, 16),
    }
    assert torch.isfinite(StyleGAN2(zero).synthesize(ps)).all()


def test_int8_holds_a_loose_gate_and_misses_a_strict_one(styled, judges, samples, tmp_path):
    _, path = styled
    lowered = Int8Graph(path, samples, tmp_path)
    assert not list(tmp_path.iterdir())
    assert all(operation.name.startswith("conv") for operation in lowered.operations)
    built = lowered.build(frozenset(), tmp_path)
    model = onnx.load(built.files[0])
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node}
    weights = [made[node.input[1]] for node in model.graph.node if node.op_type == "Conv" and node.input[1] in made]
    assert len(weights) == len(lowered.operations)
    for node in weights:  # per channel and symmetric
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name in node.input}
        assert node.op_type == "DequantizeLinear" and kinds[node.input[0]] == TensorProto.INT8
        assert constants[node.input[1]].shape == constants[node.input[0]].shape[:1]
        assert not constants[node.input[2]].any()
    ranking, judge = judges
    loose = search(lowered, ranking, judge, LOOSE, tmp_path / "loose")
    assert loose.best is not None and not loose.best.keep and loose.best.measured["images"] == 225
    strict = search(lowered, ranking, judge, Gate.parse("psnr=90"), tmp_path / "strict")
    assert strict.best is None and len(strict.points) >= 2
    assert [len(point.keep) for point in strict.points] == sorted(len(point.keep) for point in strict.points)
    line = why_none(strict)
    kept = max(len(point.keep) for point in strict.points)
    assert f"int8 misses psnr=90 even with {kept} of {len(lowered.operations)} operations in float32: PSNR " in line
    assert re.search(r"instead of at least 90 \(directions ", line)


def test_a_graph_whose_weights_were_nudged_fails(styled, tmp_path):
    editor, path = styled
    file = HalfGraph(path).build(frozenset(), tmp_path).files[0]
    check_parity(Judge(editor, ALPHAS), {"onnxruntime": OnnxEditor(file, threads=1)}, CERTIFIED, "fp16")
    model = onnx.load(file)
    (weight,) = (t for t in model.graph.initializer if t.name == "generator.convs.1.weight_float16")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float16(1.05), weight.name))
    bias = next(t for t in model.graph.initializer if t.name == "generator.to_rgbs.0.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.05), bias.name))
    onnx.save(model, file)
    with pytest.raises(ExportError, match=r"nothing is published: onnxruntime fp16: .* MISSES certified: mean step"):
        check_parity(Judge(editor, ALPHAS), {"onnxruntime": OnnxEditor(file, threads=1)}, CERTIFIED, "fp16")


def test_no_faster_is_not_published(styled, judges, samples, tmp_path, monkeypatch):
    editor, path = styled
    reference = OnnxEditor(path)
    monkeypatch.setattr(export.precision, "_seconds", lambda engine, inputs: 1.0 if engine is reference else 2.0)
    monkeypatch.setattr(export.precision, "CLOCK_S", 0.0)
    clock = Clock(reference, tuple(tensor.numpy() for tensor in editor.example_inputs(1, 1)))
    lowered = Int8Graph(path, samples, tmp_path)
    found = search(lowered, *judges, LOOSE, tmp_path / "s", clock)
    assert found.best is None and len(found.points) == 1  # no ranking: whatever is kept is no faster still
    assert re.fullmatch(
        r"onnxruntime int8 holds psnr=15 with 0 of \d+ operations in float32, and is no faster: \S+ ms, float32 \S+",
        why_none(found),
    )
    found = search(lowered, *judges, Gate.parse("psnr=90"), tmp_path / "s", clock)
    line = r"onnxruntime int8 is no faster than float32 here \(\S+ ms, float32 \S+\), and misses psnr=90: PSNR"
    assert re.match(line, why_none(found))


def test_the_smallest_operations_are_also_tried_in_float32(styled, judges, tmp_path, monkeypatch):
    monkeypatch.setattr(export.precision, "CLOCK_S", 0.0)
    monkeypatch.setattr(export.precision, "SMALL", 0.05)
    editor, path = styled
    lowered = HalfGraph(path)
    request = tuple(tensor.numpy() for tensor in editor.example_inputs(1, 1))
    found = search(lowered, *judges, CERTIFIED, tmp_path / "s", Clock(OnnxEditor(path), request))
    small = {operation.name for operation in lowered.operations if operation.cost < export.precision.SMALL}
    assert small and [point.keep for point in found.points] == [frozenset(), small]
    assert all(point.passed for point in found.points)
    fast = [point for point in found.points if point.cost < export.precision.FASTER * found.reference]
    assert found.best == min(fast, key=lambda point: point.cost, default=None)


class Faulty:
    """A graph that draws as eager PyTorch, until it is in its `faults`: number of the picture -> what it draws."""

    engine, precision = "faulty", "int8"

    def __init__(self, editor, costs=(1.0,), faults=None):
        self.editor, self.faults = editor, faults or {}
        self.operations = [Operation(str(number), cost) for number, cost in enumerate(costs)]
        self.kept, self.drawn = [], 0

    def build(self, keep, folder):
        self.kept.append(keep)
        self.drawn = 0
        return Built([], self.draw)

    def draw(self, *given):
        image, valid = run_eager(self.editor, *given)
        for row in range(len(image)):
            image[row] = self.faults.get(self.drawn + row, lambda picture: picture)(image[row])
        self.drawn += len(image)
        return image, valid


def dark(picture):
    return picture // 4


def unedited_at(judge, number):
    """What a picture of the judge's is without its edit."""
    rows = [(case, row) for case in judge.cases for row in range(len(case.codes))]
    case, row = rows[number]
    code, direction, alpha, *rest = (array[row : row + 1] for array in case.inputs)
    image, _ = run_eager(judge.editor, code, direction[:, :0], alpha[:, :0], *rest)
    return lambda picture: image[0]


def test_an_unfaithful_edit_does_not_end_the_proof(styled, tmp_path):
    """One of a hundred edits may be; what comes after it counts all the same."""
    editor, gate = styled[0], Gate.parse("mean=255,fidelity=0.98")
    ranking, judge = Judge(editor, ALPHAS, seed=1, edited=8), Judge(editor, ALPHAS)
    first = ranking.images  # after the ranking's pictures come the proof's
    strong = {first + number: unedited_at(judge, number) for number in (30,)}
    held = search(Faulty(editor, faults=strong), ranking, judge, gate, tmp_path)
    assert held.best is not None and held.best.measured["images"] == judge.images == 225
    early = strong | {first - 1: unedited_at(ranking, first - 1)}  # one of the few that operations are ranked on
    assert search(Faulty(editor, faults=early), ranking, judge, gate, tmp_path).best is not None
    more = strong | {first + number: unedited_at(judge, number) for number in (31, 32)}
    missed = search(Faulty(editor, faults=more), ranking, judge, gate, tmp_path)
    assert missed.best is None
    late = strong | {first + number: dark for number in range(150, 225)}
    missed = search(Faulty(editor, faults=late), ranking, judge, CERTIFIED, tmp_path)
    assert missed.best is None and missed.points[0].proven and "PSNR" in missed.points[0].why


def test_a_graph_all_in_float32_is_not_another_precision(styled, judges, tmp_path, monkeypatch):
    """Even where the clock's error would have it faster than itself."""
    monkeypatch.setattr(export.precision, "CLOCK_S", 0.0)
    monkeypatch.setattr(export.precision, "SMALL", 2.0)
    editor, lowered = styled[0], Faulty(styled[0], (0.5, 0.5))
    request = tuple(tensor.numpy() for tensor in editor.example_inputs(1, 1))
    search(lowered, *judges, CERTIFIED, tmp_path, Clock(lambda *given: run_eager(editor, *given), request))
    assert frozenset({"0", "1"}) not in lowered.kept


def test_a_clock_lets_each_be_first(monkeypatch):
    order = []
    monkeypatch.setattr(export.precision, "CLOCK_S", 0.0)
    clock = Clock(lambda *given: order.append("reference"), ())
    order.clear()
    clock.ms(lambda *given: order.append("engine"))
    pairs = list(zip(order[1::2], order[2::2], strict=True))  # after the warm-up
    assert {*pairs} == {("reference", "engine"), ("engine", "reference")}
    assert len(pairs) == export.precision.CLOCK_RUNS


def test_table_and_picture(loud, tmp_path):
    editor, path = loud
    ranking, judge = Judge(editor, ALPHAS, seed=1, edited=8), Judge(editor, ALPHAS, edited=16)
    found = search(HalfGraph(path), ranking, judge, CERTIFIED, tmp_path / "s")
    lines = frontier_table(found)
    assert lines[0].split()[:3] == ["in", "float32", "float32"] and lines[0].endswith("certified")
    assert lines[1].split()[:4] == ["4", "of", "4", "100.0"]
    assert sum(line.endswith("holds <") for line in lines) == 1
    assert len(lines) == 2 + len(found.points)
    frontier_picture(found, tmp_path / "frontier.png", "loud")
    with Image.open(tmp_path / "frontier.png") as picture:
        assert picture.size == (640, 360)


def test_calibration_has_each_directions_own_range_and_other_codes(styled):
    editor, _ = styled
    ranges = [(-1.0, 2.0), (-4.0, 0.5), (-3.0, 3.0)]
    given = calibration_samples(editor, ranges)
    for direction, (low, high) in enumerate(ranges):
        alphas = np.concatenate([alpha[..., 0][which == direction] for _, which, alpha in given])
        assert alphas.min() == pytest.approx(low) and alphas.max() == pytest.approx(high)
    codes = {row.tobytes() for code, *_ in given for row in code}
    assert not codes & {row.tobytes() for case in parity_cases(editor, ALPHAS) for row in case.inputs[0]}
    assert not codes & {row.tobytes() for case in parity_cases(editor, ALPHAS, seed=1) for row in case.inputs[0]}


@pytest.mark.parametrize(
    ("precision", "engines", "options", "message"),
    [
        ("fp8", None, {}, "precision must be one of fp32, bf16, fp16, int8, got 'fp8'"),
        ("int8", ("torchscript",), {}, "torchscript is published in fp32 only"),
        ("bf16", ("onnxruntime",), {}, "ONNX Runtime has no bfloat16 arithmetic on CPUs: --engine openvino has"),
        ("fp16", ("openvino",), {}, "fp16 is for GPUs, which onnxruntime serves"),
        ("fp16", None, {"target": "cpu"}, "fp16 is for GPUs: .* got target cpu"),
        ("fp32", None, {"tensorrt": "fp16"}, "--tensorrt fp16 needs --precision fp16, got fp32"),
        ("fp16", None, {"tensorrt": "fp32"}, "--tensorrt fp32 needs --precision fp32, got fp16"),
        ("int8", None, {"tensorrt": "fp16"}, "--tensorrt fp16 needs --precision fp16, got int8"),
        (
            "fp32",
            ("openvino", "torchscript"),
            {"cuda": {"use_tf32": "0"}},
            "TensorRT and CUDA options are ONNX Runtime's, got --engine openvino torchscript",
        ),
    ],
)
def test_what_does_not_go_together(precision, engines, options, message):
    with pytest.raises(ExportError, match=message):
        check_precision(precision, engines, TritonOptions(**options), lambda line: None)


def test_engines_by_default():
    lines = []
    assert check_precision("fp32", None, TritonOptions(tensorrt="fp32"), lines.append) == ("onnxruntime", "torchscript")
    assert check_precision("fp16", None, TritonOptions(tensorrt="fp16"), lines.append) == ["onnxruntime"]
    assert check_precision("bf16", None, TritonOptions(), lines.append) == ["openvino"]
    assert check_precision("bf16", None, TritonOptions(), lambda line: None, "int8") == ["openvino"]
    assert check_precision("int8", ("onnxruntime",), TritonOptions(), lines.append) == ("onnxruntime",)
    only = [("fp16", "onnxruntime"), ("bf16", "openvino")]
    assert lines == [f"{precision}: only for {engine}; TorchScript stays in fp32" for precision, engine in only]


def test_a_published_half(run, invoke, tmp_path):
    repository = tmp_path / "repository"
    result = invoke("export", run, "--repository", repository, "--name", "half", "--precision", "fp16",
                    "--tensorrt", "fp16", "--target", "gpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "fp16: only for onnxruntime; TorchScript stays in fp32" in result.stdout
    assert f"time against error: {run / 'precision_onnxruntime_fp16.png'}" in result.stdout
    assert re.search(r"^onnxruntime fp16: 225 images, .*; holds certified$", result.stdout, re.M)
    assert [path.name for path in repository.iterdir() if not path.name.startswith(".")] == ["half"]
    manifest = json.loads(re.search(r'string_value: "(\{.*\})"', (repository / "half" / "config.pbtxt").read_text())[1]
                          .replace('\\"', '"'))  # fmt: skip
    assert parse_manifest(json.dumps(manifest)).precision == "fp16"
    assert manifest["parity"]["onnxruntime"]["gate"] == "certified"
    assert 'value: "FP16"' in (repository / "half" / "config.pbtxt").read_text()
    initializers = onnx.load(repository / "half" / "1" / "model.onnx").graph.initializer
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in initializers}


def test_outside_the_gate_nothing_is_published(run, invoke, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(export.precision, "CLOCK_S", 0.0)
    words = ("export", run, "--repository", tmp_path / "new")
    result = invoke(*words, "--precision", "fp16", "--quality", "psnr=100,fidelity=1")
    line = result.stderr.splitlines()[-1]
    assert result.exit_code == 2 and line.startswith("Error: nothing is published: onnxruntime fp16 misses psnr=100,")
    assert "(directions " in line and "instead of at least 100" in line
    assert (run / "precision_onnxruntime_fp16.png").exists()
    assert "quality must be exact, certified or numbers" in refused(invoke(*words, "--quality", "good"))
    assert "int8 needs convolutions (ONNX Runtime has none that are transposed), and there are none" in refused(
        invoke(*words, "--precision", "int8")
    )
    line = refused(invoke(*words, "--precision", "int8", "--engine", "torchscript"))
    assert "torchscript is published in fp32 only" in line
    assert not (tmp_path / "new").exists()


def test_a_read_only_run_is_published_without_its_picture(loud, tmp_path):
    editor, _ = loud
    lines = []
    reference = reference_of(editor, [(-3.0, 3.0)] * K, tmp_path / "float32")
    made, _ = export_reduced(
        reference, ["onnxruntime"], "fp16", CERTIFIED, tmp_path, pictures=Path("/proc/none"), say=lines.append
    )
    assert made.all_files and any(line.startswith("no picture of time against error: ") for line in lines)


class Clamped(Loud):
    """With a bound on one side alone, which ONNX writes as an input that is not there; and a bias that is computed."""

    def synthesize(self, ps, class_id=None):
        x = ps[:, 0, :, None, None] * self.places
        x = F.conv2d(x, self.weights[0], padding=1).clamp(max=1.0)
        x = torch.tanh(F.conv2d(x, self.weights[2], ps[:, 0].mean(0), padding=1))
        return torch.tanh(F.conv2d(x, self.weights[3], padding=1))


def test_inputs_that_are_not_there_and_biases_that_are_computed(tmp_path):
    editor, path = fused(Clamped()), tmp_path / "model.onnx"
    export_onnx(editor, path)
    assert any("" in node.input for node in onnx.load(path).graph.node if node.op_type == "Clip")
    (tmp_path / "half").mkdir()
    built = HalfGraph(path).build(frozenset(), tmp_path / "half")
    assert onnx.load(built.files[0]).graph.node
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert sum(len(node.input) > 2 for node in nodes) == 1
    lowered = Int8Graph(path, calibration_samples(editor, [(-3.0, 3.0)] * K), tmp_path)
    assert len(lowered.operations) == len(nodes) - 1
    lowered.build(frozenset(), tmp_path)


def test_what_overflows_is_not_calibrated_with(loud, tmp_path):
    editor, path = loud
    with pytest.raises(ExportError, match="int8 cannot be calibrated: an edit within the sliders overflows"):
        Int8Graph(path, calibration_samples(editor, [(-3e38, 3e38)] * K), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_weights_of_a_half_are_split_off(loud, tmp_path, monkeypatch):
    editor, path = loud
    monkeypatch.setattr("export.reduced.export_onnx", lambda editor, target, opset: shutil.copy(path, target))
    monkeypatch.setattr("export.reduced.split_weights", lambda path, weights: split(path, weights, 1000))
    reference = reference_of(editor, [(-3.0, 3.0)] * K, tmp_path / "float32")
    made, (certificate,) = export_reduced(reference, ["onnxruntime"], "fp16", CERTIFIED, tmp_path)
    assert certificate.passed and [path.name for path in made.all_files] == ["model.onnx", "generator.bin"]
    image, valid = OnnxEditor(made.files["onnxruntime"])(*(t.numpy() for t in editor.example_inputs(2, 1)))
    assert valid.all() and image.any()


def split(path, weights, larger_than):
    from export.onnx import split_weights

    return split_weights(path, weights, larger_than)


def test_a_typed_graph_takes_weights_that_are_too_large(loud):
    lowered = HalfGraph(loud[1])
    half = half_nodes(lowered.model, lowered.graph, [])
    with pytest.MonkeyPatch.context() as patch:
        tensor = next(t for t in lowered.model.graph.initializer if t.name == "generator.weights.1")
        large = numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e6), tensor.name)
        patch.setattr(lowered, "model", onnx.ModelProto.FromString(lowered.model.SerializeToString()))
        next(t for t in lowered.model.graph.initializer if t.name == tensor.name).CopyFrom(large)
        made = typed(lowered.model, half)  # without a warning; the search finds it
    weight = next(t for t in made.graph.initializer if t.name == "generator.weights.1_float16")
    assert np.isinf(numpy_helper.to_array(weight)).any()
