"""From a photo to the request that finds its code, and to what a client keeps of the answer.

Nothing here talks to a server: the blocking and the asyncio client share it. A code belongs to the encoder that found
it; when another one is served, the code is found anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serving.client.alpha_range import tell
from serving.contract.arguments import shown
from serving.contract.edits import check_latents
from serving.contract.manifest import Manifest
from serving.contract.photo.crop import Crop, centre_crop, cut_out
from serving.contract.photo.reader import Photo, read_photo
from serving.contract.photo_record import PhotoRecord
from serving.contract.tensors import PICTURE
from serving.errors import InvalidEdit, PhotoError, PhotoWarning

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
Source = Union[str, Path, bytes, "Image", NDArray[np.uint8], Photo]
"""What `client.invert` takes: a path, a file's content, a picture of Pillow's, pixels, or a photo that was read."""
AUTO, CENTRE = "auto", "centre"
MOST_KEPT = 64  # codes, and crops, that one client remembers


class OtherEncoder(InvalidEdit):
    """A code was found by another encoder than the one that is served now."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """A photo and its code: what `client.edit(photo=...)` takes without looking at the photo again.

    Attributes:
        codes: [1, D], or [1, L, D] for `w+`, float32; not to be written into.
        photo: The photo.
        crop: Where the generator's frame lies in it.
        picture: What was cut out, RGB uint8 [H, W, 3].
        how: `face` if a face was found and aligned, `centre`, or `given` if the caller brought the crop.
        encoder: SHA-256 of the encoder that found the code.
        refined: Steps of refinement since then, see `refine`.
    """

    codes: NDArray[np.float32] = field(repr=False)
    photo: Photo = field(repr=False)
    crop: Crop
    picture: NDArray[np.uint8] = field(repr=False)
    how: str
    encoder: str
    refined: int = 0

    def with_codes(self, codes: ArrayLike, refined: int) -> Inverted:
        """Return the same photo with another code.

        Args:
            codes: Of the shape of `codes`.
            refined: Steps of refinement that led to it.

        Raises:
            InvalidEdit: The shape is another one, or a number is not finite.
        """
        new = np.array(codes, np.float32)
        if new.shape != self.codes.shape or not np.isfinite(new).all():
            raise InvalidEdit(f"codes must be finite and of shape {list(self.codes.shape)}, got {list(new.shape)}")
        return replace(self, codes=frozen(new), refined=refined)

    def record(self, keep: bool) -> PhotoRecord:
        """Return what a recipe says of the photo."""
        return PhotoRecord(self.photo.sha256, self.crop, self.encoder, self.refined, keep)

    def sized(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the picture with (H, W) pixels, as a preview has them."""
        if self.picture.shape[:2] == size:
            return self.picture
        from PIL import Image

        return np.asarray(Image.fromarray(self.picture).resize(size[::-1], Image.Resampling.BOX))


@dataclass(frozen=True)
class Framed:
    """A photo, and what of it the encoder gets to see."""

    photo: Photo
    crop: Crop
    picture: NDArray[np.uint8]
    how: str

    def plan_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the encoder's input."""
        return {PICTURE: self.picture[None]}

    def inverted(self, codes: NDArray[np.float32], manifest: Manifest) -> Inverted:
        """Put the code to it."""
        assert manifest.encoder is not None
        return Inverted(codes, self.photo, self.crop, self.picture, self.how, manifest.encoder.sha256)


class Recent(Generic[T]):
    """The values that were used last, by key; threads may share it."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        """Hold at most this many."""
        self._most, self._lock = most, threading.Lock()
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """Return a value and count it as used, None if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value, and drop the one that was used longest ago if there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def __len__(self) -> int:
        """Return how many are held."""
        return len(self._values)


