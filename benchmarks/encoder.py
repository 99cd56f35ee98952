"""What an encoder reaches with more training: likeness to held-out pictures against minutes.

    python benchmarks/encoder.py --run outputs/demo --output benchmarks/results/encoder.json --plot docs/encoder.png

Each length is a training of its own, since the learning rate falls at the end of each. Trainings stay in a folder: what
is finished is not done again, and what was interrupted goes on. Minutes are those of the training itself on this
machine, with its held-out figures and pictures; they are only comparable where the machine is quiet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from common.machine import describe_machine
from common.report import Benchmark, Numbers, finish, run_latentclr
from common.timing import table
from matplotlib.figure import Figure

from latentclr.inversion.encoder import ENCODER_FILE, load_encoder
from latentclr.pictures.figures import save_figure

COLUMNS = ("steps", "minutes", "threads", "psnr_db", "psnr_changed_db", "floor_db", "code_error")


@click.command(cls=Benchmark)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True, help="Whose generator.")
@click.option("--steps", type=Numbers(), default="800,2000,6000", show_default=True, help="Lengths of training.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("outputs/encoders"),
              show_default=True, help="Where the trainings are kept.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the curve here.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
@click.argument("overrides", nargs=-1)
def main(
    run: Path, steps: tuple[int, ...], folder: Path, plot: Path | None, note: str | None, output: Path | None,
    overrides: tuple[str, ...],
) -> None:  # fmt: skip
    """Train an encoder of each length; OVERRIDES are those of `latentclr invert train`."""
    start = describe_machine()
    results = []
    for count in sorted(steps):
        place = folder / str(count)
        _train(run, place, [f"steps={count}", *overrides])
        saved = load_encoder(place / ENCODER_FILE)
        figures, training = saved.figures, saved.training
        results.append({
            "steps": count, "minutes": round(float(training["seconds"]) / 60, 1), "threads": training["threads"],
            "psnr_db": figures["psnr"], "psnr_changed_db": figures["psnr_changed"], "floor_db": figures["floor"],
            "code_error": figures["code_error"],
        })  # fmt: skip
    click.echo(table(results, COLUMNS))
    if plot is not None:
        draw(results, plot)
    settings = {"overrides": list(overrides), "space": saved.encoder.spec.space}
    finish("encoder", start=start, settings=settings, results=results, targets=[], random_weights=False, note=note,
           output=output)  # fmt: skip


def _train(run: Path, place: Path, words: Sequence[str]) -> None:
    if (place / ENCODER_FILE).is_file() and not (place / "encoder_resume.pt").is_file():
        return
    failed = f"{' '.join(words)}: the training failed"
    run_latentclr(["invert", "train", str(run), *words, f"output_dir={place}"], failed, shown=True)


def draw(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw likeness against minutes, with the mean picture as the floor.

    Raises:
        SaveError: The picture cannot be written.
    """
    figure = Figure(figsize=(5.2, 3), layout="constrained")
    axis = figure.subplots()
    minutes = [row["minutes"] for row in results]
    for key, name, colour in (("psnr_db", "held-out pictures", "#2a6f97"),
                              ("psnr_changed_db", "the same, changed as photos are", "#c9a66b")):  # fmt: skip
        axis.plot(minutes, [row[key] for row in results], "o-", color=colour, label=name)
    axis.axhline(results[0]["floor_db"], color="#b0b7bf", linestyle="--", label="the mean picture")
    for row in results:
        axis.annotate(f"{row['steps']:,} steps", (row["minutes"], row["psnr_db"]), (0, 6), textcoords="offset points",
                      fontsize=7, ha="center")  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(minutes, [f"{minute:g}" for minute in minutes])
    axis.minorticks_off()
    axis.set_xlabel("minutes of training", fontsize=8)
    axis.set_ylabel("PSNR of what is drawn of the found code, dB", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False, loc="center right")
    axis.margins(x=0.12, y=0.2)
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, dpi=150)


if __name__ == "__main__":
    main()
