"""The served function against its definition, and rows that are bad."""

from __future__ import annotations

import pytest
import torch
from tiny_generators import CLASSES, LAYERS, SIZE, LayeredGenerator, dcgan_tensors

from export.editor import MAX_EDITS, FusedEditor
from latentclr.generators.dcgan import DCGAN
from latentclr.method.directions import build_directions
from latentclr.pictures.pixels import to_uint8

K = 5


def make(conditional=False, kind="nonlinear"):
    generator = LayeredGenerator(conditional)
    directions = build_directions(kind, K, generator.latent.dim, torch.Generator().manual_seed(1), depth=2)
    return FusedEditor(generator, directions)


def inputs(editor, n, m, seed=0):
    rng = torch.Generator().manual_seed(seed)
    latent = editor.generator.latent
    given = [torch.randn(n, latent.dim, generator=rng), torch.randint(K, (n, m), generator=rng),
             3 * torch.randn(n, m, latent.layers, generator=rng)]  # fmt: skip
    if editor.conditional:
        given.append(torch.randint(len(CLASSES), (n,), generator=rng))
    return given


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", ["global", "linear", "nonlinear"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 1), (3, 3), (2, 6)])
def test_equals_the_definition(conditional, kind, n, m):
    editor = make(conditional, kind)
    z, direction, alpha, *class_id = inputs(editor, n, m)
    image, valid = editor(z, direction, alpha, *class_id)
    assert image.shape == (n, SIZE, SIZE, 3)
    assert image.dtype == torch.uint8
    assert valid.tolist() == [True] * n
    everything = editor.directions(z)  # [K, N, D]
    for row in range(n):
        ps = z[row].repeat(LAYERS, 1)  # [L, D]
        for edit in range(m):
            d = everything[direction[row, edit], row]
            for layer in range(LAYERS):
                ps[layer] += alpha[row, edit, layer] * d
        cls = class_id[0][row : row + 1] if class_id else None
        expected = to_uint8(editor.generator.synthesize(ps[None], cls))[0]
        assert (image[row].int() - expected.int()).abs().max() <= 1  # float32 sums in another order


@torch.no_grad()
def test_real_faces(faces):
    directions = build_directions("nonlinear", K, 100, torch.Generator().manual_seed(1), depth=2)
    editor = FusedEditor(faces, directions)
    z = faces.sample_seeds(85, 3)
    alpha = torch.tensor([-4.0, 0.0, 4.0])
    image, valid = editor(z, torch.tensor([[3], [3], [3]]), alpha[:, None, None])
    expected = to_uint8(faces.synthesize((z + alpha[:, None] * directions(z)[3])[:, None]))
    assert valid.all()
    assert (image.int() - expected.int()).abs().max() <= 1
    assert torch.equal(image[1], to_uint8(faces.synthesize(z[:, None]))[1])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["layered", "conditional", "dcgan", "faces"])
@pytest.mark.parametrize("m", [1, 3])
def test_no_strength_is_the_unedited_image_bit_for_bit(kind, m, request):
    if kind in ("layered", "conditional"):
        editor = make(kind == "conditional")
    else:
        generator = request.getfixturevalue("faces") if kind == "faces" else DCGAN(dcgan_tensors())
        directions = build_directions("nonlinear", K, generator.latent.dim, torch.Generator().manual_seed(1), 2)
        editor = FusedEditor(generator, directions)
    z, direction, alpha, *class_id = inputs(editor, 4, m)
    image, _ = editor(z, direction, torch.zeros_like(alpha), *class_id)
    ps = z[:, None].expand(-1, editor.generator.latent.layers, -1)
    assert torch.equal(image, to_uint8(editor.generator.synthesize(ps, *class_id)))
    minus_zero, _ = editor(z, direction, -torch.zeros_like(alpha), *class_id)
    assert torch.equal(image, minus_zero)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["layered", "conditional", "faces"])
def test_no_edits_at_all_is_the_unedited_image_bit_for_bit(kind, faces):
    if kind == "faces":
        editor = FusedEditor(faces, build_directions("nonlinear", K, 100, torch.Generator().manual_seed(1), 2))
    else:
        editor = make(kind == "conditional")
    z, direction, alpha, *class_id = inputs(editor, 4, 0)
    assert direction.shape[1] == alpha.shape[1] == 0
    image, valid = editor(z, direction, alpha, *class_id)
    assert valid.all()
    ps = z[:, None].expand(-1, editor.generator.latent.layers, -1)
    assert torch.equal(image, to_uint8(editor.generator.synthesize(ps, *class_id)))
    z[2, 0] = float("nan")
    image, valid = editor(z, direction, alpha, *class_id)
    assert valid.tolist() == [True, True, False, True]


