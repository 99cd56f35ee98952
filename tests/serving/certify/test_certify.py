"""`latentclr certify` against a real server: what holds, and that everything else fails in one line."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tiny_models import nudge

from latentclr.cli import cli
from latentclr.files import sha256_of
from serving import EditClient, Ports, TritonServer
from serving.certify.proof import batches, prove
from serving.contract.certificate import CertificateError
from serving.contract.golden import GOLDEN_FILE, read_golden, write_golden
from serving.contract.layout import read_config
from serving.doctor.repository_checks import check_models
from serving.doctor.running import find_running

pytestmark = pytest.mark.triton
ENGINES = ("onnxruntime", "torchscript", *(["openvino"] if importlib.util.find_spec("openvino") else []))
PUBLISHED = tuple("latent_edit" + ("" if engine == ENGINES[0] else f"_{engine}") for engine in ENGINES)


@pytest.fixture(scope="module")
def repository(trained, tmp_path_factory) -> Path:
    """A run as it is published, and models that are not what they say."""
    from click.testing import CliRunner

    folder = tmp_path_factory.mktemp("certify") / "repository"
    words = ["export", str(trained), "--repository", str(folder), "--max-batch-size", "8", "--threads", "1"]
    words += [word for engine in ENGINES for word in ("--engine", engine)]
    result = CliRunner().invoke(cli, words, prog_name="latentclr")
    assert result.exit_code == 0, result.output
    nudge(copy_model(folder, "nudged"), 1.05)
    blacken(copy_model(folder, "black"), valid=True)
    blacken(copy_model(folder, "refusing"), valid=False)
    rewrite(copy_model(folder, "old").parent, lambda manifest: manifest["files_sha256"].pop(GOLDEN_FILE))
    nudge(copy_model(folder, "loose"), 1.05)
    said = {"gate": "worst=255", "precision": "bf16"}
    rewrite(folder / "loose", lambda manifest: manifest["parity"]["onnxruntime"].update(said))
    return folder


def copy_model(repository: Path, name: str) -> Path:
    """Publish latent_edit under another name; returns its version folder, with a graph of its own."""
    shutil.copytree(repository / "latent_edit", repository / name)
    for config in (repository / name).rglob("config.pbtxt"):
        config.write_text(config.read_text().replace('name: "latent_edit"', f'name: "{name}"', 1))
    return repository / name / "1"


def blacken(version: Path, valid: bool) -> None:
    """Multiply the pictures by zero; say of them that they are good, or that they are not."""
    model = onnx.load(str(version / "model.onnx"))
    names = {"image": "image_before", "valid": "valid_before"}
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(valid), "marked"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int32), "nothing"))
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["image_before"], ["image_number"], to=TensorProto.INT32),
            helper.make_node("Mul", ["image_number", "nothing"], ["image_black"]),
            helper.make_node("Cast", ["image_black"], ["image"], to=TensorProto.UINT8),
            helper.make_node("And", ["valid_before", "marked"], ["valid"]),
        ]
    )
    onnx.save(model, str(version / "model.onnx"))


def rewrite(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a model says of itself."""
    for path in (model / "config.pbtxt", model / "1" / "config.pbtxt"):
        config = read_config(path)
        manifest = json.loads(config.parameters["manifest"].string_value)
        change(manifest)
        config.parameters["manifest"].string_value = json.dumps(manifest)
        path.write_text(text_format.MessageToString(config))


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer(repository, ports=Ports(0, 0, 0)) as running:
        yield running


@pytest.fixture
def certify(server, repository, invoke):
    def call(*words: object, model: str = "latent_edit", url: str | None = None):
        return invoke(
            "certify", "--url", url or server.grpc_url, "--model", model, "--repository", repository,
            "--requests", 5, *words,
        )  # fmt: skip

    return call


@pytest.mark.parametrize(("engine", "name"), [*zip(ENGINES, PUBLISHED, strict=True)])
def test_what_was_published_holds(engine, name, certify, tmp_path):
    result = certify("--json", tmp_path / "certificate.json", model=name)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{name} version 1 at 127.0.0.1:")
    assert lines[1].startswith(f"{engine} fp32: 80 images, worst ")
    assert lines[1].endswith("; holds exact")
    assert "(5 requests after " in lines[2]
    record = json.loads((tmp_path / "certificate.json").read_text())
    assert record["passed"] and record["worst_step"] <= 1 and record["failing_directions"] == []
    assert record["latency"]["requests"] == 5 and 0 < record["latency"]["p50_ms"] <= record["latency"]["p99_ms"]


def test_over_http_and_from_a_file(certify, server, repository, tmp_path):
    file = shutil.copy(repository / "latent_edit" / "1" / GOLDEN_FILE, tmp_path / "elsewhere.npz")
    result = certify("--golden", file, url=server.http_url)
    assert result.exit_code == 0, result.output
    assert "elsewhere.npz" in result.stdout


def test_a_model_whose_weights_were_nudged_is_found_out(certify, tmp_path, refused):
    result = certify("--json", tmp_path / "certificate.json", model="nudged")
    line = refused(result)
    assert line.startswith("Error: nudged misses exact: worst step ")
    assert "instead of at most 1; it fails for directions 0, 1, 2, 3" in line
    assert "MISSES exact" in result.stdout
    assert json.loads((tmp_path / "certificate.json").read_text())["failing_directions"] == [0, 1, 2, 3]
    wide = certify("--quality", "worst=255", model="nudged")
    assert wide.exit_code == 0, wide.output


