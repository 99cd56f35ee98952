"""What `pip install latentclr` without extras brings: the client, and the commands that need no torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from serving import TritonServer

ROOT = Path(__file__).parents[3]
PACKAGES = ("latentclr", "export", "serving")
NEED_AN_EXTRA = {
    "train": ("train", "generator=dcgan"), "eval": ("train", "run"), "gen": ("train", "run"),
    "name": ("train", "run", "smile", "--direction", "1"), "names": ("train", "run"),
    "import": ("train", "run", "other"), "export": ("export", "run"), "studio": ("studio", "--url", "127.0.0.1:8001"),
}  # fmt: skip


def closure(requirements: list[str], extra: str = "") -> Iterator[Distribution]:
    """All installed distributions that requirements ask for, theirs included."""
    seen: set[tuple[str, str]] = set()
    left = [(Requirement(text), extra) for text in requirements]
    while left:
        wanted, asked = left.pop()
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": asked}):
            continue
        for own in ("", *wanted.extras):
            if (wanted.name, own) not in seen:
                seen.add((wanted.name, own))
                found = distribution(wanted.name)
                if not own:
                    yield found
                left += [(Requirement(text), own) for text in found.requires or []]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds this project and what it requires without extras, and nothing else.

    As pip would install it, but linked from this environment: nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("light")
    venv.create(folder / "venv", with_pip=False)
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    for found in closure(distribution("latentclr").requires or []):
        for top in {file.parts[0] for file in found.files or [] if not file.parts[0].startswith((".", "__pycache__"))}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))))
    for package in PACKAGES:
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "venv" / "bin" / "python"


def run(python: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [str(python), *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_edit(installed: Path, server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = """
import json, sys, time
start = time.perf_counter()
from serving import EditClient
took = time.perf_counter() - start
with EditClient(sys.argv[1], "latent_edit") as client:
    client.edit(seed=7, edits={1: 2.0}).save("edited.png")
    shape = client.edit(seed=7).images.shape
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "hydra", "matplotlib", "onnx", "scipy"})
print(json.dumps({"import_s": took, "shape": shape, "heavy": heavy}))
"""
    done = run(installed, "-c", code, server.grpc_url, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["shape"][0] == 1 and told["shape"][3] == 3
    assert told["heavy"] == []
    assert (tmp_path / "edited.png").stat().st_size > 100
    site = next((installed.parents[1] / "lib").glob("python*")) / "site-packages"
    size = sum(f.stat().st_size for f in site.glob("**/*") if f.is_file())
    size += sum(f.stat().st_size for top in site.iterdir() if top.is_symlink() for f in top.resolve().rglob("*"))
    with capsys.disabled():
        print(f"\nthe client: {size / 1e6:.0f} MB of packages, imported in {told['import_s'] * 1000:.0f} ms")


def test_commands_that_need_no_torch(installed: Path, server: TritonServer, tmp_path: Path) -> None:
    edit = ("edit", "--url", server.grpc_url, "--seed", "3", "--output", "out.png")
    done = run(installed, "-m", "latentclr", *edit, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.png").exists()
    done = run(installed, "-m", "latentclr", "doctor", folder=tmp_path)
    assert "Traceback" not in done.stderr and "Python" in done.stdout
    done = run(installed, "-m", "latentclr", "rollback", "--repository", "nowhere", folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "pip install" not in done.stderr
    done = run(installed, "-m", "latentclr", "weights", "list", folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", NEED_AN_EXTRA)
def test_a_missing_extra_is_one_line(installed: Path, tmp_path: Path, command: str) -> None:
    extra, *words = NEED_AN_EXTRA[command]
    done = run(installed, "-m", "latentclr", command, *words, folder=tmp_path)
    assert done.returncode == 2
    told = r"Error: (the )?\w+ needs [\w, ]+: pip install 'latentclr\[(\w+)\]'\n"
    match = re.fullmatch(told, done.stderr)
    assert match, done.stderr
    assert match[2] == extra
    assert run(installed, "-m", "latentclr", command, "--help", folder=tmp_path).returncode == 0


def test_this_environment_has_what_the_light_one_lacks() -> None:
    """Else the tests above would show nothing."""
    light = {found.metadata["Name"].lower() for found in closure(distribution("latentclr").requires or [])}
    assert {"numpy", "tritonclient", "grpcio", "protobuf"} <= light
    assert not light & {"torch", "onnx", "hydra-core", "matplotlib", "scipy", "fastapi"}
    assert sys.modules.get("torch") or distribution("torch")
