"""What it costs to carry pictures from Triton to a client: gRPC, gRPC with shared memory, HTTP.

    python benchmarks/client_transport.py --output benchmarks/results/client_transport.json

The served model only fills its pictures with one number for each row, so nearly all the time is transport: the Python
backend's, Triton's and the client's. Add the generator's own time to see what a user notices.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, Numbers, finish
from common.timing import interleave, speed_up, summarise, table
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from serving import EditClient, TritonServer
from serving.triton.ports import Ports

D = 4
COLUMNS = ("pixels", "batch", "mb", "way", "p50_ms", "p90_ms", "speed_up")
WAYS = ("grpc", "grpc, shared memory", "http")


@click.command(cls=Benchmark)
@click.option("--pixels", type=Numbers(), default="64,256,1024", show_default=True, help="Width and height.")
@click.option("--batch", "batches", type=Numbers(), default="1,8", show_default=True, help="Pictures in a request.")
@click.option("--runs", type=click.IntRange(1), default=100, show_default=True, help="Timed requests of each way.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(pixels: tuple[int, ...], batches: tuple[int, ...], runs: int, note: str | None, output: Path | None) -> None:
    """Measure the way of a picture from Triton to a client."""
    start, results = describe_machine(), []
    with _server(pixels, max(batches)) as server:
        for size in pixels:
            with contextlib.ExitStack() as stack:
                clients = {
                    way: stack.enter_context(client)
                    for way, client in zip(WAYS, _clients(server, f"blank_{size}"), strict=True)
                }
                for rows in batches:
                    results += _measure(clients, size, rows, runs)
    click.echo(table(results, COLUMNS))
    settings = {"pixels": pixels, "batch": batches, "runs": runs, "speed_up_over": WAYS[0]}
    finish("client_transport", start=start, settings=settings, results=results, targets=[], random_weights=True,
           note=note, output=output)  # fmt: skip


def _clients(server: TritonServer, model: str) -> list[EditClient]:
    return [
        EditClient(server.grpc_url, model, shared_memory=False),
        EditClient(server.grpc_url, model, shared_memory=True),
        EditClient(server.http_url, model),
    ]


def _measure(clients: dict[str, EditClient], size: int, rows: int, runs: int) -> list[dict[str, Any]]:
    z = np.arange(rows * D, dtype=np.float32).reshape(rows, D)
    direction, alpha = np.zeros((rows, 1), np.int64), np.zeros((rows, 1, 1), np.float32)

    def ask(client: EditClient) -> NDArray[np.uint8]:
        return client.edit_rows(z, direction, alpha).images

    for way, client in clients.items():
        images = ask(client)
        if images.shape != (rows, size, size, 3) or (images[:, -1, -1, 0] != z[:, 0]).any():
            raise BenchmarkError(f"{way}: wrong pictures")
    calls: dict[str, Callable[[], object]] = {way: lambda c=client: ask(c) for way, client in clients.items()}  # type: ignore[misc]
    taken = interleave(calls, runs)
    return [
        {
            "pixels": size,
            "batch": rows,
            "mb": round(rows * size * size * 3 / 1e6, 2),
            "way": way,
            **summarise(durations, rows),
            "speed_up": speed_up(taken[WAYS[0]], durations),
        }
        for way, durations in taken.items()
    ]


@contextlib.contextmanager
def _server(pixels: tuple[int, ...], max_batch_size: int) -> Iterator[TritonServer]:
    with tempfile.TemporaryDirectory(prefix="latentclr-bench-") as folder:
        for size in pixels:
            name = f"blank_{size}"
            version = Path(folder) / name / "1"
            version.mkdir(parents=True)
            onnx.save(_graph(size), version / "model.onnx")
            (version.parent / "config.pbtxt").write_text(_config(name, size, max_batch_size))
        with TritonServer(folder, ports=Ports(0, 0, 0), shared_memory=True) as server:
            yield server


def _graph(size: int) -> onnx.ModelProto:
    """Pictures filled with z's first number; direction and alpha are taken and not used."""
    constants = {"first": np.array([0]), "one": np.array([1]), "shape": np.array([1, size, size, 3]),
                 "column": np.array([-1, 1, 1, 1]), "row": np.array([-1])}  # fmt: skip
    nodes = [
        helper.make_node("Slice", ["z", "first", "one", "one"], ["number"]),
        helper.make_node("Cast", ["number"], ["byte"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["byte", "column"], ["pixel"]),
        helper.make_node("Expand", ["pixel", "shape"], ["image"]),
        helper.make_node("Equal", ["number", "number"], ["same"]),
        helper.make_node("Reshape", ["same", "row"], ["valid"]),
    ]
    inputs = [("z", TensorProto.FLOAT, ["N", D]), ("direction", TensorProto.INT64, ["N", "M"]),
              ("alpha", TensorProto.FLOAT, ["N", "M", 1])]  # fmt: skip
    outputs = [("image", TensorProto.UINT8, ["N", size, size, 3]), ("valid", TensorProto.BOOL, ["N"])]
    graph = helper.make_graph(
        nodes,
        "blank",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(value.astype(np.int64), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _config(name: str, size: int, max_batch_size: int) -> str:
    manifest = {
        "format": 1,
        "name": name,
        "generator": {"name": "blank", "resolution": size, "random_weights": True},
        "latent": {"dim": D, "layers": 1, "sampler": "standard_normal"},
        "directions": {"count": 1},
    }
    return f"""
name: "{name}" backend: "onnxruntime" max_batch_size: {max_batch_size}
input [
  {{ name: "z" data_type: TYPE_FP32 dims: [ {D} ] }},
  {{ name: "direction" data_type: TYPE_INT64 dims: [ -1 ] }},
  {{ name: "alpha" data_type: TYPE_FP32 dims: [ -1, 1 ] }}
]
output [
  {{ name: "image" data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] }},
  {{ name: "valid" data_type: TYPE_BOOL dims: [ 1 ] reshape {{ shape: [ ] }} }}
]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "manifest" value {{ string_value: {json.dumps(json.dumps(manifest))} }} }}
"""


if __name__ == "__main__":
    main()
