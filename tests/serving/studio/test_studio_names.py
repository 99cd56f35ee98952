"""Names: one place for the studio, the run and every client of the model; none is lost or moved without a word."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_editor
import yaml

from serving import EditClient, TritonServer
from serving.contract.catalog import CatalogFile
from serving.contract.errors import CatalogError, CatalogWriteError
from serving.contract.lock import alone
from serving.contract.manifest import parse_manifest
from serving.contract.named_edit import NamedEdit
from serving.contract.published import PublishedModel
from serving.errors import InvalidEdit
from serving.studio.failures import UnknownName
from serving.studio.names import Names
from serving.studio.places import names_for
from serving.triton.ports import Ports

CHECKPOINT = b"directions"
SMILE = {"direction": 2, "layers": [1], "alpha_range": [-4, 4], "note": "the second layer only"}
MODELS = ("latent_edit", "latent_edit_torchscript")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder, as far as names need one."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_bytes(CHECKPOINT)
    return tmp_path / "run"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The tiny editor and its twin, exported from `run`."""
    digest = sha256(CHECKPOINT).hexdigest()
    directions = {**tiny_editor.MANIFEST["directions"], "checkpoint_sha256": digest}
    manifest = {**tiny_editor.MANIFEST, "directions": directions, "files_sha256": {"model.onnx": "1" * 64}}
    folder = tmp_path / "repository"
    for name in MODELS:
        version = tiny_editor.add_model(folder, name, tiny_editor.config(name, manifest={**manifest, "name": name}))
        tiny_editor.save_onnx(version / "model.onnx")
    return folder


def edits_of(repository: Path, name: str = "latent_edit") -> dict[str, Any]:
    return PublishedModel(repository, name).entries()


@pytest.fixture
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, ports=Ports(0, 0, 0), models=("latent_edit",), poll_s=1) as running:
        yield running


def put(studio: Any, name: str, **body: Any) -> Any:
    return studio.http.put(f"/api/catalog/{name}", json={"alpha": [-6, 6], **body})


@pytest.mark.slow
@pytest.mark.parametrize("with_run", [False, True])
def test_a_client_draws_what_the_studio_draws(
    server: TritonServer, repository: Path, run: Path, open_studio: Any, pixels: Any, with_run: bool
) -> None:
    names = names_for(run if with_run else None, None, repository, "latent_edit")
    weights = (repository / "latent_edit" / "1" / "model.onnx").stat()
    with open_studio(server.grpc_url, Path("unused"), names=names) as studio:

        def edits() -> dict[str, NamedEdit]:
            return {name: held.edit for name, held in names.for_model(studio.service.manifest())[0].items()}

        def learned() -> EditClient:
            """Return a client, as soon as the server has taken up what stands in its repository."""
            client, deadline = EditClient(server.grpc_url), time.monotonic() + 60
            while dict(client.refresh().edits) != edits() and time.monotonic() < deadline:
                time.sleep(0.1)
            return client

        def both() -> tuple[Any, Any]:
            body = {"seed": 5, "edits": [{"name": "smile", "alpha": 3}]}
            drawn = pixels(studio.http.post("/api/image", json=body).content)
            with learned() as client:
                return drawn, client.edit(seed=5, edits={"smile": 3}).image

        first, second = both()
        assert np.array_equal(first, second)
        assert put(studio, "smile", direction=1, move=True).status_code == 200
        moved, of_client = both()
        assert np.array_equal(moved, of_client)
        assert not np.array_equal(moved, first)
        assert put(studio, "hat", direction=0, layers=[0]).status_code == 200
        with learned() as client:
            assert client.manifest.edits["hat"].layers == (0,)
            assert client.edit(seed=1, edits={"hat": 2}).images.shape == (1, 8, 8, 3)
        assert studio.http.delete("/api/catalog/smile").status_code == 204
        with learned() as client:
            assert list(client.manifest.edits) == ["hat"]
        assert studio.http.post("/api/catalog/smile/restore", json={}).json()["direction"] == 1
        assert np.array_equal(*both())
    assert edits_of(repository) == edits_of(repository, "latent_edit_torchscript")
    assert (repository / "latent_edit" / "1" / "model.onnx").stat() == weights
    assert (run / "catalog.yaml").exists() == with_run
    if with_run:
        assert sorted(CatalogFile(run / "catalog.yaml").read().edits) == ["hat", "smile"]


# ---- what the API says


@pytest.fixture
def local(triton: TritonServer, tmp_path: Path, open_studio: Any) -> Iterator[Any]:
    with open_studio(triton.grpc_url, tmp_path / "catalog.yaml") as studio:
        yield studio


def test_a_name_moves_only_when_told(local: Any) -> None:
    answer = put(local, "smile", direction=1)
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "name_taken"
    assert answer.json()["error"]["message"] == "smile is direction 2, layer 1 from -4 to 4 already"
    assert not local.catalog.exists()
    assert put(local, "smile", direction=1, move=True).json()["direction"] == 1
    assert put(local, "smile", direction=1).status_code == 200  # as it is
    assert put(local, "smile", direction=1, note="other words").status_code == 409


