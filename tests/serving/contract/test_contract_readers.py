"""What reads documents and arrays from anybody: bounds, and one short line for everything else."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_editor

from serving.contract.arrays import read_npy
from serving.contract.documents import read_json, read_json_file, read_yaml
from serving.contract.errors import CatalogError, CatalogWriteError
from serving.contract.pbtxt import LARGEST_CONFIG, read_pbtxt
from serving.contract.published import PublishedModel


def refused(message: str) -> Any:
    return pytest.raises(ValueError, match=message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        ("[" * 100_000, "is nested more than 32 deep"),
        ('{"a":' * 100_000, "is nested more than 32 deep"),
        ("[" * 33 + "]" * 33, "is nested more than 32 deep"),
        ("[" + "0," * 60_000 + "0]", "holds more than 50000 values"),
        (" " * 1_000_001, "must be at most 1000000 bytes"),
        ("1" * 41, "holds a number of 41 digits"),
        ('{"\\u0024{oc.env:HOME}": 1}', "holds an interpolation"),
    ],
)
def test_json_is_bounded(text: str | bytes, message: str) -> None:
    with refused(message) as caught:
        read_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_json_is_read(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, None, True, "é"], "b": {"c": "9" * 40}, "d": 10**39}
    assert read_json(json.dumps(value)) == value
    (tmp_path / "a.json").write_text(json.dumps(value), encoding="utf-8")
    assert read_json_file(tmp_path / "a.json") == value
    with refused("must be at most 10 bytes"):
        read_json_file(tmp_path / "a.json", 10)
    with open(tmp_path / "sparse.json", "wb") as file:
        file.truncate(1 << 40)  # nobody has so much memory: only its beginning is read
    with refused("must be at most 1000000 bytes"):
        read_json_file(tmp_path / "sparse.json")


@pytest.mark.parametrize(
    "value", ['!!int ""', "!!int +", "!!float abc", "!!bool maybe", "!!str 1", "! a", "!!seq []", "!!map {}", "!a b"]
)
def test_yaml_has_no_tags(value: str) -> None:
    """YAML's own have its constructors read what its patterns never matched, and they fail in ways of their own."""
    with refused(r"is not YAML, line 2: tags \(!name\) are not read"):
        read_yaml(f"b: 1\na: {value}\n")


@pytest.mark.parametrize("value", ["0x_", "-0b_"])
def test_a_yaml_number_without_digits_is_none(value: str) -> None:
    with refused("is not YAML, line 2: not a number"):
        read_yaml(f"b: 1\na: {value}\n")


def test_a_model_is_given_no_names_that_make_it_unreadable(tmp_path: Path) -> None:
    tiny_editor.add_model(tmp_path, "m", tiny_editor.config("m"))
    before = (tmp_path / "m" / "config.pbtxt").read_text()
    model = PublishedModel(tmp_path, "m")
    for note in ("${oc.env:HOME}", "x" * 8_000_000):
        with pytest.raises(CatalogWriteError, match="could not be read again with these names"):
            model.update(lambda edits, note=note: {**edits, "smile": {**edits["smile"], "note": note}})  # type: ignore[misc]
        assert (tmp_path / "m" / "config.pbtxt").read_text() == before
    hostile = tiny_editor.config("m", manifest={**tiny_editor.MANIFEST, "edits": {"${oc.env:HOME}": {}}})
    (tmp_path / "m" / "config.pbtxt").write_text(hostile)
    with pytest.raises(CatalogError, match="has no manifest"):
        PublishedModel(tmp_path, "m").manifest()


@pytest.mark.parametrize(
    "text",
    [
        "x", "input [" * 5000, "name: '" + "x" * 1_000_000,
        'name: "\\377"', b"\xff\xfe", "max_batch_size: " + "9" * 5000,
        'name: "a" ' * 1000, "parameters { key: 'a' value { " * 5000,
    ],
)  # fmt: skip
def test_a_damaged_configuration_is_one_short_line(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(r"\w") as caught:
        read_pbtxt(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300


def test_a_configuration_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(tiny_editor.config("m"))
    assert read_pbtxt(path).name == "m"
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with refused(f"it must be at most {LARGEST_CONFIG} bytes"):
        read_pbtxt(path)


def npy(header: str | bytes, version: tuple[int, int] = (1, 0), data: bytes = b"", length: int | None = None) -> bytes:
    text = header.encode("latin1") if isinstance(header, str) else header
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + text + data


def described(dtype: str, shape: str, fortran: bool = False) -> str:
    return f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}}}\n"


