"""The encoder: its answers, its file, and files that are none."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentclr.errors import CheckpointError
from latentclr.files import sha256_of
from latentclr.inversion.encoder import Encoder, EncoderSpec, SavedEncoder, load_encoder, save_encoder
from latentclr.training.rng import stream

SPECS = [
    EncoderSpec("z", 5, 1, 16, 16, 4),
    EncoderSpec("w", 6, 3, 20, 33, 4),
    EncoderSpec("w+", 6, 3, 16, 16, 4),
    EncoderSpec("z", 5, 1, 3, 9, 4),
    EncoderSpec("z", 5, 1, 600, 520, 4),
]


def perturbed(spec: EncoderSpec) -> Encoder:
    """An encoder whose answers depend on the picture."""
    encoder = Encoder(spec, stream(1, "encoder"))
    with torch.no_grad():
        for number, parameter in enumerate(encoder.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=stream(2, "perturb", number))
    return encoder.eval().requires_grad_(False)


def saved(spec: EncoderSpec, path: Path) -> SavedEncoder:
    face = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
    kept = SavedEncoder(
        perturbed(spec), {"name": "tiny", "weights_sha256": "ab"}, face, {"steps": 3}, {"psnr": 20.0}, path
    )
    save_encoder(path, kept)
    return kept


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_code_for_each_picture_whatever_else_is_in_the_batch(spec):
    encoder = perturbed(spec)
    pictures = torch.randint(0, 256, (3, spec.height, spec.width, 3), generator=stream(0, "x"), dtype=torch.uint8)
    codes = encoder(pictures)
    assert codes.shape == (3, *spec.shape)
    assert (codes[0] - codes[1]).abs().max() > 1e-4
    # Sums of other batch sizes may be rounded in another order: a few hundred terms of float32.
    assert torch.allclose(encoder(pictures[1:2]), codes[1:2], atol=1e-4 * float(codes.abs().max()))


def test_an_untrained_one_answers_with_the_mean_of_the_prior():
    encoder = Encoder(SPECS[0], stream(0, "encoder")).eval()
    codes = torch.randn(500, 5, generator=stream(0, "codes")) * 2 + 1
    encoder.set_prior(codes)
    answer = encoder(torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    assert torch.allclose(answer, codes.mean(0).expand(2, -1), atol=1e-6)


@pytest.mark.parametrize("spec", SPECS[:3], ids=str)
def test_it_comes_back_from_its_file(spec, tmp_path):
    before = saved(spec, tmp_path / "encoder.safetensors")
    after = load_encoder(before.path)
    picture = torch.randint(0, 256, (1, spec.height, spec.width, 3), generator=stream(0, "x"), dtype=torch.uint8)
    assert torch.equal(after.encoder(picture), before.encoder(picture))
    assert (after.face, after.training, after.figures) == (before.face, before.training, before.figures)
    assert not any(parameter.requires_grad for parameter in after.encoder.parameters())
    read = before.path.read_bytes()
    saved(SPECS[-1], before.path)  # it trains on: what is published is what was read
    assert after.sha256 == hashlib.sha256(read).hexdigest() != sha256_of(before.path)


def _rewritten(path, **changes):
    """Write an encoder's file again with another header."""
    meta = {"format": 1, "kind": "encoder", "generator": {}, "face": None, "training": {}, "figures": {}}
    meta |= {"spec": dataclasses.asdict(SPECS[0])} | changes
    save_file(load_file(path), path, metadata={"latentclr": json.dumps(meta)})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "directions"}, "not an encoder"),
        ({"format": 2}, "not an encoder of format 1"),
        ({"spec": {**dataclasses.asdict(SPECS[0]), "dim": 10**6}}, "1000000 numbers"),
        ({"spec": {**dataclasses.asdict(SPECS[0]), "height": 10**9}}, "height must be in"),
        ({"spec": {**dataclasses.asdict(SPECS[0]), "space": "q"}}, "space must be one of"),
        ({"spec": {**dataclasses.asdict(SPECS[0]), "channels": 5}}, "channels"),
        ({"spec": {**dataclasses.asdict(SPECS[0]), "height": 64}}, "not those of its header"),
        ({"spec": {"dim": 5}}, "do not fit"),
        ({"spec": None}, "do not fit"),
        ({"face": [[0, 0]]}, "five points"),
        ({"face": [[float("nan"), 0]] * 5}, "five points"),
        ({"figures": {"psnr": "a"}}, "do not fit"),
        ({"training": 5}, "do not fit"),
    ],
)
def test_a_file_that_is_none_is_one_line(changes, told, tmp_path):
    path = saved(SPECS[0], tmp_path / "encoder.safetensors").path
    _rewritten(path, **changes)
    with pytest.raises(CheckpointError, match=told) as raised:
        load_encoder(path)
    assert "\n" not in str(raised.value)


def test_files_that_are_missing_cut_short_or_not_finite(tmp_path):
    with pytest.raises(CheckpointError, match="latentclr invert train"):
        load_encoder(tmp_path / "none.safetensors")
    path = saved(SPECS[0], tmp_path / "encoder.safetensors").path
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(CheckpointError, match="not a whole encoder"):
        load_encoder(path)
    path.write_bytes(whole)
    tensors = load_file(path)
    tensors["base.weight"][0, 0] = float("nan")
    save_file(tensors, path)
    _rewritten(path)
    with pytest.raises(CheckpointError, match="not finite"):
        load_encoder(path)
