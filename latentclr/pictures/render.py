"""Edited images as grids and walks that a person can look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from latentclr.catalog import Edits, NamedEdit
from latentclr.files import replacing
from latentclr.generators.base import Generator
from latentclr.method.directions import Directions
from latentclr.method.step import feed_mask
from latentclr.pictures.pixels import to_uint8
from latentclr.progress import progress_bar

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
GAP = 2  # pixels between tiles
AT_ONCE = 32 * 256**2  # pixels that go through the generator together: 32 pictures of 256 x 256, two of 1024 x 1024
INK, PAPER = (20, 20, 20), (255, 255, 255)


def walk_codes(
    directions: Directions, p: Tensor, chosen: Sequence[int], alphas: Sequence[float], iterative: bool
) -> Tensor:
    """Edit one code along several directions.

    Args:
        directions: In inference mode.
        p: [1, D].
        chosen: Direction indices, M of them.
        alphas: A strengths.
        iterative: From alpha to alpha in steps, asking for the direction again at each (the origin's walk), rather
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
) -> Pixels:
    """Render one code along several directions at several strengths.

    Args:
        generator: The generator.
        directions: Trained, in inference mode.
        z: [1, D].
        chosen: M direction indices.
        alphas: A strengths.
        fed: Mask [L] of the latent inputs that receive the edit; None for all.
        class_id: For conditional generators.
        iterative: Walk in steps, see `walk_codes`.

    Returns:
        uint8 [M, A, H, W, 3].
    """
    with torch.no_grad():
        p = generator.encode(z, one_class(class_id, z))  # [1, D]
        codes = walk_codes(directions, p, chosen, alphas, iterative)  # [M, A, D]
        mask = torch.ones(generator.latent.layers, device=z.device) if fed is None else fed
        edited = [a for a, alpha in enumerate(alphas) if alpha != 0]  # E of them
        moved = codes[:, edited].flatten(0, 1)  # [M * E, D]
        ps = p[:, None] + mask[:, None] * (moved - p)[:, None]  # [M * E, L, D]
        unedited = p[: len(alphas) - len(edited), None].expand(-1, len(mask), -1)  # drawn once for all rows
        images = draw_codes(generator, torch.cat([unedited, ps]), class_id)
    table = np.empty((len(chosen), len(alphas), *images.shape[1:]), np.uint8)  # [M, A, H, W, 3]
    table[:] = images[0]
    table[:, edited] = images[len(unedited) :].reshape(len(chosen), len(edited), *images.shape[1:])
    return table


@dataclass(frozen=True)
class Drawing:
    """What draws rows of pictures: a generator and trained directions, on one device.

    Attributes:
        generator: The generator.
        directions: In inference mode.
        fed: Mask [L] of the latent inputs that receive edits which name none; None for all.
        iterative: Walk in steps, see `walk_codes`.
    """

    generator: Generator
    directions: Directions
    fed: Tensor | None
    iterative: bool

    def numbers(self, z: Tensor, class_id: int | None, chosen: Sequence[int], alphas: Sequence[float]) -> Pixels:
        """Draw z [1, D] along M directions at A strengths: [M, A, H, W, 3]."""
        return edited_images(
            self.generator, self.directions, z, chosen, alphas,
            fed=self.fed, class_id=class_id, iterative=self.iterative,
        )  # fmt: skip

    def edits(
        self, z: Tensor, class_id: int | None, chosen: Edits, alphas: Sequence[float] | None
    ) -> tuple[Pixels, list[str], list[str]]:
        """Draw named edits of z [1, D].

        Args:
            z: The code.
            class_id: For conditional generators.
            chosen: A row for each edit; where strengths are given one row: unedited, each edit alone, all together.
            alphas: Strengths of the rows, in rising order; None for each edit's own range.

        Returns:
            Images [R, C, H, W, 3], R labels, C labels.
        """
        named = [edit for edit, _ in chosen.values()]
        if (strengths := _strengths(chosen)) is not None:  # [M]
            several = len(named) > 1
            alone = torch.cat([torch.zeros(1, len(named)), torch.diag(strengths)])  # [1 + M, M]
            columns = ["0", *(f"{name} {alpha_label(a)}" for name, (_, a) in chosen.items() if a is not None)]
            table = torch.cat([alone, strengths[None]]) if several else alone  # [A, M]
            return self._together(z, class_id, named, table), [""], columns + ["together"] * several
        rows = list(chosen)
        if alphas is None and len({edit.alpha for edit in named}) == 1:
            alphas = sorted({0.0, *np.linspace(*named[0].alpha, 5).tolist()})
        if alphas is not None:
            images = self._each(z, class_id, named, [alphas] * len(named))
            return images, rows, [alpha_label(a) for a in alphas]
        rows = [f"{name} {edit.alpha[0]:g}..{edit.alpha[1]:g}" for name, (edit, _) in chosen.items()]
        images = self._each(z, class_id, named, [over_range(*edit.alpha) for edit in named])
        around = all(low < 0 < high for low, high in (edit.alpha for edit in named))
        return images, rows, ["low", "", "0" if around else "middle", "", "high"]

    def walk(
        self, z: Tensor, class_id: int | None, chosen: Edits, alphas: Sequence[float] | None, frames: int
    ) -> tuple[Pixels, list[str], list[str]]:
        """Draw a smooth walk: from end to end of each edit, or from nothing to all strengths together.

        Args and returns as `edits`, with a column for each frame.
        """
        named = [edit for edit, _ in chosen.values()]
        parts = np.linspace(0, 1, frames)
        labels = [f"{100 * part:.0f} %" for part in parts]
        if (strengths := _strengths(chosen)) is not None:  # [M]
            row = " ".join(f"{name} {alpha_label(a)}" for name, (_, a) in chosen.items() if a is not None)
            table = torch.from_numpy(parts).float()[:, None] * strengths  # [A, M]
            return self._together(z, class_id, named, table), [row], labels
        ends = [(alphas[0], alphas[-1]) if alphas else edit.alpha for edit in named]
        images = self._each(z, class_id, named, [np.linspace(*end, frames).tolist() for end in ends])
        return images, list(chosen), labels

    def _each(
        self, z: Tensor, class_id: int | None, edits: Sequence[NamedEdit], at: Sequence[Sequence[float]]
    ) -> Pixels:
        """Draw each edit at its own layers and strengths: [M, A, H, W, 3]."""
        rows = [
            edited_images(
                self.generator, self.directions, z, [edit.direction], [edit.sign * alpha for alpha in alphas],
                fed=self._mask(edit).to(z.device), class_id=class_id, iterative=self.iterative,
            )
            for edit, alphas in zip(edits, at, strict=True)
        ]  # fmt: skip
        return np.concatenate(rows)

    def _together(self, z: Tensor, class_id: int | None, edits: Sequence[NamedEdit], strengths: Tensor) -> Pixels:
        """Draw edits applied at once, as the served editor does, at strengths [A, M]: [1, A, H, W, 3]."""
        alpha = strengths[..., None] * torch.stack([edit.sign * self._mask(edit) for edit in edits])  # [A, M, L]
        chosen = torch.tensor([[edit.direction for edit in edits]], device=z.device)  # [1, M]
        with torch.no_grad():
            p = self.generator.encode(z, one_class(class_id, z))  # [1, D]
            d = self.directions.select(p, chosen)[0]  # [M, D]
            ps = p[:, None] + alpha.transpose(1, 2).to(z.device) @ d  # [A, L, D]
            return draw_codes(self.generator, ps, class_id)[None]

    def _mask(self, edit: NamedEdit) -> Tensor:
        layers = self.generator.latent.layers
        if edit.layers:
            return feed_mask(edit.layers, layers)  # [L]
        return torch.ones(layers) if self.fed is None else self.fed.cpu()


