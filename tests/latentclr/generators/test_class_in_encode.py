"""A mapping that depends on the class: everybody who encodes z says of which class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_generators import CLASSES, LAYERS, D, MappedGenerator

from export.editor import FusedEditor
from export.onnx import OnnxEditor, export_onnx
from export.parity import Judge, check_parity
from export.torchscript import TorchScriptEditor, export_torchscript
from latentclr.config import TrainConfig
from latentclr.method.attributes import fit_attributes
from latentclr.method.directions import Directions, build_directions
from latentclr.method.ganspace import ganspace
from latentclr.method.projectors import Projector
from latentclr.method.step import ContrastiveStep, StepOptions
from latentclr.pictures.overview import draw_overview
from latentclr.pictures.render import edited_images
from latentclr.scores.pixels import PixelScorer
from latentclr.scores.subject import Subject


@pytest.fixture(scope="module")
def generator() -> MappedGenerator:
    return MappedGenerator()


@pytest.fixture(scope="module")
def directions() -> Directions:
    return build_directions("nonlinear", 3, D, torch.Generator().manual_seed(0), 2).eval()


def test_a_step_encodes_each_code_in_its_class(generator, directions, rng):
    step = ContrastiveStep(generator, directions, Projector(), StepOptions(layer="layers.1"))
    batch = step.sample(4, rng)
    seen = []
    generator.encode, encode = lambda z, c: seen.append(c) or encode(z, c), generator.encode  # type: ignore[method-assign]
    try:
        assert torch.isfinite(step(batch)[0])
    finally:
        del generator.encode
    assert torch.equal(seen[0], batch.class_id)


def test_pictures_and_scores_are_of_the_class(generator, directions, tmp_path):
    z = generator.sample_seeds(0, 1)
    first, second = (edited_images(generator, directions, z, [0], [0.0], class_id=c) for c in (1, 3))
    assert (first != second).any()
    fed = torch.ones(LAYERS)
    draw_overview(generator, directions, fed, TrainConfig(k=3), tmp_path / "grid.png")
    assert (tmp_path / "grid.png").is_file()
    codes = Subject(generator, directions, fed, ["layers.0"]).codes(4, 0, "x")
    same = generator.encode(generator.sample(4, torch.Generator()), codes.class_id)
    assert codes.p.shape == same.shape and codes.class_id.tolist() in ([1, 3, 1, 3], [3, 1, 3, 1])


def test_computed_directions_are_found(generator, rng):
    found, _ = ganspace(generator, 2, 200, "layers.0", rng, in_w=True)
    assert found.shape == (2, D)
    fed = torch.tensor([1.0, 0.0, 0.0])
    assert fit_attributes(generator, [PixelScorer()], ["brightness"], 300, fed, rng).vectors.shape == (1, D)


@pytest.mark.parametrize("latent_input", ["z", "w+"])
def test_the_served_editor_maps_with_the_row_s_class(generator, directions, latent_input, tmp_path):
    editor = FusedEditor(generator, directions, latent_input)
    export_onnx(editor, tmp_path / "model.onnx")
    export_torchscript(editor, tmp_path / "model.pt")
    engines = {"onnx": OnnxEditor(tmp_path / "model.onnx"), "torchscript": TorchScriptEditor(tmp_path / "model.pt")}
    check_parity(Judge(editor, [-2.0, 0.0, 2.0]), engines)
    z = generator.sample_seeds(0, 1).expand(3, -1)
    classes = torch.tensor([1, 3, len(CLASSES)])  # the last one does not exist
    still = torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, 0, LAYERS)
    if latent_input == "z":
        with torch.no_grad():
            image, valid = editor(z, *still, classes)
        assert valid.tolist() == [True, True, False] and (image[0] != image[1]).any() and not image[2].any()
        for i, class_id in enumerate((1, 3)):
            alone = edited_images(generator, directions, z[:1], [0], [0.0], class_id=class_id)[0, 0]
            assert np.abs(alone.astype(int) - image[i].numpy().astype(int)).max() <= 1
