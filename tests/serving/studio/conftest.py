"""A studio on a real Triton that serves tiny editors, and what its tests share."""

from __future__ import annotations

import importlib.util
import io
import json
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny_editor
from chromium import NO_GPU, WAIT_MS, running_browser
from numpy.typing import NDArray
from PIL import Image

from serving import TritonServer
from serving.contract.catalog import CatalogFile
from serving.contract.manifest import Manifest, parse_manifest
from serving.studio.app import create_app
from serving.studio.backend import Backend
from serving.studio.names import Names
from serving.studio.runner import WebServer
from serving.studio.security import Policy
from serving.studio.service import Service
from serving.triton.ports import Ports

SCORED = {
    **tiny_editor.MANIFEST,
    "name": "scored",
    "directions": {
        **tiny_editor.MANIFEST["directions"],
        "scores": [
            {"range": [-2.13, 4.27], "twin_of": None, "name": "yaw", "top": [["yaw", 1.2], ["happy", -0.4]]},
            {"range": [-5, 1], "twin_of": 0, "name": "", "top": []},
            {"range": [-3, 3], "twin_of": None, "name": "happy", "top": [["happy", -1.5]]},
        ],
    },
    "edits": {"smile": {"direction": 2, "alpha_range": [-3, 2], "reverse": True}},
}
FACE = [[0.32, 0.4], [0.66, 0.4], [0.49, 0.58], [0.36, 0.76], [0.62, 0.76]]  # where the tiny pictures would have one
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
NO_TRITON = not (sys.platform == "linux" and platform.machine() == "x86_64" and importlib.util.find_spec("pytriton"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the embedded Triton where there is none."""
    for item in items:
        if NO_TRITON and {"triton", "studio_repository"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.skip(reason="nvidia-pytriton is not installed"))


@dataclass
class Studio:
    """A running studio: where it is, a client for it, its catalog file and its service."""

    url: str
    http: httpx.Client
    catalog: Path
    service: Service


@pytest.fixture(scope="session")
def studio_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Editors with L = 2: plain, with classes, scored, with a preview, and one that takes photos of faces."""
    folder = tmp_path_factory.mktemp("studio_repository")
    text = tiny_editor.config("latent_edit")
    tiny_editor.save_onnx(tiny_editor.add_model(folder, "latent_edit", text) / "model.onnx")
    text = tiny_editor.config("conditional", manifest=tiny_editor.WITH_CLASSES)
    tiny_editor.save_onnx(tiny_editor.add_model(folder, "conditional", text) / "model.onnx", classes=True)
    tiny_editor.with_preview(folder, "swift")
    full = tiny_editor.with_encoder(folder, "photos")["photos"]
    full["encoder"]["face"] = FACE
    (folder / "photos" / "config.pbtxt").write_text(tiny_editor.config("photos", manifest=full))
    text = tiny_editor.config("scored", manifest=SCORED)
    tiny_editor.save_onnx(tiny_editor.add_model(folder, "scored", text) / "model.onnx")
    return folder


@pytest.fixture(scope="session")
def triton(studio_repository: Path) -> Iterator[TritonServer]:
    """A running server on free ports."""
    with TritonServer(studio_repository, ports=Ports(0, 0, 0)) as running:
        yield running


@contextmanager
def running_studio(
    url: str,
    catalog: Path,
    model: str = "latent_edit",
    policy: Policy | None = None,
    timeout: float = 20.0,
    names: Names | None = None,
) -> Iterator[Studio]:
    """Serve a studio on a free port; its names are in the file, or wherever `names` says."""
    names = names or Names(CatalogFile(catalog, catalog.name), note=f"Names are kept in {catalog.name} alone.")
    service = Service(Backend(url, model, timeout), names)
    web = WebServer(create_app(service, policy or Policy()), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{web.port}"
    with web, httpx.Client(base_url=address, timeout=20, trust_env=False) as client:
        yield Studio(address, client, catalog, service)
    service.backend.close()


@pytest.fixture(scope="session")
def open_studio() -> Callable[..., AbstractContextManager[Studio]]:
    """Return `running_studio`, for a test that needs a studio of its own."""
    return running_studio


@pytest.fixture(scope="session")
def shared_studio(triton: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """The studio of most tests."""
    with running_studio(triton.grpc_url, tmp_path_factory.mktemp("catalog") / "catalog.yaml") as running:
        yield running


@pytest.fixture
def studio(shared_studio: Studio) -> Studio:
    """The shared studio with an empty catalog."""
    shared_studio.catalog.unlink(missing_ok=True)
    return shared_studio


@pytest.fixture(scope="session")
def scored_studio(triton: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio of an editor that was scored."""
    catalog = tmp_path_factory.mktemp("scored") / "catalog.yaml"
    with running_studio(triton.grpc_url, catalog, "scored") as running:
        yield running


@pytest.fixture(scope="session")
def swift_studio(triton: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio of an editor with a preview."""
    catalog = tmp_path_factory.mktemp("swift") / "catalog.yaml"
    with running_studio(triton.grpc_url, catalog, "swift") as running:
        yield running


@pytest.fixture(scope="session")
def photo_studio(triton: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio of an editor with an encoder and a preview."""
    catalog = tmp_path_factory.mktemp("photos") / "catalog.yaml"
    with running_studio(triton.grpc_url, catalog, "photos") as running:
        yield running


@pytest.fixture(scope="session")
def classes_studio(triton: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A studio of the conditional editor."""
    catalog = tmp_path_factory.mktemp("classes") / "catalog.yaml"
    with running_studio(triton.grpc_url, catalog, "conditional") as running:
        yield running


def read_picture(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def pixels() -> Callable[[bytes], NDArray[np.uint8]]:
    """Decode the bytes of a picture, [H, W, 3]."""
    return read_picture


def draw(seed: int, edits: dict[int, list[float]], class_id: int | None = None) -> NDArray[np.uint8]:
    """What the tiny editor's formula says, [8, 8, 3]; edits are alphas [L] by direction."""
    z: NDArray[Any] = np.random.RandomState(seed).randn(1, tiny_editor.D).astype(np.float32)
    edits = edits or {0: [0.0] * tiny_editor.L}
    direction = np.array([list(edits)])
    alpha = np.array([list(edits.values())], np.float32)
    classes = None if class_id is None else np.array([class_id])
    return tiny_editor.expected(z, direction, alpha, classes)[0]


@pytest.fixture
def formula() -> Callable[..., NDArray[np.uint8]]:
    """Return `draw`."""
    return draw


@pytest.fixture
def manifest_of() -> Callable[[int, int], Manifest]:
    """Make the manifest of a model with K directions and L layers."""

    def make(count: int, layers: int) -> Manifest:
        raw = {
            **tiny_editor.MANIFEST,
            "directions": {"count": count},
            "latent": {**tiny_editor.MANIFEST["latent"], "layers": layers},
            "edits": {},
        }
        return parse_manifest(json.dumps(raw))

    return make


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser; each test gets a fresh profile in it."""
    with running_browser(tmp_path_factory.mktemp("browser"), [*NO_GPU, *CAMERA]) as running:
        yield running


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a studio's page; afterwards nothing may have been complained about."""
    complaints: list[str] = []
    contexts = []

    def open_page(url: str, quiet: bool = True, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        if quiet:
            page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
