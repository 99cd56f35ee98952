"""Edited pictures: the codes of a walk, what is drawn of them, grids, and files that are whole or not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_generators import LAYERS, SIZE, D, LayeredGenerator

from latentclr.catalog import NamedEdit
from latentclr.config import shown_alphas
from latentclr.errors import SaveError
from latentclr.generators.dcgan import load_dcgan
from latentclr.method.directions import build_directions
from latentclr.pictures import render
from latentclr.pictures.pixels import to_uint8
from latentclr.pictures.render import (
    Drawing,
    alpha_label,
    corner_label,
    draw_codes,
    edited_images,
    grid,
    save_picture,
    save_walk,
    walk_codes,
)
from latentclr.training.checkpoint import load_checkpoint


def test_walk_codes_straight_and_stepwise(rng):
    directions = build_directions("nonlinear", 3, 16, rng, depth=2).eval()
    p = torch.randn(1, 16, generator=rng)
    alphas = [-2.0, -1.0, 0.0, 0.5, 3.0]
    straight = walk_codes(directions, p, [2, 0], alphas, iterative=False)
    d = directions(p)[[2, 0], 0]  # [M, D]
    assert (straight - (p + torch.tensor(alphas)[None, :, None] * d[:, None])).abs().max() < 1e-6
    stepwise = walk_codes(directions, p, [2, 0], alphas, iterative=True)
    assert torch.equal(stepwise[:, 2], p.expand(2, -1))
    assert (stepwise[:, 1] - straight[:, 1]).abs().max() < 1e-6
    second = stepwise[:, 1] - directions.select(stepwise[:, 1], torch.tensor([[2], [0]]))[:, 0]
    assert (stepwise[:, 0] - second).abs().max() < 1e-6


def test_the_unedited_picture_is_drawn_once(run, tiny_weights, monkeypatch):
    generator, directions = load_dcgan(str(tiny_weights)), load_checkpoint(run / "best.safetensors").directions
    drawn, synthesize = [], generator.synthesize
    monkeypatch.setattr(generator, "synthesize", lambda ps, *rest: (drawn.append(len(ps)), synthesize(ps, *rest))[1])
    z, alphas = generator.sample_seeds(0, 1), shown_alphas([-3.0, 3.0])
    images = edited_images(generator, directions, z, [0, 1, 3], alphas)
    assert sum(drawn) == 1 + 3 * 4
    for m, k in enumerate([0, 1, 3]):
        for a, alpha in enumerate(alphas):
            alone = edited_images(generator, directions, z, [k], [alpha])[0, 0]
            assert np.abs(images[m, a].astype(int) - alone.astype(int)).max() <= 1


def test_edits_together_are_the_editors_formula(run):
    checkpoint = load_checkpoint(run / "best.safetensors")
    generator = load_dcgan(checkpoint.config["generator"]["weights"])
    z = generator.sample_seeds(5, 1)
    draw = Drawing(generator, checkpoint.directions, None, False)
    chosen = {"smile": (NamedEdit(3), 2.0), "old": (NamedEdit(1), -1.5)}
    images, rows, columns = draw.edits(z, None, chosen, None)
    assert (images.shape, rows, columns) == ((1, 4, 16, 16, 3), [""], ["0", "smile +2", "old -1.5", "together"])
    with torch.no_grad():
        d = checkpoint.directions(z)[:, 0]  # [K, D]
        codes = torch.cat([z, z + 2 * d[3], z - 1.5 * d[1], z + 2 * d[3] - 1.5 * d[1]])
        expected = to_uint8(generator.synthesize(codes[:, None])).numpy()
    assert np.abs(images[0].astype(int) - expected.astype(int)).max() <= 1
    walk, _, labels = draw.walk(z, None, chosen, None, 7)
    assert (walk.shape, len(labels)) == ((1, 7, 16, 16, 3), 7)
    assert np.array_equal(walk[0, [0, -1]], images[0, [0, -1]])


def test_an_edit_reaches_its_own_layers_only():
    generator, rng = LayeredGenerator(), torch.Generator().manual_seed(3)
    directions = build_directions("linear", 4, D, rng).eval()
    z = torch.randn(1, D, generator=rng)
    draw = Drawing(generator, directions, torch.tensor([1.0, 0.0, 0.0]), False)
    edits = {"a": (NamedEdit(2, (1, 2)), None), "b": (NamedEdit(1), None)}  # b: what the run was trained on
    images, rows, columns = draw.edits(z, None, edits, [0.0, 3.0])
    assert (rows, columns) == (["a", "b"], ["0", "+3"])
    with torch.no_grad():
        d = directions(z)[:, 0]
        ps = z[:, None].repeat(2, 3, 1)
        ps[0, 1:] += 3 * d[2]
        ps[1, 0] += 3 * d[1]
        expected = to_uint8(generator.synthesize(ps)).numpy()
    assert np.abs(images[:, 1].astype(int) - expected.astype(int)).max() <= 1
    together, _, _ = draw.edits(z, None, {n: (e, 3.0) for n, (e, _) in edits.items()}, None)
    with torch.no_grad():
        both = to_uint8(generator.synthesize(ps.sum(0, keepdim=True) - z)).numpy()
    assert np.abs(together[0, 3].astype(int) - both[0].astype(int)).max() <= 1


def test_grid_puts_each_picture_under_its_labels():
    images = np.zeros((2, 3, 8, 12, 3), np.uint8)
    images[1, 2] = 200
    picture = grid(images, ["a", "b"], ["x", "y", "z"])
    drawn = np.asarray(picture)
    assert (drawn[-10:-2, -14:-2] == 200).all()
    assert (drawn[-2:] == 255).all()


def test_labels_of_strengths():
    assert (alpha_label(0.0), alpha_label(-1.5), alpha_label(3.0)) == ("0", "-1.5", "+3")


def test_pixels_are_rounded_and_clipped():
    x = torch.tensor([-1.0, -2.0, 1.0, 7.0, 0.0, 1 / 255, -1 + 1 / 255 - 1e-4]).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    assert to_uint8(x)[0, 0, :, 0].tolist() == [0, 0, 255, 255, 128, 128, 0]


def layered(conditional=False):
    """A generator with L = 3, and directions for it."""
    return LayeredGenerator(conditional), build_directions(
        "nonlinear", 4, D, torch.Generator().manual_seed(3), 2
    ).eval()


def close(got, expected):
    """Pixels may round to either side."""
    return got.shape == expected.shape and np.abs(got.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("alphas", [[-3.0, 0.0, 3.0], [1.0, 2.0], [-2.0, -1.0], [0.0]])
@pytest.mark.parametrize("conditional", [False, True])
def test_pictures_are_the_formula(alphas, conditional, rng):
    """G(p + mask * alpha * d(p)), with the class of the picture, whether or not the unedited one is among them."""
    generator, directions = layered(conditional)
    z, fed = torch.randn(1, D, generator=rng), torch.tensor([0.0, 1.0, 1.0])
    class_id = 3 if conditional else None
    images = edited_images(generator, directions, z, [2, 0], alphas, fed=fed, class_id=class_id)
    assert images.shape == (2, len(alphas), SIZE, SIZE, 3)
    with torch.no_grad():
        for m, k in enumerate([2, 0]):
            for a, alpha in enumerate(alphas):
                ps = z[:, None].repeat(1, LAYERS, 1)
                ps[0, 1:] += alpha * directions(z)[k, 0]
                classes = torch.tensor([3]) if conditional else None
                assert close(images[m, a], to_uint8(generator.synthesize(ps, classes))[0].numpy())
    if conditional:
        assert not close(images, edited_images(generator, directions, z, [2, 0], alphas, fed=fed, class_id=1))


def test_a_code_is_drawn_the_same_in_any_company(monkeypatch, rng):
    """Memory is bounded by drawing in parts: none is lost, doubled or in another's place."""
    generator, _ = layered(conditional=True)
    ps, parts = torch.randn(7, LAYERS, D, generator=rng), []
    whole = draw_codes(generator, ps, 1)
    monkeypatch.setattr(render, "AT_ONCE", 3 * SIZE**2)
    synthesize = generator.synthesize
    monkeypatch.setattr(
        generator, "synthesize", lambda ps, classes: (parts.append(len(ps)), synthesize(ps, classes))[1]
    )
    assert close(draw_codes(generator, ps, 1), whole)
    assert parts == [3, 3, 1]
    assert len({picture.tobytes() for picture in whole}) == 7


