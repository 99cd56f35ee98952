"""OpenVINO: its graph in float32, bfloat16 and int8, its configuration, and the editor served by it."""

from __future__ import annotations

import gc
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import tritonclient.grpc as triton
from google.protobuf import text_format
from tiny_generators import LayeredGenerator
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import InferenceServerException

if importlib.util.find_spec("openvino") is None:  # to import it here would start its telemetry
    pytest.skip("OpenVINO is not installed", allow_module_level=True)

import serving.contract.openvino_engine as engine
from export.editor import FusedEditor
from export.engines import export_graphs
from export.errors import ExportError
from export.onnx import export_onnx
from export.openvino import OpenVINOEditor, export_openvino
from export.openvino_lowered import BFloat16Graph, Int8Graph
from export.options import TritonOptions
from export.parity import Judge, check_parity, run_eager
from export.pipeline import export_run
from export.repository import rollback
from export.triton_config import model_config
from latentclr.config import TrainConfig
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.method.directions import build_directions
from latentclr.training.experiment import open_run, trained_generator
from serving import EditClient
from serving.contract.openvino_engine import OpenVINOError, Runner, compile_model, has_bf16
from serving.doctor.repository_checks import check_models
from serving.triton.ports import Ports
from serving.triton.server import TritonServer

K = 4
ALPHAS = [-6.0, -3.0, 1.5, 6.0]


@pytest.fixture(scope="module")
def drawn(trained, tmp_path_factory) -> tuple[FusedEditor, Path]:
    """The trained run's editor and its ONNX file."""
    config, checkpoint = open_run(trained, [], TrainConfig)
    made, path = (
        FusedEditor(trained_generator(config, checkpoint), checkpoint.directions),
        tmp_path_factory.mktemp("onnx"),
    )
    return made, export_graphs(made, ["onnxruntime"], path).files["onnxruntime"]


@pytest.fixture
def request_of():
    def make(made: FusedEditor, n: int, m: int, seed: int = 0):
        rng, latent = np.random.RandomState(seed), made.generator.latent
        return (rng.randn(n, latent.dim).astype(np.float32), rng.randint(K, size=(n, m)).astype(np.int64),
                (2 * rng.randn(n, m, latent.layers)).astype(np.float32))  # fmt: skip

    return make


def test_a_conditional_editor_is_exact(tmp_path):
    """All sizes of N and M that a proof tries, none and too many edits, and rows that are bad."""
    generator, rng = LayeredGenerator(conditional=True), torch.Generator().manual_seed(1)
    made = FusedEditor(generator, build_directions("nonlinear", K, generator.latent.dim, rng, depth=2))
    graphs = export_graphs(made, ["openvino"], tmp_path)
    assert [path.name for path in graphs.all_files] == ["model.xml", "model.bin"]
    (certificate,) = check_parity(Judge(made, ALPHAS), graphs.engines)
    assert (certificate.engine, certificate.passed) == ("openvino", True)


def test_the_graph_is_one_that_tritons_backend_takes(drawn, tmp_path):
    """It wants one name for each tensor, and compares -1 with dimensions that have no upper bound alone."""
    export_openvino(drawn[1], tmp_path / "model.xml")
    model = engine.core().read_model(str(tmp_path / "model.xml"))
    assert [sorted(tensor.get_names()) for tensor in model.inputs] == [["z"], ["direction"], ["alpha"]]
    assert [sorted(tensor.get_names()) for tensor in model.outputs] == [["image"], ["valid"]]
    shapes = [str(tensor.get_partial_shape()) for tensor in (*model.inputs, *model.outputs)]
    assert shapes == ["[?,24]", "[?,?]", "[?,?,1]", "[?,16,16,3]", "[?]"]
    types = [tensor.get_element_type().to_string() for tensor in (*model.inputs, *model.outputs)]
    assert types == ["f32", "i64", "f32", "u8", "boolean"]


