"""The manifest: what is read, and how a bad one is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny_editor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.contract.latents import draw_latents
from serving.contract.layout import encoder_of, photo_of
from serving.contract.manifest import LATENT_INPUTS, SAMPLERS, DirectionScore, EncoderInfo, Manifest, parse_manifest
from serving.errors import ManifestError


def test_fields_are_read_and_later_keys_ignored() -> None:
    manifest = parse_manifest(json.dumps(tiny_editor.MANIFEST))
    assert (manifest.latent.dim, manifest.latent.layers, manifest.directions.count) == (4, 2, 3)
    assert manifest.directions.alpha_range == (-6.0, 6.0)
    assert manifest.directions.max_edits is None  # of a model that was published before there was a bound
    assert manifest.edits["smile"].direction == 2
    assert manifest.edits["smile"].layers == (1,)
    assert manifest.generator.classes is None


def test_scores_and_reversed_names_are_written_and_read_again() -> None:
    raw = copy.deepcopy(tiny_editor.MANIFEST)
    assert parse_manifest(json.dumps(raw)).directions.range_of(1) == (-6.0, 6.0)
    raw["edits"]["smile"]["reverse"] = True
    raw["directions"]["scores"] = [
        {"range": [-2, 5], "name": "smile", "top": [["happy", -1.5], ["yaw", 0.2]]},
        {"range": [-3, 3], "twin_of": 0},
        {"range": [-1.5, 3]},
    ]
    manifest = parse_manifest(json.dumps(raw))
    scores = manifest.directions.scores
    assert scores[0] == DirectionScore((-2.0, 5.0), None, "smile", (("happy", -1.5), ("yaw", 0.2)))
    assert [score.twin_of for score in scores] == [None, 0, None]
    assert manifest.directions.range_of(2) == (-1.5, 3.0)
    assert manifest.edits["smile"].sign == -1
    assert parse_manifest(json.dumps(manifest.as_dict())) == manifest


def test_a_note_is_a_line_that_no_terminal_obeys() -> None:
    """It is left out and not refused: a model that is served has such a note for good."""
    raw = copy.deepcopy(tiny_editor.MANIFEST)
    raw["edits"]["smile"]["note"] = "two\nlines\x1b[2J"
    assert parse_manifest(json.dumps(raw)).edits["smile"].note == "two lines[2J"


FACE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]
ENCODER: dict[str, Any] = {"space": "z", "sha256": "1" * 64, "files_sha256": {"model.onnx": "2" * 64}}


def test_an_encoder_is_told_and_of_the_models_beside_it_whose_they_are() -> None:
    raw = copy.deepcopy(tiny_editor.MANIFEST)
    assert parse_manifest(json.dumps(raw)).encoder is None
    raw["encoder"] = {**ENCODER, "face": FACE, "figures": {"psnr_db": 24.5, "steps": 400}}
    manifest = parse_manifest(json.dumps(raw))
    face = tuple((x, y) for x, y in FACE)
    files, figures = {"model.onnx": "2" * 64}, {"psnr_db": 24.5, "steps": 400.0}
    assert manifest.encoder == EncoderInfo("z", "1" * 64, files, face, figures)
    assert parse_manifest(json.dumps(manifest.as_dict())) == manifest
    for key in ("encoder_of", "photo_of"):
        manifest = parse_manifest(json.dumps({**tiny_editor.MANIFEST, key: "latent_edit"}))
        assert (manifest.encoder_of or manifest.photo_of) == "latent_edit"
        assert parse_manifest(json.dumps(manifest.as_dict())) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": "w"}, "encoder.space must be latent.input, z, got w"),
        ({"space": "pixels"}, "encoder.space must be one of z, w, w"),
        ({"face": FACE[:4]}, "encoder.face must be five points"),
        ({"face": [[0.5]] * 5}, "encoder.face must be five points"),
        ({"face": [[0.5, 9.0]] * 5}, "encoder.face must be five points of the picture"),
        ({"face": [["a", "b"]] * 5}, "encoder.face must be a finite number"),
        ({"figures": {"psnr_db": "good"}}, "encoder.figures.psnr_db must be a finite number"),
        ({"files_sha256": {"model.onnx": 7}}, "encoder.files_sha256.model.onnx must be a text"),
    ],
)
def test_a_strange_encoder_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_manifest(json.dumps({**tiny_editor.MANIFEST, "encoder": {**ENCODER, **change}}))


def test_names_of_the_models_beside_one() -> None:
    assert (encoder_of("faces"), photo_of("faces")) == ("faces_encoder", "faces_photo")
    assert encoder_of("faces_torchscript") == "faces_encoder_torchscript"
    assert photo_of("faces_openvino_torchscript") == "faces_photo_openvino_torchscript"


def test_a_width_is_told_where_pictures_are_not_square() -> None:
    wide = copy.deepcopy(tiny_editor.MANIFEST)
    assert parse_manifest(json.dumps(wide)).generator.size == (tiny_editor.SIZE, tiny_editor.SIZE)
    wide["generator"]["width"] = 12
    manifest = parse_manifest(json.dumps(wide))
    assert manifest.generator.size == (tiny_editor.SIZE, 12)
    assert parse_manifest(json.dumps(manifest.as_dict())) == manifest
    for wrong in (0, -1, 1.5, "12", True):
        wide["generator"]["width"] = wrong
        with pytest.raises(ManifestError, match=r"generator\.width must be a whole number"):
            parse_manifest(json.dumps(wide))


def test_classes() -> None:
    raw = copy.deepcopy(tiny_editor.MANIFEST)
    raw["generator"]["classes"] = {"names": ["tench", "goldfish"], "default": [1]}
    classes = parse_manifest(json.dumps(raw)).generator.classes
    assert classes is not None
    assert classes.names == ("tench", "goldfish")
    assert classes.default == (1,)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 2, "must have format 1, got 2"),
        (["directions", "scores"], [{"range": [-1, 1]}], "scores must have 3 entries, one for each direction, got 1"),
        (["directions", "scores"], [{"range": [-1, 1], "twin_of": 0}] * 3, r"scores\[0\].twin_of must be another"),
        (["directions", "scores"], [{"range": [1, -1]}] * 3, r"scores\[0\].range must be \[low, high\]"),
        (["directions", "scores"], [{"range": [0, 1], "top": [["a"]]}] * 3, r"top must be a list of \[attribute, eff"),
        (["directions", "scores"], [{"range": [0, 1], "top": [["a", "b"]]}] * 3, "top must be a finite number"),
        (["directions", "scores"], [{}] * 3, "lacks the key 'range'"),
        (["edits", "smile", "reverse"], 1, "edits.smile.reverse must be true or false, got 1"),
        (["latent", "dim"], 0, r"latent.dim must be a whole number in \[1, .*got 0"),
        (["latent", "dim"], "many", "latent.dim must be a whole number .*got 'many'"),
        (["latent", "dim"], True, "latent.dim must be a whole number .*got True"),
        (["latent", "dim"], 10**39, "latent.dim must be a whole number"),
        (["latent", "dim"], 10**400, "the model's manifest holds a number of 401 digits, the most are 40"),
        (["latent", "layers"], 2.5, "latent.layers must be a whole number"),
        (["latent", "truncation"], float("inf"), "latent.truncation must be a finite number, got inf"),
        (["latent", "input"], [], r"latent.input must be one of z, w, w\+, got \[\]"),
        (["generator", "random_weights"], "no", "random_weights must be true or false"),
        (["generator", "name"], "a\nb", "generator.name must be a printable text"),
        (["generator", "name"], "", "generator.name must be a text of 1 to 500 characters"),
        (["directions", "model"], "\x1b[2J", "directions.model must be a printable text"),
        (["files_sha256"], {"model.onnx": "\x1b[2J"}, "files_sha256.model.onnx must be a printable text"),
        (["generator", "classes"], {"names": ["a", "b"], "default": [7]}, r"default must be .* in \[0, 1\], got 7"),
        (["generator", "classes"], {"names": []}, "names must not be empty"),
        (["generator", "classes"], {"names": "abc"}, "names must be a list, got 'abc'"),
        (["latent", "sampler"], "uniform", "got 'uniform'"),
        (["latent", "sampler"], "truncated_normal", "truncation must be above 0"),
        (["edits", "smile", "direction"], 3, r"direction 3, not in \[0, 3\)"),
        (["edits", "smile", "layers"], [2], r"layers \[2\], not in \[0, 2\)"),
        (["edits", "smile"], [], "edits.smile must be a table"),
        (["edits", "smile", "alpha_range"], [4, -4], r"alpha_range must be \[low, high\] with low < high"),
        (["directions"], None, "directions must be a table, got None"),
        (["directions", "alpha_range"], [1], r"alpha_range must be \[low, high\]"),
        (["directions", "alpha_range"], [float("nan"), 6], "alpha_range must be a finite number, got nan"),
        (["directions", "max_edits"], 0, r"directions.max_edits must be a whole number in \[1, .*got 0"),
        (["directions", "layers"], [2], r"directions.layers \[2\] are not in \[0, 2\)"),
        (["directions", "layers"], 1, "directions.layers must be a list, got 1"),
        (["files_sha256"], {"model.onnx": 7}, "files_sha256.model.onnx must be a text, got 7"),
    ],
)
def test_a_bad_value_is_named(path: list[str], value: Any, message: str) -> None:
    raw = copy.deepcopy(tiny_editor.MANIFEST)
    target = raw
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ManifestError, match=message):
        parse_manifest(json.dumps(raw))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a tree, the containers too."""
    yield path
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        yield from places(entry, (*path, key))


