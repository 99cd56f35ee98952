"""What the tests share: tiny generator weights, one short trained run, and ways to call the command line."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_generators
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

from export import engines, reduced
from export.editor import FusedEditor
from export.onnx import export_onnx
from export.pipeline import export_run
from export.torchscript import export_torchscript
from export.web import smallest
from latentclr.cli import cli
from latentclr.commands import run_train
from latentclr.files import replacing
from latentclr.generators.dcgan import DCGAN, load_dcgan

# Tiny tensors run faster on one thread, and a second process with one thread then agrees bit for bit.
torch.set_num_threads(1)

DATA = Path(__file__).parent / "data"
# Of two processes neither should be left with a long file when the other has nothing to do.
LONGEST_FIRST = (
    "test_full_size.py", "test_interruption.py", "test_families.py", "test_hostile_files.py",
    "test_benchmarks.py", "test_named_edits.py", "test_load.py",
)  # fmt: skip
FEW = 24
PROOFS = ("test_publish.py", "test_precision.py", "test_certify.py", "test_export_preview.py")
Golden = dict[str, np.ndarray]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="module", autouse=True)
def few_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let float32 exports be held against few pictures where the proof is not what is tested: it takes most time."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.name not in PROOFS:
            patch.setitem(export_run.__kwdefaults__, "edited", FEW)
        yield


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Numbers of the origin's reference code: direction models, projectors, loss."""
    return DATA / "latentclr_checkpoints"


@pytest.fixture(scope="session")
def golden(golden_folder: Path) -> Golden:
    with np.load(golden_folder / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def faces() -> DCGAN:
    """The real face generator of the gan-face-generate package."""
    return load_dcgan(None)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a random 16 x 16 DCGAN with D = 24."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(tiny_generators.dcgan_tensors(), path)
    return path


@pytest.fixture(scope="session")
def short(tiny_weights: Path) -> list[str]:
    """Overrides of a training that takes a fraction of a second."""
    return [
        f"generator.weights={tiny_weights}", "model=nonlinear", "model.depth=2", "model.alpha=[-3.0,+3.0]", "k=4",
        "hparams.batch_size=4", "hparams.iterations=12", "eval_freq=6", "eval_iters=2", "save_freq=5", "device=cpu",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def trained(short: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished short run; tests that write into it copy it first (`run`)."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert run_train([*short, f"output_dir={folder}"])
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """Call `latentclr ...` in this process."""

    def call(*words: str | Path) -> Result:
        return CliRunner().invoke(cli, [str(word) for word in words], prog_name="latentclr")

    return call


@pytest.fixture(scope="session", autouse=True)
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the pipeline the same graph for the same editor: making one takes torch seconds, and many tests want one.

    Processes of one `pytest -n` share them.
    """
    base = tmp_path_factory.getbasetemp()
    known = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    known.mkdir(exist_ok=True)

    def once(export: Callable[..., None]) -> Callable[..., None]:
        def copy_or_export(editor: FusedEditor, path: Path, *options: int) -> None:
            digest = hashlib.sha256(repr((export.__name__, editor, editor.latent_input, options)).encode())
            for name, tensor in editor.state_dict().items():
                digest.update(name.encode() + tensor.numpy().tobytes())
            for part in (editor.generator, editor.directions):  # such as the truncation
                plain = {key: value for key, value in vars(part).items() if not key.startswith("_")}
                digest.update(repr(sorted(plain.items())).encode())
            graph = known / digest.hexdigest()
            if not graph.exists():
                export(editor, path, *options)
                with replacing(graph) as temporary:
                    shutil.copy(path, temporary)
            shutil.copy(graph, path)

        return copy_or_export

    with pytest.MonkeyPatch.context() as patch:
        for module in (engines, reduced, smallest):
            patch.setattr(module, export_onnx.__name__, once(export_onnx))
        patch.setattr(engines, export_torchscript.__name__, once(export_torchscript))
        yield


def environment() -> dict[str, str]:
    """Return this environment without what torchrun or a progress bar would read."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python ARGUMENT...` in a process of its own, which does not outlive the test."""
    running: list[subprocess.Popen[str]] = []

    def popen(*arguments: str | Path, code: str | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, *(["-c", code] if code else []), *map(str, arguments)]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()))
        return running[-1]

    yield popen
    for process in running:
        process.kill()
        process.communicate()


def one_error_line(result: Result | tuple[int, str]) -> str:
    """Assert exit code 2 and exactly one line on standard error; return it."""
    code, stderr = result if isinstance(result, tuple) else (result.exit_code, result.stderr)
    lines = stderr.splitlines()
    assert code == 2, stderr
    assert len(lines) == 1, stderr
    assert lines[0].startswith("Error: "), stderr
    return lines[0]


@pytest.fixture
def refused() -> Callable[[Result | tuple[int, str]], str]:
    """Return `one_error_line`."""
    return one_error_line


@pytest.fixture
def rng() -> torch.Generator:
    """A fresh random generator."""
    return torch.Generator().manual_seed(0)
