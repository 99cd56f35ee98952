"""Photos in the studio's API: held in memory within bounds, edited like seeds, refined, and forgotten."""

from __future__ import annotations

import io
import itertools
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny_editor
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from serving.cli import edit as edit_command
from serving.client.images import read_recipe
from serving.client.replay import replay
from serving.contract.certificate import picture_psnr
from serving.contract.photo.crop import centre_crop, cut_out, paste
from serving.contract.photo.keep import keep_unedited
from serving.contract.photo.reader import read_photo
from serving.errors import InvalidEdit, ServerUnavailable
from serving.studio import photos, security
from serving.studio.failures import UnknownPhoto
from serving.studio.photos import HeldPhoto, Photos

PORTRAIT = Path(__file__).resolve().parents[2] / "data" / "photos" / "astronaut.jpg"
PHOTO = np.random.RandomState(3).randint(0, 256, (20, 30, 3), dtype=np.uint8)
CROP = centre_crop((20, 30), (8, 8))
PICTURE = cut_out(PHOTO, CROP)
CODE = tiny_editor.code_of(PICTURE)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def send(studio: Any, content: bytes, **query: Any) -> httpx.Response:
    headers = {"content-type": "application/octet-stream"}
    answer: httpx.Response = studio.http.post("/api/photos", content=content, params=query, headers=headers)
    return answer


def add(studio: Any, content: bytes | None = None, **query: Any) -> dict[str, Any]:
    answer = send(
        studio, png(PHOTO) if content is None else content, **({} if content else {"align": "centre"}), **query
    )
    assert answer.status_code == 200, answer.text
    info: dict[str, Any] = answer.json()
    return info


def error_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert "Traceback" not in answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    return error


def post(studio: Any, path: str, **body: Any) -> bytes:
    answer = studio.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    content: bytes = answer.content
    return content


def recipe_of(file: bytes, folder: Path) -> Any:
    (folder / "picture.png").write_bytes(file)
    return read_recipe(folder / "picture.png")[0]


def formula(*alphas: float) -> NDArray[np.uint8]:
    """What the tiny editor draws of direction 1 at these strengths, of the photo's code."""
    rows = len(alphas)
    alpha = np.array(alphas, np.float32)[:, None, None].repeat(tiny_editor.L, 2)
    drawn: NDArray[np.uint8] = tiny_editor.expected(CODE.repeat(rows, 0), np.ones((rows, 1), np.int64), alpha)
    return drawn


def close(got: Any, wanted: Any, steps: int = 1) -> bool:
    return got.shape == wanted.shape and int(np.abs(got.astype(int) - wanted.astype(int)).max()) <= steps


EDITS = [{"direction": 1, "alpha": 2.0}]


def test_a_photo_is_edited_like_a_seed(photo_studio: Any, pixels: Any, tmp_path: Path) -> None:
    assert photo_studio.http.get("/api/model").json()["photos"]
    info = add(photo_studio)
    key = info["photo"]
    near = picture_psnr(PICTURE, formula(0)[0])
    assert info["psnr"] == pytest.approx(near, abs=0.2)
    assert {**info, "psnr": 0, "photo": ""} == {
        "photo": "", "width": 30, "height": 20, "how": "centre", "psnr": 0, "refined": 0, "refinable": True,
    }  # fmt: skip
    assert photo_studio.http.get(f"/api/photos/{key}").json() == info
    assert np.array_equal(pixels(photo_studio.http.get(f"/api/photos/{key}/picture").content), PICTURE)

    file = post(photo_studio, "/api/image", photo=key, edits=EDITS)
    assert close(pixels(file), formula(2.0)[0])
    assert close(pixels(post(photo_studio, "/api/preview", photo=key, edits=EDITS)), formula(2.0)[0][::2, ::2])
    walk = pixels(post(photo_studio, "/api/sweep", photo=key, walk={"direction": 1}, alphas=[-2, 0, 2]))
    assert close(walk, np.concatenate(list(formula(-2, 0, 2)), axis=1))
    assert (
        post(photo_studio, "/api/sweep", photo=key, walk={"direction": 1}, alphas=[-2, 2], format="gif")[:3] == b"GIF"
    )
    for _ in range(2):  # the second time from memory
        small = pixels(post(photo_studio, "/api/thumbnails", photo=key, edits=EDITS, side=16))
        assert close(small, formula(2.0)[0])

    recipe = recipe_of(file, tmp_path)
    assert recipe.photo is not None and recipe.photo.crop == CROP
    again = replay(photo_studio.service.backend.client, recipe, photo=png(PHOTO))
    assert np.array_equal(again.image, pixels(file))


