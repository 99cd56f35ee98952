"""New versions and the way back, on a real server that polls, while clients ask without pause and never retry."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_editor
import tritonclient.grpc as grpc
from tiny_editor import MANIFEST, D, L, expected

import export.repository
from export.options import TritonOptions
from export.repository import publish, rollback
from latentclr.errors import SaveError
from serving import EditClient, TritonServer
from serving.contract.published import PublishedModel
from serving.errors import ServerUnavailable
from serving.triton.ports import Ports
from serving.triton.stubs import find_stubs

Z = np.random.RandomState(1).randn(1, D).astype(np.float32)
DIRECTION = np.array([[1]])
ALPHA = np.full((1, 1, L), 2, np.float32)
PIXELS = expected(Z, DIRECTION, ALPHA)


def picture(sign: int) -> bytes:
    """What a model with its weights times this sign draws; tanh is odd."""
    return (PIXELS if sign > 0 else 255 - PIXELS).tobytes()


@pytest.fixture
def export_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Path]]:
    """Publish the tiny editor with its weights times a sign."""
    weight = tiny_editor.WEIGHT

    def export_it(sign: int) -> list[Path]:
        monkeypatch.setattr(tiny_editor, "WEIGHT", sign * weight)
        graphs = {"onnxruntime": tmp_path / "model.onnx", "pytorch": tmp_path / "model.pt"}
        tiny_editor.save_onnx(graphs["onnxruntime"])
        tiny_editor.save_torchscript(graphs["pytorch"])
        manifest = {**MANIFEST, "directions": {**MANIFEST["directions"], "model": f"sign {sign}"}}
        options = TritonOptions(target="cpu", max_batch_size=2, threads=1)
        return publish(tmp_path / "repository", "latent_edit", graphs, manifest, options)

    return export_it


class Asking:
    """Clients that ask all the time; every answer and every failure is kept."""

    def __init__(self, url: str, models: dict[str, str]) -> None:
        self.answers: dict[str, list[bytes]] = {model: [] for model in models}
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(url, *item)) for item in models.items()]

    def _ask(self, url: str, model: str, output: str) -> None:
        inputs = []
        for name, array, kind in (("z", Z, "FP32"), ("direction", DIRECTION, "INT64"), ("alpha", ALPHA, "FP32")):
            inputs.append(grpc.InferInput(name, list(array.shape), kind))
            inputs[-1].set_data_from_numpy(array)
        with grpc.InferenceServerClient(url) as client:
            while not self._stop.is_set():
                try:
                    self.answers[model].append(client.infer(model, inputs).as_numpy(output).tobytes())
                except Exception as error:
                    self.failures.append(f"{model}: {error}")

    def wait_for(self, image: bytes, server: TritonServer) -> None:
        deadline = time.monotonic() + 20
        while not all(answers and near(answers[-1], image) for answers in self.answers.values()):
            assert not self.failures, self.failures[:3]
            server.check_alive()  # as `latentclr serve` does: a version that is unloaded is not one that died
            assert time.monotonic() < deadline, "the server did not change the version"
            time.sleep(0.02)

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def near(answer: bytes, image: bytes) -> bool:
    got, wanted = (np.frombuffer(pixels, np.uint8).astype(int) for pixels in (answer, image))
    return bool(np.abs(got - wanted).max() <= 1)


def changes(answers: list[bytes]) -> list[int]:
    """The signs in the order in which they came, without repetition; anything else is a 0."""
    signs: list[int] = []
    for answer in answers:
        sign = 1 if near(answer, picture(1)) else -1 if near(answer, picture(-1)) else 0
        if not signs or signs[-1] != sign:
            signs.append(sign)
    return signs


@pytest.fixture
def serving(export_version: Callable[[int], list[Path]], tmp_path: Path) -> Iterator[TritonServer]:
    """A server of version 1 that polls."""
    export_version(1)
    log = tmp_path / "triton.log"
    with TritonServer(tmp_path / "repository", ports=Ports(0, 0, 0), log_file=log, poll_s=1) as server:
        yield server


@pytest.mark.slow
@pytest.mark.triton
def test_a_new_version_and_back_without_a_failed_request(
    serving: TritonServer, export_version: Callable[[int], list[Path]], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    models = {"latent_edit": "image", "latent_edit_torchscript": "image__0"}
    with Asking(serving.grpc_url, models) as asking:
        asking.wait_for(picture(1), serving)
        export_version(-1)
        asking.wait_for(picture(-1), serving)
        with grpc.InferenceServerClient(serving.grpc_url) as client:  # the manifest is that of the weights
            served = client.get_model_config("latent_edit", as_json=True)["config"]
            assert "sign -1" in served["parameters"]["manifest"]["string_value"]
        assert rollback(repository, "latent_edit") == {model: (2, 1) for model in models}
        asking.wait_for(picture(1), serving)
    time.sleep(0.5)  # until version 2 is unloaded
    serving.check_alive()
    (stub,) = [pid for pid, instance in find_stubs(serving._region).items() if instance == "latent_edit_0_0"]
    os.kill(stub, signal.SIGKILL)
    deadline = time.monotonic() + 10
    with pytest.raises(ServerUnavailable, match="runs latent_edit_0_0 died"):
        while time.monotonic() < deadline:
            serving.check_alive()
    assert asking.failures == []
    for answers in asking.answers.values():
        assert changes(answers) == [1, -1, 1]
        assert len(answers) > 100
    log = (tmp_path / "triton.log").read_text()
    assert log.count("successfully loaded 'latent_edit'") == 3  # not once more than the versions that were asked for
    assert "failed to load" not in log


def test_a_repository_is_named_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the commands' own default is, `model_repository`."""
    monkeypatch.chdir(tmp_path)
    tiny_editor.save_onnx(tmp_path / "model.onnx")
    for version in (1, 2):
        (folder,) = publish(Path("repository"), "latent_edit", {"onnxruntime": tmp_path / "model.onnx"}, MANIFEST)
        assert folder == Path("repository") / "latent_edit" / str(version)
    assert rollback(Path("repository"), "latent_edit") == {"latent_edit": (2, 1)}
    PublishedModel(Path("repository"), "latent_edit").update(lambda entries: {})
    assert PublishedModel(tmp_path / "repository", "latent_edit").entries() == {}


