"""Pictures from anybody as upright RGB pixels: the header is checked before anything is decoded.

| what comes | what is made of it |
|---|---|
| a picture that is rotated by EXIF | it is turned upright |
| CMYK, palette, grey | RGB; colour profiles are not applied |
| 16 bits | 8 bits, by rounding: 65535 is 255 |
| transparent | as on white paper |
| an animation, or several pages | its first picture |
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from serving.contract.files import open_regular
from serving.errors import PhotoError

MOST_PIXELS = 50_000_000
"""Of a photo; most cameras have fewer, and each takes 3 bytes here."""
LARGEST_FILE = 64 * 2**20
"""Bytes of a photo's file."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that are read, as Pillow names them; MPO of cameras is a JPEG. AVIF needs Pillow 11.3."""

_ORIENTATION = 0x0112  # in EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_one_at_a_time = threading.Lock()  # what is done with warnings concerns all threads; and memory is for one photo


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class Photo:
    """A photo as people see it.

    Attributes:
        pixels: Upright RGB, uint8 [h, w, 3]; not to be written into.
        sha256: Hash of the file's bytes; of shape and pixels, where there was no file.
    """

    pixels: NDArray[np.uint8]
    sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_photo(source: str | Path | bytes | Image.Image | NDArray[np.uint8], name: str = "photo") -> Photo:
    """Read a picture.

    Args:
        source: A path, a file's content, a picture of Pillow's, or uint8 pixels [h, w], [h, w, 3] or [h, w, 4].
        name: What it is, for messages.

    Raises:
        PhotoError: It cannot be read, is no picture, or is larger than the bounds.
    """
    if isinstance(source, str | Path):
        name = f"{name} {source}"
        source = _content(Path(source), name)
    if isinstance(source, np.ndarray):
        picture = _from_array(source, name)
    elif isinstance(source, Image.Image):
        picture = source
    elif isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        return _photo(_decode(content, name), hashlib.sha256(content).hexdigest())
    else:
        raise PhotoError(f"{name} must be a path, bytes, a PIL picture or an array, got {type(source).__name__}")
    _check_pixels(picture, name)
    try:
        pixels = _upright_rgb(picture, name)
    except (OSError, ValueError, SyntaxError) as error:
        raise PhotoError(f"{name} cannot be read: {_line(error)}") from error
    return _photo(pixels, hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest())


@contextmanager
def decoding() -> Iterator[None]:
    """Let one picture at a time be decoded: too large a one is an error, corrupt EXIF and the like is none."""
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _content(path: Path, name: str) -> bytes:
    try:
        with open_regular(path) as file:
            content = file.read(LARGEST_FILE + 1)
    except IsADirectoryError:
        raise PhotoError(f"{name} is a folder, not a picture") from None
    except (OSError, ValueError) as error:  # the latter of a path with a zero byte
        raise PhotoError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return content


def _from_array(array: NDArray[np.uint8], name: str) -> Image.Image:
    channels = array.shape[2:]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in ((), (3,), (4,)) or 0 in array.shape:
        raise PhotoError(f"{name} must be uint8 [h, w, 3], got {array.dtype} {list(array.shape)}")
    return Image.fromarray(np.ascontiguousarray(array))


def _decode(content: bytes, name: str) -> NDArray[np.uint8]:
    if len(content) > LARGEST_FILE:
        raise PhotoError(f"{name} must be at most {LARGEST_FILE >> 20} MiB")
    if not content:
        raise PhotoError(f"{name} is empty")
    Image.init()
    known = [kind for kind in FORMATS if kind in Image.OPEN]
    with decoding():
        try:
            with Image.open(io.BytesIO(content), formats=known) as picture:
                _check_pixels(picture, name)
                return _upright_rgb(picture, name)
        except PhotoError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise PhotoError(f"{name} must have at most {MOST_PIXELS // 10**6} megapixels") from None
        except UnidentifiedImageError:
            kinds = ", ".join(known[:-1])
            raise PhotoError(f"{name} is not a picture that can be read: expected {kinds} or {known[-1]}") from None
        except MemoryError:
            raise PhotoError(f"{name} needs more memory than there is") from None
        except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
            raise PhotoError(f"{name} is damaged: {_line(error)}") from error


def _check_pixels(picture: Image.Image, name: str) -> None:
    if picture.width * picture.height > MOST_PIXELS:
        raise PhotoError(
            f"{name} must have at most {MOST_PIXELS // 10**6} megapixels, got {picture.width} x {picture.height}"
        )
    if not picture.width * picture.height:
        raise PhotoError(f"{name} has no pixels")


def _upright_rgb(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    picture.load()
    turn = _UPRIGHT.get(_orientation(picture))
    if picture.mode == "F":
        raise PhotoError(f"{name} has float pixels, whose range nobody knows: save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        picture = _eight_bits(picture, name)
    if picture.has_transparency_data:
        above = picture.convert("RGBA")
        picture = Image.new("RGBA", above.size, "white")
        picture.alpha_composite(above)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    if turn is not None:
        picture = picture.transpose(turn)
    return np.array(picture, np.uint8)  # a copy, that nobody else writes into


def _eight_bits(picture: Image.Image, name: str) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise PhotoError(f"{name} has pixels of 32 bits: save it with 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever damaged EXIF leads to; the pixels are there
        return 1


def _photo(pixels: NDArray[np.uint8], sha256: str) -> Photo:
    pixels.flags.writeable = False
    return Photo(pixels, sha256)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
