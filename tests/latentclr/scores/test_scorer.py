"""Choosing scorers and attributes by name."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from latentclr.errors import ScorerError
from latentclr.scores.scorer import Scored, build_scorers, find_attributes, score


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


class Told:
    """Says of a picture its first pixel, and what becomes of a subnormal number in the thread that scores it."""

    name = "told"
    attributes: tuple[str, ...] = ("pixel", "subnormal")

    def __init__(self):
        self.threads, self.sizes = set(), []
        self.together = threading.Barrier(3)

    def __call__(self, images):
        self.together.wait(timeout=60)  # three threads are in here at the same time
        self.threads.add(threading.get_ident())
        self.sizes.append(len(images))
        pixel = images[:, 0, 0, 0].astype(np.float64)
        if (pixel == 255).any():
            raise ScorerError("one is white")
        return Scored(np.stack([pixel, np.full(len(images), 2 * np.float64(5e-324))], axis=1), pixel % 2 == 0)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_pictures_are_shared_out_among_threads():
    pictures = np.zeros((42, 4, 4, 3), np.uint8)
    pictures[:, 0, 0, 0] = np.arange(42)
    told = Told()
    (scored,) = score([told], pictures)
    assert np.array_equal(scored.values[:, 0], np.arange(42)) and np.array_equal(scored.trusted, np.arange(42) % 2 == 0)
    assert len(told.threads) == 3 and told.sizes == [14, 14, 14]
    assert threading.get_ident() not in told.threads
    if torch.set_flush_denormal(False):  # where a CPU can, the threads do; this one never did
        assert (scored.values[:, 1] == 0).all()
    assert 2 * np.float64(5e-324) > 0


@pytest.mark.usefixtures("three_threads")
def test_an_error_in_a_thread_is_the_error():
    pictures = np.zeros((3, 4, 4, 3), np.uint8)
    pictures[1] = 255
    with pytest.raises(ScorerError, match="one is white"):
        score([Told()], pictures)


def test_no_pictures_at_all():
    (scored,) = score(build_scorers(["pixels"]), np.zeros((0, 4, 4, 3), np.uint8))
    assert scored.values.shape == (0, 12) and scored.trusted.shape == (0,)
