"""`latentclr train --multirun`, from words to a folder of runs and their comparison."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shlex
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import click

from latentclr.commands.score import check_codes
from latentclr.compose import parse_overrides
from latentclr.config import ScoreConfig
from latentclr.errors import ConfigError, LatentCLRError, SaveError
from latentclr.files import write_together
from latentclr.generators.registry import is_built_in
from latentclr.method.step import feed_mask
from latentclr.scores.measure import draw_strips
from latentclr.scores.report import SCORE_FILE, RunScores, load_scores
from latentclr.scores.scorer import build_scorers
from latentclr.scores.subject import Pixels, Subject
from latentclr.sweep.board import Place, board_lines, leaderboard
from latentclr.sweep.job import Job, words_to_open
from latentclr.sweep.launch import BASIC, Launch, launch, prepare, search_keys
from latentclr.sweep.page import Shown, sweep_figure, sweep_page
from latentclr.sweep.record import DONE, FAILED, SWEEP_FILE, RunState, Sweep, is_sweep, read_sweep, write_sweep
from latentclr.sweep.table import LiveTable, table_lines
from latentclr.sweep.words import Axis, SweepWords, check_runs, check_search, expand, path_value, sort_words
from latentclr.training.checkpoint import holds_run
from latentclr.training.distributed import resolve_device
from latentclr.training.experiment import open_run, trained_generator
from serving.contract.lock import alone


class RunsFailed(LatentCLRError):
    """Runs of a sweep failed; the others are finished."""


BEST = 3  # places whose directions the page shows
SWEEP_PAGE, SWEEP_FIGURE = "sweep.html", "sweep.png"


def run_sweep(words: Sequence[str]) -> None:
    """Carry out a sweep, or go on with one.

    Raises:
        LatentCLRError: A word is wrong, the folder is another's, or runs failed; those that are finished are kept.
        Busy: Another process works in the folder.
        KeyboardInterrupt: The user stopped it; the message says how to go on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("a sweep starts its runs itself: call it without torchrun")
    given = sort_words(words)
    sweep, axes, how = _planned(given)
    check_score(sweep.score)
    folder, known = sweep.folder, is_sweep(sweep.folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"could not make the folder {folder}: {error.strerror or error}") from error
    command = _command(words)
    try:
        with alone(folder):
            if is_sweep(folder) != known:
                raise ConfigError(f"{folder} already holds another sweep: choose another output_dir")
            write_sweep(sweep, sweep.states(), command)
            click.echo(f"{_size(sweep, how)} in {folder}")
            session = secrets.token_hex(4)
            failed = _carry_out(sweep, axes, how, session, command)
            _conclude(sweep, failed, session)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(sweep, given)) from None
    except (SaveError, RunsFailed) as error:
        raise type(error)(f"{error}; {_kept(sweep, given)}") from error
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()  # if nothing came into it


def _size(sweep: Sweep, how: Launch) -> str:
    """Say how much there is to do, and how."""
    total = f"a {'search' if how.search else 'sweep'} of {how.planned} run{'' if how.planned == 1 else 's'}"
    done = sum(state.state == DONE for state in sweep.states().values())
    with_others = f", by hydra/launcher={how.launcher}" if how.launcher != BASIC else ""
    threads = f", {sweep.threads} CPU thread{'s' if sweep.threads > 1 else ''} each" if sweep.threads else ""
    return f"{total}{with_others}{threads}{f', {done} finished before,' if done else ''}"


def _kept(sweep: Sweep, given: SweepWords) -> str:
    """Say what is kept, and how to go on."""
    done = sum(state.state == DONE for state in sweep.states().values())
    others = [word for word in given.fixed if word.startswith("generator=") and _of_others([word.partition("=")[2]])]
    others += [f"generator={axis.given}" for axis in given.axes if axis.key == "generator" and _of_others(axis.values)]
    again = _command([f"checkpoint={path_value(sweep.folder)}", *others, *given.hydra])
    return f"{done} finished run{'' if done == 1 else 's'} kept; go on with: {again}"


