"""How large a page of `latentclr export --target web` is, how soon it draws, and how often while a slider moves.

    python benchmarks/web.py --output benchmarks/results/web.json

The faces, and with --large BigGAN of 128 and StyleGAN2 of 256 pixels with seeded weights, are written as pages and
opened in a headless Chromium on this machine: as a static host such as GitHub Pages gives them (one thread), and
isolated (threads). The page's own engine draws golden requests, which are held against eager PyTorch; then the mouse
drags a slider, and the pictures on the screen are counted. There is no GPU in it: the CPU draws, and paints too.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from common.engines import open_editor
from common.machine import describe_machine
from common.pages import GOLDEN, hosted, open_page, pictures_while_dragging, running_browser
from common.report import Benchmark, finish, target
from common.timing import summarise, table
from export_model import train_faces, write_untrained

from export.golden import draw_golden
from export.web.page import visitor_bytes
from export.web.pipeline import export_web
from serving.contract.certificate import Comparison
from serving.contract.golden import Golden, compare_golden, identity_of

PAGES = {"faces": ("dcgan", 64), "biggan": ("biggan", 128), "stylegan2": ("stylegan2", 256)}
GOLDEN_CODES = {"faces": 10}  # of the others two, for there is no time to draw more
FACES_ITERATIONS = 400
LARGEST_FACES_MB, DRAGGED_AT_LEAST = 7.0, 15.0
COLUMNS = ("page", "way", "weights", "graph_mb", "loads_mb", "first_s", "p50_ms", "dragged_per_s", "worst_step",
           "mean_step", "peak_mib")  # fmt: skip


@click.command(cls=Benchmark)
@click.option("--run", type=click.Path(path_type=Path, exists=True), help="Run of the faces.  [default: train one]")
@click.option("--large", is_flag=True, help="BigGAN and StyleGAN2 too, which takes a quarter of an hour.")
@click.option(
    "--seconds", type=click.FloatRange(0.5), default=5.0, show_default=True, help="Of dragging, and of timing."
)
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Keep the pages here, and use them again."
)
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    run: Path | None, large: bool, seconds: float, folder: Path | None, note: str | None, output: Path | None
) -> None:
    """Measure pages in a browser."""
    start = describe_machine()
    results: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentclr-bench-")))
        browser = None
        for name in PAGES if large else ("faces",):
            golden = _page(place, name, run if name == "faces" else None)
            browser = browser or stack.enter_context(running_browser())
            for isolated in (False, True):
                with hosted(place / "pages", isolated) as address:
                    results.append(_measure(browser, f"{address}/{name}/", place / "pages" / name, golden, seconds))
    click.echo(table(results, COLUMNS))
    faces = results[0]
    finish(
        "web",
        start=start,
        settings={"seconds": seconds, "large": large, "run": "given" if run else "trained"},
        results=results,
        targets=[
            target("faces: the graph, MB", faces["graph_mb"], at_most=LARGEST_FACES_MB),
            target("faces: pictures a second while dragging, one thread", faces["dragged_per_s"],
                   at_least=DRAGGED_AT_LEAST),
        ],
        random_weights=False,
        note=note,
        output=output,
    )  # fmt: skip


def _page(place: Path, name: str, run: Path | None) -> Golden:
    """Write a page into `place`/pages unless it is there; return golden requests of its run."""
    generator, resolution = PAGES[name]
    run = run or place / "runs" / name
    if not run.exists():
        run.parent.mkdir(parents=True, exist_ok=True)
        if name == "faces":
            train_faces(run, FACES_ITERATIONS)
        else:
            write_untrained(run, generator, resolution)
    page = place / "pages" / name
    if not page.exists():
        export_web(run, [], page, say=click.echo)
    _, _, editor, end = open_editor(run)
    about = identity_of(json.loads((page / "manifest.json").read_text()))
    with torch.no_grad():
        return draw_golden(editor, about, (-end, -end / 2, end / 4, end), most_codes=GOLDEN_CODES.get(name, 2))


def _measure(browser: Any, address: str, folder: Path, golden: Golden, seconds: float) -> dict[str, Any]:
    """Open a page, let it draw golden requests, and drag a slider."""
    page, first, peak = open_page(browser, address)
    made = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    described = json.loads(made["page.json"])
    way = str(page.locator("#model").inner_text()).rpartition(" · ")[2]
    page.wait_for_timeout(2000)  # what is drawn of itself
    drawn = page.evaluate(GOLDEN, [_requests(golden), seconds])
    comparison, shape = Comparison(), golden.images.shape[1:]
    images = {row: np.array(one["pixels"], np.uint8).reshape(shape) for row, one in enumerate(drawn)}
    known = [row for row in images if int(golden.unedited[row]) in images]
    compare_golden(comparison, golden.without([row for row in range(len(golden)) if row not in known]), images)
    dragged, moves = pictures_while_dragging(page, seconds)
    page.close()
    measured = comparison.measured()
    graph = sum(one["bytes"] for one in described["graph"]["files"])
    return {
        "page": folder.name, "pixels": shape[0], "way": way, "weights": described["graph"]["weights"],
        "graph_mb": round(graph / 1e6, 2), "loads_mb": round(visitor_bytes(made)["wasm"] / 1e6, 2),
        "first_s": round(first, 2), **summarise([one["ms"] / 1e3 for one in drawn]),
        "dragged_per_s": round(dragged, 2), "moves_per_s": round(moves, 1), "images": measured["images"],
        "worst_step": measured["worst_step"], "mean_step": round(measured["mean_step"], 4), "peak_mib": round(peak),
    }  # fmt: skip


def _requests(golden: Golden) -> list[dict[str, Any]]:
    rows = []
    for row in range(len(golden)):
        code, direction, alpha, *classes = golden.request([row])
        rows.append({"code": code[0].tolist(), "direction": direction[0].tolist(), "alpha": alpha[0].tolist(),
                     "classId": int(classes[0][0]) if classes else None})  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
