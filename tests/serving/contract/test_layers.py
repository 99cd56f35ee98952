"""The one grammar of `--layers`, which `name` and `edit` share."""

from __future__ import annotations

import pytest

from serving import InvalidEdit
from serving.contract.layers import parse_layers, show_layers


@pytest.mark.parametrize(
    ("text", "layers", "shown"),
    [("4-5", (4, 5), "4-5"), ("0,2,5-7, 2", (0, 2, 5, 6, 7), "0,2,5-7"), ("3", (3,), "3"), ("1-1", (1,), "1")],
)
def test_layers_are_read_and_written(text: str, layers: tuple[int, ...], shown: str) -> None:
    assert parse_layers(text) == layers
    assert show_layers(layers) == shown
    assert parse_layers(shown) == layers


def test_no_layers_are_all() -> None:
    assert show_layers(()) == "all"


@pytest.mark.parametrize(
    "text", ["", "a", "5-4", "1-", "-1", "1-2-3", "99999", "0-99999999", "\u0663", "1;2", "x" * 999]
)
def test_what_is_no_layers(text: str) -> None:
    with pytest.raises(InvalidEdit, match=r"--layers must be like 4-5 or 0,2,5-7, got .{2,82}$"):
        parse_layers(text)
