"""Every kind of picture that people have becomes upright RGB, or one line that says why not."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from random import Random

import numpy as np
import pytest
from PIL import Image

from serving.contract.photo import reader
from serving.contract.photo.reader import MOST_PIXELS, read_photo
from serving.errors import PhotoError


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def picture():
    y, x = np.mgrid[:24, :40]
    return np.stack([x * 6, y * 10, np.where(x < 20, 30, 220)], axis=-1).astype(np.uint8)


def refused(source, words, **options):
    with pytest.raises(PhotoError) as caught:
        read_photo(source, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_its_content_a_picture_and_an_array_are_one_photo(picture, tmp_path):
    content = saved(Image.fromarray(picture))
    (tmp_path / "me.png").write_bytes(content)
    for source in (tmp_path / "me.png", str(tmp_path / "me.png"), content, Image.fromarray(picture), picture):
        photo = read_photo(source)
        assert np.array_equal(photo.pixels, picture) and photo.size == (24, 40)
        assert not photo.pixels.flags.writeable
    assert read_photo(content).sha256 == hashlib.sha256(content).hexdigest()
    assert read_photo(picture).sha256 == read_photo(Image.fromarray(picture)).sha256 != read_photo(content).sha256
    assert read_photo(picture[:, ::-1]).sha256 != read_photo(picture).sha256


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_by_exif(picture, orientation):
    """A camera writes what its sensor saw, and how to turn it: undo each turn of the eight."""
    as_seen = Image.fromarray(picture)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose's numbers, each the inverse of what is to be done
    sensor = as_seen if orientation == 1 else as_seen.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(saved(sensor, "PNG", exif=exif))
    assert np.array_equal(photo.pixels, picture)


def test_cmyk(picture):
    photo = read_photo(saved(Image.fromarray(picture).convert("CMYK"), "JPEG", quality=95, subsampling=0))
    assert np.abs(photo.pixels.astype(int) - picture).mean() < 4  # JPEG's loss; inverted ink would be > 50


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled(kind):
    values = np.array([[0, 128, 129, 257, 32896, 65406, 65407, 65535]], dtype=np.uint16)
    photo = read_photo(saved(Image.fromarray(values), kind))
    assert photo.pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]
    assert np.array_equal(photo.pixels[..., 0], photo.pixels[..., 2])


def test_sixteen_bits_of_each_colour():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">6H", 65535, 0, 32896, 257, 514, 65535)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert read_photo(content).pixels.tolist() == [[[255, 0, 128], [1, 2, 255]]]


def test_transparent_is_on_white(picture):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:4], alpha[4:8] = 0, 128
    seen = read_photo(saved(Image.fromarray(np.dstack([picture, alpha])))).pixels
    assert (seen[:4] == 255).all() and np.array_equal(seen[8:], picture[8:])
    half = picture[4:8] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(seen[4:8] - half).max() <= 1
    palette = Image.fromarray(picture).quantize(8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert (read_photo(saved(palette, transparency=palette.getpixel((0, 0)))).pixels[0, 0] == 255).all()
    assert (read_photo(saved(Image.fromarray(np.zeros((2, 2, 2), np.uint8), "LA"))).pixels == 255).all()


def test_palette_and_grey(picture):
    palette = Image.fromarray(picture).quantize(256)
    assert np.array_equal(read_photo(saved(palette)).pixels, np.asarray(palette.convert("RGB")))
    assert np.array_equal(read_photo(picture[..., 0]).pixels[..., 1], picture[..., 0])
    assert set(np.unique(read_photo(saved(Image.fromarray(picture).convert("1"))).pixels)) == {0, 255}


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    photo = read_photo(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert (photo.pixels == [255, 0, 0]).all()


@pytest.mark.parametrize("size", [(10_000, 10_000), (50_001, 1_000), (20_000, 20_000)])
def test_a_hundred_megapixels_are_refused_before_they_are_decoded(size):
    """The header says so; there is not one pixel behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    content += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    refused(content, "must have at most 50 megapixels")
    assert MOST_PIXELS == 50_000_000


def test_not_a_picture(tmp_path, monkeypatch):
    refused(b"%!PS-Adobe-3.0 EPSF\n", "photo is not a picture that can be read: expected JPEG, PNG")
    refused(b"", "upload is empty", name="upload")
    refused(tmp_path, "is a folder, not a picture")
    refused(tmp_path / "none.jpg", "none.jpg cannot be read: No such file")
    refused(3, "must be a path, bytes, a PIL picture or an array, got int")
    refused(np.zeros((4, 4, 3), np.float32), "must be uint8 [h, w, 3], got float32 [4, 4, 3]")
    refused(np.zeros((4, 0, 3), np.uint8), "got uint8 [4, 0, 3]")
    refused(Image.new("F", (2, 2)), "float pixels")
    refused("a\0b", "cannot be read")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is not a file")
    monkeypatch.setattr(reader, "LARGEST_FILE", 1 << 20)
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    refused(tmp_path / "large", "must be at most 1 MiB")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_damaged_picture_is_read_or_refused(picture, kind):
    whole, random = saved(Image.fromarray(picture), kind), Random(0)
    refused(whole[: len(whole) // 2], "photo ")
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        try:
            assert read_photo(bytes(damaged)).pixels.shape[2] == 3
        except PhotoError as error:
            assert "\n" not in str(error)