FULL: dict[str, Any] = {
    **tiny_editor.WITH_CLASSES,
    "latent": {**tiny_editor.MANIFEST["latent"], "sampler": "truncated_normal", "truncation": 0.5},
    "files_sha256": {"model.onnx": "0" * 64},
    "parity": {"onnx": {"worst_step": 1, "psnr_db": None}},
}
PLACES = list(places(FULL))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, -1, 0, 1, "z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(["set", "drop", "add"]), VALUES), max_size=3))
def test_any_manifest_is_read_sanely_or_refused(changes: list[tuple[tuple[Any, ...], str, Any]]) -> None:
    tree: Any = {"": copy.deepcopy(FULL)}
    for path, what, value in changes:
        *parents, last = ("", *path)
        place = tree
        for key in parents:
            try:
                place = place[key]
            except (KeyError, IndexError, TypeError):  # an earlier change took it away
                place = None
        if isinstance(place, dict):
            if what == "drop":
                place.pop(last, None)
            else:
                place[last if what == "set" else str(value)[:9]] = value
        elif isinstance(place, list):
            if what == "add":
                place.append(value)
            elif isinstance(last, int) and last < len(place):
                place[last : last + 1] = [value] if what == "set" else []
    try:
        manifest = parse_manifest(json.dumps(tree.get("")))
    except ManifestError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1000
        return
    assert_sane(manifest)


