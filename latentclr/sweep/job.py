"""One run of a sweep, wherever a launcher puts it: trained or resumed, scored, and its state written beside it.

A `Job` is the task function that Hydra's launchers call, once for each run. They may pickle it and call it in another
process or on another machine that sees the same folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig

from latentclr.commands.score import score_run
from latentclr.commands.train import run_train
from latentclr.compose import Overrides, compose_train, parse_overrides
from latentclr.config import COMPUTED, ScoreConfig
from latentclr.errors import CheckpointError, LatentCLRError, SaveError, in_one_line
from latentclr.scores.compare import reach_of
from latentclr.scores.report import MAP_FILE, PAGE_FILE, SCORE_FILE, RunScores, read_scores
from latentclr.scores.scorer import build_scorers
from latentclr.sweep.record import (
    DONE,
    FAILED,
    SCORING,
    STOPPED,
    TRAINING,
    RunState,
    read_state,
    write_state,
)  # fmt: skip
from latentclr.sweep.words import path_value
from latentclr.training.checkpoint import RESUME_FILE, load_checkpoint
from latentclr.training.experiment import open_run
from serving.contract.lock import holder

SEED = 0  # of the codes that every run is scored on
PAUSE_S = 1.0  # between two looks at how far a run is
_STARTED = ("best.safetensors", "last.safetensors", SCORE_FILE, MAP_FILE, PAGE_FILE, "train.log", "loss.png",
            "grid.png", "events.out.tfevents.*")  # fmt: skip


class RunFailed(LatentCLRError):
    """A run of a search failed; its one line is the message."""


@dataclass
class Job:
    """What a launcher calls for each run.

    Attributes:
        folder: The sweep's, absolute.
        fixed: Words that all runs share.
        score: `scorers=` and `codes=`.
        runs: The words that are a run's own, by number; empty of a search.
        keys: Of a search, what its parameters stand for: name in Hydra's configuration -> option.
        threads: CPU threads of each run; None to leave them.
        session: Which call of the command this is.
        parent: Host and process that the run is not to outlive; None for a queue that goes on alone.
    """

    folder: Path
    fixed: tuple[str, ...]
    score: tuple[str, ...]
    runs: Mapping[int, tuple[str, ...]]
    keys: Mapping[str, str]
    threads: int | None
    session: str
    parent: tuple[str, int] | None
    full: str = ""

    def __call__(self, cfg: Any) -> Any:
        """Carry out one run.

        Args:
            cfg: What Hydra composed: `run`, the number; of a search, the parameters are in its overrides.

        Returns:
            The number, the error (empty if there is none), and whether it was that of a disk; of a search, purity and
            reach.

        Raises:
            RunFailed: It failed, in a search; else that is only written down.
            KeyboardInterrupt: It was stopped, and saved.
        """
        if not self.keys:
            number = int(cfg.run)
            return number, self.perform(number, self.runs[number]).error, bool(self.full)
        prefix = "+axis."
        words = [word.removeprefix(prefix).partition("=") for word in HydraConfig.get().overrides.task]
        own = tuple(f"{self.keys[name]}={value}" for name, _, value in words)
        number = self._number(int(HydraConfig.get().job.num), own)
        state = self.perform(number, own)
        if state.purity is None or state.reach is None:
            raise RunFailed(state.error or f"run {number} was not scored")
        return [state.purity, state.reach]

    def _number(self, wanted: int, own: tuple[str, ...]) -> int:
        """Return which folder a run of a search has: the one that it had before, else the first free one."""
        number = wanted
        while (state := read_state(self.folder / str(number))) is not None and state.own != own:
            number += 1
        return number

    def finished(self, number: int, own: tuple[str, ...]) -> RunState | None:
        """Return the state of a run that is trained, and scored as is asked for now; None of any other.

        One whose files are damaged is not finished: what is wrong with it is its own matter, and stops no other.
        """
        run = self.folder / str(number)
        state = read_state(run)
        if state is None or state.own != own or state.state != DONE:
            return None
        with contextlib.suppress(LatentCLRError):
            return state if self._scored(run, own) is not None else None
        return None

    def perform(self, number: int, own: tuple[str, ...]) -> RunState:
        """Train or resume a run, score it, and return its state, which is also written.

        Raises:
            KeyboardInterrupt: It was stopped, and saved.
        """
        run = self.folder / str(number)
        before = read_state(run)
        if before is None or before.own != own:
            before = RunState(own)
        minded = _Minded(run, dataclasses.replace(before, error="", session=self.session), self.parent)
        try:
            if (done := self.finished(number, own)) is not None:
                return done
            if somebody := holder(run):  # whose record of it is left alone
                return dataclasses.replace(before, state=FAILED, error=f"{run} is in use by {somebody}")
            if self.full:
                return dataclasses.replace(before, error=self.full)
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            self._train(run, own, minded)
            scores = self._score(run, own, minded)
            purity = sum(d.purity for d in scores.directions) / len(scores.directions)
            reach = sum(map(reach_of, scores.directions)) / len(scores.directions)
            state = dataclasses.replace(minded.now(), state=DONE, purity=round(purity, 6), reach=round(reach, 6))
            write_state(run, state)
            return state
        except KeyboardInterrupt:
            minded.end(STOPPED)
            raise
        except Exception as error:
            state = minded.end(FAILED, in_one_line(error))
            if isinstance(error, SaveError) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
                self.full = state.error  # what comes after it in this process would fail alike
            if getattr(error, "exit_code", None) is None:
                with contextlib.suppress(OSError), open(run / "train.log", "a") as log:
                    traceback.print_exception(error, file=log)
            return state

    def _train(self, run: Path, own: tuple[str, ...], minded: _Minded) -> None:
        words = [*self.fixed, *own]
        config = compose_train(words)
        best = run / "best.safetensors"
        whole = _is_whole(best)
        if whole and (minded.state.trained or config.model.name in COMPUTED):
            return
        lost = not whole and (best.is_file() or minded.state.trained)  # then only another training finds it again
        minded.state = dataclasses.replace(minded.state, trained=False)
        minded.begin(TRAINING, 0, 0)
        if (run / RESUME_FILE).is_file() and not lost:
            words.append(f"checkpoint={path_value(run)}")
        else:
            _clear(run)  # killed before there was anything to go on with, or damaged since
            words.append(f"output_dir={path_value(run)}")
        if not run_train(words, watch=minded):
            raise KeyboardInterrupt
        minded.state = dataclasses.replace(minded.state, trained=True)

    def _score(self, run: Path, own: tuple[str, ...], minded: _Minded) -> RunScores:
        done = self._scored(run, own)
        if done is not None:
            return done
        minded.begin(SCORING, 0, 0)
        config, checkpoint = open_run(run, words_to_open(self.fixed, own, self.score), ScoreConfig)
        scorers = build_scorers(config.scorers)
        return score_run(f"run {run.name}", config, checkpoint, scorers, SEED, run, watch=minded).scores

    def _scored(self, run: Path, own: tuple[str, ...]) -> RunScores | None:
        """Return what was measured before, if it is of this checkpoint and was measured as is asked for now."""
        if not (run / SCORE_FILE).is_file():
            return None
        config, checkpoint = open_run(run, words_to_open(self.fixed, own, self.score), ScoreConfig, closed=True)
        scores = read_scores(run, checkpoint.sha256)
        wanted = config.codes, tuple(config.scorers), SEED
        if scores and (scores.settings.codes, tuple(s.name for s in scores.scorers), scores.settings.seed) == wanted:
            return scores
        return None


def words_to_open(fixed: Sequence[str], own: Sequence[str], score: Sequence[str]) -> Overrides:
    """Return what opening a run needs beside its own configuration: a plug-in's word, a device, and how to score."""
    trained = parse_overrides([*fixed, *own]).items
    kept = tuple(o for o in trained if o.key_or_group in ("generator", "device", "auto_cpu_if_no_gpu"))
    return Overrides((*kept, *parse_overrides(score).items))


