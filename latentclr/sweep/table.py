"""The live table of a sweep: on a screen it is drawn again in place, in a log it is a line for each run that ends."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from latentclr.progress import duration
from latentclr.sweep.record import DONE, FAILED, SCORING, TRAINING, WAITING, RunState
from latentclr.sweep.words import short_keys, shown_value

PAUSE_S = 0.5
States = Mapping[int, RunState]


def table_lines(states: States, session: str, most: int = 10_000) -> list[str]:
    """Return the table of all runs, a line each.

    Args:
        states: Of the runs.
        session: Which call of the command is at work; what another one left half-done waits.
        most: Lines at most; where there are more runs, those that wait or are done are counted instead.
    """
    keys = list(dict.fromkeys(word.partition("=")[0] for state in states.values() for word in state.own))
    short = short_keys(keys)
    heading = ("run", *(short[key] for key in keys), "state", "step", "time", "purity", "reach")
    rows = []
    for number, state in states.items():
        values = {word.partition("=")[0]: word.partition("=")[2] for word in state.own}
        name = state_now(state, session)
        rows.append((name, (
            str(number), *(shown_value(values.get(key, "")) for key in keys), name,
            f"{state.step}/{state.of}" if state.of and name != DONE else "",
            f"{state.seconds:.0f} s" if state.seconds else "",
            "" if state.purity is None else f"{state.purity:.2f}", "" if state.reach is None else f"{state.reach:.2f}",
        )))  # fmt: skip
    left_out: list[str] = []
    for unimportant in (WAITING, DONE, FAILED):
        several = [row for row in rows if row[0] == unimportant]
        if len(rows) + len(left_out) > most and several:
            hidden = several[-(len(rows) + 1 - most) :]  # one line says how many
            rows = [row for row in rows if row not in hidden]
            left_out.append(f"{len(hidden)} more {unimportant}")
    table = [heading, *(cells for _, cells in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(heading))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return [*lines, *([f"... {', '.join(left_out)}"] if left_out else [])]


def state_now(state: RunState, session: str) -> str:
    """Return the state of a run as it is now: what an earlier command left half-done waits."""
    alive = state.state in (TRAINING, SCORING) and state.session == session
    return state.state if alive or state.state in (DONE, FAILED) else WAITING


def summary(states: States, session: str, planned: int | None, at_once: int) -> str:
    """Return one line about all runs, with the time left as far as finished runs tell it.

    Args:
        states: Of the runs.
        session: Which call of the command is at work.
        planned: How many runs there are to be; None of a search that nobody knows the length of.
        at_once: How many are at work together.
    """
    now = [state_now(state, session) for state in states.values()]
    total = len(states) if planned is None else planned
    told = [f"{now.count(DONE)} of {total} runs finished"]
    told += [f"{now.count(FAILED)} failed"] if FAILED in now else []
    done = [state.seconds for state in states.values() if state.state == DONE and state.seconds]
    left = total - now.count(DONE) - now.count(FAILED)
    if done and left:
        told.append(f"{duration(sum(done) / len(done) * left / max(1, min(at_once, left)))} left")
    return ", ".join(told)


def ended(number: int, state: RunState) -> str:
    """Return the line of a run that is done or failed."""
    name = f"run {number} ({', '.join(state.own)})" if state.own else f"run {number}"
    if state.state == FAILED:
        return f"{name} failed: {state.error}"
    return f"{name}: purity {state.purity or 0:.2f}, reach {state.reach or 0:.2f}, in {state.seconds:.0f} s"


class LiveTable:
    """Shows the states of a sweep's runs while a `with` block works on them."""

    def __init__(
        self, look: Callable[[], States], changed: Callable[[States], None], session: str, planned: int | None,
        at_once: int,
    ) -> None:  # fmt: skip
        """Nothing is shown yet.

        Args:
            look: Returns the states.
            changed: Called in this object's thread whenever a run has got another state.
            session: Which call of the command is at work.
            planned: How many runs there are to be, None if nobody knows.
            at_once: How many are at work together.
        """
        self._look, self._changed, self._session, self._planned = look, changed, session, planned
        self._at_once, self._drawn, self._told = at_once, 0, set[int]()
        self._screen = sys.stderr
        self._live = self._screen.isatty()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="table", daemon=True)

    def __enter__(self) -> LiveTable:
        """Begin to show."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the last state and stop."""
        self._stop.set()
        self._thread.join()
        self._show(self._look(), last=True)

    def _run(self) -> None:
        before: list[str] = []
        while not self._stop.wait(PAUSE_S):
            states = self._look()
            now = [state_now(state, self._session) for state in states.values()]
            if now != before:
                self._changed(states)
            before = now
            self._show(states)

    def _show(self, states: States, last: bool = False) -> None:
        if not self._live:
            for number, state in states.items():
                if state.state in (DONE, FAILED) and state.session == self._session and number not in self._told:
                    self._told.add(number)
                    print(f"{time.strftime('%H:%M:%S')} {ended(number, state)}", file=self._screen, flush=True)
            return
        size = shutil.get_terminal_size()
        lines = table_lines(states, self._session, max(3, size.lines - 4))
        lines.append(summary(states, self._session, self._planned, self._at_once))
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._screen.write(up + "".join(f"\x1b[2K{line[: size.columns - 1]}\n" for line in lines) + "\x1b[J")
        self._screen.flush()
        self._drawn = 0 if last else len(lines)
