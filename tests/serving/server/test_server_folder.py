"""What a killed server leaves: found by the doctor, removed by the next server, and never that of a running one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_server import wait_until
from test_serving_cli import Serving
from tiny_editor import add_model, config, save_onnx

from serving import TritonServer
from serving.contract.temporary import remove_dead_folders, temporary_folder
from serving.doctor import command as doctor
from serving.errors import ServerStartError
from serving.triton.ports import Ports
from serving.triton.server_folder import ServerFolder, find_leftovers, find_lost_memory

REGION = "latentclr_0123456789ab_"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, also of `Serving`'s processes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr("serving.triton.server_folder._SHARED_MEMORY", folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    save_onnx(add_model(tmp_path / "repository", "latent_edit", config("latent_edit")) / "model.onnx")
    return tmp_path / "repository"


@pytest.fixture
def serving(repository: Path) -> Iterator[Serving]:
    started = Serving(repository)
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("both", [True, False], ids=["with Triton", "alone"])
def test_what_a_killed_server_left_goes_with_the_next(
    serving: Serving, repository: Path, both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serving.line().startswith("ready")
    (folder,) = Path(tempfile.gettempdir()).glob("latentclr-triton-*")
    region = (folder / "lock").read_text()
    assert list(Path("/dev/shm").glob(f"{region}*"))
    # What servers of other tests, or of anybody on this machine, have lost is not looked at here.
    monkeypatch.setattr(
        "serving.triton.server_folder.find_lost_memory",
        lambda: [path for path in find_lost_memory() if path.name.startswith(region)],
    )
    assert list(find_leftovers()) == []
    assert list(doctor.check_leftovers()) == []
    triton = serving.children()
    serving.process.kill()
    for child in triton * both:
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: len(list(find_leftovers())) == 1, 30)
    (finding,) = doctor.check_leftovers()
    assert finding.text.startswith("1 folder of processes that were killed, ")
    assert finding.text.endswith(f"the next server or export removes them: {folder}")
    with TritonServer(repository, ports=Ports(0, 0, 0)) as server:
        assert not folder.exists()
        assert not list(Path("/dev/shm").glob(f"{region}*"))
        assert list(find_leftovers()) == []
        assert server.is_ready()
    assert not list(Path(tempfile.gettempdir()).glob("latentclr-triton-*"))


def test_a_folder_is_kept_as_long_as_somebody_has_its_lock(memory: Path) -> None:
    folder = ServerFolder(REGION)
    (memory / f"{REGION}1").write_bytes(bytes(1000))
    child = os.dup(folder.lock)  # as Triton inherits it
    os.close(folder.lock)
    assert list(find_leftovers()) == []
    os.close(child)
    (found,) = find_leftovers()
    assert (found.path, found.region, found.size()) == (folder.path, REGION, 1000 + len(REGION))
    found.remove()
    assert not folder.path.exists()
    assert not list(memory.iterdir())


def test_folders_of_versions_without_a_lock(temporary: Path) -> None:
    old, new, used = (temporary / f"latentclr-triton-{name}" for name in ("old", "new", "used"))
    for folder in (old, new, used):
        (folder / "backends").mkdir(parents=True)
    for folder in (old, used):
        os.utime(folder, (time.time() - 100_000,) * 2)
    command = [sys.executable, "-c", "print(flush=True); input()", f"--backend-directory={used}/backends"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # a process that has only just begun has no arguments yet
        assert [leftover.path for leftover in find_leftovers()] == [old]
        process.communicate(b"\n")
    assert [leftover.path for leftover in find_leftovers()] == [old, used]


HOLD = """
import sys, tempfile, time
from serving.contract.temporary import temporary_folder

tempfile.tempdir = sys.argv[1]
with temporary_folder("export") as folder:
    (folder / "model.onnx").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_export_left(temporary: Path, memory: Path, start: Any) -> None:
    process = start(temporary, code=HOLD)
    folder = Path(process.stdout.readline().strip())
    remove_dead_folders()
    assert (folder / "model.onnx").exists()
    assert list(doctor.check_leftovers()) == []
    process.kill()
    process.wait()
    with temporary_folder("export") as mine:
        (finding,) = doctor.check_leftovers()
        assert finding.text.endswith(f"the next server or export removes them: {folder}")
        list(doctor.check_embedded())  # the doctor only looks
        assert folder.exists()
        remove_dead_folders()
        assert list(temporary.glob("latentclr-*")) == [mine]
    assert not list(temporary.glob("latentclr-*"))


def test_a_process_that_died_making_a_folder(temporary: Path) -> None:
    """It is removed when it is too old to be one that is just being made."""
    folder = temporary / "latentclr-export-abcdefgh"
    folder.mkdir()
    remove_dead_folders()
    assert folder.exists()
    os.utime(folder, (time.time() - 100,) * 2)
    remove_dead_folders()
    assert not folder.exists()


def test_odd_things_are_left_alone(temporary: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "precious").mkdir()
    (temporary / "latentclr-triton-link").symlink_to(temporary / "precious")
    (temporary / "latentclr-triton-file").write_text("")
    odd = temporary / "latentclr-triton-odd"
    odd.mkdir()
    (odd / "lock").write_text("*")
    (memory / "other").write_text("")
    (found,) = find_leftovers()
    assert (found.path, found.memory()) == (odd, [])
    found.remove()
    assert (memory / "other").exists()
    ServerFolder(REGION)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert list(find_leftovers()) == []


def test_lost_memory_is_told_and_left(memory: Path, repository: Path) -> None:
    lost = memory / "latentclr_fedcba987654_x"
    lost.write_bytes(bytes(2_000_000))
    client, fresh = memory / "latentclr_client_a", memory / "latentclr_client_b"
    for path in (client, fresh):
        path.write_bytes(b"")
    os.utime(client, (time.time() - 7200,) * 2)
    assert find_lost_memory() == [client, lost]
    (finding,) = doctor.check_leftovers()
    assert finding.text.startswith("2.0 MB of shared memory that no process here uses")
    assert finding.text.endswith(f"rm {client} {lost}")


def test_a_full_disk_is_one_line(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(ServerStartError, match="cannot make a temporary folder: No such file"):
        TritonServer(repository, ports=Ports(0, 0, 0)).start()
