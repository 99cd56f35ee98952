"""Debian's Chromium, as the tests of pages drive it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPTIONS = [
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
NO_GPU = ["--disable-gpu"]
WAIT_MS = 20_000
NEEDED = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("playwright") is None,
        reason="the browser tests need playwright: pip install playwright (no browser download)",
    ),
    pytest.mark.skipif(
        shutil.which(CHROMIUM) is None,
        reason=f"the browser tests need {CHROMIUM}: apt-get install chromium, or name another in $CHROMIUM",
    ),
]
"""Marks of a file of browser tests."""
NAMELESS = """() => [...document.querySelectorAll('button, input, a, progress, [role=img]')].filter((node) => {
  const by = document.getElementById(node.getAttribute('aria-labelledby'));
  const label = node.getAttribute('aria-label') || (by ?? node.labels?.[0])?.textContent || node.textContent;
  return !label?.trim();
}).map((node) => node.outerHTML)"""
"""What a screen reader would have no name for."""


@contextmanager
def running_browser(home: Path, options: Sequence[str] = NO_GPU) -> Iterator[Any]:
    """Start a browser whose files go into a folder of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
        running = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=False, args=[*OPTIONS, *options], env=environment
        )
        yield running
        running.close()


def until(page: Any, condition: str) -> None:
    """Wait for a condition. Playwright's own `wait_for_function` needs `eval`, which the page's policy forbids."""
    deadline = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(30)
