"""Photos from anybody, and encoders from somebody else."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from hostile_base import Base, png_bytes, spoilt
from hostile_documents import RAW, hostile_copy, text_of
from hostile_served import chunk, png_of
from hostile_trial import Trial
from PIL import Image
from safetensors.torch import save_file

from latentclr.inversion.encoder import ENCODER_FILE, load_encoder
from latentclr.plain_load import safetensors_metadata

INVERT = ("invert", "a.jpg", "--run", "run", "-o", "codes.npy")
_KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def photo_bytes(kind: str, size: tuple[int, int] = (24, 20), mode: str = "RGB", **options: Any) -> bytes:
    """Return a picture in one of the formats that are read."""
    file = io.BytesIO()
    picture = Image.effect_noise(size, 80).convert(mode)
    picture.save(file, kind, **options)
    return file.getvalue()


def _sized(kind: str, width: int, height: int) -> bytes:
    """Return a picture whose header lies about its sides."""
    content = bytearray(photo_bytes(kind))
    if kind == "JPEG":
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", min(height, 65535), min(width, 65535))
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", min(width, 65535), min(height, 65535))
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", min(width, 2**31 - 1), min(height, 2**31 - 1))
    return bytes(content)


def _tiff(*entries: tuple[int, int, int, int]) -> bytes:
    """Return a TIFF of these entries: tag, type, count, value."""
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)


def _with_segment(marker: int, payload: bytes, times: int = 1) -> bytes:
    """Return a JPEG with segments after its beginning."""
    good = photo_bytes("JPEG")
    segment = bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload
    return good[:2] + segment * times + good[2:]


def of_photos(base: Base) -> Iterator[Trial]:
    """Pictures that lie, explode, or are none."""
    packed = zlib.compress(bytes(1 << 28), 9)
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + bytes(24)) * 8))
    refused: dict[str, Callable[[], bytes]] = {
        "nothing": lambda: b"",
        "a text": lambda: b"picture",
        "a page": lambda: b"<!doctype html>",
        "an EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch canary) run\n",
        "a PDF": lambda: b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\n",
        "an SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
        "a PPM": lambda: b"P6 4 4 255\n" + bytes(48),
        "an icon": lambda: photo_bytes("ICO"),
        "a picture of JPEG 2000": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
        "a PNG of huge sides": lambda: png_of(pixels, width=2**31 - 1, height=2**31 - 1),
        "a PNG of 169 megapixels": lambda: png_of(chunk(b"IDAT", zlib.compress(bytes(1 << 27), 9)), width=13_000, height=13_000, kind=b"\x08\0\0\0\0"),
        "a PNG of 81 megapixels": lambda: png_of(chunk(b"IDAT", zlib.compress((b"\0" + bytes(9000 * 3)) * 9000, 9)), width=9000, height=9000),
        "a PNG without sides": lambda: png_of(pixels, width=0, height=0),
        "a PNG of no pixels": lambda: png_of(chunk(b"IDAT", b"")),
        "a PNG with a packed text of 256 MiB": lambda: png_of(chunk(b"zTXt", b"a\0\0" + packed), pixels),
        "a PNG whose chunk lies": lambda: png_of()[:-12] + b"\x7f\xff\xff\xffIDAT",
        "a JPEG of 65535 squared": lambda: _sized("JPEG", 65535, 65535),
        "a JPEG without sides": lambda: _sized("JPEG", 0, 0),
        "a JPEG that ends at once": lambda: photo_bytes("JPEG")[:30],
        "a GIF of 65535 squared": lambda: _sized("GIF", 65535, 65535),
        "a BMP of huge sides": lambda: _sized("BMP", 2**31 - 1, 2**31 - 1),
        "a BMP of negative sides": lambda: _sized("BMP", -(2**31), -(2**31)),
        "a TIFF of nothing": lambda: b"II*\0" + bytes(100),
        "a TIFF of huge sides": lambda: _tiff((256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1), (258, 3, 1, 8), (262, 3, 1, 1)),
        "a TIFF whose entries are endless": lambda: _tiff((256, 4, 2**32 - 1, 8), (257, 4, 2**32 - 1, 8)),
        "a TIFF that leads to itself": lambda: b"II*\0" + struct.pack("<IH", 8, 0) + struct.pack("<I", 8),
        "a WebP of nothing": lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(40),
        "an AVIF of nothing": lambda: b"\0\0\0\x1cftypavif" + bytes(200),
        "a file of 65 MiB": lambda: photo_bytes("JPEG") + bytes(65 << 20),
    }  # fmt: skip
    allowed: dict[str, Callable[[], bytes]] = {
        "a rotation of nonsense": lambda: _with_segment(0xE1, b"Exif\0\0" + _tiff((0x0112, 4, 1, 2**32 - 1))),
        "a rotation that is a text": lambda: _with_segment(0xE1, b"Exif\0\0" + _tiff((0x0112, 2, 4, 0x7075))),
        "EXIF of noise": lambda: _with_segment(0xE1, b"Exif\0\0" + bytes(range(256)) * 200),
        "EXIF without end": lambda: _with_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x04\0\xff\xff\xff\xff" * 900),
        "many segments": lambda: _with_segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(60_000), times=200),
        "many comments": lambda: _with_segment(0xFE, b"a" * 60_000, times=300),
        "a profile of 256 MiB": lambda: png_of(chunk(b"iCCP", b"a\0\0" + packed), pixels),
        "a movie that says it never ends": lambda: png_of(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), pixels),
        "a long line": lambda: photo_bytes("PNG", (40_000, 1)),
        "a cut JPEG": lambda: photo_bytes("JPEG", (200, 200))[:-3000],
        "a cut PNG": lambda: photo_bytes("PNG", (200, 200))[:-3000],
        "a cut GIF": lambda: photo_bytes("GIF", (200, 200))[:-3000],
        "CMYK": lambda: photo_bytes("JPEG", mode="CMYK"),
        "one bit": lambda: photo_bytes("TIFF", mode="1"),
        "numbers with a point": lambda: photo_bytes("TIFF", mode="F"),
    }  # fmt: skip
    for may_pass, files in ((False, refused), (True, allowed)):
        for name, make in files.items():
            yield Trial("photo", name, INVERT, _photo(base, make), may_pass)

    def endless(folder: Path, draw: Random) -> None:
        base.put_encoded(folder)
        (folder / "a.jpg").symlink_to("/dev/zero")

    yield Trial("photo", "an endless device", INVERT, endless)


def of_encoders(base: Base) -> Iterator[Trial]:
    """Encoders whose header or tensors are hostile."""
    good = _metadata(base)
    spec = good["spec"]
    tensors = load_encoder(base.encoded / ENCODER_FILE).encoder.state_dict()
    texts = {
        "nothing": "",
        "a list": "[]",
        "deep": RAW["@deep@"],
        "digits": RAW["@digits@"],
        "another format": text_of({**good, "format": "@digits@"}),
        "another kind": text_of({**good, "kind": ["encoder"]}),
        "no spec": text_of({key: value for key, value in good.items() if key != "spec"}),
        "a spec of lists": text_of({**good, "spec": "@deep@"}),
        "a spec with more": text_of({**good, "spec": {**spec, "more": 1}}),
        "a space of lists": text_of({**good, "spec": {**spec, "space": "@deep@"}}),
        "huge numbers": text_of({**good, "spec": {**spec, "dim": 2**62}}),
        "many layers": text_of({**good, "spec": {**spec, "space": "w+", "layers": 2**31}}),
        "many channels": text_of({**good, "spec": {**spec, "channels": 2**20}}),
        "sides of digits": text_of({**good, "spec": {**spec, "height": "@digits@"}}),
        "sides of another picture": text_of({**good, "spec": {**spec, "height": 4096, "width": 4096}}),
        "no generator": text_of({**good, "generator": None}),
        "a generator of lists": text_of({**good, "generator": "@wide@"}),
        "a generator of a secret": text_of({**good, "generator": {**good["generator"], "weights_sha256": "@env@"}}),
        "another generator": text_of({**good, "generator": {**good["generator"], "weights_sha256": "0" * 64}}),
        "a face of texts": text_of({**good, "face": [["a", "b"]] * 5}),
        "a face far away": text_of({**good, "face": [[1e300, 0.5]] * 5}),
        "a face of many points": text_of({**good, "face": [[0.5, 0.5]] * 100_000}),
        "figures of texts": text_of({**good, "figures": {"psnr": "a"}}),
        "figures of digits": text_of({**good, "figures": {"psnr": "@digits@"}}),
        "training of lists": text_of({**good, "training": ["@deep@"]}),
    }
    for name, text in texts.items():
        yield Trial("encoder", name, INVERT, _encoder(base, text, tensors))
    first = next(iter(tensors))
    spoiled = {
        "no tensors": {"a": tensors[first][:0]},
        "one tensor fewer": {key: value for key, value in tensors.items() if key != first},
        "one tensor more": {**tensors, "more": tensors[first].clone()},
        "a tensor of another shape": {**tensors, first: tensors[first].flatten()[:3].clone()},
        "a tensor that is not finite": {**tensors, first: tensors[first] * float("nan")},
        "whole numbers": {key: value.int() for key, value in tensors.items()},
    }
    for name, content in spoiled.items():
        yield Trial("encoder", name, INVERT, _encoder(base, json.dumps(good), content), name == "whole numbers")


def spoilt_photos(base: Base, number: int) -> Trial:
    """One of endlessly many photos or encoders with damage."""
    name = f"photo damage {number}"
    if number % 4 < 3:
        kind = _KINDS[number % len(_KINDS)]

        def photo(folder: Path, draw: Random) -> None:
            base.put_encoded(folder)
            (folder / "a.jpg").write_bytes(spoilt(draw, photo_bytes(kind, (draw.randint(1, 80), draw.randint(1, 80)))))

        return Trial("photo", name, INVERT, photo, True)

    def encoder(folder: Path, draw: Random) -> None:
        base.put_encoded(folder)
        (folder / "a.jpg").write_bytes(photo_bytes("JPEG"))
        path = folder / "run" / ENCODER_FILE
        if number % 8 == 3:
            tensors = load_encoder(path).encoder.state_dict()
            save_file(tensors, path, {"latentclr": text_of(hostile_copy(draw, _metadata(base)))})
        else:
            path.write_bytes(spoilt(draw, path.read_bytes()))

    return Trial("encoder", name, INVERT, encoder, True)


def _metadata(base: Base) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(safetensors_metadata(base.encoded / ENCODER_FILE)["latentclr"])
    return metadata


def _photo(base: Base, make: Callable[[], bytes]) -> Callable[[Path, Random], None]:
    def write(folder: Path, draw: Random) -> None:
        base.put_encoded(folder)
        (folder / "a.jpg").write_bytes(make())

    return write


def _encoder(base: Base, text: str, tensors: dict[str, Any]) -> Callable[[Path, Random], None]:
    def write(folder: Path, draw: Random) -> None:
        base.put_encoded(folder)
        (folder / "a.jpg").write_bytes(png_bytes({}, size=(16, 16)))
        save_file(tensors, folder / "run" / ENCODER_FILE, {"latentclr": text})

    return write
