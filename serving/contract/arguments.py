"""What a program hands to a client, checked by type: a person reads what was expected, never a stack trace."""

from __future__ import annotations

import math
import reprlib

import numpy as np

from serving.errors import InvalidEdit, ServingError


def check_whole(name: str, value: object) -> None:
    """Check that an argument is a whole number, Python's or numpy's.

    Raises:
        InvalidEdit: It is something else.
    """
    if type(value) is not int and not isinstance(value, np.integer):
        raise InvalidEdit(f"{name} must be a whole number, got {shown(value)}", field=name)
    if type(value) is int and value.bit_length() > 64:
        raise InvalidEdit(f"{name} must be a whole number of at most 64 bits", field=name)


def check_seconds(name: str, value: object) -> None:
    """Check that an argument is a number of seconds.

    Raises:
        ServingError: It is something else, not above 0 or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ServingError(f"{name} must be a number of seconds, got {shown(value)}")
    if not 0 < value < math.inf:
        raise ServingError(f"{name} must be above 0 seconds and finite, got {float(value):g}")


def shown(value: object) -> str:
    """A value for a message, short and on one line."""
    try:
        return " ".join(reprlib.repr(value).split())
    except ValueError:  # Python writes out no integer of thousands of digits
        return f"a large {type(value).__name__}"
