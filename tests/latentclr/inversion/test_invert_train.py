"""`latentclr invert train`: it learns, resumes exactly, and says what is wrong in one line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from latentclr.inversion.encoder import ENCODER_FILE, load_encoder
from latentclr.inversion.trainer import PICTURE_FILE, RESUME_FILE, EncoderTrainer

QUICK = ["steps=12", "batch=8", "channels=4", "save_freq=4", "device=cpu"]


def test_a_run_gets_an_encoder_and_a_picture(run, invoke):
    result = invoke("invert", "train", str(run), *QUICK)
    assert result.exit_code == 0, result.output
    saved = load_encoder(run / ENCODER_FILE)
    assert saved.training["steps"] == 12
    assert saved.training["config"]["generator"]["name"] == "dcgan"
    assert set(saved.figures) == {"psnr", "psnr_changed", "floor", "code_error"}
    with Image.open(run / PICTURE_FILE) as picture:
        assert picture.size == (8 * (16 + 2), 4 * (16 + 2))
    assert not (run / RESUME_FILE).exists()
    again = invoke("invert", "train", str(run), *QUICK)
    assert again.exit_code == 2
    assert "anew=true trains another" in again.output
    assert invoke("invert", "train", str(run), *QUICK, "anew=true").exit_code == 0


def test_it_learns(tiny_weights, tmp_path, invoke):
    words = [f"generator.weights={tiny_weights}", "steps=150", "batch=16", "channels=8", "device=cpu", "changed=0.2"]
    result = invoke("invert", "train", "generator=dcgan", *words, f"output_dir={tmp_path / 'alone'}")
    assert result.exit_code == 0, result.output
    figures = load_encoder(tmp_path / "alone" / ENCODER_FILE).figures
    assert figures["psnr"] > figures["floor"] + 2
    assert figures["code_error"] < 0.9


def test_resumed_is_the_same_as_uninterrupted(run, invoke, monkeypatch):
    invoke("invert", "train", str(run), *QUICK, f"output_dir={run / 'whole'}")
    one = EncoderTrainer._one

    def stopping(self):
        if self.step == 6:
            signal.raise_signal(signal.SIGINT)
        return one(self)

    monkeypatch.setattr(EncoderTrainer, "_one", stopping)
    stopped = invoke("invert", "train", str(run), *QUICK, f"output_dir={run / 'parts'}")
    assert stopped.exit_code == 130
    assert "interrupted at step 7" in stopped.output
    monkeypatch.undo()
    assert invoke("invert", "train", str(run), *QUICK, f"output_dir={run / 'parts'}").exit_code == 0
    whole, parts = (load_encoder(run / name / ENCODER_FILE) for name in ("whole", "parts"))
    for name, tensor in whole.encoder.state_dict().items():
        assert torch.equal(tensor, parts.encoder.state_dict()[name]), name
    assert whole.figures == parts.figures


def test_a_killed_one_goes_on(run):
    command = [sys.executable, "-m", "latentclr", "invert", "train", str(run), "batch=8", "channels=4", "steps=100000",
               "save_freq=3", "device=cpu"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 60
        while not (run / RESUME_FILE).exists() and time.monotonic() < limit:
            time.sleep(0.05)
        process.kill()
    state = torch.load(run / RESUME_FILE, weights_only=True)
    assert state["step"] >= 3
    assert json.dumps(state["config"]["generator"])
    assert not (run / ENCODER_FILE).exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["space=w"], "space must be z for dcgan, got 'w'"),
        (["steps=0"], "steps must be in"),
        (["channels=2"], "channels must be in"),
        (["batch=1"], "batch must be in"),
        (["learning_rate=2"], "learning_rate must be between"),
        (["changed=1.5"], "changed must be in"),
        (["step=3"], "unknown option 'step'"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(run, words, told, invoke):
    before = sorted(run.iterdir())
    result = invoke("invert", "train", str(run), *words)
    assert result.exit_code == 2
    assert told in result.output
    assert result.output.count("\n") == 1
    assert sorted(run.iterdir()) == before


def test_no_run_and_no_folder(invoke, tmp_path):
    assert "expected a run folder" in invoke("invert", "train").output
    assert "output_dir" in invoke("invert", "train", "generator=dcgan").output
    missing = invoke("invert", "train", str(tmp_path / "none"))
    assert missing.exit_code == 2
    assert "no run folder" in missing.output


def test_other_settings_do_not_go_on(run, invoke, monkeypatch, tiny_weights, tmp_path):
    def stopping(self):
        signal.raise_signal(signal.SIGINT)
        return one(self)

    one = EncoderTrainer._one
    monkeypatch.setattr(EncoderTrainer, "_one", stopping)
    invoke("invert", "train", str(run), *QUICK)
    monkeypatch.undo()
    for word, told in (
        ("channels=8", "channels=4, got 8"),
        ("generator.feature_layer=main.5", "generator.feature_layer=main.2, got main.5"),
    ):
        result = invoke("invert", "train", str(run), *QUICK, word)
        assert result.exit_code == 2
        assert f"was begun with {told}" in result.output
    moved = shutil.copy(tiny_weights, tmp_path / "moved.safetensors")  # the same generator
    assert invoke("invert", "train", str(run), *QUICK, f"generator.weights={moved}").exit_code == 0
