"""Arrays of pictures -> bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.client.edited import Edited
from serving.client.images import enlarge, strip, write_image
from serving.errors import InvalidEdit

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif"}
_MOST_PIXELS = 64_000_000
_LONGEST_SIDE = 16_383  # WebP's limit; JPEG's is 65,535
_FRAME_MS, _END_MS = 60, 400


def check_size(count: int, size: tuple[int, int], scale: int, *, beside: bool = True) -> None:
    """Refuse a picture that would be too large, before it is drawn.

    Args:
        count: Number of tiles.
        size: (H, W) of a tile in pixels, before it is enlarged.
        scale: How many times each side is enlarged.
        beside: Whether they are set side by side; else they are the frames of an animation, all in memory.

    Raises:
        InvalidEdit: It would be too wide or have too many pixels.
    """
    height, width = size[0] * scale, size[1] * scale
    pixels, frames = count * height * width, "" if beside else f"{count} frames of "
    width = count * width if beside else width
    if width > _LONGEST_SIDE or pixels > _MOST_PIXELS:
        raise InvalidEdit(
            f"a picture must be at most {_LONGEST_SIDE} pixels wide and {_MOST_PIXELS // 10**6} million in all, "
            f"got {frames}{width} x {height}; ask for fewer pictures or a smaller scale"
        )


def encode_row(result: Edited, kind: str, quality: int, scale: int, labels: Sequence[str] = ()) -> bytes:
    """Write pictures side by side as one file.

    A PNG of one picture or of a labelled strip carries the recipe, so that `latentclr edit --from` makes it again.
    Pictures without labels, set edge to edge, are tiles for a page to cut apart: they carry none.

    Args:
        result: The N pictures, and how they were made.
        kind: png, jpeg or webp.
        quality: For jpeg and webp, 1 to 100.
        scale: How many times each side is enlarged.
        labels: N texts to write above the pictures, or none.
    """
    images = enlarge(result.images, scale)  # [N, scale * H, scale * W, 3]
    recipe = result.recipe
    if labels:
        picture = strip(images, labels)
        recipe = None if recipe is None else recipe.as_strip(labels, "")
    else:
        picture = Image.fromarray(np.concatenate(list(images), axis=1))
        recipe = recipe if len(images) == 1 else None
    out = io.BytesIO()
    recipe = None if recipe is None else recipe.enlarged(scale)
    # Level 3 is a tenth larger than the default, in a third of the time.
    write_image(picture, out, kind, recipe, quality, compress_level=3)
    return out.getvalue()


def encode_gif(images: NDArray[np.uint8], scale: int) -> bytes:
    """Write pictures as an animation that runs to the end and back, for ever.

    Args:
        images: RGB frames [N, H, W, 3].
        scale: How many times each side is enlarged.
    """
    frames = [Image.fromarray(image) for image in enlarge(images, scale)]
    there_and_back = frames + frames[-2:0:-1]
    durations = [_END_MS if frame in (0, len(frames) - 1) else _FRAME_MS for frame in range(len(there_and_back))]
    out = io.BytesIO()
    first, *rest = there_and_back
    first.save(out, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return out.getvalue()
