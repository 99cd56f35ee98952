"""Golden requests: what they cover, that they are the same each time, and what a damaged file says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_editor import make
from test_latent_input import tensors

import export.golden
from export.editor import FusedEditor
from export.errors import ExportError
from export.golden import draw_golden, save_golden
from export.parity import run_eager
from latentclr.files import sha256_of
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.method.directions import GlobalDirections
from serving.contract.arrays import read_npz
from serving.contract.certificate import Gate
from serving.contract.golden import (
    GOLDEN_FILE,
    LARGEST_PICTURES,
    Golden,
    GoldenError,
    identity_of,
    read_golden,
    write_golden,
)

MANIFEST = {
    "generator": {"name": "layered", "weights_sha256": "0" * 64, "resolution": 8},
    "latent": {"input": "z"},
    "directions": {"checkpoint_sha256": "1" * 64},
}
ABOUT = identity_of(MANIFEST)
ALPHAS = [-6.0, -3.0, 1.5, 6.0]


@pytest.mark.parametrize("conditional", [False, True])
def test_they_cover_directions_strengths_and_numbers_of_edits(conditional, tmp_path):
    editor = make(conditional)
    path = save_golden(tmp_path, editor, MANIFEST, ALPHAS)
    golden = read_golden(path)
    assert path.name == GOLDEN_FILE
    assert golden.about == ABOUT
    assert set(golden.edits) == {0, 1, 3}
    assert len(golden) == 40
    alone = golden.direction[golden.edits == 1, 0]
    assert set(alone) == set(range(editor.directions.k))
    together = golden.direction[golden.edits == 3]
    assert all(len(set(row)) == min(3, editor.directions.k) for row in together)
    strengths = golden.alpha[golden.edits == 1, 0, 0]
    assert set(strengths) == set(ALPHAS)
    assert (golden.class_id is not None) == conditional
    if golden.class_id is not None:
        assert len(set(golden.class_id)) > 1
    assert np.array_equal(golden.codes, golden.codes[golden.unedited])
    for row in range(len(golden)):
        image, valid = run_eager(editor, *golden.request([row]))
        assert valid.all()
        assert np.abs(image[0].astype(int) - golden.images[row]).max() <= 1  # sums of another batch size


def test_the_same_editor_makes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    files = [save_golden(tmp_path / name, make(), MANIFEST, ALPHAS) for name in ("a", "b")]
    assert sha256_of(files[0]) == sha256_of(files[1])


def test_a_direction_alone_acts_where_it_was_trained():
    golden = draw_golden(make(), ABOUT, ALPHAS, torch.tensor([0.0, 1.0, 0.0]))
    alone = golden.alpha[golden.edits == 1, 0]  # [R, L]
    assert not alone[:, [0, 2]].any()
    assert alone[:, 1].all()


def test_many_directions_are_spread(monkeypatch):
    editor = make()
    editor.directions = GlobalDirections(100, editor.generator.latent.dim, torch.Generator().manual_seed(0)).eval()
    golden = draw_golden(editor, ABOUT, ALPHAS)
    alone = golden.direction[golden.edits == 1, 0]
    assert len(set(alone)) == len(alone) == 20
    assert alone.max() >= 80
    assert (golden.direction < 100).all()


def test_large_pictures_are_fewer(monkeypatch):
    monkeypatch.setattr(export.golden, "LARGEST_PICTURES", 3 * 4 * 3 * 8 * 8)
    golden = draw_golden(make(), ABOUT, ALPHAS)
    assert golden.images.nbytes == 3 * 4 * 3 * 8 * 8
    assert LARGEST_PICTURES // (4 * 3 * 1024 * 1024) == 2  # codes, at 1024 pixels
    assert set(golden.edits) == {0, 1, 3}


@pytest.mark.parametrize(("latent_input", "axes"), [("z", 2), ("w", 2), ("w+", 3)])
def test_codes_of_gan_inversion(latent_input, axes, tmp_path):
    generator = StyleGAN2(tensors())
    directions = GlobalDirections(3, generator.latent.dim, torch.Generator().manual_seed(0))
    path = save_golden(
        tmp_path,
        FusedEditor(generator, directions, latent_input),
        {**MANIFEST, "latent": {"input": latent_input}},
        ALPHAS,
    )
    assert read_golden(path).codes.ndim == axes


def test_an_edit_that_an_engine_only_just_misses_is_left_out(tmp_path):
    """The certificate's fidelity is that of 99 % of the edits, so that a golden file must not ask it of the others."""
    editor = make()
    whole = draw_golden(editor, ABOUT, ALPHAS)
    worst = whole.request([5])  # an edited row

    def engine(*inputs):
        image, valid = run_eager(editor, *inputs)
        hit = all(np.array_equal(given, bad) for given, bad in zip(inputs, worst, strict=True))
        return (255 - image if hit else image), valid

    path = save_golden(tmp_path, editor, MANIFEST, ALPHAS, None, {"engine": engine}, Gate.parse("psnr=40"))
    golden = read_golden(path)
    assert len(golden) == len(whole) - 1
    assert np.array_equal(golden.codes, golden.codes[golden.unedited])
    assert not golden.edits[golden.unedited].any()
    with pytest.raises(
        ExportError, match=r"engine draws \d+ of 40 golden requests outside psnr=40, nothing is published"
    ):
        save_golden(
            tmp_path, editor, MANIFEST, ALPHAS, None,
            {"engine": lambda *inputs: (255 - run_eager(editor, *inputs)[0], None)}, Gate.parse("psnr=40"),
        )  # fmt: skip


def sample() -> Golden:
    return draw_golden(make(), ABOUT, ALPHAS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"about": {**ABOUT, "format": 2}}, "is no golden file of format 1"),
        ({"about": {**ABOUT, "latent_input": "z2"}}, "it does not say what its codes are"),
        ({"images": np.zeros((40, 8, 8, 4), np.uint8)}, "do not fit together"),
        ({"images": np.zeros((40, 8, 8, 3), np.float32)}, "image is float32"),
        ({"edits": np.full(40, 4)}, r"edits are not in \[0, 3\]"),
        ({"edits": np.full(40, 1)}, "a row has no unedited picture"),
        ({"unedited": np.full(40, -1)}, "a row has no unedited picture"),
        ({"codes": np.zeros((39, 6), np.float32)}, r"codes is float32 \[39, 6\]"),
        ({"alpha": np.zeros((40, 2, 3), np.float32)}, "do not fit together"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(change, message, tmp_path):
    path = tmp_path / "golden.npz"
    golden = sample()
    bad = replace(golden, **change)
    if bad.about["latent_input"] == "z":
        write_golden(path, bad)
    else:
        arrays = {"z": golden.codes, "about": np.frombuffer(json.dumps(dict(bad.about)).encode(), np.uint8)}
        np.savez(path, **arrays)
    with pytest.raises(GoldenError, match=message):
        read_golden(path)


def test_cut_short_and_absent(tmp_path):
    path = tmp_path / "golden.npz"
    write_golden(path, sample())
    assert "image" in read_npz(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(GoldenError, match="is not a plain"):
        read_golden(path)
    with pytest.raises(GoldenError, match="cannot be read: No such file"):
        read_golden(tmp_path / "none")
