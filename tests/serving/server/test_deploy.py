"""`serving/deploy` and `serve --engine docker`, as far as they can be checked without Docker and without a cluster."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from packaging.specifiers import SpecifierSet
from tiny_editor import add_model, config, save_onnx

from serving import TritonServer
from serving.cli import serve
from serving.contract.layout import TENSORRT_CACHE
from serving.errors import ServerStartError
from serving.interrupt import interruptible
from serving.triton.control import restriction_arguments
from serving.triton.docker import IMAGE, docker_command, run_docker
from serving.triton.needs import Needs, repository_needs
from serving.triton.ports import Ports
from serving.triton.runtime import build_runtime

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "serving" / "deploy"
KUBERNETES = "1.34"  # whose API's schemas are used


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_kind(kind: str, name: str = "kubernetes.yaml") -> dict[str, Any]:
    (found,) = [document for document in documents(name) if document["kind"] == kind]
    return found


def walk(node: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values, however deep."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def container() -> dict[str, Any]:
    (found,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def triton_arguments(file: str) -> list[str]:
    """What `tritonserver` is told in a file."""
    if file == "kubernetes.yaml":
        words = container()["args"]
    elif file == "kserve.yaml":
        words = ["tritonserver", *documents(file)[1]["spec"]["predictor"]["model"]["args"]]
    elif file == "compose.yaml":
        command = yaml.safe_load((DEPLOY / file).read_text())["services"]["triton"]["command"]
        words = run_by_shell([word.replace("$$", "$") for word in command])
    elif file == "Dockerfile":
        text = (DEPLOY / file).read_text().replace("\\\n", " ")
        words = run_by_shell(json.loads(re.findall(r'^CMD (\["sh", "-c".*\])$', text, re.M)[0]))
    else:
        words = shlex.split(file)
        words = words[words.index("tritonserver") :]
    assert words[0] == "tritonserver"
    return [word.replace("$(POD_UID)", "11111111-2222") for word in words[1:]]


def run_by_shell(command: list[str]) -> list[str]:
    """What a shell makes of a command that would start Triton."""
    assert command[:2] == ["sh", "-c"]
    script = command[2].replace("exec ", "printf '%s\\n' ")
    shell = ["sh", "-c", script, *command[3:]]
    return subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines()


def published_ports(command: list[str]) -> list[int]:
    """The ports inside a container that `docker run` publishes: HTTP, gRPC, metrics."""
    return [int(command[i + 1].rpartition(":")[2]) for i, word in enumerate(command) if word == "-p"]


def secret_of(command: list[str]) -> str:
    """What opens the interfaces that are closed to requests."""
    (found,) = {word.rpartition("=")[2] for word in command if "-restricted-" in word}
    assert len(found) >= 32
    return found


def test_kubernetes_schemas() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    kinds = []
    for document in documents("kubernetes.yaml"):
        validate.validate(document, KUBERNETES, strict=True)  # strict: no field that the API does not know
        kinds.append((document["apiVersion"], document["kind"]))
    assert ("autoscaling/v2", "HorizontalPodAutoscaler") in kinds
    assert ("apps/v1", "Deployment") in kinds
    assert ("v1", "Service") in kinds
    broken = of_kind("Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(validate.ValidationError):  # the check can fail
        validate.validate(broken, KUBERNETES, strict=True)


def test_kubernetes_names_that_refer_to_each_other() -> None:
    deployment, service, scaler = (of_kind(kind) for kind in ("Deployment", "Service", "HorizontalPodAutoscaler"))
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"],
                     of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]):  # fmt: skip
        assert selector.items() <= labels
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == (deployment["apiVersion"], deployment["kind"])
    assert target["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # applying the file again would undo the autoscaler's choice
    triton = container()
    ports = {port["name"]: port["containerPort"] for port in triton["ports"]}
    assert list(ports.values()) == published_ports(docker_command(DEPLOY))  # where Triton listens in a container
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert triton[probe]["httpGet"]["port"] in ports
        assert triton[probe]["httpGet"]["path"] in ("/v2/health/ready", "/v2/health/live")
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in triton["volumeMounts"]} == set(volumes)
    claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
    assert claim == of_kind("PersistentVolumeClaim")["metadata"]["name"]


def test_kubernetes_security_and_resources() -> None:
    pod, triton = of_kind("Deployment")["spec"]["template"]["spec"], container()
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert triton["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: mount for mount in triton["volumeMounts"]}
    (models,) = [word.partition("=")[2] for word in triton["args"] if word.startswith("--model-repository=")]
    assert mounts.pop(models)["readOnly"]
    assert {TENSORRT_CACHE, "/tmp", "/dev/shm"} <= set(mounts)  # nothing else of the file system can be written
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for path, mount in mounts.items():
        assert not mount.get("readOnly"), path
        assert volumes[mount["name"]]["emptyDir"]["sizeLimit"], path  # or one pod fills its node's disk
    for kind in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(triton["resources"][kind])
    drain = int(triton["lifecycle"]["preStop"]["exec"]["command"][1])
    exit_s = int(dict(a.removeprefix("--").split("=", 1) for a in triton["args"] if "=" in a)["exit-timeout-secs"])
    assert drain + exit_s < pod["terminationGracePeriodSeconds"]  # or the kubelet kills it with requests in flight


def test_kserve() -> None:
    """Against the fields of the InferenceService of KServe 0.15, and what it shares with a container's schema."""
    validate = pytest.importorskip("kubernetes_validate")
    account, service = documents("kserve.yaml")
    validate.validate(account, KUBERNETES, strict=True)
    assert set(service) == {"apiVersion", "kind", "metadata", "spec"}
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", service["metadata"]["name"])
    assert set(service["spec"]) == {"predictor"}
    predictor = dict(service["spec"]["predictor"])
    model = dict(predictor.pop("model"))
    extensions = {"serviceAccountName": str, "minReplicas": int, "maxReplicas": int, "scaleMetric": str,
                  "scaleTarget": int, "timeout": int}  # fmt: skip
    for key, value in predictor.items():
        assert isinstance(value, extensions[key]), key
    assert predictor["serviceAccountName"] == account["metadata"]["name"]
    assert 0 <= predictor["minReplicas"] <= predictor["maxReplicas"]
    assert predictor["scaleMetric"] in ("cpu", "memory", "concurrency", "rps")
    own = {key: model.pop(key) for key in ("runtime", "modelFormat", "runtimeVersion", "protocolVersion", "storageUri")}
    assert own["modelFormat"] == {"name": "triton", "version": "2"}  # as the runtime kserve-tritonserver declares it
    assert own["protocolVersion"] in ("v1", "v2", "grpc-v1", "grpc-v2")
    assert re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/\S+[^/]", own["storageUri"])
    assert own["runtimeVersion"] == IMAGE.rpartition(":")[2]
    # All else of a model is a container's, so the API's schema of a pod knows it.
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "a", **model}]},
    }
    validate.validate(pod, KUBERNETES, strict=True)


