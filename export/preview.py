"""The preview: a smaller picture from the same codes, for while a slider moves, and how much it is like the full one.

A generator with skip images has a picture at every resolution on its way; the preview's editor stops there, takes the
same requests and needs no training. It is proven as any other graph; how much its pictures are like the full ones,
scaled down, is measured beside that, for no promise can be made of it: the layers that are left out may change colours
and contrast too, and whether they do is the generator's own matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.editor import FusedEditor
from export.errors import ExportError
from export.parity import Arrays, Engine
from latentclr.errors import GeneratorError

WINDOW, SIGMA = 11, 1.5  # of SSIM, in pixels
K1, K2 = 0.01, 0.03
PEAK = 255.0
SAME_DB = 100.0  # of identical pictures, whose PSNR would be infinite

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
        size: Pixels of a side.

    Raises:
        ExportError: The generator has no picture of this size on its way; the message lists its sizes.
    """
    try:
        return FusedEditor(editor.generator.stopping_at(size), editor.directions, editor.latent_input)
    except GeneratorError as error:
        raise ExportError(f"--preview {size}: {error}") from None


def measure_likeness(full: Engine, preview: Engine, cases: Iterable[Arrays]) -> Likeness:
    """Compare a preview with the full model, picture by picture.

    Args:
        full: The full model's graph.
        preview: The preview's graph.
        cases: Requests, such as `parity_cases`.
    """
    psnrs: list[float] = []
    ssims: list[float] = []
    for inputs in cases:
        small, _ = preview(*inputs)
        large, _ = full(*inputs)
        for a, b in zip(averaged_down(large, small.shape[1]), small, strict=True):
            psnrs.append(psnr(a, b))
            ssims.append(ssim(a, b))
    return Likeness(len(psnrs), min(psnrs), float(np.mean(psnrs)), min(ssims), float(np.mean(ssims)))


def averaged_down(images: Pixels, size: int) -> Pixels:
    """Return pictures [N, size, size, 3] whose pixels are means of squares of those of `images` [N, H, H, 3]."""
    factor = images.shape[1] // size
    squares = images.reshape(len(images), size, factor, size, factor, 3)
    small: Pixels = np.rint(squares.mean((2, 4))).astype(np.uint8)
    return small


def psnr(a: Pixels, b: Pixels) -> float:
    """Return the peak signal-to-noise ratio of two pictures in decibel, at most `SAME_DB`."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return SAME_DB if error == 0 else min(SAME_DB, float(10 * np.log10(PEAK**2 / error)))


def ssim(a: Pixels, b: Pixels) -> float:
    """Return the structural similarity of two pictures [H, W, 3], the mean over places and channels.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 13 (4), 2004,
    equation 13 with its window: a Gaussian of 11 pixels (fewer in a smaller picture), sigma 1.5.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    mx, my = _blurred(x), _blurred(y)
    xx, yy, xy = _blurred(x * x) - mx * mx, _blurred(y * y) - my * my, _blurred(x * y) - mx * my
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    return float((((2 * mx * my + c1) * (2 * xy + c2)) / ((mx * mx + my * my + c1) * (xx + yy + c2))).mean())


def _blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average [H, W, 3] under the window, wherever that lies inside."""
    side = min(WINDOW, (min(image.shape[:2]) - 1) // 2 * 2 + 1)
    taps = np.exp(-np.square(np.arange(side) - side // 2) / (2 * SIGMA**2))
    taps /= taps.sum()
    for axis in (0, 1):
        image = np.lib.stride_tricks.sliding_window_view(image, side, axis=axis) @ taps
    return image
