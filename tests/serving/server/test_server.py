"""Starting, stopping and failing to start a real Triton."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tiny_editor import add_model, config, save_onnx

from serving import EditClient, TritonServer
from serving.errors import ModelUnavailable, RequestFailed, ServerStartError, ServerUnavailable
from serving.triton.log import last_error, model_failures
from serving.triton.ports import Ports, claim_ports
from serving.triton.stubs import find_stubs

FREE = Ports(0, 0, 0)

# A model in plain Python that obeys the contract, but takes its time.
SLOW_MODEL = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        time.sleep({load})

    def execute(self, requests):
        time.sleep({run})
        return [pb_utils.InferenceResponse(error=pb_utils.TritonError("slow")) for _ in requests]
"""


def leftovers(server: TritonServer) -> list[str]:
    """Processes and shared memory that carry the server's own mark."""
    mark = server._region
    found = [path.name for path in Path("/dev/shm").glob(f"{mark}*")]
    processes = psutil.process_iter(["pid", "cmdline"])
    return found + [str(p.info["pid"]) for p in processes if mark in " ".join(p.info["cmdline"] or [])]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def one_model(tmp_path: Path) -> Path:
    repository = tmp_path / "repository"
    save_onnx(add_model(repository, "latent_edit", config("latent_edit")) / "model.onnx")
    return repository


@pytest.mark.triton
def test_a_whole_life_beside_another_server(server: TritonServer, one_model: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    other = TritonServer(one_model, ports=FREE, log_file=log)
    assert other.pid is None
    with other:
        assert other.is_ready()
        assert other.ready_models() == ["latent_edit"]
        assert other._folder is not None
        folder = other._folder.path
        pid = other.pid
        assert pid is not None
        with EditClient(other.grpc_url) as client:
            assert client.edit(seed=1).images.shape == (1, 8, 8, 3)
        with pytest.raises(ServerStartError, match="already running"):
            other.start()
    assert not psutil.pid_exists(pid)
    assert leftovers(other) == []
    assert not folder.exists()
    assert "Started GRPCInferenceService" in log.read_text()
    assert other.pid is None
    other.stop()  # a second time is harmless
    assert server.is_ready()  # the other one did not mind
    with EditClient(other.grpc_url) as client, pytest.raises(ServerUnavailable):
        client.edit(seed=1)


@pytest.mark.triton
def test_only_the_chosen_models(repository: Path) -> None:
    with TritonServer(repository, ports=FREE, models=["anonymous", "together"]) as chosen:
        assert chosen.ready_models() == ["anonymous", "together"]
        with EditClient(chosen.grpc_url) as client, pytest.raises(ModelUnavailable, match="anonymous, together"):
            client.edit(seed=1)


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
@pytest.mark.triton
def test_port_in_use(one_model: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"http": 0, "grpc": 0, "metrics": 0, name: port}
        with pytest.raises(ServerStartError, match=f"the {name} port {port} on 127.0.0.1 .*in use.*--{name}-port"):
            TritonServer(one_model, ports=Ports(**ports)).start()


def test_one_port_twice() -> None:
    free = claim_ports("127.0.0.1", FREE)
    assert len({free.http, free.grpc, free.metrics}) == 3
    with pytest.raises(ServerStartError, match=f"port {free.http} "):
        claim_ports("127.0.0.1", Ports(free.http, free.http, 0))


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ServerStartError, match=r"192\.0\.2\.1"):
        claim_ports("192.0.2.1", FREE)


def test_missing_repository(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match=r"there is no model repository .*latentclr export"):
        TritonServer(tmp_path / "nothing", ports=FREE).start()