def test_bfloat16_and_what_is_kept_from_it(drawn, tmp_path, request_of):
    if not has_bf16():
        pytest.skip("this CPU has neither AVX-512 BF16 nor AMX")
    made, path = drawn
    given = request_of(made, 5, 2)
    expected, _ = run_eager(made, *given)
    lowered = BFloat16Graph(path)
    names = [operation.name for operation in lowered.operations]
    assert len(names) == 2
    assert sum(operation.cost for operation in lowered.operations) == pytest.approx(1)
    errors = {}
    for keep in (names, names[1:], []):
        folder = tmp_path / str(len(keep))
        folder.mkdir()
        built = lowered.build(frozenset(keep), folder)
        assert [file.name for file in built.files] == ["model.xml", "model.bin"]
        image, valid = built.engine(*given)
        assert valid.all()
        errors[len(keep)] = np.square(image - expected.astype(np.float64)).mean()
    assert errors[2] <= 1
    assert errors[2] <= errors[1] <= errors[0] < 20


def test_weights_become_the_nearest_bfloat16(drawn, monkeypatch, tmp_path):
    """OpenVINO's own constants of bfloat16 lose their lower bits, which is twice the error."""
    made, path = drawn
    monkeypatch.setattr("export.openvino_lowered._built", lambda model, folder: model)
    model = BFloat16Graph(path, emulated=True).build(frozenset(), tmp_path)
    small = [node for node in model.get_ops() if node.get_output_element_type(0).to_string() == "bf16"]
    bits = [node.get_data().view(np.uint16) for node in small if node.get_type_name() == "Constant"]
    stored = [(array.astype(np.uint32) << 16).view(np.float32) for array in bits]
    expected = {weight.numel(): weight.bfloat16().float().numpy() for weight in made.generator.weights}
    assert len(stored) == len(expected) == 2
    for array in stored:
        assert np.array_equal(np.sort(array, axis=None), np.sort(expected[array.size], axis=None))


def test_int8_and_what_is_kept_from_it(drawn, tmp_path, request_of):
    made, path = drawn
    given = request_of(made, 5, 2)
    expected, _ = run_eager(made, *given)
    lowered = Int8Graph(path)
    names = [operation.name for operation in lowered.operations]
    assert len(names) == 2
    errors = {}
    for keep in (names, []):
        folder = tmp_path / str(len(keep))
        folder.mkdir()
        image, valid = lowered.build(frozenset(keep), folder).engine(*given)
        assert valid.all()
        errors[len(keep)] = np.abs(image - expected.astype(np.float64)).max()
    assert errors[2] <= 1
    assert 1 < errors[0] < 100
    assert (tmp_path / "0" / "model.bin").stat().st_size < (tmp_path / "2" / "model.bin").stat().st_size


def test_each_picture_has_its_own_range_in_int8(tmp_path):
    """What goes into a convolution is rounded to a 255th of its own picture's largest value, however large others are.

    Where no value is below zero, that is; else to a 127th.
    """
    numbers = np.random.default_rng(0)
    sizes = np.float32([0, 0.01, 1, 100]).reshape(-1, 1, 1, 1)
    signal = numbers.standard_normal((4, 8, 6, 6)).astype(np.float32) * sizes
    broken = numbers.standard_normal((2, 8, 6, 6)).astype(np.float32)
    broken[:, 3, 2, 2] = np.nan, np.inf
    weight = numbers.standard_normal((5, 8, 3, 3)).astype(np.float32)
    step = np.abs(weight).max((1, 2, 3), keepdims=True).astype(np.float64) / 127
    for before, levels in (("Relu", 255), ("Identity", 127)):
        nodes = [onnx.helper.make_node(before, ["signal"], ["bent"]),
                 onnx.helper.make_node("Conv", ["bent", "weight"], ["drawn"], name="conv"),
                 onnx.helper.make_node("Neg", ["drawn"], ["image"])]  # fmt: skip
        shapes = {"signal": ["n", 8, 6, 6], "image": ["n", 5, 4, 4]}
        ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, of) for name, of in shapes.items()]
        graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weight, "weight")])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
        onnx.save(model, tmp_path / "model.onnx")
        lowered = Int8Graph(tmp_path / "model.onnx")
        assert len(lowered.operations) == 1
        lowered.build(frozenset(), tmp_path)
        drawn = Runner(tmp_path / "model.xml", "f32", 0)({"signal": np.concatenate([signal, broken])})["image"]
        # What is not finite stays so, or the editor would call it valid; OpenVINO's ReLU makes 0 of what is no number.
        assert not any(np.isfinite(row).all() for row in drawn[4 + (before == "Relu") :])
        image = drawn[:4]
        given = np.maximum(signal, 0) if before == "Relu" else signal
        largest = np.maximum(np.abs(given).max((1, 2, 3), keepdims=True), 1e-20)
        rounded = np.round(given / largest * levels) / levels * largest.astype(np.float64)
        weights = np.round(weight / step) * step
        expected = torch.nn.functional.conv2d(torch.from_numpy(rounded), torch.from_numpy(weights))
        errors = np.abs(image + expected.numpy()).max((1, 2, 3)) / largest.ravel()
        assert errors.max() < 1e-4  # a level is 40 times that


