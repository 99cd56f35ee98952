"""A Triton server as a context manager.

    with TritonServer("model_repository") as server:
        client = EditClient(server.grpc_url)

It is the real server of the nvidia-pytriton wheel, an old release with known vulnerabilities: it listens on 127.0.0.1
unless told otherwise. For production, let NVIDIA's current container serve the same repository.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from serving.contract.journal import recover_if_free
from serving.errors import ServerStartError, ServerUnavailable
from serving.triton.control import GRPC_ONLY, choose_models, control_arguments, restriction_arguments
from serving.triton.log import have_models_stopped, last_error, model_failures, was_serving
from serving.triton.needs import CACHE_BYTES, repository_needs
from serving.triton.ports import Ports, claim_ports, unsent
from serving.triton.repository import check_repository
from serving.triton.runtime import Runtime, runtimes_folder, shared_runtime
from serving.triton.server_folder import ServerFolder, find_leftovers
from serving.triton.stubs import find_stubs, is_stub, kill_stubs

logger = logging.getLogger(__name__)

_POLL_S = 0.05
_QUIET_LOOKS = 4  # with nothing left to send, before Triton is ended
_DRAIN_S = 10  # time for requests in flight after a stop was asked for


class TritonServer:
    """One Triton process, its Python stubs and its temporary folder.

    Attributes:
        repository: The model repository.
        host: The address it listens on.
        ports: The ports; after `start` none of them is 0.
    """

    def __init__(
        self,
        repository: str | os.PathLike[str],
        *,
        host: str = "127.0.0.1",
        ports: Ports | None = None,
        models: Sequence[str] = (),
        log_file: str | os.PathLike[str] | None = None,
        poll_s: int | None = None,
        grpc_only: bool = False,
        shared_memory: bool = False,
    ) -> None:
        """Describe a server; nothing runs until `start`.

        Args:
            repository: Folder with one folder per model, as Triton documents it.
            host: Address to bind. Anything but a loopback address lets the network in.
            ports: HTTP, gRPC and metrics ports, 8000 to 8002 if not given; 0 picks a free one.
            models: Load only these models; all if empty.
            log_file: Where Triton's log goes, after what stands there; without it, to a temporary file that goes with
                the server.
            poll_s: Seconds between looks for new and changed models; None loads once.
            grpc_only: Open neither the HTTP nor the metrics port.
            shared_memory: Let clients of this machine register shared memory for their pictures.
        """
        self.repository = Path(repository)
        self.host = host
        self.ports = ports or Ports()
        self._models = tuple(models)
        self._poll_s = poll_s
        self._grpc_only, self._shared_memory = grpc_only, shared_memory
        self._channel: Any = None
        self._log_file = None if log_file is None else Path(log_file)
        self._log_start = 0  # its size when Triton was started
        self._folder: ServerFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stubs: dict[int, str] = {}
        # Regions of shared memory are named by this: two servers with one prefix would destroy each other's.
        self._region = f"latentclr_{uuid.uuid4().hex[:12]}_"

    @property
    def pid(self) -> int | None:
        """Process id of the running Triton, or None."""
        return None if self._process is None else self._process.pid

    @property
    def log_path(self) -> Path | None:
        """Triton's log; None while there is none."""
        if self._log_file is not None:
            return self._log_file
        return None if self._folder is None else self._folder.path / "triton.log"

    @property
    def grpc_url(self) -> str:
        """`host:port` for `EditClient`."""
        return f"{self._reachable_host()}:{self.ports.grpc}"

    @property
    def http_url(self) -> str:
        """Base of the HTTP interface."""
        return f"http://{self._reachable_host()}:{self.ports.http}"

    @property
    def metrics_url(self) -> str:
        """Prometheus metrics."""
        return f"http://{self._reachable_host()}:{self.ports.metrics}/metrics"

    def start(self) -> None:
        """Launch Triton and return at once; `wait_ready` tells when it serves.

        Raises:
            ServerStartError: No such repository, no models in it, a port in use, or a part of the runtime is missing.
            JournalError: What stands in the repository as its journal is none.
        """
        if self._process is not None:
            raise ServerStartError("this server is already running")
        recover_if_free(self.repository)
        check_repository(self.repository, self._models)
        self.ports = self._claim_ports()
        for leftover in find_leftovers():
            logger.info("removed %s of a process that was killed", leftover.path)
            leftover.remove()
        self._folder = ServerFolder(self._region)
        try:
            runtime = shared_runtime(otherwise=self._folder.path)
            self._process = self._launch(runtime, self._folder.path)
        except BaseException:
            self._clean()
            raise
        logger.info("started Triton, pid %d, log %s", self._process.pid, self.log_path)

    def command(self) -> str:
        """Return a shell command that starts the same server by hand, now or later.

        Raises:
            ServerStartError: As `start`, or the cache, where its runtime is put, cannot be written.
        """
        recover_if_free(self.repository)
        check_repository(self.repository, self._models)
        self.ports = self._claim_ports()
        runtime = shared_runtime()
        folder = runtimes_folder().with_name("triton-models")  # stays, as the runtime does
        changed = [f"{name}={runtime.environment[name]}" for name in ("LD_LIBRARY_PATH", "PATH")]
        return shlex.join(["env", *changed, str(runtime.program), *self._arguments(runtime, folder)])

    def wait_ready(self, timeout: float = 300.0) -> None:
        """Block until Triton says that it and all its models are ready.

        Args:
            timeout: Seconds to wait. A server that is not ready by then is stopped.

        Raises:
            ServerStartError: A model failed to load, Triton ended, or the time is over; the message has the reason.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if self._process is None:
                raise ServerStartError("the server is not running")
            if self._process.poll() is not None:
                message = self._why_it_ended()
                self.stop()
                raise ServerStartError(message)
            if time.monotonic() > deadline:
                self.stop()
                raise ServerStartError(f"Triton was not ready within {timeout:g} s and was stopped")
            time.sleep(_POLL_S)
        self._stubs = find_stubs(self._region)

    def is_ready(self) -> bool:
        """Whether this very process runs and says that all its models are ready."""
        if self._process is None or self._process.poll() is not None or self._dead_models():
            return False
        answer = self._ask("ServerReady")
        # Triton opens the ports one after another, gRPC's first.
        others = () if self._grpc_only else (self.ports.http, self.ports.metrics)
        return answer is not None and bool(answer.ready) and all(map(self._listens, others))

    def ready_models(self) -> list[str]:
        """Names of the models that are ready, sorted."""
        index = self._ask("RepositoryIndex")
        return [] if index is None else sorted({entry.name for entry in index.models if entry.state == "READY"})

    def check_alive(self) -> None:
        """Do nothing while Triton and its models run.

        Raises:
            ServerUnavailable: Triton or the process of a model ended by itself; the message has the reason.
        """
        if self._process is None or self._process.poll() is not None:
            raise ServerUnavailable(self._why_it_ended())
        dead = self._dead_models()
        if dead:
            raise ServerUnavailable(
                f"the process that runs {', '.join(dead)} died (out of memory?); start the server again"
            )

    def stop(self) -> None:
        """Let requests in flight finish, end Triton and its stubs, remove what it left; harmless when not running."""
        process = self._process
        try:
            # Triton would wait in vain for a dead model to unload.
            if process is not None and process.poll() is None and not self._dead_models():
                self._drain(process)
        finally:  # also when a second Ctrl-C interrupts the wait
            if process is not None:
                process.kill()
                process.wait()
                kill_stubs(self._region)
            if self._channel is not None:
                self._channel.close()
            self._channel = None
            self._stubs = {}
            self._process = None
            self._clean()

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        """Ask Triton to end, and wait until every answer is out.

        Triton would then look once a second whether its models are unloaded, which keeps whoever waits for the next
        server for two or three seconds more and saves nothing.
        """
        log = self.log_path
        before = log.stat().st_size if log is not None and log.is_file() else 0
        process.send_signal(signal.SIGTERM)
        deadline, quiet = time.monotonic() + _DRAIN_S + 5, 0
        while process.poll() is None and quiet < _QUIET_LOOKS:
            if time.monotonic() > deadline:
                logger.warning("Triton did not end in time and is killed")
                return
            time.sleep(_POLL_S)
            done = log is not None and have_models_stopped(log, before) and not unsent(self.ports)
            quiet = quiet + 1 if done else 0

    def __enter__(self) -> TritonServer:
        """Start and wait until ready."""
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _claim_ports(self) -> Ports:
        closed = {"http": 0, "metrics": 0} if self._grpc_only else {}
        return claim_ports(self.host, replace(self.ports, **closed))

    def _launch(self, runtime: Runtime, folder: Path) -> subprocess.Popen[bytes]:
        command = [str(runtime.program), *self._arguments(runtime, folder)]
        if threading.current_thread() is threading.main_thread():
            # The kernel's "parent died" means the thread that forked, so only the main thread may ask for it.
            launcher = Path(__file__).with_name("launch.py")
            command = [sys.executable, "-I", "-S", str(launcher), str(os.getpid()), *command]
        log_path = self.log_path
        assert log_path is not None
        assert self._folder is not None
        try:
            log = log_path.open("ab")  # why the last one died must outlive the next start
        except OSError as error:
            raise ServerStartError(f"cannot write the log {log_path}: {error.strerror}") from error
        with log:
            self._log_start = os.fstat(log.fileno()).st_size
            return subprocess.Popen(
                command,
                env=dict(runtime.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop Triton in order
                pass_fds=[self._folder.lock],
            )

    def _arguments(self, runtime: Runtime, folder: Path) -> list[str]:
        repository = choose_models(self.repository, self._models, folder)
        cache = []
        if repository_needs(repository).cache:
            cache = [f"--cache-config=local,size={CACHE_BYTES}", f"--cache-directory={runtime.caches}"]
        closed = GRPC_ONLY if self._grpc_only else ()
        return [
            f"--model-repository={repository}",
            f"--backend-directory={runtime.backends}",
            "--disable-auto-complete-config",
            "--strict-readiness=true",
            f"--exit-timeout-secs={_DRAIN_S}",
            f"--http-address={self.host}",
            f"--http-port={self.ports.http}",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-address={self.host}",
            f"--metrics-port={self.ports.metrics}",
            f"--backend-config=python,shm-region-prefix-name={self._region}",
            *cache,
            *closed,
            *control_arguments(self._poll_s),
            *restriction_arguments(secrets.token_hex(16), self._shared_memory),
        ]

    def _ask(self, method: str) -> Any:
        """Put a question without arguments over gRPC, which is always open; None when the server does not answer."""
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        if self._channel is None:
            # No proxy reaches this machine; and gRPC would wait longer and longer for a server that is still starting.
            options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
            options += [(f"grpc.{bound}_reconnect_backoff_ms", 50) for bound in ("initial", "min", "max")]
            self._channel = grpc.insecure_channel(self.grpc_url, options)
        question = getattr(service_pb2, f"{method}Request")()
        try:
            return getattr(service_pb2_grpc.GRPCInferenceServiceStub(self._channel), method)(question, timeout=5)
        except grpc.RpcError:
            return None

    def _listens(self, port: int) -> bool:
        try:
            socket.create_connection((self._reachable_host().strip("[]"), port), timeout=5).close()
        except OSError:
            return False
        return True

    def _reachable_host(self) -> str:
        """Where a client on this machine finds the server."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0", "::") else self.host
        return f"[{host}]" if ":" in host else host

    def _why_it_ended(self) -> str:
        log = self.log_path
        status = None if self._process is None else self._process.poll()
        if log is None or status is None:
            return "the Triton server is not running"
        failures = model_failures(log, self._log_start)
        if failures and not was_serving(log, self._log_start):
            return "; ".join(f"model {name!r} failed to load: {reason}" for name, reason in failures.items())
        if status < 0:
            return f"the Triton server was killed by {signal.Signals(-status).name}"
        return f"the Triton server ended with exit code {status}: {last_error(log, self._log_start)}"

    def _dead_models(self) -> list[str]:
        """Model instances whose process ended although Triton did not unload them.

        A new version's process takes the place of the old one's, under the same name.
        """
        gone = {pid: instance for pid, instance in self._stubs.items() if not is_stub(pid, self._region)}
        if not gone:
            return []
        there = find_stubs(self._region)
        loaded = self.ready_models()  # Triton goes on to say "ready" of a model whose process was killed
        names = {*there.values()}
        dead = {p: n for p, n in gone.items() if n not in names and n.rsplit("_", 2)[0] in loaded}
        self._stubs = {**there, **dead}
        return sorted(dead.values())

    def _clean(self) -> None:
        """Remove the temporary folder and shared memory that a killed server could not."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None
