"""What a Triton that we start, or tell others how to start, refuses to whoever reaches its ports."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from test_deploy import triton_arguments
from tiny_editor import add_model, config, save_onnx
from tritonclient.utils import InferenceServerException

from serving import EditClient, TritonServer
from serving.errors import ServingError
from serving.triton.docker import docker_command
from serving.triton.ports import Ports, claim_ports
from serving.triton.runtime import build_runtime
from serving.triton.stubs import kill_stubs

FREE = Ports(0, 0, 0)
pytestmark = pytest.mark.triton


@pytest.fixture
def models(tmp_path: Path) -> Path:
    save_onnx(add_model(tmp_path / "models", "latent_edit", config("latent_edit")) / "model.onnx")
    return tmp_path / "models"


def attacks_over_grpc(url: str, evil: dict[str, Any]) -> list[str]:
    """Ask for everything that must be refused; return what was not."""
    client = triton.InferenceServerClient(url)
    files = {"file:1/model.py": evil["code"].encode()}
    calls: dict[str, Callable[[], Any]] = {
        "load": lambda: client.load_model("evil", config=json.dumps(evil["config"]), files=files),
        "load again": lambda: client.load_model("latent_edit"),
        "unload": lambda: client.unload_model("latent_edit"),
        "log": lambda: client.update_log_settings({"log_verbose_level": 9}),
        "trace": lambda: client.update_trace_settings("latent_edit", {"trace_level": ["TENSORS"]}),
        "register": lambda: client.register_system_shared_memory("r", "/any", 4),
        "regions": lambda: client.get_system_shared_memory_status(),
        "unregister": lambda: client.unregister_system_shared_memory(),
        "cuda regions": lambda: client.unregister_cuda_shared_memory(),
    }
    done = []
    for name, call in calls.items():
        try:
            call()
            done.append(name)
        except InferenceServerException as error:
            assert "restricted" in str(error) or "not allowed" in str(error), (name, str(error))
    client.close()
    return done


def attacks_over_http(url: str, evil: dict[str, Any]) -> list[str]:
    """The same over HTTP, as a web page could send it."""
    load = {"config": json.dumps(evil["config"]), "file:1/model.py": base64.b64encode(evil["code"].encode()).decode()}
    register = {"key": "/any", "offset": 0, "byte_size": 4}
    calls: dict[str, Any] = {
        "repository/models/evil/load": {"parameters": load},
        "repository/models/latent_edit/load": {},
        "repository/models/latent_edit/unload": {},
        "logging": {"log_verbose_level": 9},
        "trace/setting": {"trace_level": ["TENSORS"]},
        "models/latent_edit/trace/setting": {"trace_level": ["TENSORS"]},
        "systemsharedmemory/region/r/register": register,
        "systemsharedmemory/unregister": {},
        "cudasharedmemory/unregister": {},
    }
    done = []
    for path, body in calls.items():
        headers = {"Content-Type": "text/plain", "Origin": "http://elsewhere.example"}
        request = urllib.request.Request(f"{url}/v2/{path}", json.dumps(body).encode(), headers)
        try:
            urllib.request.urlopen(request, timeout=10).close()
            done.append(path)
        except urllib.error.HTTPError as error:
            said = error.read().decode()
            assert "restricted" in said or "not allowed" in said, (path, said)
    return done


@pytest.fixture
def evil(tmp_path: Path) -> dict[str, Any]:
    """A model that leaves a trace when it is loaded."""
    code = f"open({str(tmp_path / 'executed')!r}, 'w').close()\nclass TritonPythonModel:\n    pass\n"
    return {"code": code, "config": {"name": "evil", "backend": "python", "max_batch_size": 1}}


@pytest.mark.parametrize(
    "options", [{}, {"models": ["latent_edit"]}, {"poll_s": 1}, {"models": ["latent_edit"], "poll_s": 1}],
    ids=["all", "chosen", "polling", "chosen_polling"],
)  # fmt: skip
def test_a_server_only_draws(models: Path, evil: dict[str, Any], tmp_path: Path, options: dict[str, Any]) -> None:
    with TritonServer(models, ports=FREE, **options) as server:
        assert attacks_over_grpc(server.grpc_url, evil) == []
        assert attacks_over_http(server.http_url, evil) == []
        with EditClient(server.grpc_url) as client:
            assert client.edit(seed=1).images.any()
    assert not (tmp_path / "executed").exists()


def test_grpc_only(models: Path, evil: dict[str, Any], tmp_path: Path) -> None:
    with TritonServer(models, ports=FREE, grpc_only=True) as server:
        assert attacks_over_grpc(server.grpc_url, evil) == []
        for url in (server.http_url, server.metrics_url):
            with pytest.raises(urllib.error.URLError, match="refused"):
                urllib.request.urlopen(url, timeout=10)
        with EditClient(server.grpc_url) as client:
            assert client.edit(seed=1).images.any()
    assert not (tmp_path / "executed").exists()


def test_shared_memory_is_open_on_request_only(models: Path) -> None:
    with TritonServer(models, ports=FREE) as server, EditClient(server.grpc_url, shared_memory=True) as client:
        with pytest.raises(ServingError, match="latentclr serve --shared-memory"):
            client.edit(seed=1)
    with TritonServer(models, ports=FREE, shared_memory=True) as server:
        with EditClient(server.grpc_url, shared_memory=True) as client:
            assert client.edit(seed=1).images.any()


@contextlib.contextmanager
def deployed(arguments: list[str], models: Path, folder: Path) -> Iterator[Ports]:
    """Run the wheel's Triton with what a deployment tells NVIDIA's."""
    folder.mkdir()
    runtime, ports = build_runtime(folder), claim_ports("127.0.0.1", FREE)
    told = [word for word in arguments if not word.startswith(("--model-repository", "--cache-config"))]
    region = f"latentclr_{secrets.token_hex(6)}_"
    own = [
        f"--backend-config=python,shm-region-prefix-name={region}",
        f"--model-repository={models}", f"--backend-directory={runtime.backends}",
        "--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1",
        f"--http-port={ports.http}", f"--grpc-port={ports.grpc}", f"--metrics-port={ports.metrics}",
    ]  # fmt: skip
    with open(folder / "triton.log", "wb") as log:
        process = subprocess.Popen(
            [str(runtime.program), *own, *told], env=dict(runtime.environment), stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{ports.http}/v2/health/ready", timeout=5).close()
                break
            assert process.poll() is None, (folder / "triton.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield ports
    finally:
        process.kill()  # asked politely it takes three seconds
        process.wait(30)
        kill_stubs(region)
        for file in Path("/dev/shm").glob(f"{region}*"):
            file.unlink()


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "kubernetes.yaml", "kserve.yaml", "--engine docker"])
def test_a_deployment_only_draws(models: Path, evil: dict[str, Any], tmp_path: Path, file: str) -> None:
    source = " ".join(docker_command(models, models=["latent_edit"])) if file.startswith("--") else file
    with deployed(triton_arguments(source), models, tmp_path / "runtime") as ports:
        assert attacks_over_grpc(f"127.0.0.1:{ports.grpc}", evil) == []
        assert attacks_over_http(f"http://127.0.0.1:{ports.http}", evil) == []
    assert not (tmp_path / "executed").exists()


def test_the_attacks_work_where_nothing_is_closed(models: Path, evil: dict[str, Any], tmp_path: Path) -> None:
    """Else the tests above would show nothing."""
    arguments = ["--model-control-mode=explicit", "--load-model=latent_edit", "--disable-auto-complete-config"]
    with deployed(arguments, models, tmp_path / "runtime") as ports:
        url = f"127.0.0.1:{ports.grpc}"
        client = triton.InferenceServerClient(url)
        files = {"file:1/model.py": evil["code"].encode()}
        with contextlib.suppress(InferenceServerException):
            client.load_model("evil", config=json.dumps(evil["config"]), files=files)
        client.update_log_settings({"log_verbose_level": 9})
        client.get_system_shared_memory_status()
        client.close()
    assert (tmp_path / "executed").exists()
