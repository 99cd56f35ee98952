"""Draw what `precision.py` tried as one picture: error against speed, a panel for each generator.

python benchmarks/plot_precision.py benchmarks/results/precision_*.json --output docs/precision.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from common.report import Benchmark, BenchmarkError
from matplotlib.figure import Figure

from latentclr.pictures.figures import save_figure

COLOURS = {"onnxruntime fp32": "0.4", "openvino fp32": "tab:brown", "onnxruntime int8": "tab:orange",
           "openvino int8": "tab:red", "openvino bf16": "tab:blue"}  # fmt: skip
TITLES = {"dcgan": "DCGAN faces", "biggan": "BigGAN-deep", "stylegan2": "StyleGAN2"}


@click.command(cls=Benchmark)
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("docs/precision.png"),
              show_default=True, help="The picture.")  # fmt: skip
def main(records: tuple[Path, ...], output: Path) -> None:
    """Draw a panel for each of the RECORDS."""
    panels = [_read(path) for path in records]
    figure = Figure(figsize=(4.2 * len(panels), 3.8), layout="constrained")
    drawn: dict[str, Any] = {}
    for axes, record in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, record, drawn)
    figure.legend(drawn.values(), drawn.keys(), frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    save_figure(figure, output)
    click.echo(f"wrote {output}")


def _draw(axes: Any, record: dict[str, Any], drawn: dict[str, Any]) -> None:
    settings = record["settings"]
    speeds = {row["engine"]: row["speed_up"] for row in record["results"] if "speed_up" in row}
    for engine, colour in COLOURS.items():
        if engine.endswith("fp32") and engine in speeds:
            drawn[engine] = axes.axvline(speeds[engine], color=colour, linestyle="--", linewidth=1)
    for tier, found in settings["frontiers"].items():
        float32 = speeds.get(f"{tier.split()[0]} fp32")
        if float32 is None or found["unit"] != "ms":
            continue
        colour = COLOURS[tier]
        for point in found["points"]:
            place = [float32 / point["of_float32"]], [point["gate_share"]]
            faces = colour if point["passed"] else "none"
            marks = axes.scatter(*place, facecolors=faces, edgecolors=colour, s=36, zorder=3)
            if point["passed"] or tier not in drawn:
                drawn[tier] = marks
            if point["best"]:
                axes.scatter(*place, facecolors="none", edgecolors=colour, s=150, zorder=2)
    drawn["gate: filled points hold it, ringed ones are taken"] = axes.axhline(1.0, color="tab:green", linestyle=":")
    shares = [point["gate_share"] for found in settings["frontiers"].values() for point in found["points"]]
    axes.set(
        yscale="log",
        ylim=(0.1, 2 * max(5.0, *shares)),
        xlim=(0, None),
        xlabel=f"times faster than {settings['speed_up_over'].replace('_', ' ')}",
    )
    axes.set_ylabel("error, in multiples of the gate's")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    noise = ", random weights" if record["random_weights"] else ""
    axes.set_title(f"{TITLES[settings['generator']]}, {settings['resolution']} px{noise}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise BenchmarkError(f"{path} is no JSON: {error}") from None
    if not isinstance(record, dict) or record.get("benchmark") != "precision":
        raise BenchmarkError(f"{path} is no result of precision.py")
    return record


if __name__ == "__main__":
    main()
