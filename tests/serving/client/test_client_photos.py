"""Photos: their code found once, edited by every client, kept, pasted back, and made again from the recipe."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_editor
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from tiny_editor import D, L, assert_close, code_of, expected

from serving import AsyncEditClient, AsyncLatestWins, EditClient, LatestWins, TritonServer
from serving.cli import edit as edit_command
from serving.client.images import read_recipe
from serving.client.photos import Inverted, Recent
from serving.client.refine import refine, refine_codes
from serving.client.replay import replay
from serving.contract.photo.crop import Crop, centre_crop, cut_out, paste
from serving.contract.photo.keep import keep_unedited
from serving.contract.recipe import parse_recipe
from serving.errors import ImageError, InvalidEdit, NoEncoder, PhotoError, PhotoWarning
from serving.triton.ports import Ports

PHOTO = np.random.RandomState(3).randint(0, 256, (20, 30, 3), dtype=np.uint8)
CROP = centre_crop((20, 30), (8, 8))
PICTURE = cut_out(PHOTO, CROP)
CODE = code_of(PICTURE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with encoder and preview; one without; one whose encoder is another version's; one without it there."""
    folder = tmp_path_factory.mktemp("photos")
    tiny_editor.with_encoder(folder)
    tiny_editor.save_onnx(tiny_editor.add_model(folder, "plain", tiny_editor.config("plain")) / "model.onnx")
    for name in ("stale", "alone"):
        full = tiny_editor.with_encoder(folder, name)[name]
        full["encoder"]["files_sha256"] = {"model.onnx": "0" * 64}
        (folder / name / "config.pbtxt").write_text(tiny_editor.config(name, manifest=full))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[TritonServer]:
    models = ["latent_edit", "latent_edit_encoder", "latent_edit_preview", "plain", "stale", "stale_encoder", "alone"]
    with TritonServer(folder, ports=Ports(0, 0, 0), models=models) as running:
        yield running


def drawn(*alphas: float, code: NDArray[Any] = CODE) -> NDArray[np.uint8]:
    """What the tiny editor draws of direction 1 at these strengths."""
    rows = len(alphas)
    alpha = np.array(alphas, np.float32)[:, None, None].repeat(L, 2)
    pictures: NDArray[np.uint8] = expected(code.repeat(rows, 0), np.ones((rows, 1), np.int64), alpha)
    return pictures


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_photo_is_inverted_once_and_edited(server: TritonServer, protocol: str, tmp_path: Path) -> None:
    (tmp_path / "me.png").write_bytes(png(PHOTO))
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with EditClient(url, protocol=protocol) as client:
        inverted = client.invert(PHOTO)
        assert (inverted.how, inverted.crop, inverted.photo.pixels.shape) == ("centre", CROP, (20, 30, 3))
        assert np.array_equal(inverted.picture, PICTURE)
        np.testing.assert_allclose(inverted.codes, CODE, atol=1e-5)
        for source in (
            inverted,
            PHOTO,
            png(PHOTO),
            tmp_path / "me.png",
            str(tmp_path / "me.png"),
            Image.fromarray(PHOTO),
        ):
            assert_close(client.edit(photo=source, edits={1: 2.0}).images, drawn(2.0))
        assert len(client._photos.codes) == 2  # the pixels', and the file's
        assert client.invert(PHOTO).codes is inverted.codes
        assert_close(client.sweep(photo=inverted, direction=1, alphas=[-2, 0, 2]).images, drawn(-2, 0, 2))
        assert_close(client.preview(photo=inverted, edits={1: 2.0}).images, drawn(2.0)[:, ::2, ::2])
        with LatestWins(client) as slider:
            assert_close(slider.edit(photo=inverted, edits={1: 2.0}).images, drawn(2.0))
        moved = Crop((1.0, 0.0, 3.0, 0.0, 1.0, 4.0), (8, 8))
        given = client.invert(PHOTO, align=moved)
        assert given.how == "given"
        np.testing.assert_allclose(given.codes, code_of(PHOTO[4:12, 3:11]), atol=1e-5)


