"""The leaderboard and its page: the order, the words better and worse, one file that loads nothing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re

import numpy as np
import pytest
from PIL import Image
from scenes import measured
from test_compare import made
from test_score_page import read

from latentclr.scores.compare import REACH, compare, reach_of
from latentclr.sweep.board import COLUMNS, board_lines, labels_of, leaderboard
from latentclr.sweep.page import MOST_SHOWN, Shown, sweep_figure, sweep_page
from latentclr.sweep.record import DONE, FAILED, RunState

COMMANDS = ["latentclr name 'out/my sweep/3' --auto", "latentclr export 'out/my sweep/3'"]


def sweep(seconds=2.0):
    """Two settings of two seeds: the second is the purer one."""
    own = {0: ("k=8", "seed=0"), 1: ("k=8", "seed=1"), 2: ("k=16", "seed=0"), 3: ("k=16", "seed=1")}
    scores = {n: made("ab"[n // 2], 0.5 * (n // 2), seed=n) for n in own}
    states = {}
    for number, score in scores.items():
        purity = float(np.mean([d.purity for d in score.directions]))
        reach = float(np.mean([reach_of(d) for d in score.directions]))
        states[number] = RunState(own[number], DONE, 1, 1, seconds, purity, reach, True)
    return states, scores


def test_the_purer_setting_leads():
    states, scores = sweep()
    first, second = leaderboard(states, scores)
    assert (first.label, second.label) == ("k=16", "k=8")
    assert (sorted(first.runs), sorted(second.runs)) == ([2, 3], [0, 1])
    assert first.best == max(first.runs, key=lambda n: states[n].purity * states[n].reach)
    assert [cell.verdict for cell in first.row.cells] == [""] * len(COLUMNS)
    assert second.row.cells[0].verdict == "worse"
    lines = board_lines([first, second])
    assert lines[1].startswith("1 ")
    assert "worse" in lines[3]


def test_reach_is_in_widths_of_equal_change():
    score = measured().scores
    direction = dataclasses.replace(score.directions[0], range=(-3.0, 5.0), strength=(1.5, 0.5))
    assert reach_of(direction) == pytest.approx(4.0)
    (row,) = compare([dataclasses.replace(score, directions=(direction,) * 2)], ["0"], [REACH])
    assert row.cells[0].value == pytest.approx(4.0)


def test_labels_name_what_differs_but_the_seed():
    own = {
        0: ("generator.feature_layer=main.2", "seed=0"),
        1: ("hparams.optimizer.lr=0.00481289319405",),
        2: ("seed=1",),
    }
    assert labels_of(own) == {0: "feature_layer=main.2", 1: "lr=0.00481", 2: "the one setting"}


def shown(states, scores, places):
    strips = measured().strips
    k = len(scores[places[0].best].directions)
    many = np.repeat(strips[:1], k, axis=0)
    return [Shown(place.best, scores[place.best], many) for place in places]


def test_the_page_is_one_file_that_loads_nothing():
    states, scores = sweep()
    states[4] = RunState(("k=<b>", "seed=0"), FAILED, error="<script>alert(1)</script>")
    places = leaderboard(states, scores)
    text = sweep_page("my <i>sweep</i>", places, states, shown(states, scores, places), COMMANDS, scores)
    seen = read(text)
    assert not [tag for tag, _ in seen if tag in ("script", "link", "iframe", "b2", "i")]
    for _, attributes in seen:
        assert not {name for name in attributes if name.startswith("on")}
        source = attributes.get("src", "data:")
        assert source.startswith("data:image/webp;base64,") or source == "data:"
        assert re.fullmatch(r"\d+/score\.html", attributes.get("href", "0/score.html"))
    policy = next(a["content"] for _, a in seen if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    assert "script-src 'none'" in policy
    assert "4 of 5 runs finished, 2 settings" in text
    assert "latentclr export &#x27;out/my sweep/3&#x27;" in text
    assert "&lt;script&gt;alert(1)" in text
    assert text.count("<figure>") == 2 * 16


def test_a_reversed_direction_is_shown_with_its_name():
    states, scores = sweep()
    places = leaderboard(states, scores)
    number = places[0].best
    first, *rest = scores[number].directions
    ((attribute, effect),) = first.top(1)
    turned = dataclasses.replace(first, name="bright", reverse=True, range=(-2.0, 5.0))
    scores[number] = dataclasses.replace(scores[number], directions=(turned, *rest))
    text = sweep_page("s", places, states, shown(states, scores, places)[:1], COMMANDS, scores)
    assert "<b>bright</b>, direction 0: -5.0 to +2.0" in text
    does = scores[number].attributes[attribute].name.replace("_", " ")
    assert f"{does} {-effect.mean:+.1f} sd" in text.partition("<b>bright</b>")[2].partition("</figure>")[0]


def test_the_grid_of_many_directions_is_bounded():
    states, scores = sweep()
    scores = {n: dataclasses.replace(score, directions=score.directions * 2) for n, score in scores.items()}
    places = leaderboard(states, scores)
    text = sweep_page("s", places, states, shown(states, scores, places)[:1], COMMANDS, scores)
    assert text.count("<figure>") == MOST_SHOWN
    assert "the best 24 of 32 directions" in text


def test_random_weights_are_said():
    states, scores = sweep()
    scores = {n: dataclasses.replace(s, run=dataclasses.replace(s.run, random_weights=True)) for n, s in scores.items()}
    places = leaderboard(states, scores)
    assert "everything here is noise" in sweep_page("s", places, states, [], COMMANDS, scores)
    assert Image.open(io.BytesIO(sweep_figure(places, scores))).size[0] > 500
