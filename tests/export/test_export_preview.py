"""`latentclr export --preview PIXELS`: a second model that stops early, published with the first or not at all."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from small_stylegan2 import D, K, L, manifest_of, train_small
from tiny_generators import LayeredGenerator

from export.editor import FusedEditor
from export.errors import ExportError
from export.onnx import OnnxEditor
from export.parity import run_eager
from export.pipeline import preview_gate
from export.precision import Clock
from export.preview import EDITED, averaged_down, measure_likeness, preview_editor
from export.preview import QUALITY as PREVIEW_QUALITY
from export.repository import publish, rollback
from latentclr.cli import cli
from latentclr.errors import SaveError
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.method.directions import build_directions
from latentclr.training.checkpoint import load_checkpoint
from serving.contract.certificate import GATES, SAME_DB, Gate
from serving.contract.files import sha256_of
from serving.contract.golden import read_golden
from serving.contract.manifest import parse_manifest
from serving.contract.published import PublishedModel

MODELS = ["faces", "faces_preview", "faces_preview_torchscript", "faces_torchscript"]
LOOSE = Gate.parse("psnr=20")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = train_small(tmp_path_factory.mktemp("stylegan2"))
    (run / "catalog.yaml").write_text("smile: {direction: 2, layers: [1, 2]}\n")
    return run


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    """(repository, what the command printed)."""
    repository = tmp_path_factory.mktemp("published") / "repository"
    words = ["export", str(trained), "--repository", str(repository), "--name", "faces", "--preview", "8"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return repository, result.output


def test_what_is_published(published):
    repository, said = published
    assert sorted(path.name for path in repository.iterdir()) == MODELS
    full, _ = manifest_of(repository / "faces")
    its, config = manifest_of(repository / "faces_preview")
    for model in MODELS:  # each has golden requests of its own size
        path, said_of = repository / model / "1" / "golden.npz", full if "preview" not in model else its
        assert said_of["files_sha256"]["golden.npz"] == sha256_of(path)
        assert read_golden(path).images.shape[1:3] == ((8, 8) if "preview" in model else (16, 16))
    assert full["preview"] == {"size": [8, 8], "files_sha256": its["files_sha256"]}
    assert "preview_of" not in full
    assert (its["preview_of"], its["name"], its["generator"]["resolution"]) == ("faces", "faces_preview", 8)
    assert its["files_sha256"]["model.onnx"] == sha256_of(repository / "faces_preview" / "1" / "model.onnx")
    for key in ("latent", "directions", "edits", "versions", "format"):
        assert its[key] == full[key], key
    assert [list(output.dims) for output in config.output] == [[8, 8, 3], [1]]
    assert set(its["parity"]) == {"onnxruntime", "torchscript"}
    assert all(one["passed"] and one["gate"] == "exact" for one in its["parity"].values())
    assert set(its["likeness"]) == {"rows", "worst_psnr_db", "mean_psnr_db", "worst_ssim", "mean_ssim"}
    assert EDITED <= its["likeness"]["rows"] < its["parity"]["onnxruntime"]["images"]
    assert f"PSNR {its['likeness']['mean_psnr_db']:.1f} dB" in said
    twin, _ = manifest_of(repository / "faces_preview_torchscript")
    assert {**twin, "name": "faces_preview"} == its
    assert (parse_manifest(json.dumps(full)).preview.size, parse_manifest(json.dumps(its)).preview_of) == (
        (8, 8),
        "faces",
    )


@pytest.mark.slow
def test_beside_half_precision_the_preview_stays_in_float32(trained, invoke, tmp_path):
    words = ("export", trained, "--repository", tmp_path, "--name", "half", "--target", "gpu", "--preview", "8")
    result = invoke(*words, "--precision", "fp16", "--tensorrt", "fp16", "--quality", "psnr=30")
    assert result.exit_code == 0, result.output
    assert "preview of 8 pixels, which stays in float32:" in result.stdout
    assert sorted(path.name for path in tmp_path.glob("half*")) == ["half", "half_preview"]
    for model, precision in (("half", "fp16"), ("half_preview", "fp32")):
        manifest, config = manifest_of(tmp_path / model)
        assert manifest["precision"] == manifest["parity"]["onnxruntime"]["precision"] == precision
        assert sha256_of(tmp_path / model / "1" / "golden.npz") == manifest["files_sha256"]["golden.npz"]
        accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator[0]
        assert accelerator.parameters["precision_mode"] == precision.upper()


@pytest.mark.slow
def test_a_preview_in_int8_beside_a_picture_in_float32(trained, invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Clock, "ms", lambda clock, engine, patience=1: 0.5 * clock.reference_ms
    )  # as it is for large pictures
    words = ("export", trained, "--repository", tmp_path, "--name", "mixed", "--preview", "8")
    result = invoke(*words, "--preview-precision", "int8")
    assert result.exit_code == 0, result.output
    assert "int8: only for onnxruntime; TorchScript stays in fp32" in result.stdout
    assert "preview of 8 pixels, in int8:" in result.stdout
    assert sorted(path.name for path in tmp_path.glob("mixed*")) == ["mixed", "mixed_preview"]
    assert preview_gate("fp32", "int8", LOOSE) is GATES["exact"] and preview_gate("fp32", "fp32", LOOSE) is LOOSE
    for model, precision, gate in (("mixed", "fp32", "exact"), ("mixed_preview", "int8", PREVIEW_QUALITY)):
        manifest, _ = manifest_of(tmp_path / model)
        (proof,) = manifest["parity"].values()
        assert (manifest["precision"], proof["precision"], proof["gate"], proof["passed"]) == (precision,) * 2 + (
            gate,
            True,
        )
    graph = onnx.load(str(tmp_path / "mixed_preview" / "1" / "model.onnx"))
    assert "QuantizeLinear" in {node.op_type for node in graph.graph.node}


@pytest.mark.parametrize(("words", "said"), [
    (["--preview-precision", "int8"], "--preview-precision int8 is of a preview: give --preview PIXELS as well"),
    (["--preview", "8", "--preview-precision", "int8", "--engine", "torchscript"],
     "torchscript is published in fp32 only; leave it out, or export in fp32"),
    (["--preview", "8", "--preview-precision", "bf16", "--engine", "onnxruntime"],
     "ONNX Runtime has no bfloat16 arithmetic on CPUs"),
    (["--preview", "8", "--preview-precision", "bf16", "--precision", "fp16"],
     "no engine has both --precision fp16 and --preview-precision bf16"),
    (["--preview", "8", "--preview-precision", "int8", "--precision", "fp16", "--tensorrt", "fp16"],
     "--tensorrt needs --preview-precision fp32 or fp16, got int8"),
])  # fmt: skip
def test_precisions_that_a_preview_cannot_have(trained, tmp_path, invoke, refused, words, said):
    assert said in refused(invoke("export", trained, "--repository", tmp_path / "new", *words))
    assert not list(tmp_path.iterdir())


def test_the_preview_draws_the_skip_image_of_the_same_request(published, trained):
    checkpoint = load_checkpoint(trained / "best.safetensors")
    weights = checkpoint.config["generator"]["weights"]
    generator = StyleGAN2(random_tensors(16, n_mlp=1, dim=D, width=8), truncation=0.7)
    assert weights.endswith("w.safetensors")
    editor = preview_editor(FusedEditor(generator, checkpoint.directions), 8)
    rng = np.random.RandomState(0)
    given = (rng.randn(4, D).astype(np.float32), rng.randint(K, size=(4, 2)), rng.randn(4, 2, L).astype(np.float32))
    expected, _ = run_eager(editor, *given)
    image, valid = OnnxEditor(published[0] / "faces_preview" / "1" / "model.onnx")(*given)
    assert valid.all()
    assert image.shape == (4, 8, 8, 3)
    truncated = abs(float(checkpoint.config["generator"]["truncation"]) - 0.7) < 1e-9
    assert truncated
    assert np.abs(image.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(("size", "said"), [
    ("16", "--preview 16: stylegan2 of 16 pixels has no preview of 16: it stops at 8"),
    ("9", "has no preview of 9: it stops at 8"),
])  # fmt: skip
def test_other_sizes_are_refused_before_any_work(trained, tmp_path, invoke, refused, size, said):
    assert said in refused(invoke("export", trained, "--repository", tmp_path / "new", "--preview", size))
    assert not list(tmp_path.iterdir())


def test_a_family_without_skip_images_is_refused():
    editor = FusedEditor(LayeredGenerator(), build_directions("global", K, 6, torch.Generator().manual_seed(1)))
    with pytest.raises(
        ExportError, match="--preview 4: layered of 8 pixels has no preview of 4: it has no pictures on"
    ):
        preview_editor(editor, 4)


def test_names_reach_the_preview_of_this_version_only(published, tmp_path):
    repository = shutil.copytree(published[0], tmp_path / "models")
    PublishedModel(repository, "faces").update(lambda entries: {**entries, "hat": {"direction": 1}})
    assert all(set(PublishedModel(repository, model).entries()) == {"smile", "hat"} for model in MODELS)
    path = repository / "faces_preview" / "config.pbtxt"
    digest = manifest_of(path.parent)[0]["files_sha256"]["model.onnx"]
    path.write_text(path.read_text().replace(digest, "0" * 64))  # of another version
    PublishedModel(repository, "faces").update(lambda entries: {**entries, "nose": {"direction": 1}})
    assert "nose" in PublishedModel(repository, "faces_torchscript").entries()
    assert "nose" not in PublishedModel(repository, "faces_preview").entries()


def test_a_failed_preview_publishes_nothing(trained, tmp_path, invoke, monkeypatch):
    import export.engines

    class Off(OnnxEditor):
        def __call__(self, *inputs):
            image, valid = super().__call__(*inputs)
            return (
                image if image.shape[1] == 16 else np.where(image < 128, image + 2, image - 2).astype(np.uint8)
            ), valid

    monkeypatch.setattr(export.engines, "OnnxEditor", Off)
    result = invoke("export", trained, "--repository", tmp_path / "new", "--preview", "8")
    line = result.stderr.splitlines()[-1]  # above it, on a slow machine, a progress bar
    assert result.exit_code == 2
    assert "parity failed, nothing is published: onnxruntime fp32: " in line
    assert not (tmp_path / "new").exists()


@pytest.fixture
def small_graphs(tmp_path):
    """Files that stand for graphs, the preview beside them, a manifest, and the preview's hashes."""
    for name in ("full", "small"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(name.encode())
    graphs, small = ({"onnxruntime": tmp_path / name / "model.onnx"} for name in ("full", "small"))
    files = {"model.onnx": sha256_of(small["onnxruntime"])}
    base = {"generator": {"resolution": 8, "classes": None}, "latent": {"input": "z", "dim": 6, "layers": 3},
            "parity": {}, "files_sha256": {"model.onnx": sha256_of(graphs["onnxruntime"])}}  # fmt: skip
    return graphs, {"edit_preview": (small, {**base, "files_sha256": files, "preview_of": "edit"})}, base, files


def test_versions_and_rollback(small_graphs, tmp_path):
    graphs, beside, base, files = small_graphs
    repository = tmp_path / "repository"

    def version(preview):
        manifest = {**base, "preview": {"size": [4, 4], "files_sha256": files}} if preview else base
        return [
            path.parts[-2:] for path in publish(repository, "edit", graphs, manifest, None, beside if preview else None)
        ]

    assert version(False) == [("edit", "1")]
    assert version(True) == [("edit", "2"), ("edit_preview", "2")]  # the same number for both
    assert version(True) == [("edit", "3"), ("edit_preview", "3")]
    assert version(False) == [("edit", "4")]
    assert rollback(repository, "edit") == {"edit": (4, 3), "edit_preview": (3, 3)}
    assert rollback(repository, "edit") == {"edit": (3, 2), "edit_preview": (3, 2)}
    assert rollback(repository, "edit") == {"edit": (2, 1)}  # which had none
    (repository / "edit_preview" / "3" / "model.onnx").write_bytes(b"other")
    with pytest.raises(ExportError, match="is not the file that its manifest describes"):
        rollback(repository, "edit", 3)
    assert manifest_of(repository / "edit")[1].version_policy.specific.versions == [1]  # both or none


def test_twins_of_the_preview(small_graphs, tmp_path):
    graphs, beside, base, files = small_graphs
    repository, manifest = tmp_path / "repository", {**base, "preview": {"size": [4, 4], "files_sha256": files}}
    small, its = beside["edit_preview"]
    for one in (graphs, small):
        one["onnxruntime"].with_name("model.xml").write_bytes(b"")
        one["openvino"] = one["onnxruntime"].with_name("model.xml")
    publish(repository, "edit", graphs, manifest, None, beside)
    publish(repository, "edit", graphs, manifest, None, beside)
    models = ["edit", "edit_openvino", "edit_preview", "edit_preview_openvino"]
    assert rollback(repository, "edit") == dict.fromkeys(models, (2, 1))
    PublishedModel(repository, "edit_openvino").update(lambda entries: {"hat": {"direction": 1}})
    assert all(set(PublishedModel(repository, model).entries()) == {"hat"} for model in models)
    shutil.rmtree(repository / "edit_openvino")
    only = {"onnxruntime": graphs["onnxruntime"]}
    with pytest.raises(
        ExportError, match=r"also holds edit_preview_openvino, .* export with --engine openvino as well"
    ):
        publish(
            repository, "edit", only, manifest, None, {"edit_preview": ({"onnxruntime": small["onnxruntime"]}, its)}
        )
    assert manifest_of(repository / "edit")[1].version_policy.specific.versions == [1]


@pytest.mark.parametrize("number", range(1, 5))  # two version folders, two configurations
def test_when_a_rename_fails_the_preview_is_taken_back_too(small_graphs, tmp_path, monkeypatch, number):
    graphs, beside, base, files = small_graphs
    manifest = {**base, "preview": {"size": [4, 4], "files_sha256": files}}
    publish(tmp_path / "models", "edit", graphs, manifest, None, beside)
    before = {path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()}
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == number:
            raise OSError(5, "Input/output error")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(SaveError, match="Input/output error"):
            publish(tmp_path / "models", "edit", graphs, manifest, None, beside)
    assert {path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()} == before


def test_likeness_by_hand():
    rng = np.random.RandomState(0)
    large = rng.randint(256, size=(2, 16, 16, 3)).astype(np.uint8)
    small = averaged_down(large, (8, 8))
    assert np.array_equal(small[1, 3, 5], np.rint(large[1, 6:8, 10:12].reshape(4, 3).mean(0)))
    off = np.clip(small.astype(int) + 5, 0, 255).astype(np.uint8)
    found = measure_likeness(lambda *_: (large, None), lambda *_: (off, None), [()])
    each = [10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()) for a, b in zip(small, off, strict=True)]
    assert (found.rows, found.worst_psnr_db) == (2, pytest.approx(min(each)))
    assert found.mean_psnr_db == pytest.approx(np.mean(each))
    same = measure_likeness(lambda *_: (large, None), lambda *_: (small, None), [()])
    assert (same.worst_psnr_db, same.worst_ssim) == (SAME_DB, pytest.approx(1))


def test_pictures_that_are_wider_than_high():
    large = np.random.RandomState(0).randint(256, size=(2, 6, 20, 3)).astype(np.uint8)
    small = averaged_down(large, (3, 5))
    assert small.shape == (2, 3, 5, 3)
    assert np.array_equal(small[1, 2, 4], np.rint(large[1, 4:6, 16:20].reshape(8, 3).mean(0)))

    class Wide(LayeredGenerator):
        width = 16

        def stopping_at(self, size):
            smaller = Wide()
            smaller.resolution, smaller.width = size, 2 * size if size == 4 else 5
            return smaller

    editor = FusedEditor(Wide(), build_directions("global", K, 6, torch.Generator().manual_seed(1)))
    assert preview_editor(editor, 4).generator.size == (4, 8)
    with pytest.raises(ExportError, match="--preview 2: its sides must divide those of the picture, 8 x 16, got 2 x 5"):
        preview_editor(editor, 2)
