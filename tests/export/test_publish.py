"""`latentclr export`: from a run folder to a repository that Triton reads, or to nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from google.protobuf import text_format
from tiny_generators import LayeredGenerator
from tritonclient.grpc import model_config_pb2 as pb

import export.cli
import export.parity
import export.pipeline
from export.errors import ExportError
from export.onnx import OnnxEditor, export_onnx, split_weights
from export.options import TritonOptions
from export.parity import run_eager
from export.repository import publish, rollback
from export.torchscript import TorchScriptEditor
from export.triton_config import model_config
from latentclr.errors import LatentCLRError, SaveError
from latentclr.files import sha256_of
from latentclr.training.checkpoint import load_checkpoint
from serving.contract.manifest import parse_manifest


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def config_of(model: Path) -> pb.ModelConfig:
    return text_format.Parse((model / "config.pbtxt").read_text(), pb.ModelConfig())


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch) -> Path:
    """A folder of its own for temporary files, which must be empty again after each test."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not [path for path in folder.iterdir() if not path.name.startswith("torchinductor_")]  # torch's own


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    """(repository, what the command printed)."""
    from latentclr.cli import cli

    repository = tmp_path_factory.mktemp("published") / "repository"
    words = ["export", str(trained), "--repository", str(repository), "--name", "faces", "--max-batch-size", "8"]
    result = CliRunner().invoke(cli, words, prog_name="latentclr")
    assert result.exit_code == 0, result.output
    return repository, result


LATER_TORCH = """
import sys
import warnings

real = warnings.warn

def warn(message, category=None, stacklevel=1, **rest):
    # As torch 2.14 has it: what was a DeprecationWarning, which Python shows to nobody, is a FutureWarning.
    later = FutureWarning if category is DeprecationWarning and "torch" in str(message) else category
    real(message, later, stacklevel + 1, **rest)

warnings.warn = warn
from latentclr.cli import main
sys.argv[0] = "latentclr"
main()
"""


@pytest.mark.slow
def test_no_warning_of_torch_reaches_the_user(run, tmp_path, start):
    process = start("export", run, "--repository", tmp_path / "repository", "--name", "faces", code=LATER_TORCH)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "published" in out
    assert err == ""


def test_what_is_there(published):
    repository, result = published
    assert sorted(everything(repository)) == [
        "faces", "faces/1", "faces/1/config.pbtxt", "faces/1/golden.npz", "faces/1/model.onnx", "faces/1/parity.json",
        "faces/config.pbtxt", "faces_torchscript", "faces_torchscript/1", "faces_torchscript/1/config.pbtxt",
        "faces_torchscript/1/golden.npz", "faces_torchscript/1/model.pt", "faces_torchscript/1/parity.json",
        "faces_torchscript/config.pbtxt",
    ]  # fmt: skip
    assert f"published {repository / 'faces' / '1'}" in result.stdout
    assert f"serve it: latentclr serve --repository {repository}" in result.stdout
    assert "--poll; restart any other" in result.stdout.splitlines()[-1]
    for engine in ("onnxruntime", "torchscript"):
        assert re.search(rf"^{engine} fp32: 225 images, worst [01]/255, .*; holds exact$", result.stdout, re.M)
    assert result.stderr == ""
    for path in repository.rglob("*"):  # a server under another user must be able to read it
        assert path.stat().st_mode & 0o044 == 0o044


