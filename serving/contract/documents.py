"""YAML and JSON from anybody, read as plain data within bounds: bytes, values, depth and digits.

No text that comes from a file is ever interpolated: OmegaConf would look `${oc.env:NAME}` up in the environment, and
what is read here is later merged, printed and saved. It is looked for in the parsed strings, since YAML and JSON can
write the dollar sign as an escape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

LARGEST, MOST_VALUES, DEEPEST, MOST_DIGITS = 1_000_000, 50_000, 32, 40
"""Bounds of a document: bytes, values (keys count too), nested containers, characters of a whole number."""
_LARGEST_MANIFEST, _MOST_IN_MANIFEST = 8_000_000, 200_000


def read_json(text: str | bytes, largest: int = LARGEST, most: int = MOST_VALUES) -> Any:
    """Read JSON.

    Args:
        text: The document.
        largest: Its most bytes (characters, of a text).
        most: Its most values.

    Raises:
        ValueError: It is not JSON, outside the bounds, or holds an interpolation; the message is one short line, a verb
            first, to stand after the name of what was read.
    """
    _check_size(text, largest)
    try:
        value = json.loads(text, parse_int=_whole)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"is nested more than {DEEPEST} deep") from None
    check_plain(value, most)
    return value


def read_json_file(path: Path, largest: int = LARGEST, most: int = MOST_VALUES) -> Any:
    """Read a JSON file; of one that is too large, no more than its bound.

    Raises:
        OSError: It cannot be read.
        ValueError: As `read_json`.
    """
    with path.open("rb") as file:
        return read_json(file.read(largest + 1), largest, most)


def read_manifest(text: str | bytes) -> Any:
    """Read a served model's description of itself: a catalog of names may stand in it, beside a thousand classes.

    Raises:
        ValueError: As `read_json`.
    """
    return read_json(text, _LARGEST_MANIFEST, _MOST_IN_MANIFEST)


def read_yaml(text: str | bytes, largest: int = LARGEST, most: int = MOST_VALUES) -> Any:
    """Read YAML of plain tables, lists and scalars: no aliases, tags or dates, and 1:30 is a text.

    Args:
        text: The document.
        largest: Its most bytes (characters, of a text).
        most: Its most values.

    Raises:
        ValueError: It is not YAML, outside the bounds, or holds an interpolation; the message is one short line, a verb
            first, to stand after the name of what was read.
    """
    import yaml

    _check_size(text, largest)
    try:
        loader = _loader()(text)
        loader.left = most
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"is not YAML{place}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {' '.join(str(error).split())[:200]}") from None
    except RecursionError:
        raise ValueError(f"is nested more than {DEEPEST} deep") from None
    check_plain(value, most)
    return value


def check_plain(value: Any, most: int = MOST_VALUES) -> None:
    """Check data that some other reader brought.

    Args:
        value: Nested tables, lists and scalars; what else stands there is not looked into.
        most: The most values.

    Raises:
        ValueError: It is outside the bounds, or a text (a key too) holds an interpolation.
    """
    todo, seen = [(value, 0)], 0
    while todo:
        item, depth = todo.pop()
        seen += 1
        if seen > most:
            raise ValueError(f"holds more than {most} values")
        if isinstance(item, str):
            if "${" in item:
                raise ValueError("holds an interpolation ${...}; write the value instead")
            if not item.isascii() and any("\ud800" <= letter <= "\udfff" for letter in item):
                raise ValueError("holds half a surrogate pair, which is no text")
        elif isinstance(item, int) and item.bit_length() > 4 * MOST_DIGITS:
            raise ValueError(f"holds a number of more than {MOST_DIGITS} digits")
        elif isinstance(item, Mapping | list | tuple):
            if depth == DEEPEST:
                raise ValueError(f"is nested more than {DEEPEST} deep")
            parts = [*item.keys(), *item.values()] if isinstance(item, Mapping) else item
            if len(parts) > most:
                raise ValueError(f"holds more than {most} values")
            todo += [(part, depth + 1) for part in parts]


def _check_size(text: str | bytes, largest: int) -> None:
    if len(text) > largest:
        raise ValueError(f"must be at most {largest} bytes")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"holds a number of {len(text)} digits, the most are {MOST_DIGITS}")
    return int(text)


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Make the loader once; PyYAML is loaded only by whoever reads YAML."""
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's safe loader without what makes little text large or one thing another."""

        left = MOST_VALUES
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Read one node, if it is within the bounds."""
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            mark: Any = event.start_mark
            if isinstance(event, yaml.AliasEvent):
                raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read", mark)
            if event.tag is not None:  # also one of YAML's own: !!int makes a number of what is none
                raise yaml.composer.ComposerError(None, None, "tags (!name) are not read", mark)
            self.left -= 1
            if self.left < 0 or self.depth > DEEPEST:
                what = "more values" if self.left < 0 else "deeper nesting"
                raise yaml.composer.ComposerError(None, None, f"{what} than can be read", mark)
            self.depth += 1
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_whole(self, node: Any) -> Any:
            """Read a whole number, of a bounded length and in no base of 60."""
            if ":" in node.value or len(node.value) > MOST_DIGITS:
                raise yaml.constructor.ConstructorError(
                    None, None, f"a whole number must have at most {MOST_DIGITS} digits", node.start_mark
                )
            return self._number(self.construct_yaml_int, node)

        def construct_real(self, node: Any) -> Any:
            """Read a number, in no base of 60."""
            if ":" in node.value or len(node.value) > 1000:
                raise yaml.constructor.ConstructorError(None, None, "not a number", node.start_mark)
            return self._number(self.construct_yaml_float, node)

        def _number(self, construct: Any, node: Any) -> Any:
            try:
                return construct(node)
            except ValueError:  # YAML 1.1's pattern of a number also matches 0x_
                raise yaml.constructor.ConstructorError(None, None, "not a number", node.start_mark) from None

    core = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}
    plain = yaml.SafeLoader.yaml_constructors
    Loader.yaml_constructors = {tag: plain[tag] for tag in core} | {None: plain[None]}
    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_whole)
    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_real)
    Loader.yaml_implicit_resolvers = {
        first: [(tag, _NotBase60(pattern)) for tag, pattern in resolvers if tag in core]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


class _NotBase60:
    """YAML 1.1's pattern of a scalar, without 1:30, which would be ninety."""

    def __init__(self, pattern: Any) -> None:
        self.pattern = pattern

    def match(self, text: str) -> Any:
        return None if ":" in text else self.pattern.match(text)