def saved(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


GOOD = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    "array",
    [
        GOOD, np.asfortranarray(GOOD), GOOD.astype(">f8"), GOOD.astype(np.float16), GOOD > 3, GOOD.astype("u8"),
        np.asfortranarray(np.arange(24, dtype="i2").reshape(2, 3, 4)), np.float64(3), np.zeros((0, 4)),
        np.zeros((4, 0)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_arrays_of_numbers_are_read_as_they_are(array: Any, version: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.asarray(array), version)
    got = read_npy(path)
    assert (got.dtype, got.shape) == (np.asarray(array).dtype, np.shape(array))
    np.testing.assert_array_equal(got, array)


F4 = described("'<f4'", "(3, 4)")
BAD: dict[str, tuple[bytes, str]] = {
    "objects": (saved(np.array([{}, None], object), allow_pickle=True), "must hold numbers, got object"),
    "complex": (saved(GOOD.astype(complex)), "must hold numbers, got complex128"),
    "datetime": (saved(np.zeros(3, "M8[s]")), r"must hold numbers, got datetime64\[s\]"),
    "timedelta": (saved(np.zeros(3, "m8[s]")), "must hold numbers, got timedelta"),
    "text": (saved(np.array(["a", "b"])), "must hold numbers, got <U1"),
    "bytes": (saved(np.array([b"a"])), r"must hold numbers, got \|S1"),
    "void": (npy(described("'|V4'", "(3,)"), data=b"\0" * 12), r"must hold numbers, got \|V4"),
    "structure": (saved(np.zeros(3, [("a", "f4"), ("b", "i4")])), "must hold numbers, got "),
    "structure 3.0": (npy(described("[('é', '<f4')]", "(3,)").encode(), (3, 0), b"\0" * 12), "not a plain .npy"),
    "subarray": (npy(described("('<f4', (2,))", "(3,)"), data=b"\0" * 24), "not a plain|must hold"),
    "long double": (saved(GOOD.astype(np.longdouble)), "must hold numbers, got float128"),
    "version 3": (npy(F4, (3, 0), b"\0" * 48), "not a plain .npy"),
    "version 9": (npy(F4, (9, 0), b"\0" * 48), "not a plain .npy"),
    "huge": (npy(described("'<f4'", "(1000000000, 1000000000)")), "must be at most 1073741824 bytes"),
    "large": (npy(described("'<f4'", "(1000, 1000)"), data=b"\0" * 100), "is cut short"),
    "overflow": (npy(described("'<f4'", "(4294967296, 4294967296, 4294967296)")), "must be at most"),
    "too long": (npy(described("'<f4'", "(99999999999999999999, 0)")), "not a plain .npy"),
    "negative": (npy(described("'<f4'", "(-1, -4)"), data=b"\0" * 16), "not a plain .npy"),
    "axes": (npy(described("'<f4'", "(" + "1, " * 40 + ")"), data=b"\0" * 4), "not a plain .npy"),
    "true": (npy(described("'<f4'", "(True, 4)"), data=b"\0" * 16), "not a plain .npy"),
    "pickle": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", "not a plain .npy"),
    "archive": (b"PK\x03\x04" + b"\0" * 100, "not a plain .npy"),
    "empty": (b"", "not a plain .npy"),
    "call": (npy("__import__('os').system('true')\n"), "not a plain .npy"),
    "nested": (npy("(" * 9000 + "\n", (2, 0)), "not a plain .npy"),
    "no shape": (npy("{'descr': '<f4', 'fortran_order': False}\n"), "not a plain .npy"),
    "long header": (npy(F4, (2, 0), b"\0" * 48, length=2**32 - 1), "not a plain .npy"),
    "shapes": (npy(described("'<f4'", "'3'"), data=b"\0" * 12), "not a plain .npy"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_other_arrays_are_refused(name: str, tmp_path: Path) -> None:
    data, message = BAD[name]
    (tmp_path / "a.npy").write_bytes(data)
    with refused(message) as caught:
        read_npy(tmp_path / "a.npy")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kept", [1, 6, 8, 9, 10, 60, 127, 128, 175])
def test_an_array_that_is_cut_short_is_refused(kept: int, tmp_path: Path) -> None:
    whole = saved(GOOD)
    assert len(whole) == 176
    (tmp_path / "a.npy").write_bytes(whole[:kept])
    with refused("not a plain .npy|is cut short"):
        read_npy(tmp_path / "a.npy")


def test_no_more_of_a_header_is_read_than_one_can_have(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy("", (2, 0), length=2**32 - 1))
    with open(path, "r+b") as file:
        file.truncate(1 << 33)  # a header of 4 GiB is really there
    with refused("not a plain .npy"):
        read_npy(path)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npy", tmp_path):
        with refused("cannot be read: (No such file|Is a directory)"):
            read_npy(path)
