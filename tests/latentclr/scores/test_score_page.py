"""score.html: one file that loads nothing, escapes everything and sorts."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image
from scenes import DARKNESS, LIGHT, PLACE_REVERSED, measured

from latentclr.scores.compare import compare
from latentclr.scores.page import effect_map, page

VOID = {"meta", "img", "br", "line", "rect", "path", "polyline"}


class Reader(HTMLParser):
    """Checks that elements nest; collects attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text):
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader.seen


def shown(scores=None, title="demo", rows=(), own=0):
    result = measured()
    return page(title, scores or result.scores, result.strips, rows, own)


def test_every_direction_has_a_card():
    seen = read(shown())
    cards = [attributes for tag, attributes in seen if tag == "article"]
    assert [card["data-number"] for card in cards] == [str(k) for k in range(5)]
    assert cards[LIGHT]["data-name"] == "brightness"
    text = shown()
    assert f"repeats {LIGHT}" in text
    assert "+ is against the direction" in text
    assert text.count("data:image/webp;base64,") == 5


def test_it_loads_nothing():
    text = shown()
    for tag, attributes in read(text):
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "href")], attributes
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/webp;base64,")
    assert "http" not in re.sub(r"http-equiv|data:image[^\"]*", "", text)


def test_the_policy_allows_the_pages_own_style_and_script_only():
    text = shown()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() in policy


def test_everything_is_escaped():
    scores, evil = measured().scores, '"><script>alert(1)</script>'
    attributes = tuple(dataclasses.replace(a, name=evil, scorer=evil) for a in scores.attributes)
    directions = tuple(dataclasses.replace(d, name=evil, reason=evil, ends=(evil, evil)) for d in scores.directions)
    run = dataclasses.replace(scores.run, generator=evil, model=evil, checkpoint=evil, checkpoint_sha256=evil)
    scorers = tuple(dataclasses.replace(s, name=evil, trusted=0.1) for s in scores.scorers)
    settings = dataclasses.replace(scores.settings, layers=(evil,))
    bad = dataclasses.replace(
        scores, attributes=attributes, directions=directions, run=run, scorers=scorers, settings=settings,
        versions={evil: evil},
    )  # fmt: skip
    text = shown(bad, evil, compare([scores], [evil]))
    assert [tag for tag, _ in read(text)].count("script") == 1
    assert "<script>alert" not in text


def test_the_comparison_is_a_table():
    scores = measured().scores
    other = dataclasses.replace(scores, run=dataclasses.replace(scores.run, method="other"))
    text = shown(rows=compare([scores, other], ["mine", "theirs"]), own=1)
    assert "<b>theirs</b>" in text
    assert text.count("no difference shown") == 5


def test_random_weights_and_mistrust_are_told():
    scores = measured().scores
    noise = dataclasses.replace(scores, run=dataclasses.replace(scores.run, random_weights=True))
    assert "random weights: everything here is noise" in shown(noise)
    little = tuple(dataclasses.replace(s, trusted=0.03) for s in scores.scorers)
    assert "pixels trusts only 3%" in shown(dataclasses.replace(scores, scorers=little))


def test_strips_follow_the_name():
    """The place is reversed: + is more light at the right, so the spot goes right from left to right."""
    text = shown()
    card = text.split("<article")[PLACE_REVERSED + 1]
    low, high = measured().scores.directions[PLACE_REVERSED].range
    ends = re.findall(r"<span>([-+.\d]+)</span>", card)
    assert float(ends[0]) == float(f"{-high:.2g}")
    assert float(ends[4]) == float(f"{-low:.2g}")
    assert measured().scores.directions[DARKNESS].name == ""


def test_the_map_is_a_picture():
    scores = measured().scores
    odd = tuple(dataclasses.replace(a, name="$\\frac{") for a in scores.attributes)
    with Image.open(io.BytesIO(effect_map(dataclasses.replace(scores, attributes=odd)))) as picture:
        assert np.asarray(picture).std() > 5
