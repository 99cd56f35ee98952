"""The live table, as lines."""

from __future__ import annotations

import io
import sys
import time

from latentclr.sweep.record import DONE, FAILED, SCORING, STOPPED, TRAINING, RunState
from latentclr.sweep.table import PAUSE_S, LiveTable, ended, state_now, summary, table_lines

NOW = "now"
STATES = {
    0: RunState(("k=8", "model.alpha=[-3.0,3.0]"), DONE, 9, 9, 12.0, 0.25, 2.5, True, "", NOW),
    1: RunState(("k=8", "model.alpha=[-6.0,6.0]"), FAILED, 3, 9, 1.0, None, None, False, "the loss became nan", NOW),
    2: RunState(("k=16", "model.alpha=[-3.0,3.0]"), TRAINING, 5, 9, 6.0, session=NOW),
    3: RunState(("k=16", "model.alpha=[-6.0,6.0]"), SCORING, 5, 9, 6.0, session="before"),
    4: RunState(("k=32", "model.alpha=[-3.0,3.0]")),
}


def test_every_run_has_a_line():
    heading, *lines = table_lines(STATES, NOW)
    assert heading.split() == ["run", "k", "alpha", "state", "step", "time", "purity", "reach"]
    assert [line.split() for line in lines] == [
        ["0", "8", "[-3.0,3.0]", "done", "12", "s", "0.25", "2.50"],
        ["1", "8", "[-6.0,6.0]", "failed", "3/9", "1", "s"],
        ["2", "16", "[-3.0,3.0]", "training", "5/9", "6", "s"],
        ["3", "16", "[-6.0,6.0]", "waiting", "5/9", "6", "s"],
        ["4", "32", "[-3.0,3.0]", "waiting"],
    ]


def test_a_small_screen_shows_what_is_at_work():
    many = STATES | {number: RunState(("k=2",)) for number in range(5, 100)}
    lines = table_lines(many, NOW, 5)
    assert len(lines) == 6  # the heading, too
    assert [line.split()[0] for line in lines[1:-1]] == ["0", "1", "2", "3"]
    assert lines[-1] == "... 96 more waiting"
    done = {number: RunState(("k=2",), DONE) for number in range(50)} | {50: STATES[2]}
    assert table_lines(done, NOW, 3)[-1] == "... 49 more done"
    assert any("training" in line for line in table_lines(many | done, NOW, 3))


def test_what_another_call_left_waits():
    assert state_now(STATES[3], NOW) == "waiting"
    assert state_now(RunState((), STOPPED, session=NOW), NOW) == "waiting"
    assert state_now(STATES[2], NOW) == "training"


def test_the_summary_tells_the_time_left():
    assert summary(STATES, NOW, None, 1) == "1 of 5 runs finished, 1 failed, about 36 s left"
    assert summary(STATES, NOW, 10, 2) == "1 of 10 runs finished, 1 failed, about 48 s left"
    assert summary({0: RunState(())}, NOW, None, 1) == "0 of 1 runs finished"


def test_a_line_in_a_log():
    assert ended(0, STATES[0]) == "run 0 (k=8, model.alpha=[-3.0,3.0]): purity 0.25, reach 2.50, in 12 s"
    assert ended(1, STATES[1]).endswith("failed: the loss became nan")


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_on_a_screen_it_is_drawn_in_place(monkeypatch):
    screen, seen, states = Screen(), [], {0: RunState(("k=8",)), 1: RunState(("k=16",))}
    monkeypatch.setattr(sys, "stderr", screen)
    with LiveTable(lambda: dict(states), seen.append, NOW, 2, 1):
        time.sleep(2.5 * PAUSE_S)
        states[0] = RunState(("k=8",), DONE, 9, 9, 3.0, 0.2, 2.0, True, "", NOW)
        time.sleep(1.5 * PAUSE_S)
    drawn = screen.getvalue()
    assert drawn.count("\x1b[4A") >= 2  # up by heading, two runs and the summary
    assert "0 of 2 runs finished" in drawn
    assert drawn.rstrip("\x1b[J\n").endswith("1 of 2 runs finished, about 3 s left")
    assert len(seen) == 2  # whoever writes sweep.yaml hears of changes only


def test_in_a_log_only_what_ended_is_told(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with LiveTable(lambda: STATES, lambda states: None, NOW, 5, 1):
        time.sleep(1.5 * PAUSE_S)
    lines = [line.partition(" ")[2] for line in screen.getvalue().splitlines()]
    assert lines == [ended(0, STATES[0]), ended(1, STATES[1])]
