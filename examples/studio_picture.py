"""Take the studio's picture: a run's page in Chromium, with two edits, as docs/studio.png shows it.

`make studio-picture` runs it on what `make demo` made. With --page it opens the page that `export --target web` wrote,
as docs/web.png shows it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from latentclr.catalog import read_catalog
from latentclr.files import replacing

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
WAIT_S = 60
DRAWN = """document.querySelectorAll('.thumb').length > 0
  && document.querySelectorAll('.thumb:not([data-drawn])').length === 0
  && document.querySelectorAll('#walk canvas').length === 7"""


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--seed", default=7, show_default=True, help="Of the face.")
@click.option("--edit", "edits", multiple=True, metavar="NAME=ALPHA",
              help="A named edit that is on.  [default: the first two names, at half of their range]")  # fmt: skip
@click.option("--photo", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Edit this photo instead of the seed, and show it beside; the model has an encoder.")  # fmt: skip
@click.option("--size", default=(1280, 800), show_default=True, nargs=2, type=int, help="Of the window, in pixels.")
@click.option("--dark", is_flag=True, help="In dark colours.")
@click.option("--page", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Open this page, which needs no studio.")  # fmt: skip
@click.option("--output", "-o", type=click.Path(path_type=Path), default=Path("studio.png"), show_default=True)
def main(
    run: Path,
    seed: int,
    edits: tuple[str, ...],
    photo: Path | None,
    size: tuple[int, int],
    dark: bool,
    folder: Path | None,
    output: Path,
) -> None:
    """Serve RUN/model_repository, open the studio's page, and save what it looks like when all of it is drawn."""
    from playwright.sync_api import sync_playwright

    if shutil.which(CHROMIUM) is None:
        raise click.ClickException(f"expected {CHROMIUM}: apt-get install chromium, or name another in $CHROMIUM")
    catalog = read_catalog(run)
    chosen = dict(edit.split("=", 1) if "=" in edit else (edit, "") for edit in edits)
    if unknown := [name for name in chosen if name not in catalog]:
        raise click.ClickException(f"{run} has no edit {unknown[0]!r}, but {', '.join(catalog) or 'none'}")
    for name in [] if chosen else list(catalog)[:2]:
        chosen[name] = f"{catalog[name].alpha[1] / 2:.1f}"
    words = [sys.executable, "-m", "latentclr", "studio", str(run), "--repository", str(run / "model_repository"),
             "--port", "0"]  # fmt: skip
    if folder:
        words = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    quiet = subprocess.DEVNULL if folder else None  # every file that is asked for
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=quiet, text=True) as studio,
        tempfile.TemporaryDirectory() as home,
    ):
        try:
            address = _address(studio)
            page_of = f"{address}#seed={seed}&edits=" + ",".join(f"~{name}:{alpha}" for name, alpha in chosen.items())
            environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=CHROMIUM, headless=False, args=OPTIONS, env=environment
                )
                page = browser.new_page(
                    viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
                )
                page.goto(page_of)
                page.set_default_timeout(WAIT_S * 1000)
                if photo is not None:
                    page.check("input[name=view][value=pair]", force=True)
                    page.wait_for_selector("#photo-open:not([hidden])")
                    page.set_input_files("#photo-file", photo)
                    page.wait_for_selector("#photo-field:not([hidden])")
                    page.click("#photo-refine")
                    page.wait_for_selector("#photo-progress[hidden]", state="attached")
                deadline = time.monotonic() + WAIT_S
                while not page.evaluate(DRAWN):  # the page's policy forbids what `wait_for_function` needs
                    if time.monotonic() > deadline:
                        raise click.ClickException(f"the page is not drawn after {WAIT_S} s")
                    for button in ("#thumbs-draw", "#walk-draw"):  # where the machine is busy, they wait for a click
                        if page.is_visible(button):
                            page.click(button)
                    page.wait_for_timeout(100)
                page.mouse.move(0, 0)
                page.wait_for_timeout(500)  # transitions
                with replacing(output) as temporary:
                    page.screenshot(path=temporary)
                browser.close()
        finally:
            studio.terminate()
    click.echo(f"{' and '.join(f'{name} {alpha}' for name, alpha in chosen.items())}: look at {output}")


def _address(studio: subprocess.Popen[str]) -> str:
    assert studio.stdout is not None
    for line in studio.stdout:
        if found := re.search(r"http://[\w.:]+/?", line):
            return found[0]
    raise click.ClickException("the studio did not start; its own message stands above")


if __name__ == "__main__":
    main()