def test_the_gate_is_the_one_that_the_model_was_published_with(certify, refused):
    held = certify(model="loose")
    assert held.exit_code == 0, held.output
    assert "\nonnxruntime bf16: 80 images, " in held.stdout
    assert held.stdout.splitlines()[1].endswith("; holds worst=255")
    assert "loose misses exact" in refused(certify("--quality", "exact", model="loose"))


def test_black_pictures_are_found_out(certify, refused):
    assert refused(certify(model="black")).startswith("Error: black misses exact: worst step ")


def test_refused_requests_are_found_out(certify, refused):
    line = refused(certify(model="refusing"))
    assert line.startswith("Error: the server refused golden request 0, which eager PyTorch drew: row 0: ")


def test_a_model_from_before_golden_requests(certify, refused):
    assert refused(certify(model="old")) == "Error: old was published without golden requests: export it again"


def test_no_golden_requests_here(certify, tmp_path, refused):
    line = refused(certify("--repository", tmp_path))
    assert "golden.npz: give --repository PATH, or --golden FILE" in line
    assert "cannot be read: No such file" in refused(certify("--golden", tmp_path / "none.npz"))


def test_a_golden_file_that_was_changed(certify, repository, tmp_path, refused):
    golden = read_golden(repository / "latent_edit" / "1" / GOLDEN_FILE)
    images = golden.images.copy()
    images[0, 0, 0, 0] ^= 1
    path = tmp_path / "changed.npz"
    write_golden(path, type(golden)(**{**vars(golden), "images": images}))
    assert "it is another version's, or was changed" in refused(certify("--golden", path))


@pytest.mark.parametrize(("key", "word"), [("checkpoint_sha256", "checkpoint"), ("weights_sha256", "weights")])
def test_a_golden_file_of_another_model(key, word, certify, repository, tmp_path, refused):
    golden = read_golden(repository / "latent_edit" / "1" / GOLDEN_FILE)
    path = tmp_path / "other.npz"
    write_golden(path, type(golden)(**{**vars(golden), "about": {**golden.about, key: "f" * 64}}))
    line = refused(certify("--golden", path))
    assert f"is of another model than latent_edit: its {word} is ffffffffffff..., the server's " in line


def test_a_file_that_is_no_golden_file(certify, tmp_path, refused):
    path = tmp_path / "junk.npz"
    path.write_bytes(b"junk")
    assert "junk.npz is not a plain .npz archive" in refused(certify("--golden", path))
    assert "/dev/zero is no file of at most 128 MiB" in refused(certify("--golden", "/dev/zero"))
    np.savez(path, image=np.zeros(3))
    assert "junk.npz is no golden file: it lacks 'about'" in refused(certify("--golden", path))


def test_no_server_and_bad_options(certify, refused):
    assert "127.0.0.1:1" in refused(certify("--timeout", 1, url="127.0.0.1:1"))
    assert "quality" in refused(certify("--quality", "perfect"))
    assert "no model" in refused(certify(model="nobody"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert address in refused(certify("--timeout", 0.5, url=address))


def test_pictures_of_another_shape(server, repository):
    golden = read_golden(repository / "latent_edit" / "1" / GOLDEN_FILE)
    small = type(golden)(**{**vars(golden), "images": golden.images[:, ::2, ::2]})
    with (
        EditClient(server.grpc_url) as client,
        pytest.raises(CertificateError, match=r"drew pictures of shape \[1, 16"),
    ):
        prove(client, small, 0)


def test_no_two_timed_requests_are_alike(server, repository, monkeypatch):
    """A response cache would answer them, and what is timed would be the cache."""
    golden = read_golden(repository / "latent_edit" / "1" / GOLDEN_FILE)
    sent = []
    asked = EditClient.edit_rows
    monkeypatch.setattr(EditClient, "edit_rows", lambda *given: (sent.append(given[1:]), asked(*given))[1])
    with EditClient(server.grpc_url) as client:
        prove(client, golden, 60)
    timed = {b"".join(array.tobytes() for array in arrays) for arrays in sent[-60:]}
    before = {b"".join(array.tobytes() for array in arrays) for arrays in sent[:-60]}
    assert len(timed) == 60 and not timed & before


def test_every_row_is_sent_alone_and_in_the_largest_batches(repository):
    golden = read_golden(repository / "latent_edit" / "1" / GOLDEN_FILE)
    assert sorted(row for rows in batches(golden, 1) for row in rows) == list(range(len(golden)))
    groups = list(batches(golden, 8))
    assert sorted(row for rows in groups for row in rows) == list(range(len(golden)))
    assert max(map(len, groups)) == 8
    assert all(len(set(golden.edits[rows])) == 1 for rows in groups)


def test_the_file_is_shared_and_hashed(repository):
    files = [repository / name / "1" / GOLDEN_FILE for name in PUBLISHED]
    assert files[0].samefile(files[1])
    for name, file in zip(PUBLISHED, files, strict=True):
        manifest = json.loads(read_config(repository / name / "config.pbtxt").parameters["manifest"].string_value)
        assert manifest["files_sha256"][GOLDEN_FILE] == sha256_of(file)


def test_the_doctor_names_it(server, repository):
    found = {
        finding.subject: finding for finding in check_models(repository, find_running("127.0.0.1", server.ports.http))
    }
    said = f"latentclr certify --url {server.http_url} --model latent_edit --repository {repository}"
    assert found["model latent_edit"].text.endswith(said)


def test_it_needs_no_torch(server, repository):
    code = (
        "import sys; from latentclr.cli import cli\n"
        f"cli(['certify', '--url', {server.grpc_url!r}, '--repository', {str(repository)!r}, '--requests', '1'], "
        "standalone_mode=False)\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