def test_depthwise_convolutions_stay_out_of_int8(tmp_path):
    """They move memory rather than computing."""
    generator = StyleGAN2(random_tensors(8, n_mlp=2, dim=24, width=8), use_w=True)
    made = FusedEditor(generator, build_directions("global", K, 24, torch.Generator().manual_seed(1)))
    export_onnx(made, tmp_path / "model.onnx")
    names = [operation.name for operation in Int8Graph(tmp_path / "model.onnx").operations]
    assert "convs.0" in names and not any("blur" in name for name in names)


def test_transposed_convolutions_of_any_sign_are_computed_in_int8(tmp_path):
    """OpenVINO computes one in float32, for all its quantisers, where zero is not in the middle of its levels."""
    generator = StyleGAN2(random_tensors(8, n_mlp=2, dim=24, width=16), use_w=True)
    made = FusedEditor(generator, build_directions("global", K, 24, torch.Generator().manual_seed(1)))
    export_onnx(made, tmp_path / "model.onnx")
    lowered = Int8Graph(tmp_path / "model.onnx")
    lowered.build(frozenset(), tmp_path)
    nodes = compile_model(tmp_path / "model.xml").get_runtime_model().get_ops()
    infos = {node.get_friendly_name(): node.get_rt_info() for node in nodes}
    types = {name: [infos[node][key].astype(str) for key in ("layerType", "runtimePrecision")]
             for name, node in lowered._nodes.items()}  # fmt: skip
    transposed = {name: precision for name, (kind, precision) in types.items() if kind == "Deconvolution"}
    assert sorted(transposed) == ["convs.0"] and set(transposed.values()) == {"i8"}, types


def test_what_is_missing_for_bfloat16(drawn, monkeypatch):
    monkeypatch.setattr(engine, "has_bf16", lambda: False)
    monkeypatch.setattr("export.openvino_lowered.has_bf16", lambda: False)
    with pytest.raises(OpenVINOError, match="bf16 needs a CPU with AVX-512 BF16 or AMX, which this one lacks"):
        compile_model(drawn[1], "bf16")
    with pytest.raises(ExportError, match="bf16 needs a CPU with AVX-512 BF16 or AMX, which this one lacks"):
        BFloat16Graph(drawn[1])


def test_float32_unless_bfloat16_is_asked_for(drawn):
    model = compile_model(drawn[1], "f32", threads=1)
    assert model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert model.get_property("INFERENCE_NUM_THREADS") == 1
    assert model.get_property("ENABLE_CPU_PINNING") is False  # several instances would share the first core


@pytest.mark.parametrize("text", ["", "<net", "<net/>"])
def test_files_that_are_none(tmp_path, text):
    (tmp_path / "model.xml").write_text(text)
    with pytest.raises(ExportError, match=r"cannot load .*model.xml: ") as caught:
        OpenVINOEditor(tmp_path / "model.xml")
    assert len(str(caught.value).splitlines()) == 1


def test_ctrl_c_after_it_has_run_is_ctrl_c(drawn):
    """Several cores would leave a freed signal stack behind, where there is one at all, as under pytest."""
    for _ in range(3):
        compile_model(drawn[1], threads=1)
    gc.collect()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_it_tells_nobody_that_it_is_used(tmp_path):
    """Its import alone writes an id to the home folder and sends an event."""
    code = (
        "import sys; from serving.contract.openvino_engine import import_openvino as go; go(); import openvino;"
        "print(sorted(name for name, module in sys.modules.items() if 'openvino_telemetry' in name and module))"
    )
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"
    assert not list(tmp_path.iterdir())


