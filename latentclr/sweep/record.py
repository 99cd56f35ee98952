"""What a sweep's folder says: sweep.yaml, written by the command, and a small file in each run, written by who runs it.

FOLDER/sweep.yaml          the words, how many threads a run has, and all runs with their states, for people
FOLDER/N/sweep_run.json    how far run N is; the truth where the two differ, as after a kill
FOLDER/sweep.html, .png    the comparison

What is read back are words, which pass through the same grammar and checks as those of a command line; none of them
starts a launcher or loads code of others.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from latentclr.errors import CheckpointError
from latentclr.files import replacing
from serving.contract.documents import LARGEST, read_json_file, read_yaml

FORMAT = 1
SWEEP_FILE, RUN_FILE = "sweep.yaml", "sweep_run.json"
WAITING, TRAINING, SCORING, DONE, FAILED, STOPPED = "waiting", "training", "scoring", "done", "failed", "stopped"
STATES = (WAITING, TRAINING, SCORING, DONE, FAILED, STOPPED)
MOST_THREADS = 1024


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        own: The words that are its own.
        state: One of `STATES`.
        step: Steps of training or scoring done.
        of: How many there are; 0 where that is not known yet.
        seconds: Spent on it so far, in all attempts.
        purity: Mean of its directions; None before it was scored.
        reach: Mean of its directions, in widths of equal change; None before.
        trained: Whether its training is complete.
        error: Why it failed, on one line.
        session: Which call of the command wrote this.
    """

    own: tuple[str, ...]
    state: str = WAITING
    step: int = 0
    of: int = 0
    seconds: float = 0.0
    purity: float | None = None
    reach: float | None = None
    trained: bool = False
    error: str = ""
    session: str = ""


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        folder: Where it lies.
        fixed: Options that all runs share.
        axes: Options that differ, and their values as they were given.
        search: Whether runs are found one after the other by a sweeper that searches.
        threads: CPU threads of each run; None for as many as this process has.
        score: `scorers=` and `codes=`.
        runs: The words that are a run's own, by number; of a search those that were begun.
    """

    folder: Path
    fixed: tuple[str, ...]
    axes: Mapping[str, str]
    search: bool
    threads: int | None
    score: tuple[str, ...]
    runs: Mapping[int, tuple[str, ...]]

    def run(self, number: int) -> Path:
        """Return the folder of a run."""
        return self.folder / str(number)

    def same_as(self, other: Sweep) -> bool:
        """Return whether two commands ask for the same runs, in whatever order their words stand."""
        return (
            set(self.fixed) == set(other.fixed) and dict(self.axes) == dict(other.axes) and self.search == other.search
        )

    def states(self) -> dict[int, RunState]:
        """Return how far each run is, as their folders say; of a search also those that are no longer planned."""
        found = {number: RunState(own) for number, own in self.runs.items()}
        numbers = set(found) | (_numbers(self.folder) if self.search else set())
        for number in sorted(numbers):
            state = read_state(self.run(number))
            if state is not None and (self.search or state.own == found[number].own):
                found[number] = state
        return dict(sorted(found.items()))


def write_sweep(sweep: Sweep, states: Mapping[int, RunState], command: str) -> None:
    """Write sweep.yaml, whole or not at all.

    Args:
        sweep: The sweep.
        states: Of its runs.
        command: What was typed, for people.

    Raises:
        SaveError: The disk is full, or the folder cannot be written.
    """
    runs = []
    for number, state in states.items():
        shown = {
            key: value for key, value in dataclasses.asdict(state).items() if key not in ("own", "trained", "session")
        }
        told = {key: value for key, value in shown.items() if value not in (None, "", 0)}
        runs.append({"run": number, "words": list(state.own), **told})
    document = {
        "format": FORMAT,
        "command": command,
        "fixed": list(sweep.fixed),
        "axes": dict(sweep.axes),
        "search": sweep.search,
        "threads": sweep.threads,
        "score": list(sweep.score),
        "runs": runs,
    }
    with replacing(sweep.folder / SWEEP_FILE) as temporary:
        temporary.write_text(yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True))


def is_sweep(folder: Path) -> bool:
    """Return whether a folder holds a sweep."""
    return (folder / SWEEP_FILE).is_file()


def read_sweep(folder: Path) -> Sweep:
    """Read sweep.yaml.

    Raises:
        CheckpointError: It is missing, damaged or of another format.
    """
    path = folder / SWEEP_FILE
    try:
        with path.open("rb") as file:
            raw = read_yaml(file.read(LARGEST + 1))
        return _sweep(folder, raw)
    except FileNotFoundError:
        raise CheckpointError(f"no sweep in {folder}: it has no {SWEEP_FILE}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} {error}") from None


def write_state(run: Path, state: RunState) -> None:
    """Write how far a run is.

    Raises:
        SaveError: The disk is full, or the folder cannot be written.
    """
    with replacing(run / RUN_FILE) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(state)}))


def read_state(run: Path) -> RunState | None:
    """Return how far a run is; None if it was not begun, or if the file is no such record."""
    try:
        raw = read_json_file(run / RUN_FILE)
        _expect(isinstance(raw, dict) and raw.get("format") == FORMAT, "is of another format")
        numbers = [raw[key] for key in ("purity", "reach")]
        _expect(all(value is None or type(value) in (int, float) for value in numbers), "holds no numbers")
        _expect(raw["state"] in STATES and type(raw["step"]) is type(raw["of"]) is int, "is in no known state")
        return RunState(
            _words(raw["own"]), raw["state"], raw["step"], raw["of"], float(raw["seconds"]), raw["purity"],
            raw["reach"], raw["trained"] is True, str(raw["error"])[:500], str(raw["session"])[:100],
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sweep(folder: Path, raw: Any) -> Sweep:
    found = raw.get("format") if isinstance(raw, dict) else None
    _expect(type(found) is int and found == FORMAT, f"is no sweep of format {FORMAT}")
    try:
        threads, axes = raw["threads"], raw["axes"]
        known = threads is None or (type(threads) is int and 1 <= threads <= MOST_THREADS)
        _expect(known, f"threads must be in [1, {MOST_THREADS}]")
        _expect(isinstance(axes, dict) and all(type(part) is str for pair in axes.items() for part in pair), "axes")
        _expect(type(raw["search"]) is bool, "search must be true or false")
        runs = {}
        for entry in raw["runs"]:
            _expect(type(entry["run"]) is int and entry["run"] >= 0, "a run has no number")
            runs[entry["run"]] = _words(entry["words"])
        return Sweep(folder, _words(raw["fixed"]), axes, raw["search"], threads, _words(raw["score"]), runs)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"is damaged: {type(error).__name__} {error}") from None


def _words(value: Any) -> tuple[str, ...]:
    _expect(isinstance(value, list) and all(type(word) is str for word in value), "holds something else than words")
    return tuple(value)


def _expect(right: bool, what: str) -> None:
    if not right:
        raise ValueError(f"is damaged: {what}" if not what.startswith("is ") else what)


def _numbers(folder: Path) -> set[int]:
    names = (path.parent.name for path in folder.glob(f"*/{RUN_FILE}"))
    return {int(name) for name in names if re.fullmatch(r"\d{1,6}", name, re.ASCII)}
