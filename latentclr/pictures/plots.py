"""Curves and heat-maps of a run, without a display and without matplotlib's global state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from latentclr.pictures.figures import save_figure
from latentclr.training.evaluation import Evaluation
from latentclr.training.trainer import History

WINDOW = 25  # steps in the running mean of the loss
RANDOM = "random weights: this is noise"


def loss_curve(history: History, path: Path, random_weights: bool = False) -> None:
    """Draw loss and accuracy over the steps, with the held-out values, into a PNG.

    Args:
        history: What happened.
        path: The PNG.
        random_weights: Say in the picture that the generator's weights are noise.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    steps = np.arange(1, len(history.loss) + 1)
    for axes, values, held, label in zip(
        figure.subplots(1, 2),
        (history.loss, history.accuracy),
        ([h[1] for h in history.held_out], [h[2] for h in history.held_out]),
        ("contrastive loss", "accuracy"),
        strict=True,
    ):
        axes.plot(steps, values, color="0.8", linewidth=0.8, label="step")
        if len(values) >= WINDOW:  # a run may also be stopped before its first step
            smooth = np.convolve(values, np.ones(WINDOW) / WINDOW, mode="valid")
            axes.plot(steps[WINDOW - 1 :], smooth, color="tab:blue", label=f"mean of {WINDOW} steps")
        axes.plot([h[0] for h in history.held_out], held, "o-", color="tab:orange", label="held out")
        axes.set(xlabel="step", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    if random_weights:
        figure.suptitle(RANDOM, fontsize=10)
    save_figure(figure, path)


def similarity_map(evaluation: Evaluation, path: Path, random_weights: bool = False) -> None:
    """Draw the K x K similarity matrix (diagonal: consistency, rest: redundancy) into a PNG.

    Args:
        evaluation: What was measured.
        path: The PNG.
        random_weights: Say in the picture that the generator's weights are noise.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    k = len(evaluation.similarity)
    side = min(12.0, 3.0 + 0.22 * k)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(evaluation.similarity, vmin=min(0.0, float(evaluation.similarity.min())), vmax=1, cmap="magma")
    ticks = range(0, k, max(1, k // 16))
    axes.set(xticks=ticks, yticks=ticks, xlabel="direction", ylabel="direction")
    meaning = "diagonal: consistency, off it: redundancy"
    axes.set_title(f"{RANDOM}\n{meaning}" if random_weights else meaning, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, label="mean cosine of feature changes")
    save_figure(figure, path)
