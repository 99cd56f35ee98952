"""From a photo to its code: what is cut out, which encoder finds the code, and codes that were found before.

Nothing here talks to a server. A plan (see `requests`) that lacks a code raises `CodeNeeded`; the client, blocking or
asyncio, asks the encoder and plans again. A code belongs to the encoder that found it: under another one it is asked
for anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serving.client.alpha_range import tell
from serving.client.description import Answer
from serving.contract.arguments import check_whole, shown
from serving.contract.edits import check_latents
from serving.contract.layout import encoder_of
from serving.contract.manifest import EncoderInfo, Manifest
from serving.contract.recipe_photo import PhotoEntry
from serving.contract.tensors import PICTURE
from serving.errors import InvalidEdit, NoEncoder, PhotoWarning, RequestFailed

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from serving.contract.photo.crop import Crop
    from serving.contract.photo.reader import Photo

    Picture = str | Path | bytes | Image | NDArray[np.uint8] | Photo
    """A photo as `read_photo` takes it, or one that was read."""
    Align = str | Crop
    """`auto` (a face where the generator has its own, else the middle), `centre`, or the crop itself."""

MOST_CODES = 16
"""Of photos, that a client remembers."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """A photo and the code whose picture is most like it; give it to `edit` as the photo, as often as needed.

    Attributes:
        codes: [1, D], or [1, L, D] for `w+`, float32.
        photo: The photo.
        crop: What was cut out of it.
        picture: That, RGB uint8 [H, W, 3], as large as the generator's pictures.
        how: How the crop was found: `face`, `centre` or `given`.
        encoder: What the model says of the encoder that found the code.
        align: As asked for.
        face: As asked for.
        refined: Whether the code is another than the encoder's answer.
    """

    codes: NDArray[np.float32]
    photo: Photo
    crop: Crop
    picture: NDArray[np.uint8]
    how: str
    encoder: EncoderInfo
    align: Align = "auto"
    face: int | None = None
    refined: bool = False

    def with_codes(self, codes: ArrayLike) -> Inverted:
        """Return the same photo with a code that was made better elsewhere, [1, ...]."""
        own = np.array(codes, np.float32)
        if own.shape != self.codes.shape or not np.isfinite(own).all():
            raise InvalidEdit(f"the code must be finite and of shape {list(self.codes.shape)}, got {list(own.shape)}")
        return replace(self, codes=_still(own), refined=True)

    def entry(self, keep: bool) -> PhotoEntry:
        """Return what a recipe says of it."""
        return PhotoEntry(self.photo.sha256, self.crop, self.encoder.sha256, keep=keep, refined=self.refined)


@dataclass(frozen=True)
class Cut:
    """What the encoder is to see.

    Attributes:
        crop: Of the photo.
        picture: RGB uint8 [H, W, 3].
        how: `face`, `centre` or `given`.
    """

    crop: Crop
    picture: NDArray[np.uint8]
    how: str


@dataclass
class OfPhoto:
    """A photo as the subject of one request, and the code that was found for it.

    Attributes:
        photo: The photo.
        align: Where the frame lies.
        face: Which face.
        keep: Whether what was not edited is kept from the photo.
        found: Its code, as soon as there is one.
    """

    photo: Photo
    align: Align = "auto"
    face: int | None = None
    keep: bool = False
    found: Inverted | None = None

    def inverted(self, manifest: Manifest) -> Inverted:
        """Return the code that this model's encoder found.

        Raises:
            CodeNeeded: It was not asked yet.
            InvalidEdit: A refined code is of another encoder.
            NoEncoder: The model has none.
        """
        if manifest.encoder is None:
            raise NoEncoder(_none(manifest.name))
        found = self.found
        if found is not None and _same(found.encoder, manifest.encoder):
            return found
        if found is not None and found.refined:
            raise InvalidEdit("the refined code is of another version of the model: invert the photo again")
        raise CodeNeeded(self)

    def key(self, encoder: EncoderInfo) -> tuple[Any, ...]:
        """Return what an answer is remembered by."""
        files = tuple(sorted(encoder.files_sha256.items()))
        return self.photo.sha256, self.align, self.face, encoder.sha256, files, encoder.face

    def cut(self, encoder: EncoderInfo, frame: tuple[int, int]) -> Cut:
        """Cut out what the encoder is to see; may look for faces, which takes a moment.

        Args:
            encoder: What the model says of it.
            frame: (H, W) of the pictures that it takes.

        Raises:
            PhotoError: There is no face, or several and none was chosen; or the crop is not on the photo.
            InvalidEdit: The crop is not of the frame's size.
        """
        from serving.contract.photo.crop import centre_crop, cut_out
        from serving.contract.photo.faces import choose_crop

        if not isinstance(self.align, str):
            crop, how = self.align, "given"
            if crop.size != frame:
                raise InvalidEdit(f"the crop must be of {list(frame)} pixels (H, W) for this model, got {crop.size}")
        elif self.align == "centre":
            crop, how = centre_crop(self.photo.size, frame), "centre"
        else:
            template = None if encoder.face is None else np.asarray(encoder.face)
            crop, how = choose_crop(self.photo, frame, template, self.face)
        return Cut(crop, _still(cut_out(self.photo.pixels, crop)), how)

    def answered(self, encoder: EncoderInfo, manifest: Manifest, cut: Cut, answer: Answer) -> Inverted:
        """Read what the encoder answered.

        Args:
            encoder: What the model says of it.
            manifest: Its own.
            cut: What it saw.
            answer: What came back.

        Raises:
            RequestFailed: It is no finite code.
        """
        if self.align == "auto" and cut.how == "centre" and encoder.face is not None:
            from serving.contract.photo.face_models import INSTALL

            tell(f"the middle of the photo is taken, since faces cannot be looked for: {INSTALL}", PhotoWarning)
        try:
            codes = check_latents(manifest, answer.images)
        except InvalidEdit as error:
            raise RequestFailed(f"the encoder's answer is no code: {error}") from error
        if len(codes) != 1:
            raise RequestFailed(f"the encoder answered one picture with {len(codes)} codes")
        return Inverted(
            _still(codes.copy()), self.photo, cut.crop, cut.picture, cut.how, encoder, self.align, self.face
        )


class CodeNeeded(Exception):
    """A plan wants the code of a photo; the client asks the encoder for it, and plans again."""

    def __init__(self, photo: OfPhoto) -> None:
        """Keep the photo, whose `found` is to be set."""
        super().__init__("the code of a photo is needed")
        self.photo = photo


class Codes:
    """The codes of the last photos, which a client remembers without the photos; threads may share it."""

    def __init__(self, most: int = MOST_CODES) -> None:
        """Start empty.

        Args:
            most: Codes that are kept; of more, those that were not asked for the longest are dropped.
        """
        self._most = most
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[Any, ...], Inverted] = OrderedDict()

    def get(self, wanted: OfPhoto, encoder: EncoderInfo) -> Inverted | None:
        """Return what was found for this photo, None if nothing is remembered."""
        key = wanted.key(encoder)
        with self._lock:
            found = self._found.get(key)
            if found is None:
                return None
            self._found.move_to_end(key)
        return replace(found, photo=wanted.photo)

    def put(self, wanted: OfPhoto, found: Inverted) -> None:
        """Remember what was found; the photo's own pixels are not kept."""
        from serving.contract.photo.reader import Photo

        small = replace(found, photo=Photo(np.zeros((1, 1, 3), np.uint8), found.photo.sha256))
        with self._lock:
            self._found[wanted.key(found.encoder)] = small
            while len(self._found) > self._most:
                self._found.popitem(last=False)


