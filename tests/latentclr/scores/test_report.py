"""score.json: written, read back, refused; and the names that are proposed."""

from __future__ import annotations

import dataclasses
import json

import pytest
from scenes import DARKNESS, LIGHT, PLACE_REVERSED, measured

from latentclr.errors import CheckpointError
from latentclr.scores.report import (
    SCORE_FILE,
    Effect,
    ScorerInfo,
    load_scores,
    manifest_scores,
    read_scores,
    scores_text,
    with_names,
)


@pytest.fixture
def scores():
    return measured().scores


def changed(scores, direction, **values):
    directions = list(scores.directions)
    directions[direction] = dataclasses.replace(directions[direction], **values)
    return dataclasses.replace(scores, directions=tuple(directions))


def changed_effect(scores, direction, **values):
    (a, best), effects = scores.directions[direction].top(1)[0], list(scores.directions[direction].effects)
    effects[a] = dataclasses.replace(best, **values)
    return changed(scores, direction, effects=tuple(effects))


def test_what_is_written_is_read(scores, tmp_path):
    (tmp_path / SCORE_FILE).write_text(scores_text(scores))
    assert load_scores(tmp_path / SCORE_FILE) == scores
    assert json.loads((tmp_path / SCORE_FILE).read_text())["format"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [SCORE_FILE]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(format=2), "has format 2, this version reads 1"),
        (lambda raw: raw.update(format=0), "has format 0, this version reads 1"),
        (lambda raw: raw.update(format=True), "this version reads 1"),
        (lambda raw: raw.pop("format"), "has format none"),
        (lambda raw: raw.pop("rca"), "score lacks rca"),
        (lambda raw: raw["rca"].update(accuracy="high"), "score.rca.accuracy must be a finite number"),
        (lambda raw: raw["run"].update(seed=1.5), "score.run.seed must be a int"),
        (lambda raw: raw["directions"][0].update(range=[1.0, 2.0]), "must have low < 0 < high"),
        (lambda raw: raw["directions"][0].update(range=[-1.0]), "must be a list of 2"),
        (lambda raw: raw["directions"][0].update(twin_of=99), "repeats 99"),
        (lambda raw: raw["directions"][0].update(name="<b>"), "has the name '<b>'"),
        (lambda raw: raw["directions"][0]["effects"].pop(), "has not 12 attributes"),
        (lambda raw: raw["directions"][0]["curve"].pop(), "has 6 points"),
        (lambda raw: raw["twins"].append({"first": 0, "second": 77, "effects": 1, "features": 1}), "twins must be"),
        (lambda raw: raw.update(directions=[]), "twins must be in [0, 0)"),
    ],
)
def test_what_is_no_score_is_refused(scores, tmp_path, change, message, caplog):
    (tmp_path / SCORE_FILE).write_text(scores_text(scores))
    raw = json.loads((tmp_path / SCORE_FILE).read_text())
    change(raw)
    (tmp_path / SCORE_FILE).write_text(json.dumps(raw))
    with pytest.raises(CheckpointError) as raised:
        load_scores(tmp_path / SCORE_FILE)
    assert message in str(raised.value)
    assert f"score the run again: latentclr score {tmp_path}" in str(raised.value)
    assert read_scores(tmp_path, scores.run.checkpoint_sha256) is None
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("; it is not used")


@pytest.mark.parametrize("text", ["", "[]", "{", "nonsense", '{"format": 1e999}'])
def test_what_is_no_json_is_refused(text, tmp_path):
    (tmp_path / SCORE_FILE).write_text(text)
    with pytest.raises(CheckpointError):
        load_scores(tmp_path / SCORE_FILE)


def test_a_score_belongs_to_a_checkpoint(scores, tmp_path, caplog):
    assert read_scores(tmp_path, "a" * 64) is None
    assert not caplog.messages
    (tmp_path / SCORE_FILE).write_text(scores_text(scores))
    assert read_scores(tmp_path, "a" * 64) == scores
    assert read_scores(tmp_path, "b" * 64) is None
    assert "of another checkpoint" in caplog.text
    with pytest.raises(CheckpointError, match="was not scored yet"):
        load_scores(tmp_path / "other" / SCORE_FILE)