class PhotoMemory:
    """What one client remembers of photos: where their faces are, and their codes; never their pixels."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.codes: Recent[NDArray[np.float32]] = Recent()
        self._crops: Recent[tuple[Crop, str]] = Recent()

    def frame(self, manifest: Manifest, source: Source, align: str | Crop, face: int | None) -> Framed:
        """Read a photo and cut out what the encoder gets to see.

        Args:
            manifest: The served editor, which has an encoder.
            source: The photo.
            align: `auto`, `centre`, or the crop.
            face: Which of the faces, from left to right; with `auto` only.

        Raises:
            PhotoError: It is no photo, or the face cannot be found.
            InvalidEdit: `align` or `face` is none of these.
        """
        if not isinstance(align, Crop) and align not in (AUTO, CENTRE):
            raise InvalidEdit(f"align must be 'auto', 'centre' or a crop, got {shown(align)}")
        if face is not None and (isinstance(face, bool) or not isinstance(face, int) or face < 0):
            raise InvalidEdit(f"face must be a whole number from 0 on, got {shown(face)}")
        if face is not None and align != AUTO:
            raise InvalidEdit("face chooses among the faces that align='auto' finds: give one of the two")
        photo = source if isinstance(source, Photo) else read_photo(source)
        crop, how = self._crop(manifest, photo, align, face)
        return Framed(photo, crop, frozen(cut_out(photo.pixels, crop)), how)

    def code(self, framed: Framed, manifest: Manifest) -> NDArray[np.float32] | None:
        """Return the code that this model's encoder found for a photo and a crop, None if it was not asked."""
        return self.codes.get(_code_key(framed, manifest))

    def keep(self, framed: Framed, manifest: Manifest, codes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Remember a code; returns it as nobody can write into it."""
        codes = frozen(codes)
        self.codes.put(_code_key(framed, manifest), codes)
        return codes

    def _crop(self, manifest: Manifest, photo: Photo, align: str | Crop, face: int | None) -> tuple[Crop, str]:
        size = manifest.generator.size
        if isinstance(align, Crop):
            if align.size != size:
                (height, width), (wanted, across) = align.size, size
                raise InvalidEdit(f"the crop is of {width} x {height} pixels, the model draws {across} x {wanted}")
            return align, "given"
        if align == CENTRE:
            return centre_crop(photo.size, size), CENTRE
        assert manifest.encoder is not None
        template = manifest.encoder.face
        key = (photo.sha256, size, template, face)
        found = self._crops.get(key)
        if found is None:
            found = _look(photo, size, template, face)
            self._crops.put(key, found)
        return found


def _code_key(framed: Framed, manifest: Manifest) -> Hashable:
    """Return what a code depends on."""
    assert manifest.encoder is not None
    return (
        framed.photo.sha256,
        framed.crop,
        manifest.encoder.sha256,
        tuple(sorted(manifest.encoder.files_sha256.items())),
    )


def check_code(manifest: Manifest, answer: NDArray[Any]) -> NDArray[np.float32]:
    """Check what an encoder sent for one picture.

    Raises:
        PhotoError: The code has another shape, or is not finite.
    """
    try:
        codes = check_latents(manifest, answer)
    except InvalidEdit as error:
        raise PhotoError(f"the encoder found no code for this photo: {error}") from error
    if len(codes) != 1:
        raise PhotoError(f"the encoder answered one picture with {len(codes)} codes")
    return codes


def check_same_encoder(inverted: Inverted, full: Manifest) -> None:
    """Check that the encoder which found a code is the served one.

    Raises:
        OtherEncoder: It is another one.
    """
    if full.encoder is None or full.encoder.sha256 != inverted.encoder:
        raise OtherEncoder("the photo's code is of another encoder than the one that is served now")


def found_again(before: Inverted, now: Inverted) -> Inverted:
    """Return a photo's code of another encoder in place of the one that was held; says so if that was refined."""
    if before.refined:
        line = "the model has another encoder: the photo's code was found anew, and is not refined any more"
        tell(line, PhotoWarning)
    return replace(now, how=before.how)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that nobody can write into, of its own memory."""
    own = np.array(array)
    own.flags.writeable = False
    return own


def _look(
    photo: Photo, size: tuple[int, int], template: tuple[tuple[float, float], ...] | None, face: int | None
) -> tuple[Crop, str]:
    """Find where the face is, or take the middle of generators of other things and where nobody can look."""
    centre = partial(centre_crop, photo.size, size)
    if template is None:
        if face is not None:
            raise InvalidEdit("this model draws no faces: give no face")
        return centre(), CENTRE
    from serving.contract.photo.faces import choose_crop

    crop, how = choose_crop(photo, size, np.array(template, np.float64), face)
    if how == CENTRE:
        line = "nobody looked for a face in the photo, its middle was taken: pip install 'latentclr[faces]'"
        tell(line, PhotoWarning)
    return crop, how
