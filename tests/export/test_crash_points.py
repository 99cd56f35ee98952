"""A kill at any point leaves the old state or the new one to the next command, and two commands never mix."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crash_points import MANIFEST, graphs

from export.repository import publish, rollback
from serving.contract.files import locked
from serving.contract.journal import JOURNAL, JournalError, changing
from serving.contract.lock import LOCK_FILE, Busy, alone
from serving.contract.published import PublishedModel
from serving.doctor.findings import BAD, WARN
from serving.doctor.repository_checks import check_models


@pytest.mark.slow
def test_no_kill_leaves_a_half():
    script = Path(__file__).with_name("crash_points.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=900, check=True)
    found = json.loads(done.stdout)
    assert {name: entry["faults"] for name, entry in found.items() if entry["faults"]} == {}
    assert sum(entry["points"] for entry in found.values()) > 100


HOLD = """
import json, sys, time
from pathlib import Path
import export.repository

def hold(*arguments):
    print("held", flush=True)
    time.sleep(300)

export.repository._move_all = hold
folder = Path(sys.argv[2])
graphs = {"onnxruntime": folder / "model.onnx", "pytorch": folder / "model.pt"}
export.repository.publish(Path(sys.argv[1]), "edit", graphs, json.loads(sys.argv[3]))
"""


def test_the_second_command_is_told_who_is_first(start, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.contract.journal.PATIENCE_S", 0.1)
    repository = tmp_path / "repository"
    made = graphs(tmp_path / "graphs")
    publish(repository, "edit", made, MANIFEST)
    process = start(repository, tmp_path / "graphs", json.dumps(MANIFEST), code=HOLD)
    assert process.stdout.readline() == "held\n"
    for command in (
        lambda: publish(repository, "edit", made, MANIFEST),
        lambda: rollback(repository, "edit", 1),
        lambda: PublishedModel(repository, "edit").update(dict),
    ):
        with pytest.raises(Busy, match=rf"repository is in use by process {process.pid} on \S+: "):
            command()
    assert [path for path in tmp_path.glob(".tmp-*")]  # the other's staging folder is not swept
    process.send_signal(signal.SIGKILL)
    process.wait()
    publish(repository, "edit", made, MANIFEST)  # the dead hold nothing
    assert not [*tmp_path.glob(".tmp-*"), *repository.glob(".*")]


def test_a_short_change_is_waited_for(tmp_path):
    with ThreadPoolExecutor(1) as pool, alone(tmp_path):
        second = pool.submit(lambda: alone(tmp_path, 60).__enter__())
        time.sleep(0.2)
        assert not second.done()
    assert second.exception() is None


def test_the_lock_says_no_token(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["latentclr", "studio", "--token", "secret one", "--token=secret\ntwo", "--port=0"]
    )
    with alone(tmp_path):
        text = (tmp_path / LOCK_FILE).read_text()
    assert "secret" not in text and "two" not in text
    assert text.endswith("latentclr studio --token ... --token=... --port=0")


def test_a_lock_file_that_is_a_link_is_not_written(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / LOCK_FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), alone(tmp_path / "folder"):
        pass
    (tmp_path / "folder" / LOCK_FILE).unlink()
    os.link(tmp_path / "precious", tmp_path / "folder" / LOCK_FILE)
    with pytest.raises(OSError, match="no lock file"), alone(tmp_path / "folder"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("move", [
    ["edit/2", "../precious", None], ["../precious", "edit/2", None], ["a", "edit/config.pbtxt", "../../precious"],
    ["a", "edit/../../precious", None],
])  # fmt: skip
def test_a_foreign_journal_moves_nothing(tmp_path, move):
    repository = tmp_path / "repository"
    (tmp_path / "precious").write_text("precious")
    repository.mkdir()
    (repository / JOURNAL).write_text(json.dumps({"staging": ".tmp-x", "beside": True, "moves": [move]}))
    with pytest.raises(JournalError), changing(repository):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_catalog_s_lock_in_a_repository_stays_its_holder_s(tmp_path):
    """`studio --catalog model_repository/catalog.yaml`: a second writer would make a new one and be inside as well."""
    with locked(tmp_path / "catalog.yaml"):
        before = (tmp_path / ".catalog.yaml.lock").stat()
        with changing(tmp_path):
            pass
        assert os.path.samestat((tmp_path / ".catalog.yaml.lock").stat(), before)
    assert os.listdir(tmp_path) == []


def test_the_doctor_sees_twins_apart_and_what_a_kill_left(tmp_path):
    repository = tmp_path / "repository"
    made = graphs(tmp_path / "graphs")
    for _ in range(2):
        publish(repository, "edit", made, MANIFEST)
    old = repository / "edit_torchscript" / "1" / "config.pbtxt"
    (repository / "edit_torchscript" / "config.pbtxt").write_text(old.read_text())
    old_kinds = [
        repository / "edit" / ".tmp-config-0123456789ab.pbtxt", repository / "edit" / "2" / ".config.pbtxt.0123abcd",
    ]  # fmt: skip
    for path in old_kinds:
        path.touch()
    (repository / JOURNAL).write_text("{}")
    found = list(check_models(repository))
    texts = {status: [finding.text for finding in found if finding.status == status] for status in (BAD, WARN)}
    assert any("serves version 2, its twin edit_torchscript version 1: latentclr rollback" in t for t in texts[BAD])
    for path in old_kinds:
        assert any(str(path) in text for text in texts[WARN])
    assert any("was killed between its renames" in text for text in texts[BAD])
    (repository / JOURNAL).unlink()
    PublishedModel(repository, "edit").update(dict)
    assert not any(path.exists() for path in old_kinds)


@pytest.mark.slow
def test_two_trainings_of_one_run(start, run, tmp_path):
    """The second is refused, the first goes on; a new run at the same place is refused too."""
    first = start("-m", "latentclr", "train", f"checkpoint={run}", "hparams.iterations=1000000", "eval_freq=1000000")
    deadline = time.monotonic() + 60
    while not (run / LOCK_FILE).exists() or not (run / LOCK_FILE).read_text():
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = start("-m", "latentclr", "train", f"checkpoint={run}", "hparams.iterations=1000000")
    _, stderr = second.communicate(timeout=120)
    assert second.returncode == 2, stderr
    assert stderr.startswith(f"Error: {run} is in use by process {first.pid} on "), stderr
    assert len(stderr.splitlines()) == 1
    assert "latentclr" in stderr or "__main__" in stderr
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 130, stderr
    assert not (run / LOCK_FILE).exists()