def _command(words: Sequence[str]) -> str:
    return shlex.join(["latentclr", "train", "--multirun", *words])


def _of_others(names: Sequence[str]) -> bool:
    return not all(is_built_in(name.strip("'\"")) for name in names)


def _planned(given: SweepWords) -> tuple[Sweep, tuple[Axis, ...], Launch]:
    """Find out which runs there are to be, and check every one of them."""
    before = None
    folder = given.folder or Path("outputs") / "sweeps" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if given.checkpoint is not None:
        folder = given.checkpoint
        if given.folder is not None and given.folder.resolve() != folder.resolve():
            raise ConfigError("a sweep goes on where it is: leave output_dir out")
        before = read_sweep(folder)
        given = _taken_up(given, before)
    elif is_sweep(folder):
        before = read_sweep(folder)
    elif holds_run(folder):
        raise ConfigError(f"{folder} already holds a run: choose another output_dir")
    search = prepare(given.hydra, 1).search
    if search and not given.axes:
        raise ConfigError("a search needs options with several values, such as k=8,16,32")
    runs: dict[int, tuple[str, ...]] = {} if search else dict(enumerate(expand(given.axes)))
    sweep = Sweep(
        folder, given.fixed, {axis.key: axis.given for axis in given.axes}, search, None, given.score, runs
    )  # fmt: skip
    if before is not None:
        if not sweep.same_as(before):
            raise ConfigError(
                f"{folder} already holds another sweep: go on with it by checkpoint={folder},"
                " or choose another output_dir"
            )
        if not search:
            if set(before.runs.values()) != set(runs.values()):
                raise ConfigError(f"{folder / SWEEP_FILE} does not fit its own words: choose another output_dir")
            runs = dict(before.runs)  # the numbers that they have, also where their order is drawn
    if search:
        check_search(given.fixed, given.axes)
    else:
        check_runs(given.fixed, list(runs.values()))
    how = prepare(given.hydra, max(1, len(runs)))
    threads = how.threads if before is None else before.threads  # the same sums, bit for bit
    score = given.score or (before.score if before else ())
    return dataclasses.replace(sweep, runs=runs, threads=threads, score=score), given.axes, how


def _taken_up(given: SweepWords, before: Sweep) -> SweepWords:
    """Return the words of a sweep that goes on: its own, and of the command those that may differ."""
    saved = sort_words([*before.fixed, *(f"{key}={value}" for key, value in before.axes.items())])
    scored = sort_words(before.score)
    if saved.hydra or saved.folder or saved.checkpoint or saved.score or scored.fixed or scored.axes or scored.hydra:
        raise ConfigError(f"{before.folder / SWEEP_FILE} holds words that are none of a run's")
    for word in saved.fixed:
        if word.startswith("generator=") and _of_others([word.partition("=")[2]]) and word not in given.fixed:
            raise ConfigError(f"the sweep's generator is code of others: name it again with {word}")
    for axis in saved.axes:
        if axis.key == "generator" and _of_others(axis.values) and axis not in given.axes:
            raise ConfigError(f"the sweep's generators are code of others: name them again with generator={axis.given}")
    changed = [word for word in given.fixed if word not in saved.fixed]
    changed += [f"{axis.key}={axis.given}" for axis in given.axes if axis not in saved.axes]
    if changed:
        raise ConfigError(f"{changed[0]}: a sweep goes on as it began; choose an output_dir for another one")
    if before.search and not any(word.lstrip("+").startswith("hydra/sweeper=") for word in given.hydra):
        raise ConfigError("the sweep is a search: name its hydra/sweeper=... again, and its options")
    return dataclasses.replace(given, fixed=saved.fixed, axes=saved.axes)


def check_score(words: Sequence[str]) -> ScoreConfig:
    """Check how runs are to be scored, before hours of training.

    Raises:
        LatentCLRError: A scorer cannot be used, or the number of codes is out of range.
    """
    config = ScoreConfig()
    for override in parse_overrides(words).items:
        setattr(config, override.key_or_group, override.value())
    if type(config.codes) is not int:
        raise ConfigError(f"codes must be a whole number, got {config.codes!r}")
    if not isinstance(config.scorers, list) or not all(isinstance(name, str) for name in config.scorers):
        raise ConfigError(f"scorers must be a list such as [pixels,faces], got {config.scorers!r}")
    check_codes(config.codes)
    build_scorers(config.scorers)
    return config


