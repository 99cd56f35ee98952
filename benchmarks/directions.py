"""Which way to a direction is best on the faces: LatentCLR, GANSpace, SeFa and random directions on equal footing.

    python benchmarks/directions.py --output benchmarks/results/directions.json --plot docs/directions.png

Each method is trained by the command that users have, with several seeds, and `latentclr score` measures all of them
at the same change of the picture with the scorers `pixels` and `faces`, the runs of each seed on codes of their own: so
intervals over runs are over seeds and codes. Runs stay in a folder, and what is there is not done again. Other recipes
are compared by naming them, the one that the others are held against first:

    python benchmarks/directions.py --recipe 'today=' --recipe 'temp 2=loss.temp=2' --output ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, finish, run_latentclr
from common.timing import table
from matplotlib.figure import Figure

from latentclr.commands.score import run_score
from latentclr.files import sha256_of
from latentclr.pictures.figures import save_figure
from latentclr.scores.compare import MEASURES, Row, compare
from latentclr.scores.report import RunScores, read_scores
from latentclr.training.checkpoint import find_checkpoint

FACES = ("generator=dcgan", "tensorboard=false")
TODAY = ("model=nonlinear", "model.alpha=[-3.0,+3.0]", "hparams.batch_size=8", "hparams.iterations=400")
METHODS = {
    "LatentCLR": TODAY,
    "GANSpace": ("model=ganspace",),
    "SeFa": ("model=sefa",),
    "random": ("model=random",),
}
ONCE = ("SeFa",)  # it draws nothing at random
COLOURS = ("#2a6f97", "#89a894", "#c9a66b", "#b0b7bf")


@click.command(cls=Benchmark)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Trainings of each method.")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True,
              help="Of the trainings and their codes; another than those by which a recipe was chosen.")  # fmt: skip
@click.option("--k", type=click.IntRange(2), default=16, show_default=True, help="Directions of each.")
@click.option("--codes", type=click.IntRange(1), default=96, show_default=True, help="Codes that they are scored on.")
@click.option("--scorers", default="pixels,faces", show_default=True, help="What looks at the pictures.")
@click.option("--recipe", "recipes", multiple=True, metavar="NAME=OVERRIDES",
              help="Compare these, each added to LatentCLR's settings, instead of the four methods.")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("outputs/directions"),
              show_default=True, help="Where the runs are kept.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the comparison here.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
@click.argument("overrides", nargs=-1)
def main(
    seeds: int, first_seed: int, k: int, codes: int, scorers: str, recipes: tuple[str, ...], folder: Path,
    plot: Path | None, note: str | None, output: Path | None, overrides: tuple[str, ...],
) -> None:  # fmt: skip
    """Train and score every method; OVERRIDES are added to the training of all."""
    start = describe_machine()
    methods = dict(map(_recipe, recipes)) or METHODS
    scores: list[RunScores] = []
    names: list[str] = []
    for method, own in methods.items():
        for seed in range(first_seed, first_seed + (1 if method in ONCE else seeds)):
            run = folder / f"{method.lower().replace(' ', '-')}-k{k}-{seed}"
            _train(run, [*FACES, *own, f"k={k}", f"seed={seed}", *overrides])
            scores.append(_score(run, codes, seed, f"scorers=[{scorers}]"))
            names.append(method)
    rows = compare(scores, names)
    results = [_plain(row, scores) for row in rows]
    click.echo(table(results, ("method", "runs", *(measure.title for measure in MEASURES))))
    if plot is not None:
        draw(results, plot)
    finish(
        "recipes" if recipes else "directions", start=start,
        settings={"k": k, "seeds": seeds, "first_seed": first_seed, "codes": codes, "scorers": scorers,
                  "change": scores[0].settings.change,
                  "attributes": [attribute.name for attribute in scores[0].attributes],
                  "methods": {method: " ".join(own) for method, own in methods.items()}},
        results=results, targets=[], random_weights=False, note=note, output=output,
    )  # fmt: skip


def _recipe(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, words = text.partition("=")
    if not equals or not name.strip():
        raise BenchmarkError(f"--recipe must be NAME=OVERRIDES, got {text!r}")
    return name.strip(), (*TODAY, *words.split())


def _train(run: Path, words: Sequence[str]) -> None:
    if (run / "best.safetensors").is_file():
        return
    run_latentclr(["train", *words, f"output_dir={run}"], " ".join(words))


def _score(run: Path, codes: int, seed: int, scorers: str) -> RunScores:
    there = read_scores(run, sha256_of(find_checkpoint(run)))
    if there is not None and (there.settings.codes, there.settings.seed) == (codes, seed):
        return there
    return run_score([run], [scorers, f"codes={codes}", f"seed={seed}"])[0]


def _plain(row: Row, scores: Sequence[RunScores]) -> dict[str, Any]:
    """Return a method's row: each measure, its interval, its runs' own values, and the verdict against LatentCLR."""
    plain: dict[str, Any] = {"method": row.name.partition(",")[0], "runs": len(row.runs)}
    for measure, cell in zip(MEASURES, row.cells, strict=True):
        plain[measure.title] = round(cell.value, 4)
        plain[f"{measure.title}, interval"] = [round(cell.low, 4), round(cell.high, 4)]
        plain[f"{measure.title}, verdict"] = cell.verdict
    own = [scores[i] for i in row.runs]
    plain["attributes moved, of each run"] = [sum(score.moved) for score in own]
    plain["twins, of each run"] = [sum(d.twin_of is not None for d in score.directions) for score in own]
    plain["names, of each run"] = [[d.name for d in score.directions if d.name] for score in own]
    return plain


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a panel of bars with 95 % intervals for each measure.

    Raises:
        SaveError: The picture cannot be written.
    """
    figure = Figure(figsize=(2.3 * len(MEASURES), 2.6), layout="constrained")
    for axis, measure in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        values = np.array([row[measure.title] for row in results])
        ends = np.array([row[f"{measure.title}, interval"] for row in results])
        spans = np.maximum(np.abs(ends - values[:, None]).T, 0)
        axis.bar(
            range(len(results)),
            values,
            color=[COLOURS[i % len(COLOURS)] for i in range(len(results))],
            yerr=spans,
            capsize=3,
            width=0.7,
        )
        axis.set_xticks(range(len(results)), [row["method"] for row in results], rotation=30, ha="right", fontsize=8)
        better = "" if measure.higher else " (less is better)"
        axis.set_title(f"{measure.title}{better}", fontsize=8)
        axis.tick_params(axis="y", labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, dpi=150)


if __name__ == "__main__":
    main()
