"""Triton on a repository that holds what a killed command left: a server of ours, and one that knows nothing of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_editor import add_model, config, save_onnx

from serving import EditClient, TritonServer
from serving.contract.journal import JOURNAL, leftovers
from serving.triton.ports import Ports

pytestmark = pytest.mark.triton


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model, and the files that a command killed between its renames leaves, or one of an older version."""
    folder = tmp_path / "repository"
    version = add_model(folder, "latent_edit", config("latent_edit"))
    save_onnx(version / "model.onnx")
    staging = tmp_path / ".tmp-repository-abcd1234"
    staging.mkdir()
    (folder / JOURNAL).write_text(json.dumps({"staging": staging.name, "beside": True, "moves": []}))
    for path in (folder / ".lock", version.parent / ".config.pbtxt.0123abcd",
                 version / ".config.pbtxt.0123abcd", version.parent / ".tmp-config-0123456789ab.pbtxt"):  # fmt: skip
        path.write_text("left")
    return folder


def draws(repository: Path) -> None:
    with TritonServer(repository, ports=Ports(0, 0, 0)) as server, EditClient(server.grpc_url) as client:
        assert client.edit(seed=1).images.shape == (1, 8, 8, 3)


def test_a_server_that_knows_nothing_of_it_ignores_the_files(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, where the repository is mounted read-only."""
    monkeypatch.setattr("serving.triton.server.recover_if_free", lambda repository: None)
    before = sorted(repository.rglob("*"))
    draws(repository)
    assert sorted(repository.rglob("*")) == before


@pytest.mark.parametrize("with_journal", [True, False])
def test_our_server_brings_it_into_order(repository: Path, with_journal: bool) -> None:
    """Also a staging folder inside, as a command makes it where it cannot write beside the repository."""
    (repository / ".tmp-repository-01234567" / "latent_edit" / "2").mkdir(parents=True)
    if not with_journal:
        (repository / JOURNAL).unlink()
    draws(repository)
    assert leftovers(repository) == []
    assert sorted(path.name for path in repository.iterdir()) == ["latent_edit"]