def test_rows_of_named_edits(rng):
    """The same strengths where all edits have one range or strengths are given; else each row has its own."""
    draw = Drawing(*layered(), None, False)
    z = torch.randn(1, D, generator=rng)
    same = {"a": (NamedEdit(2, (), (-4.0, 4.0)), None), "b": (NamedEdit(1, (), (-4.0, 4.0)), None)}
    images, rows, columns = draw.edits(z, None, same, None)
    assert (rows, columns) == (["a", "b"], ["-4", "-2", "0", "+2", "+4"])
    assert close(images, draw.numbers(z, None, [2, 1], [-4.0, -2.0, 0.0, 2.0, 4.0]))
    unlike = {**same, "b": (NamedEdit(1, (), (0.0, 9.0)), None)}
    images, rows, columns = draw.edits(z, None, unlike, None)
    assert (rows, columns) == (["a -4..4", "b 0..9"], ["low", "", "middle", "", "high"])
    assert close(images[1:], draw.numbers(z, None, [1], [0.0, 2.25, 4.5, 6.75, 9.0]))
    images, _, columns = draw.edits(z, None, unlike, [-1.0, 1.0])
    assert columns == ["-1", "+1"]
    assert close(images, draw.numbers(z, None, [2, 1], [-1.0, 1.0]))


