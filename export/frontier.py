"""What a search for a precision tried: time against error, as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from export.precision import Frontier, Point
from latentclr.pictures.figures import save_figure
from serving.contract.certificate import Gate

_SHARES = (0.01, 1000.0)  # what lies beyond is drawn at the edge


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
        cost = f"{point.cost:.1f}" if math.isfinite(point.cost) else "-"
        rows.append([kept, cost, *shown, pictures, verdict + chosen])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def frontier_picture(found: Frontier, path: Path, title: str) -> None:
    """Draw the error over the time into a PNG, of the graphs that ran; see `gate_share`.

    Args:
        found: What was tried.
        path: The PNG.
        title: Above the picture.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    timed = [point for point in found.points if math.isfinite(point.cost)]
    draw_frontier(axes, timed, found.gate, found.best)
    axes.axvline(found.reference, color="0.4", linestyle="--", linewidth=1, label="float32")
    axes.set(xlabel=found.unit, xlim=(0, 1.08 * max([found.reference, *(point.cost for point in timed)])))
    axes.set_title(f"{title}\nbeside each point: operations in float32, of {found.operations}", fontsize=9)
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    save_figure(figure, path)


def draw_frontier(axes: Any, points: Sequence[Point], gate: Gate, best: Point | None = None) -> None:
    """Draw points, of finite cost, and gate into matplotlib's axes, without labels of the horizontal one."""
    for passed, colour, label in ((False, "tab:orange", "misses the gate"), (True, "tab:blue", "holds it")):
        chosen = [point for point in points if point.passed == passed]
        if not chosen:
            continue
        heights = [gate_share(point.measured, gate) for point in chosen]
        axes.scatter([point.cost for point in chosen], heights, color=colour, label=label, zorder=3)
    for point in points:
        place = point.cost, gate_share(point.measured, gate)
        axes.annotate(f"{len(point.keep)}", place, xytext=(5, 4), textcoords="offset points", fontsize=8)
    if best:
        ring = {"facecolors": "none", "edgecolors": "tab:blue", "label": "the fastest that does"}
        axes.scatter([best.cost], [gate_share(best.measured, gate)], s=140, zorder=2, **ring)
    axes.axhline(1.0, color="tab:green", linestyle=":", linewidth=1, label=f"gate {gate.name}")
    heights = [gate_share(point.measured, gate) for point in points]
    axes.set(
        yscale="log",
        ylabel="error, in multiples of the gate's",
        ylim=(min([0.2, *heights]) / 2, max([5, *heights]) * 2),
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.spines[["top", "right"]].set_visible(False)


def gate_share(measured: Mapping[str, Any] | None, gate: Gate) -> float:
    """Return the largest error in multiples of what a gate allows: 1 just holds it.

    Of steps it is their ratio, of PSNR that of the amplitudes, of SSIM and fidelity that of what lacks to 1.
    """
    if measured is None:  # it did not run, or called good rows invalid
        return _SHARES[1]
    shares = [0.0]
    for name in ("worst_step", "mean_step"):
        if (limit := getattr(gate, name)) is not None:
            shares.append(measured[name] / max(limit, 1e-3))
    if gate.psnr_db is not None and measured["psnr_db"] is not None:
        shares.append(10 ** ((gate.psnr_db - measured["psnr_db"]) / 20))
    for name in ("ssim", "edit_fidelity"):
        if (limit := getattr(gate, name)) is not None and measured[name] is not None:
            shares.append((1 - measured[name]) / max(1 - limit, 1e-4))
    return min(max(*shares, _SHARES[0]), _SHARES[1])


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