def test_without_it_one_line(trained, tmp_path, monkeypatch, invoke, refused):
    monkeypatch.setitem(sys.modules, "openvino", None)
    line = refused(invoke("export", trained, "--engine", "openvino", "--repository", tmp_path / "new"))
    assert "OpenVINO is not installed: pip install 'latentclr[openvino]'" in line
    assert not list(tmp_path.iterdir())


MANIFEST = {
    "generator": {"resolution": 8, "classes": {"names": []}},
    "latent": {"input": "w+", "dim": 6, "layers": 3},
    "parity": {},
}


def test_configuration():
    """What NVIDIA's backend reads of it: source of October 2026, built and run on the embedded server by hand."""
    options = TritonOptions(max_batch_size=4, instances=2, queue_delay_us=5, queue_timeout_s=1.5, cache=True, threads=3)
    config = model_config("edit", "openvino", MANIFEST, options, 7)
    assert (config.backend, config.max_batch_size) == ("openvino", 0)  # any other would be the only batch that it takes
    assert not config.HasField("dynamic_batching")
    assert [(group.kind, group.count) for group in config.instance_group] == [(pb.ModelInstanceGroup.KIND_CPU, 2)]
    assert {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)} == {
        "w": [-1, 3, 6], "direction": [-1, -1], "alpha": [-1, -1, 3], "class_id": [-1, 1],
        "image": [-1, 8, 8, 3], "valid": [-1, 1],
    }  # fmt: skip
    assert [list(tensor.reshape.shape) for tensor in (config.input[3], config.output[1])] == [[-1], [-1]]
    values = {key: value.string_value for key, value in config.parameters.items() if key != "manifest"}
    assert values == {"MAX_ROWS": "4", "INFERENCE_NUM_THREADS": "3", "PERFORMANCE_HINT": "LATENCY"}
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 1, 1]
    dims = [{name: list(sample.dims) for name, sample in warm_up.inputs.items()} for warm_up in config.model_warmup]
    assert dims[2] == {"w": [4, 3, 6], "direction": [4, 1], "alpha": [4, 1, 3], "class_id": [4, 1]}


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory) -> tuple[Path, list[str]]:
    """Two versions for OpenVINO, ONNX Runtime first, and what was said of the second."""
    repository, said = tmp_path_factory.mktemp("openvino") / "repository", []
    for _ in range(2):
        said.clear()
        export_run(trained, [], repository, "edit", engines=["onnxruntime", "openvino"], say=said.append,
                   options=TritonOptions(max_batch_size=4, queue_timeout_s=9))  # fmt: skip
    return repository, said


def config_of(model: Path) -> pb.ModelConfig:
    return text_format.Parse((model / "config.pbtxt").read_text(), pb.ModelConfig())


def test_what_is_published(published):
    repository, said = published
    assert sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.parent.name == "2") == [
        "edit/2/config.pbtxt", "edit/2/golden.npz", "edit/2/model.onnx", "edit/2/parity.json",
        "edit_openvino/2/config.pbtxt", "edit_openvino/2/golden.npz", "edit_openvino/2/model.bin",
        "edit_openvino/2/model.xml", "edit_openvino/2/parity.json",
    ]  # fmt: skip
    assert any(line.startswith("openvino fp32: ") and line.endswith("holds exact") for line in said)
    assert any("queue delay and timeout have no effect" in line for line in said)
    manifest = json.loads(config_of(repository / "edit_openvino").parameters["manifest"].string_value)
    assert {"golden.npz", "model.onnx", "model.xml", "model.bin"} == {*manifest["files_sha256"]}
    assert manifest["versions"]["openvino"]