def of_photo(photo: Picture | Inverted, align: Align = "auto", face: int | None = None, keep: bool = False) -> OfPhoto:
    """Take a photo as a request's subject; one that is inverted is taken as it is, and not read or hashed again.

    Args:
        photo: As `read_photo` takes it, or a `Photo`, or an `Inverted`.
        align: `auto`, `centre` or a crop.
        face: Which face, from the left.
        keep: Whether what was not edited is kept.

    Raises:
        PhotoError: It cannot be read.
        InvalidEdit: Another argument is none of those.
    """
    from serving.contract.photo.crop import Crop
    from serving.contract.photo.reader import Photo, read_photo

    if isinstance(photo, Inverted):
        if align != "auto" or face is not None:
            raise InvalidEdit("an inverted photo has its crop: give no align and no face")
        return OfPhoto(photo.photo, photo.align, photo.face, keep, photo)
    if not isinstance(align, Crop) and align not in ("auto", "centre"):
        raise InvalidEdit(f"align must be auto, centre or a crop, got {shown(align)}", field="align")
    if face is not None:
        check_whole("face", face)
        if align != "auto":
            raise InvalidEdit("face chooses a face, which only align='auto' looks for", field="face")
    return OfPhoto(photo if isinstance(photo, Photo) else read_photo(photo), align, face, keep)


