"""What a search for a precision tried: time against error, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from export.precision import Frontier, Point
from latentclr.files import replacing

HIGHEST_DB = 70.0  # better ones are drawn at the upper edge


def frontier_table(found: Frontier) -> list[str]:
    """Return a line for each graph that was tried, the fastest first, below a line of headings."""
    unit = "ms" if found.unit == "ms" else "float32 %"
    rows = [["in float32", unit, "worst", "mean", "PSNR", "SSIM", "fidelity", "pictures", found.gate.name]]
    rows.append([f"{found.operations} of {found.operations}", f"{found.reference:.1f}", *["-"] * 6, "float32"])
    for point in sorted(found.points, key=lambda point: point.cost):
        measured = point.measured or {}
        values = [measured.get(name) for name in ("worst_step", "mean_step", "psnr_db", "ssim", "edit_fidelity")]
        shown = [_cell(value) for value in values]
        pictures = str(measured.get("images", "-"))
        verdict = "holds" if point.passed else "misses"
        chosen = " <" if point is found.best else ""
        kept = f"{len(point.keep)} of {found.operations}"
        rows.append([kept, f"{point.cost:.1f}", *shown, pictures, verdict + chosen])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def frontier_picture(found: Frontier, path: Path, title: str) -> None:
    """Draw the worst picture's PSNR over the time into a PNG.

    Args:
        found: What was tried.
        path: The PNG.
        title: Above the picture.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for passed, colour, label in ((False, "tab:orange", "misses"), (True, "tab:blue", "holds")):
        points = [point for point in found.points if point.passed == passed]
        axes.scatter(
            [point.cost for point in points], [_height(point) for point in points], color=colour, label=label, zorder=3
        )
    for point in found.points:
        axes.annotate(
            f"{len(point.keep)}", (point.cost, _height(point)), xytext=(5, 4), textcoords="offset points", fontsize=8
        )
    if found.best:
        axes.scatter(
            [found.best.cost], [_height(found.best)], s=140, facecolors="none", edgecolors="tab:blue",
            label="published", zorder=2,
        )  # fmt: skip
    axes.axvline(found.reference, color="0.4", linestyle="--", linewidth=1, label="float32")
    if found.gate.psnr_db is not None:
        axes.axhline(found.gate.psnr_db, color="tab:green", linestyle=":", linewidth=1, label=f"gate {found.gate.name}")
    axes.set(xlabel=found.unit, ylabel="PSNR of the worst picture, dB", xlim=(0, None), ylim=(0, HIGHEST_DB + 3))
    axes.set_title(f"{title}\nbeside each point: operations in float32, of {found.operations}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _height(point: Point) -> float:
    if point.measured is None:  # it did not run, or called good rows invalid
        return 0.0
    psnr = point.measured["psnr_db"]
    return HIGHEST_DB if psnr is None else min(float(psnr), HIGHEST_DB)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
