"""The command `doctor`: what is installed, what works, and what is wrong, in plain words."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from serving.contract.printable import printable
from serving.contract.temporary import temporary_folder
from serving.doctor.findings import BAD, OK, WARN, Finding
from serving.errors import ServerStartError

PLACEHOLDERS = {
    "perf-analyzer": ("0.1.0", "NVIDIA's perf_analyzer is in the Triton SDK container"),
    "tritonserver": ("0.0.1.dev0", "the server comes with nvidia-pytriton, or with NVIDIA's container"),
}
SHOWN = (
    "latentclr", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tritonclient",
    "nvidia-pytriton", "numpy",
)  # fmt: skip
# A graph of one Identity node, float32 [1], as onnx.helper makes it. ONNX Runtime comes without `onnx`, and a machine
# that only serves has no other use for it.
_IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a0208"
    "0142040a00100d"
)
_TIMEOUT_S = 30
_KNOCK_S = 2.0


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.option("--repository", type=click.Path(path_type=Path), help="Model repository to check.  [default: "
              "model_repository, if it is there]")  # fmt: skip
@click.option("--host", default="127.0.0.1", help="Address whose ports are checked.")
def doctor(repository: Path | None, host: str) -> None:
    """Tell what is installed, which engines work, and what is broken; exit code 1 if something is.

    \b
    Example:
      latentclr doctor --repository model_repository
    """
    from serving.doctor.repository_checks import check_models
    from serving.doctor.running import find_running
    from serving.triton.ports import Ports

    broken = 0
    checks: list[Callable[[], Iterator[Finding]]] = [
        check_packages,
        check_onnxruntime,
        check_openvino,
        check_embedded,
        check_docker,
        lambda: check_ports(host),
        check_leftovers,
        lambda: check_models(repository, find_running(host, Ports().http)),
    ]
    for check in checks:
        for finding in check():
            broken += finding.status == BAD
            click.echo(f"{finding.status:<5} {finding.subject}: {finding.text}")
    click.echo("nothing is broken" if not broken else f"{broken} thing{'s are' if broken > 1 else ' is'} broken")
    if broken:
        click.get_current_context().exit(1)


def version_of(package: str) -> str | None:
    """Return an installed package's version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_packages() -> Iterator[Finding]:
    """Look for packages that are missing, that are not what they seem, or that do not go together."""
    yield Finding(OK, "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    found = {package: version_of(package) for package in SHOWN}
    yield Finding(OK, "packages", ", ".join(f"{name} {version}" for name, version in found.items() if version))
    if not found["torch"]:
        yield Finding(WARN, "torch", "is not installed; a client does without, training and export do not")
    for package, (version, instead) in PLACEHOLDERS.items():
        if version_of(package) == version:
            text = f"{version} on PyPI is an empty placeholder: pip uninstall {package}; {instead}"
            yield Finding(WARN, package, text)
    if found["onnxruntime"] and found["onnxruntime-gpu"]:
        both = "onnxruntime and onnxruntime-gpu overwrite each other's files: uninstall both, then install one of them"
        yield Finding(BAD, "onnxruntime", both)
    numpy = found["numpy"]
    if numpy and found["nvidia-pytriton"] and int(numpy.partition(".")[0]) >= 2:
        yield Finding(BAD, "numpy", f"{numpy} is too new for nvidia-pytriton: pip install 'numpy<2'")


def check_onnxruntime() -> Iterator[Finding]:
    """Run a graph of one node on each provider that ONNX Runtime was built with."""
    try:
        import onnxruntime
    except Exception as error:  # whatever a damaged installation raises
        hint = "pip install 'latentclr[cpu]' (or 'latentclr[gpu]')"
        missing = isinstance(error, ModuleNotFoundError)
        yield Finding(WARN if missing else BAD, "onnxruntime", hint if missing else f"cannot be imported: {error}")
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for provider in onnxruntime.get_available_providers():
        if provider == "AzureExecutionProvider":  # calls a service; nothing of ours
            continue
        try:
            session = onnxruntime.InferenceSession(_IDENTITY, options, providers=[provider])
            session.run(None, {"x": _one()})
            works = provider in session.get_providers()
            reason = "ONNX Runtime falls back to the CPU (are driver, CUDA and cuDNN there?)"
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            works, reason = False, str(error).splitlines()[0]
        status = OK if works else BAD if provider.startswith("CPU") else WARN
        yield Finding(status, provider, "works" if works else f"does not work: {reason}")


def check_openvino() -> Iterator[Finding]:
    """Run a model of one operation with OpenVINO, and tell what arithmetic this CPU has."""
    from serving.contract.openvino_engine import OpenVINOError, OpenVINOMissing, core, has_bf16, import_openvino

    try:
        openvino = import_openvino()
        from openvino import opset13 as operations

        x = operations.parameter([1], openvino.Type.f32)
        compiled = core().compile_model(openvino.Model([operations.relu(x)], [x]), "CPU")
        compiled([_one()])
        bf16 = "has bfloat16" if has_bf16() else "has no bfloat16 (AVX-512 BF16 or AMX)"
    except OpenVINOMissing:
        text = "is not installed; models exported with --engine openvino need it: pip install 'latentclr[openvino]'"
        yield Finding(OK, "openvino", text)
    except OpenVINOError as error:
        yield Finding(BAD, "openvino", str(error))
    except Exception as error:  # OpenVINO's have no common base
        yield Finding(BAD, "openvino", f"does not work: {(str(error).splitlines() or [''])[-1]}")
    else:
        yield Finding(OK, "openvino", f"works; this CPU {bf16}")


def check_embedded() -> Iterator[Finding]:
    """Put the embedded Triton together and ask it for its help, which needs all its libraries."""
    from serving.triton.runtime import shared_runtime

    with temporary_folder("doctor") as folder:
        try:
            runtime = shared_runtime(otherwise=folder)
            done = subprocess.run(
                [str(runtime.program), "--help"],
                env=dict(runtime.environment), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except (ServerStartError, OSError, subprocess.TimeoutExpired) as error:
            installed = version_of("nvidia-pytriton") is not None
            yield Finding(BAD if installed else WARN, "embedded Triton", " ".join(str(error).split()))
            return
    if "--model-repository" in done.stdout + done.stderr:
        yield Finding(OK, "embedded Triton", "can be started")
    else:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        yield Finding(BAD, "embedded Triton", f"does not start (exit code {done.returncode}): {last}")


def check_docker() -> Iterator[Finding]:
    """Look for Docker, its daemon and a GPU: what NVIDIA's container needs."""
    if shutil.which("docker") is None:
        yield Finding(WARN, "docker", "is not installed; `latentclr serve --engine docker` needs it")
    else:
        answer = _output(["docker", "version", "--format", "{{.Server.Version}}"])
        text = f"daemon {answer}" if answer else "is installed, but its daemon does not answer; start it"
        yield Finding(OK if answer else WARN, "docker", text)
    gpus = (_output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]) or "").splitlines()
    text = ", ".join(gpus) or "none; a model exported with --target gpu will not load here"
    yield Finding(OK, "GPU", text)