def test_ctrl_c_in_the_proof_publishes_nothing(trained, tmp_path, monkeypatch, invoke):
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return run_eager(*arguments)

    monkeypatch.setattr(export.parity, "run_eager", interrupted)
    result = invoke("export", trained, "--repository", tmp_path / "new" / "repository")
    assert (result.exit_code, result.stderr) == (130, "interrupted: nothing is published\n")
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("model", "backend", "outputs"), [
    ("faces", "onnxruntime", ["image", "valid"]), ("faces_torchscript", "pytorch", ["image__0", "valid__1"]),
])  # fmt: skip
def test_config_parses_back_as_tritons_own_protobuf(published, model, backend, outputs):
    config = config_of(published[0] / model)
    assert (config.name, config.backend, config.max_batch_size) == (model, backend, 8)
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("z", pb.TYPE_FP32, [24]), ("direction", pb.TYPE_INT64, [-1]), ("alpha", pb.TYPE_FP32, [-1, 1]),
    ]  # fmt: skip
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
        (outputs[0], pb.TYPE_UINT8, [16, 16, 3]), (outputs[1], pb.TYPE_BOOL, [1]),
    ]  # fmt: skip
    assert config.output[1].HasField("reshape")
    assert list(config.output[1].reshape.shape) == []
    assert not config.output[0].HasField("reshape")
    assert not any(i.HasField("reshape") for i in config.input)
    assert list(config.version_policy.specific.versions) == [1]
    assert list(config.dynamic_batching.preferred_batch_size) == []
    assert len(config.instance_group) == 1
    assert [w.batch_size for w in config.model_warmup] == [1, 2, 4, 8]
    for warm_up in config.model_warmup:
        assert set(warm_up.inputs) == {"z", "direction", "alpha"}
        assert all(sample.zero_data for sample in warm_up.inputs.values())  # a random index would be out of range
        assert list(warm_up.inputs["direction"].dims) == [1]
        assert list(warm_up.inputs["alpha"].dims) == [1, 1]


@pytest.mark.parametrize(("model", "file"), [("faces", "model.onnx"), ("faces_torchscript", "model.pt")])
def test_manifest(published, trained, tiny_weights, model, file):
    repository, _ = published
    text = config_of(repository / model).parameters["manifest"].string_value
    raw, manifest = json.loads(text), parse_manifest(text)
    assert manifest.name == model
    assert (manifest.generator.name, manifest.generator.resolution) == ("dcgan", 16)
    assert manifest.generator.weights_sha256 == sha256_of(tiny_weights)
    assert manifest.generator.classes is None
    assert (manifest.latent.dim, manifest.latent.layers, manifest.latent.sampler) == (24, 1, "standard_normal")
    assert (manifest.directions.count, manifest.directions.alpha_range) == (4, (-6.0, 6.0))
    assert manifest.files_sha256[file] == sha256_of(repository / model / "1" / file)
    assert raw["directions"]["checkpoint_sha256"] == sha256_of(trained / "best.safetensors")
    assert raw["directions"]["iteration"] == load_checkpoint(trained / "best.safetensors").iteration
    assert raw["versions"]["torch"] == torch.__version__
    assert raw["parity"] == json.loads((repository / model / "1" / "parity.json").read_text())
    for report in raw["parity"].values():
        assert report["worst_step"] <= 1 and report["gate"] == "exact" and report["passed"]
        assert report["images"] >= 200 and report["precision"] == "fp32"


