"""`latentclr score`, from words to a table and files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import click

from latentclr.commands.notice import RANDOM_NOTICE
from latentclr.compose import parse_overrides, plain
from latentclr.config import COMPUTED, ScoreConfig, TrainConfig, slider_end
from latentclr.errors import CheckpointError, ConfigError
from latentclr.files import write_together
from latentclr.generators.base import Generator
from latentclr.method.step import feed_mask
from latentclr.pictures.overview import NOTICE_S, seconds_a_picture
from latentclr.pictures.render import at_once
from latentclr.progress import Watch, WatchedBar, duration, progress_bar
from latentclr.scores.compare import compare, comparison_lines
from latentclr.scores.measure import FEWEST_CODES, Measured, measure, steps_of
from latentclr.scores.page import effect_map, page
from latentclr.scores.reach import middle_layer
from latentclr.scores.report import MAP_FILE, MOVED, PAGE_FILE, SCORE_FILE, RunInfo, RunScores, scores_text
from latentclr.scores.scorer import Scorer, build_scorers
from latentclr.scores.subject import Subject
from latentclr.sweep.record import is_sweep
from latentclr.training.checkpoint import Checkpoint, steps_of_checkpoint
from latentclr.training.distributed import resolve_device
from latentclr.training.experiment import open_run, trained_generator

MOST_CODES = 10_000
# What does not make another method of a run.
_NO_METHOD = ("seed", "device", "auto_cpu_if_no_gpu", "eval_freq", "eval_iters", "save_freq", "save", "tensorboard",
              "checkpoint", "output_dir", "scorers", "codes")  # fmt: skip


def run_score(runs: Sequence[Path], words: Sequence[str]) -> list[RunScores]:
    """Measure runs, print tables, write score.json, score.png and score.html into each run folder or `output_dir`.

    Raises:
        LatentCLRError: A run cannot be opened, a scorer cannot be used, or an option is out of range.
    """
    overrides = parse_overrides(words)
    if sweeps := [run for run in runs if is_sweep(run)]:
        again = f"latentclr train --multirun checkpoint={sweeps[0]} {' '.join(words)}".rstrip()
        raise ConfigError(
            f"{sweeps[0]} is a sweep: name its runs, such as {sweeps[0] / '0'}, or score all anew: {again}"
        )
    opened = [open_run(run, overrides, ScoreConfig) for run in runs]
    if len({checkpoint.path.resolve() for _, checkpoint in opened}) < len(opened):
        raise ConfigError("each run can be named once")
    first = opened[0][0]
    check_codes(first.codes)
    given = first.output_dir if "output_dir" in overrides.keys else None
    if given and len(runs) > 1:
        raise ConfigError("output_dir takes the files of one run: leave it out, and each run folder gets its own")
    _check_different(opened, runs)
    seed = first.seed if "seed" in overrides.keys else 0  # of every run the same codes
    scorers = build_scorers(first.scorers)
    names = _names(runs)
    measured: list[tuple[Path, Measured]] = []
    try:
        for name, (config, checkpoint) in zip(names, opened, strict=True):
            folder = Path(given) if given else checkpoint.path.parent
            measured.append((folder, score_run(name, config, checkpoint, scorers, seed, folder)))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{len(measured)} of {len(runs)} runs are scored and written") from None
    scores = [result.scores for _, result in measured]
    if len(scores) > 1:
        rows = compare(scores, names)
        for line in comparison_lines(rows):
            click.echo(line)
        for i, (folder, result) in enumerate(measured):
            text = page(names[i], result.scores, result.strips, rows, i)
            write_together({folder / PAGE_FILE: text.encode()})
    return scores


def _check_different(opened: Sequence[tuple[ScoreConfig, Checkpoint]], runs: Sequence[Path]) -> None:
    """Check that no training is named twice, before hours are spent: a comparison would take it for two seeds."""
    known: dict[tuple[str, int | str], Path] = {}
    for run, (config, checkpoint) in zip(runs, opened, strict=True):
        of_origin = checkpoint.generator.get("weights_sha256") is None  # whose seeds are not known
        own = checkpoint.sha256 if of_origin else _seed_of(checkpoint)
        if (other := known.setdefault((_method(config, checkpoint), own), run)) != run:
            raise ConfigError(f"{other} and {run} are one training, with one seed: name one of them")


def check_codes(codes: int) -> None:
    """Check how many codes are asked for.

    Raises:
        ConfigError: They are too few to say anything, or too many.
    """
    if not FEWEST_CODES <= codes <= MOST_CODES:
        raise ConfigError(f"codes must be in [{FEWEST_CODES}, {MOST_CODES}], got {codes}")


def score_run(
    name: str,
    config: ScoreConfig,
    checkpoint: Checkpoint,
    scorers: Sequence[Scorer],
    seed: int,
    folder: Path,
    watch: Watch | None = None,
) -> Measured:
    """Measure one run, and write score.json, score.png and score.html.

    Args:
        name: What the run is called.
        config: Of the run and the scoring.
        checkpoint: What is scored.
        scorers: What looks at the pictures.
        seed: Of the codes.
        folder: Where the files go.
        watch: Told of every step; the screen is then left alone.

    Raises:
        LatentCLRError: The generator or a scorer cannot be used, or the files cannot be written.
    """
    start, console = time.perf_counter(), watch is None
    device = resolve_device(config)
    generator = trained_generator(config, checkpoint).to(device)
    directions = checkpoint.directions.to(device)
    fed = feed_mask(config.feed_layers, generator.latent.layers).to(device)
    if generator.random_weights and console:
        click.echo(RANDOM_NOTICE)
    total = steps_of(directions.k, config.codes)
    if console:
        _announce(name, generator, total, seed)
    run = RunInfo(
        checkpoint=checkpoint.path.name,
        checkpoint_sha256=checkpoint.sha256,
        iteration=checkpoint.iteration,
        model=directions.kind,
        seed=_seed_of(checkpoint),
        method=_method(config, checkpoint),
        generator=generator.name,
        weights_sha256=generator.weights_sha256,
        random_weights=generator.random_weights,
        classes=tuple(generator.class_ids),
    )
    bar = WatchedBar(total, watch) if watch else progress_bar(total, "step", desc=name[-30:], delay=2, leave=False)
    with bar:
        layers = (config.generator.feature_layer, middle_layer(generator, fed.cpu()))
        subject = Subject(generator, directions, fed, layers, bar.update)
        trained = slider_end(config.model.alpha) / 2
        result = measure(subject, scorers, run, seed=seed, codes=config.codes, trained=trained, bar=bar)
    scores = result.scores
    for line in table_lines(scores) if console else ():
        click.echo(line)
    write_together({
        folder / SCORE_FILE: scores_text(scores).encode(),
        folder / MAP_FILE: effect_map(scores),
        folder / PAGE_FILE: page(name, scores, result.strips).encode(),
    })  # fmt: skip
    if console:
        files, seconds = f"{SCORE_FILE}, {MAP_FILE} and {PAGE_FILE}", time.perf_counter() - start
        click.echo(f"wrote {files} to {folder} ({scores.pictures} pictures, {seconds:.0f} s)")
    return result


def _announce(name: str, generator: Generator, steps: int, seed: int) -> None:
    """Say so before the work begins if it takes minutes."""
    first_class = generator.class_ids[0] if generator.class_ids else None
    some = min(8, at_once(generator))
    z = generator.sample_seeds(seed, some).to(generator.device)
    needed = steps / some * seconds_a_picture(generator, z, first_class)
    if needed > 6 * NOTICE_S:
        click.echo(f"scoring {name} takes {duration(needed)}; codes={FEWEST_CODES} takes a part of that")


def table_lines(scores: RunScores) -> list[str]:
    """Return what was measured of each direction as lines for a terminal, the clearest first, and a summary."""
    rows = [("direction", "name", "range", "purity", "agree", "RCA", "twin of", "largest effects, sd [95 %]")]
    for k in sorted(range(len(scores.directions)), key=lambda k: -scores.directions[k].largest):
        direction = scores.directions[k]
        top = direction.top()
        effects = ", ".join(
            f"{scores.attributes[a].name} {e.mean:+.2f}" + (f" [{e.low:+.2f}, {e.high:+.2f}]" if i == 0 else "")
            for i, (a, e) in enumerate(top)
        )
        if direction.flips is not None:
            effects += f"; {scores.attributes[direction.flips].name} flips its sign from code to code"
        name = direction.name and f"{direction.name} ({'-' if direction.reverse else '+'})"
        low, high = direction.range
        rows.append((
            str(k), name, f"{low:.1f}..{high:.1f}", f"{direction.purity:.2f}",
            f"{top[0][1].agreement:.0%}" if top else "", f"{direction.rca:.2f}",
            "" if direction.twin_of is None else str(direction.twin_of), effects,
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    count, rca = len(scores.directions), scores.rca
    lines.append(
        f"mean largest effect {sum(d.largest for d in scores.directions) / count:.2f} sd, "
        f"purity {sum(d.purity for d in scores.directions) / count:.2f}, "
        f"{sum(scores.moved)} of {len(scores.attributes)} attributes moved by more than {MOVED:g} sd, "
        f"{sum(d.twin_of is not None for d in scores.directions)} of {count} directions repeat another, "
        f"RCA {rca.accuracy:.2f} [{rca.low:.2f}, {rca.high:.2f}] (chance {rca.chance:.2f})"
    )
    lines += [
        f"{scorer.name} trusts {scorer.trusted:.0%} of the unedited pictures"
        + (": none of its attributes gives a name" if scorer in scores.mistrusted else "")
        for scorer in scores.scorers
        if scorer.trusted < 1
    ]
    return lines


def _names(runs: Sequence[Path]) -> list[str]:
    """Call runs by their folders; by whole paths where two folders have one name."""
    short = [run.name or run.resolve().name for run in runs]
    return [name if short.count(name) == 1 else str(run) for name, run in zip(short, runs, strict=True)]


def _seed_of(checkpoint: Checkpoint) -> int:
    return int(checkpoint.config.get("seed") or 0)


def _method(config: TrainConfig, checkpoint: Checkpoint) -> str:
    """Name what runs have in common that differ by their seed only; one that was stopped early is of its own kind."""
    told = {key: value for key, value in plain(config).items() if key not in _NO_METHOD}
    with contextlib.suppress(CheckpointError):  # of a single file, or one of the origin's runs
        done = steps_of_checkpoint(checkpoint.path.parent / "last.safetensors")
        if config.model.name not in COMPUTED and done < config.hparams.iterations:
            told["stopped at"] = done
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
    return f"{config.model.name}-{digest[:12]}"