def test_a_manifest_tells_range_twin_name_and_the_largest(scores):
    entries = manifest_scores(scores)
    assert entries[LIGHT].name == "brightness"
    assert entries[LIGHT].range == scores.directions[LIGHT].range
    assert entries[DARKNESS].twin_of == LIGHT
    assert [name for name, _ in entries[LIGHT].top[:1]] == ["brightness"]
    assert len(entries[LIGHT].top) == 3


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"purity": 0.1}, "purity 0.10 is below 0.15"),
        ({"twin_of": 3}, "does the same as 3"),
        ({"effects": (None,) * 12}, "no attribute could be measured"),
    ],
)
def test_why_there_is_no_name(scores, values, reason):
    direction = with_names(changed(scores, LIGHT, **values)).directions[LIGHT]
    assert (direction.name, direction.reason, direction.reverse) == ("", reason, False)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"low": 0.4}, "is not surely above 0.5"),
        ({"agreement": 0.8}, "sign agreement 80% is below 90%"),
        ({"agreement": 0.5, "size": 2.0}, "its sign flips from code to code"),
    ],
)
def test_why_an_effect_gives_no_name(scores, values, reason):
    direction = with_names(changed_effect(scores, LIGHT, **values)).directions[LIGHT]
    assert direction.name == ""
    assert reason in direction.reason


def test_an_attribute_names_the_direction_that_moves_it_most_clearly(scores):
    two = with_names(changed(scores, DARKNESS, twin_of=None, purity=0.3))
    assert two.directions[LIGHT].name == "brightness"
    assert two.directions[DARKNESS].reason == f"{LIGHT} moves brightness more clearly"
    two = with_names(changed(scores, DARKNESS, twin_of=None, purity=0.9))
    assert (two.directions[DARKNESS].name, two.directions[DARKNESS].reverse) == ("brightness", True)
    assert two.directions[LIGHT].name == ""


def test_the_smile_is_named_where_it_nearly_is_what_moves_most(scores):
    attributes = list(scores.attributes)
    attributes[0] = dataclasses.replace(attributes[0], name="mouth_width")
    attributes[1] = dataclasses.replace(attributes[1], name="happy")
    attributes[2] = dataclasses.replace(attributes[2], name="presence")

    def named(width, happy, presence):
        values = dict(enumerate((width, happy, presence)))
        effects = tuple(
            Effect(values.get(a, 0.0), values.get(a, 0.0) - 0.1, values.get(a, 0.0) + 0.1, 1.0, 1.0) for a in range(12)
        )
        renamed = dataclasses.replace(changed(scores, LIGHT, effects=effects), attributes=tuple(attributes))
        return with_names(renamed).directions[LIGHT]

    assert (named(-2.0, -1.6, 0.1).name, named(-2.0, -1.6, 0.1).reverse) == ("happy", True)
    assert named(2.0, 1.4, 0.1).name == "mouth width"
    assert (named(0.1, 2.0, 2.2).name, named(0.1, 2.0, 2.2).reverse) == ("happy", False)
    assert named(0.1, 0.2, 2.2).reason == "moves presence most, which is no slider"


def test_a_scorer_that_trusts_little_names_nothing(scores):
    little = with_names(dataclasses.replace(scores, scorers=(ScorerInfo("pixels", 0.03),)))
    assert [direction.name for direction in little.directions] == [""] * 5
    assert little.directions[PLACE_REVERSED].reason == "pixels trusts too few pictures"


def test_a_sign_that_flips_is_told(scores):
    assert scores.directions[LIGHT].flips is None
    effects = list(scores.directions[LIGHT].effects)
    effects[2] = Effect(0.02, -0.1, 0.1, 0.52, 1.9)
    assert changed(scores, LIGHT, effects=tuple(effects)).directions[LIGHT].flips == 2
