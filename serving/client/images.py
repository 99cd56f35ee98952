"""Pictures on disk: a labelled strip, files that are whole or not there, and PNGs that know how they were made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from serving.client.alpha_range import tell
from serving.contract.files import open_regular, replacing
from serving.contract.photo.reader import decoding
from serving.contract.recipe import KEYWORD, MOST_PIXELS, Recipe, parse_recipe
from serving.errors import ImageError

_LARGEST_FILE = 4 * MOST_PIXELS  # bytes
_PAPER, _INK, _GAP = (255, 255, 255), (32, 32, 32), 4


def strip(images: NDArray[np.uint8], labels: Sequence[str], title: str = "") -> Image.Image:
    """Set pictures side by side, each under its label.

    Args:
        images: RGB pictures [N, H, W, 3].
        labels: N texts.
        title: A line above them all.

    Returns:
        One picture.

    Raises:
        ValueError: The number of labels is not N, or N is 0.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"there must be one label for each image, got {len(images)} images and {len(labels)} labels")
    height, width = images.shape[1:3]
    font: Any = ImageFont.load_default(max(11, height // 12))
    band = int(font.size * 1.6)
    cell = max(width, *(int(font.getlength(label)) + _GAP for label in labels))
    total = len(images) * (cell + _GAP) + _GAP
    total = max(total, int(font.getlength(title)) + 2 * _GAP)
    top = band if title else 0
    canvas = Image.new("RGB", (total, top + band + height + _GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((_GAP, top // 2), title, fill=_INK, font=font, anchor="lm")
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        left = _GAP + index * (cell + _GAP)
        draw.text((left + cell // 2, top + band // 2), label, fill=_INK, font=font, anchor="mm")
        canvas.paste(Image.fromarray(image), (left + (cell - width) // 2, top + band))
    return canvas


def enlarge(images: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Enlarge pictures smoothly: [N, H, W, 3] -> [N, scale * H, scale * W, 3]."""
    if scale == 1:
        return images
    size = (images.shape[2] * scale, images.shape[1] * scale)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in images])


def check_path(path: str | os.PathLike[str]) -> Path:
    """Check that a picture could be written there, before work is spent on it.

    Args:
        path: The file to write.

    Returns:
        The same as a `Path`.

    Raises:
        ImageError: The folder does not exist, or the suffix is not a picture format.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ImageError(f"cannot write {path}: there is no folder {path.parent}")
    known = Image.registered_extensions()
    if known.get(path.suffix.lower()) not in Image.SAVE:
        raise ImageError(f"cannot write {path}: the name must end in .png, .jpg, .webp or another picture format")
    return path


def write_image(
    image: Image.Image,
    file: IO[bytes],
    format: str,
    recipe: Recipe | None = None,
    quality: int = 90,
    compress_level: int = 6,
) -> None:
    """Write a picture into an open file.

    Args:
        image: The picture.
        file: Takes the bytes.
        format: `png`, `jpeg`, `webp` or another that PIL can write.
        recipe: How the picture was made; only a PNG carries it, as JSON under the keyword `latentclr`. One that
            `read_recipe` would refuse is left out, with a warning.
        quality: Of JPEG and WebP, in [1, 100].
        compress_level: Of PNG, in [0, 9].

    Raises:
        ImageError: There is no such format or quality.
    """
    kind = {"JPG": "JPEG"}.get(format.upper(), format.upper())
    Image.init()
    if kind not in Image.SAVE:
        raise ImageError(f"format must be png, jpeg or webp, got {format!r}")
    if not 1 <= quality <= 100:
        raise ImageError(f"quality must be in [1, 100], got {quality}")
    options: dict[str, Any] = {"quality": quality} if kind in ("JPEG", "WEBP") else {}
    if kind == "PNG":
        options["compress_level"] = compress_level
    if kind == "PNG" and recipe is not None:
        options["pnginfo"] = _with_recipe(image, recipe)
    image.save(file, format=kind, **options)


def _with_recipe(image: Image.Image, recipe: Recipe) -> PngImagePlugin.PngInfo:
    """Return the texts of a PNG: the recipe, if it can be read again."""
    info, text = PngImagePlugin.PngInfo(), recipe.to_json()
    try:
        if image.width * image.height > MOST_PIXELS:
            raise ImageError(f"it has more than {MOST_PIXELS} pixels")
        parse_recipe(text)
        info.add_text(KEYWORD, text)
    except ImageError as error:
        tell(f"the PNG carries no recipe: {error}", UserWarning)
    return info


def read_recipe(path: str | os.PathLike[str]) -> tuple[Recipe, NDArray[np.uint8]]:
    """Read from a PNG how it was made.

    Args:
        path: A file that this program wrote.

    Returns:
        The recipe, and the picture's pixels [H, W, 3] to compare with.

    Raises:
        ImageError: The file cannot be read or has no recipe.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _LARGEST_FILE:
                raise ImageError(f"cannot read {path}: it must be at most {_LARGEST_FILE} bytes")
            with decoding(), Image.open(file, formats=["PNG"]) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise ImageError(f"cannot read {path}: it must have at most {MOST_PIXELS} pixels")
                if getattr(picture, "is_animated", False):  # all its frames would be drawn to reach the last
                    raise ImageError(f"cannot read {path}: it is an animation")
                pixels = pixels_of(picture)  # reads the whole file, and text after the pixels too
                text = getattr(picture, "text", {}).get(KEYWORD)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        reason = getattr(error, "strerror", None) or "it is not a whole PNG"
        raise ImageError(f"cannot read {path}: {reason}") from error
    if text is None:
        raise ImageError(f"{path} does not say how it was made: only PNG files that this program wrote do")
    return parse_recipe(text), pixels


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """Return a picture's pixels, [H, W, 3]."""
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)


def save_image(image: Image.Image, path: str | os.PathLike[str], recipe: Recipe | None = None) -> None:
    """Write a picture under a temporary name and rename it, so that nobody sees half a file.

    Args:
        image: The picture.
        path: Where it goes; the suffix chooses the format.
        recipe: How it was made; see `write_image`.

    Raises:
        ImageError: The format is unknown or the file cannot be written.
    """
    path = check_path(path)
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            write_image(image, file, Image.registered_extensions()[path.suffix.lower()], recipe)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot write {path}: {reason}") from error
