"""What `train`, `eval` and `gen` do, from words to files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from latentclr.catalog import Edits, NamedGenConfig, chosen_edits
from latentclr.compose import check_resumable, compose_run, compose_train, parse_overrides, save_config
from latentclr.config import GenConfig, TrainConfig, shown_alphas
from latentclr.errors import CheckpointError, ConfigError, LatentCLRError, SaveError
from latentclr.files import replacing
from latentclr.generators.base import Generator
from latentclr.method.step import feed_mask
from latentclr.pictures.gallery import Gallery
from latentclr.pictures.overview import BUDGET_S, NOTICE_S, draw_overview, seconds_a_picture
from latentclr.pictures.plots import loss_curve, similarity_map
from latentclr.pictures.render import Drawing, alpha_label, corner_label, grid, save_picture, save_walk
from latentclr.progress import duration
from latentclr.training.checkpoint import RESUME_FILE, Checkpoint, holds_run, load_resume, remove_temporary
from latentclr.training.distributed import Processes, processes, resolve_device
from latentclr.training.evaluation import Evaluation, evaluate
from latentclr.training.experiment import named_edits, open_run, trained_generator, trained_step
from latentclr.training.rng import stream
from latentclr.training.trainer import Trainer
from serving.contract.arrays import read_npy
from serving.contract.lock import Busy, alone

logger = logging.getLogger("latentclr")
WALK_FRAMES = 25  # from one end of the walk to the other
RANDOM_NOTICE = "the generator has random weights: whatever it draws or learns is noise, for latency work only"


def run_train(words: Sequence[str]) -> bool:
    """Train or resume; return False if interrupted.

    Raises:
        LatentCLRError: see `Trainer`.
        Busy: another process trains in the run folder.
    """
    overrides = {o.key_or_group: o.value() for o in parse_overrides(words)}
    resumed: dict[str, Any] | None = None
    check = _check_free
    if overrides.get("checkpoint") is not None:
        run = Path(str(overrides["checkpoint"]))
        run = run.parent if run.is_file() else run
        read = _stamp(run)
        resumed = load_resume(run / RESUME_FILE)
        config = compose_run(resumed["config"], words, TrainConfig)
        check_resumable(compose_run(resumed["config"], [], TrainConfig), config, run)
        source, run = run, Path(config.output_dir) if "output_dir" in overrides and config.output_dir else run
        if source.resolve() != run.resolve():
            _check_free(run)
        else:
            check = partial(_check_same, read)
        config = dataclasses.replace(config, checkpoint=None)
    else:
        config = compose_train(words)
        run = Path(config.output_dir) if config.output_dir else _new_run_folder(config)
        _check_free(run)
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(processes(config))
        if config.save:
            stack.enter_context(_claimed(run, here, check))
        trainer = Trainer(config, run, here)
        if resumed is not None:
            trainer.load_state(resumed)
        # Only now does anything stay on the disk: a wrong option leaves no run folder behind.
        stack.enter_context(_logging(run if config.save and here.first else None, here.first))
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
        done = trainer.fit()
        drawn = here.first and config.save and _pictures(trainer, done)
        if here.first and not done:
            click.echo(f"interrupted at step {trainer.iteration}; go on with: latentclr train checkpoint={run}")
        elif here.first and config.save:
            look = f"look at {run / 'grid.png'}" if drawn else f"the run is saved in {run}, without a new grid.png"
            click.echo(f"best held-out loss {trainer.best_loss:.4f}; {look}")
    return done


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
        draw_overview(trainer.step, trainer.config, trainer.run / "grid.png", budget)
    except KeyboardInterrupt:
        return False
    return True


def run_eval(run: Path, words: Sequence[str]) -> Evaluation:
    """Measure a run, print the table, write `eval.json` and `eval.png` beside the checkpoint.

    Raises:
        LatentCLRError: the run cannot be opened or an override is wrong.
    """
    config, checkpoint = open_run(run, words, TrainConfig)
    step = trained_step(config, checkpoint, resolve_device(config))
    result = evaluate(step, config.hparams.batch_size, config.eval_iters, config.seed)
    redundancy, other = result.nearest_other()
    rows = [
        {"direction": i, "consistency": round(c, 4), "redundancy": round(r, 4), "most_like": o}
        for i, (c, r, o) in enumerate(
            zip(result.consistency.tolist(), redundancy.tolist(), other.tolist(), strict=True)
        )
    ]
    if step.generator.random_weights:
        click.echo(RANDOM_NOTICE)
    click.echo(f"held-out loss {result.loss:.4f}, accuracy {result.accuracy:.3f} ({result.samples} codes)")
    click.echo("direction  consistency  redundancy  most like")
    for row in sorted(rows, key=lambda row: -row["consistency"]):
        click.echo(
            f"{row['direction']:9d}  {row['consistency']:11.3f}  {row['redundancy']:10.3f}  {row['most_like']:9d}"
        )
    folder = Path(config.output_dir) if "output_dir" in _keys(words) and config.output_dir else checkpoint.path.parent
    report = {
        "checkpoint": checkpoint.path.name,
        "loss": result.loss,
        "accuracy": result.accuracy,
        "samples": result.samples,
        "random_weights": step.generator.random_weights,
        "directions": rows,
        "similarity": [[round(v, 4) for v in row] for row in result.similarity.tolist()],
    }
    with replacing(folder / "eval.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1))
    similarity_map(result, folder / "eval.png", step.generator.random_weights)
    click.echo(f"wrote {folder / 'eval.json'} and {folder / 'eval.png'}")
    return result


def run_gen(run: Path, words: Sequence[str]) -> list[Path]:
    """Draw one labelled grid (and walk) for each sample into `RUN/gen` or `output_dir`.

    Raises:
        LatentCLRError: the run cannot be opened, or an option is out of range.
    """
    config, checkpoint = open_run(run, words, NamedGenConfig)
    given = _keys(words)
    if config.edits is not None and "iterative" not in given:
        config = dataclasses.replace(config, iterative=False)  # what names were given to, and what is served
    alphas = _alphas(shown_alphas(checkpoint.config["model"]["alpha"]) if config.alphas is None else config.alphas)
    chosen = _chosen(config.n_dirs, config.k, config.seed)
    if config.walk not in ("none", "gif", "webp"):
        raise ConfigError(f"walk must be none, gif or webp, got {config.walk!r}")
    if config.image_size is not None and not 8 <= config.image_size <= 4096:
        raise ConfigError(f"image_size must be in [8, 4096] or null, got {config.image_size}")
    device = resolve_device(config)
    generator = trained_generator(config, checkpoint).to(device)
    fed = feed_mask(config.feed_layers, generator.latent.layers).to(device)
    draw = Drawing(generator, checkpoint.directions.to(device), fed, config.iterative)
    edits = None if config.edits is None else _edits(config, checkpoint, generator.latent.layers)
    own_alphas = None if config.alphas is None else alphas
    samples = _samples(config, generator).to(device)
    if generator.random_weights:
        click.echo(RANDOM_NOTICE)
    folder = Path(config.output_dir) if "output_dir" in given and config.output_dir else checkpoint.path.parent / "gen"
    gallery = Gallery(folder)
    first_class = generator.class_ids[0] if generator.class_ids else None
    shown = len(chosen) * len(alphas) if edits is None else len(edits) * len(own_alphas or alphas)
    walked = 0 if config.walk == "none" else WALK_FRAMES * (len(chosen) if edits is None else len(edits))
    needed = len(samples) * (shown + walked) * seconds_a_picture(generator, samples[:1], first_class)
    if needed > NOTICE_S:
        click.echo(f"drawing takes {duration(needed)}; Ctrl-C keeps what is drawn by then")
    try:
        for i, z in enumerate(tqdm(samples, unit="sample", dynamic_ncols=True)):
            class_id = generator.class_ids[i % len(generator.class_ids)] if generator.class_ids else None
            if edits is None:
                images = draw.numbers(z[None], class_id, chosen, alphas)  # [M, A, H, W, 3]
                rows, columns = [f"k={k}" for k in chosen], [alpha_label(a) for a in alphas]
            else:
                images, rows, columns = draw.edits(z[None], class_id, edits, own_alphas)
            picture = grid(images, rows, columns, config.image_size, corner_label(generator))
            gallery.save(f"sample_{i}.png", partial(save_picture, picture))
            if config.walk == "none":
                continue
            if edits is None:
                smooth = np.linspace(alphas[0], alphas[-1], WALK_FRAMES).tolist()
                images, labels = draw.numbers(z[None], class_id, chosen, smooth), [f"{a:+.1f}" for a in smooth]
            else:
                images, rows, labels = draw.walk(z[None], class_id, edits, own_alphas, WALK_FRAMES)
            frames = [
                grid(images[None, :, a], [label], rows, config.image_size, corner_label(generator))
                for a, label in enumerate(labels)
            ]
            gallery.save(f"walk_{i}.{config.walk}", partial(save_walk, frames))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"wrote {len(gallery.written)} files to {folder}") from None
    click.echo(f"wrote {len(gallery.written)} files to {folder}")
    if others := gallery.others():
        names = ", ".join(others[:3]) + ", ..." * (len(others) > 3)
        click.echo(f"left alone there, as gen did not write them or they were changed since: {names}")
    return gallery.written


def _edits(config: NamedGenConfig, checkpoint: Checkpoint, layers: int) -> Edits:
    edits, problems = named_edits(config, checkpoint, layers)
    try:
        chosen = chosen_edits(config.edits, edits, config.k)
    except ConfigError as error:  # one line, as ever
        raise ConfigError("; ".join([str(error), *problems])) from None
    for problem in problems:
        click.echo(f"named edits: {problem}", err=True)
    return chosen


def _samples(config: GenConfig, generator: Generator) -> Tensor:
    wanted = config.n_samples
    if isinstance(wanted, int) and wanted >= 1:
        return generator.sample_seeds(config.seed, wanted)
    expected = f"n_samples must be a number of at least 1 or an .npy file of [N, {generator.latent.dim}] numbers"
    if not isinstance(wanted, str):
        raise ConfigError(f"{expected}, got {wanted!r}")
    try:
        z = read_npy(Path(wanted))
    except ValueError as error:
        raise ConfigError(f"{expected}, but {wanted} {error}") from None
    if z.ndim != 2 or len(z) == 0 or z.shape[1] != generator.latent.dim or z.dtype.kind not in "iuf":
        raise ConfigError(f"{expected}, got {wanted} with shape {list(z.shape)} of {z.dtype}")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused
        z = z.astype(np.float32)
    if not np.isfinite(z).all():
        raise ConfigError(f"{wanted} holds numbers that are not finite")
    return torch.from_numpy(z)


def _chosen(wanted: Any, k: int, seed: int) -> list[int]:
    if wanted == -1:
        return list(range(k))
    if isinstance(wanted, int) and 1 <= wanted:
        return sorted(torch.randperm(k, generator=stream(seed, "dirs"))[: min(wanted, k)].tolist())
    if isinstance(wanted, list) and wanted and all(isinstance(i, int) and 0 <= i < k for i in wanted):
        return [int(i) for i in wanted]
    raise ConfigError(
        f"n_dirs must be a number of at least 1, -1 for all, or a list of indices in [0, {k}), got {wanted}"
    )


def _alphas(wanted: Sequence[float]) -> list[float]:
    if not wanted or not all(np.isfinite(a) for a in wanted):
        raise ConfigError(f"alphas must be finite numbers, got {list(wanted)}")
    return sorted({0.0, *(float(a) for a in wanted)})


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
    return Path("outputs") / f"{config.generator.name}-{config.model.name}-k{config.k}" / stamp


def _keys(words: Sequence[str]) -> set[str]:
    return {o.key_or_group for o in parse_overrides(words)}


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
        with logging_redirect_tqdm([logger]):
            yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
