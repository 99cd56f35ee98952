"""Start Triton as a benchmark wants it, and the load generator against it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from common.engines import set_served_threads
from common.report import BenchmarkError
from export_model import NAME, export_apart
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from load.generator import Plan
from serving import Manifest, TritonServer
from serving.contract.manifest import parse_manifest
from serving.triton.ports import Ports


@dataclass(frozen=True)
class Shape:
    """How a model is served: instances, each with its threads (0: all cores)."""

    instances: int
    threads: int

    def __str__(self) -> str:
        """Return the option's form, such as 2x1."""
        return f"{self.instances}x{self.threads}"


class Shapes(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.2
    """A comma-separated list of INSTANCESxTHREADS, such as `1x0,2x1`."""

    name = "shapes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Shape, ...]:
        """Parse the list."""
        if isinstance(value, tuple):
            return value
        found = [re.fullmatch(r"([1-9]\d?)x(\d\d?)", part) for part in str(value).split(",")]
        if not all(found):
            self.fail(f"expected INSTANCESxTHREADS such as 1x0,2x1, got {value!r}", param, ctx)
        return tuple(Shape(int(match[1]), int(match[2])) for match in found if match)


@dataclass(frozen=True)
class Running:
    """A server under load: its gRPC address, and its processes by role."""

    url: str
    pids: dict[str, list[int]]


def find_model(run: Path | None, repository: Path | None, folder: Path, max_batch_size: int) -> Path:
    """Return the folder of a published face editor, from a repository or exported here.

    Args:
        run: Run folder to export; None trains a short one.
        repository: Holds the model already.
        folder: For the export.
        max_batch_size: Of the export.

    Raises:
        BenchmarkError: Both are given, the repository has no such model, or the export failed.
    """
    if run is not None and repository is not None:
        raise BenchmarkError("give --run or --repository, not both")
    if repository is None:
        export_apart(folder, "dcgan", None, run, max_batch_size, 0)
        repository = folder / "models"
    if not (repository / NAME / "config.pbtxt").is_file():
        raise BenchmarkError(f"{repository} holds no model {NAME}")
    return repository / NAME


def newest_file(model: Path) -> Path:
    """Return the newest version's `model.onnx`.

    Raises:
        BenchmarkError: There is none.
    """
    found = [path for path in model.glob("*/model.onnx") if path.parent.name.isdecimal()]
    if not found:
        raise BenchmarkError(f"{model} has no version with a model.onnx")
    return max(found, key=lambda path: int(path.parent.name))


def read_manifest(model: Path) -> Manifest:
    """Return the manifest in a published model's configuration."""
    config = text_format.Parse((model / "config.pbtxt").read_text(), pb.ModelConfig())
    return parse_manifest(config.parameters["manifest"].string_value)


@contextlib.contextmanager
def serve(model: Path, folder: Path, shape: Shape, max_batch_size: int) -> Iterator[Running]:
    """Serve a copy of a published model with other numbers of instances, threads and rows.

    They are what `latentclr export --instances --threads --max-batch-size` writes.

    Args:
        model: The published model's folder, which stays as it is.
        folder: For the copy; made anew.
        shape: Instances and threads.
        max_batch_size: Rows that Triton may put together.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder / NAME)
    set_served_threads(folder / NAME, shape.threads)
    path = folder / NAME / "config.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    config.instance_group[0].count = shape.instances
    config.max_batch_size = max_batch_size
    warm_ups = [warm_up for warm_up in config.model_warmup if warm_up.batch_size <= max_batch_size]
    del config.model_warmup[:]
    config.model_warmup.extend(warm_ups)
    path.write_text(text_format.MessageToString(config))
    with TritonServer(folder, ports=Ports(0, 0, 0), models=[NAME]) as server:
        assert server.pid is not None
        yield Running(
            server.grpc_url,
            {"server": [server.pid], "model": [child.pid for child in psutil.Process(server.pid).children()]},
        )


def drive(plan: Plan, progress: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, Any]:
    """Run a plan in a process of its own and return the generator's figures.

    Args:
        plan: What to send.
        progress: Called every `plan.tell_s` seconds with `done`, `errors`, and `p50_ms` and `p99_ms` of the answers
            since the last call.

    Raises:
        BenchmarkError: The generator failed.
    """
    command = [sys.executable, "-m", "load.generator", json.dumps(asdict(plan))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                message: dict[str, Any] = json.loads(line)
                if "figures" in message:
                    figures: dict[str, Any] = message["figures"]
                    return figures
                progress(message)
            last = (process.stderr.read().strip().splitlines() or ["no message"])[-1]
        except BaseException:
            process.kill()
            raise
    raise BenchmarkError(f"the load generator failed: {last}")
