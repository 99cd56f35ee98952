"""`latentclr invert PICTURE...`: codes, figures and pictures, all or none, and one line for what is wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from latentclr.commands.invert_train import run_invert_train
from latentclr.generators.dcgan import load_dcgan
from latentclr.inversion.encoder import ENCODER_FILE, load_encoder, save_encoder
from latentclr.pictures.pixels import to_uint8
from serving.contract.photo.crop import Crop


@pytest.fixture(scope="module")
def encoded(trained, tmp_path_factory):
    """A run with an encoder."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("encoded") / "run")
    assert run_invert_train([str(run), "steps=40", "batch=8", "channels=8", "device=cpu"])
    return run


@pytest.fixture
def pictures(tiny_weights, tmp_path):
    """Two pictures of the generator's own, in one of which it lies in a larger one."""
    generator = load_dcgan(str(tiny_weights))
    drawn = to_uint8(generator.synthesize(generator.sample_seeds(7, 2)[:, None])).numpy()
    Image.fromarray(drawn[0]).save(tmp_path / "own.png")
    wide = np.full((16, 40, 3), 200, np.uint8)
    wide[:, 12:28] = drawn[1]
    Image.fromarray(wide).save(tmp_path / "wide.png")
    return [tmp_path / "own.png", tmp_path / "wide.png"]


def test_codes_figures_and_pictures(encoded, pictures, tmp_path, invoke):
    output = tmp_path / "found" / "codes.npy"
    result = invoke("invert", *pictures, "--run", encoded, "-o", output, "--steps", 40, "--paste")
    assert result.exit_code == 0, result.output
    codes = np.load(output)
    assert (codes.shape, codes.dtype) == ((2, 24), np.float32)
    record = json.loads(output.with_suffix(".json").read_text())
    for entry in record["pictures"]:
        before, after = entry["reached"]["encoder"], entry["reached"]["refined"]
        assert after["psnr_db"] > before["psnr_db"] + 3
        assert 0 < after["from_prior"] < 3
        assert entry["how"] == "centre"
    # What the code draws is what the figures are of: the crop of the wide one is the picture that lies in its middle.
    generator = load_encoder(encoded / ENCODER_FILE)
    crop = Crop.parse(record["pictures"][1]["crop"])
    assert crop.size == (16, 16)
    assert generator.encoder.spec.space == record["space"] == "z"
    with Image.open(tmp_path / "found" / "wide.pasted.png") as pasted, Image.open(pictures[1]) as wide:
        assert pasted.size == wide.size
        assert np.array_equal(np.asarray(pasted)[:, :8], np.asarray(wide)[:, :8])
    assert output.with_suffix(".png").is_file()
    assert "own.png: centre; encoder" in result.output


def test_without_steps_the_encoder_alone_answers(encoded, pictures, tmp_path, invoke):
    assert invoke("invert", pictures[0], "--run", encoded, "-o", tmp_path / "a.npy").exit_code == 0
    with Image.open(pictures[0]) as picture:
        seen = torch.from_numpy(np.array(picture))[None]
    expected = load_encoder(encoded / ENCODER_FILE).encoder(seen)
    # The same picture in a batch of the same size; only the threads of convolutions may differ.
    assert np.allclose(np.load(tmp_path / "a.npy"), expected.numpy(), atol=1e-4)
    assert list(json.loads((tmp_path / "a.json").read_text())["pictures"][0]["reached"]) == ["encoder"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-o", "codes.png"), "must name an .npy file"),
        (("--class-id", "1"), "has no classes"),
        (("--face", "0"), "does not say where its pictures have a face"),
        (("--set", "generator.weight=x"), "unknown option"),
        (("--device", "tpu"), "device must be cpu"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(
    words, told, encoded, pictures, tmp_path, invoke, refused, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert told in refused(invoke("invert", pictures[0], "--run", encoded, *words))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_picture_of_ones_own_is_never_overwritten(encoded, pictures, tmp_path, invoke, refused):
    """CODES.png and CODES.json lie beside CODES.npy, where the picture that is read often lies too."""
    own, other = pictures
    linked = tmp_path / "linked.png"
    linked.symlink_to(own)
    (tmp_path / "notes.json").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for output, told in {
        "own.npy": "own.png is one of the pictures",
        "linked.npy": "linked.png is one of the pictures",
        "wide.npy": "wide.png exists, and wide.npy does not",
        "notes.npy": "notes.json exists, and notes.npy does not",
    }.items():
        assert told in refused(invoke("invert", own, "--run", encoded, "-o", tmp_path / output))
    pasted = own.rename(tmp_path / "wide.pasted.png")
    line = refused(invoke("invert", other, pasted, "--run", encoded, "-o", tmp_path / "a.npy", "--paste"))
    assert "wide.pasted.png is one of the pictures" in line
    pasted.rename(own)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_invert_wrote_before_is_replaced(encoded, pictures, tmp_path, invoke):
    for picture in pictures:
        assert invoke("invert", picture, "--run", encoded, "-o", tmp_path / "codes.npy").exit_code == 0
    assert json.loads((tmp_path / "codes.json").read_text())["pictures"][0]["picture"] == "wide.png"


def test_pictures_of_one_name_are_not_pasted_over_each_other(encoded, pictures, tmp_path, invoke, refused):
    (tmp_path / "b").mkdir()
    again = shutil.copy(pictures[1], tmp_path / "b" / "own.png")
    words = ("--run", encoded, "-o", tmp_path / "found" / "codes.npy")
    assert "own.pasted.png twice" in refused(invoke("invert", pictures[0], again, *words, "--paste"))
    assert not (tmp_path / "found").exists()
    assert invoke("invert", pictures[0], again, *words).exit_code == 0


def test_bad_pictures_and_encoders(encoded, pictures, trained, tmp_path, invoke, refused):
    (tmp_path / "text.png").write_text("no picture")
    output = tmp_path / "codes.npy"
    line = refused(invoke("invert", pictures[0], tmp_path / "text.png", "--run", encoded, "-o", output))
    assert "text.png is not a picture" in line
    assert "latentclr invert train" in refused(invoke("invert", pictures[0], "--run", trained, "-o", output))
    other = shutil.copytree(encoded, tmp_path / "other")
    saved = load_encoder(other / ENCODER_FILE)
    save_encoder(saved.path, type(saved)(**{**vars(saved), "generator": {"name": "x", "weights_sha256": "f"}}))
    assert "is of another generator" in refused(invoke("invert", pictures[0], "--run", other, "-o", output))
    save_encoder(saved.path, type(saved)(**{**vars(saved), "training": {}}))
    assert "does not say which generator" in refused(invoke("invert", pictures[0], "--run", other, "-o", output))
    assert not output.exists()


def test_help_says_both(invoke):
    told = invoke("invert", "--help").output
    assert "invert train outputs/faces" in told
    assert "--steps" in invoke("invert", "me.jpg", "--help").output
