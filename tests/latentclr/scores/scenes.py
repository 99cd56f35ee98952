"""A generator whose code is understood, with directions that do known things, measured once."""

from __future__ import annotations

from functools import lru_cache

import torch
from tiny_generators import D, SceneGenerator
from tqdm import tqdm

from latentclr.method.directions import GlobalDirections
from latentclr.scores.measure import Measured, measure
from latentclr.scores.report import RunInfo
from latentclr.scores.scorer import build_scorers
from latentclr.scores.subject import Subject

LIGHT, PLACE_REVERSED, DARKNESS, NOTHING, BOTH = range(5)
RUN = RunInfo("best.safetensors", "a" * 64, 400, "global", 0, "global-0", "scene", "0" * 64, False, ())


def scene_directions() -> GlobalDirections:
    """Return the light, the place reversed, the light reversed and impure, nothing, and a mixture."""
    directions = GlobalDirections(5, D, torch.Generator().manual_seed(0))
    rows = torch.zeros(5, D)
    rows[LIGHT, 0] = 1.0
    rows[PLACE_REVERSED, 1] = -1.0
    rows[DARKNESS, 0], rows[DARKNESS, 1] = -1.0, 0.3
    rows[NOTHING, 4] = 1.0
    rows[BOTH, 0] = rows[BOTH, 1] = rows[BOTH, 2] = 1.0
    directions.params.data = rows
    return directions.eval()


def scene(conditional: bool = False, directions: GlobalDirections | None = None) -> Subject:
    return Subject(
        SceneGenerator(conditional), directions or scene_directions(), torch.ones(1), ("code", "picture")
    )  # fmt: skip


@lru_cache
def measured(conditional: bool = False, codes: int = 32) -> Measured:
    """Return everything about the scene."""
    with tqdm(disable=True) as bar:
        return measure(
            scene(conditional), build_scorers(["pixels"]), RUN, seed=0, codes=codes, trained=3.0, bar=bar
        )  # fmt: skip
