"""Choosing scorers and attributes by name."""

from __future__ import annotations

import pytest

from latentclr.errors import ScorerError
from latentclr.scores.scorer import build_scorers, find_attributes


def test_pixels_is_always_there():
    (scorer,) = build_scorers(["pixels"])
    assert scorer.name == "pixels" and "brightness" in scorer.attributes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pixel"], "no scorer 'pixel'; did you mean 'pixels'.* (known: pixels, faces, onnx:PATH)"),
        ([], "expected one or more scorers (pixels, faces, onnx:PATH), got none"),
        (["pixels", "pixels"], "scorer 'pixels' is asked for twice"),
    ],
)
def test_words_that_name_no_scorers(words, message):
    with pytest.raises(ScorerError) as caught:
        build_scorers(words)
    beginning, _, end = message.partition(".*")
    assert str(caught.value).startswith(beginning) and str(caught.value).endswith(end)
    assert "\n" not in str(caught.value)


def test_attributes_by_name():
    scorers = build_scorers(["pixels"])
    found = find_attributes(scorers, ["warmth", "brightness"])
    assert [scorers[i].attributes[j] for i, j in found] == ["warmth", "brightness"]
    with pytest.raises(ScorerError, match="no attribute 'brigthness'; did you mean 'brightness'"):
        find_attributes(scorers, ["brigthness"])
    with pytest.raises(ScorerError, match="attribute 'warmth' is asked for twice"):
        find_attributes(scorers, ["warmth", "warmth"])