def compose_schema() -> Any:
    package = pytest.importorskip("check_jsonschema")
    file = importlib.resources.files(package) / "builtin_schemas" / "vendor" / "compose-spec.json"
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_schema(name: str) -> None:
    import jsonschema

    compose = yaml.safe_load((DEPLOY / name).read_text())
    schema = compose_schema()
    jsonschema.validate(compose, schema)
    compose["services"]["triton"]["comand"] = "a typing error"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, schema)


def test_compose_is_local_and_complete() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(compose["services"]) == {"triton", "studio", "prometheus"}
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["cap_drop"] == ["ALL"]
        for volume in service["volumes"]:
            if volume["type"] == "volume":
                assert volume["source"] in compose["volumes"]
            else:
                assert (DEPLOY / volume["source"]).exists()
                assert volume["read_only"]
        if "image" in service:
            assert re.search(r":[\w.-]+$", service["image"])
            assert not service["image"].endswith(":latest")
    build = compose["services"]["studio"]["build"]
    context = (DEPLOY / build["context"]).resolve()
    assert context == ROOT
    assert f"AS {build['target']}\n" in (context / build["dockerfile"]).read_text()
    assert set(yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())["services"]) <= set(compose["services"])


def test_prometheus_reads_the_compose_file_s_triton() -> None:
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert set(settings) <= {"global", "scrape_configs", "rule_files", "alerting"}
    for value in settings["global"].values():
        assert re.fullmatch(r"\d+(s|m)", value)
    (job,) = settings["scrape_configs"]
    assert set(job) <= {"job_name", "metrics_path", "scrape_interval", "scheme", "static_configs"}
    ((target,),) = [entry["targets"] for entry in job["static_configs"]]
    host, _, port = target.partition(":")
    assert host in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert int(port) == published_ports(docker_command(DEPLOY))[2]


