"""The manifest: what is read, and how a bad one is refused."""

import copy
import json
from typing import Any

import pytest
import tiny_editor

from serving.errors import ManifestError
from serving.manifest import parse_manifest


def test_fields_are_read_and_later_keys_ignored() -> None:
    manifest = parse_manifest(json.dumps(tiny_editor.MANIFEST))
    assert (manifest.latent.dim, manifest.latent.layers, manifest.directions.count) == (4, 2, 3)
    assert manifest.directions.alpha_range == (-6.0, 6.0)
    assert manifest.edits["smile"].direction == 2
    assert manifest.edits["smile"].layers == (1,)
    assert manifest.generator.classes is None


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
        (["latent", "dim"], 0, "latent.dim must be at least 1"),
        (["latent", "dim"], "many", "invalid literal"),
        (["latent", "sampler"], "uniform", "got 'uniform'"),
        (["latent", "sampler"], "truncated_normal", "truncation is missing"),
        (["edits", "smile", "direction"], 3, r"direction 3, not in \[0, 3\)"),
        (["edits", "smile", "layers"], [2], r"layers \[2\], not in \[0, 2\)"),
        (["directions"], None, "invalid"),
        (["directions", "alpha_range"], [1], "invalid"),
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


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}'])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(text)