def test_undo_brings_back_what_was_written(local: Any) -> None:
    """Also what the page itself could not send."""
    text = "odd: {direction: 1, alpha: [-5000, 1], note: '" + "x" * 300 + "', mine: kept}\n"
    local.catalog.write_text(text)
    before = yaml.safe_load(text)
    assert local.http.delete("/api/catalog/odd").status_code == 204
    assert yaml.safe_load(local.catalog.read_text()) is None
    assert local.http.post("/api/catalog/odd/restore", json={}).json()["alpha"] == [-5000, 1]
    assert yaml.safe_load(local.catalog.read_text()) == before
    assert local.http.post("/api/catalog/odd/restore", json={}).status_code == 404  # once
    assert local.http.delete("/api/catalog/odd").status_code == 204
    assert put(local, "odd", direction=0).status_code == 200
    answer = local.http.post("/api/catalog/odd/restore", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "name_taken")


def test_undo_of_a_name_that_the_model_has_too(local: Any) -> None:
    assert put(local, "smile", direction=1, move=True).status_code == 200
    assert local.http.delete("/api/catalog/smile").status_code == 204
    assert local.http.get("/api/catalog").json()[0]["direction"] == 2  # the model's own, which stands below
    assert local.http.post("/api/catalog/smile/restore", json={}).json()["direction"] == 1


def test_undo_of_an_entry_that_this_model_cannot_carry_out(local: Any) -> None:
    """It stands in the file again, as another model's studio left it; the answer says why it is not in the list."""
    local.catalog.write_text("old: {direction: 9999}\n")
    assert local.http.delete("/api/catalog/old").status_code == 204
    answer = local.http.post("/api/catalog/old/restore", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "catalog")
    assert "old: direction must be in [0, 3), got 9999" in answer.json()["error"]["message"]
    assert yaml.safe_load(local.catalog.read_text()) == {"old": {"direction": 9999}}


def test_of_many_who_undo_at_once_one_does(local: Any) -> None:
    names, manifest = local.service.names, local.service.manifest()

    def restore(_: int) -> str:
        try:
            names.restore(manifest, "hat")
        except UnknownName:
            return "gone"
        return "back"

    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            names.save(manifest, "hat", NamedEdit(0))
            names.remove(manifest, "hat")
            assert sorted(pool.map(restore, range(4))) == ["back", "gone", "gone", "gone"]


def test_an_undo_that_failed_can_be_tried_again(local: Any) -> None:
    assert put(local, "hat", direction=0).status_code == 200
    assert local.http.delete("/api/catalog/hat").status_code == 204
    local.catalog.write_text("[no catalog")
    assert local.http.post("/api/catalog/hat/restore", json={}).status_code == 409
    local.catalog.unlink()
    assert local.http.post("/api/catalog/hat/restore", json={}).json()["direction"] == 0


def test_a_server_elsewhere_is_read_only_and_says_why(triton: TritonServer, open_studio: Any) -> None:
    names = names_for(None, None, None, "latent_edit")
    with open_studio(triton.grpc_url, Path("unused"), names=names) as studio:
        model = studio.http.get("/api/model").json()
        assert model["names_writable"] is False
        assert "Names cannot be given here" in model["names_note"]
        assert [edit["removable"] for edit in model["edits"]] == [False]
        for answer in (put(studio, "hat", direction=1), studio.http.delete("/api/catalog/smile")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "catalog")
            assert "Names cannot be given here" in answer.json()["error"]["message"]
        assert studio.http.post("/api/image", json={"seed": 1, "edits": [{"name": "smile", "alpha": 1}]}).is_success


# ---- where names go


@pytest.fixture
def manifest(repository: Path) -> Any:
    return parse_manifest(json.dumps(PublishedModel(repository, "latent_edit").manifest()))


def test_the_run_and_the_model_get_the_same_change_or_none(repository: Path, run: Path, manifest: Any) -> None:
    names = names_for(run, None, repository, "latent_edit")
    names.save(manifest, "hat", NamedEdit(0))
    assert sorted(CatalogFile(run / "catalog.yaml").read().edits) == ["hat", "smile"]  # smile came with the model
    assert sorted(edits_of(repository)) == ["hat", "smile"]
    before = (run / "catalog.yaml").read_text(), (repository / "latent_edit" / "config.pbtxt").read_text()
    (repository / "latent_edit_torchscript" / "config.pbtxt").write_text("junk {")
    with pytest.raises(CatalogError, match="cannot read"):
        names.save(manifest, "nose", NamedEdit(1))
    assert before == ((run / "catalog.yaml").read_text(), (repository / "latent_edit" / "config.pbtxt").read_text())


def test_a_name_that_nobody_has_leaves_no_catalog_behind(repository: Path, run: Path, manifest: Any) -> None:
    names = names_for(run, None, repository, "latent_edit")
    with pytest.raises(UnknownName):
        names.remove(manifest, "nobody")
    assert not (run / "catalog.yaml").exists()
    assert list(names.for_model(manifest)[0]) == ["smile"]


