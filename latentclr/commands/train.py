"""`latentclr train`, from words to files."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from latentclr.commands.notice import RANDOM_NOTICE
from latentclr.compose import check_resumable, compose_run, compose_train, parse_overrides, save_config
from latentclr.config import COMPUTED, TrainConfig
from latentclr.errors import CheckpointError, ConfigError, LatentCLRError, SaveError
from latentclr.generators.plugin import short_name
from latentclr.method.step import feed_mask
from latentclr.pictures.overview import BUDGET_S, draw_overview
from latentclr.pictures.plots import loss_curve
from latentclr.progress import Watch
from latentclr.training.checkpoint import (
    RESUME_FILE,
    find_checkpoint,
    holds_run,
    load_checkpoint,
    load_resume,
    remove_temporary,
)
from latentclr.training.computed import compute_directions, directions_of, new_generator, save_computed
from latentclr.training.distributed import Processes, processes
from latentclr.training.trainer import Trainer
from serving.contract.lock import Busy, alone

logger = logging.getLogger("latentclr")


def run_train(words: Sequence[str], watch: Watch | None = None) -> bool:
    """Train or resume; return False if interrupted.

    Args:
        words: Overrides.
        watch: Told of every step; the screen is then left alone.

    Raises:
        LatentCLRError: See `Trainer`.
        Busy: Another process trains in the run folder.
    """
    overrides, console = parse_overrides(words), watch is None
    resumed: dict[str, Any] | None = None
    check = _check_free
    if overrides.value("checkpoint") is not None:
        run = Path(str(overrides.value("checkpoint")))
        run = run.parent if run.is_file() else run
        read = _stamp(run)
        _check_trained(run)
        resumed = load_resume(run / RESUME_FILE)
        config = compose_run(resumed["config"], overrides, TrainConfig)
        before = compose_run(resumed["config"], overrides.only("generator"), TrainConfig)
        check_resumable(before, config, run)
        source, run = run, Path(config.output_dir) if "output_dir" in overrides.keys and config.output_dir else run
        if source.resolve() != run.resolve():
            _check_free(run)
        else:
            check = partial(_check_same, read)
        config = dataclasses.replace(config, checkpoint=None)
    else:
        config = compose_train(overrides)
        run = Path(config.output_dir) if config.output_dir else _new_run_folder(config)
        _check_free(run)
    if config.model.name in COMPUTED:
        _compute(config, run, config.k if "k" in overrides.keys else None, console)
        return True
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(processes(config))
        if config.save:
            stack.enter_context(_claimed(run, here, check))
        trainer = Trainer(config, run, here, watch)
        if resumed is not None:
            trainer.load_state(resumed)
        # Only now does anything stay on the disk: a wrong option leaves no run folder behind.
        stack.enter_context(_logging(run if config.save and here.first else None, here.first and console))
        if here.first:
            g = trainer.step.generator
            logger.info(
                "%s, %s: %d directions over %d values, features %s (%d values), on %s x %d; run folder %s",
                g.name, config.model.name, config.k, g.latent.dim, config.generator.feature_layer,
                g.feature_size(config.generator.feature_layer), here.device, here.world, run,
            )  # fmt: skip
            if g.random_weights:
                logger.warning(RANDOM_NOTICE)
            if resumed is not None and here.device.type == "cpu":
                _compare_threads(resumed.get("threads"), torch.get_num_threads())
            if config.save:
                save_config(config, run)
        if resumed is not None:
            trainer.take_best(source, before)
        done = trainer.fit()
        drawn = here.first and config.save and _pictures(trainer, done)
        if not (here.first and console):
            return done
        if not done:
            click.echo(f"interrupted at step {trainer.iteration}; go on with: latentclr train checkpoint={run}")
        elif config.save:
            look = f"look at {run / 'grid.png'}" if drawn else f"the run is saved in {run}, without a new grid.png"
            click.echo(f"best held-out loss {trainer.best_loss:.4f}; {look}")
    return done


def _compute(config: TrainConfig, run: Path, k: int | None, console: bool) -> None:
    """Make a run whose directions are computed; until they are there nothing is written, and Ctrl-C leaves nothing."""
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(processes(config))
        if config.save:
            stack.enter_context(_claimed(run, here, _check_free))
        if not here.first:
            return
        start = time.perf_counter()
        generator = new_generator(config, here.device)
        found = compute_directions(config, generator, k=k)
        config = dataclasses.replace(config, k=len(found.vectors))
        directions = directions_of(config, found.vectors).to(here.device)
        stack.enter_context(_logging(run if config.save else None, console))
        logger.info(
            "%s, %s: %d directions over %d values, computed in %.1f s on %s; run folder %s", generator.name,
            config.model.name, config.k, generator.latent.dim, time.perf_counter() - start, here.device, run,
        )  # fmt: skip
        for line in found.said:
            logger.info("%s", line)
        if generator.random_weights:
            logger.warning(RANDOM_NOTICE)
        if not config.save:
            return
        save_computed(config, generator, directions, found, run)
        fed = feed_mask(config.feed_layers, generator.latent.layers).to(here.device)
        with contextlib.suppress(KeyboardInterrupt):
            draw_overview(generator, directions, fed, config, run / "grid.png")
        shown = f"look at {run / 'grid.png'}" if (run / "grid.png").exists() else f"the run is saved in {run}"
        if console:
            click.echo(f"{config.k} directions of model={config.model.name}; {shown}")


def _check_trained(run: Path) -> None:
    """Say of a run that was computed that there is nothing to go on with; any other one is left to who reads it."""
    if (run / RESUME_FILE).exists():
        return
    with contextlib.suppress(CheckpointError):
        model = load_checkpoint(find_checkpoint(run)).directions.kind
        if model in COMPUTED:
            raise ConfigError(f"nothing to resume: {run} was computed in one go (model={model}), not trained")


def _compare_threads(before: object, now: int) -> None:
    """Warn of what bit-for-bit resume asks for beyond the files; states of before record no number."""
    if isinstance(before, int) and before != now:
        logger.warning(
            "the run was saved with %d CPU threads and goes on with %d: sums are rounded in another order, so it is no"
            " longer bit for bit that of an uninterrupted run (OMP_NUM_THREADS=%d would be)", before, now, before,
        )  # fmt: skip


def _pictures(trainer: Trainer, done: bool) -> bool:
    """Draw what a saved run shows; Ctrl-C skips that and costs nothing else. Return whether all is drawn."""
    try:
        loss_curve(trainer.history, trainer.run / "loss.png", trainer.step.generator.random_weights)
        budget = BUDGET_S if done else BUDGET_S / 10  # who stopped a run wants to go on
        step, grid = trainer.step, trainer.run / "grid.png"
        draw_overview(step.generator, step.directions, step.get_buffer("fed"), trainer.config, grid, budget)
    except KeyboardInterrupt:
        return False
    return True


def _check_free(run: Path) -> None:
    if holds_run(run):
        raise ConfigError(f"{run} already holds a run: resume it with checkpoint={run}, or choose another output_dir")


def _check_same(stamp: tuple[int, int], run: Path) -> None:
    if _stamp(run) != stamp:
        raise CheckpointError(f"{run} went on in another process meanwhile: resume it again")


def _stamp(run: Path) -> tuple[int, int]:
    """Return what tells a run's saved state from the one before; an error is left to whoever reads it."""
    with contextlib.suppress(OSError):
        status = (run / RESUME_FILE).stat()
        return status.st_ino, status.st_mtime_ns
    return 0, 0