def test_dockerfile() -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    known = {"FROM", "RUN", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "CMD", "ENTRYPOINT", "WORKDIR", "ENV"}
    assert {step for step, _ in steps} <= known
    stages = [rest.split() for step, rest in steps if step == "FROM"]
    triton, studio = stages
    assert triton[0] == IMAGE
    version = re.fullmatch(r"python:(3\.\d+)-slim", studio[0])
    allowed = re.search(r'^requires-python = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version and allowed and SpecifierSet(allowed[1]).contains(version[1])
    for name in re.findall(r"--target (\w+)", text):  # what its head tells to type
        assert name in {stage[2] for stage in stages}
    for part in re.split(r"^FROM ", text, flags=re.M)[1:]:
        last = re.findall(r"^USER (\d+):(\d+)$", part, re.M)[-1]
        assert "0" not in last  # neither runs as root
        assert part.index("\nUSER ") < part.index("\nCMD ")
    listening = [int(port) for port in re.findall(r"^EXPOSE ([\d ]+)$", text, re.M)[0].split()]
    assert listening == published_ports(docker_command(DEPLOY))
    for step, rest in steps:
        if step == "COPY":
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources), rest
        if step in ("CMD", "ENTRYPOINT"):
            assert json.loads(rest)


def test_all_name_the_same_container() -> None:
    found = set()
    for file in [*DEPLOY.iterdir(), ROOT / "model_repository" / "README.md"]:
        found |= set(re.findall(r"nvcr\.io/nvidia/tritonserver:\S+", file.read_text()))
    assert found == {IMAGE}


@pytest.mark.triton
def test_every_option_is_one_that_tritonserver_knows(tmp_path: Path) -> None:
    runtime = build_runtime(tmp_path)
    done = subprocess.run(
        [str(runtime.program), "--help"], env=dict(runtime.environment), capture_output=True, text=True, check=False
    )
    known = set(re.findall(r"--([a-z][a-z0-9-]+)", done.stdout + done.stderr))
    command = docker_command(tmp_path, models=("a",)), docker_command(tmp_path, poll_s=3, grpc_only=True)
    for source in ("Dockerfile", "compose.yaml", "kubernetes.yaml", "kserve.yaml", *map(shlex.join, command)):
        arguments = triton_arguments(source)
        if source != "kserve.yaml":  # whose runtime says these
            assert "--model-repository=/models" in arguments
            assert "--disable-auto-complete-config" in arguments
        for argument in arguments:
            assert argument.removeprefix("--").partition("=")[0] in known, (source, argument)


def test_the_autoscaler_s_metric_is_one_of_triton_s(server: TritonServer) -> None:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        metrics = set(re.findall(r"^(nv_\w+)[{ ]", answer.read().decode(), re.M))
    (named,) = [metric["pods"]["metric"]["name"] for metric in of_kind("HorizontalPodAutoscaler")["spec"]["metrics"]
                if metric["type"] == "Pods"]  # fmt: skip
    assert named in metrics
    # A counter of a thing that has not happened yet is not there.
    for name in set(re.findall(r"nv_\w+", (DEPLOY / "README.md").read_text())) - {"nv_inference_request_failure"}:
        assert name in metrics, name


@pytest.fixture
def models(tmp_path: Path) -> Path:
    save_onnx(add_model(tmp_path / "models", "latent_edit", config("latent_edit")) / "model.onnx")
    return tmp_path / "models"


def change(models: Path, old: str, new: str) -> None:
    path = models / "latent_edit" / "config.pbtxt"
    path.write_text(path.read_text().replace(old, new))


def test_docker_command(models: Path) -> None:
    command = docker_command(models, key="secret")
    assert command[:3] == ["docker", "run", "--rm"]
    assert "--gpus" not in command
    assert [command[i + 1] for i, word in enumerate(command) if word == "-p"] == [
        "127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002",
    ]  # fmt: skip
    assert command[command.index("--mount") + 1] == f"type=bind,source={models.resolve()},target=/models,readonly"
    assert command[command.index("--shm-size") + 1] == "1g"
    assert command[command.index(IMAGE) + 1 :] == [
        "tritonserver", "--model-repository=/models", "--disable-auto-complete-config", "--strict-readiness=true",
        *restriction_arguments("secret"), "--model-control-mode=none",
    ]  # fmt: skip
    assert [secret_of(docker_command(models)) for _ in range(2)] != [secret_of(docker_command(models))] * 2
    change(models, "KIND_CPU", "KIND_GPU")
    with (models / "latent_edit" / "config.pbtxt").open("a") as file:
        file.write("response_cache { enable: true }\n")
        file.write('optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }\n')
    assert repository_needs(models) == Needs(gpu=True, cache=True, tensorrt=True)
    command = docker_command(models, "::1", Ports(1, 2, 3), poll_s=7, image="other:1")
    assert command[command.index("--gpus") + 1] == "all"
    assert "[::1]:1:8000" in command
    assert "type=volume,source=latentclr-tensorrt,target=/tensorrt-cache" in command
    assert "--cache-config=local,size=268435456" in command
    assert command[-2:] == ["--model-control-mode=poll", "--repository-poll-secs=7"]
    assert command[command.index("other:1") + 1] == "tritonserver"
    command = docker_command(models, models=["a", "b"], poll_s=7)
    mounts = [command[i + 1] for i, word in enumerate(command) if word == "--mount"]
    assert mounts[:2] == [f"type=bind,source={models.resolve()}/{name},target=/models/{name},readonly" for name in "ab"]