def test_engines_turn_together(published, trained):
    repository, _ = published
    assert rollback(repository, "edit") == {"edit": (2, 1), "edit_openvino": (2, 1)}
    assert not [finding for finding in check_models(repository) if finding.status != "ok"]
    assert rollback(repository, "edit", 2) == {"edit": (1, 2), "edit_openvino": (1, 2)}
    with pytest.raises(ExportError, match=r"also holds edit_openvino, .*export with --engine openvino as well, under "):
        export_run(trained, [], repository, "edit", engines=["onnxruntime"], say=lambda _: None)
    weights = repository / "edit_openvino" / "2" / "model.bin"
    data = weights.read_bytes()
    try:
        weights.write_bytes(data[:-1] + b"x")
        texts = [finding.text for finding in check_models(repository) if finding.status == "BAD"]
        assert len(texts) == 1
        assert "model.bin is not the file that was published" in texts[0]
        weights.unlink()
        texts = [finding.text for finding in check_models(repository) if finding.status == "BAD"]
        assert [text.endswith("model.bin is missing") for text in texts] == [True]
    finally:
        weights.write_bytes(data)


@pytest.mark.parametrize(
    ("engines", "options", "message"),
    [
        ([], {}, "at least one engine is needed, of onnxruntime, openvino, torchscript"),
        (["openvno"], {}, r"engine must be one of .*, got 'openvno'.* 'openvino'"),
        (["openvino", "openvino"], {}, "each engine can be published once, got openvino 2 times"),
        (["openvino"], {"target": "gpu"}, "openvino runs on CPUs .*, got target gpu"),
    ],
)
def test_engines_that_cannot_be(trained, tmp_path, engines, options, message):
    with pytest.raises(ExportError, match=message):
        export_run(trained, [], tmp_path / "new", "edit", engines=engines, options=TritonOptions(**options))
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def server(published):
    with TritonServer(published[0], ports=Ports(0, 0, 0)) as running:
        yield running


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_clients_edits_are_those_of_the_editor(server, drawn, protocol):
    editor, _ = drawn
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with EditClient(url, "edit_openvino") as client:
        for n, m in ((1, 1), (3, 2), (9, 1)):  # more than four rows are cut into requests
            rng = np.random.RandomState(n)
            rows = (rng.randn(n, 24).astype(np.float32), rng.randint(K, size=(n, m)).astype(np.int64),
                    rng.randn(n, m, 1).astype(np.float32))  # fmt: skip
            expected, _ = run_eager(editor, *rows)
            images = client.edit_rows(*rows).images
            assert np.abs(images - expected.astype(np.int16)).max() <= 1
        assert np.array_equal(client.edit(seed=1, edits={}).images, client.edit(seed=1, edits={0: 0.0}).images)


def test_rows_that_are_bad_or_too_many(server):
    def ask(rows: int, **changes):
        arrays = {"z": np.ones((rows, 24), np.float32), "direction": np.zeros((rows, 1), np.int64),
                  "alpha": np.ones((rows, 1, 1), np.float32)}  # fmt: skip
        for name, value in changes.items():
            arrays[name][0] = value
        inputs = []
        for name, array in arrays.items():
            tensor = triton.InferInput(name, list(array.shape), "INT64" if name == "direction" else "FP32")
            inputs.append(tensor.set_data_from_numpy(array))
        result = client.infer("edit_openvino", inputs)
        return result.as_numpy("image"), result.as_numpy("valid")[:, 0].tolist()

    with triton.InferenceServerClient(server.grpc_url) as client:
        good, valid = ask(3)
        assert valid == [True, True, True]
        # OpenVINO computes with the low 32 bits of an index: 2**32 + 1 would be 1.
        for index in (K, -1, 2**32 + 1):
            assert ask(3, direction=index)[1] == [False, True, True]
        for changes in ({"direction": K}, {"alpha": np.nan}, {"z": np.inf}):
            images, valid = ask(3, **changes)
            assert valid == [False, True, True]
            assert not images[0].any()
            assert np.array_equal(images[1:], good[1:])
        with pytest.raises(InferenceServerException, match="a request may have at most 4 rows, got 5"):
            ask(5)


def test_it_is_certified_where_it_is_served(server, published, invoke):
    words = ("certify", "--url", server.grpc_url, "--model", "edit_openvino", "--repository", published[0])
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    assert "holds exact" in result.stdout
