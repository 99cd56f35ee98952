"""Draw the latencies that `edit_latency.py` measured as one picture of bars.

python benchmarks/plot_latency.py benchmarks/results/edit_latency*.json --output docs/latency.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import matplotlib
from common.report import Benchmark, BenchmarkError

from latentclr.pictures.figures import save_figure

OURS, BASE = "#2a6f97", "#b0b7bf"
BATCH = 1
NAMES = {"onnxruntime": "ONNX Runtime", "torchscript": "TorchScript", "eager": "lean module, eager",
         "openvino f32": "OpenVINO f32", "openvino bf16": "OpenVINO bf16", "served, EditClient": "served by Triton",
         "grouped reference": "grouped reference, eager"}  # fmt: skip
TITLES = {"dcgan": "DCGAN faces", "biggan": "BigGAN-deep", "stylegan2": "StyleGAN2"}
LEFT_OUT = ("served, raw gRPC",)


@click.command(cls=Benchmark)
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("docs/latency.png"),
              show_default=True, help="The picture.")  # fmt: skip
def main(records: tuple[Path, ...], output: Path) -> None:
    """Draw one panel for each of the RECORDS, the latency of an edit at batch 1 on every engine."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    panels = sorted((_read(path) for path in records), key=lambda record: _rows(record)[0]["p50_ms"])
    heights = [len(_rows(record)) for record in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, 0.3 * sum(heights) + 0.75 * len(panels) + 0.3), squeeze=False,
        height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for axis, record in zip(axes[:, 0], panels, strict=True):
        _draw(axis, record)
    machine = panels[0]["machine"]
    axes[-1, 0].set_xlabel(
        f"milliseconds an edit, median at batch {BATCH}; {machine['cores_usable']} cores of {machine['cpu']}",
        fontsize=8,
    )
    save_figure(figure, output, dpi=150)
    click.echo(f"wrote {output}")


def _read(path: Path) -> dict[str, Any]:
    record: Any = None
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise BenchmarkError(f"{path} is no JSON: {error}") from None
    if not isinstance(record, dict) or record.get("benchmark") != "edit_latency" or not _rows(record):
        raise BenchmarkError(f"{path} is no record of edit_latency.py with rows of batch {BATCH}")
    return record


def _rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in record["results"] if row["batch"] == BATCH and row["engine"] not in LEFT_OUT]


def _draw(axis: Any, record: dict[str, Any]) -> None:
    rows, settings = _rows(record), record["settings"]
    base = settings.get("speed_up_over", "eager")
    p50 = [row["p50_ms"] for row in rows]
    names = [NAMES.get(row["engine"], row["engine"]) for row in rows]
    bars = axis.barh(names, p50, color=[BASE if row["engine"] == base else OURS for row in rows], height=0.7)
    digits = 0 if max(p50) >= 100 else 1
    labels = [
        f"{row['p50_ms']:.{digits}f} ms" + ("" if row["engine"] == base else f"   {row['speed_up']:.1f} x")
        for row in rows
    ]
    axis.bar_label(bars, labels, padding=4, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, max(p50) * 1.18)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    weights = ", random weights of full size" if record["random_weights"] else ""
    axis.set_title(
        f"{TITLES.get(settings['generator'], settings['generator'])}, {settings['resolution']} px{weights}",
        fontsize=9, loc="left",
    )  # fmt: skip


if __name__ == "__main__":
    main()
