"""Strengths outside the model's range: drawn, and one warning for each call."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_editor import MANIFEST, D, L, assert_close, expected

from serving import AlphaWarning, AsyncEditClient, EditClient, TritonServer
from serving.cli import edit
from serving.client.alpha_range import telling, warn_outside
from serving.client.replay import replay
from serving.contract.manifest import Manifest, parse_manifest
from serving.errors import InvalidEdit

TINY = parse_manifest(json.dumps(MANIFEST))  # [-6, 6], and [-4, 4] for `smile`
CODE = np.zeros((1, D), np.float32)


def lines(alphas: list[list[float]], keys: list[int | str] | None = None, manifest: Manifest = TINY) -> list[str]:
    """What is said of strengths [N, M] at all layers."""
    said: list[str] = []
    directions = np.zeros(np.shape(alphas), np.int64)
    with telling(said.append):
        warn_outside(manifest, directions, np.repeat(np.array(alphas, np.float32)[..., None], L, axis=2), keys)
    return said


def test_each_direction_has_its_range() -> None:
    assert lines([[6.0, 4.0]], [1, "smile"]) == lines([[-6.0, -4.0]], [1, "smile"]) == lines([[0.0]]) == []
    assert lines([[6.0, 4.1]], [1, "smile"]) == [
        "alpha 4.1 of 'smile' is outside the model's range [-4, 4]: expect a broken picture"
    ]
    assert lines([[50.0], [-1e9]], [2]) == [
        "alpha -1e+09 of direction 2 is outside the model's range [-6, 6]: expect a broken picture"
    ]
    assert lines([[7.0]]) == ["alpha 7 is outside the model's range [-6, 6]: expect a broken picture"]


def test_a_scored_direction_and_a_reversed_name_have_ranges_of_their_own() -> None:
    scores = [{"range": [-1, 2]}, {"range": [-3, 3]}, {"range": [-4, 8]}]
    edits = {"smile": {"direction": 2, "alpha_range": [-8, 4], "reverse": True}}
    raw = {**MANIFEST, "directions": {**MANIFEST["directions"], "scores": scores}, "edits": edits}
    scored = parse_manifest(json.dumps(raw))
    assert lines([[2.0, 3.0, 8.0]], [0, 1, "smile"], scored) == lines([[2.0, -4.0]], [0, "smile"], scored) == []
    (said,) = lines([[2.0, -5.0]], [0, "smile"], scored)  # what was asked for is +5
    assert said.startswith("alpha 5 of 'smile' is outside the model's range [-8, 4]")
    (said,) = lines([[2.0], [2.5]], None, scored)
    assert said.startswith("alpha 2.5 is outside the model's range [-1, 2]")


@settings(deadline=None)
@example(246520.0, 15624.046875)
@given(st.floats(-1e6, 1e6, width=32), st.floats(2**-10, 1e6, width=32))
def test_the_ends_of_a_range_are_inside(low: float, width: float) -> None:
    raw = {**MANIFEST, "directions": {**MANIFEST["directions"], "alpha_range": [low, low + width]}}
    said: list[str] = []
    with telling(said.append):
        ends = [low + width * step / 4 for step in range(5)]  # as `latentclr edit` draws it
        manifest, none = parse_manifest(json.dumps(raw)), np.zeros((1, 1), np.int64)
        warn_outside(manifest, np.repeat(none, 5, 0), np.array(ends, np.float32)[:, None, None], [0])
        warn_outside(manifest, none, np.zeros((1, 1, L), np.float32), [0])
    assert said == []


def test_one_warning_for_a_call_at_the_callers_line(client: EditClient) -> None:
    for call in (
        lambda: client.edit(seed=7, edits={1: 1e9, 0: -50.0}),
        lambda: client.sweep(seed=7, direction="smile", alphas=[-50, 0, 50]),
        lambda: client.edit_rows(np.zeros((20, D)), np.zeros((20, 1), int), np.full((20, 1, L), 50.0)),
    ):
        with pytest.warns(AlphaWarning, match="outside the model's range") as caught:
            assert call().images.any()
        assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]

    async def ask() -> None:
        async with AsyncEditClient(client._connection._address.target) as other:
            await other.edit(seed=7, edits={1: 50.0})

    with pytest.warns(AlphaWarning) as caught:
        asyncio.run(ask())
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]
    wanted = expected(CODE, np.array([[1]]), np.full((1, 1, L), 50.0))
    with pytest.warns(AlphaWarning):
        assert_close(client.edit(z=CODE, edits={1: 50.0}).images, wanted)


def test_no_warning_where_nothing_is_drawn_or_all_is_well(client: EditClient) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.edit(seed=7, edits={1: 6.0, "smile": -4.0})
        client.edit(seed=7)
        with pytest.raises(InvalidEdit):
            client.edit(seed=7, edits={9: 50.0})
        with pytest.raises(InvalidEdit):
            client.edit(seed=7, edits={1: float("inf")})
    with pytest.warns(AlphaWarning):
        made = client.edit(seed=7, edits={1: 50.0})
    assert made.recipe is not None
    np.testing.assert_array_equal(replay(client, made.recipe).images, made.images)


def test_the_command_says_it_in_a_line(server: TritonServer, tmp_path: Path) -> None:
    picture = str(tmp_path / "a.png")
    for arguments in (["--direction", "1", "--alpha=-50,0,50"], ["--edit", "1=1e9", "--edit", "smile=3"]):
        result = CliRunner().invoke(edit, [*arguments, "-o", picture, "--url", server.grpc_url])
        assert result.exit_code == 0, result.output
        (line,) = result.stderr.splitlines()
        assert line.startswith("warning: alpha ")
        assert "of direction 1 is outside the model's range [-6, 6]" in line
    for arguments in (["--direction", "smile"], ["--direction", "1"], ["--from", picture]):
        result = CliRunner().invoke(edit, [*arguments, "-o", picture, "--url", server.grpc_url])
        assert (result.exit_code, result.stderr) == (0, "")