def test_the_published_graphs_draw_the_run(published, trained):
    from export.editor import FusedEditor
    from latentclr.generators.dcgan import load_dcgan

    checkpoint = load_checkpoint(trained / "best.safetensors")
    editor = FusedEditor(load_dcgan(checkpoint.config["generator"]["weights"]), checkpoint.directions)
    rng = np.random.RandomState(0)
    given = (rng.randn(8, 24).astype(np.float32), rng.randint(4, size=(8, 2)), rng.randn(8, 2, 1).astype(np.float32))
    expected, _ = run_eager(editor, *given)
    repository, _ = published
    for engine in (OnnxEditor(repository / "faces" / "1" / "model.onnx"),
                   TorchScriptEditor(repository / "faces_torchscript" / "1" / "model.pt")):  # fmt: skip
        image, valid = engine(*given)
        assert valid.all()
        assert np.abs(image.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.slow
def test_a_second_export_is_version_2_and_keeps_1(run, invoke, tmp_path):
    repository = tmp_path / "repository"
    words = ("export", run, "--repository", repository, "--name", "faces")
    assert invoke(*words).exit_code == 0
    first = everything(repository)
    result = invoke(*words, "checkpoint=last", "--max-batch-size", "2", "--opset", "20")
    assert result.exit_code == 0, result.output
    second = everything(repository)
    for name, content in first.items():
        if name not in ("faces/config.pbtxt", "faces_torchscript/config.pbtxt"):
            assert second[name] == content
    assert set(second) - set(first) == {
        "faces/2", "faces/2/config.pbtxt", "faces/2/model.onnx", "faces/2/parity.json",
        "faces_torchscript/2", "faces_torchscript/2/config.pbtxt", "faces_torchscript/2/model.pt",
        "faces_torchscript/2/parity.json",
    }  # fmt: skip
    config = config_of(repository / "faces")
    assert list(config.version_policy.specific.versions) == [2]
    assert config.max_batch_size == 2
    manifest = parse_manifest(config.parameters["manifest"].string_value)
    assert manifest.files_sha256["model.onnx"] == sha256_of(repository / "faces" / "2" / "model.onnx")
    result = CliRunner().invoke(export.cli.rollback, ["--repository", str(repository), "--name", "faces"])
    assert result.output == "faces serves version 1, before 2\nfaces_torchscript serves version 1, before 2\n"
    back = everything(repository)
    assert all(back[name] == content for name, content in first.items())
    assert set(back) == set(second)


class TwoStepsOff(OnnxEditor):
    """ONNX Runtime, but two steps off in one pixel."""

    def __call__(self, *inputs):
        image, valid = super().__call__(*inputs)
        image = image.copy()
        image[0, 0, 0, 0] += 2 if image[0, 0, 0, 0] < 128 else -2
        return image, valid


def test_parity_fails_closed(trained, invoke, refused, tmp_path, published, monkeypatch):
    monkeypatch.setattr(export.engines, "OnnxEditor", TwoStepsOff)
    line = refused(invoke("export", trained, "--repository", tmp_path / "new"))
    assert "parity failed, nothing is published: onnxruntime fp32: " in line
    assert "worst step 2 instead of at most 1 (" in line
    assert not (tmp_path / "new").exists()
    before = everything(published[0])
    refused(invoke("export", trained, "--repository", published[0], "--name", "faces"))
    assert everything(published[0]) == before


@pytest.mark.parametrize(
    "words",
    [("--name", "../evil"), ("--name", ""), ("--name", "a b"), ("--name", ".hidden"), ("--max-batch-size", "0"),
     ("--max-batch-size", "1000"), ("--opset", "17"), ("--opset", "21"), ("--opset", "x"),
     ("--cuda", "use_tf32"), ("--cuda", "nonsense=1"),
     ("--target", "cpu", "--tensorrt", "fp32"), ("--queue-delay", "-1")],
)  # fmt: skip
def test_options_out_of_range(trained, invoke, tmp_path, words):
    result = invoke("export", trained, "--repository", tmp_path / "new", *words)
    assert result.exit_code == 2
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("word", "message"), [
    ("k=5", "has 4 directions"), ("nonsense=3", "unknown option 'nonsense'"), ("checkpoint=first", "no checkpoint at"),
    ("generator.weights=nowhere", "no weights file at nowhere"), ("model=global", "trained with model nonlinear"),
])  # fmt: skip
def test_overrides_out_of_range(trained, invoke, refused, tmp_path, word, message):
    assert message in refused(invoke("export", trained, word, "--repository", tmp_path / "new"))
    assert not list(tmp_path.iterdir())


def test_origin_form(trained, invoke, tmp_path, monkeypatch):
    asked = {}

    def pretend(run, words, repository, name, **options):
        asked.update(run=run, words=words, **options)
        return [repository / name / "1"]

    monkeypatch.setattr(export.pipeline, "export_run", pretend)
    result = invoke("export", "--config-path", trained, "--config-name", "config", "+checkpoint=last", "--opset", "19")
    assert result.exit_code == 0, result.output
    assert asked.pop("say") is not None
    assert (asked["run"], asked["words"]) == (trained, ["+checkpoint=last"])
    assert (asked["options"], asked["opset"]) == (TritonOptions(), 19)


