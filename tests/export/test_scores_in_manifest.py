"""What a run's score says goes along with its export, if it is of the exported checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest
from scenes import measured

from export.manifest import build_manifest
from latentclr.config import TrainConfig
from latentclr.files import sha256_of
from latentclr.scores.report import SCORE_FILE, scores_text
from latentclr.training.experiment import open_run, trained_generator
from serving.contract.manifest import parse_manifest


@pytest.fixture
def manifest_of():
    """Return the manifest that an export of a run would write."""

    def read(run):
        config, checkpoint = open_run(run, [], TrainConfig)
        return parse_manifest(
            json.dumps(build_manifest("m", trained_generator(config, checkpoint), checkpoint, [], []))
        )

    return read


def score_of(digest, k=4):
    scores = measured().scores
    run = dataclasses.replace(scores.run, checkpoint_sha256=digest)
    return dataclasses.replace(scores, run=run, directions=scores.directions[:k], twins=scores.twins[:1])


def test_ranges_twins_and_names_go_along(run, manifest_of):
    assert manifest_of(run).directions.scores == ()
    scores = score_of(sha256_of(run / "best.safetensors"))
    (run / SCORE_FILE).write_text(scores_text(scores))
    directions = manifest_of(run).directions
    assert [entry.range for entry in directions.scores] == [direction.range for direction in scores.directions]
    assert directions.scores[0].name == "brightness"
    assert directions.scores[2].twin_of == 0
    assert directions.range_of(1) == scores.directions[1].range


@pytest.mark.parametrize("why", ["another checkpoint", "another version", "another K"])
def test_what_is_not_of_the_checkpoint_stays_out(run, manifest_of, caplog, why):
    digest = "b" * 64 if why == "another checkpoint" else sha256_of(run / "best.safetensors")
    (run / SCORE_FILE).write_text(scores_text(score_of(digest, 5 if why == "another K" else 4)))
    if why == "another version":
        (run / SCORE_FILE).write_text(json.dumps({"format": 2}))
    with caplog.at_level(logging.WARNING):
        assert manifest_of(run).directions.scores == ()
    assert len(caplog.messages) == (why != "another K")
    assert str(run / SCORE_FILE) in caplog.text or why == "another K"