def test_empty_repository(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("models go here")
    with pytest.raises(ServerStartError, match="has no models"):
        TritonServer(tmp_path, ports=FREE).start()


def test_unknown_model(one_model: Path) -> None:
    with pytest.raises(ServerStartError, match="has no model 'other'; it has latent_edit"):
        TritonServer(one_model, ports=FREE, models=["other"]).start()


def test_a_model_without_version(one_model: Path) -> None:
    (one_model / "latent_edit" / "1").rename(one_model / "latent_edit" / "old")
    with pytest.raises(ServerStartError, match="'latent_edit' has no version folder"):
        TritonServer(one_model, ports=FREE).start()


def break_onnx(repository: Path) -> None:
    (repository / "latent_edit" / "1" / "model.onnx").write_bytes(b"half a mod")


def lose_onnx(repository: Path) -> None:
    (repository / "latent_edit" / "1" / "model.onnx").unlink()


def rename_input(repository: Path) -> None:
    path = repository / "latent_edit" / "config.pbtxt"
    path.write_text(path.read_text().replace('name: "z"', 'name: "latent"'))


def bad_threads(repository: Path) -> None:
    path = repository / "latent_edit" / "config.pbtxt"
    path.write_text(path.read_text().replace('string_value: "1"', 'string_value: "all"'))


def bad_syntax(repository: Path) -> None:
    (repository / "latent_edit" / "config.pbtxt").write_text("backend: onnx runtime {")


def unknown_backend(repository: Path) -> None:
    path = repository / "latent_edit" / "config.pbtxt"
    path.write_text(path.read_text().replace('backend: "onnxruntime"', 'backend: "tensorrt"'))


@pytest.mark.triton
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (break_onnx, "INVALID_PROTOBUF|Protobuf parsing failed"),
        (lose_onnx, "there is no .*model.onnx"),
        (rename_input, "config.pbtxt has inputs .*'latent'.*model.onnx has .*'z'"),
        (bad_threads, "intra_op_thread_count must be an integer, got 'all'"),
        (bad_syntax, "config.pbtxt|Poll|parse"),
        (unknown_backend, "tensorrt"),
    ],
)
def test_a_model_that_fails_to_load(one_model: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(one_model)
    broken = TritonServer(one_model, ports=FREE)
    with pytest.raises(ServerStartError, match=f"^model 'latent_edit' failed to load: .*({reason})") as caught, broken:
        pass
    assert "\n" not in str(caught.value)
    assert "\\n" not in str(caught.value)
    assert leftovers(broken) == []


ENSEMBLE = """
name: "{name}"
platform: "ensemble"
max_batch_size: {rows}
input [ {{ name: "z" data_type: TYPE_FP32 dims: [ {dim} ] }},
        {{ name: "direction" data_type: TYPE_INT64 dims: [ -1 ] }},
        {{ name: "alpha" data_type: TYPE_FP32 dims: [ -1, 2 ] }} ]
output [ {{ name: "image" data_type: TYPE_UINT8 dims: [ 8, 8, 3 ] }} ]
ensemble_scheduling {{ step [ {{
  model_name: "latent_edit" model_version: -1
  input_map {{ key: "z" value: "z" }}
  input_map {{ key: "direction" value: "direction" }}
  input_map {{ key: "alpha" value: "alpha" }}
  output_map {{ key: "image" value: "image" }}
}} ] }}
"""


@pytest.mark.triton
@pytest.mark.parametrize(
    ("rows", "dim", "reason"),
    [
        (16, 4, "allows maximum batch size 16, but it contains model latent_edit which only allows"),
        (8, 5, r"ensemble tensor z: inconsistent shape: \[-1,5\]"),
    ],
)
def test_an_ensemble_that_does_not_fit_its_model(one_model: Path, rows: int, dim: int, reason: str) -> None:
    add_model(one_model, "faces_photo", ENSEMBLE.format(name="faces_photo", rows=rows, dim=dim))
    broken = TritonServer(one_model, ports=FREE)
    with pytest.raises(ServerStartError, match=f"^model 'faces_photo' failed to load: .*{reason}") as caught, broken:
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.triton
def test_still_loading_and_not_ready_in_time(tmp_path: Path) -> None:
    version = add_model(tmp_path, "latent_edit", config("latent_edit", "python"))
    (version / "model.py").write_text(SLOW_MODEL.format(load=60, run=0))
    slow = TritonServer(tmp_path, ports=FREE)
    slow.start()
    try:
        assert not slow.is_ready()
        with EditClient(slow.grpc_url) as client, pytest.raises(ServerUnavailable, match="still loading"):
            client.edit(seed=1)
        with pytest.raises(ServerStartError, match=r"not ready within 0\.5 s"):
            slow.wait_ready(0.5)
    finally:
        slow.stop()
    assert leftovers(slow) == []


@pytest.mark.triton
def test_killed_during_a_request(tmp_path: Path) -> None:
    version = add_model(tmp_path, "latent_edit", config("latent_edit", "python"))
    (version / "model.py").write_text(SLOW_MODEL.format(load=0, run=60))
    with TritonServer(tmp_path, ports=FREE) as slow, EditClient(slow.grpc_url) as client:
        assert client.manifest.name == "latent_edit"
        assert slow.pid is not None
        threading.Timer(0.5, os.kill, (slow.pid, signal.SIGKILL)).start()
        started = time.monotonic()
        with pytest.raises(ServerUnavailable, match="was killed"):
            client.edit(seed=1)
        assert time.monotonic() - started < 10
        wait_until(lambda: not slow.is_ready())  # the connection is gone a moment before the process is
        with pytest.raises(ServerUnavailable, match="killed by SIGKILL"):
            slow.check_alive()
    assert leftovers(slow) == []


@pytest.mark.triton
def test_a_model_whose_process_dies(one_model: Path) -> None:
    with TritonServer(one_model, ports=FREE) as hurt, EditClient(hurt.grpc_url) as client:
        client.edit(seed=1)
        (stub,) = find_stubs(hurt._region)
        os.kill(stub, signal.SIGKILL)
        wait_until(lambda: not hurt.is_ready())
        with pytest.raises(ServerUnavailable, match=r"runs latent_edit_0_0 died \(out of memory\?\)"):
            hurt.check_alive()
        with pytest.raises(ServerUnavailable, match=r"runs model 'latent_edit' at .* died"):
            client.edit(seed=1)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert leftovers(hurt) == []


@pytest.mark.triton
def test_an_error_of_the_model_is_quoted(tmp_path: Path) -> None:
    version = add_model(tmp_path, "latent_edit", config("latent_edit", "python"))
    (version / "model.py").write_text(SLOW_MODEL.format(load=0, run=0))
    with TritonServer(tmp_path, ports=FREE) as slow, EditClient(slow.grpc_url) as client:
        with pytest.raises(RequestFailed, match="slow"):
            client.edit(seed=1)


def test_a_log_that_cannot_be_written(one_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match="cannot write the log"):
        TritonServer(one_model, ports=FREE, log_file=tmp_path / "missing" / "log").start()


@pytest.mark.triton
def test_a_log_goes_on_and_only_its_new_part_counts(one_model: Path, tmp_path: Path) -> None:
    """A server that is started again must not erase why the last one died, nor report that one's end as its own."""
    log = tmp_path / "triton.log"
    earlier = "failed to load 'other' version 1: gone\nStarted GRPCInferenceService at 127.0.0.1:1\nerror: earlier\n"
    log.write_text(earlier)
    break_onnx(one_model)
    broken = TritonServer(one_model, ports=FREE, log_file=log)
    with pytest.raises(ServerStartError, match=r"^model 'latent_edit' failed to load: (?!.*other)"), broken:
        pass
    assert log.read_text().startswith(earlier)
    assert len(log.read_text()) > len(earlier)


@pytest.mark.triton
def test_a_log_that_was_rotated_away_does_not_disturb_the_stop(tmp_path: Path) -> None:
    """The request in flight is answered as ever."""
    version = add_model(tmp_path / "models", "latent_edit", config("latent_edit", "python"))
    began, log = tmp_path / "began", tmp_path / "triton.log"
    tells = f"open({str(began)!r}, 'w').close(); time.sleep(1)"
    (version / "model.py").write_text(SLOW_MODEL.format(load=0, run=1).replace("time.sleep(1)", tells))
    with TritonServer(tmp_path / "models", ports=FREE, log_file=log) as slow, EditClient(slow.grpc_url) as client:
        assert client.manifest.name == "latent_edit"
        log.rename(tmp_path / "triton.log.1")
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.edit, seed=1)
            wait_until(began.exists)
            slow.stop()
        with pytest.raises(RequestFailed, match="slow"):
            answer.result()


