"""`latentclr export --with-encoder`: published with the editor or not at all, proven, and served as an ensemble."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from click.testing import CliRunner
from small_stylegan2 import D, K, manifest_of, train_small
from tiny_models import nudge

from export.editor import FusedEditor
from export.encoder import ServedEncoder, certified_photos, check_encoder, export_encoder, save_golden_photos
from export.errors import ExportError
from export.parity import run_eager
from export.repository import rollback
from latentclr.cli import cli
from latentclr.config import TrainConfig
from latentclr.errors import CheckpointError
from latentclr.inversion.encoder import ENCODER_FILE, Encoder, EncoderSpec, SavedEncoder, load_encoder, save_encoder
from latentclr.training.experiment import open_run, trained_generator
from latentclr.training.rng import stream
from serving import TritonServer
from serving.contract.certificate import GATES
from serving.contract.golden import GOLDEN_FILE, GoldenError
from serving.contract.golden_photos import CODES_APART, read_golden_photos
from serving.contract.manifest import parse_manifest
from serving.doctor.repository_checks import check_models
from serving.errors import ServingError
from serving.triton.ports import Ports

MODELS = ["faces", "faces_encoder", "faces_encoder_torchscript", "faces_photo", "faces_photo_torchscript",
          "faces_torchscript"]  # fmt: skip


def give_encoder(run, space="w+", **changes):
    """Write an encoder with random weights into a run's folder."""
    config, checkpoint = open_run(run, [], TrainConfig)
    generator = trained_generator(config, checkpoint)
    height, width = generator.size
    encoder = Encoder(EncoderSpec(space, generator.latent.dim, generator.latent.layers, height, width, 4))
    with torch.no_grad():
        for number, parameter in enumerate(encoder.parameters()):
            parameter += 0.05 * torch.randn(parameter.shape, generator=stream(0, "encoder", number))
    described = {**generator.describe(), **changes}
    saved = SavedEncoder(encoder.eval(), described, None, {"steps": 0}, {"psnr": 20.0}, run / ENCODER_FILE)
    save_encoder(saved.path, saved)
    return load_encoder(saved.path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = train_small(tmp_path_factory.mktemp("stylegan2"))
    give_encoder(run)
    return run


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    """(repository, what the command printed)."""
    repository = tmp_path_factory.mktemp("published") / "repository"
    words = ["export", str(trained), "--repository", str(repository), "--name", "faces", "--with-encoder"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return repository, result.output


def editor_of(run, space="w+"):
    config, checkpoint = open_run(run, [], TrainConfig)
    return FusedEditor(trained_generator(config, checkpoint), checkpoint.directions, space)


def photos(editor, count=3):
    height, width = editor.generator.size
    return torch.randint(0, 256, (count, height, width, 3), generator=stream(3, "photos"), dtype=torch.uint8)


def test_what_is_published(published, trained):
    repository, said = published
    assert sorted(path.name for path in repository.iterdir()) == MODELS
    full, _ = manifest_of(repository / "faces")
    its, config = manifest_of(repository / "faces_encoder")
    assert full["latent"]["input"] == "w+"  # the encoder's, without a word
    assert full["encoder"]["files_sha256"] == its["files_sha256"]
    assert its["encoder_of"] == "faces"
    assert all(one["passed"] and one["images"] == 64 for one in its["parity"].values())
    assert set(its["parity"]) == {"onnxruntime", "torchscript"}
    layers = full["latent"]["layers"]
    assert [list(output.dims) for output in config.output] == [[layers, D], [1], [1, layers], [layers, D]]
    ensemble, config = manifest_of(repository / "faces_photo")
    assert ensemble["photo_of"] == "faces"
    assert [step.model_name for step in config.ensemble_scheduling.step] == ["faces", "faces_encoder", "faces"]
    _, config = manifest_of(repository / "faces_photo_torchscript")
    assert [step.model_name for step in config.ensemble_scheduling.step] == [
        "faces_torchscript", "faces_encoder_torchscript", "faces_torchscript"
    ]  # fmt: skip
    for manifest in (full, its, ensemble):
        parse_manifest(json.dumps(manifest))
    assert parse_manifest(json.dumps(full)).encoder.figures == {"psnr": 20.0}
    assert "encoder from pictures to w+:" in said


@pytest.mark.slow
def test_the_ensemble_draws_what_eager_draws(published, trained):
    editor, encoder = editor_of(trained), load_encoder(trained / ENCODER_FILE).encoder
    seen = photos(editor)
    layers = editor.generator.latent.layers
    direction, alpha = np.array([[0, 2], [1, 1], [2, K]]), np.full((3, 2, layers), 1.5, np.float32)  # the last is bad
    codes = encoder(seen).numpy()
    image, valid = run_eager(editor, codes, direction, alpha)
    unedited, _ = run_eager(editor, codes, direction[:, :0], alpha[:, :0])
    arrays = {"picture": seen.numpy(), "direction": direction, "alpha": alpha}
    with TritonServer(published[0], ports=Ports(0, 0, 0)) as running:
        client = triton.InferenceServerClient(running.grpc_url)
        inputs = [
            triton.InferInput(name, array.shape, kind)
            for (name, array), kind in zip(arrays.items(), ("UINT8", "INT64", "FP32"), strict=True)
        ]
        for one, array in zip(inputs, arrays.values(), strict=True):
            one.set_data_from_numpy(array)
        for model in ("faces_photo", "faces_photo_torchscript"):
            answer = client.infer(model, inputs)
            drawn = {name: answer.as_numpy(name) for name in ("image", "valid", "reconstruction", "w")}
            assert drawn["valid"].ravel().tolist() == valid.tolist() == [True, True, False]
            for found, expected in ((drawn["image"], image), (drawn["reconstruction"], unedited)):
                assert np.abs(found.astype(int) - expected).max() <= 1
            assert np.abs(drawn["w"] - codes).max() < 1e-3 * np.abs(codes).max()
        client.close()


def test_the_doctor_finds_them_well_and_misses_what_an_ensemble_asks(published, tmp_path):
    findings = {finding.subject: finding.status for finding in check_models(published[0])}
    assert {findings[f"model {model}"] for model in MODELS} == {"ok"}, findings
    broken = shutil.copytree(published[0], tmp_path / "repository")
    shutil.rmtree(broken / "faces_encoder")
    told = [finding.text for finding in check_models(broken) if finding.subject == "model faces_photo"]
    assert told == ["asks faces_encoder, which is not there: export it again"]


@pytest.mark.slow
def test_a_running_encoder_is_certified(published, tmp_path, invoke, refused, monkeypatch):
    repository = shutil.copytree(published[0], tmp_path / "repository")

    def certify(server, *words, model="faces"):
        return invoke("certify", "--url", server.grpc_url, "--model", model, "--requests", 2, *words)

    with TritonServer(repository, ports=Ports(0, 0, 0)) as server:
        for model in ("faces", "faces_torchscript"):
            words = ["--repository", repository, "--json", tmp_path / "certificate.json"]
            said = certify(server, *words, model=model)
            assert said.exit_code == 0, said.output
            assert f"its encoder, 12 golden photos of {repository / 'faces_encoder'}" in said.output
            record = json.loads((tmp_path / "certificate.json").read_text())["encoder"]
            assert record["passed"] and record["images"] == 12 and record["codes_apart"] <= CODES_APART
        files = [repository / model / "1" / GOLDEN_FILE for model in ("faces", "faces_encoder")]
        said = certify(server, "--golden", files[0], "--golden-photos", files[1])
        assert said.exit_code == 0 and "12 golden photos" in said.output
        said = certify(server, "--golden", files[0])
        assert said.exit_code == 0 and "its encoder is not asked: that takes --golden-photos FILE" in said.output
        line = refused(certify(server, "--golden", files[0], "--golden-photos", files[0]))
        assert line.endswith("holds no golden photos: it lacks 'picture'")
        line = refused(certify(server, "--repository", repository, model="faces_encoder"))
        assert line == "Error: faces_encoder is certified with the model that it was published with: faces"

        def silent(*_):
            raise ServingError("no answer")

        with monkeypatch.context() as patch:
            patch.setattr("serving.certify.proof.prove_photos", silent)
            words = ["--repository", repository, "--json", tmp_path / "silent.json"]
            assert refused(certify(server, *words)) == "Error: no answer"
        record = json.loads((tmp_path / "silent.json").read_text())
        assert record["passed"] and record["latency"] and "encoder" not in record

    nudge(repository / "faces_encoder" / "1", 1.05)
    with TritonServer(repository, ports=Ports(0, 0, 0)) as server:
        line = refused(certify(server, "--repository", repository, "--json", tmp_path / "certificate.json"))
        assert line.startswith("Error: the encoder of faces misses exact: ")
        assert line.endswith(" standard deviations apart instead of at most 0.001")
        record = json.loads((tmp_path / "certificate.json").read_text())
        assert record["passed"] and not record["encoder"]["passed"]
        loose = certify(server, "--repository", repository, "--quality", "worst=255")
        assert loose.exit_code == 0, loose.output  # numbers ask for pictures alone


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scale": np.ones(3, np.float32)}, r"holds no golden photos: scale is float32 \[3\]"),
        ({"scale": np.zeros(D, np.float32)}, "holds no golden photos: scale is float32"),
        ({"image": np.zeros((12, 4, 4, 3), np.uint8)}, "its arrays do not fit together"),
        ({"picture": np.zeros((11, 16, 16, 3), np.uint8)}, "codes is float32"),
        ({"picture": None}, "holds no golden photos: it lacks 'picture'"),
        ({"about": np.zeros((0,), np.uint8)}, "is not JSON"),
    ],
)
def test_golden_photos_that_were_changed_are_refused(change, told, published, tmp_path):
    with np.load(published[0] / "faces_encoder" / "1" / GOLDEN_FILE) as file:
        arrays = {**file, **change}
    path = tmp_path / "changed.npz"
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(GoldenError, match=told):
        read_golden_photos(path)


