"""sweep.yaml and the states of runs, written and read back without trusting them."""

from __future__ import annotations

import dataclasses
import json
from random import Random

import pytest
import yaml
from hostile_documents import YAML_BOMBS, hostile_copy, text_of

from latentclr.errors import CheckpointError
from latentclr.sweep.record import (
    DONE,
    RUN_FILE,
    SWEEP_FILE,
    TRAINING,
    WAITING,
    RunState,
    Sweep,
    read_state,
    read_sweep,
    write_state,
    write_sweep,
)


@pytest.fixture
def sweep(tmp_path):
    runs = {0: ("k=2", "seed=0"), 1: ("k=3", "seed=0")}
    return Sweep(tmp_path, ("model=linear",), {"k": "2,3", "seed": "0"}, False, 1, ("codes=24",), runs)


def test_what_is_written_is_read_back(sweep):
    write_sweep(sweep, sweep.states(), "latentclr train --multirun k=2,3")
    assert read_sweep(sweep.folder) == sweep
    assert [state.state for state in sweep.states().values()] == [WAITING, WAITING]
    state = RunState(("k=3", "seed=0"), DONE, 12, 12, 3.5, 0.25, 1.5, True, "", "ab")
    write_state(sweep.run(1), state)
    assert read_state(sweep.run(1)) == state
    assert sweep.states() == {0: RunState(("k=2", "seed=0")), 1: state}
    write_sweep(sweep, sweep.states(), "again")
    shown = yaml.safe_load((sweep.folder / SWEEP_FILE).read_text())
    assert shown["runs"][1]["purity"] == 0.25
    assert read_sweep(sweep.folder).runs == sweep.runs


def test_a_state_of_another_run_is_none_of_this_one(sweep):
    write_state(sweep.run(0), RunState(("k=9",), DONE))
    assert sweep.states()[0].state == WAITING
    search = dataclasses.replace(sweep, search=True, runs={})
    assert search.states() == {0: RunState(("k=9",), DONE)}


def test_the_same_sweep_in_other_order(sweep):
    turned = dataclasses.replace(sweep, axes={"seed": "0", "k": "2,3"}, threads=7)
    assert sweep.same_as(turned)
    assert not sweep.same_as(dataclasses.replace(sweep, axes={"k": "2,4", "seed": "0"}))
    assert not sweep.same_as(dataclasses.replace(sweep, search=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "is no sweep of format 1"),
        ({"format": True}, "is no sweep of format 1"),
        ({"threads": 0}, "threads must be in"),
        ({"threads": "many"}, "threads must be in"),
        ({"axes": {"k": [1]}}, "is damaged"),
        ({"axes": "k"}, "is damaged"),
        ({"fixed": ["a", 1]}, "something else than words"),
        ({"runs": {"a": 1}}, "is damaged"),
        ({"runs": [{"run": -1, "words": []}]}, "a run has no number"),
        ({"runs": [{"run": 0}]}, "is damaged"),
        ({"fixed": ["${oc.env:HOME}"]}, "interpolation"),
        ({"search": "no"}, "search must be"),
    ],
)
def test_a_damaged_sweep_is_one_line(sweep, change, message):
    write_sweep(sweep, sweep.states(), "")
    path = sweep.folder / SWEEP_FILE
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(CheckpointError) as raised:
        read_sweep(sweep.folder)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_sweep_at_all(tmp_path):
    with pytest.raises(CheckpointError, match=r"no sweep in .*: it has no sweep\.yaml"):
        read_sweep(tmp_path)
    (tmp_path / SWEEP_FILE).write_text("- &a [*a]")
    with pytest.raises(CheckpointError, match="aliases"):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", json.dumps({"format": 1}), json.dumps({"format": 1, "own": "k=2", "state": TRAINING})],
)
def test_a_damaged_state_is_none(tmp_path, text):
    (tmp_path / RUN_FILE).write_text(text)
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("change", [{"state": "gone"}, {"step": "1"}, {"purity": "0"}, {"own": [1]}, {"seconds": []}])
def test_a_state_with_a_wrong_value_is_none(tmp_path, change):
    write_state(tmp_path, RunState(("k=2",)))
    raw = json.loads((tmp_path / RUN_FILE).read_text())
    (tmp_path / RUN_FILE).write_text(json.dumps({**raw, **change}))
    assert read_state(tmp_path) is None


def test_hostile_files_are_one_line_or_a_sweep(sweep):
    """Whatever stands there: words, or a refusal; the grammar and the checks of a command line come after it."""
    write_sweep(sweep, sweep.states(), "")
    good = yaml.safe_load((sweep.folder / SWEEP_FILE).read_text())
    texts = [*YAML_BOMBS.values(), *(text_of(hostile_copy(Random(seed), good)) for seed in range(150))]
    texts = [text for text in texts if len(text) < 20_000]  # what is large is tried on the reader itself
    refused = 0
    for text in texts:
        (sweep.folder / SWEEP_FILE).write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            found = read_sweep(sweep.folder)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
            assert len(str(error)) < 1000
        else:
            assert all(type(word) is str for own in (found.fixed, found.score, *found.runs.values()) for word in own)
    assert refused > 50


def test_hostile_states_are_none_or_a_state(tmp_path):
    write_state(tmp_path, RunState(("k=2",), DONE, 1, 2, 3.0, 0.1, 0.2))
    good = json.loads((tmp_path / RUN_FILE).read_text())
    for seed in range(200):
        (tmp_path / RUN_FILE).write_bytes(text_of(hostile_copy(Random(seed), good)).encode("utf-8", "surrogatepass"))
        state = read_state(tmp_path)
        assert state is None or (type(state.step) is int and all(type(word) is str for word in state.own))
