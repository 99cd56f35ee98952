"""Pictures that know how they were made, and are made again from that, bit for bit."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from test_serving_cli import pixels, run
from tiny_editor import MANIFEST, SIZE, D, add_model, config, save_onnx

import serving.client.images
import serving.contract.recipe
from serving import EditClient, TritonServer
from serving.cli import edit
from serving.client.images import read_recipe
from serving.client.replay import replay
from serving.contract.recipe import KEYWORD, codes_sha256, parse_recipe
from serving.errors import ImageError, InvalidEdit, ServingError
from serving.triton.ports import Ports

SWEEP = ["--seed", "7", "--direction", "smile", "--alpha", "-6,-3,0,3,6"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(server: TritonServer, *arguments: str, url: str = "") -> str:
    result = run(edit, "--url", url or server.grpc_url, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def text_of(path: str) -> dict[str, Any]:
    with Image.open(path) as picture:
        assert isinstance(picture, PngImagePlugin.PngImageFile)
        loaded: dict[str, Any] = json.loads(picture.text[KEYWORD])
        return loaded


def test_a_strip_says_how_it_was_made(server: TritonServer) -> None:
    made(server, *SWEEP, "--layers", "1", "-o", "strip.png")
    text = text_of("strip.png")
    assert text["model"]["name"] == "latent_edit"
    assert text["model"]["weights_sha256"] == "0" * 64
    assert text["seed"] == 7
    assert text["edits"] == {"smile": [-6, -3, 0, 3, 6]}
    assert text["layers"] == [1]
    assert text["direction"] == [[2]] * 5
    assert text["alpha"][0] == [[0, -6]]


@pytest.mark.parametrize(
    "arguments",
    [
        SWEEP,
        ["--seed", "9", "--edit", "smile=3.3", "--edit", "0=-0.1", "--layers", "1"],
        ["--seed", "4294967295"],
        ["--seed", "1", "--direction", "0", "--alpha", "0.1"],
        ["--seed", "5", "--direction", "1", "--model", "conditional", "--class-name", "tench"],
        ["--seed", "5", "--direction", "1", "--model", "latent_edit_torchscript"],
    ],
)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_made_again_bit_for_bit(server: TritonServer, arguments: list[str], protocol: str) -> None:
    made(server, *arguments, "-o", "a.png")
    url = server.http_url if protocol == "http" else server.grpc_url
    assert made(server, "--from", "a.png", "-o", "b.png", url=url) == "wrote b.png: the same pixels as a.png\n"
    np.testing.assert_array_equal(pixels("a.png"), pixels("b.png"))
    assert text_of("a.png") == text_of("b.png")
    assert made(server, "--from", "b.png", "-o", "c.png", url=url).endswith("the same pixels as b.png\n")


def test_codes_are_known_by_their_hash(server: TritonServer) -> None:
    codes = np.random.RandomState(3).randn(3, D)
    np.save("z.npy", codes)
    np.save("other.npy", codes + 1e-3)
    made(server, "--z", "z.npy", "--edit", "1=2", "-o", "a.png")
    assert text_of("a.png")["codes_sha256"] == codes_sha256(codes.astype(np.float32))
    assert made(server, "--from", "a.png", "--z", "z.npy", "-o", "b.png").endswith("the same pixels as a.png\n")
    assert made(server, "--from", "b.png", "--z", "z.npy", "-o", "c.png").endswith("the same pixels as b.png\n")
    for extra, message in (([], "give their file with --z"), (["--z", "other.npy"], "not those of the picture")):
        result = run(edit, "--url", server.grpc_url, "--from", "a.png", *extra, "-o", "d.png")
        assert isinstance(result.exception, InvalidEdit)
        assert re.search(message, str(result.exception))
    made(server, "--seed", "1", "-o", "e.png")
    result = run(edit, "--url", server.grpc_url, "--from", "e.png", "--z", "z.npy", "-o", "d.png")
    assert "give no codes" in str(result.exception)
    assert not Path("d.png").exists()


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server whose model has the same name and other files."""
    repository = tmp_path_factory.mktemp("another")
    manifest = {**MANIFEST, "files_sha256": {"model.onnx": "f" * 64}}
    save_onnx(add_model(repository, "latent_edit", config("latent_edit", manifest=manifest)) / "model.onnx")
    with TritonServer(repository, ports=Ports(0, 0, 0)) as running:
        yield running