def test_the_model_learns_the_runs_names_when_the_studio_starts(repository: Path, run: Path) -> None:
    (run / "catalog.yaml").write_text("smile: {direction: 0}\nhat: {direction: 1}\nfar: {direction: 9}\n")
    names = names_for(run, None, repository, "latent_edit")
    assert names.bring_up() == [
        "smile: direction 0 from -6 to 6, before direction 2, layer 1 from -4 to 4",
        "hat: direction 1 from -6 to 6",
    ]
    assert {name: entry["direction"] for name, entry in edits_of(repository).items()} == {"smile": 0, "hat": 1}
    assert names.bring_up() == []


def test_names_of_another_run_are_refused(repository: Path, run: Path, tmp_path: Path, manifest: Any) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    (other / "best.safetensors").write_bytes(b"others")
    with pytest.raises(InvalidEdit, match="latent_edit was not exported from a checkpoint in"):
        names_for(other, None, repository, "latent_edit")
    (other / "catalog.yaml").write_text("wrong: {direction: 0}\n")
    remote = names_for(other, None, None, "latent_edit")  # what is served is known only later
    held, problems = remote.for_model(manifest)
    assert list(held) == ["smile"]
    assert "was not exported from this run" in problems[0]
    with pytest.raises(CatalogError, match="was not exported from this run"):
        remote.save(manifest, "hat", NamedEdit(0))
    assert "hat" not in (other / "catalog.yaml").read_text()


def test_words_that_do_not_go_together(repository: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidEdit, match="not both"):
        names_for(run, tmp_path / "c.yaml", repository, "latent_edit")
    with pytest.raises(InvalidEdit, match="it has no checkpoint"):
        names_for(tmp_path / "nowhere", None, repository, "latent_edit")
    with pytest.raises(CatalogError, match="has no model 'absent'"):
        names_for(None, None, repository, "absent")
    alone = names_for(None, tmp_path / "c.yaml", repository, "latent_edit")
    assert "in c.yaml alone" in alone.note
    of_run = names_for(None, run / "catalog.yaml", repository, "latent_edit")
    assert "with the run run and the served model" in of_run.note
    assert names_for(run / "best.safetensors", None, None, "latent_edit").writable


# ---- the published model


def test_no_change_of_a_model_is_lost(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.contract.journal.PATIENCE_S", 120.0)
    with ThreadPoolExecutor(6) as pool:
        one = lambda number: PublishedModel(repository, MODELS[number % 2]).update(  # noqa: E731
            lambda entries: {**entries, f"edit {number}": SMILE}
        )
        list(pool.map(one, range(12)))
    assert len(edits_of(repository)) == 13
    assert edits_of(repository) == edits_of(repository, "latent_edit_torchscript")
    assert sorted(path.name for path in repository.iterdir()) == list(MODELS)


def test_a_write_that_fails_changes_neither_model(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [(repository / name / "config.pbtxt").read_text() for name in MODELS]
    replace, written = os.replace, []

    def second_fails(source: Any, target: Any) -> None:
        if Path(target).name == "config.pbtxt":
            written.append(target)
            if len(written) == 2:
                raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(CatalogWriteError, match="No space left"):
        PublishedModel(repository, "latent_edit").update(lambda _: {})
    assert len(written) > 2  # and back again
    assert [(repository / name / "config.pbtxt").read_text() for name in MODELS] == before


def test_a_repository_in_use_takes_no_name(
    server: TritonServer, repository: Path, run: Path, open_studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while an export publishes: one line, and neither the catalog nor the model has changed."""
    monkeypatch.setattr("serving.contract.journal.PATIENCE_S", 0.1)
    before = edits_of(repository)
    with open_studio(server.grpc_url, Path("unused"), names=names_for(run, None, repository, "latent_edit")) as studio:
        with alone(repository):
            answer = put(studio, "hat", direction=1)
        assert (answer.status_code, answer.json()["error"]["code"]) == (423, "busy")
        assert f"is in use by process {os.getpid()} on" in answer.json()["error"]["message"]
        assert edits_of(repository) == before
        assert "hat" not in CatalogFile(run / "catalog.yaml").read().edits
        assert put(studio, "hat", direction=1).status_code == 200
    assert "hat" in edits_of(repository, "latent_edit_torchscript")


def test_a_model_that_is_none(repository: Path) -> None:
    for text, words in (("junk {", "cannot read"), ('name: "latent_edit"', "has no manifest")):
        (repository / "latent_edit" / "config.pbtxt").write_text(text)
        with pytest.raises(CatalogError, match=words):
            PublishedModel(repository, "latent_edit").update(lambda _: {})


def test_another_version_in_the_repository_takes_no_name(repository: Path, manifest: Any) -> None:
    """A version that was exported while the studio runs is not the one that its server shows."""
    from dataclasses import replace

    served = replace(manifest, files_sha256={"model.onnx": "0" * 64})
    names = Names(None, PublishedModel(repository, "latent_edit"))
    assert "another version" in names.for_model(served)[1][0]
    with pytest.raises(CatalogError, match="another version"):
        names.save(served, "hat", NamedEdit(0))
