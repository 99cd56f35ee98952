"""The studio's API against the real server."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.client.images import read_recipe
from serving.contract.catalog import CatalogFile
from serving.studio import pictures

SMILE = {"name": "smile"}  # direction 2 at layer 1 only, see tiny_editor


def close(got: Any, wanted: Any) -> bool:
    return got.shape == wanted.shape and int(np.abs(got.astype(int) - wanted.astype(int)).max()) <= 1


def post(studio: Any, path: str, **body: Any) -> httpx.Response:
    response = studio.http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response


def error_of(response: httpx.Response) -> dict[str, str]:
    assert response.headers["content-type"] == "application/json"
    assert "Traceback" not in response.text
    error: dict[str, str] = response.json()["error"]
    assert set(error) == {"code", "message", "where", "places"}
    assert error["message"]
    return error


# ---- pictures


def test_a_preview_is_smaller_and_knows_the_studio_s_names(swift_studio: Any, pixels: Any, formula: Any) -> None:
    assert swift_studio.http.get("/api/model").json()["preview"] == 4
    body = {"direction": 1, "layers": [0], "alpha": [-6, 6]}
    assert swift_studio.http.put("/api/catalog/hat", json=body).status_code == 200
    for edits, alphas in (
        ([{"name": "smile", "alpha": 3}], {2: [0, 3]}),
        ([{"name": "hat", "alpha": 2}, {"direction": 0, "alpha": -4}], {1: [2, 0], 0: [-4, -4]}),
    ):
        full = pixels(post(swift_studio, "/api/image", seed=7, edits=edits).content)
        small = pixels(post(swift_studio, "/api/preview", seed=7, edits=edits).content)
        assert close(full, formula(7, alphas))
        assert close(small, formula(7, alphas)[::2, ::2])
    assert (
        error_of(swift_studio.http.post("/api/preview", json={"seed": 7, "edits": [{"direction": 3, "alpha": 1}]}))[
            "code"
        ]
        == "invalid_edit"
    )
    assert swift_studio.http.delete("/api/catalog/hat").status_code == 204  # other tests share this studio


def test_without_a_preview_the_full_picture_is_drawn(studio: Any, pixels: Any, formula: Any) -> None:
    assert studio.http.get("/api/model").json()["preview"] is None
    response = post(studio, "/api/preview", seed=7, edits=[{"direction": 1, "alpha": 2}])
    assert close(pixels(response.content), formula(7, {1: [2, 2]}))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_in_each_format(studio: Any, pixels: Any, formula: Any, kind: str) -> None:
    response = post(studio, "/api/image", seed=7, format=kind, quality=100)
    assert response.headers["content-type"] == f"image/{kind}"
    image = pixels(response.content)
    if kind == "png":
        assert close(image, formula(7, {}))
    else:
        assert image.shape == (8, 8, 3)
    assert "model;dur=" in response.headers["server-timing"]


@pytest.mark.parametrize(
    ("edits", "alphas"),
    [
        ([{"direction": 1, "alpha": 2.5}], {1: [2.5, 2.5]}),
        ([{"direction": 1, "alpha": 2.5, "layers": [0]}], {1: [2.5, 0]}),
        ([{**SMILE, "alpha": 3}], {2: [0, 3]}),
        ([{**SMILE, "alpha": 3}, {"direction": 0, "alpha": -2}], {2: [0, 3], 0: [-2, -2]}),
        ([{"direction": 2, "alpha": 1}, {**SMILE, "alpha": 3}], {2: [1, 4]}),
    ],
)
def test_edits_are_applied_together(studio: Any, pixels: Any, formula: Any, edits: Any, alphas: Any) -> None:
    image = pixels(post(studio, "/api/image", seed=11, edits=edits).content)
    assert close(image, formula(11, alphas))
    assert not np.array_equal(image, pixels(post(studio, "/api/image", seed=11).content))


def test_alpha_zero_is_the_unedited_picture_bit_for_bit(studio: Any, pixels: Any) -> None:
    plain = pixels(post(studio, "/api/image", seed=3).content)
    zero = pixels(post(studio, "/api/image", seed=3, edits=[{"direction": 1, "alpha": 0}]).content)
    assert np.array_equal(zero, plain)


def test_scale_enlarges(studio: Any, pixels: Any) -> None:
    assert pixels(post(studio, "/api/image", seed=3, scale=4).content).shape == (32, 32, 3)


def test_a_gallery_is_the_pictures_side_by_side(studio: Any, pixels: Any, formula: Any) -> None:
    seeds = [5, 0, 5, 4294967295, *range(20)]  # more than one batch of 8
    image = pixels(post(studio, "/api/gallery", seeds=seeds, edits=[{"direction": 1, "alpha": 2}]).content)
    assert close(image, np.concatenate([formula(seed, {1: [2, 2]}) for seed in seeds], axis=1))


def test_a_sweep_walks_one_edit_and_leaves_the_others(studio: Any, pixels: Any, formula: Any) -> None:
    others = [{"direction": 0, "alpha": 1.5}]
    alphas = [-4, 0, 4]
    image = pixels(post(studio, "/api/sweep", seed=2, walk=SMILE, alphas=alphas, edits=others).content)
    assert close(image, np.concatenate([formula(2, {0: [1.5, 1.5], 2: [0, alpha]}) for alpha in alphas], axis=1))
    walk = {"direction": 1, "layers": [0]}
    image = pixels(post(studio, "/api/sweep", seed=2, walk=walk, alphas=alphas).content)
    assert close(image, np.concatenate([formula(2, {1: [alpha, 0]}) for alpha in alphas], axis=1))


def test_a_sweep_with_labels_is_larger(studio: Any, pixels: Any) -> None:
    image = pixels(post(studio, "/api/sweep", seed=2, walk=SMILE, alphas=[-4, 4], labels=True).content)
    assert image.shape[0] > 8


def test_a_gif_goes_there_and_back(studio: Any) -> None:
    body = {"seed": 2, "walk": {"direction": 1}, "alphas": [-6, -3, 0, 3, 6], "format": "gif", "scale": 2}
    response = post(studio, "/api/sweep", **body)
    assert response.headers["content-type"] == "image/gif"
    with Image.open(io.BytesIO(response.content)) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (8, (16, 16), 0)
    assert post(studio, "/api/sweep", **{**body, "alphas": [1]}).content[:3] == b"GIF"


def test_a_reversed_name_goes_against_its_direction(scored_studio: Any, pixels: Any, formula: Any) -> None:
    image = post(scored_studio, "/api/image", seed=4, edits=[{**SMILE, "alpha": 3}]).content
    assert close(pixels(image), formula(4, {2: [-3, -3]}))
    with Image.open(io.BytesIO(image)) as picture:
        recipe = json.loads(picture.text["latentclr"])  # type: ignore[attr-defined]
    assert recipe["edits"] == {"smile": 3}  # as it was asked for
    assert (recipe["direction"], recipe["alpha"]) == ([[2]], [[[-3, -3]]])  # as it is drawn
    walk = pixels(post(scored_studio, "/api/sweep", seed=4, walk=SMILE, alphas=[-1, 2]).content)
    assert close(walk, np.concatenate([formula(4, {2: [1, 1]}), formula(4, {2: [-2, -2]})], axis=1))


# ---- thumbnails

EACH = [{"direction": 0, "alpha": 2}, {"direction": 1, "alpha": -1, "layers": [1]}, {**SMILE, "alpha": 3}]


def test_thumbnails_are_of_each_edit_alone_and_drawn_once(
    studio: Any, pixels: Any, formula: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    client = studio.service.backend.client
    send = client.send

    def counted(plan: Any, timeout: float | None = None) -> Any:
        sent.append(len(plan(client.manifest).recipe))
        return send(plan, timeout)

    monkeypatch.setattr(client, "send", counted)
    row = pixels(post(studio, "/api/thumbnails", seed=901, edits=EACH).content)
    alone = [formula(901, {0: [2, 2]}), formula(901, {1: [0, -1]}), formula(901, {2: [0, 3]})]
    assert close(row, np.concatenate(alone, axis=1))
    assert sent == [3]  # one batch
    again = [EACH[2], {"direction": 2, "alpha": 3, "layers": [1]}, EACH[0], {"direction": 2, "alpha": 1}]
    row = pixels(post(studio, "/api/thumbnails", seed=901, edits=again).content)
    assert close(row, np.concatenate([alone[2], alone[2], alone[0], formula(901, {2: [1, 1]})], axis=1))
    assert sent == [3, 1]  # only what is new; a name is what it stands for
    post(studio, "/api/thumbnails", seed=901, edits=EACH)
    assert sent == [3, 1]
    post(studio, "/api/thumbnails", seed=902, edits=EACH)
    assert sent == [3, 1, 3]


def test_thumbnails_of_a_class(classes_studio: Any, pixels: Any, formula: Any) -> None:
    for class_id, number in ((None, 1), (0, 0), (1, 1)):
        chosen = {} if class_id is None else {"class_id": class_id}
        row = pixels(post(classes_studio, "/api/thumbnails", seed=5, edits=EACH[:1], **chosen).content)
        assert close(row, formula(5, {0: [2, 2]}, number))


def test_thumbnails_are_forgotten_with_their_model_and_beyond_their_bound(
    manifest_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.studio import thumbnails
    from serving.studio.thumbnails import Thumbnails, shrink

    one, other, picture = manifest_of(3, 1), manifest_of(4, 1), np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 3 * picture.nbytes)
    kept = Thumbnails()
    kept.keep(one, {(number,): picture for number in range(4)})
    assert list(kept.known(one, [(0,), (2,), (2,), (3,), (1,)])) == [(2,), (3,), (1,)]
    kept.keep(one, {(2,): picture, (5,): picture})  # what was wanted last goes last
    assert list(kept.known(one, [(number,) for number in range(9)])) == [(1,), (2,), (5,)]
    assert list(kept.known(manifest_of(3, 1), [(1,)])) == [(1,)]  # asked anew, and the same
    assert kept.known(other, [(1,)]) == {}
    kept.keep(other, {(9,): picture})
    assert (kept.known(one, [(1,)]), list(kept.known(other, [(9,)]))) == ({}, [(9,)])
    assert shrink(np.zeros((2, 300, 300, 3), np.uint8), 96).shape == (2, 96, 96, 3)
    assert shrink(picture[None], 96).shape == (1, 8, 8, 3)


# ---- pictures that say how they were made


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/image", {"edits": [{**SMILE, "alpha": 3.3}, {"direction": 0, "alpha": 0.1, "layers": [0]}]}),
        ("/api/image", {"edits": [{"direction": 2, "alpha": 1}, {**SMILE, "alpha": 0.7}], "scale": 3}),
        ("/api/image", {}),
        ("/api/sweep", {"walk": SMILE, "alphas": [-4, 0, 0.1], "labels": True, "scale": 2}),
        ("/api/sweep", {"walk": {"direction": 1}, "alphas": [2], "edits": [{**SMILE, "alpha": 1}], "labels": True}),
    ],
)
def test_a_png_is_made_again_bit_for_bit(studio: Any, pixels: Any, tmp_path: Path, path: str, body: Any) -> None:
    from click.testing import CliRunner

    from serving.cli import edit

    (tmp_path / "studio.png").write_bytes(post(studio, path, seed=11, **body).content)
    words = ["--url", studio.service.backend.url, "--from", tmp_path / "studio.png", "-o", tmp_path / "again.png"]
    result = CliRunner().invoke(edit, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.output.endswith(f"the same pixels as {tmp_path / 'studio.png'}\n")
    assert np.array_equal(*(pixels((tmp_path / name).read_bytes()) for name in ("studio.png", "again.png")))
    with Image.open(tmp_path / "again.png") as again, Image.open(tmp_path / "studio.png") as first:
        assert again.text == first.text  # type: ignore[attr-defined]


def test_a_picture_of_a_class_is_made_again(classes_studio: Any, pixels: Any, tmp_path: Path) -> None:
    from serving import EditClient
    from serving.client.replay import replay

    (tmp_path / "a.png").write_bytes(post(classes_studio, "/api/image", seed=3, class_id=0).content)
    recipe, before = read_recipe(tmp_path / "a.png")
    with EditClient(classes_studio.service.backend.url, "conditional") as client:
        assert np.array_equal(replay(client, recipe).image, before)


def test_the_recipe_says_what_was_asked_for(studio: Any) -> None:
    edits = [{**SMILE, "alpha": 3}, {"direction": 0, "alpha": 1, "layers": [0]}, {"direction": 1, "alpha": 2}]
    with Image.open(io.BytesIO(post(studio, "/api/image", seed=1, edits=edits).content)) as picture:
        recipe = json.loads(picture.text["latentclr"])  # type: ignore[attr-defined]
    assert (recipe["seed"], recipe["codes_sha256"]) == (1, None)
    assert recipe["edits"] == {"smile": 3, "0": {"alpha": 1, "layers": [0]}, "1": 2}
    assert recipe["alpha"] == [[[0, 3], [1, 0], [2, 2]]]
    assert "scale" not in recipe  # a file of scale 1 is as it was before there was one


def test_tiles_for_a_page_carry_no_recipe(studio: Any) -> None:
    for path, body in (
        ("gallery", {"seeds": [1, 2]}),
        ("gallery", {"seeds": [7]}),
        ("sweep", {"seed": 1, "walk": SMILE, "alphas": [1, 2]}),
    ):
        with Image.open(io.BytesIO(post(studio, f"/api/{path}", **body).content)) as picture:
            assert "latentclr" not in picture.text  # type: ignore[attr-defined]


# ---- the model


def test_the_model_is_described(studio: Any) -> None:
    model = studio.http.get("/api/model").json()
    assert (model["directions"], model["layers"], model["resolution"]) == (3, 2, 8)
    assert model["alpha_range"] == [-6, 6]
    assert model["class_count"] == 0
    assert model["default_class"] is None
    assert model["edits"] == [
        {"name": "smile", "direction": 2, "layers": [1], "alpha": [-4, 4], "note": "the second layer only",
         "reverse": False, "source": "model", "removable": False}
    ]  # fmt: skip
    assert studio.http.get("/api/health").json() == {"ready": True, "message": ""}
    assert studio.http.get("/api/classes").json() == []


def test_what_was_found_of_the_directions_is_told(studio: Any, scored_studio: Any) -> None:
    assert studio.http.get("/api/model").json()["scores"] == []
    model = scored_studio.http.get("/api/model").json()
    effects = [{"attribute": "yaw", "effect": 1.2}, {"attribute": "happy", "effect": -0.4}]
    assert model["scores"][0] == {"range": [-2.13, 4.27], "twin_of": None, "name": "yaw", "top": effects}
    assert model["scores"][1] == {"range": [-5, 1], "twin_of": 0, "name": "", "top": []}
    assert [(edit["name"], edit["alpha"], edit["reverse"]) for edit in model["edits"]] == [("smile", [-3, 2], True)]


def test_classes_are_searched_and_drawn(classes_studio: Any, pixels: Any, formula: Any) -> None:
    http = classes_studio.http
    assert http.get("/api/model").json()["default_class"] == {"id": 1, "name": "Goldfish"}
    assert http.get("/api/classes", params={"q": "gold"}).json() == [{"id": 1, "name": "Goldfish"}]
    assert http.get("/api/classes", params={"q": "0"}).json() == [{"id": 0, "name": "tench"}]
    assert [one["id"] for one in http.get("/api/classes", params={"limit": 1}).json()] == [0]
    assert close(pixels(post(classes_studio, "/api/image", seed=1).content), formula(1, {}, 1))
    assert close(pixels(post(classes_studio, "/api/image", seed=1, class_id=0).content), formula(1, {}, 0))
    assert "class_id must be in [0, 2), got 2" in http.post("/api/image", json={"seed": 1, "class_id": 2}).text


# ---- failures


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/image", {"seed": 1, "edits": [{"direction": 3, "alpha": 1}]}, 400, "direction must be in [0, 3), got 3"),
        ("/api/image", {"seed": 1, "edits": [{"name": "frown", "alpha": 1}]}, 400, "no named edit 'frown'"),
        ("/api/image", {"seed": 1, "edits": [{"direction": 0, "alpha": 1, "layers": [2]}]}, 400, "layers must be in"),
        ("/api/image", {"seed": 1, "edits": [{"direction": 0, "alpha": 1, "layers": []}]}, 400, "none of the layers"),
        ("/api/image", {"seed": 1, "edits": [{**SMILE, "alpha": 1, "layers": [0]}]}, 400, "none of the layers"),
        ("/api/image", {"seed": 1, "class_id": 0}, 400, "no classes"),
        ("/api/image", {"seed": -1}, 422, "greater than or equal to 0"),
        ("/api/image", {"seed": 2**32}, 422, "less than 4294967296"),
        ("/api/image", {"seed": "7"}, 422, "valid integer"),
        ("/api/image", {"seed": True}, 422, "valid integer"),
        ("/api/image", {"seed": 1.5}, 422, "valid integer"),
        ("/api/image", {}, 422, "give either a seed or a photo"),
        ("/api/image", {"seed": 1, "z": [0]}, 422, "Extra inputs"),
        ("/api/image", {"seed": 1, "format": "svg"}, 422, "'png'"),
        ("/api/image", {"seed": 1, "scale": 9}, 422, "less than or equal to 8"),
        ("/api/image", {"seed": 1, "edits": [{"direction": 0, "alpha": 1001}]}, 422, "less than or equal"),
        ("/api/image", {"seed": 1, "edits": [{"direction": 0, "alpha": 1}] * 33}, 422, "at most 32"),
        ("/api/gallery", {"seeds": []}, 422, "at least 1"),
        ("/api/gallery", {"seeds": list(range(33))}, 422, "at most 32"),
        ("/api/sweep", {"seed": 1, "walk": SMILE, "alphas": []}, 422, "at least 1"),
        ("/api/sweep", {"seed": 1, "walk": {"direction": 9}, "alphas": [1]}, 400, "got 9"),
        ("/api/thumbnails", {"seed": 1, "edits": [{"direction": 9, "alpha": 1}]}, 400, "got 9"),
        ("/api/thumbnails", {"seed": 1, "edits": []}, 422, "at least 1"),
        ("/api/thumbnails", {"seed": 1, "edits": [{"direction": 0, "alpha": 1}] * 33}, 422, "at most 32"),
        ("/api/thumbnails", {"seed": 1, "class_id": 0, "edits": [{"direction": 0, "alpha": 1}]}, 400, "no classes"),
        ("/api/code", {"seed": 1, "edits": [{"direction": 9, "alpha": 1}]}, 400, "got 9"),
    ],
)
def test_what_is_out_of_range_is_said(studio: Any, path: str, body: Any, status: int, words: str) -> None:
    response = studio.http.post(path, json=body)
    assert response.status_code == status, response.text
    assert words in error_of(response)["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"seed"', b"\xff\xfe", b'{"seed": NaN}', b'{"seed": 1e999}', b"[" * 30_000,
        b'{"seed": 1' + b"0" * 6000 + b"}", b'{"seed": 1, "\\ud800": 1}',
        b'{"seed": 1, "edits": [{"name": "\\ud800", "alpha": 1}]}',
        b'{"seed": 1, "edits": [{"direction": 0, "alpha": NaN}]}',
        b'{"seed": 1, "edits": [{"direction": 0, "alpha": 1e400}]}',
    ],
)  # fmt: skip
def test_junk_is_refused_cleanly(studio: Any, body: bytes) -> None:
    response = studio.http.post("/api/image", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422), response.text
    error_of(response)


def test_a_picture_too_large_is_refused_before_it_is_drawn() -> None:
    from serving.errors import InvalidEdit
    from serving.studio.pictures import check_size

    check_size(15, (1024, 1024), 1)
    with pytest.raises(InvalidEdit, match="16384 x 1024"):
        check_size(16, (1024, 1024), 1)
    with pytest.raises(InvalidEdit, match="64 million"):
        check_size(1, (1024, 1024), 8)
    check_size(30, (1024, 512), 1)  # H x W: half as wide, twice as many
    with pytest.raises(InvalidEdit, match="16896 x 1024"):
        check_size(33, (1024, 512), 1)


def test_the_frames_of_a_gif_are_not_side_by_side(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_LONGEST_SIDE", 9 * 8)
    body = {"seed": 1, "walk": SMILE, "alphas": list(range(-5, 5))}
    with Image.open(io.BytesIO(post(studio, "/api/sweep", **body, format="gif").content)) as gif:
        assert gif.size == (8, 8)
    told = error_of(studio.http.post("/api/sweep", json=body))["message"]
    assert told.startswith("a picture must be at most 72 pixels wide and 64 million in all, got 80 x 8;")
    monkeypatch.setattr(pictures, "_MOST_PIXELS", 9 * 8 * 8)  # all frames are in memory
    told = error_of(studio.http.post("/api/sweep", json={**body, "format": "gif"}))["message"]
    assert "got 10 frames of 8 x 8;" in told


def test_thumbnails_keep_the_shape_of_pictures() -> None:
    from serving.studio.thumbnails import shrink

    assert shrink(np.zeros((2, 24, 96, 3), np.uint8), 48).shape == (2, 12, 48, 3)
    assert shrink(np.zeros((2, 96, 24, 3), np.uint8), 48).shape == (2, 48, 12, 3)
    assert shrink(np.zeros((2, 12, 48, 3), np.uint8), 48).shape == (2, 12, 48, 3)


def test_what_is_not_there_is_404_and_the_wrong_verb_405(studio: Any) -> None:
    assert error_of(studio.http.get("/api/nothing"))["code"] == "not_found"
    response = studio.http.get("/api/image")
    assert response.status_code == 405
    assert error_of(response)["code"] == "method_not_allowed"


def test_no_server_is_503_and_the_page_still_opens(open_studio: Any, tmp_path: Path) -> None:
    with open_studio("127.0.0.1:9", tmp_path / "catalog.yaml") as studio:
        for response in (studio.http.get("/api/model"), studio.http.post("/api/image", json={"seed": 1})):
            assert response.status_code == 503
            assert error_of(response)["code"] == "server_unavailable"
        assert studio.http.get("/api/health").json()["ready"] is False
        assert studio.http.get("/").status_code == 200


def test_a_model_that_is_not_there_is_503(triton: Any, open_studio: Any, tmp_path: Path) -> None:
    with open_studio(triton.grpc_url, tmp_path / "catalog.yaml", "absent") as studio:
        response = studio.http.get("/api/model")
        assert (response.status_code, error_of(response)["code"]) == (503, "model_unavailable")
        assert studio.http.get("/api/health").json()["ready"] is False


def test_a_bug_is_told_without_its_text(
    studio: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(studio.service, "image", broken)
    response = studio.http.post("/api/image", json={"seed": 1})
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal"
    assert "secret" not in response.text
    assert "secret" in caplog.text


def test_many_at_once_get_their_own_pictures(studio: Any, pixels: Any, formula: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(seed: int) -> bool:
        image = pixels(post(studio, "/api/image", seed=seed, edits=[{"direction": seed % 3, "alpha": 2}]).content)
        return close(image, formula(seed, {seed % 3: [2, 2]}))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(40)))


# ---- code for what is on the screen


@pytest.mark.parametrize(
    "edits",
    [
        [],
        [{"direction": 1, "alpha": -2.3}],
        [{**SMILE, "alpha": 3}, {"direction": 0, "alpha": 0.1, "layers": [0]}],
        [{"name": "so so", "alpha": 2}],
    ],
)
def test_the_code_makes_the_same_picture(studio: Any, pixels: Any, tmp_path: Path, edits: Any) -> None:
    studio.catalog.write_text(json.dumps({"so so": {"direction": 1, "layers": [1]}}))
    wanted = pixels(post(studio, "/api/image", seed=7, edits=edits).content)
    code = post(studio, "/api/code", seed=7, edits=edits).json()
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code["python"]], cwd=tmp_path, env=environment, check=True, timeout=60)
    picture = tmp_path / "seed_7.png"
    assert np.array_equal(pixels(picture.read_bytes()), wanted)
    assert read_recipe(picture)[0].seed == 7
    if shutil.which("curl"):
        picture.unlink()
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        subprocess.run(["bash", "-c", code["curl"]], cwd=tmp_path, env=environment, check=True, timeout=60)
        assert np.array_equal(pixels(picture.read_bytes()), wanted)


def test_the_code_names_model_class_and_token(triton: Any, open_studio: Any, tmp_path: Path) -> None:
    from serving.studio.security import Policy

    policy = Policy(token="0123456789abcdef")
    with open_studio(triton.grpc_url, tmp_path / "catalog.yaml", "conditional", policy) as studio:
        headers = {"authorization": "Bearer 0123456789abcdef"}
        code = studio.http.post("/api/code", json={"seed": 1, "class_id": 1}, headers=headers).json()
    assert f'EditClient("{triton.grpc_url}", "conditional")' in code["python"]
    assert "class_id=1" in code["python"]
    assert "Bearer $LATENTCLR_STUDIO_TOKEN" in code["curl"]
    assert "0123456789" not in code["curl"]


# ---- the catalog


def test_an_edit_is_named_used_and_deleted(studio: Any, pixels: Any, formula: Any) -> None:
    http = studio.http
    body = {"direction": 1, "layers": [0], "alpha": [-7, 7], "note": "a  test"}
    saved = http.put("/api/catalog/Lächeln 2", json=body)
    told = {"name": "Lächeln 2", "note": "a test", "reverse": False, "source": "catalog", "removable": True}
    assert saved.json() == {**body, **told}
    assert studio.catalog.read_text() == "Lächeln 2: {direction: 1, layers: [0], alpha: [-7, 7], note: a test}\n"
    assert [edit["name"] for edit in http.get("/api/catalog").json()] == ["Lächeln 2", "smile"]
    image = pixels(post(studio, "/api/image", seed=4, edits=[{"name": "Lächeln 2", "alpha": 2}]).content)
    assert close(image, formula(4, {1: [2, 0]}))
    assert http.delete("/api/catalog/Lächeln 2").status_code == 204
    assert http.get("/api/catalog").json()[0]["name"] == "smile"
    assert error_of(http.delete("/api/catalog/Lächeln 2"))["code"] == "unknown_name"
    assert http.delete("/api/catalog/smile").status_code == 404  # the model's own


def test_a_note_is_saved_as_a_line_that_no_terminal_obeys(studio: Any) -> None:
    body = {"direction": 1, "alpha": [-2, 6], "note": "mouth\n\x1b[2Jonly"}
    assert studio.http.put("/api/catalog/frown", json=body).json()["note"] == "mouth [2Jonly"
    assert "note: 'mouth [2Jonly'}" in studio.catalog.read_text()


def test_a_name_is_saved_reversed(studio: Any, pixels: Any, formula: Any) -> None:
    body = {"direction": 1, "alpha": [-2, 6], "reverse": True}
    assert studio.http.put("/api/catalog/frown", json=body).json()["reverse"] is True
    assert studio.catalog.read_text() == "frown: {direction: 1, layers: [], alpha: [-2, 6], note: '', reverse: true}\n"
    image = pixels(post(studio, "/api/image", seed=4, edits=[{"name": "frown", "alpha": 2}]).content)
    assert close(image, formula(4, {1: [-2, -2]}))
    refused = studio.http.put("/api/catalog/frown", json={**body, "reverse": False})
    assert "frown is direction 1 reversed from -2 to 6 already" in error_of(refused)["message"]


def test_all_layers_are_saved_as_none(studio: Any) -> None:
    saved = studio.http.put("/api/catalog/whole", json={"direction": 1, "layers": [1, 0, 1], "alpha": [-1, 1]}).json()
    assert saved["layers"] == []


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("28", {}, 422), ("-x", {}, 422), ("a:b", {}, 422), ("a\nb", {}, 422), ("x" * 41, {}, 422), (" a", {}, 422),
        ("..", {}, 404), ("a/b", {}, 404), ("..%2F..%2Fetc", {}, 404), ("😀", {}, 422),
        ("fine", {"direction": 3}, 400), ("fine", {"layers": [2]}, 400), ("fine", {"alpha": [1, 1]}, 400),
        ("fine", {"alpha": [1]}, 422), ("fine", {"note": "x" * 201}, 422), ("fine", {"path": "/etc"}, 422),
    ],
)  # fmt: skip
def test_a_bad_entry_is_refused(studio: Any, name: str, body: Any, status: int) -> None:
    from urllib.parse import quote

    path = f"/api/catalog/{name if '%' in name else quote(name, safe='/')}"
    response = studio.http.put(path, json={"direction": 1, "alpha": [-6, 6], **body})
    if name == "..":  # the client tidies this path itself
        assert response.status_code in (404, 405)
    else:
        assert response.status_code == status, response.text
    error_of(response)
    assert not studio.catalog.exists()


def test_a_bad_entry_is_told_and_the_others_work(studio: Any) -> None:
    studio.catalog.write_text("3rd: {direction: 1}\nfar: {direction: 9}\nhat: {direction: 1}\n")
    model = studio.http.get("/api/model").json()
    assert [edit["name"] for edit in model["edits"]] == ["hat", "smile"]
    assert [words in line for words, line in zip(("got '3rd'", "far: direction"), model["problems"], strict=True)]
    assert studio.http.post("/api/image", json={"seed": 1, "edits": [{"name": "hat", "alpha": 1}]}).status_code == 200


def test_the_catalog_is_read_once_for_a_request(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of a file that changes meanwhile would have rows of different edits."""
    studio.catalog.write_text("hat: {direction: 1}\n")
    reads: list[int] = []
    read = CatalogFile.read
    monkeypatch.setattr(CatalogFile, "read", lambda file: reads.append(1) or read(file))
    hat = {"name": "hat"}
    post(studio, "/api/sweep", seed=1, walk=hat, alphas=[1, 2, 3], edits=[{**SMILE, "alpha": 1}, {**hat, "alpha": 1}])
    assert len(reads) == 1
    post(studio, "/api/image", seed=1, edits=[{"direction": 1, "alpha": 1}])
    assert len(reads) == 1  # no name, no catalog


