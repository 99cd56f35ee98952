"""NVIDIA's Triton container as the engine: the exact `docker run` for a model repository."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from serving.contract.layout import TENSORRT_CACHE
from serving.errors import ServerStartError
from serving.interrupt import kept_back
from serving.triton.control import GRPC_ONLY, control_arguments, restriction_arguments
from serving.triton.needs import CACHE_BYTES, Needs, repository_needs
from serving.triton.ports import Ports

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"
MODELS = "/models"  # where the container sees the repository


def docker_command(
    repository: Path,
    host: str = "127.0.0.1",
    ports: Ports | None = None,
    models: Sequence[str] = (),
    poll_s: int | None = None,
    image: str = IMAGE,
    key: str | None = None,
    grpc_only: bool = False,
) -> list[str]:
    """Return the command that serves a repository with NVIDIA's container.

    Args:
        repository: Folder with one folder per model; mounted read-only.
        host: Address of this machine to which the ports are bound.
        ports: Ports on this machine; none that is opened may be 0.
        models: Serve only these; all if empty.
        poll_s: Seconds between looks for new versions; None loads once.
        image: The container image.
        key: Opens what is closed to requests, see `control`; None for a random one. It stands in the command, and so in
            what `ps` shows.
        grpc_only: Open neither the HTTP nor the metrics port.
    """
    ports = ports or Ports()
    needs = repository_needs(repository)
    address = f"[{host}]" if ":" in host else host
    command = ["docker", "run", "--rm", "--init"]
    if needs.gpu:
        command += ["--gpus", "all"]
    # NVIDIA's advice for its containers: the default of 64 MB shared memory is too small for backends that use it.
    command += ["--shm-size", "1g", "--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]
    command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    opened = {8001: ports.grpc} if grpc_only else {8000: ports.http, 8001: ports.grpc, 8002: ports.metrics}
    for inside, outside in opened.items():
        command += ["-p", f"{address}:{outside}:{inside}"]
    # Of some models each is mounted by itself: Triton's own way to choose, its explicit mode, lets clients load others.
    for part in models or ("",):
        source, target = repository.resolve() / part, f"{MODELS}/{part}".rstrip("/")
        command += ["--mount", f"type=bind,source={source},target={target},readonly"]
    if needs.tensorrt:
        command += ["--mount", f"type=volume,source=latentclr-tensorrt,target={TENSORRT_CACHE}"]
    arguments = server_arguments(needs, key or secrets.token_hex(16), poll_s, grpc_only)
    return [*command, image, "tritonserver", *arguments]


def server_arguments(needs: Needs, key: str, poll_s: int | None = None, grpc_only: bool = False) -> list[str]:
    """Return what the container's `tritonserver` is told; the configurations are complete, so none is guessed."""
    arguments = [f"--model-repository={MODELS}", "--disable-auto-complete-config", "--strict-readiness=true"]
    if needs.cache:
        arguments.append(f"--cache-config=local,size={CACHE_BYTES}")
    if grpc_only:
        arguments += GRPC_ONLY
    return [*arguments, *restriction_arguments(key), *control_arguments(poll_s)]


def run_docker(command: Sequence[str]) -> None:
    """Run the container in the foreground until it ends; a KeyboardInterrupt ends it in order.

    Raises:
        ServerStartError: Docker is missing, or the container ended with an error, which stands above.
    """
    if shutil.which(command[0]) is None:
        raise ServerStartError(
            "docker is not installed; install it, use `--engine embedded`, or run where docker is what "
            "`--print-command` prints"
        )
    process = None
    try:
        with kept_back():  # else docker may be there and not yet ours to end
            process = subprocess.Popen(command)
        code = process.wait()
    except KeyboardInterrupt:
        if process is not None:
            # Docker passes it on; a terminal's Ctrl-C reached it already, systemd's SIGTERM only us.
            process.terminate()
            process.wait()
        raise
    if code:
        hint = "docker could not start the container" if code in (125, 126, 127) else "the container ended"
        raise ServerStartError(f"{hint} (exit code {code}); the reason is above")