def test_options_reach_the_configuration(trained, invoke, tmp_path, monkeypatch):
    asked = {}

    def pretend(run, words, repository, name, **options):
        asked.update(options)
        return []

    monkeypatch.setattr(export.pipeline, "export_run", pretend)
    result = invoke(
        "export", trained, "--target", "gpu", "--max-batch-size", "6", "--instances", "2", "--queue-delay", "500",
        "--queue-timeout", "2.5", "--cache", "--threads", "3", "--tensorrt", "fp16", "--cuda", "use_tf32=0",
        "--cuda", "cudnn_conv_algo_search=DEFAULT",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    cuda = {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}
    assert asked["options"] == TritonOptions("gpu", 6, 2, 500, 2.5, True, 3, "fp16", cuda)


PUBLISH = """
import json, resource, sys
from pathlib import Path
from export.repository import publish
from latentclr.errors import SaveError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
folder = Path(sys.argv[1])
graphs = {"onnxruntime": folder / "model.onnx", "pytorch": folder / "model.pt"}
try:
    publish(Path(sys.argv[2]), "edit", graphs, json.loads((folder / "manifest.json").read_text()))
except SaveError as error:
    print("refused:", error)
"""

MANIFEST = {
    "generator": {"resolution": 8, "classes": None},
    "latent": {"input": "z", "dim": 6, "layers": 3},
    "parity": {"onnx": {}},
    "filler": "x" * 3000,
}


@pytest.fixture
def graphs(tmp_path):
    folder = tmp_path / "graphs"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"o" * 1000)
    (folder / "model.pt").write_bytes(b"p" * 2000)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    return {"onnxruntime": folder / "model.onnx", "pytorch": folder / "model.pt"}


@pytest.mark.parametrize("limit", [500, 1500, 2500])
def test_full_disk_while_publishing(start, graphs, tmp_path, limit):
    """At the first graph, at the second, at the configuration: the repository stays as it was."""
    publish(tmp_path / "old", "edit", graphs, MANIFEST)
    before = everything(tmp_path / "old")
    for repository in ("old", "new"):
        process = start(graphs["pytorch"].parent, tmp_path / repository, str(limit), code=PUBLISH)
        stdout, stderr = process.communicate(timeout=60)
        assert stdout.startswith(f"refused: could not publish to {tmp_path / repository}"), stdout + stderr
    assert everything(tmp_path / "old") == before
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_full_disk_while_exporting(start, trained, tmp_path):
    code = """
import resource, sys, tempfile
tempfile.tempdir = sys.argv.pop(1)
from latentclr.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
main()
"""
    (tmp_path / "t").mkdir()
    process = start(tmp_path / "t", "export", trained, "--repository", tmp_path / "new", code=code)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    assert len([line for line in stderr.splitlines() if line.startswith("Error: ")]) == 1, stderr
    assert "Traceback" not in stderr
    assert sorted(everything(tmp_path)) == ["t"]


def test_a_repository_that_cannot_be(graphs, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(SaveError, match="could not publish to"):
        publish(tmp_path / "file", "edit", graphs, MANIFEST)
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "edit_torchscript").write_text("precious")  # in the way of the second model
    with pytest.raises(SaveError, match="edit_torchscript is not a folder"):
        publish(tmp_path / "repository", "edit", graphs, MANIFEST)
    assert sorted(everything(tmp_path / "repository")) == ["edit_torchscript"]


def test_versions_count_on_from_the_highest(graphs, tmp_path):
    (tmp_path / "repository" / "edit" / "7").mkdir(parents=True)
    (tmp_path / "repository" / "edit" / "notes").mkdir()
    first, second = publish(tmp_path / "repository", "edit", graphs, MANIFEST)
    assert (first.parent.name, first.name) == ("edit", "8")
    assert (second.parent.name, second.name) == ("edit_torchscript", "8")  # the same for both
    assert not [path for path in tmp_path.rglob(".tmp-*")]


def failing(monkeypatch, number: int) -> None:
    """Let the n-th rename fail."""
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == number:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_when_a_rename_fails_all_are_taken_back(graphs, tmp_path, monkeypatch, number):
    repository = tmp_path / "repository"
    publish(repository, "edit", graphs, MANIFEST)
    before = everything(repository)
    with monkeypatch.context() as patch:
        failing(patch, number)
        with pytest.raises(SaveError, match=r"could not publish to .*Input/output error"):
            publish(repository, "edit", graphs, MANIFEST)
    assert everything(repository) == before
    if number < 3:
        with monkeypatch.context() as patch:
            failing(patch, number)
            with pytest.raises(SaveError):
                publish(tmp_path / "new", "edit", graphs, MANIFEST)
        assert not (tmp_path / "new").exists()
    assert not list(tmp_path.rglob(".tmp-*"))
    assert publish(repository, "edit", graphs, MANIFEST)[0].name == "2"


