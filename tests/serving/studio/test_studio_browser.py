"""The page in Debian's Chromium against the real server."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import NAMELESS, NEEDED, until
from studio_page import drawn, opened, picture

from serving import EditClient
from serving.client.images import enlarge, read_recipe
from serving.client.replay import replay

pytestmark = NEEDED
TOKEN = "correct horse battery staple"
# Luminance as WCAG 2 defines it; the theme's colours are resolved by the browser itself.
CONTRAST = """(pairs) => {
  const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 })
    .getContext('2d', { willReadFrequently: true });
  const probe = document.body.appendChild(document.createElement('i'));
  const luminance = (name) => {
    probe.style.color = `var(--${name})`;
    context.fillStyle = getComputedStyle(probe).color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return pairs.map(([a, b]) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return [a, b, (high + 0.05) / (low + 0.05)];
  });
}"""


def thumbnails(page: Any) -> None:
    """Wait until every slider has its thumbnail."""
    until(page, "document.querySelectorAll('.thumb').length && !document.querySelector('.thumb:not([data-drawn])')")


def width(page: Any, selector: str) -> float:
    """Of the first such element, in CSS pixels."""
    return float(
        page.evaluate("(selector) => document.querySelector(selector).getBoundingClientRect().width", selector)
    )


def slider(page: Any, name: str) -> Any:
    return page.get_by_role("slider", name=name, exact=True)


def drag(page: Any, handle: Any, share: float, steps: int = 12) -> None:
    """Drag a slider from its middle to a share of its width."""
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * share, y, steps=steps)
    page.mouse.up()


def address(page: Any, pattern: str) -> str:
    """Wait until the address tells the state."""
    until(page, f"/{pattern}/.test(decodeURIComponent(location.hash))")
    return str(page.url)


def test_dragging_a_slider_changes_the_picture(studio: Any, visit: Any) -> None:
    page = opened(visit(studio.url))
    flying, most, asked = 0, 0, []

    def begun(request: Any) -> None:
        nonlocal flying, most
        if request.url.endswith("/api/image"):
            flying += 1
            most = max(most, flying)
            asked.append(request.post_data_json)

    def ended(request: Any) -> None:
        nonlocal flying
        flying -= request.url.endswith("/api/image")

    page.on("request", begun)
    page.on("requestfinished", ended)
    page.on("requestfailed", ended)
    before = picture(page)
    handle = slider(page, "Direction 1")
    with drawn(page):
        drag(page, handle, 0.9, steps=40)
    page.wait_for_timeout(300)
    assert picture(page) != before
    alpha = float(handle.input_value())
    assert 3 < alpha < 6
    assert asked[-1]["edits"] == [{"direction": 1, "alpha": alpha}]  # the newest won
    assert most == 1  # one at a time
    assert re.fullmatch(r"\d+ ms", page.locator("#status-text").inner_text())
    assert "Direction 1" in page.locator("#summary").inner_text()
    until(page, "document.getElementById('announce').textContent.includes('Direction 1')")


def test_a_preview_while_the_slider_moves_and_the_full_picture_after(swift_studio: Any, visit: Any) -> None:
    page = opened(visit(swift_studio.url))
    thumbnails(page)
    asked = []
    page.on(
        "request", lambda request: asked.append(request.url.rpartition("/")[2]) if request.method == "POST" else None
    )
    drawings = ["image", "preview"]
    size = page.evaluate("(() => { const c = document.getElementById('after'); return [c.width, c.height]; })()")
    handle = slider(page, "Direction 1")
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, y, steps=20)
    until(page, "Number(document.getElementById('after').dataset.previewed ?? 0) > 0")
    page.wait_for_timeout(600)  # a slider that is held and not moved is still a slider that is held
    moving = picture(page)
    assert [path for path in asked if path in drawings] == ["preview"] * asked.count("preview")
    with drawn(page):
        page.mouse.up()
    page.wait_for_timeout(600)
    assert [path for path in asked if path in drawings][-2:] == ["preview", "image"]
    assert asked.count("image") == 1
    full = picture(page)
    assert full != moving  # four pixels of a side are not eight
    assert (
        page.evaluate("(() => { const c = document.getElementById('after'); return [c.width, c.height]; })()") == size
    )
    url = address(page, "edits=1:")
    page.reload()
    assert picture(opened(page)) == full
    assert picture(opened(visit(url))) == full


def test_keys_end_in_the_full_picture_too(swift_studio: Any, visit: Any) -> None:
    page = opened(visit(swift_studio.url))
    handle = slider(page, "Direction 1")
    handle.focus()
    with drawn(page):
        for _ in range(5):
            handle.press("ArrowRight")
    assert page.evaluate("Number(document.getElementById('after').dataset.previewed)") > 0
    full, url = picture(page), address(page, "edits=1:")
    assert picture(opened(visit(url))) == full


def test_the_address_gives_the_same_picture(studio: Any, visit: Any) -> None:
    page = opened(visit(f"{studio.url}/#seed=12&edits=1:3.5,0:-2@1-1,~smile:2"))
    shown = picture(page)
    assert slider(page, "smile").input_value() == "2"
    with drawn(page):
        drag(page, slider(page, "Direction 2 smile"), 0.2)
    url = address(page, "2:-")
    changed = picture(page)
    assert changed != shown
    page.reload()
    assert picture(opened(page)) == changed
    assert picture(opened(visit(url))) == changed
    # Its own history: an address typed into the same page is followed.
    with drawn(page):
        page.evaluate("location.hash = '#seed=12&edits=1:3.5,0:-2@1-1,~smile:2'")
    assert picture(page) == shown


def test_an_address_of_nonsense_opens_the_page(studio: Any, visit: Any) -> None:
    page = visit("about:blank")
    for nonsense in (
        "#", "#seed=-1", "#seed=99999999999999", "#edits=99:1,x:2,1:nan,1:1e999,:,@,~nobody:1,%E0%A4%A:1",
        "#view=x&class=3", "#edits=" + ",".join(["1:2"] * 999), "#seed=7&edits=1:0", "#edits=1:2@5-9", "#edits=1:2@1-0",
    ):  # fmt: skip
        page.goto("about:blank")
        page.goto(f"{studio.url}/{nonsense}")
        until(page, "document.getElementById('after').dataset.drawn > 0")
        assert page.locator("#seed").input_value() == "7", nonsense


def test_an_edit_is_named_used_and_deleted(studio: Any, visit: Any) -> None:
    page = opened(visit(f"{studio.url}/#seed=5&edits=1:4@0-0"))
    shown = picture(page)
    page.get_by_role("button", name="Name Direction 1 and save it").click()
    page.get_by_label("Name", exact=True).fill("Grin")
    page.get_by_label("Note").fill("wide <b>open</b>")
    page.get_by_role("button", name="Save", exact=True).click()
    handle = slider(page, "Grin")
    handle.wait_for()
    assert studio.catalog.read_text() == ("Grin: {direction: 1, layers: [0], alpha: [-6, 6], note: wide <b>open</b>}\n")
    url = address(page, "~Grin:4")
    page.get_by_text("wide <b>open</b>").wait_for()  # text, not markup
    page.wait_for_timeout(200)
    assert picture(page) == shown
    page.reload()
    assert picture(opened(page)) == shown
    assert page.url == url
    page.get_by_role("button", name="Delete Grin").click()
    handle.wait_for(state="detached")
    assert studio.catalog.read_text() == ""


def test_a_name_moves_after_a_question_and_comes_back_after_undo(studio: Any, visit: Any) -> None:
    page = opened(visit(f"{studio.url}/#seed=5&edits=1:4", quiet=False))  # the browser reports the 409
    page.get_by_role("button", name="Name Direction 1 and save it").click()
    page.get_by_label("Name", exact=True).fill("smile")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("smile is direction 2, layer 1 from -4 to 4 already. Shall it be direction 1 instead?").wait_for()
    assert not studio.catalog.exists()
    page.get_by_label("Name", exact=True).fill("smile ")  # typing takes the question back
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("button", name="Move the name").click()
    page.get_by_text("smile is saved").wait_for()
    text = studio.catalog.read_text()
    assert text == "smile: {direction: 1, layers: [], alpha: [-6, 6], note: ''}\n"
    page.get_by_role("button", name="Delete smile").click()
    page.get_by_text("smile is deleted").wait_for()
    assert studio.catalog.read_text() == ""
    page.locator("#toast").get_by_role("button", name="Undo").click()
    page.get_by_text("smile is back").wait_for()
    assert studio.catalog.read_text() == text
    assert slider(page, "smile").input_value() == "4"
    page.get_by_text(f"{studio.catalog.name} alone").wait_for()


def test_what_lies_on_the_minus_side_is_named_reversed(studio: Any, visit: Any) -> None:
    page = opened(visit(f"{studio.url}/#seed=5&edits=1:-4"))
    shown = picture(page)
    page.get_by_role("button", name="Name Direction 1 and save it").click()
    page.get_by_label("Name", exact=True).fill("frown")
    assert page.get_by_label("Reversed").is_checked()
    page.get_by_label("From").fill("-2")
    page.get_by_label("Reversed").click()  # it turns the range with it
    assert [page.get_by_label(end, exact=True).input_value() for end in ("From", "To")] == ["-6", "2"]
    page.get_by_label("Reversed").click()
    with drawn(page):
        page.get_by_role("button", name="Save", exact=True).click()
    assert studio.catalog.read_text() == "frown: {direction: 1, layers: [], alpha: [-2, 6], note: '', reverse: true}\n"
    assert slider(page, "frown").input_value() == "4"
    assert picture(page) == shown


def test_names_that_cannot_be_given_are_explained(triton: Any, open_studio: Any, visit: Any) -> None:
    from serving.studio.places import names_for

    names = names_for(None, None, None, "latent_edit")
    with open_studio(triton.grpc_url, Path("unused"), names=names) as studio:
        page = opened(visit(f"{studio.url}/#edits=1:4,~smile:2"))
        page.get_by_text("Names cannot be given here").wait_for()
        assert page.get_by_role("button", name="Name Direction 1 and save it").count() == 0
        assert page.get_by_role("button", name="Delete smile").count() == 0
        page.close()  # else it may look for the studio that is gone


def test_a_bad_name_is_told_in_the_dialog(studio: Any, visit: Any) -> None:
    page = opened(visit(f"{studio.url}/#edits=1:4", quiet=False))  # the browser reports the 422
    page.get_by_role("button", name="Name Direction 1 and save it").click()
    page.get_by_label("Name", exact=True).fill("28")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("a name must be").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_label("Name", exact=True).wait_for(state="hidden")
    assert not studio.catalog.exists()


def test_hostile_texts_stay_text(studio: Any, visit: Any) -> None:
    studio.catalog.write_text(
        '"<img src=x onerror=alert(1)>": {direction: 1}\nhat: {direction: 1, note: "<img src=y>"}\n'
    )
    page = opened(visit(studio.url))
    page.get_by_text("got '<img src=x onerror=alert(1)>'").wait_for()  # what is no name is told, as text
    page.get_by_text("no. 1 · <img src=y>").wait_for()
    assert page.locator("#sliders img, #toast img").count() == 0
    with drawn(page):
        drag(page, slider(page, "hat"), 0.8)
    address(page, "hat")
    page.reload()
    opened(page)


def test_layers_narrow_an_edit(studio: Any, visit: Any) -> None:
    page = opened(visit(f"{studio.url}/#seed=5&edits=0:4"))
    shown = picture(page)
    with drawn(page):
        page.get_by_label("Last layer of Direction 0").fill("0")
        page.keyboard.press("Tab")
    assert picture(page) != shown
    address(page, "0:4@0-0")
    with drawn(page):  # both ends stay in order
        page.get_by_label("First layer of Direction 0").fill("1")
        page.keyboard.press("Tab")
    address(page, "0:4@1-1")


def test_classes_are_found_by_keyboard(classes_studio: Any, visit: Any) -> None:
    page = opened(visit(classes_studio.url))
    box = page.get_by_role("combobox", name="Class")
    until(page, "document.getElementById('class').value === 'Goldfish'")
    shown = picture(page)
    box.fill("ten")
    page.get_by_role("option").first.wait_for()
    box.press("ArrowDown")
    assert box.get_attribute("aria-activedescendant") == "class-0"
    with drawn(page):
        box.press("Enter")
    assert picture(page) != shown
    assert "class=0" in address(page, "class=0")
    page.reload()
    until(page, "document.getElementById('class').value === 'tench'")
    box.fill("zzz")
    page.get_by_text("No class of that name").wait_for()
    box.press("Escape")
    assert box.input_value() == "tench"


def test_seeds_walk_and_views(studio: Any, visit: Any) -> None:
    page = opened(visit(f"{studio.url}/#seed=7&edits=1:4"))
    with drawn(page):
        page.get_by_role("button", name="Seed 9", exact=True).click()
    assert page.locator("#seed").input_value() == "9"
    assert page.get_by_role("button", name="Seed 9", exact=True).get_attribute("aria-current") == "true"
    with drawn(page):
        page.get_by_role("button", name="Direction 1 at −2", exact=True).click()
    assert slider(page, "Direction 1").input_value() == "-2"
    page.get_by_text("Both", exact=True).click()
    page.wait_for_timeout(500)
    plain = picture(page, "before")
    assert plain != picture(page)
    with drawn(page):
        page.get_by_role("button", name="Reset all").click()
    assert picture(page) == plain
    page.get_by_text("Split", exact=True).click()
    divider = page.get_by_role("slider", name="Divider between before and after")
    divider.press("End")
    assert divider.get_attribute("aria-valuetext") == "100 percent before"
    address(page, "view=split")
    with drawn(page):
        page.get_by_role("button", name="Next seed").click()
    page.get_by_role("button", name="Later seeds").click()
    page.get_by_role("button", name="Seed 23", exact=True).wait_for()


def test_a_slider_has_a_thumbnail_and_what_was_found_of_its_direction(scored_studio: Any, visit: Any) -> None:
    asked: list[Any] = []
    page = visit("about:blank")
    page.on("request", lambda one: asked.append(one.post_data_json) if one.url.endswith("/thumbnails") else None)
    page.goto(f"{scored_studio.url}/#seed=5")
    thumbnails(opened(page))
    edits = [{"name": "smile", "alpha": 2}, *({"direction": k, "alpha": alpha} for k, alpha in enumerate((4.2, 1, 3)))]
    assert asked == [{"seed": 5, "edits": edits, "format": "png"}]  # the + ends of the ranges, in one batch
    looks = page.evaluate("[...document.querySelectorAll('.thumb')].map((canvas) => canvas.toDataURL())")
    assert len(set(looks)) == 4
    yaw, twin = slider(page, "Direction 0 yaw"), slider(page, "Direction 1")
    page.get_by_text("yaw +1.2, happy −0.4").wait_for()
    assert [one.get_attribute("min") for one in (yaw, twin, slider(page, "smile"))] == ["-2.1", "-5", "-3"]
    assert "same as 0" in page.locator(f"#{twin.get_attribute('aria-describedby')}").inner_text()
    with drawn(page):
        yaw.press("End")
    assert yaw.input_value() == "4.2"
    for _ in range(2):  # 0 is a whole number of steps from both ends
        yaw.press("Home" if yaw.input_value() == "4.2" else "End")
    page.get_by_role("button", name="Reset Direction 0").click()
    assert yaw.input_value() == "0"
    with drawn(page):
        page.locator("li:has(#slider-0) .thumb").click()
    assert slider(page, "smile").input_value() == "2"
    assert len(asked) == 1  # no slider changes them
    with drawn(page):
        page.get_by_role("button", name="Next seed").click()
    thumbnails(page)
    assert [one["seed"] for one in asked] == [5, 6]
    box = yaw.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.evaluate("document.getElementById('seed-more').click()")
    page.wait_for_timeout(600)
    assert len(asked) == 2  # they wait while a slider is held
    page.mouse.up()
    thumbnails(page)
    assert [one["seed"] for one in asked] == [5, 6, 7]


def test_a_slow_model_draws_thumbnails_when_asked(studio: Any, visit: Any) -> None:
    page = visit("about:blank")
    asked: list[str] = []

    def slowly(route: Any) -> None:
        asked.append(route.request.url.rpartition("/")[2])
        page.wait_for_timeout(450 if asked[-1] == "image" else 0)
        route.continue_()

    page.route(re.compile("/api/(image|thumbnails)$"), slowly)
    page.goto(studio.url)
    page.get_by_role("button", name="Draw thumbnails").click()
    thumbnails(page)
    assert asked == ["image", "thumbnails"]
    assert page.get_by_role("button", name="Draw thumbnails").count() == 0


def test_the_picture_and_the_sliders_take_the_window(scored_studio: Any, visit: Any) -> None:
    page = opened(visit(f"{scored_studio.url}/#edits=1:2"))
    for size, side, slider_px in (((1280, 800), 600, 326), ((1920, 1080), 850, 326), ((390, 844), 340, 192)):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        assert width(page, ".after .frame") >= side
        assert width(page, ".edit:not(.active) > input") >= slider_px
        assert width(page, ".edit.active > input") >= slider_px
        high = page.evaluate("document.documentElement.scrollHeight")
        assert high == size[1] or size[0] == 390  # no scrolling where all of it has room
    # 8 pixels of the model are 512 of the canvas, with as many colours as smooth steps between them need.
    colours = """(() => {
      const { data } = document.getElementById('after').getContext('2d').getImageData(0, 256, 512, 1);
      return new Set(Array.from({ length: 512 }, (_, i) => data.slice(4 * i, 4 * i + 3).join())).size;
    })()"""
    assert page.evaluate(colours) > 100


def test_undo_and_redo(studio: Any, visit: Any) -> None:
    page = opened(visit(f"{studio.url}/#seed=5"))
    undo, redo = (page.get_by_role("button", name=name, exact=True) for name in ("Undo", "Redo"))
    assert undo.is_disabled() and redo.is_disabled()
    looks = [picture(page)]
    for act in (
        lambda: drag(page, slider(page, "Direction 1"), 0.9, steps=20),
        lambda: page.get_by_role("button", name="Next seed").click(),
    ):
        with drawn(page):
            act()
        page.wait_for_timeout(350)  # what comes sooner is the same step
        looks.append(picture(page))
    assert len(set(looks)) == 3
    steps = (("Control+z", 1), ("Meta+z", 0), ("Control+Shift+z", 1), ("Meta+Shift+Z", 2), ("Control+z", 1))
    for keys, wanted in steps:  # a drag is one step, however many pictures it drew
        with drawn(page):
            page.keyboard.press(keys)
        until(page, "document.getElementById('undo').disabled === " + ("true" if wanted == 0 else "false"))
        assert picture(page) == looks[wanted], keys
    assert page.locator("#seed").input_value() == "5"
    page.get_by_role("searchbox", name="Filter edits").fill("smile")
    page.keyboard.press("Control+z")  # the browser undoes the typing, and nothing else
    assert slider(page, "Direction 1").input_value() != "0"
    with drawn(page):
        undo.click()
    assert slider(page, "Direction 1").input_value() == "0"
    assert undo.is_disabled()
    with drawn(page):
        slider(page, "Direction 0").press("Home")
    until(page, "document.getElementById('redo').disabled")  # another way was taken


def test_zoom(studio: Any, visit: Any) -> None:
    page = opened(visit(studio.url))
    shown = "document.getElementById('after').getBoundingClientRect()"
    whole = page.evaluate(f"{shown}.toJSON()")

    def times() -> float:
        return round(page.evaluate(f"{shown}.width") / whole["width"], 2)

    page.get_by_role("button", name="Zoom in").click()
    assert times() == 1.5
    page.locator("#stage").focus()
    page.keyboard.press("+")
    assert (times(), page.locator("#zoom-reset").inner_text()) == (2.25, "225 %")
    left = page.evaluate(f"{shown}.left")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(f"{shown}.left") > left
    x, y = whole["x"] + whole["width"] / 4, whole["y"] + whole["height"] / 4
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 2000, y + 2000)  # no edge of the picture comes into its frame
    page.mouse.up()
    assert page.evaluate(f"[{shown}.x, {shown}.y]") == [whole["x"], whole["y"]]
    page.mouse.dblclick(x, y)
    assert times() == 1
    page.mouse.wheel(0, -400)
    assert times() > 2
    assert page.evaluate(f"({x} - {shown}.x) / {shown}.width") == pytest.approx(0.25, abs=0.01)  # what is there stays
    page.get_by_role("button", name="Zoom: ").click()
    assert times() == 1
    touch = page.context.new_cdp_session(page)
    for kind, reach in (("touchStart", 20), ("touchMove", 30), ("touchMove", 40), ("touchEnd", None)):
        fingers = [] if reach is None else [{"x": x - reach, "y": y, "id": 0}, {"x": x + reach, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    assert times() == 2
    page.get_by_role("button", name="Zoom: ").click()
    assert page.get_by_role("button", name="Zoom out").is_disabled()


def test_downloads_and_code(studio: Any, visit: Any, pixels: Any, tmp_path: Path) -> None:
    page = opened(visit(f"{studio.url}/#seed=3&edits=1:4,~smile:2", permissions=["clipboard-read", "clipboard-write"]))
    edits = [{"direction": 1, "alpha": 4}, {"name": "smile", "alpha": 2}]
    wanted = studio.http.post("/api/image", json={"seed": 3, "edits": edits}).content
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download PNG").click()
    assert waiting.value.suggested_filename == "seed_3.png"
    waiting.value.save_as(tmp_path / "picture.png")
    assert np.array_equal(pixels((tmp_path / "picture.png").read_bytes()), pixels(wanted))
    for scale in ("2", "4"):
        page.get_by_label("Size of the PNG").select_option(scale)
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Download PNG").click()
        assert waiting.value.suggested_filename == f"seed_3_{scale}x.png"
        waiting.value.save_as(tmp_path / "large.png")
        recipe, large = read_recipe(tmp_path / "large.png")
        assert (recipe.scale, large.shape) == (int(scale), (8 * int(scale), 8 * int(scale), 3))
        with EditClient(studio.service.backend.url) as client:  # the recipe makes the same pixels again
            again = replay(client, recipe)
        assert np.array_equal(enlarge(again.images, recipe.scale)[0], large)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download the walk as an animated GIF").click()
    waiting.value.save_as(tmp_path / "walk.gif")
    assert (tmp_path / "walk.gif").read_bytes()[:3] == b"GIF"
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"{studio.url}/#seed=3&edits=1:4,~smile:2"
    page.get_by_role("button", name="Code").click()
    page.get_by_role("button", name="Copy as Python").click()
    page.get_by_text("Python copied").wait_for()
    code = studio.http.post("/api/code", json={"seed": 3, "edits": edits}).json()
    assert page.evaluate("navigator.clipboard.readText()") == code["python"]
    assert page.locator("#code-curl").inner_text().strip() == code["curl"].strip()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Copy as Python").wait_for(state="hidden")


def test_everything_can_be_reached_and_has_a_name(classes_studio: Any, visit: Any) -> None:
    page = opened(visit(f"{classes_studio.url}/#edits=1:2"))
    assert page.evaluate(NAMELESS) == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "edits-title"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.id"))
    assert {"Reset Direction 1", "Filter edits", "Seed 3", "seed", "png", "theme"} - seen <= {"png"}
    handle = slider(page, "Direction 2 smile")
    handle.focus()
    with drawn(page):
        page.keyboard.press("ArrowRight")
    assert float(handle.input_value()) > 0
    assert handle.get_attribute("aria-valuetext").startswith("+")
    page.get_by_role("searchbox", name="Filter edits").fill("smile")
    assert slider(page, "Direction 1").count() == 0
    assert slider(page, "Direction 2 smile").count() == slider(page, "smile").count() == 1
    page.get_by_role("searchbox", name="Filter edits").fill("nothing has this")
    assert page.locator("#sliders").inner_text() == ""  # no heading stands over nothing
    until(page, "document.getElementById('announce').textContent === 'No edit has these words'")
    page.get_by_role("searchbox", name="Filter edits").fill("")
    assert page.locator("#sliders h3:visible").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(studio: Any, visit: Any, scheme: str) -> None:
    page = visit(studio.url, color_scheme=scheme)
    text = [
        ("ink", "paper"), ("ink", "card"), ("soft", "paper"), ("soft", "card"), ("soft", "wash"), ("accent", "card"),
        ("accent", "wash"), ("accent", "paper"), ("bad", "bad-wash"), ("bad", "card"), ("on-accent", "accent"),
    ]  # fmt: skip
    for one, other, ratio in page.evaluate(CONTRAST, text):
        assert ratio >= 4.5, (one, other, ratio)
    for one, other, ratio in page.evaluate(CONTRAST, [("control", "card"), ("control", "paper"), ("accent", "groove")]):
        assert ratio >= 3, (one, other, ratio)


def test_a_chosen_theme_stays(studio: Any, visit: Any) -> None:
    page = visit(studio.url, color_scheme="light")
    button = page.get_by_role("button", name="Theme")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    button.click()
    button.click()
    assert button.inner_text() == "Theme: dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_narrow_screen_does_not_scroll_sideways(studio: Any, visit: Any) -> None:
    page = opened(visit(f"{studio.url}/#edits=1:2,0:-3@0-0&view=pair"))
    for width in (320, 390, 768, 1024):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_token_is_asked_for_or_taken_from_the_address(
    triton: Any, open_studio: Any, visit: Any, tmp_path: Path
) -> None:
    from serving.studio.security import Policy

    with open_studio(triton.grpc_url, tmp_path / "catalog.yaml", policy=Policy(token=TOKEN)) as studio:
        page = visit(studio.url, quiet=False)  # the browser reports each 401
        page.locator("#token").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("this is not the token").wait_for()
        page.locator("#token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        opened(page)
        assert page.evaluate("document.cookie") == ""  # scripts do not see it
        page = opened(visit(f"{studio.url}/?token={TOKEN}#seed=9"))
        assert "token" not in page.url
        assert page.locator("#seed").input_value() == "9"
        page.reload()
        opened(page)
        page.close()  # else it may look for the studio that is gone


def test_a_server_that_goes_away_is_shown_and_recovered_from(
    studio_repository: Path, open_studio: Any, visit: Any, tmp_path: Path
) -> None:
    from serving import TritonServer
    from serving.triton.ports import Ports

    first = TritonServer(studio_repository, ports=Ports(0, 0, 0), models=("latent_edit",))
    with first, open_studio_of(first, open_studio, tmp_path) as studio:
        page = opened(visit(f"{studio.url}/#seed=5", quiet=False))  # the browser reports each 503
        shown = picture(page)
        ports = first.ports
        first.stop()
        drag(page, slider(page, "Direction 1"), 0.8)
        page.get_by_role("alert").filter(has_text="Trying again").wait_for()
        assert page.locator("#status-text").inner_text() == "reconnecting"
        drag(page, slider(page, "Direction 1"), 0.9)  # the page stays responsive
        assert float(slider(page, "Direction 1").input_value()) > 3
        # Nothing wrong stands anywhere: the picture is the old one and says so, the walk is the one of its title.
        page.get_by_text("Not drawn yet: seed 5, Direction 1").wait_for()
        assert page.locator("#stage.old").count() == 1
        assert page.locator("#after").get_attribute("aria-label") == "Seed 5, No edits yet: drag a slider"
        assert page.locator("#walk-title").inner_text() == "Walk: Direction 0"
        page.get_by_role("button", name="Next seed").click()
        until(page, "!document.querySelector('.thumb[data-drawn]')")  # those were of seed 5
        page.get_by_role("button", name="Previous seed").click()
        fresh = visit(studio.url, quiet=False)
        fresh.get_by_role("alert").filter(has_text="Trying again").wait_for()
        assert fresh.locator("main :is(h2, h3):visible").count() == 0
        with TritonServer(studio_repository, ports=ports, models=("latent_edit",)):
            started = time.monotonic()
            page.locator("#banner").wait_for(state="hidden")
            assert time.monotonic() - started < 12
            until(page, "/ms$/.test(document.getElementById('status-text').textContent)")
            page.wait_for_timeout(500)
            assert picture(page) != shown  # what was dragged meanwhile is drawn
            assert float(slider(page, "Direction 1").input_value()) > 3
            assert page.locator("#stage.old").count() == 0
            opened(fresh)


def fail(page: Any, status: int, code: str) -> None:
    """Let every picture fail, while the model goes on describing itself."""
    body = json.dumps({"error": {"code": code, "message": "the model failed", "where": "", "places": []}})
    page.route("**/api/image", lambda route: route.fulfill(status=status, content_type="application/json", body=body))


def requests_of(path: str) -> str:
    return f"performance.getEntriesByType('resource').filter((one) => one.name.endsWith('{path}')).length"


@pytest.mark.parametrize(("status", "code"), [(502, "request_failed"), (504, "timeout"), (503, "unavailable")])
def test_a_model_that_fails_is_told_and_the_page_stays(studio: Any, visit: Any, status: int, code: str) -> None:
    """It is there, so building the page again would only fail again, for ever."""
    page = opened(visit(f"{studio.url}/#seed=5", quiet=False))
    fail(page, status, code)
    drag(page, slider(page, "Direction 1"), 0.8)
    page.get_by_text("the model failed").first.wait_for()
    page.get_by_text("Not drawn yet: seed 5, Direction 1").wait_for()
    assert page.locator("#stage.old").count() == 1
    asked = page.evaluate(requests_of("/api/health"))
    until(page, f"{requests_of('/api/health')} > {asked}")
    page.unroute("**/api/image")
    with drawn(page):
        drag(page, slider(page, "Direction 1"), 0.9)
    assert page.locator("#stage.old").count() == 0
    assert page.locator("#banner").is_hidden()
    assert page.evaluate(requests_of("/api/model")) == 1


def test_tries_grow_rarer_while_pictures_fail(studio: Any, visit: Any) -> None:
    """Although the server says that it is ready: it is asked again after 300 ms, then 1.7 times as long, and so on."""
    page = opened(visit(f"{studio.url}/#seed=5", quiet=False))
    page.evaluate("""() => {
      const wait = window.setTimeout;
      window.pauses = [];
      window.setTimeout = (run, ms, ...rest) => { pauses.push(Math.round(ms)); return wait(run, ms, ...rest); };
    }""")
    fail(page, 503, "server_unavailable")
    page.get_by_role("button", name="Next seed").click()
    until(page, "pauses.includes(510) && pauses.includes(867)")
    page.unroute("**/api/image")
    until(page, "document.getElementById('banner').hidden && !document.querySelector('#stage.old')")


def open_studio_of(server: Any, open_studio: Any, folder: Path) -> Any:
    return open_studio(server.grpc_url, folder / "catalog.yaml", timeout=5.0)


def test_the_api_page_lists_every_operation(studio: Any, visit: Any) -> None:
    page = visit(f"{studio.url}/docs")
    page.get_by_role("heading", name="POST /api/image").wait_for()
    operations = sum(len(methods) for methods in studio.http.get("/openapi.json").json()["paths"].values())
    assert page.get_by_role("heading", name=re.compile("^(GET|POST|PUT|DELETE) ")).count() == operations
