"""One real server for most of the tests of this folder."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_editor

from serving import EditClient, TritonServer
from serving.triton.ports import Ports

FREE = Ports(0, 0, 0)


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker of tests that start a server of their own."""
    config.addinivalue_line("markers", "triton: starts the embedded Triton, so needs nvidia-pytriton")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the embedded Triton where there is none."""
    has_triton = sys.platform == "linux" and platform.machine() == "x86_64" and importlib.util.find_spec("pytriton")
    if has_triton:
        return
    for item in items:
        if {"server", "client"} & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("triton"):
            item.add_marker(pytest.mark.skip(reason="nvidia-pytriton is not installed"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny editor as ONNX and TorchScript, one with classes, and some odd ones."""
    folder = tmp_path_factory.mktemp("repository")
    config = tiny_editor.config
    tiny_editor.save_onnx(tiny_editor.add_model(folder, "latent_edit", config("latent_edit")) / "model.onnx")
    name = "latent_edit_torchscript"
    tiny_editor.save_torchscript(tiny_editor.add_model(folder, name, config(name, "pytorch")) / "model.pt")
    # A queue delay, so that requests sent together are run together.
    text = config("fragile", image="1, 1, 1", queue_us=300_000)
    tiny_editor.save_fragile_onnx(tiny_editor.add_model(folder, "fragile", text) / "model.onnx")
    text = config("together", queue_us=200_000)
    tiny_editor.save_onnx(tiny_editor.add_model(folder, "together", text) / "model.onnx")
    text = config("anonymous", manifest=None)
    tiny_editor.save_onnx(tiny_editor.add_model(folder, "anonymous", text) / "model.onnx")
    text = config("conditional", manifest=tiny_editor.WITH_CLASSES)
    tiny_editor.save_onnx(tiny_editor.add_model(folder, "conditional", text) / "model.onnx", classes=True)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """A running server on free ports, which takes shared memory."""
    with TritonServer(repository, ports=FREE, shared_memory=True) as running:
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[EditClient]:
    """A client of the ONNX editor."""
    with EditClient(server.grpc_url) as connected:
        yield connected