def test_what_dead_exports_left_is_swept(graphs, tmp_path):
    repository = tmp_path / "repository"
    publish(repository, "edit", graphs, MANIFEST)
    (repository / ".tmp-old").mkdir()
    (repository / "edit" / ".tmp-config-0123456789ab.pbtxt").touch()
    for name in (".tmp-repository-01234567", ".tmp-repository-b-01234567", ".tmp-other-01234567"):
        (tmp_path / name).mkdir()
    rollback(repository, "edit", 1)  # whoever has the repository alone knows that nobody is at work there
    left = sorted(path.name for path in tmp_path.rglob(".tmp-*"))
    assert left == [".tmp-other-01234567", ".tmp-repository-b-01234567"]  # other repositories'
    assert not (repository / ".lock").exists()


def served_by_triton(repository: Path, given) -> np.ndarray:
    from tritonclient import grpc

    from serving import TritonServer
    from serving.triton.ports import Ports

    with TritonServer(repository, ports=Ports(0, 0, 0), models=["edit"]) as server:
        inputs = []
        for name, array, kind in zip(("z", "direction", "alpha"), given, ("FP32", "INT64", "FP32"), strict=True):
            inputs.append(grpc.InferInput(name, list(array.shape), kind))
            inputs[-1].set_data_from_numpy(array)
        with grpc.InferenceServerClient(server.grpc_url) as client:
            return client.infer("edit", inputs).as_numpy("image")


@pytest.mark.slow
def test_large_weights_are_a_file_that_versions_share(faces, graphs, tmp_path):
    from export.editor import FusedEditor
    from latentclr.method.directions import build_directions

    repository = tmp_path / "repository"
    images = []
    manifest = {**MANIFEST, "generator": faces.describe(), "latent": asdict(faces.latent)}
    for seed in (0, 1):
        rng = torch.Generator().manual_seed(seed)
        editor = FusedEditor(faces, build_directions("global", 3 + seed, faces.latent.dim, rng).eval())
        given = [tensor.numpy() for tensor in editor.example_inputs(3, 2)]
        export_onnx(editor, graphs["onnxruntime"])
        whole, _ = OnnxEditor(graphs["onnxruntime"])(*given)
        weights = graphs["onnxruntime"].with_name("generator.bin")
        assert not split_weights(graphs["onnxruntime"], weights)  # of 64 MB there is no need
        assert split_weights(graphs["onnxruntime"], weights, larger_than=1 << 20)
        assert weights.stat().st_size > 10 * graphs["onnxruntime"].stat().st_size
        version, _ = publish(repository, "edit", graphs, manifest)
        image, valid = OnnxEditor(version / "model.onnx")(*given)
        assert valid.all()
        assert np.array_equal(image, whole)
        images.append(image)
    assert not np.array_equal(*images)
    first, second = (repository / "edit" / version / "generator.bin" for version in "12")
    assert first.samefile(second)  # shared, not doubled
    if importlib.util.find_spec("pytriton"):
        assert np.abs(served_by_triton(repository, given).astype(int) - images[1].astype(int)).max() <= 1
    with open(graphs["onnxruntime"].with_name("generator.bin"), "ab") as file:
        file.write(b"another generator")
    version, _ = publish(repository, "edit", graphs, MANIFEST)
    assert not (version / "generator.bin").samefile(first)
    assert first.samefile(second)


def test_rollback_and_forward(graphs, tmp_path):
    repository = tmp_path / "repository"
    for number in range(3):
        publish(repository, "edit", graphs, {**MANIFEST, "filler": str(number)})
    assert rollback(repository, "edit") == {"edit": (3, 2), "edit_torchscript": (3, 2)}
    assert rollback(repository, "edit") == {"edit": (2, 1), "edit_torchscript": (2, 1)}
    before = everything(repository)
    with pytest.raises(ExportError, match="edit serves version 1 and there is no older one"):
        rollback(repository, "edit")
    assert everything(repository) == before
    assert rollback(repository, "edit", to=3)["edit"] == (1, 3)
    for model in ("edit", "edit_torchscript"):
        config = config_of(repository / model)
        assert list(config.version_policy.specific.versions) == [3]
        assert json.loads(config.parameters["manifest"].string_value)["filler"] == "2"
    rollback(repository, "edit", to=1)
    assert publish(repository, "edit", graphs, MANIFEST)[0].name == "4"  # numbers are never used twice


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", "null", '{"files_sha256": 7}', '{"files_sha256": {"model.onnx": 7}}', "[" * 9999]
)
def test_rollback_to_a_version_without_a_manifest(graphs, tmp_path, manifest):
    repository = tmp_path / "repository"
    for _ in range(2):
        publish(repository, "edit", {"onnxruntime": graphs["onnxruntime"]}, MANIFEST)
    path = repository / "edit" / "1" / "config.pbtxt"
    config = config_of(path.parent)
    config.parameters["manifest"].string_value = manifest
    path.write_text(text_format.MessageToString(config))
    before = everything(repository)
    with pytest.raises(ExportError, match=r"1/config.pbtxt has no manifest of its files") as caught:
        rollback(repository, "edit")
    assert "\n" not in str(caught.value)
    assert everything(repository) == before