def test_what_was_not_edited_is_kept_and_pasted(photo_studio: Any, pixels: Any, tmp_path: Path) -> None:
    key = add(photo_studio)["photo"]
    kept = pixels(post(photo_studio, "/api/image", photo=key, edits=EDITS, keep=True))
    assert close(kept, keep_unedited(PICTURE, formula(0)[0], formula(2.0)[0]), 3)
    assert np.array_equal(pixels(post(photo_studio, "/api/image", photo=key, keep=True)), PICTURE)
    small = pixels(post(photo_studio, "/api/thumbnails", photo=key, edits=EDITS, keep=True, side=16))
    assert close(small, kept) and not close(small, formula(2.0)[0], 3)  # not the one without keep, which is remembered
    edited = pixels(post(photo_studio, "/api/image", photo=key, edits=EDITS))
    pasted = post(photo_studio, "/api/image", photo=key, edits=EDITS, paste=True)
    assert np.array_equal(pixels(pasted), paste(PHOTO, CROP, edited))
    recipe = recipe_of(pasted, tmp_path)
    assert recipe.photo is not None and recipe.photo.pasted


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("paste", [False, True])
def test_a_download_is_made_again_pixel_for_pixel(
    photo_studio: Any, pixels: Any, tmp_path: Path, scale: int, paste: bool
) -> None:
    me, download, again = (tmp_path / name for name in ("me.png", "download.png", "again.png"))
    me.write_bytes(png(PHOTO))
    key = add(photo_studio)["photo"]
    download.write_bytes(post(photo_studio, "/api/image", photo=key, edits=EDITS, scale=scale, paste=paste))
    words = ["--url", photo_studio.service.backend.url, "--from", download, "--photo", me, "-o", again]
    result = CliRunner().invoke(edit_command, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.output == f"wrote {again}: the same pixels as {download}\n"
    height, width = (20, 30) if paste else (8, 8)
    assert pixels(again.read_bytes()).shape == (height * scale, width * scale, 3)
    recipe = recipe_of(again.read_bytes(), tmp_path)
    assert (recipe.scale, recipe.photo.pasted) == (scale, paste)


def test_a_pasted_picture_too_large_is_refused_before_anything_is_sent(photo_studio: Any, tmp_path: Path) -> None:
    """The photo is what is enlarged then, not the model's picture."""
    key = add(photo_studio)["photo"]
    recipe = recipe_of(post(photo_studio, "/api/image", photo=key, edits=EDITS, scale=8, paste=True), tmp_path)
    wide = np.zeros((20, 70_000, 3), np.uint8)
    recipe = replace(recipe, photo=replace(recipe.photo, sha256=read_photo(wide).sha256))
    with pytest.raises(InvalidEdit, match="the recipe is of 1 pictures of 560000 x 160 pixels, the most are"):
        replay(photo_studio.service.backend.client, recipe, photo=wide)


def test_refinement_comes_nearer_step_by_step(photo_studio: Any, pixels: Any) -> None:
    info = add(photo_studio)
    path = f"/api/photos/{info['photo']}"
    seen = [info]
    for _ in range(3):
        answer = photo_studio.http.post(f"{path}/refine", json={})
        assert answer.status_code == 200, answer.text
        seen.append(answer.json())
    assert [one["refined"] for one in seen] == [0, 1, 2, 3]
    assert all(before["psnr"] <= after["psnr"] for before, after in itertools.pairwise(seen))
    assert seen[-1]["psnr"] > seen[0]["psnr"] + 1
    drawn = pixels(post(photo_studio, "/api/image", photo=info["photo"]))
    assert picture_psnr(PICTURE, drawn) == pytest.approx(seen[-1]["psnr"], abs=0.1)
    code = photo_studio.http.post("/api/code", json={"photo": info["photo"], "edits": EDITS, "paste": True}).json()
    assert 'photo = client.invert("photo.jpg", align="centre")' in code["python"]
    assert "for step in refine(client, photo, steps=3):" in code["python"]
    assert "picture = client.edit(photo=photo, edits={1: 2.0})" in code["python"]
    assert 'picture.pasted().save("photo_edited.png")' in code["python"]
    assert info["photo"] in code["curl"] and "-o photo_edited.png" in code["curl"]


def test_a_refinement_that_fails_can_go_on(photo_studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held = photo_studio.service.photos.get(add(photo_studio)["photo"])
    client = photo_studio.service.backend.client
    held.refine(client)
    before = held.inverted

    def gone(*args: Any, **options: Any) -> Any:
        raise ServerUnavailable("nobody there")

    with monkeypatch.context() as patch:
        patch.setattr(client, "edit_rows", gone)
        answer = photo_studio.http.post(f"/api/photos/{held.key}/refine", json={})
        error_of(answer, 503, "server_unavailable")
    assert held.inverted is before
    held.refine(client)
    assert held.inverted.refined == 2


def test_a_photo_is_forgotten_when_asked(photo_studio: Any) -> None:
    key = add(photo_studio)["photo"]
    assert photo_studio.http.delete(f"/api/photos/{key}").status_code == 204
    assert photo_studio.http.delete(f"/api/photos/{key}").status_code == 204
    for answer in (
        photo_studio.http.get(f"/api/photos/{key}"),
        photo_studio.http.post("/api/image", json={"photo": key}),
        photo_studio.http.post(f"/api/photos/{key}/refine", json={}),
        photo_studio.http.post("/api/thumbnails", json={"photo": key, "edits": EDITS}),
    ):
        assert error_of(answer, 404, "unknown_photo")["message"].endswith("choose it again")


def test_photos_are_bounded(photo_studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inverted = photo_studio.service.photos.get(add(photo_studio)["photo"]).inverted
    held = Photos()
    keys = [held.add(inverted, 20.0, None).key for _ in range(photos.MOST)]
    held.get(keys[0])  # used last
    held.add(inverted, 20.0, None)
    assert held.get(keys[0]).psnr == 20.0
    with pytest.raises(UnknownPhoto):
        held.get(keys[1])
    monkeypatch.setattr(photos, "MOST_BYTES", 2 * inverted.photo.pixels.nbytes)
    last = held.add(inverted, 20.0, None)
    assert len(held._held) == 2 and held.get(last.key) is last
    monkeypatch.setattr(photos, "MOST_BYTES", 1)
    assert list(held._held) != [held.add(inverted, 20.0, None).key]
    assert len(held._held) == 1  # a large one alone is held
    assert len({*keys}) == photos.MOST and min(map(len, keys)) >= 20


def test_a_code_of_another_encoder_takes_its_place_once(photo_studio: Any) -> None:
    inverted = photo_studio.service.photos.get(add(photo_studio)["photo"]).inverted
    held = HeldPhoto("a", inverted, 20.0, None)
    now, late = replace(inverted, encoder="1" * 64), replace(inverted, encoder="2" * 64)
    held.found_again(inverted, now)
    assert held.inverted is now and held.psnr is None
    held.found_again(inverted, late)
    assert held.inverted is now


def test_steps_that_are_asked_for_at_once_take_turns(photo_studio: Any) -> None:
    held = photo_studio.service.photos.get(add(photo_studio)["photo"])
    client = photo_studio.service.backend.client
    threads = [threading.Thread(target=held.refine, args=[client]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held.inverted.refined == 4


def test_faces_are_found_and_chosen(photo_studio: Any) -> None:
    info = add(photo_studio, PORTRAIT.read_bytes())
    assert info["how"] == "face"
    with Image.open(PORTRAIT) as opened:
        one = opened.convert("RGB")
    two = Image.new("RGB", (2 * one.width, one.height))
    two.paste(one, (0, 0))
    two.paste(one, (one.width, 0))
    both = png(np.asarray(two))
    error = error_of(send(photo_studio, both), 400, "face")
    assert "there are 2 faces" in error["message"]
    (x, y), (other, level) = error["places"]
    assert 0 < x < 0.5 < other < 1 and other - x == pytest.approx(0.5, abs=0.02) and y == pytest.approx(level, abs=0.02)
    chosen = photo_studio.service.photos.get(add(photo_studio, both, face=1)["photo"])
    assert chosen.face == 1
    assert chosen.inverted.crop.matrix[2] > one.width / 2
    code = photo_studio.http.post("/api/code", json={"photo": chosen.key, "keep": True}).json()["python"]
    assert 'client.invert("photo.jpg", face=1)' in code and "keep=True" in code
    none = error_of(send(photo_studio, png(PHOTO)), 400, "face")
    assert none["places"] == [] and "no face was found" in none["message"]
    error_of(send(photo_studio, both, face=2), 400, "photo")
    error_of(send(photo_studio, both, face=1, align="centre"), 400, "invalid_edit")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "photo is not a picture that can be read"),
        (png(PHOTO)[:60], "photo is"),
    ],
)
def test_what_is_no_photo(photo_studio: Any, content: bytes, says: str) -> None:
    before = dict(photo_studio.service.photos._held)
    assert says in error_of(send(photo_studio, content), 400, "photo")["message"]
    assert photo_studio.service.photos._held == before


def test_nothing_is_no_photo(photo_studio: Any) -> None:
    assert error_of(send(photo_studio, b""), 422, "invalid_request")["message"] == "Field required"


def test_a_hundred_megapixels_are_refused(photo_studio: Any) -> None:
    file = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(file, "png")
    assert "at most 50 megapixels" in error_of(send(photo_studio, file.getvalue()), 400, "photo")["message"]


def test_bodies(photo_studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def post_as(kind: str) -> httpx.Response:
        answer: httpx.Response = photo_studio.http.post(
            "/api/photos", content=png(PHOTO), headers={"content-type": kind}, params={"align": "centre"}
        )
        return answer

    assert post_as("application/octet-stream").status_code == 200
    for kind in ("application/json", "image/png", "multipart/form-data; boundary=x", "text/plain"):
        error_of(post_as(kind), 415, "content_type")
    large = b" " * (security.LARGEST_BODY + 1)
    error_of(send(photo_studio, large), 400, "photo")  # which only a photo may have
    error_of(photo_studio.http.post("/api/image", content=large, headers={"content-type": "application/json"}), 413,
             "too_large")  # fmt: skip
    monkeypatch.setattr(security, "LARGEST_FILE", 1000)
    error_of(send(photo_studio, large), 413, "too_large")
    binary = {"content-type": "application/octet-stream"}
    answer = photo_studio.http.post("/api/photos", content=iter([large]), headers=binary)  # of no announced length
    error_of(answer, 413, "too_large")
    answer = photo_studio.http.post("/api/photos", content=b"x", headers={**binary, "origin": "http://evil.example"})
    error_of(answer, 403, "origin")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "give either a seed or a photo"),
        ({"seed": 7, "photo": "abc"}, "give either a seed or a photo"),
        ({"seed": 7, "keep": True}, "keep needs a photo"),
        ({"photo": "../x"}, "pattern"),
    ],
)
def test_what_is_no_subject(photo_studio: Any, body: dict[str, Any], says: str) -> None:
    assert says in error_of(photo_studio.http.post("/api/image", json=body), 422, "invalid_request")["message"]


def test_a_seed_has_nowhere_to_be_pasted(photo_studio: Any) -> None:
    answer = photo_studio.http.post("/api/image", json={"seed": 7, "paste": True})
    assert "paste needs a photo" in error_of(answer, 400, "invalid_edit")["message"]


def test_a_model_without_an_encoder(studio: Any) -> None:
    assert studio.http.get("/api/model").json()["photos"] is False
    assert "--with-encoder" in error_of(send(studio, png(PHOTO)), 400, "no_encoder")["message"]


def test_the_camera_is_for_this_machine(photo_studio: Any) -> None:
    def allowed(host: str) -> bool:
        answer = photo_studio.http.get("/", headers={"host": host})
        policy = answer.headers["permissions-policy"]
        assert "microphone=()" in policy
        return "camera=(self)" in policy

    assert allowed("127.0.0.1") and allowed("localhost:80")
    assert not allowed("studio.example")
    assert security.Policy("0.0.0.0", "t" * 16).permissions("192.168.0.7:8000").startswith("camera=(),")