def test_wrong_platform(one_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(ServerStartError, match=r"x86-64 Linux only.*arm64.*container"):
        TritonServer(one_model, ports=FREE).start()


def test_missing_wheel(one_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ServerStartError, match="pip install nvidia-pytriton"):
        TritonServer(one_model, ports=FREE).start()


@pytest.mark.triton
def test_missing_libpython(one_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda _: None)
    monkeypatch.setattr("serving.triton.runtime.sys.base_prefix", "/nowhere")
    monkeypatch.setattr("serving.triton.runtime._loader_cache", lambda: "")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    with pytest.raises(ServerStartError, match=r"needs libpython3\.\d+\.so\.1\.0, which this Python lacks"):
        TritonServer(one_model, ports=FREE).start()


def test_reasons_are_found_in_a_log(tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    assert last_error(log) == "it wrote no log"
    log.write_text(
        'I0101 00:00:00.000001 12 server.cc:1] "fine"\n'
        "E0101 00:00:00.000002 12 model_lifecycle.cc:642] \"failed to load 'a' version 1: Internal: ValueError: no\"\n"
        "error: creating server: Internal - failed to load all models\n"
    )
    assert model_failures(log) == {"a": "ValueError: no"}
    log.write_text(
        "E0101 00:00:00.000002 12 model_lifecycle.cc:642] \"failed to load 'a' version 1: Internal: ValueError: no\"\n"
        "E0101 00:00:00.000003 12 model_repository_manager.cc:703] \"Invalid argument: ensemble 'b' depends on 'a' "
        "which has no loaded version. Model 'a' loading failed with error: version 1 is at UNAVAILABLE state\"\n"
        "error: creating server: Internal - failed to load all models\n"
    )
    assert model_failures(log) == {"a": "ValueError: no"}  # the cause, and not what follows from it
    assert last_error(log) == "creating server: Internal - failed to load all models"
