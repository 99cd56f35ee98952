"""Edited images as grids and walks that a person can look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latentclr.directions import Directions
from latentclr.files import replacing
from latentclr.generators.base import Generator
from latentclr.pixels import to_uint8

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
GAP = 2  # pixels between tiles
INK, PAPER = (20, 20, 20), (255, 255, 255)


def walk_codes(
    directions: Directions, p: Tensor, chosen: Sequence[int], alphas: Sequence[float], iterative: bool
) -> Tensor:
    """Edit one code along several directions.

    Args:
        directions: in inference mode.
        p: [1, D].
        chosen: direction indices, M of them.
        alphas: A strengths in rising order.
        iterative: from alpha to alpha in steps, asking for the direction again at each (the origin's walk), rather
            than straight from p.

    Returns:
        [M, A, D].
    """
    index = torch.as_tensor(list(chosen), device=p.device)[:, None]  # [M, 1]
    start = p.expand(len(chosen), -1)  # [M, D]
    codes: dict[float, Tensor] = {}
    for side in (sorted(a for a in alphas if a >= 0), sorted((a for a in alphas if a < 0), reverse=True)):
        at, reached = start, 0.0
        for alpha in side:
            if not iterative:
                at, reached = start, 0.0
            at = at + (alpha - reached) * directions.select(at, index)[:, 0]
            reached = alpha
            codes[alpha] = at
    return torch.stack([codes[a] for a in alphas], dim=1)


def edited_images(
    generator: Generator,
    directions: Directions,
    z: Tensor,
    chosen: Sequence[int],
    alphas: Sequence[float],
    *,
    fed: Tensor | None = None,
    class_id: int | None = None,
    iterative: bool = False,
    batch_size: int = 32,
) -> Pixels:
    """Render one code along several directions at several strengths.

    Args:
        generator: the generator.
        directions: trained, in inference mode.
        z: [1, D].
        chosen: M direction indices.
        alphas: A strengths in rising order.
        fed: mask [L] of the latent inputs that receive the edit; None for all.
        class_id: for conditional generators.
        iterative: walk in steps, see `walk_codes`.
        batch_size: images at once.

    Returns:
        uint8 [M, A, H, W, 3].
    """
    with torch.no_grad():
        p = generator.encode(z)  # [1, D]
        codes = walk_codes(directions, p, chosen, alphas, iterative)  # [M, A, D]
        mask = torch.ones(generator.latent.layers, device=z.device) if fed is None else fed
        ps = p[:, None] + mask[:, None] * (codes.flatten(0, 1) - p)[:, None]  # [M * A, L, D]
        images = []
        for part in ps.split(batch_size):
            classes = None if class_id is None else torch.full((len(part),), class_id, device=z.device)
            images.append(to_uint8(generator.synthesize(part, classes)).cpu())
    pixels: Pixels = torch.cat(images).unflatten(0, (len(chosen), len(alphas))).numpy()
    return pixels


def grid(
    images: Pixels, rows: Sequence[str], columns: Sequence[str], tile: int | None = None, corner: str = ""
) -> Image.Image:
    """Draw a labelled grid.

    Args:
        images: uint8 [R, C, H, W, 3].
        rows: R labels.
        columns: C labels.
        tile: height of a tile in pixels; None for the images' own.
        corner: label of the column labels.
    """
    height, width = images.shape[2:4]
    if tile is not None:
        height, width = tile, max(1, round(tile * width / height))
    font = ImageFont.load_default(max(11, min(22, height // 7)))  # a font that Pillow carries, so it is always there
    left = 10 + math.ceil(max((font.getlength(label) for label in (*rows, corner)), default=0))
    top = 12 + math.ceil(font.getbbox("Ag")[3])
    size = (left + len(columns) * (width + GAP), top + len(rows) * (height + GAP))
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((5, top / 2), corner, fill=INK, font=font, anchor="lm")
    for c, label in enumerate(columns):
        draw.text((left + c * (width + GAP) + width / 2, top / 2), label, fill=INK, font=font, anchor="mm")
    for r, label in enumerate(rows):
        draw.text((5, top + r * (height + GAP) + height / 2), label, fill=INK, font=font, anchor="lm")
        for c in range(len(columns)):
            image = Image.fromarray(images[r, c]).resize((width, height), Image.Resampling.BICUBIC)
            picture.paste(image, (left + c * (width + GAP), top + r * (height + GAP)))
    return picture


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all; the format comes from the suffix.

    Raises:
        SaveError: the disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        picture.save(temporary)


def save_walk(frames: Sequence[Image.Image], path: Path, milliseconds: int = 90) -> None:
    """Write frames, there and back, as an endless GIF or WebP (from the suffix).

    Raises:
        SaveError: the disk is full or the folder cannot be written.
    """
    loop = [*frames, *frames[-2:0:-1]]
    with replacing(path) as temporary:
        loop[0].save(temporary, save_all=True, append_images=loop[1:], duration=milliseconds, loop=0)


def alpha_label(alpha: float) -> str:
    """Return a strength as a column label; plain digits, for Pillow's own font has no Greek."""
    return f"{alpha:+g}" if alpha else "0"