def test_another_model_is_refused_unless_forced(server: TritonServer, another: TritonServer) -> None:
    made(server, *SWEEP, "-o", "a.png")
    result = run(edit, "--url", another.grpc_url, "--from", "a.png", "-o", "b.png")
    assert isinstance(result.exception, ServingError)
    assert re.search(
        r"made by model 'latent_edit' \(weights 0{12}\).*model\.onnx f{12}.*--force", str(result.exception)
    )
    assert "\n" not in str(result.exception)
    assert not Path("b.png").exists()
    assert made(another, "--from", "a.png", "-o", "b.png", "--force").endswith("the same pixels as a.png\n")
    assert text_of("b.png")["model"]["files_sha256"] == {"model.onnx": "f" * 64}


def test_other_pixels_are_reported(server: TritonServer) -> None:
    made(server, "--seed", "1", "-o", "a.png")
    recipe, before = read_recipe("a.png")
    info = PngImagePlugin.PngInfo()
    info.add_itxt(KEYWORD, recipe.to_json())
    Image.fromarray(before ^ 1).save("touched.png", pnginfo=info)
    assert "warning: not the same pixels as touched.png: they differ by up to 1 of 255" in made(
        server, "--from", "touched.png", "-o", "b.png"
    )
    Image.fromarray(before[:4]).save("cut.png", pnginfo=info)
    assert "8x4 before, 8x8 now" in made(server, "--from", "cut.png", "-o", "b.png")