def asked(photo: Picture | Inverted | None, keep: bool) -> OfPhoto | None:
    """Take `edit`'s photo and keep; see `of_photo`.

    Raises:
        InvalidEdit: There is nothing to keep.
    """
    if photo is None:
        if keep:
            raise InvalidEdit("keep needs a photo", field="keep")
        return None
    return of_photo(photo, keep=keep)


def kept(inverted: Inverted, reconstruction: NDArray[np.uint8], edited: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put edits onto what was cut out of the photo.

    Args:
        inverted: The photo.
        reconstruction: The model's unedited picture [h, w, 3], of a preview's size too.
        edited: The edited ones [N, h, w, 3].

    Returns:
        Pictures [N, h, w, 3]; see `serving.contract.photo.keep`.
    """
    from PIL import Image

    from serving.contract.photo.keep import keep_unedited

    original = inverted.picture
    if original.shape != reconstruction.shape:
        size = reconstruction.shape[1], reconstruction.shape[0]
        original = np.asarray(Image.fromarray(original).resize(size, Image.Resampling.BOX))
    return keep_unedited(np.broadcast_to(original, edited.shape), np.broadcast_to(reconstruction, edited.shape), edited)


def pictures_of(cut: Cut) -> dict[str, NDArray[Any]]:
    """Return the encoder's input."""
    return {PICTURE: cut.picture[None]}


def has_encoder(full: Manifest) -> bool:
    """Whether a model was published with an encoder."""
    return full.encoder is not None


def is_encoder_of(encoder: Manifest, full: Manifest) -> bool:
    """Whether a model is the encoder that was published with this full model."""
    return full.encoder is not None and encoder.files_sha256 == full.encoder.files_sha256


def encoder_info(full: Manifest, model: str) -> EncoderInfo:
    """Return what a model says of its encoder.

    Raises:
        NoEncoder: It was published without one.
    """
    if full.encoder is None:
        raise NoEncoder(_none(model))
    return full.encoder


def check_encoder(encoder: Manifest, full: Manifest, model: str) -> EncoderInfo:
    """Check that what is served under the encoder's name is the full model's encoder, and return what is said of it.

    Raises:
        NoEncoder: It is not.
    """
    if not is_encoder_of(encoder, full):
        raise no_encoder(model, f"{encoder_of(model)} is of another version; see `latentclr doctor`")
    return encoder_info(full, model)


def no_encoder(model: str, reason: str) -> NoEncoder:
    """Say that the encoder that a model was published with cannot be had."""
    return NoEncoder(f"the encoder of {model!r} is not served: {reason}")


def _none(model: str) -> str:
    return f"model {model!r} has no encoder for photos: `latentclr export --with-encoder` publishes one with it"


def _same(one: EncoderInfo, other: EncoderInfo) -> bool:
    return one is other or (one.files_sha256 == other.files_sha256 and one.sha256 == other.sha256)


def _still(array: NDArray[Any]) -> NDArray[Any]:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array
