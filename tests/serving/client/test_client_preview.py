"""`client.preview`: the small picture of the model that was published with the full one, or one line that says no."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_editor
from tiny_editor import MANIFEST, L, assert_close, expected

from serving import AsyncEditClient, AsyncLatestWins, EditClient, LatestWins, TritonServer
from serving.contract.files import sha256_of
from serving.contract.layout import preview_of
from serving.contract.manifest import parse_manifest
from serving.errors import InvalidEdit, ManifestError, NoPreview, RequestFailed
from serving.triton.ports import Ports

pytestmark = pytest.mark.triton
Z = np.random.RandomState(7).randn(1, tiny_editor.D).astype(np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A model with a preview; one without; one whose preview is another version's; one whose preview is not there."""
    folder = tmp_path_factory.mktemp("previews")
    tiny_editor.with_preview(folder)
    tiny_editor.save_onnx(tiny_editor.add_model(folder, "plain", tiny_editor.config("plain")) / "model.onnx")
    for name in ("stale", "alone"):
        manifests = tiny_editor.with_preview(folder, name)
        manifests[name]["preview"]["files_sha256"] = {"model.onnx": "0" * 64}
        (folder / name / "config.pbtxt").write_text(tiny_editor.config(name, manifest=manifests[name]))
    (folder / "alone_preview" / "config.pbtxt").unlink()
    served = ["latent_edit", "latent_edit_preview", "plain", "stale", "stale_preview", "alone"]
    with TritonServer(folder, ports=Ports(0, 0, 0), models=served) as running:
        yield running


def full(edits: dict[int, list[float]]) -> Any:
    alpha = np.array([list(edits.values())], np.float32)  # [1, M, L]
    return expected(Z, np.array([list(edits)]), alpha)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_previews_are_small_pictures_of_the_same_edit(server: TritonServer, protocol: str) -> None:
    url = server.grpc_url if protocol == "grpc" else server.http_url
    with EditClient(url, protocol=protocol) as client:
        assert client.manifest.preview is not None
        assert client.manifest.preview.size == (4, 4)
        edited = client.preview(seed=7, edits={1: 2.5, "smile": 3.0})
        assert edited.recipe is None
        assert_close(edited.images, full({1: [2.5] * L, 2: [0, 3]})[:, ::2, ::2])
        assert_close(client.edit(seed=7, edits={1: 2.5}).images, full({1: [2.5] * L}))
        assert_close(client.preview(z=np.repeat(Z, 20, 0)).images[19:], full({0: [0] * L})[:, ::2, ::2])
        assert_close(client.preview(z=Z, edits={1: 2.0}, layers=[0]).images, full({1: [2, 0]})[:, ::2, ::2])
        with pytest.raises(InvalidEdit, match=r"direction must be in \[0, 3\)"):
            client.preview(seed=7, edits={3: 1.0})
        with LatestWins(client) as slider:
            assert slider.preview(seed=7).images.shape == (1, 4, 4, 3)
    with pytest.raises(RequestFailed, match="closed"):
        client.preview(seed=7)


@pytest.mark.parametrize(("model", "said"), [
    ("plain", "model 'plain' has no preview: `latentclr export --preview PIXELS` publishes one with it"),
    ("stale", "the preview of 'stale' is not served: stale_preview is of another version; see `latentclr doctor`"),
    ("alone", "the preview of 'alone' is not served: there is no model 'alone_preview' at"),
    ("latent_edit_preview", "model 'latent_edit_preview' has no preview"),
])  # fmt: skip
def test_one_line_where_there_is_none(server: TritonServer, model: str, said: str) -> None:
    async def later() -> str:
        async with AsyncEditClient(server.grpc_url, model) as client:
            with pytest.raises(NoPreview) as caught:
                await client.preview(seed=7)
            assert (await client.edit(seed=7)).images.shape[0] == 1
            return str(caught.value)

    with EditClient(server.grpc_url, model) as client:
        with pytest.raises(NoPreview) as caught:
            client.preview(seed=7)
        assert client.edit(seed=7).images.shape[0] == 1
    for line in (str(caught.value), asyncio.run(later())):
        assert said in line
        assert "\n" not in line