@pytest.mark.triton
def test_what_was_not_edited_is_kept(server: TritonServer) -> None:
    with EditClient(server.grpc_url) as client:
        inverted = client.invert(PHOTO)
        unedited, edited = drawn(0, 0.4, 3.0)[0], drawn(0.4, 3.0)
        wanted = np.stack([keep_unedited(PICTURE, unedited, picture) for picture in edited])
        kept = client.sweep(photo=inverted, direction=1, alphas=[0.4, 3.0], keep=True)
        assert kept.reconstruction is not None
        assert_close(kept.reconstruction, unedited)
        assert np.abs(kept.images.astype(int) - wanted).max() <= 3  # a step of 255 in each of two, and the mask's slope
        assert np.array_equal(client.edit(photo=inverted, keep=True).image, PICTURE)  # nothing edited: the photo itself
        small = client.preview(photo=inverted, edits={1: 3.0}, keep=True)
        assert small.images.shape == (1, 4, 4, 3)
        pasted = client.edit(photo=inverted, edits={1: 3.0}).pasted()
        assert_close(pasted.image, paste(PHOTO, CROP, client.edit(photo=inverted, edits={1: 3.0}).image))
        assert pasted.recipe is not None
        softer = client.edit(photo=inverted, edits={1: 3.0}).pasted(0.4)
        assert softer.recipe is None  # which would make other pixels again
        with pytest.raises(InvalidEdit, match="keep needs a photo"):
            client.edit(seed=7, keep=True)
        with pytest.raises(PhotoError, match="only the picture of a photo"):
            client.edit(seed=7).pasted()


@pytest.mark.triton
def test_asyncio(server: TritonServer) -> None:
    async def work() -> None:
        async with AsyncEditClient(server.grpc_url) as client:
            inverted = await client.invert(PHOTO)
            np.testing.assert_allclose(inverted.codes, CODE, atol=1e-5)
            assert_close((await client.edit(photo=PHOTO, edits={1: 2.0})).images, drawn(2.0))
            assert_close((await client.sweep(photo=inverted, direction=1, alphas=[-2, 2])).images, drawn(-2, 2))
            assert_close((await client.preview(photo=inverted)).images, drawn(0)[:, ::2, ::2])
            assert np.array_equal((await client.edit(photo=inverted, keep=True)).image, PICTURE)
            assert_close((await AsyncLatestWins(client).edit(photo=inverted, edits={1: 2.0})).images, drawn(2.0))
            with pytest.raises(PhotoError, match="not a picture"):
                await client.invert(b"GIF89b nothing")
        for model, said in (("plain", "--with-encoder"), ("stale", "another version"), ("alone", "no model")):
            async with AsyncEditClient(server.grpc_url, model) as client:
                with pytest.raises(NoEncoder, match=said):
                    await client.edit(photo=PHOTO)

    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.mark.triton
@pytest.mark.parametrize(("model", "said"), [
    ("plain", "model 'plain' has no encoder, so it cannot edit photos: `latentclr export --with-encoder` publishes"),
    ("stale", "the encoder of 'stale' is not served: stale_encoder is of another version"),
    ("alone", "the encoder of 'alone' is not served: there is no model 'alone_encoder' at"),
])  # fmt: skip
def test_one_line_where_there_is_no_encoder(server: TritonServer, model: str, said: str) -> None:
    with EditClient(server.grpc_url, model) as client:
        with pytest.raises(NoEncoder) as caught:
            client.edit(photo=PHOTO, edits={1: 2.0})
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert client.edit(seed=7).images.shape == (1, 8, 8, 3)


@pytest.mark.triton
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_encoder_is_no_editor(server: TritonServer, protocol: str) -> None:
    url = server.grpc_url if protocol == "grpc" else server.http_url
    said = "model 'latent_edit_encoder' is the encoder of 'latent_edit': ask that, it edits photos too"
    with EditClient(url, "latent_edit_encoder", protocol=protocol) as client:
        for ask in (client.edit, client.sweep):
            with pytest.raises(InvalidEdit, match=said):
                ask(seed=7)
        with pytest.raises(InvalidEdit, match=said):
            client.edit_rows(CODE, [[0]], np.zeros((1, 1, L)))


@pytest.mark.triton
def test_a_refined_code_of_another_encoder_is_told(server: TritonServer) -> None:
    async def later(held: Inverted) -> None:
        async with AsyncEditClient(server.grpc_url) as client:
            with pytest.warns(PhotoWarning, match="not refined any more"):
                assert_close((await client.edit(photo=held)).images, drawn(0))

    with EditClient(server.grpc_url) as client:
        held = replace(client.invert(PHOTO).with_codes(CODE + 1, 2), encoder="0" * 64)  # as of an older version
        with pytest.warns(PhotoWarning, match="not refined any more"):
            again = client.edit(photo=held)
        assert_close(again.images, drawn(0))
        assert again.inverted is not None
        assert again.inverted.refined == 0
    asyncio.run(asyncio.wait_for(later(held), 20))