def test_both_go_back_together(published, tmp_path, trained):
    repository = shutil.copytree(published[0], tmp_path / "repository")
    words = ["export", str(trained), "--repository", str(repository), "--name", "faces", "--with-encoder"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    assert rollback(repository, "faces") == dict.fromkeys(
        ("faces", "faces_torchscript", "faces_encoder", "faces_encoder_torchscript", "faces_photo",
         "faces_photo_torchscript"), (2, 1)
    )  # fmt: skip


def test_no_version_without_an_encoder_is_left_to_an_ensemble(published, trained, tmp_path, invoke, refused):
    repository = shutil.copytree(published[0], tmp_path / "repository")
    words = ("export", trained, "--repository", repository, "--name", "faces", "--latent-input", "w+")
    assert "faces_photo, faces_photo_torchscript, which would ask a version without" in refused(invoke(*words))
    for model in ("faces_photo", "faces_photo_torchscript"):
        shutil.move(repository / model, tmp_path / model)
    assert invoke(*words).exit_code == 0  # version 2, without
    for model in ("faces_photo", "faces_photo_torchscript"):
        shutil.move(tmp_path / model, repository / model)
    with pytest.raises(ExportError, match="for 2 has none"):
        rollback(repository, "faces", 2)


def test_a_graph_that_finds_other_codes_is_not_published(trained, tmp_path):
    editor, saved = editor_of(trained), load_encoder(trained / ENCODER_FILE)
    made = export_encoder(saved, ["onnxruntime", "torchscript", "openvino"], tmp_path / "encoder")
    assert [one.passed for one in check_encoder(editor, saved, made.engines, certified_photos(editor, 12))] == [
        True
    ] * 3
    nudged = load_encoder(trained / ENCODER_FILE)
    with torch.no_grad():
        nudged.encoder.base.bias += 0.01
    with pytest.raises(ExportError, match=r"codes of the encoder differ by 0\.01 standard deviations"):
        check_encoder(editor, nudged, made.engines, certified_photos(editor, 12))

    def wrong(pictures):
        raise RuntimeError("out of\nmemory")

    with pytest.raises(ExportError, match="cannot encode 1 pictures: out of memory"):
        check_encoder(editor, saved, {"onnxruntime": wrong}, certified_photos(editor, 12))


def test_photos_that_no_server_could_draw_are_not_kept(trained, published, tmp_path):
    """A graph may hold the gate for the certificate's codes and miss it for those of photos."""
    editor, saved = editor_of(trained), load_encoder(trained / ENCODER_FILE)
    manifest, _ = manifest_of(published[0] / "faces")

    def dark(*given):
        image, valid = run_eager(editor, *given)
        return image // 2, valid

    given = editor, saved, manifest, certified_photos(editor, 12)
    with pytest.raises(ExportError, match=r"dark draws golden photos outside exact, nothing is published: worst step"):
        save_golden_photos(tmp_path, *given, {"dark": dark}, GATES["exact"])
    assert not list(tmp_path.iterdir())


def test_zeros_ask_for_the_unedited_picture(trained):
    editor, saved = editor_of(trained), load_encoder(trained / ENCODER_FILE)
    code, direction, alpha, again = ServedEncoder(saved.encoder)(photos(editor))
    assert torch.equal(code, again)
    image, valid = editor(code, direction, alpha)
    unedited, _ = editor(code, direction[:, :0], alpha[:, :0])
    assert valid.all()
    assert torch.equal(image, unedited)


@pytest.mark.parametrize(
    ("change", "words", "told"),
    [
        (lambda run: (run / ENCODER_FILE).unlink(), (), "latentclr invert train"),
        (lambda run: None, ("--latent-input", "z"), "the encoder's codes are w+"),
        (lambda run: give_encoder(run, weights_sha256="f" * 64), (), "is of another generator"),
        (lambda run: (run / ENCODER_FILE).write_bytes(b"no"), (), "not a whole encoder"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_published(change, words, told, trained, tmp_path, invoke, refused):
    run = shutil.copytree(trained, tmp_path / "run")
    change(run)
    line = refused(invoke("export", run, "--repository", tmp_path / "models", "--with-encoder", *words))
    assert told in line
    assert not (tmp_path / "models").exists()


def test_an_encoder_of_other_sizes_is_told(trained):
    saved = load_encoder(trained / ENCODER_FILE)
    other = dataclasses.replace(saved, encoder=Encoder(dataclasses.replace(saved.encoder.spec, height=32)))
    with pytest.raises(CheckpointError, match="is for D, L, H, W"):
        other.check_generator(editor_of(trained).generator)