def test_asyncio(server: TritonServer) -> None:
    async def work() -> None:
        async with AsyncEditClient(server.grpc_url) as client:
            wanted = full({1: [2.5] * L})[:, ::2, ::2]
            assert_close((await client.preview(seed=7, edits={1: 2.5})).images, wanted)
            assert_close((await AsyncLatestWins(client).preview(seed=7, edits={1: 2.5})).images, wanted)
            with pytest.raises(InvalidEdit):
                await client.preview(seed=7, edits={3: 1.0})
        with pytest.raises(RequestFailed, match="closed"):
            await client.preview(seed=7)

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_new_version_of_both_is_followed(tmp_path: Path) -> None:
    """Whichever of the two is seen first as new: the other one is asked for again, and never drawn apart."""
    from export.options import TritonOptions
    from export.repository import publish, rollback

    options = TritonOptions(target="cpu", threads=1)
    graph, small_graph = (tmp_path / folder / "model.onnx" for folder in ("full", "small"))

    def version(number: int, preview: bool) -> None:
        weight = tiny_editor.WEIGHT
        tiny_editor.WEIGHT = weight if number % 2 else -weight
        try:
            tiny_editor.save_onnx(graph)
            tiny_editor.save_onnx(small_graph, side=4)
        finally:
            tiny_editor.WEIGHT = weight
        files, its = ({"model.onnx": sha256_of(path)} for path in (graph, small_graph))
        small = {**MANIFEST, "generator": {**MANIFEST["generator"], "resolution": 4}, "files_sha256": its}
        large = {
            **MANIFEST,
            "files_sha256": files,
            **({"preview": {"size": [4, 4], "files_sha256": its}} if preview else {}),
        }
        beside = {"latent_edit_preview": ({"onnxruntime": small_graph}, small)} if preview else None
        publish(tmp_path / "models", "latent_edit", {"onnxruntime": graph}, large, options, beside)

    def until(client: EditClient, wanted: Any) -> None:
        for _ in range(200):
            try:
                image = client.preview(seed=7).image.astype(int)
            except NoPreview:
                image = None
            if image is not None and np.abs(image - wanted).max() <= 1:
                return
            time.sleep(0.1)
        raise AssertionError("the new version was never drawn")

    one = full({0: [0] * L})[0, ::2, ::2].astype(int)
    version(1, True)
    with (
        TritonServer(tmp_path / "models", ports=Ports(0, 0, 0), poll_s=1) as server,
        EditClient(server.grpc_url) as client,
    ):
        assert_close(client.preview(seed=7).images[0], one.astype(np.uint8))
        version(2, True)
        until(client, 255 - one)
        version(3, False)  # without a preview: only the full picture can tell, and each drag ends in one
        for _ in range(100):
            client.edit(seed=7)
            if client.manifest.preview is None:
                break
            time.sleep(0.1)
        with pytest.raises(NoPreview, match="'latent_edit' has no preview"):
            client.preview(seed=7)
        assert rollback(tmp_path / "models", "latent_edit")["latent_edit_preview"] == (2, 2)
        until(client, 255 - one)
        assert_close(client.edit(seed=7).images[0, ::2, ::2], (255 - one).astype(np.uint8))
        assert set(rollback(tmp_path / "models", "latent_edit", 3)) == {"latent_edit"}


def test_names_of_models() -> None:
    assert preview_of("faces") == "faces_preview"
    assert preview_of("faces_torchscript") == "faces_preview_torchscript"
    assert preview_of("faces_openvino") == "faces_preview_openvino"
    assert preview_of("faces_openvino_torchscript") == "faces_preview_openvino_torchscript"  # a twin of faces_openvino


@pytest.mark.parametrize(
    "preview", [7, [], {"size": [0, 4]}, {"size": 4}, {"size": [4]}, {}, {"size": [4, 4], "files_sha256": {"a": 1}}]
)
def test_a_manifest_with_a_strange_preview_is_refused(preview: Any) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(json.dumps({**MANIFEST, "preview": preview}))


def test_manifests_are_read_as_written() -> None:
    its = {"preview": {"size": [4, 4], "files_sha256": {"model.onnx": "1" * 64}}}
    assert parse_manifest(json.dumps({**MANIFEST, **its})).as_dict()["preview"] == its["preview"]
    of = {"preview_of": "latent_edit", "likeness": {"rows": 3, "worst_psnr_db": 20.5}}
    read = parse_manifest(json.dumps({**MANIFEST, **of})).as_dict()
    assert {key: read[key] for key in of} == of
    assert not {"preview", *of} & set(parse_manifest(json.dumps(MANIFEST)).as_dict())
