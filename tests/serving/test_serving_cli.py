"""The commands `serve` and `edit`."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny_editor import D, L, add_model, assert_close, config, expected, save_onnx

from serving import EditClient, TritonServer
from serving.cli import edit, parse_alphas, parse_edit, serve
from serving.errors import ServingError

NOISE = "; the generator has random weights: this is noise"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def pixels(path: str) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_strip_of_alphas_that_begin_with_a_minus(server: TritonServer) -> None:
    arguments = [
        "--seed",
        "7",
        "--direction",
        "1",
        "--alpha",
        "-6,-3,0,3,6",
        "-o",
        "strip.png",
        "--url",
        server.grpc_url,
    ]
    result = run(edit, *arguments)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(rf"wrote strip\.png: 5 images, \d+x\d+{NOISE}\n", result.output)
    assert pixels("strip.png").shape[1] > 5 * 8


def test_one_alpha_is_one_picture(server: TritonServer) -> None:
    result = run(edit, "--seed", "7", "--direction", "1", "--alpha=-2", "-o", "a.png", "--url", server.grpc_url)
    assert result.output == f"wrote a.png: 1 image, 8x8{NOISE}\n"
    z = np.random.RandomState(7).randn(1, D).astype(np.float32)
    assert_close(pixels("a.png")[None], expected(z, np.array([[1]]), np.full((1, 1, L), -2.0)))


def test_edits_are_applied_together(server: TritonServer) -> None:
    result = run(edit, "--edit", "smile=3", "--edit", "0=-1", "--layers", "1", "-o", "a.png", "--url", server.grpc_url)
    assert result.exit_code == 0, result.output
    z = np.random.RandomState(0).randn(1, D).astype(np.float32)
    assert_close(pixels("a.png")[None], expected(z, np.array([[2, 0]]), np.array([[[0, 3.0], [0, -1.0]]])))


def test_codes_from_a_file_and_the_models_own_range(server: TritonServer) -> None:
    np.save("z.npy", np.random.RandomState(1).randn(D))
    result = run(edit, "--z", "z.npy", "--direction", "smile", "-o", "s.png", "--url", server.grpc_url)
    assert result.output.startswith("wrote s.png: 5 images")
    np.save("two.npy", np.zeros((2, D)))
    result = run(edit, "--z", "two.npy", "-o", "t.png", "--url", server.grpc_url)
    assert result.output.startswith("wrote t.png: 2 images")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--direction", "3", "--alpha", "1"], r"direction must be in \[0, 3\), got 3"),
        (["--direction", "frown", "--alpha", "1"], r"no named edit 'frown' \(it has smile\).*export again and restart"),
        (["--direction", "0", "--alpha", "1,nan"], "alpha must be finite"),
        (["--direction", "0", "--alpha", "1,,2"], "numbers separated by commas"),
        (["--alpha", "1"], "needs --direction"),
        (["--direction", "0", "--edit", "1=2"], "not both"),
        (["--edit", "smile"], "NAME=ALPHA"),
        (["--edit", "1=2", "--edit", "1=3"], "one direction twice"),
        (["--direction", "0", "--layers", "0-2"], r"layers must be in \[0, 2\), got 2"),
        (["--layers", "all"], "must be like 4-5"),
        (["--class-id", "1"], "has no classes"),
        (["--seed", "1", "--z", "bad.npy"], "not both"),
        (["--from", "a.png", "--z", "bad.npy", "--w", "wrong.npy"], "--from takes one of --z, --w and --photo"),
        (["--from", "a.png", "--z", "bad.npy", "--photo", "a.jpg"], "--from takes one of --z, --w and --photo"),
        (["--z", "missing.npy"], "missing.npy cannot be read: No such file"),
        (["--z", "bad.npy"], "not a plain .npy"),
        (["--z", "wrong.npy"], r"z must be of shape \[N, 4\]"),
        (["-o", "missing/a.png"], "no folder missing"),
        (["-o", "a.docx"], "must end in .png"),
        (["--seed", "-1"], r"seed must be in \[0, "),
        (["--model", "nothing"], "there is no model 'nothing'"),
        (["--url", "127.0.0.1:9"], "no Triton server answers at 127.0.0.1:9.*latentclr serve"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(server: TritonServer, arguments: list[str], message: str) -> None:
    Path("bad.npy").write_bytes(b"text")
    np.save("wrong.npy", np.zeros((1, D + 1)))
    result = run(edit, "--url", server.grpc_url, *arguments)
    assert isinstance(result.exception, ServingError)
    assert result.exception.exit_code == 2
    text = str(result.exception)
    assert re.search(message, text)
    assert "\n" not in text
    assert sorted(path.name for path in Path().iterdir()) == ["bad.npy", "wrong.npy"]


def test_parsers() -> None:
    assert parse_alphas("-6, 0,1e-1") == [-6.0, 0.0, 0.1]
    assert parse_edit("a=b=2") == ("a=b", 2.0)
    assert parse_edit("3=-4.5") == (3, -4.5)


@pytest.mark.parametrize("command", [serve, edit])
def test_every_option_has_help(command: click.Command) -> None:
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "\\b" not in result.output
    assert "\n    latentclr " in result.output  # examples keep their lines


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, serving.cli; print([m for m in ('numpy', 'PIL', 'tritonclient', 'torch') if m in sys.modules])"
    folder = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    assert done.stdout == "[]\n"


def test_serve_without_repository() -> None:
    result = run(serve, "--repository", "nothing")
    assert isinstance(result.exception, ServingError)
    assert "there is no model repository nothing" in str(result.exception)


class Serving:
    """`latentclr serve` as a process of its own."""

    def __init__(self, repository: Path, *arguments: str) -> None:
        ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "latentclr", "serve", "--repository", str(repository), *ports, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "TMPDIR": str(repository.parent)},  # a killed process cannot clean up
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children()]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    repository = tmp_path / "repository"
    save_onnx(add_model(repository, "latent_edit", config("latent_edit")) / "model.onnx")
    started = Serving(repository)
    yield started
    started.process.kill()
    started.process.communicate()


def listens(url: str) -> bool:
    host, _, port = url.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.triton
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_until_a_signal(serving: Serving, number: signal.Signals) -> None:
    match = re.match(r"ready: gRPC (\S+), HTTP http://\S+, metrics http://\S+; models latent_edit ", serving.line())
    assert match, serving.process.communicate()
    with EditClient(match[1]) as client:
        assert len(client.sweep(seed=1, direction=0, alphas=[-1, 1])) == 2
    serving.process.send_signal(number)
    output, errors = serving.process.communicate(timeout=20)
    assert (serving.process.returncode, output, errors) == (0, "stopping\n", "")
    assert not listens(match[1])


@pytest.mark.triton
def test_a_signal_while_loading(serving: Serving) -> None:
    while not serving.children():
        time.sleep(0.01)
    serving.process.send_signal(signal.SIGINT)
    output, errors = serving.process.communicate(timeout=20)
    assert (serving.process.returncode, errors) == (0, "")
    assert output.endswith("stopping\n")


@pytest.mark.triton
def test_a_killed_serve_takes_triton_with_it(serving: Serving) -> None:
    url = serving.line().split()[2].rstrip(",")
    assert listens(url)
    serving.process.kill()
    deadline = time.monotonic() + 10
    while listens(url):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.triton
def test_a_killed_triton_is_one_line_and_started_again(serving: Serving) -> None:
    ready = serving.line()
    assert ready.startswith("ready")
    for child in serving.children():
        os.kill(child, signal.SIGKILL)
    assert serving.process.stderr is not None
    assert serving.process.stderr.readline() == "the Triton server was killed by SIGKILL; starting Triton again\n"
    assert serving.process.stderr.readline() == "Triton is back\n"
    with EditClient(ready.split()[2].rstrip(",")) as client:
        assert len(client.edit(seed=1)) == 1
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.communicate(timeout=20) == ("stopping\n", "")
    assert serving.process.returncode == 0


@pytest.mark.parametrize("option", ["--z", "--w"])
@pytest.mark.parametrize("kind", ["complex64", "complex128", "M8[s]", "m8[s]", "U1", "S1", "V8", "f4,i4"])
def test_codes_that_are_no_numbers(option: str, kind: str) -> None:
    """numpy would drop the imaginary part, and count a date in seconds."""
    np.save("codes.npy", np.zeros((1, D), kind))
    result = run(edit, option, "codes.npy", "-o", "a.png", "--url", "127.0.0.1:1")
    assert isinstance(result.exception, ServingError)
    assert str(result.exception).startswith("codes.npy must hold numbers, got ")
    assert not Path("a.png").exists()