class _Minded:
    """The watch of a run: it writes how far the run is, and asks it to stop where nobody waits for it any more."""

    def __init__(self, run: Path, state: RunState, parent: tuple[str, int] | None) -> None:
        self.run, self.state, self._parent = run, state, parent
        self._start, self._before, self._written = time.monotonic(), state.seconds, 0.0

    def begin(self, state: str, step: int, of: int) -> None:
        """Write that a part of the work begins."""
        self.state = dataclasses.replace(self.now(), state=state, step=step, of=of)
        write_state(self.run, self.state)
        self._written = time.monotonic()

    def __call__(self, step: int, of: int) -> bool:
        """Note a step; the file is written now and then."""
        if time.monotonic() - self._written < PAUSE_S:
            return False
        with contextlib.suppress(SaveError):  # what the run itself saves matters, and says so
            self.begin(self.state.state, step, of)
        self._written = time.monotonic()
        return self._orphaned()

    def now(self) -> RunState:
        """Return the state with the time spent so far."""
        return dataclasses.replace(self.state, seconds=round(self._before + time.monotonic() - self._start, 2))

    def end(self, state: str, error: str = "") -> RunState:
        """Write how it ended, if the disk still takes it."""
        self.state = dataclasses.replace(self.now(), state=state, error=error)
        with contextlib.suppress(SaveError):
            write_state(self.run, self.state)
        return self.state

    def _orphaned(self) -> bool:
        if self._parent is None or self._parent[0] != socket.gethostname() or self._parent[1] == os.getpid():
            return False
        try:
            os.kill(self._parent[1], 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


def _is_whole(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except CheckpointError:
        return False
    return True


def _clear(run: Path) -> None:
    """Remove what a training left in its folder that cannot go on."""
    for pattern in (*_STARTED, RESUME_FILE):
        for path in run.glob(pattern):
            path.unlink()