def over_range(low: float, high: float) -> list[float]:
    """Return five strengths from end to end of a range, with 0 in the middle if it is inside."""
    return [low, low / 2, 0.0, high / 2, high] if low < 0 < high else np.linspace(low, high, 5).tolist()


def _strengths(chosen: Edits) -> Tensor | None:
    given = [strength for _, strength in chosen.values() if strength is not None]
    return torch.tensor(given) if given else None  # [M]


def grid(
    images: Pixels, rows: Sequence[str], columns: Sequence[str], tile: int | None = None, corner: str = ""
) -> Image.Image:
    """Draw a labelled grid.

    Args:
        images: uint8 [R, C, H, W, 3].
        rows: R labels.
        columns: C labels.
        tile: Height of a tile in pixels; None for the images' own.
        corner: Label of the column labels.
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


def draw_codes(generator: Generator, ps: Tensor, class_id: int | Tensor | None) -> Pixels:
    """Render ps [N, L, D], of one class or of classes [N]: uint8 [N, H, W, 3]; a bar shows if that takes long."""
    images, size = [], at_once(generator)
    classes = class_id if isinstance(class_id, Tensor) else one_class(class_id, ps)
    with progress_bar(len(ps), "image", desc="pictures", delay=2, leave=False) as bar:
        for start in range(0, len(ps), size):
            part = ps[start : start + size]
            its = None if classes is None else classes[start : start + size]
            images.append(to_uint8(generator.synthesize(part, its)).cpu())
            bar.update(len(part))
    pixels: Pixels = torch.cat(images).numpy()
    return pixels


def at_once(generator: Generator) -> int:
    """Return how many pictures go through a generator together."""
    height, width = generator.size
    return min(32, max(1, AT_ONCE // (height * width)))


def one_class(class_id: int | None, codes: Tensor) -> Tensor | None:
    """Return a class for each of N codes [N, ...] as a tensor [N] beside them; None for none."""
    return None if class_id is None else torch.full((len(codes),), class_id, device=codes.device)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all; the format comes from the suffix.

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        picture.save(temporary)


def save_walk(frames: Sequence[Image.Image], path: Path, milliseconds: int = 90) -> None:
    """Write frames, there and back, as an endless GIF or WebP (from the suffix).

    Raises:
        SaveError: The disk is full or the folder cannot be written.
    """
    loop = [*frames, *frames[-2:0:-1]]
    with replacing(path) as temporary:
        loop[0].save(temporary, save_all=True, append_images=loop[1:], duration=milliseconds, loop=0)


def corner_label(generator: Generator) -> str:
    """Return what stands above the row labels: the columns' meaning, or that all of it is noise."""
    return "random weights" if generator.random_weights else "alpha"


def alpha_label(alpha: float) -> str:
    """Return a strength as a column label; plain digits, for Pillow's own font has no Greek."""
    return f"{alpha:+g}" if alpha else "0"
