"""What a recipe says of a photo: its hash and what was cut out of it, and never its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.contract.manifest import EncoderInfo, Manifest
from serving.errors import InvalidEdit, PhotoError

if TYPE_CHECKING:
    from serving.contract.photo.crop import Crop

_KEYS = {"sha256", "crop", "encoder_sha256"}
_HASH = 64  # characters


@dataclass(frozen=True)
class PhotoEntry:
    """The photo of a picture.

    Attributes:
        sha256: Hash of its file, as `Photo` has it.
        crop: What was cut out of it.
        encoder_sha256: The encoder that found its code.
        keep: Whether what was not edited was kept from the photo.
        pasted: Whether the picture was pasted back into the photo.
        refined: Whether the code is not the encoder's own answer, so that the encoder cannot find it again.
    """

    sha256: str
    crop: Crop
    encoder_sha256: str
    keep: bool = False
    pasted: bool = False
    refined: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        said = {name: True for name in ("keep", "pasted", "refined") if getattr(self, name)}
        return {"sha256": self.sha256, "crop": self.crop.as_dict(), "encoder_sha256": self.encoder_sha256, **said}

    @staticmethod
    def parse(raw: Any) -> PhotoEntry | None:
        """Read `as_dict`'s data, which may come from anybody; None stands for no photo.

        Raises:
            ValueError: A part is missing or out of range.
        """
        from serving.contract.photo.crop import Crop  # here, since it loads Pillow

        if raw is None:
            return None
        if not isinstance(raw, Mapping) or not _KEYS <= set(raw):
            raise ValueError(f"photo must be a table of {', '.join(sorted(_KEYS))}")
        said = {name: raw.get(name, False) for name in ("keep", "pasted", "refined")}
        if not all(isinstance(value, bool) for value in said.values()):
            raise ValueError("photo's keep, pasted and refined must be true or false")
        try:
            crop = Crop.parse(raw["crop"])
        except PhotoError as error:
            raise ValueError(f"photo: {error}") from error
        encoder = raw["encoder_sha256"]
        return PhotoEntry(_hash(raw["sha256"]), crop, encoder and _hash(encoder), **said)

    def check_encoder(self, manifest: Manifest) -> None:
        """Do nothing if this model finds the photo's code as the picture's model did.

        Raises:
            InvalidEdit: It has another encoder, or none.
        """
        served = _sha256_of(manifest.encoder)
        if served != self.encoder_sha256:
            raise InvalidEdit(
                f"the picture's photo was inverted by encoder {self.encoder_sha256[:12]}, but {manifest.name!r} is "
                f"served with {served[:12] or 'none'}; --force makes it with this one"
            )


def _sha256_of(encoder: EncoderInfo | None) -> str:
    return "" if encoder is None else encoder.sha256


def _hash(value: Any) -> str:
    if not isinstance(value, str) or len(value) != _HASH or set(value) - set("0123456789abcdef"):
        raise ValueError(f"photo's hashes must have {_HASH} hexadecimal digits")
    return value
