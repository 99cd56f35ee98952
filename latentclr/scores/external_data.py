"""Which other files an ONNX model takes its weights from, found before any engine opens them.

An ONNX file is a protobuf message, and each of its tensors may name a file, an offset and a length. Such a name is a
path, and may lead anywhere. ONNX Runtime's older versions follow it; so the names are read here first. Only the fields
that can lead to a tensor are followed, by their numbers in onnx.proto; numbers and texts are skipped, never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# Message -> field number -> the message in it (onnx/onnx.proto).
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_DEEPEST, _MOST_FIELDS = 64, 2_000_000


def external_files(model: bytes) -> set[str]:
    """Return the names that a model's tensors give for files with their numbers.

    Args:
        model: The `.onnx` file's content.

    Raises:
        ValueError: It is no protobuf message, or nested too deep or of too many parts to be looked through; the message
            is one short line, a verb first.
    """
    names: set[str] = set()
    todo = [("model", memoryview(model), 0)]
    seen = 0
    while todo:
        kind, message, depth = todo.pop()
        if depth > _DEEPEST:
            raise ValueError(f"is nested more than {_DEEPEST} deep")
        texts: list[tuple[int, bytes]] = []
        for number, part in _parts(message):
            seen += 1
            if seen > _MOST_FIELDS:
                raise ValueError(f"has more than {_MOST_FIELDS} parts")
            if kind == "entry":
                texts.append((number, bytes(part[:5000])))
            elif number in _FIELDS[kind]:
                todo.append((_FIELDS[kind][number], part, depth + 1))
        if (1, b"location") in texts:
            names |= {text.decode("utf-8", "replace") for number, text in texts if number == 2}
    return names


def check_external_files(model: bytes, folder: Path) -> bool:
    """Check that a model takes its numbers only from files in its own folder; return whether it has any such.

    Raises:
        ValueError: It names a file elsewhere or one that is not there, or is no ONNX model; the message is one short
            line, a verb first.
    """
    names = external_files(model)
    home = folder.resolve()
    for name in sorted(names):
        shown = name[:80]
        try:
            path = (home / name).resolve()
            inside, there = path.is_relative_to(home), path.is_file()
        except (OSError, ValueError, RuntimeError):  # a zero byte, a name too long, links in a circle
            inside = there = False
        if not inside:
            raise ValueError(f"takes numbers from {shown!r}, which is not in its own folder")
        if not there:
            raise ValueError(f"takes numbers from {shown!r}, which is not there")
    return bool(names)


def _parts(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each length-delimited field of a protobuf message."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == 2:
            length, place = _varint(message, place)
            end = place + length
            if end <= len(message):
                yield number, message[place:end]
            place = end
        elif kind == 0:
            _, place = _varint(message, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:  # groups, which no ONNX model has, and kinds that do not exist
            raise ValueError("is no ONNX model")
        if place > len(message):
            raise ValueError("is no ONNX model, or cut short")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("is no ONNX model, or cut short")
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("is no ONNX model")
