"""The ensemble that edits photos, on a real Triton: each output, alone and together, of every engine."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
import tiny_families
import tiny_plugin
import torch
import tritonclient.grpc as grpc
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.editor import FusedEditor
from export.parity import run_eager
from latentclr.cli import cli
from latentclr.commands import run_train
from latentclr.config import TrainConfig
from latentclr.inversion.encoder import ENCODER_FILE, Encoder, EncoderSpec, SavedEncoder, load_encoder, save_encoder
from latentclr.training.experiment import open_run, trained_generator
from latentclr.training.rng import stream
from serving import TritonServer
from serving.contract.layout import encoder_of, photo_of
from serving.contract.tensors import encoder_outputs, served_names
from serving.doctor.findings import BAD, WARN
from serving.doctor.repository_checks import check_models
from serving.errors import ServerStartError
from serving.triton.ports import Ports
from serving.triton.repository import check_repository

# Name -> family, space of the codes, engine.
CASES = {
    "faces": (tiny_families.dcgan, "z", "onnxruntime"),
    "means": (tiny_families.stylegan2, "w", "torchscript"),
    "wide": (tiny_families.plugin_classes, "z", "openvino"),  # 12 x 16 pixels, with classes
}
WORDS = {"wide": [tiny_plugin.WORD]}  # code runs by the user's word only
CALM = ["model=global", "k=3", "hparams.batch_size=2", "hparams.iterations=1", "eval_iters=1", "model.alpha=2",
        "device=cpu", "tensorboard=false"]  # fmt: skip


def opened(run):
    config, checkpoint = open_run(run, WORDS.get(run.parent.name, []), TrainConfig)
    return trained_generator(config, checkpoint), checkpoint


def write_encoder(run, space):
    """Give a run an encoder whose answers depend on the picture."""
    generator, _ = opened(run)
    spec = EncoderSpec(space, generator.latent.dim, generator.latent.layers, *generator.size, channels=4)
    encoder = Encoder(spec, stream(1, "encoder"))
    with torch.no_grad():
        for number, parameter in enumerate(encoder.parameters()):
            parameter += 0.05 * torch.randn(parameter.shape, generator=stream(2, "perturb", number))
    saved = SavedEncoder(encoder, generator.describe(), None, {"steps": 3}, {"psnr": 20.5}, run / ENCODER_FILE)
    save_encoder(saved.path, saved)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each case, with its encoder."""
    folder, made = tmp_path_factory.mktemp("runs"), {}
    for name, (family, space, _) in CASES.items():
        (folder / name).mkdir()
        made[name] = folder / name / "run"
        assert run_train([*family(folder / name), *CALM, f"output_dir={made[name]}"])
        write_encoder(made[name], space)
    return made


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    """The repository of all cases."""
    pytest.importorskip("openvino")
    repository = tmp_path_factory.mktemp("published") / "repository"
    for name, (_, _, engine) in CASES.items():
        result = CliRunner().invoke(
            cli, ["export", str(runs[name]), *WORDS.get(name, []), "--repository", str(repository), "--name", name,
                  "--max-batch-size", "4", "--with-encoder", "--engine", engine],
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    return repository


@pytest.fixture(scope="module")
def server(published):
    pytest.importorskip("pytriton", reason="install latentclr[triton]")
    with TritonServer(published, ports=Ports(0, 0, 0)) as running:
        yield running


def manifest_of(folder):
    config = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
    return json.loads(config.parameters["manifest"].string_value), config


def editor_of(run, space):
    generator, checkpoint = opened(run)
    return FusedEditor(generator, checkpoint.directions, space)


def request(editor, pictures, alpha=1.5):
    """The ensemble's inputs: two edits of each row, and a class if there are any."""
    n, layers = len(pictures), editor.generator.latent.layers
    given = {
        "picture": pictures,
        "direction": np.stack([np.array([i % 3, (i + 1) % 3]) for i in range(n)]),
        "alpha": np.full((n, 2, layers), alpha, np.float32),
    }
    return given | ({"class_id": np.arange(n)[:, None] % 3} if editor.conditional else {})


def ask(client, model, given, outputs):
    kinds = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
    inputs = []
    for name, array in given.items():
        inputs.append(grpc.InferInput(name, list(array.shape), kinds[str(array.dtype)]))
        inputs[-1].set_data_from_numpy(array)
    answer = client.infer(model, inputs, outputs=[grpc.InferRequestedOutput(output) for output in outputs])
    return [answer.as_numpy(output) for output in outputs]


def executions(client, model):
    return sum(one.execution_count for one in client.get_inference_statistics(model).model_stats)


def near(one, other):
    """Equal codes, or pictures that differ by a step: sums in another order."""
    if one.dtype == np.float32:
        return np.allclose(one, other, atol=1e-4)
    return one.shape == other.shape and np.abs(one.astype(int) - other.astype(int)).max() <= 1


@pytest.mark.parametrize("name", CASES)
def test_a_photo_is_edited_in_one_request(server, runs, name):
    _, space, engine = CASES[name]
    editor, encoder = editor_of(runs[name], space), load_encoder(runs[name] / ENCODER_FILE).encoder
    height, width = editor.generator.size
    photos = torch.randint(0, 256, (3, height, width, 3), generator=stream(3, "photos"), dtype=torch.uint8)
    found, letter = encoder(photos).numpy(), space[0]
    with grpc.InferenceServerClient(server.grpc_url) as client:
        for rows in (1, 3):
            given, codes = request(editor, photos.numpy()[:rows]), found[:rows]
            classes = [given["class_id"][:, 0]] if editor.conditional else []
            edited, _ = run_eager(editor, codes, given["direction"], given["alpha"], *classes)
            unedited, _ = run_eager(editor, codes, given["direction"], 0 * given["alpha"], *classes)
            assert (edited != unedited).any()
            expected = {"image": edited, "reconstruction": unedited, letter: codes, "valid": np.ones((rows, 1), bool)}
            outputs = list(expected)
            for asked in (outputs, *([one] for one in outputs)):  # all, and each alone
                for output, got in zip(asked, ask(client, photo_of(name), given, asked), strict=True):
                    assert near(got, expected[output]), (asked, output)
        names = served_names("pytorch" if engine == "torchscript" else engine, encoder_outputs(space))
        codes, direction, alpha, again = ask(client, encoder_of(name), {"picture": photos.numpy()}, names)
        assert near(codes, found) and np.array_equal(codes, again)
        assert (direction.shape, alpha.shape) == ((3, 1), (3, 1, editor.generator.latent.layers))
        assert not direction.any() and not alpha.any()


def test_what_is_not_asked_for_is_not_computed(server, runs):
    editor = editor_of(runs["faces"], "z")
    photo = np.zeros((1, *editor.generator.size, 3), np.uint8)
    with grpc.InferenceServerClient(server.grpc_url) as client:
        for outputs, drawn in (
            (["z"], 0), (["image"], 1), (["reconstruction"], 1), (["image", "valid", "z"], 1),
            (["image", "reconstruction"], 2),
        ):  # fmt: skip
            before = [executions(client, model) for model in ("faces", "faces_encoder")]
            ask(client, "faces_photo", request(editor, photo), outputs)
            deadline, wanted = time.monotonic() + 10, [before[0] + drawn, before[1] + 1]
            while (after := [executions(client, model) for model in ("faces", "faces_encoder")]) != wanted:
                assert time.monotonic() < deadline, (outputs, before, after)  # Triton counts once it has answered
                time.sleep(0.02)


def test_a_bad_row_hurts_no_other(server, runs):
    editor = editor_of(runs["faces"], "z")
    photos = np.zeros((3, *editor.generator.size, 3), np.uint8)
    given = request(editor, photos)
    with grpc.InferenceServerClient(server.grpc_url) as client:
        good, _ = ask(client, "faces_photo", given, ["image", "valid"])
        bad = {**given, "direction": given["direction"].copy()}
        bad["direction"][1, 0] = 99
        image, valid, unedited = ask(client, "faces_photo", bad, ["image", "valid", "reconstruction"])
        assert valid[:, 0].tolist() == [True, False, True]
        assert not image[1].any() and unedited[1].any()
        assert near(image[::2], good[::2])
        with pytest.raises(grpc.InferenceServerException, match="picture"):
            ask(client, "faces_photo", {**given, "picture": photos[:, 1:]}, ["image"])


def test_the_doctor_and_the_server_look_at_ensembles(published, tmp_path):
    repository = shutil.copytree(published, tmp_path / "models")

    def told(status):
        return "\n".join(f"{one.subject}: {one.text}" for one in check_models(repository) if one.status == status)

    assert told(BAD) == ""
    check_repository(repository, ["faces", "faces_encoder", "faces_photo"])
    with pytest.raises(ServerStartError, match=r"'faces_photo' passes requests on to 'faces_encoder', .* add --model"):
        check_repository(repository, ["faces", "faces_photo"])
    path = repository / "faces_encoder" / "config.pbtxt"
    text = path.read_text()
    path.write_text(text.replace(manifest_of(path.parent)[0]["files_sha256"]["model.onnx"], "0" * 64))
    assert "model faces: its encoder faces_encoder serves another version: latentclr rollback" in told(BAD)
    shutil.rmtree(path.parent)
    assert "model faces: its encoder faces_encoder is not there: export again" in told(BAD)
    assert "model faces_photo: asks faces_encoder, which is not there: export it again" in told(BAD)
    with pytest.raises(ServerStartError, match=r"'faces_photo' passes requests on to 'faces_encoder', .* export again"):
        check_repository(repository)
    shutil.rmtree(repository / "means_photo")
    assert "model means: the ensemble means_photo of it and its encoder is not there" in told(WARN)