def write_text(path: str, text: str | None) -> None:
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_text(KEYWORD, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


def test_pictures_without_a_usable_recipe(server: TritonServer) -> None:
    made(server, *SWEEP, "-o", "good.png")
    good = text_of("good.png")
    Path("text.png").write_text("text")
    Path("half.png").write_bytes(Path("good.png").read_bytes()[:200])
    Image.new("RGB", (8, 8)).save("photo.jpg")
    write_text("plain.png", None)
    bad: dict[str, Any] = {
        "junk": "junk", "list": "[]", "empty": "{}", "deep": "[" * 100_000,
        "format": json.dumps({**good, "format": 2}),
        "seedless": json.dumps({**good, "seed": None}),
        "seed": json.dumps({**good, "seed": 2**40}),
        "shape": json.dumps({**good, "alpha": [[[1.0]]]}),
        "ragged": json.dumps({**good, "direction": [[1], [1, 2]]}),
        "huge": json.dumps({**good, "direction": [[10**30]] * 5}),
        "float": json.dumps({**good, "alpha": "x"}),
        "labels": json.dumps({**good, "labels": []}),
        "long": json.dumps({**good, "labels": ["x" * 9999] * 5}),
        "many": json.dumps({**good, "direction": [[0]] * 5000, "alpha": [[[0, 0]]] * 5000, "labels": [""] * 5000}),
        "class": json.dumps({**good, "class_id": [1]}),
        "edits": json.dumps({**good, "direction": [[0] * 65] * 5, "alpha": [[[0, 0]] * 65] * 5}),
        "no_edit": json.dumps({**good, "direction": [[]] * 5, "alpha": [[]] * 5}),
        "values": json.dumps({**good, "direction": [[0] * 9000] * 5, "alpha": [[[0] * 9] * 9000] * 5}),
        "interpolation": json.dumps({**good, "title": "${oc.env:HOME}"}),
        "lines": json.dumps({**good, "title": "a\nb"}),
        "texts": json.dumps({**good, "alpha": [[["1", "2"]]] * 5}),
        "fractions": json.dumps({**good, "direction": [[0.5]] * 5}),
        "seed_text": json.dumps({**good, "seed": "7"}), "seed_list": json.dumps({**good, "seed": [7]}),
        "files": json.dumps({**good, "model": {**good["model"], "files_sha256": {str(n): "" for n in range(999)}}}),
        "name": json.dumps({**good, "model": {**good["model"], "name": [[]] * 100}}),
        "scale": json.dumps({**good, "scale": 9}), "scale_text": json.dumps({**good, "scale": "2"}),
    }  # fmt: skip
    for name, text in bad.items():
        write_text(f"{name}.png", text)
    names = [f"{name}.png" for name in bad] + ["text.png", "half.png", "photo.jpg", "plain.png", "missing.png"]
    for name in names:
        result = run(edit, "--url", server.grpc_url, "--from", name, "-o", "again.png")
        assert isinstance(result.exception, ImageError), (name, result.exception)
        assert "\n" not in str(result.exception)
    # Read, but refused by the checks that every request passes.
    for change, message in (
        ({"direction": [[9]] * 5}, "row 0: direction must be in"),
        ({"class_id": [1] * 5}, "classes"),
    ):
        write_text("range.png", json.dumps({**good, **change}))
        result = run(edit, "--url", server.grpc_url, "--from", "range.png", "-o", "again.png")
        assert isinstance(result.exception, InvalidEdit)
        assert re.search(message, str(result.exception))
    assert not Path("again.png").exists()


def test_a_recipe_of_too_many_pixels_is_refused_before_anything_is_sent(
    server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(server, *SWEEP, "-o", "a.png")
    monkeypatch.setattr(serving.contract.recipe, "MOST_PIXELS", 5 * SIZE * SIZE - 1)
    result = run(edit, "--url", server.grpc_url, "--from", "a.png", "-o", "again.png")
    assert isinstance(result.exception, InvalidEdit)
    assert str(result.exception) == f"the recipe is of 5 pictures of 8 x 8 pixels, the most are {5 * 64 - 1} pixels"
    assert not Path("again.png").exists()


def test_pictures_that_unpack_to_more_than_they_are() -> None:
    for name, size in (("wide.png", (50_000, 1800)), ("bomb.png", (40_000, 5000))):  # of 90 and 200 million pixels
        Image.new("1", size).save(name)
    frames = [Image.new("L", (9, 9), level) for level in range(3)]
    frames[0].save("moves.png", save_all=True, append_images=frames[1:])
    info = PngImagePlugin.PngInfo()
    info.add_text(KEYWORD, "[" * (1 << 23), zip=True)
    frames[0].save("text.png", pnginfo=info)
    info = PngImagePlugin.PngInfo()
    for _ in range(70):
        info.add_text("other", "x" * (1 << 20), zip=True)
    frames[0].save("texts.png", pnginfo=info)
    Path("large.png").write_bytes(Path("moves.png").read_bytes())
    with open("large.png", "r+b") as file:
        file.truncate(1 << 40)
    for name in ("wide.png", "bomb.png", "moves.png", "text.png", "texts.png", "large.png"):
        with pytest.raises(ImageError, match=f"cannot read {name}: it ") as caught:
            read_recipe(name)
        assert "\n" not in str(caught.value)


def test_a_damaged_chunk_is_one_line() -> None:
    """Pillow's decoders raise whatever a damaged file leads them to, here an IndexError."""
    Image.new("RGB", (8, 8)).save("whole.png")
    whole, empty = Path("whole.png").read_bytes(), struct.pack(">I4sI", 0, b"iCCP", zlib.crc32(b"iCCP"))
    end = whole.index(b"IEND") - 4
    Path("damaged.png").write_bytes(whole[:end] + empty + whole[end:])
    with pytest.raises(ImageError, match=r"cannot read damaged\.png: it is not a whole PNG"):
        read_recipe("damaged.png")


def test_a_pipe_is_not_waited_for() -> None:
    os.mkfifo("pipe.png")
    with pytest.raises(ImageError, match=r"cannot read pipe\.png: it is not a file"):
        read_recipe("pipe.png")


def test_a_strip_s_title_is_one_that_can_be_read_again(server: TritonServer) -> None:
    """It shows the edits as they were typed, which may be long, and hold what cannot be printed."""
    np.save("z.npy", np.zeros((2, D)))
    made(server, "--z", "z.npy", "--edit", "\tsmile=1", "--edit", "0=\n1.5" + "0" * 500, "-o", "a.png")
    title = text_of("a.png")["title"]
    assert title.startswith("random weights: smile=1 0= 1.500")
    assert len(title) == 400
    assert made(server, "--from", "a.png", "--z", "z.npy", "-o", "b.png").endswith("the same pixels as a.png\n")


def test_a_recipe_that_could_not_be_read_again_is_not_written(
    server: TritonServer, client: EditClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture is, with a line that says why it cannot be made again."""
    np.save("z.npy", np.zeros((1025, D)))
    said = made(server, "--z", "z.npy", "-o", "a.png")
    assert "warning: the PNG carries no recipe: the picture's recipe cannot be read: there must be 1 to 1024 " in said
    with pytest.raises(ImageError, match=r"a\.png does not say how it was made"):
        read_recipe("a.png")
    one = client.edit(seed=1, edits={0: 1.0})
    monkeypatch.setattr(serving.client.images, "MOST_PIXELS", SIZE * SIZE - 1)
    with pytest.warns(UserWarning, match="the PNG carries no recipe: it has more than 63 pixels"):
        one.save("large.png")
    with Image.open("large.png") as picture:
        assert picture.size == (SIZE, SIZE)
        assert KEYWORD not in picture.info


def test_options_that_contradict_each_other() -> None:
    for arguments in (["--from", "a.png", "--seed", "1"], ["--from", "a.png", "--edit", "1=2"], ["--force"]):
        result = run(edit, *arguments)
        assert isinstance(result.exception, InvalidEdit)
        assert "--from" in str(result.exception)


def test_files_of_every_picture(client: EditClient) -> None:
    result = client.sweep(seed=7, direction=1, alphas=[-2, 0, 2])
    for index, data in enumerate(result.encode("png")):
        with Image.open(io.BytesIO(data)) as picture:
            assert isinstance(picture, PngImagePlugin.PngImageFile)
            np.testing.assert_array_equal(np.asarray(picture), result.images[index])
            recipe = parse_recipe(picture.text[KEYWORD])
        np.testing.assert_array_equal(replay(client, recipe).image, result.images[index])
    codes = client.edit(z=np.random.RandomState(0).randn(2, D), edits={0: 1.0})
    assert codes.recipe is not None
    assert codes.recipe.codes is not None
    recipe = parse_recipe(codes.recipe.row(1).to_json())
    np.testing.assert_array_equal(replay(client, recipe, codes.recipe.codes[1]).image, codes.images[1])


@pytest.mark.parametrize(("format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("JPG", "JPEG"), ("webp", "WEBP")])
def test_formats(client: EditClient, format: str, kind: str) -> None:
    data = client.edit(seed=1).to_bytes(format)
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == (kind, (SIZE, SIZE))


def test_bad_formats(client: EditClient) -> None:
    result = client.edit(seed=1)
    with pytest.raises(ImageError, match="png, jpeg or webp"):
        result.to_bytes("docx")
    with pytest.raises(ImageError, match=r"\[1, 100\], got 0"):
        result.to_bytes("jpeg", quality=0)
    with pytest.raises(ValueError, match="2 images"):
        client.sweep(seed=1, alphas=[0, 1]).to_bytes()


def test_saving_one_picture(client: EditClient) -> None:
    client.edit(seed=3, edits={1: np.float32(0.1)}).save("one.png")
    recipe, before = read_recipe("one.png")
    np.testing.assert_array_equal(replay(client, recipe).image, before)
    shutil.copy("one.png", "two.png")
    client.edit(seed=3).save("two.jpg")
    with Image.open("two.jpg") as picture:
        assert picture.size == (SIZE, SIZE)
