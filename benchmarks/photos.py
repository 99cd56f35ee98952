"""How near an encoder and its refinement come to pictures, generated and real, and whether edits still do what they do.

    python benchmarks/photos.py --run outputs/demo --output benchmarks/results/photos.json --plot docs/photos.png
    python benchmarks/photos.py --run outputs/demo --photo me.jpg --photo you.jpg

The run needs an encoder (`latentclr invert train`); where it was scored and named, the picture shows named edits.
Generated pictures are of held-out codes, so the true code is known: each direction is moved both ways by the same
strength from the true and from the found code, and the effects on its clearest attribute are compared. Times are of
the whole batch on this machine, and only said where it is quiet.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, finish, target
from common.timing import table
from numpy.typing import NDArray
from torch import Tensor

from latentclr.catalog import NamedEdit
from latentclr.commands.invert_pictures import Stage, find_codes, judge
from latentclr.config import TrainConfig
from latentclr.errors import ScorerError
from latentclr.generators.base import Generator
from latentclr.inversion.encoder import ENCODER_FILE, SavedEncoder, load_encoder
from latentclr.inversion.objective import at_layers, draw
from latentclr.inversion.refine import refine
from latentclr.method.directions import Directions
from latentclr.method.step import feed_mask
from latentclr.pictures.pixels import to_uint8
from latentclr.pictures.render import at_once, draw_codes, grid, save_picture
from latentclr.scores.effects import score_all
from latentclr.scores.scorer import Scorer, build_scorers
from latentclr.training.experiment import named_edits, open_run, trained_generator
from latentclr.training.rng import stream
from serving.contract.photo.crop import cut_out
from serving.contract.photo.faces import choose_crop
from serving.contract.photo.keep import keep_unedited
from serving.contract.photo.reader import read_photo

HELD_OUT_SEED = 20_000
GUESSES = 64  # random codes, of which optimisation without an encoder begins at the nearest
CLEAR, STRENGTH = 0.8, 3.0  # standard deviations that a direction must move its attribute by; alpha of both sides
LEAST_PSNR, LEAST_EFFECT = 26.0, 0.8
SHOWN, SHOWN_REAL, SHOWN_EDITS = 3, 2, 3
KEPT = ", kept"  # ends the name of an edit that keeps what was not edited
COLUMNS = ("pictures", "way", "count", "psnr_db", "psnr_worst_db", "ssim", "from_prior")
Pixels = NDArray[np.uint8]


@click.command(cls=Benchmark)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True, help="Run folder with an encoder.")
@click.option("--pictures", "count", type=click.IntRange(4), default=24, show_default=True, help="Generated ones.")
@click.option("--photo", "photos", multiple=True, type=click.Path(path_type=Path, exists=True), help="Real ones.")
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True, help="Of the refinement.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw originals and edits here.")
@click.option("--keep-plot", type=click.Path(path_type=Path, dir_okay=False),
              help="Draw edits without and with what was not edited kept here.")  # fmt: skip
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    run: Path,
    count: int,
    photos: tuple[Path, ...],
    steps: int,
    plot: Path | None,
    keep_plot: Path | None,
    note: str | None,
    output: Path | None,
) -> None:
    """Invert pictures in every way, and compare."""
    start = describe_machine()
    config, checkpoint = open_run(run, [], TrainConfig)
    generator = trained_generator(config, checkpoint)
    saved = load_encoder(checkpoint.path.parent / ENCODER_FILE)
    saved.check_generator(generator)
    if generator.class_names is not None:
        raise BenchmarkError("this script is for generators without classes")
    truth = draw(generator, count, stream(HELD_OUT_SEED, "photos"))
    originals = to_uint8(truth.images).numpy()
    rows, found = _ways("generated", generator, saved, originals, steps)
    shown = [(originals[:SHOWN], found[:SHOWN])]
    if photos:
        template = None if saved.face is None else np.array(saved.face)
        read = [read_photo(path) for path in photos]
        crops = [choose_crop(photo, generator.size, template)[0] for photo in read]
        real = np.stack([cut_out(photo.pixels, crop) for photo, crop in zip(read, crops, strict=True)])
        more, codes = _ways("real", generator, saved, real, steps)
        rows += more
        shown.append((real[:SHOWN_REAL], codes[:SHOWN_REAL]))
    fed = feed_mask(config.feed_layers, generator.latent.layers)
    kept = _kept_effects(generator, checkpoint.directions, fed, truth.codes, found)
    click.echo(table(rows, COLUMNS))
    ratios = [row["kept"] for row in kept]
    click.echo(
        f"{len(kept)} directions move an attribute by {CLEAR} sd from the true codes; from the found ones by a median"
        f" of {np.median(ratios):.2f} of that, the worst {min(ratios):.2f}"
    )
    edits, _ = named_edits(config, checkpoint, generator.latent.layers)
    originals, codes = (np.concatenate(parts) for parts in zip(*shown, strict=True))
    if plot is not None or keep_plot is not None:
        columns = _columns(generator, checkpoint.directions, fed, originals, torch.from_numpy(codes), edits)
        if plot is not None:
            _draw(columns, plot)
        if keep_plot is not None:
            _draw(_kept_columns(columns), keep_plot)
    refined = next(row for row in rows if (row["pictures"], row["way"]) == ("generated", "refined"))
    settings = {
        "run": "trained", "generator": generator.name, "resolution": generator.resolution, "steps": steps,
        "space": saved.encoder.spec.space, "encoder_steps": saved.training.get("steps"),
        "encoder_minutes": round(float(saved.training.get("seconds", 0)) / 60, 1),
        "encoder_threads": saved.training.get("threads"), "encoder_figures": dict(saved.figures),
        "strength": STRENGTH, "effects": kept, "photos": [path.name for path in photos],
    }  # fmt: skip
    # Promised of the faces; of other generators nobody said how near one can come.
    targets = [] if generator.name != "dcgan" else [
        target(f"generated faces: mean PSNR after {steps} steps, dB", refined["psnr_db"], at_least=LEAST_PSNR),
        target("generated faces: effects on found codes over those on true codes, median", float(np.median(ratios)),
               at_least=LEAST_EFFECT),
    ]  # fmt: skip
    finish("photos", start=start, settings=settings, results=rows, targets=targets,
           random_weights=generator.random_weights, note=note, output=output)  # fmt: skip


def _ways(
    kind: str, generator: Generator, saved: SavedEncoder, originals: Pixels, steps: int
) -> tuple[list[dict[str, Any]], NDArray[np.float32]]:
    """Invert pictures by nothing (the mean picture), encoder, encoder and refinement, and refinement alone."""
    mean = draw(generator, 64, stream(0, "photos-mean")).images.mean(0, keepdim=True)
    floor = Stage("mean picture", 0, to_uint8(mean).numpy().repeat(len(originals), 0))
    judge(floor, originals, saved, saved.encoder.mean[None].repeat(len(originals), 1))
    codes, stages = find_codes(generator, saved, originals, None, steps)
    alone = Stage("refined without encoder", 0, originals[:0])
    images = torch.from_numpy(originals).permute(0, 3, 1, 2).float() / 127.5 - 1
    size = at_once(generator)
    guesses = torch.cat([
        refine(generator, saved.encoder, images[i : i + size], _nearest(generator, saved, images[i : i + size]), steps)
        for i in range(0, len(images), size)
    ])  # fmt: skip
    alone.images = _drawn(generator, guesses)
    judge(alone, originals, saved, guesses)
    rows = [
        {
            "pictures": kind, "way": stage.name, "count": len(originals),
            "psnr_db": round(float(np.mean(stage.psnr)), 2),
            "psnr_worst_db": round(min(stage.psnr), 2), "ssim": round(float(np.mean(stage.ssim)), 4),
            "from_prior": round(float(np.mean(stage.from_prior)), 3),
        }
        for stage in (floor, *stages, alone)
    ]  # fmt: skip
    return rows, codes.numpy()


def _nearest(generator: Generator, saved: SavedEncoder, images: Tensor) -> Tensor:
    """Of random codes, take the one whose picture is nearest to each of the pictures."""
    guesses = draw(generator, GUESSES, stream(0, "photos-guesses"))
    errors = torch.cdist(images.flatten(1), guesses.images.flatten(1))
    codes = guesses.codes[errors.argmin(1)]
    layers = saved.encoder.spec.layers
    return codes[:, None].expand(-1, layers, -1).clone() if saved.encoder.spec.space == "w+" else codes


def _drawn(generator: Generator, codes: Tensor, step: Tensor | None = None) -> Pixels:
    """Draw codes [N, D] or [N, L, D], moved by steps [N, L, D]."""
    ps = at_layers(generator, codes)
    ps = ps if step is None else ps + step
    with torch.no_grad():
        return draw_codes(generator, ps, None)


def _step(directions: Directions, fed: Tensor, codes: Tensor, direction: int, alpha: float) -> Tensor:
    """Return what an edit adds to codes [N, D] or [N, L, D] at the latent inputs: [N, L, D]."""
    rows = codes if codes.ndim == 3 else codes[:, None]  # [N, L or 1, D]
    index = torch.full((rows.shape[0] * rows.shape[1], 1), direction)
    with torch.no_grad():
        d = directions.select(rows.flatten(0, 1), index)[:, 0].unflatten(0, rows.shape[:2])
    return torch.as_tensor(alpha * fed[:, None] * d)


def _kept_effects(
    generator: Generator, directions: Directions, fed: Tensor, true: Tensor, found: NDArray[np.float32]
) -> list[dict[str, Any]]:
    """Compare each direction's effect on its clearest attribute, from true and from found codes."""
    scorers = _scorers()
    names = [f"{scorer.name} {attribute}" for scorer in scorers for attribute in scorer.attributes]
    scores = score_all(scorers, to_uint8(draw(generator, 96, stream(0, "photos-sd")).images).numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an attribute that no picture shows
        spread = np.nanstd(scores, axis=0)
    kept = []
    for direction in range(directions.k):
        effects = []
        for codes in (true, torch.from_numpy(found)):
            sides = [
                score_all(scorers, _drawn(generator, codes, _step(directions, fed, codes, direction, alpha)))
                for alpha in (STRENGTH, -STRENGTH)
            ]
            with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                effects.append(np.nanmean(sides[0] - sides[1], axis=0) / spread)
        top = int(np.nanargmax(np.abs(np.nan_to_num(effects[0]))))
        if abs(effects[0][top]) >= CLEAR:
            kept.append({
                "direction": direction, "attribute": names[top], "true_sd": round(float(effects[0][top]), 3),
                "found_sd": round(float(effects[1][top]), 3),
                "kept": round(float(effects[1][top] / effects[0][top]), 3),
            })  # fmt: skip
    if not kept:
        raise BenchmarkError(f"no direction moves an attribute by {CLEAR} standard deviations")
    return kept


def _scorers() -> list[Scorer]:
    try:
        return build_scorers(["pixels", "faces"])
    except ScorerError as error:
        click.echo(f"only pixels are scored: {error}")
        return build_scorers(["pixels"])


def _columns(
    generator: Generator, directions: Directions, fed: Tensor, originals: Pixels, codes: Tensor,
    edits: Mapping[str, NamedEdit],
) -> dict[str, Pixels]:  # fmt: skip
    """Return each original, its reconstruction, and edits of that, by what they are called: [N, H, W, 3]."""
    named = [(name, edit.direction, edit.alpha[1] * (-1 if edit.reverse else 1)) for name, edit in edits.items()]
    chosen: Sequence[tuple[str, int, float]] = (
        named or [(f"direction {k}", k, STRENGTH) for k in range(directions.k)]
    )[:SHOWN_EDITS]
    return {"original": originals, "found": _drawn(generator, codes)} | {
        f"{name} +": _drawn(generator, codes, _step(directions, fed, codes, k, alpha)) for name, k, alpha in chosen
    }


def _kept_columns(columns: Mapping[str, Pixels]) -> dict[str, Pixels]:
    """Put beside each edit the one that keeps what was not edited."""
    original, found = columns["original"], columns["found"]
    both = {"original": original, "found": found}
    for name, edited in columns.items():
        if name not in both:
            both |= {name: edited, f"{name}{KEPT}": keep_unedited(original, found, edited)}
    return both


def _draw(columns: Mapping[str, Pixels], plot: Path) -> None:
    """Draw a row for each picture."""
    rows = np.stack(list(columns.values()), axis=1)
    labels = [f"generated {row}" if row < SHOWN else f"real {row - SHOWN}" for row in range(len(rows))]
    heads = ["kept" if name.endswith(KEPT) else name for name in columns]
    save_picture(grid(rows, labels, heads, tile=160), plot)


if __name__ == "__main__":
    main()