def test_a_walk_goes_from_end_to_end(rng):
    draw = Drawing(*layered(), None, False)
    z = torch.randn(1, D, generator=rng)
    chosen = {"a": (NamedEdit(2, (), (-4.0, 4.0)), None), "b": (NamedEdit(1, (), (0.0, 9.0)), None)}
    images, rows, columns = draw.walk(z, None, chosen, None, 5)
    assert (rows, columns) == (["a", "b"], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    assert close(images[:1], draw.numbers(z, None, [2], [-4.0, -2.0, 0.0, 2.0, 4.0]))
    assert close(images[1:], draw.numbers(z, None, [1], [0.0, 2.25, 4.5, 6.75, 9.0]))
    images, _, _ = draw.walk(z, None, chosen, [-1.0, 0.0, 1.0], 3)
    assert close(images, draw.numbers(z, None, [2, 1], [-1.0, 0.0, 1.0]))


def test_tiles_have_the_size_that_is_asked_for():
    images = np.zeros((2, 3, 8, 12, 3), np.uint8)
    own, large = grid(images, ["a", "b"], ["x", "y", "z"]), grid(images, ["a", "b"], ["x", "y", "z"], tile=40)
    gap = render.GAP
    assert large.height - own.height >= 2 * (40 - 8)  # and the labels' type grows with the tile
    paper = np.asarray(large).min(axis=2) > 200
    black = np.asarray(large)[-(40 + gap) : -gap, -(60 + gap) : -gap]
    assert (black == 0).all()
    assert paper[-gap:].all()
    assert paper[:, -gap:].all()
    wide = grid(images, ["a name as long as the picture is wide", "b"], ["x", "y", "z"])
    assert wide.width > own.width
    assert np.asarray(wide.crop((0, 0, wide.width - 3 * (12 + gap), wide.height))).min() < 200  # it is written there
    corner = grid(images, ["a", "b"], ["x", "y", "z"], corner="the corner")
    assert corner.width > own.width


def frames(count):
    return [Image.new("RGB", (8, 8), (60 * i, 0, 0)) for i in range(count)]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_a_walk_is_played_there_and_back_without_end(tmp_path, suffix):
    save_walk(frames(4), tmp_path / f"walk.{suffix}", milliseconds=70)
    with Image.open(tmp_path / f"walk.{suffix}") as walk:
        assert walk.info["loop"] == 0
        reds = []
        for i in range(walk.n_frames):
            walk.seek(i)
            reds.append(round(walk.convert("RGB").getpixel((4, 4))[0] / 60))
            assert walk.info["duration"] == 70
    assert reds == [0, 1, 2, 3, 2, 1]  # neither end stands still


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_picture(frames(1)[0], path)
    before = path.read_bytes()

    def fail(self, file, *arguments, **options):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    for save in (lambda: save_picture(frames(1)[0], path), lambda: save_walk(frames(2), path)):
        with pytest.raises(SaveError, match="No space left on device"):
            save()
        assert path.read_bytes() == before
        assert [found.name for found in tmp_path.iterdir()] == ["a.png"]


def test_random_weights_are_told_in_the_corner():
    generator, _ = layered()
    assert corner_label(generator) == "alpha"
    generator.random_weights = True
    assert corner_label(generator) == "random weights"