@contextlib.contextmanager
def _claimed(run: Path, here: Processes, check: Callable[[Path], None]) -> Iterator[None]:
    """Have a run folder alone, for all processes of a training; when the first one cannot, all fail together.

    A folder that is made for it goes again if nothing comes into it.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    with contextlib.ExitStack() as stack:
        refusal: Exception | None = None
        if here.first:
            try:
                run.mkdir(parents=True, exist_ok=True)
                stack.callback(_remove_empty, made)
                stack.enter_context(alone(run))
                check(run)  # what was read of it before it was ours
            except OSError as error:
                refusal = SaveError(f"could not make the run folder {run}: {error.strerror or error}")
            except (LatentCLRError, Busy) as error:
                refusal = error
        if here.any(refusal is not None):
            raise refusal or ConfigError(f"the first process of this training cannot have {run}")
        if here.first:
            remove_temporary(run)
        yield


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _new_run_folder(config: TrainConfig) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path("outputs") / f"{short_name(config.generator.name)}-{config.model.name}-k{config.k}" / stamp


@contextlib.contextmanager
def _logging(run: Path | None, console: bool) -> Iterator[None]:
    """Send the package's log to the screen (beside the progress bar) and to `run/train.log`."""
    handlers: list[logging.Handler] = [logging.StreamHandler()] if console else []
    if run is not None:
        try:
            run.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(run / "train.log"))
        except OSError as error:
            raise SaveError(f"could not make the run folder {run}: {error.strerror or error}") from error
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm([logger]) if console else contextlib.nullcontext():
            yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
