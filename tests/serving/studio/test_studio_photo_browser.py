"""Photos on the studio's page: dropped, pasted, chosen or taken, edited, refined, and never part of a link."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import NAMELESS, NEEDED, until
from numpy.typing import NDArray
from PIL import Image
from studio_page import drawn, opened, picture

from serving.client.images import read_recipe

pytestmark = NEEDED
PORTRAIT = Path(__file__).resolve().parents[2] / "data" / "photos" / "astronaut.jpg"
DROP = """([data, type, kind]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], 'me', { type }));
  const options = { bubbles: true, cancelable: true };
  for (const name of kind === 'drop' ? ['dragenter', 'dragover', 'drop'] : ['paste']) {
    const event = kind === 'drop' ? new DragEvent(name, { ...options, dataTransfer })
      : new ClipboardEvent(name, { ...options, clipboardData: dataTransfer });
    document.getElementById('stage').dispatchEvent(event);
    if (name === 'dragenter' && !document.body.classList.contains('dropping')) throw new Error('no sign of the drop');
  }
}"""
SHOWN = "!document.getElementById('photo-field').hidden"


def give(page: Any, content: bytes, kind: str = "drop", media: str = "image/jpeg") -> None:
    """Drop or paste a file."""
    page.evaluate(DROP, [base64.b64encode(content).decode(), media, kind])


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def two_faces() -> bytes:
    with Image.open(PORTRAIT) as opened_photo:
        one = np.asarray(opened_photo.convert("RGB"))
    return png(np.concatenate([one, one], axis=1))


def held(studio: Any) -> list[str]:
    """Names of the photos that a studio holds."""
    return list(studio.service.photos._held)


def text(page: Any, node: str) -> str:
    return str(page.evaluate("(id) => document.getElementById(id).textContent", node))


def slide(page: Any, name: str, alpha: float) -> None:
    """Move the slider of a named edit."""
    node = page.get_by_role("slider", name=name, exact=True)
    node.evaluate("(node, alpha) => { node.value = alpha; node.dispatchEvent(new Event('input', { bubbles: true })); }",
                  alpha)  # fmt: skip


def near(page: Any) -> float:
    """The likeness that the page tells, in dB."""
    return float(text(page, "photo-text").rpartition("· ")[2].removesuffix(" dB"))


def test_a_dropped_photo_is_edited(visit: Callable[..., Any], photo_studio: Any, tmp_path: Path) -> None:
    page = opened(visit(photo_studio.url))
    seed = picture(page)
    with drawn(page):
        give(page, PORTRAIT.read_bytes())
    until(page, SHOWN)
    assert text(page, "photo-text").startswith("Photo, face · ")
    assert not page.is_visible("#seed") and page.is_checked("#photo-keep")
    kept = picture(page)
    with drawn(page):
        page.uncheck("#photo-keep")
    unedited = picture(page)
    assert len({seed, kept, unedited}) == 3
    with drawn(page):
        slide(page, "smile", 3)
    edited = picture(page)
    assert edited != unedited
    assert page.get_by_role("img", name="Photo, smile").is_visible()

    page.check("input[name=view][value=pair]", force=True)
    until(page, "document.getElementById('before').ariaLabel === 'Photo without edits'")
    until(page, "document.getElementById('original').dataset.photo")
    page.wait_for_timeout(300)
    assert len({picture(page, canvas) for canvas in ("original", "before", "after")}) == 3
    assert picture(page, "before") == unedited and picture(page, "original") == kept
    assert [node.inner_text() for node in page.query_selector_all("figcaption") if node.is_visible()] == [
        "Photo", "Reconstruction", "Edited",
    ]  # fmt: skip
    with drawn(page):
        page.check("#photo-keep")
    assert picture(page) != edited
    page.check("input[name=view][value=split]", force=True)  # where all is kept, the other side is the photo itself
    until(page, "document.getElementById('before').ariaLabel === 'Photo without edits'")
    page.wait_for_timeout(300)
    assert picture(page, "before") == picture(page, "original")
    assert page.evaluate(NAMELESS) == []

    with page.expect_download() as download:
        page.click("#png")
    download.value.save_as(tmp_path / "edited.png")
    recipe, pixels = read_recipe(tmp_path / "edited.png")
    assert recipe.photo is not None and recipe.photo.keep
    assert pixels.shape == (8, 8, 3)
    page.select_option("#png-scale", "paste")
    with page.expect_download() as download:
        page.click("#png")
    download.value.save_as(tmp_path / "pasted.png")
    with Image.open(PORTRAIT) as before, Image.open(tmp_path / "pasted.png") as after:
        assert after.size == before.size

    until(page, "location.hash.includes('smile')")
    address = page.evaluate("location.hash")
    assert "photo=own" in address and "keep=" not in address and not any(key in address for key in held(photo_studio))
    count = len(held(photo_studio))
    with drawn(page):
        page.click("#photo-close")
    assert page.is_visible("#seed")
    until(page, "!location.hash.includes('photo')")
    assert len(held(photo_studio)) == count - 1
    with drawn(page):
        page.click("#reset")
    assert picture(page) == seed


def test_refinement_goes_on_behind_the_sliders(visit: Callable[..., Any], photo_studio: Any) -> None:
    page = opened(visit(photo_studio.url))
    give(page, PORTRAIT.read_bytes())
    until(page, SHOWN)
    with drawn(page):
        page.uncheck("#photo-keep")  # else an unedited picture is the photo itself
    until(page, "location.hash.includes('keep=0')")
    first, before = near(page), picture(page)
    with drawn(page):
        page.click("#photo-refine")
    until(page, "document.getElementById('photo-refine').textContent === 'Refine'")
    assert near(page) > first
    assert picture(page) != before
    assert "Refined in 12 steps" in page.get_attribute("#photo-text", "title")
    page.click("#photo-refine")
    until(page, "!document.getElementById('photo-progress').hidden")
    page.click("#photo-refine")
    until(page, "document.getElementById('photo-refine').textContent === 'Refine'")
    assert page.is_hidden("#photo-progress")
    steps = int(page.get_attribute("#photo-text", "title").rpartition("Refined in ")[2].split()[0])
    assert 12 < steps < 24  # cancelled
    page.click("#photo-close")


def test_one_of_several_faces_is_chosen(visit: Callable[..., Any], photo_studio: Any) -> None:
    page = opened(visit(photo_studio.url, quiet=False))  # the browser itself complains about a 400
    page.click("#photo-open")
    page.set_input_files("#photo-file", {"name": "two.png", "mimeType": "image/png", "buffer": two_faces()})
    until(page, "document.querySelectorAll('.face').length === 2")
    assert text(page, "photo-which") == "There are 2 faces: choose one."
    left, right = (page.query_selector_all(".face")[i].bounding_box() for i in (0, 1))
    assert left["x"] + 100 < right["x"]
    page.get_by_role("button", name="Face 2 from the left").click()
    until(page, SHOWN)
    assert text(page, "photo-text").startswith("Photo, face")
    assert photo_studio.service.photos.get(held(photo_studio)[-1]).face == 1
    assert not page.evaluate("document.getElementById('photo-dialog').open")

    give(page, png(np.full((40, 60, 3), 128, np.uint8)), "paste", "image/png")
    until(page, "document.getElementById('photo-which').textContent === 'No face was found in this photo.'")
    page.click("#photo-middle")
    until(page, "document.getElementById('photo-text').textContent.startsWith('Photo, middle')")
    page.click("#photo-close")


def test_what_is_no_photo_is_told(visit: Callable[..., Any], photo_studio: Any) -> None:
    page = opened(visit(photo_studio.url, quiet=False))  # the browser itself complains about a 400
    before = picture(page)
    give(page, b"<svg/>", "drop", "image/svg+xml")
    until(page, "document.getElementById('toast').textContent.includes('not a picture that can be read')")
    assert picture(page) == before and page.is_visible("#seed") and page.is_hidden("#photo-field")


def test_the_camera_s_picture(visit: Callable[..., Any], photo_studio: Any) -> None:
    page = opened(visit(photo_studio.url, quiet=False))
    page.click("#photo-open")
    page.click("#photo-camera")
    until(
        page, "!document.getElementById('photo-live').hidden && document.getElementById('photo-video').videoWidth > 0"
    )
    page.wait_for_timeout(200)
    page.click("#photo-shoot")
    until(page, "!document.getElementById('photo-faces').hidden")  # Chromium's test picture has no face
    assert page.evaluate("document.getElementById('photo-video').srcObject") is None
    page.click("#photo-middle")
    until(page, SHOWN)
    page.click("#photo-close")


def test_a_link_holds_no_photo(visit: Callable[..., Any], photo_studio: Any) -> None:
    page = opened(visit(f"{photo_studio.url}/#seed=7&photo=own&edits=~smile:3"))
    until(page, "document.getElementById('toast').textContent.includes('which a link never holds')")
    assert page.is_visible("#seed")
    page.get_by_role("button", name="Choose a photo").click()
    assert page.evaluate("document.getElementById('photo-dialog').open")
    page.set_input_files("#photo-file", PORTRAIT)
    with drawn(page):
        until(page, SHOWN)
    assert page.get_by_role("img", name="Photo, smile").is_visible()  # the link's edits, on this photo
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#link")
    until(page, "document.getElementById('toast').textContent.includes('without the photo')")
    link = page.evaluate("navigator.clipboard.readText()")
    assert "photo=own" in link and not any(key in link for key in held(photo_studio))
    page.click("#photo-close")


def test_undo_goes_from_a_photo_to_the_seed_and_back(visit: Callable[..., Any], photo_studio: Any) -> None:
    page = opened(visit(photo_studio.url))
    seed = picture(page)
    with drawn(page):
        give(page, PORTRAIT.read_bytes())
    photo = picture(page)
    until(page, "!document.getElementById('undo').disabled")
    with drawn(page):
        page.click("#undo")
    assert picture(page) == seed and page.is_visible("#seed")
    with drawn(page):
        page.click("#redo")
    assert picture(page) == photo and page.is_hidden("#seed")
    with drawn(page):
        page.locator("#gallery .tile").first.click()
    assert page.is_visible("#seed") and page.input_value("#seed") == "0"


def test_a_photo_that_the_studio_forgot(visit: Callable[..., Any], photo_studio: Any) -> None:
    page = opened(visit(photo_studio.url, quiet=False))
    give(page, PORTRAIT.read_bytes())
    until(page, SHOWN)
    for key in held(photo_studio):
        photo_studio.service.photos.remove(key)
    slide(page, "smile", 2)
    until(page, "document.getElementById('toast').textContent.includes('choose it again')")
    until(page, "document.getElementById('photo-field').hidden")
    assert page.is_visible("#seed")


def test_a_model_without_an_encoder_takes_none(visit: Callable[..., Any], studio: Any) -> None:
    page = opened(visit(studio.url))
    assert page.is_hidden("#photo-open")
    page.evaluate("""() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(['x'], 'me.png', { type: 'image/png' }));
      document.body.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer }));
    }""")
    until(page, "document.getElementById('toast').textContent.includes('--with-encoder')")


def test_a_model_that_takes_no_seeds_asks_for_a_photo(visit: Callable[..., Any], photo_studio: Any) -> None:
    page = visit("about:blank")

    def without_seeds(route: Any) -> None:
        route.fulfill(json={**route.fetch().json(), "seeds": False})

    page.route("**/api/model", without_seeds)
    page.goto(photo_studio.url)
    until(page, "document.getElementById('photo-dialog').open")
    assert page.is_hidden("#seed") and page.is_hidden("#gallery")
    page.set_input_files("#photo-file", PORTRAIT)
    until(page, SHOWN)
    until(page, "document.querySelectorAll('#walk canvas').length === 7")
    with drawn(page):
        slide(page, "smile", 3)
    assert page.is_hidden("#seed") and page.is_hidden("#gallery")
    page.click("#photo-close")
    until(page, "document.getElementById('photo-dialog').open")


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_the_photo_s_line_has_room(visit: Callable[..., Any], photo_studio: Any, size: tuple[int, int]) -> None:
    page = opened(visit(photo_studio.url))
    page.set_viewport_size({"width": size[0], "height": size[1]})
    give(page, PORTRAIT.read_bytes())
    until(page, SHOWN)
    page.check("input[name=view][value=pair]", force=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for node in ("photo-text", "photo-refine", "photo-keep", "photo-close"):
        box = page.locator(f"#{node}").bounding_box()
        assert 0 <= box["x"] and box["x"] + box["width"] <= size[0]
    widths = {round(page.locator(f"#{canvas}").bounding_box()["width"]) for canvas in ("original", "before", "after")}
    assert len(widths) == 1 and min(widths) > 100
    page.click("#photo-close")
