"""Servers that end in order, or are brought down, under clients that retry."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_editor import D, L, add_model, config, save_onnx

from serving import AsyncEditClient, EditClient
from serving.triton.ports import Ports, claim_ports

pytestmark = pytest.mark.triton


@pytest.fixture
def models(tmp_path: Path) -> Path:
    save_onnx(add_model(tmp_path / "models", "latent_edit", config("latent_edit")) / "model.onnx")
    return tmp_path / "models"


class Serve:
    """`latentclr serve` in a process of its own."""

    def __init__(self, models: Path, ports: Ports) -> None:
        words = ["--http-port", ports.http, "--grpc-port", ports.grpc, "--metrics-port", ports.metrics]
        command = [sys.executable, "-m", "latentclr", "serve", "--repository", models, *words]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([str(word) for word in command], stdout=pipe, stderr=pipe, text=True)
        self.said: list[str] = []
        streams = (self.process.stdout, self.process.stderr)
        self._readers = [threading.Thread(target=self._read, args=(stream,), daemon=True) for stream in streams]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        with stream:
            self.said.extend(stream)

    def wait_for(self, text: str, seconds: float = 60) -> str:
        """Wait until it says something."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(text, "".join(self.said))):
            assert time.monotonic() < deadline, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.02)
        return found[0]

    def stop(self) -> None:
        """End it in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        for reader in self._readers:
            reader.join()


@pytest.fixture
def serve(models: Path) -> Iterator[Callable[[Ports], Serve]]:
    running: list[Serve] = []

    def start(ports: Ports) -> Serve:
        running.append(Serve(models, ports))
        return running[-1]

    yield start
    for server in running:
        with contextlib.suppress(AssertionError):
            server.stop()
        server.process.kill()
        server.process.wait()


@pytest.mark.slow
def test_a_rolling_restart_loses_no_request(serve: Callable[[Ports], Serve]) -> None:
    ports = claim_ports("127.0.0.1", Ports(0, 0, 0))
    url = f"127.0.0.1:{ports.grpc}"
    first = serve(ports)
    first.wait_for("ready:")
    stop, failures, answers = threading.Event(), list[BaseException](), dict[str, int]()

    def ask(way: str, address: str) -> None:
        with EditClient(address, retries=20, timeout=60) as client:
            while not stop.is_set():
                try:
                    client.edit(seed=1)
                    answers[way] = answers.get(way, 0) + 1
                except Exception as error:
                    failures.append(error)

    async def ask_async() -> None:
        async with AsyncEditClient(url, retries=20, timeout=60) as client:
            while not stop.is_set():
                try:
                    await client.edit(seed=1)
                    answers["async"] = answers.get("async", 0) + 1
                except Exception as error:
                    failures.append(error)

    threads = [
        threading.Thread(target=ask, args=("grpc", url)),
        threading.Thread(target=ask, args=("http", f"http://127.0.0.1:{ports.http}")),
        threading.Thread(target=lambda: asyncio.run(ask_async())),
    ]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        first.stop()
        before = dict(answers)
        serve(ports).wait_for("ready:")
        deadline = time.monotonic() + 60
        while any(answers.get(way, 0) <= before.get(way, 0) for way in ("grpc", "http", "async")):
            assert time.monotonic() < deadline, (answers, failures)
            time.sleep(0.02)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_request_that_brings_triton_down_is_not_the_end(serve: Callable[[Ports], Serve]) -> None:
    ports = claim_ports("127.0.0.1", Ports(0, 0, 0))
    running = serve(ports)
    running.wait_for("ready:")
    bomb = {
        "inputs": [
            {"name": "z", "shape": [10**12, D], "datatype": "FP32", "data": [0.0] * 150},
            {"name": "direction", "shape": [1, 1], "datatype": "INT64", "data": [0]},
            {"name": "alpha", "shape": [1, 1, L], "datatype": "FP32", "data": [0.0] * L},
        ]
    }
    connection = http.client.HTTPConnection("127.0.0.1", ports.http, timeout=30)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/v2/models/latent_edit/infer", json.dumps(bomb))
        connection.getresponse().read()
    connection.close()
    running.wait_for("starting Triton again")
    running.wait_for("Triton is back")
    with EditClient(f"127.0.0.1:{ports.grpc}", retries=20) as client:
        assert client.edit(seed=1).images.any()
    running.stop()
