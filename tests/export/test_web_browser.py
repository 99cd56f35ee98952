"""The page of `latentclr export --target web` in Debian's Chromium: nothing runs but the tab."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chromium import NAMELESS, NEEDED, running_browser, until
from numpy.typing import NDArray
from PIL import Image
from tiny_plugin import WORD

from export.editor import FusedEditor
from export.golden import draw_golden
from export.onnx import OnnxEditor
from export.web.pipeline import export_web
from export.web.runtime import runtime_folder
from latentclr.commands import run_train
from latentclr.config import TrainConfig
from latentclr.training.experiment import open_run, trained_generator
from serving.client.images import enlarge, read_recipe
from serving.contract.certificate import GATES, Comparison
from serving.contract.golden import Golden, compare_golden, identity_of
from serving.contract.latents import draw_row
from serving.contract.manifest import Manifest, parse_manifest

pytestmark = [
    *NEEDED,
    pytest.mark.skipif(
        not runtime_folder().is_dir(), reason="pages need ONNX Runtime Web: `python -m export.web.runtime` gets it"
    ),
]
# A GPU that is computed, and that the page leaves alone unless asked for it by name.
GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
ALPHAS = (-2.0, 1.0, 3.0)
HOSTILE = "<img src=x onerror=alert(1)>"
DRAW = """async (rows) => {
  const { engine } = await import('./api.js');
  const { arraysOf } = await import('./rows.js');
  const all = rows.map((row) => arraysOf(engine.manifest, { ...row, code: Float32Array.from(row.code) }));
  const drawn = await Promise.all(all.map((one) => engine.draw(one)));
  return drawn.map(({ pixels }) => btoa(String.fromCharCode(...pixels)));
}"""
SEEDS = """async ([spec, seeds]) => {
  const { drawCode } = await import('./random.js');
  const codes = new Float32Array(seeds.length * spec.dim);
  seeds.forEach((seed, i) => codes.set(drawCode(spec, seed), i * spec.dim));
  const bytes = new Uint8Array(codes.buffer);
  let text = '';
  for (let at = 0; at < bytes.length; at += 30000) text += String.fromCharCode(...bytes.subarray(at, at + 30000));
  return btoa(text);
}"""
ROWS = """async (bodies) => {
  const { engine } = await import('./api.js');
  const { rowOf } = await import('./rows.js');
  return bodies.map((body) => {
    try { return rowOf(engine.manifest, body); } catch (error) { return error.message; }
  });
}"""


class Host(http.server.SimpleHTTPRequestHandler):
    """Any static host: it knows no headers of ours, unless it isolates its pages."""

    isolated = False

    def do_GET(self) -> None:
        if "/graph-" in self.path:
            self.server.gate.wait()  # type: ignore[attr-defined]
        super().do_GET()

    def end_headers(self) -> None:
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]


@contextmanager
def hosted(folder: Path, isolated: bool = False) -> Iterator[SimpleNamespace]:
    """Serve a folder on a free port; `seen` are the paths that were asked for, and graphs wait for `gate`."""
    handler = functools.partial(type("Mine", (Host,), {"isolated": isolated}), directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.seen, server.gate = [], threading.Event()  # type: ignore[attr-defined]
        server.gate.set()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            about = {"seen": server.seen, "gate": server.gate}  # type: ignore[attr-defined]
            yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", **about)
        finally:
            server.gate.set()  # type: ignore[attr-defined]
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Pages in folders of one site: `faces` (as few bits as hold), `classes` (L = 3, 12 x 16, float32)."""
    folder = tmp_path_factory.mktemp("site")
    runs = {"faces": Path(shutil.copytree(trained, folder / "runs" / "faces")), "classes": folder / "runs" / "classes"}
    assert run_train([WORD, "generator.classes=true", "generator.layers=3", "generator.feature_layer=body", "k=3",
                      "model=global", "hparams.batch_size=2", "hparams.iterations=1", "eval_iters=1",
                      "feed_layers=[0,2]", "model.alpha=2", "device=cpu", "tensorboard=false",
                      f"output_dir={runs['classes']}"])  # fmt: skip
    (runs["faces"] / "catalog.yaml").write_text(
        "Zorn: {direction: 1}\nsmile: {direction: 2, alpha: [-3, 2], reverse: true}\n"
    )
    (runs["classes"] / "catalog.yaml").write_text(f"smile: {{direction: 2, layers: [1, 2], note: '{HOSTILE}'}}\n")
    said: list[str] = []
    export_web(runs["faces"], [], folder / "site" / "faces", title="Faces & co", say=said.append)
    export_web(runs["classes"], [WORD], folder / "site" / "classes", precision="fp32", say=lambda line: None)
    return SimpleNamespace(folder=folder / "site", runs=runs, said=said)


