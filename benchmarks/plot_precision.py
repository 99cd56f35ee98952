"""Draw what `precision.py` tried as one picture: error against speed, a column for each generator.

Where bfloat16 could only be emulated, a second row shows its error against how much of the arithmetic is in it.

python benchmarks/plot_precision.py benchmarks/results/precision_*.json --output docs/precision.png
"""

from __future__ import annotations

import json
from collections.abc import Iterable
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
    untimed = [_untimed(record) for record in panels]
    rows = 1 + any(untimed)
    figure = Figure(figsize=(4.2 * len(panels), 3.3 * rows + 0.5), layout="constrained")
    drawn: dict[str, Any] = {}
    places = figure.subplots(rows, len(panels), squeeze=False)
    for axes, record in zip(places[0], panels, strict=True):
        _draw(axes, record, drawn)
    for axes, found in zip(places[-1], untimed, strict=True):
        if found:
            _draw_shares(axes, found)
        elif rows > 1:
            axes.set_axis_off()
    figure.legend(drawn.values(), drawn.keys(), frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    save_figure(figure, output)
    click.echo(f"wrote {output}")


def _untimed(record: dict[str, Any]) -> dict[str, Any] | None:
    found = record["settings"]["frontiers"].get("openvino bf16")
    return found if found and found["unit"] != "ms" else None


def _draw(axes: Any, record: dict[str, Any], drawn: dict[str, Any]) -> None:
    settings = record["settings"]
    speeds = {row["engine"]: row["speed_up"] for row in record["results"] if "speed_up" in row}
    for engine, colour in COLOURS.items():
        if engine.endswith("fp32") and engine in speeds:
            drawn[engine] = axes.axvline(speeds[engine], color=colour, linestyle="--", linewidth=1)
    timed = {tier: found for tier, found in settings["frontiers"].items() if found["unit"] == "ms"}
    for tier, found in timed.items():
        float32 = speeds[f"{tier.split()[0]} fp32"]
        for point in found["points"]:
            marks = _point(axes, float32 / point["of_float32"], point, COLOURS[tier])
            if point["passed"] or tier not in drawn:
                drawn[tier] = marks
    drawn["gate: filled points hold it, ringed ones are taken"] = _gate(axes, timed.values())
    axes.set(xlim=(0, None), xlabel=f"times faster than {settings['speed_up_over'].replace('_', ' ')}")
    noise = ", random weights" if record["random_weights"] else ""
    axes.set_title(f"{TITLES[settings['generator']]}, {settings['resolution']} px{noise}", fontsize=10)


def _draw_shares(axes: Any, found: dict[str, Any]) -> None:
    for point in found["points"]:
        _point(axes, 100 * (1 - point["of_float32"]), point, COLOURS["openvino bf16"])
    _gate(axes, [found])
    axes.set(xlim=(-3, 103), xlabel="% of the arithmetic in bfloat16 (emulated)")


def _point(axes: Any, x: float, point: dict[str, Any], colour: str) -> Any:
    place = [x], [point["gate_share"]]
    if point["best"]:
        axes.scatter(*place, facecolors="none", edgecolors=colour, s=150, zorder=2)
    faces = colour if point["passed"] else "none"
    return axes.scatter(*place, facecolors=faces, edgecolors=colour, s=36, zorder=3)


def _gate(axes: Any, frontiers: Iterable[dict[str, Any]]) -> Any:
    """Draw the gate, and dress the axes for what was tried around it."""
    shares = [point["gate_share"] for found in frontiers for point in found["points"]]
    axes.set(yscale="log", ylim=(0.1, 2 * max(5.0, *shares)))
    axes.set_ylabel("error, in multiples of the gate's")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.spines[["top", "right"]].set_visible(False)
    return axes.axhline(1.0, color="tab:green", linestyle=":")


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