@pytest.mark.triton
def test_bad_arguments_are_one_line(server: TritonServer) -> None:
    def refused(match: str, **options: Any) -> None:
        with pytest.raises((InvalidEdit, PhotoError), match=match) as caught:
            client.invert(**{"photo": PHOTO, **options})
        assert "\n" not in str(caught.value)

    with EditClient(server.grpc_url) as client:
        refused("align must be 'auto', 'centre' or a crop, got 'left'", align="left")
        refused("face must be a whole number", face=-1)
        refused("give one of the two", face=0, align="centre")
        refused("this model draws no faces", face=0)
        refused("the crop is of 9 x 8 pixels, the model draws 8 x 8", align=centre_crop((20, 30), (8, 9)))
        refused("must be uint8", photo=np.zeros((4, 4, 3), np.float32))
        refused("cannot be read", photo="nowhere.png")
        with pytest.raises(InvalidEdit, match="either a seed or z"):
            client.edit(seed=7, photo=PHOTO)
        inverted = client.invert(PHOTO)
        with pytest.raises(ValueError, match="read-only"):
            inverted.codes[:] = 0
        with pytest.raises(InvalidEdit, match=r"codes must be finite and of shape \[1, 4\]"):
            inverted.with_codes(np.full((1, D), np.nan), 1)


