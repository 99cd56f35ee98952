"""The preview: a smaller picture from the same codes, for while a slider moves, and how much it is like the full one.

A generator with skip images has a picture at every resolution on its way; the preview's editor stops there, takes the
same requests and needs no training. It is proven as any other graph; how much its pictures are like the full ones,
scaled down, is measured beside that, for no promise can be made of it: the layers that are left out may change colours
and contrast too, and whether they do is the generator's own matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.editor import FusedEditor
from export.errors import ExportError
from export.parity import Arrays, Engine
from latentclr.errors import GeneratorError
from latentclr.progress import progress_bar
from serving.contract.certificate import picture_psnr, ssim

QUALITY = "psnr=36,ssim=0.95"
"""What a preview in reduced precision must hold against itself in float32: it is seen enlarged, and only until a slider
is let go. 36 dB are a root mean square error of 4 steps of 255: edits of two drown in it, those that are seen do not.
"""
EDITED = 48  # pictures that likeness is measured on, at least: full ones are slow, and no gate hangs on it

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Likeness:
    """How much previews are like full pictures that were averaged down to their size, over edited pictures.

    Attributes:
        rows: Pictures compared.
        worst_psnr_db: Lowest peak signal-to-noise ratio of a picture, at most `SAME_DB`.
        mean_psnr_db: Mean of them.
        worst_ssim: Lowest structural similarity of a picture.
        mean_ssim: Mean of them.
    """

    rows: int
    worst_psnr_db: float
    mean_psnr_db: float
    worst_ssim: float
    mean_ssim: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, rounded."""
        return {key: round(value, 3) for key, value in asdict(self).items()}

    def __str__(self) -> str:
        return (
            f"{self.rows} images against the full ones scaled down: PSNR {self.mean_psnr_db:.1f} dB (worst"
            f" {self.worst_psnr_db:.1f}), SSIM {self.mean_ssim:.3f} (worst {self.worst_ssim:.3f})"
        )


def preview_editor(editor: FusedEditor, size: int) -> FusedEditor:
    """Return the editor of a model's preview.

    Args:
        editor: Of the full model.
        size: Height in pixels.

    Raises:
        ExportError: The generator has no picture of this size on its way, the message lists its sizes; or one whose
            sides do not divide those of its pictures.
    """
    try:
        generator = editor.generator.stopping_at(size)
    except GeneratorError as error:
        raise ExportError(f"--preview {size}: {error}") from None
    (high, wide), (h, w) = editor.generator.size, generator.size
    if high % h or wide % w:
        raise ExportError(
            f"--preview {size}: its sides must divide those of the picture, {high} x {wide}, got {h} x {w}"
        )
    return FusedEditor(generator, editor.directions, editor.latent_input)


def measure_likeness(full: Engine, preview: Engine, cases: Sequence[Arrays]) -> Likeness:
    """Compare a preview with the full model, picture by picture.

    Args:
        full: The full model's graph.
        preview: The preview's graph.
        cases: Requests, such as those of `parity_cases`.
    """
    psnrs: list[float] = []
    ssims: list[float] = []
    with progress_bar(len(cases), "batch", desc="likeness", delay=2) as bar:
        for inputs in cases:
            small, _ = preview(*inputs)
            large, _ = full(*inputs)
            for a, b in zip(averaged_down(large, (small.shape[1], small.shape[2])), small, strict=True):
                psnrs.append(picture_psnr(a, b))
                ssims.append(ssim(a, b))
            bar.update()
    return Likeness(len(psnrs), min(psnrs), float(np.mean(psnrs)), min(ssims), float(np.mean(ssims)))


def averaged_down(images: Pixels, size: tuple[int, int]) -> Pixels:
    """Return pictures of `size` (h, w), [N, h, w, 3], whose pixels are the means of areas of `images` [N, H, W, 3]."""
    (n, high, wide, _), (h, w) = images.shape, size
    small: Pixels = np.rint(images.reshape(n, h, high // h, w, wide // w, 3).mean((2, 4))).astype(np.uint8)
    return small
