"""The command `studio`: what it refuses, and the whole of it with an embedded Triton."""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from click.testing import CliRunner
from PIL import Image

from serving.errors import ServingError
from serving.studio.cli import studio

ROOT = Path(__file__).parents[3]


def refusal(*words: str) -> str:
    """Run the command in this process; return the error, which `latentclr` prints as one line."""
    result = CliRunner().invoke(studio, words)
    assert isinstance(result.exception, ServingError), result.output
    assert result.exception.exit_code == 2
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_another_host_needs_a_token_of_some_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATENTCLR_STUDIO_TOKEN", raising=False)
    assert "needs --token" in refusal("--host", "0.0.0.0", "--url", "127.0.0.1:9")
    assert "needs --token" in refusal("--host", "", "--url", "127.0.0.1:9")
    assert "at least 16 characters, got 5" in refusal("--host", "0.0.0.0", "--token", "short", "--url", "127.0.0.1:9")


def test_what_cannot_work_is_told_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no model repository" in refusal("--repository", str(tmp_path / "none"))
    assert "no model repository" in refusal("--url", "")  # of a variable that is not set: as without it
    assert "host:port" in refusal("--url", "http://127.0.0.1:8001")
    assert "no folder" in refusal("--catalog", str(tmp_path / "none" / "catalog.yaml"), "--url", "127.0.0.1:9")
    (tmp_path / "catalog.yaml").write_text("- a")
    assert "must be a table" in refusal("--catalog", str(tmp_path / "catalog.yaml"), "--url", "127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another --port" in refusal("--port", port, "--url", "127.0.0.1:9")


def test_a_wrong_address_or_model_is_told_before_the_page_is_served(triton: Any, tmp_path: Path) -> None:
    rest = ("--port", "0", "--catalog", str(tmp_path / "c.yaml"), "--timeout", "10", "--url")
    http = f"127.0.0.1:{triton.ports.http}"
    assert refusal(*rest, http) == f"{http} answers HTTP, not gRPC: use the gRPC port, 8001 by default"
    assert "is the metrics port of a Triton" in refusal(*rest, f"127.0.0.1:{triton.ports.metrics}")
    assert "there is no host 'nowhere.invalid'" in refusal(*rest, "nowhere.invalid:8001")
    assert "no Triton server answers at 127.0.0.1:9" in refusal(*rest, "127.0.0.1:9")
    said = refusal(*rest, triton.grpc_url, "--model", "nothing")
    assert "there is no model 'nothing'" in said
    assert "ready models: conditional, latent_edit" in said


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else real(name))
    assert refusal() == "the studio needs fastapi: pip install 'latentclr[studio]'"


def test_it_imports_neither_torch_nor_the_packages_above() -> None:
    code = (
        "import sys, serving.studio.app, serving.studio.runner, serving.studio.cli\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'latentclr', 'export', 'onnx'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_is_instant_and_complete() -> None:
    code = "import sys, serving.studio.cli; print({'fastapi', 'numpy', 'tritonclient'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    text = CliRunner().invoke(studio, ["--help"]).output
    assert all(f"--{name}" in text for name in ("url", "repository", "model", "host", "port", "token", "catalog"))


@contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command in a process of its own; yields it and the studio's address."""
    command = [sys.executable, "-m", "serving.studio.cli", "--port", "0", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("studio: "):
                yield process, line.split()[1].rstrip("/")
                break
        else:
            raise AssertionError(process.communicate()[1])
    finally:
        process.kill()
        process.communicate()


def triton_of(studio_pid: int) -> int:
    """Find the Triton that the studio started."""
    (triton,) = [child for child in psutil.Process(studio_pid).children() if child.name() == "tritonserver"]
    return int(triton.pid)


def test_its_own_triton_has_what_belongs_to_the_model_and_is_started_again(
    studio_repository: Path, tmp_path: Path
) -> None:
    catalog = ("--catalog", str(tmp_path / "catalog.yaml"))
    with started("--repository", str(studio_repository), "--model", "photos", *catalog) as (process, url):
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:

            def image() -> Any:
                return http.post("/api/image", json={"seed": 1, "edits": [{"direction": 1, "alpha": 2}]})

            wanted = image()
            assert wanted.status_code == 200
            preview = http.post("/api/preview", json={"seed": 1})
            assert Image.open(io.BytesIO(preview.content)).size == (4, 4)
            photo = {"content": wanted.content, "params": {"align": "centre"}}
            headers = {"content-type": "application/octet-stream"}
            assert http.post("/api/photos", **photo, headers=headers).status_code == 200
            os.kill(triton_of(process.pid), signal.SIGKILL)
            deadline = time.monotonic() + 60
            # The client tries again by itself: where Triton is back at once, no request needs to be lost.
            while (response := image()).status_code != 200:
                assert response.status_code == 503, response.text
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert response.content == wanted.content
        assert process.stderr is not None
        told = []
        for line in process.stderr:  # ends with the process, if not with the line
            told.append(line)
            if "Triton is back" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.endswith("stopping\n")
    assert "was killed by SIGKILL; starting Triton again" in told[0]
    assert "Triton is back" in told[-1]
    assert err == ""


def test_a_running_server_is_used_and_a_busy_page_does_not_hold_the_end(triton: Any, tmp_path: Path) -> None:
    with started("--url", triton.grpc_url, "--catalog", str(tmp_path / "c.yaml")) as (process, url):
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
            assert http.get("/api/health").json()["ready"]
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
            assert time.monotonic() - begun < 6
    assert (process.returncode, err) == (0, "")
    assert out.endswith("stopping\n")
