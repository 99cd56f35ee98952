"""`latentclr doctor`: what is wrong is said in words, and is the only thing that changes the exit code."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny_editor import MANIFEST, add_model, config, save_onnx, save_torchscript, with_preview

from serving import TritonServer
from serving.doctor import command as doctor
from serving.doctor.findings import BAD, OK, WARN, Finding
from serving.doctor.repository_checks import check_models
from serving.doctor.running import Running, Served, find_running
from serving.errors import ServerStartError
from serving.triton.ports import Ports


def words(findings: list[Finding], status: str) -> str:
    return "\n".join(f"{finding.subject}: {finding.text}" for finding in findings if finding.status == status)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Both forms of the tiny editor, with manifests that are true."""
    repository = tmp_path / "models"
    for name, backend, file in (("edit", "onnxruntime", "model.onnx"), ("twin", "pytorch", "model.pt")):
        path = add_model(repository, name, "") / file
        save_onnx(path) if backend == "onnxruntime" else save_torchscript(path)
        hashes = {file: sha256(path), "model.other": "0" * 64} if backend == "pytorch" else {file: sha256(path)}
        text = config(name, backend, manifest={**MANIFEST, "files_sha256": hashes})
        (repository / name / "config.pbtxt").write_text(text)
    return repository


@pytest.mark.triton
def test_this_machine_is_well(models: Path) -> None:
    result = CliRunner().invoke(doctor.doctor, ["--repository", str(models)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[-1] == "nothing is broken"
    for line in lines[:-1]:
        assert line.split(maxsplit=1)[0] in (OK, WARN), line
    for expected in (f"Python: {sys.version.split()[0]}", "onnxruntime ", "CPUExecutionProvider: works",
                     "embedded Triton: can be started", "docker: ", "GPU: ", "port 8000: ",
                     "model edit: version 1, files match their manifest",
                     "model twin: version 1, files match their manifest"):  # fmt: skip
        assert expected in result.output


def test_exit_code_1_when_something_is_broken(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("check_packages", "check_onnxruntime", "check_openvino", "check_embedded", "check_docker"):
        monkeypatch.setattr(doctor, check, lambda: iter(()))
    (models / "edit" / "1" / "model.onnx").unlink()
    result: Result = CliRunner().invoke(doctor.doctor, ["--repository", str(models)])
    assert result.exit_code == 1
    assert "BAD   model edit: " in result.output
    assert result.output.splitlines()[-1] == "1 thing is broken"


def packages(monkeypatch: pytest.MonkeyPatch, **versions: str) -> list[Finding]:
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(doctor, "version_of", named.get)
    return list(doctor.check_packages())


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"torch": "2.6", "numpy": "1.26.4", "nvidia_pytriton": "0.7.0", "onnxruntime": "1.20"}
    found = packages(monkeypatch, **good)
    assert {finding.status for finding in found} == {OK}
    assert "torch 2.6, onnxruntime 1.20, nvidia-pytriton 0.7.0, numpy 1.26.4" in words(found, OK)
    found = packages(monkeypatch, **good, perf_analyzer="0.1.0", tritonserver="0.0.1.dev0")
    assert words(found, WARN).count("empty placeholder: pip uninstall") == 2
    assert not words(packages(monkeypatch, **good, perf_analyzer="2.59.0"), WARN)
    found = packages(monkeypatch, **good, onnxruntime_gpu="1.20")
    assert "overwrite each other's files: uninstall both" in words(found, BAD)
    found = packages(monkeypatch, **{**good, "numpy": "2.1.0"})
    assert words(found, BAD) == "numpy: 2.1.0 is too new for nvidia-pytriton: pip install 'numpy<2'"
    assert not words(packages(monkeypatch, torch="2.6", numpy="2.1.0"), BAD)
    assert "torch: is not installed" in words(packages(monkeypatch, numpy="2.1.0"), WARN)


def test_the_graph_is_what_onnx_makes() -> None:
    import onnx
    from onnx import helper

    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    assert onnx.load_from_string(doctor._IDENTITY) == made
    onnx.checker.check_model(made)


def test_engines_are_tried_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that only serves has ONNX Runtime and no onnx."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert Finding(OK, "CPUExecutionProvider", "works") in list(doctor.check_onnxruntime())


class Session:
    """An ONNX Runtime with a broken CUDA and a provider that it silently leaves out."""

    def __init__(self, graph: bytes, options: Any, providers: list[str]) -> None:
        if providers == ["CUDAExecutionProvider"]:
            raise RuntimeError("libcudnn.so.9: cannot open shared object file\nmore")
        self._providers = ["CPUExecutionProvider"]

    def run(self, *_: Any) -> None:
        pass

    def get_providers(self) -> list[str]:
        return self._providers


def test_providers_that_do_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    names = [f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU", "Azure")]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    found = list(doctor.check_onnxruntime())
    assert [finding.status for finding in found] == [WARN, WARN, OK]
    assert "TensorrtExecutionProvider: does not work: ONNX Runtime falls back" in words(found, WARN)
    assert "CUDAExecutionProvider: does not work: libcudnn.so.9: cannot open shared object file" in words(found, WARN)


@pytest.mark.parametrize(
    ("error", "status"), [(ModuleNotFoundError("no"), WARN), (ImportError("undefined symbol"), BAD)]
)
def test_no_onnxruntime(monkeypatch: pytest.MonkeyPatch, error: Exception, status: str) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == "onnxruntime":
                raise error

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    (finding,) = doctor.check_onnxruntime()
    assert finding.status == status
    assert ("pip install" in finding.text) == (status == WARN)


def test_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = doctor.check_openvino()
    if importlib.util.find_spec("openvino") is not None:
        assert finding.status == OK
        assert re.fullmatch(r"works; this CPU has (no )?bfloat16.*", finding.text)
    monkeypatch.setitem(sys.modules, "openvino", None)
    (finding,) = doctor.check_openvino()
    assert (finding.status, finding.text[:30]) == (OK, "is not installed; models expor")


@pytest.mark.parametrize(("installed", "status"), [("0.7.0", BAD), (None, WARN)])
def test_no_embedded_triton(monkeypatch: pytest.MonkeyPatch, installed: str | None, status: str) -> None:
    import serving.triton.runtime

    def missing(otherwise: Path) -> None:
        raise ServerStartError("Triton needs libpython3.11.so.1.0, which this Python lacks")

    monkeypatch.setattr(serving.triton.runtime, "shared_runtime", missing)
    monkeypatch.setattr(doctor, "version_of", lambda _: installed)
    (finding,) = doctor.check_embedded()
    assert (finding.status, "libpython" in finding.text) == (status, True)


def test_no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    docker, gpu = doctor.check_docker()
    assert (docker.status, "is not installed" in docker.text) == (WARN, True)
    assert gpu.text.startswith("none")


def test_ports(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import serving.triton.ports

    real = serving.triton.ports.Ports

    def check(http: int, grpc: int, metrics: int) -> list[Finding]:
        def usual(*given: int, **named: int) -> Any:
            return real(*given, **named) if given or named else real(http, grpc, metrics)

        monkeypatch.setattr(serving.triton.ports, "Ports", usual)
        return list(doctor.check_ports("127.0.0.1"))

    http, grpc, metrics = server.ports.http, server.ports.grpc, server.ports.metrics
    found = check(http, grpc, metrics)
    assert [finding.status for finding in found] == [OK] * 3
    assert found[0].text.startswith(
        "in use by a running Triton that serves anonymous (version 1), conditional (version"
    )
    assert found[1].text.startswith("in use by a running Triton that serves anonymous, conditional")
    assert found[2].text == "in use by the metrics of a running Triton"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = taken.getsockname()[1]
        found = check(grpc, other, 0)
    assert [finding.status for finding in found] == [WARN, WARN, OK]
    assert f"the http port {grpc} on 127.0.0.1 cannot be used" in found[0].text
    assert f"the grpc port {other} on 127.0.0.1 cannot be used" in found[1].text


@pytest.mark.triton
def test_what_the_repository_holds_is_not_what_the_server_serves(models: Path) -> None:
    shutil.rmtree(models / "twin")
    config_file = models / "edit" / "config.pbtxt"
    with TritonServer(models, ports=Ports(0, 0, 0)) as server:
        running = find_running("127.0.0.1", server.ports.http)
        assert running is not None
        assert running.models["edit"].versions == (1,)
        assert [finding.status for finding in check_models(models, running)] == [OK]
        before = config_file.read_text()
        shutil.copytree(models / "edit" / "1", models / "edit" / "2")
        config_file.write_text(before + "version_policy { specific { versions: [ 2 ] } }")
        found = list(check_models(models, running))
        assert words(found, OK) == "model edit: version 2, files match their manifest"
        said = f"the repository holds version 2, the Triton at {server.http_url} serves version 1: restart it, or serve"
        assert said in words(found, WARN)
        shutil.rmtree(models / "edit" / "2")
        with (models / "edit" / "1" / "model.onnx").open("ab") as file:
            file.write(b"!")
        digest = sha256(models / "edit" / "1" / "model.onnx")
        config_file.write_text(config("edit", manifest={**MANIFEST, "files_sha256": {"model.onnx": digest}}))
        assert "serves other files as version 1" in words(list(check_models(models, running)), WARN)
        assert find_running("127.0.0.1", server.ports.grpc) is None
    assert find_running("127.0.0.1", server.ports.http) is None


def test_names_of_others_are_nothing_that_a_terminal_obeys() -> None:
    """Whoever listens on Triton's port may be somebody else."""
    running = Running("http://127.0.0.1:8000", {"a\x1b[2J\n": Served((1,))})
    assert str(running) == "a running Triton that serves a[2J (version 1)"


def test_previews(tmp_path: Path) -> None:
    def rewritten(model: str, **changes: Any) -> None:
        (tmp_path / model / "config.pbtxt").write_text(config(model, manifest={**manifests[model], **changes}))

    manifests = with_preview(tmp_path, "edit")
    assert words(list(check_models(tmp_path)), BAD) == ""
    rewritten("edit", preview={"size": [4, 4], "files_sha256": {"model.onnx": "0" * 64}})
    said = words(list(check_models(tmp_path)), BAD)
    command = f"latentclr rollback --repository {tmp_path} --name edit --to VERSION"
    assert said == f"model edit: its preview edit_preview serves another version: {command}"
    rewritten("edit", preview=None)
    findings = list(check_models(tmp_path))
    assert words(findings, BAD) == ""
    assert "model edit_preview: is of an older export than edit, which has no preview now" in words(findings, WARN)
    rewritten("edit")
    shutil.rmtree(tmp_path / "edit_preview")
    said = words(list(check_models(tmp_path)), BAD)
    assert said == "model edit: its preview edit_preview is not there: export again"


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [finding.status for finding in check_models(None)] == [WARN]
    assert [finding.status for finding in check_models(tmp_path / "missing")] == [BAD]
    assert "is empty" in words(list(check_models(tmp_path)), WARN)


def test_files_that_are_not_those_of_the_manifest(models: Path) -> None:
    assert {finding.status for finding in check_models(models)} == {OK}
    path = models / "edit" / "1" / "model.onnx"
    before, _ = sha256(path), path.write_bytes(b"something else")
    found = words(list(check_models(models)), BAD)
    assert f"{path} is not the file that was published" in found
    assert f"its SHA-256 begins {sha256(path)[:12]}, the manifest says {before[:12]}" in found
    path.unlink()
    assert words(list(check_models(models)), BAD) == f"model edit: {path} is missing"


def rewrite(models: Path, old: str, new: str) -> list[Finding]:
    path = models / "edit" / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    found = list(check_models(models))
    path.write_text(text)
    return found


def test_configurations_that_do_not_match(models: Path) -> None:
    assert "cannot read" in words(rewrite(models, "max_batch_size", "max_batch"), BAD)
    assert "its configuration is of 'other'" in words(rewrite(models, 'name: "edit"', 'name: "other"'), BAD)
    assert "has backend 'tensorflow'" in words(rewrite(models, '"onnxruntime"', '"tensorflow"'), WARN)
    policy = "version_policy { specific { versions: [ 2 ] } }\nmax_batch_size"
    assert "names version 2, there is 1" in words(rewrite(models, "max_batch_size", policy), BAD)
    assert "its manifest does not know model.onnx" in words(rewrite(models, "files_sha256", "files"), WARN)
    assert "its manifest cannot be read" in words(rewrite(models, "sampler", "simpler"), BAD)
    assert "does not describe itself" in words(rewrite(models, '"manifest"', '"other"'), WARN)


def with_files(models: Path, files: Any) -> list[Finding]:
    text = config("edit", manifest={**MANIFEST, "files_sha256": files})
    (models / "edit" / "config.pbtxt").write_text(text)
    return [finding for finding in check_models(models) if finding.subject == "model edit"]


def test_files_that_nobody_compared_are_not_called_right(models: Path) -> None:
    assert "edit: version 1, files match" in words(list(check_models(models)), OK)
    for old, new in (('"manifest"', '"other"'), ('"onnxruntime"', '"python"'), ("model.onnx", "model.other")):
        assert "model edit" not in words(rewrite(models, old, new), OK)
    assert [finding.status for finding in with_files(models, None)] == [WARN]


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd", "..", "sub/file"])
def test_no_file_outside_a_version_is_read(models: Path, tmp_path: Path, name: str) -> None:
    """A manifest may be anybody's, and even the beginning of a hash tells what a file holds."""
    (tmp_path / "secret").write_text("12345")
    digest = sha256(models / "edit" / "1" / "model.onnx")
    found = with_files(models, {"model.onnx": digest, name: "0" * 64})
    assert words(found, BAD) == f"model edit: its manifest names {name!r}, which is no file of a version's folder"
    assert not words(found, OK)


def test_what_cannot_be_read_is_one_line_and_the_next_model_is_checked(models: Path) -> None:
    """As files are that the user may not read; root may read all, so here it is a name that no file can have."""
    digest = sha256(models / "edit" / "1" / "model.onnx")
    found = with_files(models, {"model.onnx": digest, "x" * 300: "0" * 64})
    (bad,) = (finding.text for finding in found if finding.status == BAD)
    assert bad.startswith("cannot read ") and bad.endswith("xxx: File name too long")
    assert "model twin: version 1" in words(list(check_models(models)), OK)


def test_a_repository_that_cannot_be_listed_is_one_line(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    (found,) = check_models(models)
    assert (found.status, found.text) == (BAD, f"cannot read {models}: Permission denied")


def test_a_missing_file_of_weights(models: Path) -> None:
    digest = sha256(models / "edit" / "1" / "model.onnx")
    hashes = {"model.onnx": digest, "generator.bin": "0" * 64, "model.pt": "1" * 64}
    text = config("edit", manifest={**MANIFEST, "files_sha256": hashes})
    (models / "edit" / "config.pbtxt").write_text(text)
    weights = models / "edit" / "1" / "generator.bin"
    assert words(list(check_models(models)), BAD) == f"model edit: {weights} is missing"


def test_missing_golden_requests_break_nothing(models: Path) -> None:
    digest = sha256(models / "edit" / "1" / "model.onnx")
    text = config("edit", manifest={**MANIFEST, "files_sha256": {"model.onnx": digest, "golden.npz": "0" * 64}})
    (models / "edit" / "config.pbtxt").write_text(text)
    missing = models / "edit" / "1" / "golden.npz"
    found = list(check_models(models))
    assert words(found, WARN) == f"model edit: {missing} is missing: `latentclr certify` then needs --golden FILE"
    assert not [finding for finding in found if finding.status == BAD]
    missing.write_bytes(b"another file")
    assert "is not the file that was published" in words(list(check_models(models)), BAD)


def test_leftovers_and_no_version(models: Path) -> None:
    (models / ".tmp-abc").mkdir()
    (models / "twin" / "1").rename(models / "twin" / "old")
    found = list(check_models(models))
    assert "was left by an export that died" in words(found, WARN)
    assert words(found, BAD) == "model twin: has no version folder: export it"
