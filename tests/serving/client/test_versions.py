"""A client on a server that turns from version to version: one version resolves a request, draws it and is named."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_editor
from tiny_editor import MANIFEST, L, expected

from export.options import TritonOptions
from export.repository import publish, rollback
from serving import AsyncEditClient, EditClient, TritonServer
from serving.client.description import Answer, describe_model
from serving.client.edited import Edited
from serving.client.images import read_recipe
from serving.client.replay import replay
from serving.client.requests import TURNS
from serving.contract.manifest import Manifest
from serving.errors import InvalidEdit, RequestFailed
from serving.triton.ports import Ports

pytestmark = pytest.mark.triton
SMILES = {1: 2, -1: 1}  # which direction the name means: version 1 and version 2, whose weights have the other sign
ONES = {1: "1" * 64, -1: "2" * 64}
Publish = Callable[[int], list[Path]]


Z = np.random.RandomState(7).randn(1, tiny_editor.D).astype(np.float32)
PIXELS = {smile: expected(Z, np.array([[smile]]), np.full((1, 1, L), 3, np.float32))[0] for smile in (1, 2)}


def picture(sign: int, smile: int) -> Any:
    """What the version of this sign draws of seed 7 at direction `smile`, [8, 8, 3]; tanh is odd."""
    pixels = PIXELS[smile].astype(int)
    return pixels if sign > 0 else 255 - pixels


def check(edited: Edited, manifest: Manifest) -> int:
    """Return the version that made it, as its sign; all that is said of it must be of that version."""
    assert edited.recipe is not None
    (sign,) = [sign for sign, weights in ONES.items() if weights == edited.recipe.weights_sha256]
    assert edited.recipe.direction.tolist() == [[SMILES[sign]]]
    assert np.abs(edited.images[0].astype(int) - picture(sign, SMILES[sign])).max() <= 1
    assert manifest.generator.weights_sha256 in ONES.values()
    return sign


@pytest.fixture
def publish_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    weight = tiny_editor.WEIGHT

    def export_it(sign: int) -> list[Path]:
        monkeypatch.setattr(tiny_editor, "WEIGHT", sign * weight)
        tiny_editor.save_onnx(tmp_path / "model.onnx")
        edits = {"smile": {"direction": SMILES[sign], "alpha_range": [-4, 4]}}
        if sign < 0:
            edits["old"] = {"direction": 0}
        manifest = {**MANIFEST, "generator": {**MANIFEST["generator"], "weights_sha256": ONES[sign]}, "edits": edits}
        options = TritonOptions(target="cpu", max_batch_size=2, threads=1)
        return publish(
            tmp_path / "repository", "latent_edit", {"onnxruntime": tmp_path / "model.onnx"}, manifest, options
        )

    return export_it


@pytest.fixture
def polling(publish_version: Publish, tmp_path: Path) -> Iterator[TritonServer]:
    publish_version(1)
    with TritonServer(tmp_path / "repository", ports=Ports(0, 0, 0), poll_s=1, shared_memory=True) as server:
        yield server


class Watcher:
    """Asks without pause in a thread of its own; keeps the versions in their order, and what went wrong."""

    def __init__(self, ask: Callable[[Watcher], None]) -> None:
        self.signs: list[int] = []
        self.wrong: list[BaseException] = []
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ask,))
        self._thread.start()

    def _run(self, ask: Callable[[Watcher], None]) -> None:
        try:
            ask(self)
        except BaseException as error:
            self.wrong.append(error)

    def saw(self, sign: int) -> None:
        if self.signs[-1:] != [sign]:
            self.signs.append(sign)

    def wait_for(self, signs: list[int]) -> None:
        deadline = time.monotonic() + 60
        while self.signs != signs:
            assert not self.wrong, self.wrong
            assert time.monotonic() < deadline, self.signs
            time.sleep(0.02)

    def end(self) -> None:
        self.stop.set()
        self._thread.join()
        assert not self.wrong, self.wrong


def asking(client: EditClient) -> Callable[[Watcher], None]:
    def ask(watcher: Watcher) -> None:
        with client:
            while not watcher.stop.is_set():
                edited = client.edit(seed=7, edits={"smile": 3.0})
                watcher.saw(check(edited, client.manifest))

    return ask


def asking_async(url: str) -> Callable[[Watcher], None]:
    async def loop(watcher: Watcher) -> None:
        async with AsyncEditClient(url) as client:
            while not watcher.stop.is_set():
                edited = await client.edit(seed=7, edits={"smile": 3.0})
                watcher.saw(check(edited, await client.manifest()))

    return lambda watcher: asyncio.run(loop(watcher))


@pytest.mark.slow
def test_every_picture_is_resolved_drawn_and_named_by_one_version(
    polling: TritonServer, publish_version: Publish, tmp_path: Path
) -> None:
    watchers = [
        Watcher(asking(EditClient(polling.grpc_url, shared_memory=False))),
        Watcher(asking(EditClient(polling.grpc_url, shared_memory=True))),
        Watcher(asking(EditClient(polling.http_url))),
        Watcher(asking_async(polling.grpc_url)),
    ]
    try:
        for watcher in watchers:
            watcher.wait_for([1])
        publish_version(-1)
        for watcher in watchers:
            watcher.wait_for([1, -1])
        rollback(tmp_path / "repository", "latent_edit")
        for watcher in watchers:
            watcher.wait_for([1, -1, 1])
    finally:
        for watcher in watchers:
            watcher.end()


@pytest.mark.parametrize("way", ["grpc", "http", "async"])
def test_a_client_that_slept_meanwhile(
    polling: TritonServer, publish_version: Publish, tmp_path: Path, way: str
) -> None:
    """Its manifest is of version 1: the first request is resolved anew, and a name that came later is found."""
    if way == "async":
        asyncio.run(slept_async(polling, publish_version))
        return
    url = polling.grpc_url if way == "grpc" else polling.http_url
    with EditClient(url) as client, EditClient(url) as other, EditClient(url) as looking:
        first = client.edit(seed=7, edits={"smile": 3.0})
        assert check(first, client.manifest) == check(other.edit(seed=7, edits={"smile": 3.0}), other.manifest) == 1
        first.save(tmp_path / "first.png")
        assert "old" not in other.manifest.edits
        publish_version(-1)
        wait_for_version_2(looking)
        edited = client.edit(seed=7, edits={"smile": 3.0})
        assert check(edited, client.manifest) == -1
        assert client.manifest.generator.weights_sha256 == ONES[-1]
        edited.save(tmp_path / "edited.png")
        recipe, _ = read_recipe(tmp_path / "edited.png")
        assert recipe.weights_sha256 == ONES[-1]
        assert other.edit(seed=7, edits={"old": 1.0}).recipe is not None
        with pytest.raises(InvalidEdit, match="no named edit 'young'"):
            other.edit(seed=7, edits={"young": 1.0})
    with EditClient(url) as client:
        recipe, _ = read_recipe(tmp_path / "first.png")
        with pytest.raises(InvalidEdit, match="the picture was made by model"):
            replay(client, recipe)


async def slept_async(polling: TritonServer, publish_version: Publish) -> None:
    async with AsyncEditClient(polling.grpc_url) as client, AsyncEditClient(polling.grpc_url) as other:
        assert check(await client.edit(seed=7, edits={"smile": 3.0}), await client.manifest()) == 1
        assert "old" not in (await other.manifest()).edits
        publish_version(-1)
        with EditClient(polling.grpc_url) as looking:
            wait_for_version_2(looking)
        assert check(await client.edit(seed=7, edits={"smile": 3.0}), await client.manifest()) == -1
        assert (await client.manifest()).generator.weights_sha256 == ONES[-1]
        assert (await other.edit(seed=7, edits={"old": 1.0})).recipe is not None
        with pytest.raises(InvalidEdit, match="no named edit 'young'"):
            await other.edit(seed=7, edits={"young": 1.0})


def wait_for_version_2(client: EditClient) -> None:
    deadline = time.monotonic() + 60
    while client.refresh().generator.weights_sha256 != ONES[-1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_request_in_several_parts_is_of_one_version(polling: TritonServer, publish_version: Publish) -> None:
    """Seven rows are four requests; the version turns before the third, and all of them are asked for again."""
    with EditClient(polling.grpc_url) as client, EditClient(polling.grpc_url) as looking:
        connection = client._connection
        infer, count = connection.infer, 0

        def turning(*arguments: Any) -> Answer:
            nonlocal count
            count += 1
            if count == 3:
                publish_version(-1)
                wait_for_version_2(looking)
            return infer(*arguments)

        connection.infer = turning  # type: ignore[method-assign]
        walk = client.sweep(seed=7, direction="smile", alphas=[3.0] * 7)
    assert count == 3 + 4
    assert walk.recipe is not None and walk.recipe.weights_sha256 == ONES[-1]
    assert np.abs(walk.images.astype(int) - picture(-1, SMILES[-1])).max() <= 1


def test_the_studio_resolves_and_draws_by_one_version(
    polling: TritonServer, publish_version: Publish, tmp_path: Path
) -> None:
    pytest.importorskip("pydantic", reason="install latentclr[studio]")
    from serving.contract.catalog import CatalogFile
    from serving.studio.backend import Backend
    from serving.studio.models import ImageRequest, NamedEdit
    from serving.studio.names import Names
    from serving.studio.service import Service

    service = Service(Backend(polling.grpc_url, "latent_edit", 20.0), Names(CatalogFile(tmp_path / "catalog.yaml")))
    request = ImageRequest(seed=7, edits=[NamedEdit(name="smile", alpha=3.0)])
    assert check(service.image(request), service.manifest()) == 1
    publish_version(-1)
    with EditClient(polling.grpc_url) as looking:
        wait_for_version_2(looking)
    assert check(service.image(request), service.manifest()) == -1
    assert service.manifest().generator.weights_sha256 == ONES[-1]
    service.backend.close()


def test_a_model_whose_configuration_names_no_version() -> None:
    """What it was when it first drew is what its description stands for."""
    described = describe_model("m", 8, {"image": [8, 8, 3], "valid": [1]}, json.dumps(MANIFEST))
    assert described.versions == ()
    assert described.seen("") is described
    first = described.seen("3")
    assert first is not None and first.versions == ("3",)
    assert first.seen("3") is first and first.seen("") is first
    assert first.seen("4") is None
    several = describe_model("m", 8, {"image": [8, 8, 3], "valid": [1]}, json.dumps(MANIFEST), [1, 2])
    assert several.seen("2") is several and several.seen("3") is None


def test_versions_that_never_agree_end_in_one_line(polling: TritonServer) -> None:
    with EditClient(polling.grpc_url) as client:
        transport: Any = client._connection._transport
        infer = transport.infer
        transport.infer = lambda *arguments: infer(*arguments)._replace(version="9")
        with pytest.raises(RequestFailed, match=rf"not the same, {TURNS} times in a row"):
            client.edit(seed=7)
