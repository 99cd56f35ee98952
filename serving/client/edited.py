"""The pictures that a client returns, as arrays, PIL images or files."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serving.contract.recipe import Recipe
from serving.errors import PhotoError

if TYPE_CHECKING:
    from PIL.Image import Image

    from serving.client.photos import Inverted

FEATHER = 0.1
"""The share of a picture's side over which it fades into its photo."""


@dataclass(frozen=True)
class Edited:
    """The pictures of one request.

    Attributes:
        images: RGB of shape [N, H, W, 3], uint8.
        recipe: How they were made; PNG files carry it.
        inverted: The photo that they are of, if they are of one.
        reconstruction: The unedited picture [H, W, 3], where the photo's own pixels were kept.
    """

    images: NDArray[np.uint8]
    recipe: Recipe | None = field(default=None, repr=False, compare=False)
    inverted: Inverted | None = field(default=None, repr=False, compare=False)
    reconstruction: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Return the number of pictures N."""
        return len(self.images)

    @property
    def image(self) -> NDArray[np.uint8]:
        """The only picture, [H, W, 3].

        Raises:
            ValueError: There are several.
        """
        self._only()
        only: NDArray[np.uint8] = self.images[0]
        return only

    def pil(self) -> list[Image]:
        """All pictures as PIL images."""
        from PIL import Image as pil

        return [pil.fromarray(image) for image in self.images]

    def to_pil(self) -> Image:
        """The only picture as a PIL image.

        Raises:
            ValueError: There are several.
        """
        self._only()
        return self.pil()[0]

    def encode(self, format: str = "png", quality: int = 90) -> list[bytes]:
        """All pictures as the bytes of files.

        Args:
            format: `png` (which carries the recipe), `jpeg` or `webp`.
            quality: Of JPEG and WebP, in [1, 100].

        Raises:
            ImageError: There is no such format or quality.
        """
        from serving.client.images import write_image

        files = []
        for index, image in enumerate(self.pil()):
            file = io.BytesIO()
            recipe = None if self.recipe is None else self.recipe.row(index)
            write_image(image, file, format, recipe, quality)
            files.append(file.getvalue())
        return files

    def to_bytes(self, format: str = "png", quality: int = 90) -> bytes:
        """The only picture as the bytes of a file; see `encode`.

        Raises:
            ValueError: There are several.
            ImageError: As `encode`.
        """
        self._only()
        return self.encode(format, quality)[0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the only picture; the suffix chooses the format, and a PNG carries the recipe.

        Raises:
            ValueError: There are several; `serving.client.images.strip` sets them side by side.
            ImageError: The file cannot be written.
        """
        from serving.client.images import save_image

        save_image(self.to_pil(), path, self.recipe)

    def pasted(self, feather: float = FEATHER) -> Edited:
        """Put the only picture back into its photo.

        Args:
            feather: The share of the picture's side over which it fades out, in [0, 0.5]. Another than the default
                leaves no recipe, since a recipe tells none.

        Returns:
            One picture of the photo's size.

        Raises:
            ValueError: There are several.
            PhotoError: It is not of a photo, is a preview, was pasted before, or the feather is out of range.
        """
        from serving.contract.photo.crop import paste

        self._only()
        if self.inverted is None:
            raise PhotoError("only the picture of a photo can be pasted back")
        photo = paste(self.inverted.photo.pixels, self.inverted.crop, self.images[0], feather)
        recipe = self.recipe if feather == FEATHER else None
        if recipe is not None and recipe.photo is not None:
            recipe = replace(recipe, photo=replace(recipe.photo, pasted=True))
        return Edited(photo[None], recipe, self.inverted)

    def _only(self) -> None:
        if len(self.images) != 1:
            raise ValueError(f"there are {len(self.images)} images, use .images")
