"""What a recipe says of a photo: enough to make the picture again from the same file, and never a pixel of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.errors import InvalidEdit

if TYPE_CHECKING:
    from serving.contract.photo.crop import Crop
    from serving.contract.photo.reader import Photo

MOST_REFINED = 10_000
"""Steps of refinement that are done again from a recipe."""
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class PhotoRecord:
    """Which photo, and what was done with it.

    Attributes:
        sha256: Hash of the photo's file.
        crop: Where the generator's frame lies in it.
        encoder: SHA-256 of the encoder that found the code.
        refined: Steps of refinement of the code.
        keep: Whether what was not edited is the photo's.
        pasted: Whether the picture was put back into the photo.
    """

    sha256: str
    crop: Crop
    encoder: str
    refined: int = 0
    keep: bool = False
    pasted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return what `parse_record` reads; what was not done is left out."""
        flags = {"refined": self.refined, "keep": self.keep, "pasted": self.pasted}
        said = {name: value for name, value in flags.items() if value}
        return {"sha256": self.sha256, "crop": self.crop.as_dict(), "encoder": self.encoder, **said}

    def check_photo(self, photo: Photo) -> None:
        """Do nothing if it is the photo.

        Raises:
            InvalidEdit: It is another one.
        """
        if photo.sha256 != self.sha256:
            raise InvalidEdit(
                f"the picture is of another photo: expected a file whose SHA-256 is {self.sha256}, got {photo.sha256}"
            )


def parse_record(raw: Any) -> PhotoRecord | None:
    """Read `as_dict`'s data, which may come from anybody; None is none.

    Raises:
        ValueError: It is none, or out of bounds.
        PhotoError: The crop is.
    """
    if raw is None:
        return None
    from serving.contract.photo.crop import Crop

    if not isinstance(raw, dict):
        raise ValueError("photo must be a table")
    hashes, flags = (raw["sha256"], raw["encoder"]), (raw.get("keep", False), raw.get("pasted", False))
    if not all(isinstance(digest, str) and _SHA256.fullmatch(digest) for digest in hashes):
        raise ValueError("photo.sha256 and photo.encoder must be SHA-256 in hexadecimal")
    refined = raw.get("refined", 0)
    if type(refined) is not int or not 0 <= refined <= MOST_REFINED:
        raise ValueError(f"photo.refined must be in [0, {MOST_REFINED}]")
    if not all(isinstance(flag, bool) for flag in flags):
        raise ValueError("photo.keep and photo.pasted must be true or false")
    return PhotoRecord(hashes[0], Crop.parse(raw["crop"]), hashes[1], refined, *flags)
