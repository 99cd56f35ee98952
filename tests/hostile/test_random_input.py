"""Readers of what comes from outside return plain data or raise their own error, whatever the bytes are."""

from __future__ import annotations

import io
import json
import math
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from latentclr.errors import GeneratorError
from latentclr.generators.weights.safe_pickle import load_pickle
from latentclr.plain_load import load_plain, load_safetensors
from serving.contract.arrays import read_npy
from serving.contract.documents import DEEPEST, MOST_DIGITS, read_json, read_yaml
from serving.contract.named_edit import parse_entry

short = settings(max_examples=150, deadline=None, derandomize=True, database=None)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=30,
)
yaml_marks = st.text("[]{}:,-?&*!|>'\"%#@`~<= \n\ta01.x$\\", max_size=80)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


def check(value: Any, depth: int = 0) -> None:
    """Assert that a value is plain, within the bounds and without an interpolation."""
    assert depth <= DEEPEST
    if isinstance(value, Mapping):
        for key, part in value.items():
            check(key, depth + 1)
            check(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            check(part, depth + 1)
    else:
        assert value is None or type(value) in (bool, int, float, str)
        assert not isinstance(value, str) or ("${" not in value and value.encode() is not None)
        assert type(value) is not int or abs(value) < 16**MOST_DIGITS


def read(reader: Any, text: str | bytes) -> Any:
    try:
        value = reader(text)
    except ValueError as error:
        assert type(error) is ValueError  # of ours: none of its kinds, such as UnicodeDecodeError
        assert "\n" not in str(error)
        return None
    check(value)
    return value


@short
@given(st.binary(max_size=200) | yaml_marks | st.text(max_size=100))
def test_any_text_is_a_document_or_an_error(text: str | bytes) -> None:
    read(read_yaml, text)
    read(read_json, text)


@short
@given(documents)
def test_any_document_comes_back_or_is_an_error(document: Any) -> None:
    text = json.dumps(document)
    value = read(read_json, text)
    if value is not None:
        assert json.dumps(value) == text
    read(read_yaml, text)
    read(read_yaml, yaml.safe_dump(document, allow_unicode=True))
    for name, entry in document.items() if isinstance(document, dict) else [("a", document)]:
        try:
            _, edit = parse_entry(name, entry)
            assert all(map(math.isfinite, edit.alpha))
        except ValueError as error:
            assert type(error) is ValueError


@short
@given(data=st.data())
def test_any_bytes_are_an_array_a_table_or_an_error(data: st.DataObject, scratch: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.arange(6.0).reshape(2, 3))
    whole = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(0, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for content in (cut, data.draw(st.binary(max_size=100))):
        path = scratch / "a.npy"
        path.write_bytes(content)
        try:
            assert read_npy(path).dtype.kind in "biuf"
        except ValueError as error:
            assert type(error) is ValueError and "\n" not in str(error)
        for reader, expected in (
            (load_pickle, GeneratorError),
            (load_plain, ValueError),
            (load_safetensors, ValueError),
        ):
            try:
                reader(path)
            except expected as error:
                assert "\n" not in str(error)


OPCODES = st.sampled_from([opcode.code.encode("latin1") for opcode in pickletools.opcodes])
PARTS = st.sampled_from([
    b"K\x01", b"X\x01\0\0\0a", b"U\x01a", b"q\0h\0", b"]", b"}", b"(", b")", b"N", b"R", b"b", b"t", b"e", b"u", b"0",
    b"2", b"\x85", b"\x86", b"\x94", b"ccollections\nOrderedDict\n", b"c_codecs\nencode\n", b"cnumpy\ndtype\n",
])  # fmt: skip


@short
@given(parts=st.lists(OPCODES | PARTS | st.binary(max_size=4), max_size=60))
def test_any_instructions_are_data_or_one_error(scratch: Path, parts: list[bytes]) -> None:
    path = scratch / "a.pkl"
    path.write_bytes(b"\x80\x04" + b"".join(parts) + b".")
    try:
        load_pickle(path)
    except GeneratorError as error:
        assert "\n" not in str(error)
