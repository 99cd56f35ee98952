"""Matplotlib's figures as files, without a display."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from latentclr.files import replacing


def save_figure(figure: Figure, path: Path, dpi: int | None = None) -> None:
    """Write a figure as a PNG, whole or not at all.

    Args:
        figure: What is drawn.
        path: The PNG.
        dpi: Pixels an inch; None for the figure's own.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi or "figure")
