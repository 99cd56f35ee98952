"""Pages of `latentclr export --target web` on a host of their own, in a headless Chromium."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from common.report import BenchmarkError

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
WAIT_S = 180
PICTURES = "Number(document.getElementById('after').dataset.drawn ?? 0)"
# The page's own engine draws golden requests; of a slow model not all.
GOLDEN = """async ([rows, seconds]) => {
  const { engine } = await import('./api.js');
  const { arraysOf } = await import('./rows.js');
  const drawn = [], started = performance.now();
  for (const row of rows) {
    const arrays = arraysOf(engine.manifest, { ...row, code: Float32Array.from(row.code) });
    const { pixels, ms } = await engine.draw(arrays, { urgent: true });
    drawn.push({ ms, pixels: Array.from(pixels) });
    if (performance.now() - started > 1000 * seconds) break;
  }
  return drawn;
}"""


class Host(http.server.SimpleHTTPRequestHandler):
    """A static host, which isolates its pages or not."""

    isolated = False

    def end_headers(self) -> None:
        """Send the headers that give a page threads."""
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def hosted(folder: Path, isolated: bool) -> Iterator[str]:
    """Serve a folder on a free port of this machine; yield its address."""
    handler = functools.partial(type("Mine", (Host,), {"isolated": isolated}), directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running_browser() -> Iterator[Any]:
    """Start a browser whose files go into a folder that is removed.

    Raises:
        BenchmarkError: There is none.
    """
    if shutil.which(CHROMIUM) is None:
        raise BenchmarkError(f"expected {CHROMIUM}: apt-get install chromium, or name another in $CHROMIUM")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="latentclr-bench-") as home, sync_playwright() as playwright:
        environment: dict[str, str | float | bool] = {
            **os.environ,
            "HOME": home,
            "XDG_CONFIG_HOME": home,
            "XDG_CACHE_HOME": home,
        }
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=False, args=OPTIONS, env=environment)
        yield browser
        browser.close()


def open_page(browser: Any, address: str) -> tuple[Any, float, float]:
    """Open a page and wait for its first picture.

    Returns:
        The page, the seconds that took, and the MiB that the largest of the browser's processes had meanwhile.

    Raises:
        BenchmarkError: The page says that it cannot draw, or draws nothing.
    """
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    start, most = time.perf_counter(), 0.0
    page.goto(address)
    while not page.evaluate(PICTURES):
        most = max(most, renderer_mib())
        if page.is_visible("#banner"):
            raise BenchmarkError(page.locator("#banner").inner_text())
        if time.perf_counter() - start > WAIT_S:
            raise BenchmarkError(f"the page has drawn nothing after {WAIT_S} s")
        page.wait_for_timeout(20)
    return page, time.perf_counter() - start, max(most, renderer_mib())


def pictures_while_dragging(page: Any, seconds: float) -> tuple[float, float]:
    """Drag the first slider to and fro with the mouse.

    Returns:
        Pictures that were drawn in a second, and movements that the browser took in a second.
    """
    handle = page.locator("#sliders input[type=range]").first
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    middle, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle, y)
    page.mouse.down()
    before, moves, start = page.evaluate(PICTURES), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        share = abs(moves % 60 - 30) / 30 - 0.5  # there and back
        page.mouse.move(middle + 0.8 * share * box["width"], y)
        moves += 1
    took = time.perf_counter() - start
    drawn = page.evaluate(PICTURES) - before
    page.mouse.up()
    return drawn / took, moves / took


def renderer_mib() -> float:
    """Return the memory of its own that the largest page of this process's browsers has, in MiB."""
    most = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                most = max(most, process.memory_full_info().uss)
        except psutil.Error:
            continue
    return most / 2**20