@pytest.fixture(scope="module")
def host(site: SimpleNamespace) -> Iterator[SimpleNamespace]:
    with hosted(site.folder) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running_browser(tmp_path_factory.mktemp("browser"), GPU) as running:
        yield running


@contextmanager
def asked(browser: Any, url: str) -> Iterator[Any]:
    """Open a page, for tests that only ask it."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        until(page, "document.getElementById('after').dataset.drawn > 0")
        yield page


@pytest.fixture(scope="module")
def faces(browser: Any, host: SimpleNamespace) -> Iterator[Any]:
    with asked(browser, f"{host.url}/faces/") as page:
        yield page


@pytest.fixture(scope="module")
def classes(browser: Any, host: SimpleNamespace) -> Iterator[Any]:
    with asked(browser, f"{host.url}/classes/") as page:
        yield page


@pytest.fixture
def serve(site: SimpleNamespace) -> Iterator[Callable[..., SimpleNamespace]]:
    """Start a host of the test's own. It outlives the pages: a browser asks for a page's icon at times of its own."""
    with ExitStack() as running:
        yield lambda folder=site.folder, **options: running.enter_context(hosted(folder, **options))


@pytest.fixture
def visit(browser: Any, host: SimpleNamespace, serve: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; afterwards nothing may have been complained about, or asked of another origin."""
    complaints: list[str] = []
    contexts = []

    def open_page(place: str, quiet: bool = True, base: str | None = None, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        base = base or host.url
        if quiet:
            page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
            page.on("request", lambda one: None if one.url.startswith((base, "blob:")) else complaints.append(one.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{base}/{place}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def opened(page: Any) -> Any:
    until(page, "document.getElementById('after').dataset.drawn > 0")
    until(page, "document.querySelectorAll('#walk canvas').length === 7")
    until(page, "document.querySelectorAll('#gallery canvas').length === 12")
    until(page, "document.querySelectorAll('.thumb').length && !document.querySelector('.thumb:not([data-drawn])')")
    return page


def picture(page: Any, canvas: str = "after") -> NDArray[np.int16]:
    data = page.evaluate("(id) => document.getElementById(id).toDataURL()", canvas)
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as shown:
        return np.asarray(shown.convert("RGB"), np.int16)


def same(one: NDArray[np.int16], other: NDArray[np.int16]) -> bool:
    """Whether canvases show the same picture: what enlarges it rounds some pixels now up, now down."""
    return bool(np.abs(one - other).max() <= 1)


@contextmanager
def drawn(page: Any) -> Iterator[None]:
    count = page.evaluate("Number(document.getElementById('after').dataset.drawn)")
    yield
    until(page, f"Number(document.getElementById('after').dataset.drawn) > {count}")
    page.wait_for_timeout(200)  # the newest of those that wait


def editor_of(run: Path) -> FusedEditor:
    config, checkpoint = open_run(run, [WORD] if run.name == "classes" else [], TrainConfig)
    return FusedEditor(trained_generator(config, checkpoint), checkpoint.directions)


def manifest_of(folder: Path) -> Manifest:
    return parse_manifest((folder / "manifest.json").read_text())


def golden_of(site: SimpleNamespace, name: str) -> Golden:
    """Requests of all kinds, with the pictures that eager PyTorch draws in float32."""
    about = identity_of(json.loads((site.folder / name / "manifest.json").read_text()))
    return draw_golden(editor_of(site.runs[name]), about, ALPHAS)


def compared(page: Any, golden: Golden) -> Comparison:
    """Let the page's own engine draw golden requests, and compare."""
    rows = []
    for row in range(len(golden)):
        code, direction, alpha, *classes = golden.request([row])
        rows.append({"code": code[0].tolist(), "direction": direction[0].tolist(), "alpha": alpha[0].tolist(),
                     "classId": int(classes[0][0]) if classes else None})  # fmt: skip
    shape = golden.images.shape[1:]
    images = [np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape) for text in page.evaluate(DRAW, rows)]
    comparison = Comparison()
    compare_golden(comparison, golden, np.stack(images))
    return comparison


def test_dragging_a_slider_draws_in_the_tab_alone(site: SimpleNamespace, host: SimpleNamespace, visit: Any) -> None:
    page = opened(visit("faces/#seed=5"))
    assert page.title() == page.locator("h1").inner_text() == "Faces & co"
    assert "wasm, 1 thread" in page.locator("#model").inner_text()
    note = page.locator("#names-note").inner_text()
    assert "3 golden pictures drawn here and by PyTorch" in note and "does not isolate" in note
    assert page.locator("#loading").is_hidden()
    before, asked = picture(page), len(host.seen)
    handle = page.get_by_role("slider", name="Direction 0", exact=True)
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    y = box["y"] + box["height"] / 2
    with drawn(page):
        page.mouse.move(box["x"] + box["width"] / 2, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.9, y, steps=20)
        page.mouse.up()
    assert not same(picture(page), before)
    until(page, "/ ms$/.test(document.getElementById('status-text').textContent)")
    dragged = picture(page)
    with drawn(page):
        page.locator("#walk").get_by_role("button").first.click()
    assert not same(picture(page), dragged)
    with drawn(page):
        page.get_by_role("button", name="Seed 9", exact=True).click()
    assert not [path for path in host.seen[asked:] if "icon" not in path]  # whatever is drawn, nothing is asked for
    page.get_by_text("Both", exact=True).click()
    until(page, "document.getElementById('before').getAttribute('aria-label') === 'Seed 9 without edits'")
    until(page, "location.hash.endsWith('&view=pair')")
    edited, address = picture(page), page.url
    with drawn(page):
        page.get_by_role("button", name="Reset all").click()
    plain = picture(page)
    assert same(plain, picture(page, "before")) and not same(plain, edited)
    assert same(picture(opened(visit(address.removeprefix(host.url + "/")))), edited)  # the link has all of it


def test_loading_is_told_in_bytes(serve: Any, visit: Any) -> None:
    slow = serve()
    slow.gate.clear()
    page = visit("faces/", base=slow.url)
    until(page, "/^Loading [0-9.]+ of [0-9.]+ MiB$/.test(document.getElementById('loading-text').textContent)")
    bar = page.get_by_role("progressbar")
    assert 0 < bar.evaluate("(bar) => bar.value") < 1 and page.locator("main").is_hidden()
    slow.gate.set()
    page.locator("main").wait_for()
    assert bar.is_hidden()


def test_the_pages_engine_draws_what_pytorch_draws(site: SimpleNamespace, faces: Any, classes: Any) -> None:
    bits = next(line for line in site.said if "holds certified" in line)
    assert "weights in fp16 of" in bits
    small = compared(faces, golden_of(site, "faces")).measured()
    assert not GATES["certified"].misses(small)
    exact = compared(classes, golden_of(site, "classes")).measured()
    assert exact["images"] >= 30 and exact["worst_step"] <= 1


@pytest.mark.full  # a GPU that is computed takes its time
def test_webgpu_draws_it_too_where_it_is_asked_for(site: SimpleNamespace, visit: Any) -> None:
    page = visit("faces/?engine=webgpu")
    until(page, "document.getElementById('after').dataset.drawn > 0")
    assert "WebGPU" in page.locator("#model").inner_text()
    golden = golden_of(site, "faces")
    some = golden.without([row for row in range(8, len(golden)) if golden.edits[row]])
    assert not GATES["certified"].misses(compared(page, some).measured())


def test_threads_where_the_host_isolates_the_page(site: SimpleNamespace, serve: Any, visit: Any) -> None:
    other = serve(isolated=True)
    page = opened(visit("faces/", base=other.url))
    threads = page.evaluate("Math.min(4, navigator.hardwareConcurrency)")
    assert f"wasm, {threads} thread" in page.locator("#model").inner_text()
    assert not GATES["certified"].misses(compared(page, golden_of(site, "faces")).measured())


def test_seeds_are_numpys(faces: Any) -> None:
    random = np.random.RandomState(1)
    seeds = [0, 1, 7, 2**31, 2**32 - 1, *random.randint(0, 2**32, 995, dtype=np.uint64).tolist()]
    for dim, sampler, truncation in ((101, "standard_normal", None), (128, "truncated_normal", 0.4)):
        spec = {"dim": dim, "sampler": sampler, "truncation": truncation}
        got = np.frombuffer(base64.b64decode(faces.evaluate(SEEDS, [spec, seeds])), np.float32).reshape(-1, dim)
        wanted = np.stack([draw_row(SimpleNamespace(**spec), seed) for seed in seeds])
        assert np.array_equal(got, wanted)


def test_the_page_and_the_studio_say_the_same(site: SimpleNamespace, faces: Any, classes: Any) -> None:
    pytest.importorskip("fastapi")
    from serving.studio.models import ImageRequest
    from serving.studio.names import Names
    from serving.studio.service import Service

    bodies: list[dict[str, Any]] = [
        {"seed": 3},
        {"seed": 3, "edits": [{"direction": 1, "alpha": 0.1}, {"name": "smile", "alpha": 1.7}]},
        {"seed": 3, "edits": [{"name": "smile", "alpha": -1}, {"direction": 2, "alpha": 0.3}]},  # one direction
        {"seed": 3, "edits": [{"direction": 1, "alpha": 2, "layers": [0]}], "class_id": 0},
    ]
    for name, page in (("faces", faces), ("classes", classes)):
        manifest = manifest_of(site.folder / name)
        backend: Any = SimpleNamespace(client=SimpleNamespace(manifest=manifest))
        service = Service(backend, Names(note="the page's own"))
        ask = "async (path) => (await import('./api.js')).json('GET', path)"
        mine = page.evaluate(ask, "/api/model")
        assert mine.pop("engine") == "wasm, 1 thread" and mine.pop("names_note")
        theirs = service.describe().model_dump()
        theirs.pop("names_note")
        assert {**mine, "alpha_range": list(mine["alpha_range"])} == theirs
        for query in ("", "1", "o", "COLD", "none of them"):
            found = [one.model_dump() for one in service.search_classes(query, 20)]
            assert page.evaluate(ask, f"/api/classes?q={query}&limit=20") == found
        for body, row in zip(bodies, page.evaluate(ROWS, bodies), strict=True):
            if "class_id" in body and name == "faces":
                continue
            strengths = service._strengths(manifest, ImageRequest.model_validate(body).edits)
            wanted = strengths or {0: np.zeros(manifest.latent.layers, np.float32)}
            assert row["direction"] == list(wanted)
            assert np.array_equal(np.array(row["alpha"], np.float32), np.stack(list(wanted.values())))
            of = manifest.generator.classes
            assert row["classId"] == (None if of is None else body.get("class_id", of.default[0]))
    wrong = [{"seed": 1, "edits": [{"name": "no", "alpha": 1}]},
             {"seed": 1, "edits": [{"name": "smile", "alpha": 1, "layers": [0]}]}]  # fmt: skip
    assert [text[:30] for text in page.evaluate(ROWS, wrong)] == [
        "the model has no named edit 'no'"[:30], "the edit reaches none of the layers"[:30],
    ]  # fmt: skip


def test_a_png_carries_the_recipe_of_its_pixels(site: SimpleNamespace, visit: Any, tmp_path: Path) -> None:
    page = opened(visit("classes/#seed=3&edits=1:1.5,~smile:0.5&class=2"))
    graph = tmp_path / "model.onnx"
    graph.write_bytes(zlib.decompress((site.folder / "classes" / "graph-0.bin").read_bytes(), 31))
    manifest, pictures = manifest_of(site.folder / "classes"), []
    for scale in (1, 4):
        page.get_by_label("Size of the PNG").select_option(str(scale))
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Download PNG").click()
        waiting.value.save_as(tmp_path / "picture.png")
        recipe, pixels = read_recipe(tmp_path / "picture.png")
        assert (recipe.seed, recipe.scale, dict(recipe.edits)) == (3, scale, {"1": 1.5, "smile": 0.5})
        recipe.check_model(manifest)
        pictures.append(pixels)
    assert recipe.class_id is not None
    code: NDArray[Any] = draw_row(manifest.latent, 3)[None]
    again, _ = OnnxEditor(graph)(code, recipe.direction, recipe.alpha, recipe.class_id)
    assert np.abs(again[0].astype(int) - pictures[0]).max() <= 1
    assert np.array_equal(enlarge(pictures[0][None], 4)[0], pictures[1])


def test_a_keyboard_and_a_screen_reader_reach_all_of_it(visit: Any) -> None:
    page = opened(visit("classes/#edits=1:1", color_scheme="dark"))
    assert page.evaluate(NAMELESS) == []
    assert HOSTILE in page.locator("#sliders").inner_text()  # as a text, which the export may have from anybody
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    handle = page.get_by_role("slider", name="smile", exact=True)
    handle.focus()
    with drawn(page):
        handle.press("ArrowRight")
    until(page, "document.getElementById('announce').textContent.includes('smile')")
    box = page.get_by_role("combobox", name="Class")
    box.fill("ho")
    page.get_by_role("option").first.wait_for()
    with drawn(page):
        box.press("Enter")
    assert "class=2" in page.url
    for width in (320, 390, 768, 1024):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_policy_keeps_the_page_to_itself(serve: Any, visit: Any, tmp_path: Path) -> None:
    page = visit("faces/", quiet=False)  # the browser reports what it refuses
    other = serve(tmp_path)
    assert page.evaluate("(url) => fetch(url).then(() => 'got', () => 'refused')", f"{other.url}/x") == "refused"
    page.evaluate("(url) => { document.body.append(Object.assign(new Image(), { src: url })); }", f"{other.url}/y")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), { text: 'window.run = 1' }))")
    page.wait_for_timeout(100)
    assert other.seen == [] and page.evaluate("window.run") is None


def test_what_is_damaged_is_told_and_never_shown(site: SimpleNamespace, serve: Any, visit: Any, tmp_path: Path) -> None:
    def spoil(name: str, change: Callable[[bytes], bytes]) -> None:
        path = tmp_path / name
        shutil.copytree(site.folder / "faces", path)
        victim = path / ("golden.bin" if name == "other" else "graph-0.bin")
        victim.write_bytes(change(victim.read_bytes()))

    spoil("other", lambda data: bytes(255 - value for value in data))
    spoil("short", lambda data: data[:-9])
    spoil("gone", lambda data: data)
    (tmp_path / "gone" / "graph-0.bin").unlink()
    told = {
        "other": "This browser draws something else than PyTorch, by up to",
        "short": "The page's file graph-0.bin is not what it should be. Trying again …",
        "gone": "The page's file graph-0.bin cannot be loaded: 404.",
    }
    other = serve(tmp_path)
    for name, text in told.items():
        page = visit(f"{name}/", base=other.url, quiet=False)
        page.get_by_role("alert").filter(has_text=text).wait_for()
        assert page.locator("#status").get_attribute("data-state") == "down"
        assert page.locator("main :is(h2, h3):visible").count() == 0