@pytest.mark.triton
def test_threads_share_one_client(server: TritonServer) -> None:
    with EditClient(server.grpc_url) as client:
        inverted, wrong = client.invert(PHOTO), []

        def drag(alpha: float) -> None:
            for _ in range(5):
                image = client.edit(photo=inverted, edits={1: alpha}).images.astype(int)
                if np.abs(image - drawn(alpha)).max() > 1:
                    wrong.append(alpha)

        threads = [threading.Thread(target=drag, args=(alpha,)) for alpha in (-2.0, 1.0, 2.0, 3.0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not wrong


@pytest.mark.triton
def test_a_new_encoder_is_asked_anew(tmp_path: Path) -> None:
    """Whoever holds a code of the encoder before gets pictures of the new one's, with the same crop."""
    import time

    tiny_editor.with_encoder(tmp_path)
    with TritonServer(tmp_path, ports=Ports(0, 0, 0), poll_s=1) as server, EditClient(server.grpc_url) as client:
        inverted = client.invert(PHOTO)
        assert_close(client.edit(photo=inverted).images, drawn(0))
        again = tmp_path / "again"
        manifests = tiny_editor.with_encoder(again, flip=True)
        for name in ("latent_edit_encoder", "latent_edit"):
            model = tmp_path / name
            (model / "2").mkdir()
            (again / name / "1" / "model.onnx").replace(model / "2" / "model.onnx")
            text = (again / name / "config.pbtxt").read_text()
            (model / "config.pbtxt").write_text(text + "version_policy { specific { versions: [ 2 ] } }")
        new, wanted = manifests["latent_edit"]["encoder"]["sha256"], drawn(0, code=-CODE)
        assert new != inverted.encoder
        for _ in range(100):
            try:
                image = client.edit(photo=inverted).images
            except NoEncoder:  # one of the two is new and the other not yet
                image = drawn(0)
            if np.abs(image.astype(int) - wanted).max() <= 1:
                break
            time.sleep(0.1)
        assert_close(client.edit(photo=inverted).images, wanted)
        assert client.invert(PHOTO).encoder == new


@pytest.mark.triton
def test_the_command_and_its_picture_again(server: TritonServer, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(edit_command, ["--url", server.grpc_url, *words], standalone_mode=False)
        return (0, done.output) if done.exception is None else (2, f"{type(done.exception).__name__}: {done.exception}")

    me, out, again = (str(tmp_path / name) for name in ("me.png", "out.png", "again.png"))
    Path(me).write_bytes(png(PHOTO))
    for options in ([], ["--keep"], ["--keep", "--paste"], ["--align", "centre", "--refine", "2"]):
        code, said = run("--photo", me, "--edit", "1=3", *options, "-o", out)
        assert code == 0, said
        recipe, pixels = read_recipe(out)
        assert recipe.photo is not None
        assert recipe.photo.crop == CROP
        assert pixels.shape == (PHOTO.shape if "--paste" in options else (8, 8, 3))
        code, said = run("--from", out, "--photo", me, "-o", again)
        assert (code, said) == (0, f"wrote {again}: the same pixels as {out}\n")
    assert run("--photo", me, "--direction", "1", "--keep", "-o", out)[0] == 0
    assert run("--from", out, "--photo", me, "-o", again) == (0, f"wrote {again}: the same pixels as {out}\n")
    for words, line in (
        (
            ["--from", out],
            "InvalidEdit: the picture is of a photo, and holds only its hash: give its file with --photo",
        ),
        (
            ["--from", out, "--photo", out],
            "InvalidEdit: the picture is of another photo: expected a file whose SHA-256",
        ),
        (["--keep"], "InvalidEdit: --face, --align, --refine, --keep and --paste need --photo"),
        (["--photo", me, "--direction", "1", "--paste"], "InvalidEdit: --paste takes one picture"),
        (["--photo", me, "--seed", "1"], "InvalidEdit: give --seed, --z, --w or --photo, not both"),
        (["--photo", str(tmp_path / "none.jpg")], "PhotoError: photo "),
    ):
        code, said = run(*words, "-o", again)
        assert (code, said[: len(line)], said.count("\n")) == (2, line, 0)


@pytest.mark.triton
def test_a_recipe_names_the_photo_and_holds_no_pixel(server: TritonServer) -> None:
    with EditClient(server.grpc_url) as client:
        edited = client.edit(photo=PHOTO, edits={1: 2.0}, keep=True)
        assert edited.recipe is not None
        text = edited.recipe.to_json()
        raw = json.loads(text)
        assert raw["photo"].keys() == {"sha256", "crop", "encoder", "keep"}
        assert len(text) < 2000
        recipe = parse_recipe(text)
        assert recipe.photo == edited.recipe.photo
        assert np.array_equal(replay(client, recipe, photo=PHOTO).images, edited.images)
        changes: list[dict[str, Any]] = [
            {"sha256": "x"}, {"crop": {}}, {"crop": None}, {"encoder": 7}, {"refined": -1}, {"keep": "yes"},
            {"crop": {"matrix": [0] * 6, "size": [8, 8]}}, {"crop": {"matrix": [1e400] * 6, "size": [8, 8]}},
        ]  # fmt: skip
        for change in changes:
            with pytest.raises(ImageError, match="recipe cannot be read"):
                parse_recipe(json.dumps({**raw, "photo": {**raw["photo"], **change}}))
        others: list[Any] = [[], "photo", 7]
        for strange in others:
            with pytest.raises(ImageError, match="recipe cannot be read"):
                parse_recipe(json.dumps({**raw, "photo": strange}))


def test_the_memory_is_bounded() -> None:
    recent: Recent[int] = Recent(3)
    for number in range(5):
        recent.put(number, number)
        recent.get(2)
    assert len(recent) == 3
    assert [recent.get(number) for number in range(5)] == [None, None, 2, 3, 4]


@pytest.mark.triton
def test_refinement_comes_nearer_and_can_be_left(server: TritonServer) -> None:
    truth = np.random.RandomState(9).randn(1, D).astype(np.float32)
    with EditClient(server.grpc_url) as client:
        start = client.invert(drawn(0, code=truth)[0])
        steps = list(refine(client, start, 4))
        assert [step.number for step in steps] == [0, 1, 2, 3, 4]
        assert all(later.psnr >= before.psnr for before, later in itertools.pairwise(steps))
        assert steps[-1].psnr > 40 > steps[0].psnr
        best: Inverted = steps[-1].inverted
        assert (best.refined, steps[0].inverted.codes is start.codes) == (4, True)
        assert np.abs(best.codes - truth).max() < 0.1
        assert_close(client.edit(photo=best).images, drawn(0, code=best.codes))
        assert next(iter(refine(client, start))).number == 0


def test_refinement_takes_small_codes_only() -> None:
    nothing, one = np.zeros((1, 18, 512), np.float32), np.ones(1, np.float32)
    with pytest.raises(InvalidEdit, match="at most 1024 numbers, got 9216"):
        next(refine_codes(lambda codes: PICTURE[None], nothing, PICTURE, 1, one, one))
    with pytest.raises(InvalidEdit, match="steps must be in"):
        next(refine_codes(lambda codes: PICTURE[None], nothing[:, 0], PICTURE, 0, one, one))