def test_what_cannot_be_read_is_left_to_triton(models: Path) -> None:
    (models / "latent_edit" / "config.pbtxt").write_text("nonsense {")
    assert repository_needs(models) == Needs()


def invoke(models: Path, *words: str) -> Result:
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    return CliRunner().invoke(serve, ["--repository", str(models), *ports, *words])


def test_print_command_of_docker(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # without docker: that is for looking at, or for another machine
    result = invoke(models, "--engine", "docker", "--print-command", "--poll", "4")
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    assert shlex.split(line)[-1] == "--repository-poll-secs=4"
    assert not re.search(r":0:\d", line)  # free ports were found


def test_docker_is_missing(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = invoke(models, "--engine", "docker")
    assert isinstance(result.exception, ServerStartError)
    assert str(result.exception).startswith("docker is not installed; install it, use `--engine embedded`, or run")
    assert "--print-command" in str(result.exception)


def test_docker_with_grpc_only_opens_neither_http_nor_metrics(models: Path) -> None:
    """Also on another address than this machine's own, and with their usual ports in use."""
    command = shlex.split(invoke(models, "--engine", "docker", "--print-command", "--grpc-only").output)
    assert published_ports(command) == [8001]
    assert {"--allow-http=false", "--allow-metrics=false"} <= set(command[command.index("tritonserver") :])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "docker", "--shared-memory"], "--engine docker has no --shared-memory"),
        (["--engine", "docker", "--log-file", "triton.log"], "--engine docker has no --log-file"),
        (["--engine", "docker", "--timeout", "300"], "--engine docker has no --timeout"),
        (["--image", "mine:1"], "only --engine docker has --image"),
    ],
)
def test_an_option_of_the_other_engine_is_refused(models: Path, words: list[str], message: str) -> None:
    """What is silently left out, somebody relies on."""
    result = invoke(models, "--print-command", *words)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == f"Error: {message}"


def docker_in(folder: Path, script: str) -> Path:
    """A program in docker's place."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def lasting_docker(folder: Path, ready: str) -> Path:
    """One that says so when it is ready, and runs until SIGTERM, or for 30 s by itself."""
    ends = f"trap 'echo > {folder}/ended; exit 143' TERM"
    return docker_in(folder, f"{ends}\n{ready}\nfor _ in $(seq 600); do sleep 0.05; done")


def test_the_key_is_in_no_log(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error goes into journald, or into a log of CI that others read."""
    docker_in(tmp_path, f'for word; do echo "$word"; done > {tmp_path}/words')
    monkeypatch.setenv("PATH", str(tmp_path))
    result = invoke(models, "--engine", "docker")
    assert result.exit_code == 0, result.output
    key = secret_of((tmp_path / "words").read_text().splitlines())
    assert key not in result.output
    assert "latentclr-admin=<key> " in result.output
    assert secret_of(shlex.split(invoke(models, "--engine", "docker", "--print-command").output)) != key


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_us_alone_ends_the_container(models: Path, tmp_path: Path, number: signal.Signals) -> None:
    """As systemd and `kill` send it; a terminal's Ctrl-C reaches docker by itself."""
    lasting_docker(tmp_path, "echo ready")
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "latentclr", "serve", "--engine", "docker", "--repository", str(models), *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "stopping\n")
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_docker_starts_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Docker may run before we know of it; nobody else would end it then."""
    program = lasting_docker(tmp_path, f"echo > {tmp_path}/ready")
    popen = subprocess.Popen

    def interrupted(command: list[str]) -> subprocess.Popen[bytes]:
        process = popen(command)
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        signal.raise_signal(number)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with interruptible(), pytest.raises(KeyboardInterrupt):
        run_docker([str(program), "run"])
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize(("code", "message"), [(125, "docker could not start the container"), (1, "container ended")])
def test_docker_ends_with_an_error(tmp_path: Path, code: int, message: str) -> None:
    program = docker_in(tmp_path, f"exit {code}")
    with pytest.raises(ServerStartError, match=rf"{message} \(exit code {code}\); the reason is above"):
        run_docker([str(program), "run"])
    run_docker([str(docker_in(tmp_path, "exit 0")), "run"])


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed")
def test_compose_agrees() -> None:
    """Compose itself reads the files; it needs no daemon for that."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose plugin")
    files = ["-f", str(DEPLOY / "compose.yaml"), "-f", str(DEPLOY / "compose.gpu.yaml")]
    environment = {**os.environ, "LATENTCLR_STUDIO_TOKEN": "x" * 16}
    command = ["docker", "compose", *files, "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