def check_ports(host: str) -> Iterator[Finding]:
    """Look whether Triton's usual ports are free, and who has them."""
    from serving.triton.ports import Ports, claim_ports

    usual = Ports()
    for name, port in (("http", usual.http), ("grpc", usual.grpc), ("metrics", usual.metrics)):
        try:
            claim_ports(host, Ports(**{"http": 0, "grpc": 0, "metrics": 0, name: port}))
        except ServerStartError as error:
            user = _triton_at(name, host, port)
            text = f"in use by {user}" if user else str(error)
            yield Finding(OK if user else WARN, f"port {port}", text)
        else:
            yield Finding(OK, f"port {port}", "free")


def check_leftovers() -> Iterator[Finding]:
    """Look for what killed processes left: exports, and servers together with the process that started them."""
    from serving.triton.server_folder import find_leftovers, find_lost_memory

    found = list(find_leftovers())
    if found:
        size = sum(leftover.size() for leftover in found) / 1e6
        folders = f"{len(found)} folder{'s' if len(found) > 1 else ''}"
        names = " ".join(shlex.quote(str(leftover.path)) for leftover in found[:5]) + " ..." * (len(found) > 5)
        text = (
            f"{folders} of processes that were killed, {size:.1f} MB; the next server or export removes them: {names}"
        )
        yield Finding(WARN, "leftovers", text)
    known = {region for leftover in found for region in leftover.memory()}
    lost = [path for path in find_lost_memory() if path not in known]
    if lost:
        size = sum(path.stat().st_size for path in lost if path.exists()) / 1e6
        names = " ".join(map(str, lost[:5])) + " ..." * (len(lost) > 5)
        text = f"{size:.1f} MB of shared memory that no process here uses; if no container does either: rm {names}"
        yield Finding(WARN, "leftovers", text)


def _one() -> object:
    import numpy as np

    return np.ones(1, np.float32)


def _output(command: list[str]) -> str | None:
    """Return what a program prints; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _triton_at(name: str, host: str, port: int) -> str:
    """Describe the running Triton that has a port; empty if somebody else has it."""
    from serving.client.address import Address
    from serving.client.doors import knock
    from serving.client.failures import Failure
    from serving.doctor.running import find_running

    if name == "http":
        return str(find_running(host, port) or "")
    door = knock(host, port, _KNOCK_S)
    if name == "metrics":
        return "the metrics of a running Triton" if door.kind == "metrics" else ""
    if door.kind != "grpc":
        return ""
    from serving.client.grpc_transport import GrpcTransport

    transport = GrpcTransport(Address("grpc", f"{host}:{port}"))
    try:
        served = printable(", ".join(transport.ready_models(_KNOCK_S)))
        return f"a running Triton that serves {served or 'no model yet'}"
    except Failure:
        return ""
    finally:
        transport.close()


if __name__ == "__main__":
    sys.exit(doctor())
