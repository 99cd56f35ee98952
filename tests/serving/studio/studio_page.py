"""What the tests of the studio's page wait for, and how they compare pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chromium import until

# The canvas is large, and its PNG slow; every pixel of the model's 8x8 is in the small one.
SMALL = """(id) => {
  const small = Object.assign(document.createElement('canvas'), { width: 64, height: 64 });
  small.getContext('2d').drawImage(document.getElementById(id), 0, 0, 64, 64);
  return small.toDataURL();
}"""


@contextmanager
def drawn(page: Any) -> Iterator[None]:
    """Wait until the picture was drawn anew."""
    count = page.evaluate("Number(document.getElementById('after').dataset.drawn ?? 0)")
    yield
    until(page, f"Number(document.getElementById('after').dataset.drawn ?? 0) > {count}")


def opened(page: Any) -> Any:
    """Wait until the page is complete: picture, walk and gallery."""
    until(page, "document.getElementById('after').dataset.drawn > 0")
    until(page, "document.querySelectorAll('#walk canvas').length === 7")
    until(page, "document.querySelectorAll('#gallery canvas').length === 12")
    return page


def picture(page: Any, canvas: str = "after") -> str:
    return hashlib.sha256(page.evaluate(SMALL, canvas).encode()).hexdigest()
