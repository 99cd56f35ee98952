"""grid.png in a bounded time."""

from __future__ import annotations

import logging

import pytest
import torch
from PIL import Image

from latentclr.config import TrainConfig
from latentclr.pictures.overview import draw_overview, fitting
from latentclr.progress import duration
from latentclr.training.experiment import open_run, trained_step


@pytest.mark.parametrize(
    ("k", "seconds", "budget", "expected"),
    [
        (100, 0.001, 45, (32, 5)), (16, 0.001, 45, (16, 5)), (100, 2.6, 45, (8, 3)), (16, 0.6, 45, (16, 5)),
        (16, 0.7, 45, (16, 3)), (16, 1.4, 45, (15, 3)), (100, 60, 45, (1, 3)), (100, 1e9, 45, (1, 3)),
        (2, 2.6, 45, (2, 5)), (100, 0.0, 45, (32, 5)), (100, 2.6, 4.5, (1, 3)),
    ],
)  # fmt: skip
def test_what_fits_into_a_budget(k, seconds, budget, expected):
    rows, columns = fitting(k, seconds, budget)
    assert (rows, columns) == expected
    assert rows == 1 or seconds * (1 + rows * (columns - 1)) <= budget


def test_a_tight_budget_draws_less_and_says_so(run, tmp_path, caplog):
    config, checkpoint = open_run(run, [], TrainConfig)
    step = trained_step(config, checkpoint, torch.device("cpu"))
    parts = step.generator, step.directions, step.get_buffer("fed"), config
    with caplog.at_level(logging.INFO, "latentclr"):
        draw_overview(*parts, tmp_path / "whole.png", budget=1e9)
        assert caplog.text == ""
        draw_overview(*parts, tmp_path / "small.png", budget=1e-9)
    assert "small.png shows 1 of 4 directions" in caplog.text
    assert f"all: latentclr gen {tmp_path} n_dirs=-1" in caplog.text
    with Image.open(tmp_path / "whole.png") as whole, Image.open(tmp_path / "small.png") as small:
        assert whole.width - small.width == 2 * (64 + 2)
        assert whole.height - small.height == 3 * (64 + 2)


def test_durations_are_read_by_people():
    told = [duration(seconds) for seconds in (0.2, 45.4, 420, 5400)]
    assert told == ["about 1 s", "about 45 s", "about 7 min", "about 1.5 h"]
