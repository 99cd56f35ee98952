"""grid.png, the picture of what a training run found, drawn in a time that does not depend on K or the resolution."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from latentclr.config import TrainConfig, shown_alphas
from latentclr.generators.base import Generator
from latentclr.method.directions import Directions
from latentclr.pictures.render import (
    alpha_label,
    corner_label,
    draw_codes,
    edited_images,
    grid,
    one_class,
    save_picture,
)
from latentclr.progress import duration

logger = logging.getLogger(__name__)
BUDGET_S = 45.0  # one picture of 1024 x 1024 takes seconds on a small CPU
NOTICE_S = 10.0  # longer work is announced
MOST_ROWS = 32
WARM_S = 0.1  # a first picture that took less needs no second one to be timed by


def fitting(k: int, seconds: float, budget: float) -> tuple[int, int]:
    """Choose what is shown of K directions, fewer strengths before fewer directions.

    Args:
        k: K.
        seconds: That one picture takes.
        budget: Seconds for all of them; one direction is shown even if that takes longer.

    Returns:
        Rows (at least 1, at most `MOST_ROWS`), and columns: 5, or 3 where not all rows fit with 5.
    """
    wanted = min(k, MOST_ROWS)
    room = budget / seconds - 1 if seconds > 0 else float("inf")  # the unedited picture is drawn once for all rows
    if room >= 4 * wanted:
        return wanted, 5
    return max(1, min(wanted, int(room / 2))), 3


def seconds_a_picture(generator: Generator, z: Tensor, class_id: int | None) -> float:
    """Measure how long one picture takes, of z [1, D]; the first one may also have to warm up."""

    def draw() -> float:
        start = time.perf_counter()
        with torch.no_grad():
            p = generator.encode(z, one_class(class_id, z))
            draw_codes(generator, p[:, None].expand(-1, generator.latent.layers, -1), class_id)
        return time.perf_counter() - start

    first = draw()
    return first if first < WARM_S else min(first, draw())


def draw_overview(
    generator: Generator,
    directions: Directions,
    fed: Tensor,
    config: TrainConfig,
    path: Path,
    budget: float = BUDGET_S,
) -> None:
    """Draw one code along the directions, as many as fit into the budget.

    Args:
        generator: What draws.
        directions: What edits, on the same device.
        fed: [L], 1 at the latent inputs that receive the edit.
        config: Of the run.
        path: The PNG.
        budget: Seconds.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    directions = directions.eval()
    z = generator.sample_seeds(config.seed, 1).to(fed.device)
    class_id = generator.class_ids[0] if generator.class_ids else None
    seconds = seconds_a_picture(generator, z, class_id)
    count, columns = fitting(config.k, seconds, budget)
    shown, alphas = list(range(count)), shown_alphas(config.model.alpha)
    alphas = alphas if columns == 5 else alphas[::2]
    needed = seconds * (1 + count * (columns - 1))
    if count < min(config.k, MOST_ROWS):
        logger.info(
            "%s shows %d of %d directions, as a picture takes %.1f s; all: latentclr gen %s n_dirs=-1",
            path.name, count, config.k, seconds, path.parent,
        )  # fmt: skip
    if needed > NOTICE_S:
        logger.info("drawing %s takes %s; Ctrl-C skips it, the run is saved", path.name, duration(needed))
    images = edited_images(generator, directions, z, shown, alphas, fed=fed, class_id=class_id)
    tile = min(128, max(64, images.shape[2]))
    labels = [alpha_label(a) for a in alphas]
    save_picture(grid(images, [f"k={k}" for k in shown], labels, tile, corner_label(generator)), path)
