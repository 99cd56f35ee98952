"""Pictures on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.client.images import save_image, strip
from serving.errors import ImageError


def test_the_strip_holds_every_picture_unchanged() -> None:
    images = np.random.default_rng(0).integers(1, 255, (3, 64, 64, 3), dtype=np.uint8)
    picture = np.asarray(strip(images, ["-6", "0", "+6"], "direction 3"))
    for image in images:
        rows, columns = np.nonzero((picture == image[0, 0]).all(axis=-1))
        found = [picture[r : r + 64, c : c + 64] for r, c in zip(rows, columns, strict=True)]
        assert any(np.array_equal(part, image) for part in found)


def test_labels_must_match() -> None:
    with pytest.raises(ValueError, match="2 images and 1 labels"):
        strip(np.zeros((2, 8, 8, 3), np.uint8), ["a"])


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.webp"])
def test_save(tmp_path: Path, name: str) -> None:
    save_image(Image.new("RGB", (4, 4)), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (4, 4)


def test_a_picture_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_image(Image.new("RGB", (4, 4)), tmp_path / "a.png")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["a.docx", "a", "missing/a.png"])
def test_bad_names_leave_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="cannot write"):
        save_image(Image.new("RGB", (4, 4)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(ImageError, match="No space left on device"):
        save_image(Image.new("RGB", (4, 4)), target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