def assert_sane(manifest: Manifest) -> None:
    """What a client may rely on without another look."""
    latent, directions, classes = manifest.latent, manifest.directions, manifest.generator.classes
    for size in (manifest.generator.resolution, latent.dim, latent.layers, directions.count):
        assert type(size) is int
        assert size > 0
    assert latent.input in LATENT_INPUTS
    assert latent.sampler in SAMPLERS
    assert latent.sampler != "truncated_normal" or latent.truncation is not None
    assert latent.truncation is None or math.isfinite(latent.truncation)
    for low, high in [directions.alpha_range, *(edit.alpha_range for edit in manifest.edits.values())]:
        assert -math.inf < low < high < math.inf
    for edit in manifest.edits.values():
        assert 0 <= edit.direction < directions.count
        assert all(0 <= layer < latent.layers for layer in edit.layers)
    assert classes is None or all(0 <= number < len(classes.names) for number in classes.default)
    for text in (manifest.name, manifest.generator.name, *manifest.edits, *(classes.names if classes else ())):
        assert text.isprintable()
    for table in (manifest.files_sha256, manifest.versions):
        assert all(isinstance(word, str) for pair in table.items() for word in pair)
    if latent.dim < 10_000 and latent.input == "z":
        assert np.isfinite(draw_latents(latent, 7)).all()


@settings(deadline=None)
@given(st.text())
def test_any_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ManifestError, match="the model's manifest") as caught:
        parse_manifest(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":' * 5000, "is nested more than"),
        ("[" * 33 + "]" * 33, "is nested more than 32 deep"),
        ("[" + "0," * 200_000 + "0]", "holds more than 200000 values"),
        (" " * 8_000_001, "must be at most 8000000 bytes"),
        ('{"note": "\\u0024{oc.env:HOME}"}', "holds an interpolation"),
    ],
)
def test_a_manifest_is_bounded(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=f"the model's manifest {message}"):
        parse_manifest(text)


def test_the_largest_catalog_fits_into_a_manifest() -> None:
    edit = {"direction": 0, "layers": [0, 1], "alpha_range": [-6.0, 6.0], "note": "\u00e9" * 300}
    raw = {**FULL, "edits": {f"name {number}": edit for number in range(2000)}}
    assert len(parse_manifest(json.dumps(raw)).edits) == 2000


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 1}', "[" * 100_000, "1" * 10_000, '{"format": 1, "name": "\\ud800"}']
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(text)