@torch.no_grad()
def test_one_edit_is_the_plain_sum_bit_for_bit():
    """The edit of strength zero that goes before it adds nothing, in whatever order a processor adds."""
    editor = make()
    z, direction, alpha = inputs(editor, 4, 1)
    ps = z[:, None] + alpha.transpose(1, 2) * editor.directions.select(z, direction)
    assert torch.equal(editor(z, direction, alpha)[0], to_uint8(editor.generator.synthesize(ps)))


@torch.no_grad()
def test_zero_at_a_layer_feeds_it_the_unedited_code():
    editor = make()
    z, direction, alpha = inputs(editor, 2, 1)
    alpha[:, :, [0, 2]] = 0
    d = editor.directions.select(z, direction)[:, 0]
    ps = torch.stack([z, z + alpha[:, 0, 1:2] * d, z], dim=1)
    assert torch.equal(editor(z, direction, alpha)[0], to_uint8(editor.generator.synthesize(ps)))


BAD = {
    "direction past the end": (1, K),
    "direction far past the end": (1, 2**62),
    "direction negative": (1, -1),
    "direction very negative": (1, -(2**63)),
    "z nan": (0, float("nan")),
    "z infinite": (0, float("inf")),
    "alpha nan": (2, float("nan")),
    "alpha infinite": (2, float("-inf")),
    "alpha overflows on the way": (2, 3e38),
    "class past the end": (3, len(CLASSES)),
    "class negative": (3, -1),
}


@torch.no_grad()
@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("m", [1, 3])
def test_a_bad_row_is_reported_and_hurts_no_other(name, m):
    which, value = BAD[name]
    editor = make(conditional=True)
    good = inputs(editor, 4, m)
    expected, _ = editor(*good)
    given = [tensor.clone() for tensor in good]
    given[which][2].view(-1)[-1] = value
    image, valid = editor(*given)
    others = [0, 1, 3]
    assert valid[others].all()
    assert torch.equal(image[others], expected[others])
    if name == "alpha overflows on the way":
        given[which][2] = value  # several of them: inf - inf inside
        image, valid = editor(*given)
        assert torch.equal(image[others], expected[others])
        if valid[2]:  # a saturated picture is a picture
            assert torch.isfinite(image.float()).all()
            return
    assert not valid[2]
    assert (image[2] == 0).all()


@torch.no_grad()
def test_enormous_strength_on_a_real_network(faces):
    """Finite strengths can overflow inside: NaN must not reach the pixels as garbage, nor the neighbours."""
    directions = build_directions("nonlinear", K, 100, torch.Generator().manual_seed(1), depth=2)
    editor = FusedEditor(faces, directions)
    z, direction = faces.sample_seeds(0, 3), torch.zeros(3, 50, dtype=torch.int64)
    alpha = torch.tensor([0.02, 1e30, -0.04])[:, None, None].repeat(1, 50, 1)
    quiet = torch.where(alpha > 1e6, 0.0, alpha)
    alone, _ = editor(z, direction, quiet)
    image, valid = editor(z, direction, alpha)
    assert valid.all()  # nothing overflowed: the picture is saturated, and so it is drawn
    assert torch.equal(image[[0, 2]], alone[[0, 2]])
    alpha[1] = 3e38  # the sum of the fifty overflows
    image, valid = editor(z, direction, alpha)
    assert valid.tolist() == [True, False, True]
    assert (image[1] == 0).all()
    assert torch.equal(image[[0, 2]], alone[[0, 2]])


@torch.no_grad()
@pytest.mark.parametrize("m", [MAX_EDITS, MAX_EDITS + 1, 5000])
def test_the_number_of_edits_is_bounded(m):
    editor = make(conditional=True)
    z, direction, alpha, class_id = inputs(editor, 3, m)
    image, valid = editor(z, direction, 0 * alpha, class_id)
    assert valid.tolist() == [m <= MAX_EDITS] * 3
    assert image.any() == (m <= MAX_EDITS)


def test_all_rows_bad_at_once():
    editor = make()
    z, direction, alpha = inputs(editor, 3, 2)
    image, valid = editor(z * float("nan"), direction - 100, alpha)
    assert not valid.any()
    assert (image == 0).all()


def test_the_editor_is_frozen_and_describes_its_inputs():
    editor = make(conditional=True)
    assert editor.input_names == ("z", "direction", "alpha", "class_id")
    assert make().input_names == ("z", "direction", "alpha")
    assert not any(parameter.requires_grad for parameter in editor.parameters())
    assert not editor.directions.training
    example = editor.example_inputs(3, 2)
    assert [tuple(t.shape) for t in example] == [(3, 6), (3, 2), (3, 2, 3), (3,)]
    assert [t.dtype for t in example] == [torch.float32, torch.int64, torch.float32, torch.int64]
    assert editor(*example)[1].all()