def test_rollback_changes_nothing_when_it_cannot_be(graphs, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    digest = {"files_sha256": {"model.onnx": sha256_of(graphs["onnxruntime"])}}
    for _ in range(2):
        publish(repository, "edit", graphs, {**MANIFEST, **digest})
    (repository / "edit" / "7").mkdir()
    before = everything(repository)

    def refuse(message, name="edit", **options):
        with pytest.raises(LatentCLRError, match=message):
            rollback(repository, name, **options)
        assert everything(repository) == before

    refuse("has no model 'nothing'", "nothing")
    refuse("edit has no version 5; it has 1, 2, 7", to=5)
    refuse("cannot read .*config.pbtxt", to=7)
    with monkeypatch.context() as patch:
        failing(patch, 2)  # the first model has been switched already
        refuse("Input/output error")
    (repository / "edit" / "1" / "model.onnx").write_bytes(b"damaged")
    before = everything(repository)
    refuse("model.onnx is not the file that its manifest describes")
    (repository / "edit" / "1" / "model.onnx").unlink()
    before = everything(repository)
    refuse("model.onnx is missing")


def test_config_of_a_conditional_generator():
    generator = LayeredGenerator(conditional=True)
    manifest = {"generator": generator.describe(), "latent": {"input": "z", "dim": 6, "layers": 3}}
    config = model_config("edit", "onnxruntime", manifest, TritonOptions(max_batch_size=1))
    assert [i.name for i in config.input] == ["z", "direction", "alpha", "class_id"]
    assert config.input[3].data_type == pb.TYPE_INT64
    assert list(config.input[3].dims) == [1]
    assert config.input[3].HasField("reshape")
    assert list(config.input[3].reshape.shape) == []
    assert list(config.input[2].dims) == [-1, 3]
    assert [w.batch_size for w in config.model_warmup] == [1]
    assert "class_id" in config.model_warmup[0].inputs


@pytest.mark.slow
def test_a_conditional_generator_exports(trained, invoke, tmp_path, monkeypatch):
    """The whole pipeline, with the run's generator replaced by one with classes and three latent inputs."""
    from latentclr.method.directions import build_directions

    real = load_checkpoint(trained / "best.safetensors")
    directions = build_directions("nonlinear", 4, 6, torch.Generator().manual_seed(0), 2).eval()
    import dataclasses

    swapped = dataclasses.replace(real, directions=directions)
    opened = export.pipeline.open_run
    monkeypatch.setattr(export.pipeline, "open_run", lambda *given: (opened(*given)[0], swapped))
    monkeypatch.setattr(export.pipeline, "trained_generator", lambda *_: LayeredGenerator(conditional=True))
    result = invoke("export", trained, "--repository", tmp_path / "repository")
    assert result.exit_code == 0, result.output
    config = config_of(tmp_path / "repository" / "latent_edit")
    manifest = parse_manifest(config.parameters["manifest"].string_value)
    assert manifest.generator.classes.names == ("ant", "bee", "cat", "dog")
    assert manifest.generator.classes.default == (1, 3)
    assert manifest.latent.layers == 3
    engine = OnnxEditor(tmp_path / "repository" / "latent_edit" / "1" / "model.onnx")
    z = np.zeros((4, 6), np.float32)
    image, valid = engine(z, np.zeros((4, 1), np.int64), np.zeros((4, 1, 3), np.float32), np.arange(4))
    assert valid.all()
    assert len({row.tobytes() for row in image}) == 4  # the class matters