def test_a_damaged_catalog_is_told_and_kept(studio: Any) -> None:
    studio.catalog.write_text("smile: {direction: ")
    assert "not YAML, line 1" in studio.http.get("/api/model").json()["problems"][0]
    assert studio.http.post("/api/image", json={"seed": 1}).status_code == 200
    response = studio.http.put("/api/catalog/fine", json={"direction": 1, "alpha": [-6, 6]})
    assert (response.status_code, error_of(response)["code"]) == (409, "catalog")
    assert studio.catalog.read_text() == "smile: {direction: "


# ---- loss and recovery


@pytest.mark.slow
def test_it_recovers_when_the_server_comes_back(studio_repository: Path, open_studio: Any, tmp_path: Path) -> None:
    from serving import TritonServer
    from serving.triton.ports import Ports

    first = TritonServer(studio_repository, ports=Ports(0, 0, 0), models=("latent_edit",))
    with first:
        ports = first.ports
        with open_studio(first.grpc_url, tmp_path / "catalog.yaml") as studio:
            wanted = post(studio, "/api/image", seed=1).content
            first.stop()
            for _ in range(6):  # long enough for gRPC to grow its pauses between attempts
                assert studio.http.post("/api/image", json={"seed": 1}).status_code == 503
                time.sleep(0.5)
            assert studio.http.get("/api/health").json()["ready"] is False
            with TritonServer(studio_repository, ports=ports, models=("latent_edit",)):
                started = time.monotonic()
                while studio.http.post("/api/image", json={"seed": 1}).status_code != 200:
                    assert time.monotonic() - started < 5
                    time.sleep(0.1)
                assert post(studio, "/api/image", seed=1).content == wanted
                while not studio.http.get("/api/health").json()["ready"]:
                    assert time.monotonic() - started < 5
                    time.sleep(0.1)