@pytest.mark.slow
@pytest.mark.triton
def test_a_server_that_polls_learns_a_name(
    serving: TritonServer, export_version: Callable[[int], list[Path]], tmp_path: Path
) -> None:
    entry = {"direction": 1, "layers": [0], "alpha_range": [-1, 1], "note": ""}
    models = {"latent_edit": "image", "latent_edit_torchscript": "image__0"}
    with Asking(serving.grpc_url, models) as asking:
        asking.wait_for(picture(1), serving)
        PublishedModel(tmp_path / "repository", "latent_edit").update(lambda entries: {**entries, "hat": entry})
        for model in models:
            deadline = time.monotonic() + 60
            with EditClient(serving.grpc_url, model) as client:
                while "hat" not in client.refresh().edits:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                assert client.edit(seed=1, edits={"hat": 1}).images.shape == (1, 8, 8, 3)
    assert asking.failures == []
    export_version(1)
    assert rollback(tmp_path / "repository", "latent_edit") == {model: (2, 1) for model in models}
    assert "hat" in PublishedModel(tmp_path / "repository", "latent_edit").entries()  # it is version 1's


@pytest.mark.slow
@pytest.mark.triton
def test_a_server_of_one_model_that_polls(export_version: Callable[[int], list[Path]], tmp_path: Path) -> None:
    export_version(1)
    with TritonServer(tmp_path / "repository", ports=Ports(0, 0, 0), models=["latent_edit"], poll_s=1) as server:
        assert server.ready_models() == ["latent_edit"]
        with Asking(server.grpc_url, {"latent_edit": "image"}) as asking:
            asking.wait_for(picture(1), server)
            export_version(-1)
            asking.wait_for(picture(-1), server)
            rollback(tmp_path / "repository", "latent_edit")
            asking.wait_for(picture(1), server)
    assert asking.failures == []
    assert changes(asking.answers["latent_edit"]) == [1, -1, 1]


@pytest.mark.triton
def test_a_server_starts_while_an_export_is_under_way(
    export_version: Callable[[int], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To Triton, a folder without a configuration is a broken model; where an export writes, there is none."""
    seen: list[list[str]] = []

    def look(*_: object) -> list[Path]:
        assert list(tmp_path.glob(".tmp-repository-*/latent_edit/2/model.onnx"))
        with TritonServer(tmp_path / "repository", ports=Ports(0, 0, 0)) as server:
            seen.append(server.ready_models())
        raise OSError(28, "No space left on device")

    export_version(1)
    shutil.rmtree(tmp_path / "repository" / "latent_edit_torchscript")  # torch takes seconds to load
    monkeypatch.setattr(export.repository, "_move_all", look)
    with pytest.raises(SaveError, match="No space left"):
        export_version(-1)
    assert seen == [["latent_edit"]]
    assert not list(tmp_path.glob(".tmp-*"))


def entries(folder: Path) -> dict[Path, tuple[int, int]]:
    """Inode and age of all that is in a folder; Python's caches come and go."""
    stats = {path: path.lstat() for path in folder.rglob("*") if "__pycache__" not in path.parts}
    return {path: (stat.st_ino, 0 if path.is_dir() else stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.mark.slow
@pytest.mark.triton
def test_the_printed_command_starts_the_server(
    export_version: Callable[[int], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from serving.cli import serve

    export_version(1)
    shutil.rmtree(tmp_path / "repository" / "latent_edit_torchscript")
    monkeypatch.setenv("LATENTCLR_CACHE", str(tmp_path / "cache"))
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    words = ["--repository", str(tmp_path / "repository"), *ports, "--poll", "3", "--print-command"]
    result = CliRunner().invoke(serve, words)
    assert result.exit_code == 0, result.output
    (command,) = result.output.splitlines()
    assert "--model-control-mode=poll --repository-poll-secs=3" in command
    shell, quiet, pipe = ["bash", "-c", f"exec {command}"], subprocess.DEVNULL, subprocess.PIPE
    process = subprocess.Popen(shell, stdout=quiet, stderr=pipe, text=True)
    assert process.stderr is not None
    try:
        deadline = time.monotonic() + 60
        lines = []
        while "Started GRPCInferenceService" not in "".join(lines):
            assert time.monotonic() < deadline
            assert process.poll() is None, lines
            lines.append(process.stderr.readline())
        # It may be using its runtime for days; whoever asks for a command must not touch that.
        before = entries(tmp_path / "cache")
        again = CliRunner().invoke(serve, words)
        assert again.exit_code == 0, again.output
        assert entries(tmp_path / "cache") == before
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:  # a signal that comes while Triton is still starting its services is lost
            process.kill()
            process.wait()
            process.stderr.close()  # not read to its end: a stub that outlives Triton holds the other side
    assert str(Path(sys.executable).parent) in command  # the stubs run this interpreter's packages