def _carry_out(sweep: Sweep, axes: Sequence[Axis], how: Launch, session: str, command: str) -> dict[int, str]:
    """Run what is not finished, with a live table; return what failed: number -> its one line."""
    job = Job(
        folder=Path(os.path.abspath(sweep.folder)),
        fixed=sweep.fixed,
        score=sweep.score,
        runs=sweep.runs,
        keys=search_keys(axes) if how.search else {},
        threads=sweep.threads,
        session=session,
        parent=None if how.queued else (socket.gethostname(), os.getpid()),
    )
    numbers = [number for number, own in sweep.runs.items() if job.finished(number, own) is None]
    if not numbers and not how.search:
        return {}

    def changed(states: Mapping[int, RunState]) -> None:
        with contextlib.suppress(SaveError):  # it is written again at the end, and then that matters
            write_sweep(sweep, states, command)

    try:
        with LiveTable(sweep.states, changed, session, how.planned, how.at_once):
            return launch(how, job, numbers, axes)
    finally:
        changed(sweep.states())


def _conclude(sweep: Sweep, failed: Mapping[int, str], session: str) -> None:
    """Print the table, compare what is finished, and say what failed."""
    states = sweep.states()
    for line in table_lines(states, session):
        click.echo(line)
    if any(state.state == DONE for state in states.values()):
        write_board(sweep)
    problems = {number: state.error for number, state in states.items() if state.state == FAILED} | dict(failed)
    for number, error in sorted(problems.items()):
        click.echo(f"run {number} ({', '.join(states[number].own)}) failed: {error}")
    if problems:
        raise RunsFailed(f"{len(problems)} of {len(states)} runs failed, as listed above")


def write_board(sweep: Sweep) -> list[Place]:
    """Compare the finished runs: print the leaderboard, write sweep.html and sweep.png.

    Raises:
        LatentCLRError: A score cannot be read, scores were not measured alike, or the files cannot be written.
    """
    states = sweep.states()
    scores, seen = dict[int, RunScores](), set[tuple[str, ...]]()
    for number, state in states.items():
        if state.state == DONE and state.own not in seen:  # a search may try the same twice
            seen.add(state.own)
            scores[number] = load_scores(sweep.run(number) / SCORE_FILE)
    places = leaderboard(states, scores)
    for line in board_lines(places):
        click.echo(line)
    shown = []
    for place in places[:BEST]:
        number = place.best
        strips = _strips(sweep, states[number].own, sweep.run(number), scores[number])
        shown.append(Shown(number, scores[number], strips))
    winner = shlex.quote(str(sweep.run(places[0].best)))
    commands = [f"latentclr name {winner} --auto", f"latentclr export {winner}"]
    title = sweep.folder.name or sweep.folder.resolve().name
    write_together({
        sweep.folder / SWEEP_FIGURE: sweep_figure(places, scores),
        sweep.folder / SWEEP_PAGE: sweep_page(title, places, states, shown, commands, scores).encode(),
    })  # fmt: skip
    click.echo(f"wrote {SWEEP_PAGE} and {SWEEP_FIGURE} to {sweep.folder}; the winner: {'; '.join(commands)}")
    return places


def _strips(sweep: Sweep, own: Sequence[str], run: Path, scores: RunScores) -> Pixels:
    """Draw the directions of a run again, as they were when it was scored."""
    config, checkpoint = open_run(run, words_to_open(sweep.fixed, own, sweep.score), ScoreConfig)
    device = resolve_device(config)
    generator = trained_generator(config, checkpoint).to(device)
    fed = feed_mask(config.feed_layers, generator.latent.layers).to(device)
    subject = Subject(generator, checkpoint.directions.to(device), fed, scores.settings.layers)
    return draw_strips(subject, scores)
