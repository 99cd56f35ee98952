"""The engines of the GPU pack, as functions of the same numpy arrays; what cannot run here says why."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common.engines import (
    Array,
    Arrays,
    Engine,
    compiled_engine,
    load_torchscript,
    onnx_engine,
    random_rows,
    torch_engine,
)
from common.report import BenchmarkError
from export_model import NAME

from export.half import HalfGraph
from gpu.models import MAX_BATCH_SIZE, Prepared, set_tf32
from serving import EditClient, TritonServer
from serving.contract.tensors import OUTPUTS
from serving.triton.ports import Ports

COMPILED = "torch.compile"


@dataclass(frozen=True)
class Kind:
    """A row of the pack.

    Attributes:
        make: Opens the engine for a model on a device.
        precision: What it computes in: `fp32`, `tf32` or `fp16`.
        gpu: Whether it needs a GPU.
    """

    make: Callable[[Prepared, torch.device], contextlib.AbstractContextManager[Engine]]
    precision: str = "fp32"
    gpu: bool = False


@contextlib.contextmanager
def _eager(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
    yield torch_engine(copy.deepcopy(prepared.editor).to(place), place)


@contextlib.contextmanager
def _channels_last(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
    editor = copy.deepcopy(prepared.editor).to(place).to(memory_format=torch.channels_last)
    yield torch_engine(editor, place)


@contextlib.contextmanager
def _tf32(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
    set_tf32(True)
    try:
        yield torch_engine(copy.deepcopy(prepared.editor).to(place), place)
    finally:
        set_tf32(False)


@contextlib.contextmanager
def _cuda_graph(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
    """Replay one recorded CUDA graph for each shape of a request."""
    editor = copy.deepcopy(prepared.editor).to(place)
    known: dict[Any, tuple[Any, list[torch.Tensor], torch.Tensor]] = {}

    def run(*arrays: Array) -> Array:
        shapes = tuple(array.shape for array in arrays)
        if shapes not in known:
            known[shapes] = _record(editor, [torch.from_numpy(array).to(place) for array in arrays])
        graph, inputs, image = known[shapes]
        for tensor, array in zip(inputs, arrays, strict=True):
            tensor.copy_(torch.from_numpy(array))
        graph.replay()
        pixels: Array = image.cpu().numpy()
        return pixels

    yield run


def _record(editor: Any, inputs: list[torch.Tensor]) -> tuple[Any, list[torch.Tensor], torch.Tensor]:
    stream: Any = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):  # cuDNN chooses its algorithms before the recording
            editor(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph: Any = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        image, _ = editor(*inputs)
    return graph, inputs, image


@contextlib.contextmanager
def _compiled(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
    first = random_rows(prepared.editor, 2, prepared.end, 0)
    yield compiled_engine(copy.deepcopy(prepared.editor).to(place), place, first)
    torch.compiler.reset()


@contextlib.contextmanager
def _torchscript(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
    yield torch_engine(load_torchscript(prepared.folder / "model.pt", place), place)


@contextlib.contextmanager
def _onnxruntime(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
    if place.type == "cpu":
        yield onnx_engine(prepared.folder / "model.onnx", place, 0)
        return
    yield session_engine(prepared.folder / "model.onnx", "CUDA", {"use_tf32": "0"})


def _ort(provider: str, options: dict[str, str]) -> Any:
    @contextlib.contextmanager
    def make(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
        yield _opened(prepared, prepared.folder / "model.onnx", provider, options)

    return make


def _half(provider: str) -> Any:
    """All of the graph in float16, whose types stand in the graph; the certificate says whether that is near enough."""

    @contextlib.contextmanager
    def make(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
        session_engine(prepared.folder / "model.onnx", provider, {})  # says why, before the work, if there is none
        folder = prepared.folder / "half"
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=prepared.folder) as work:
                HalfGraph(prepared.folder / "model.onnx").build(frozenset(), Path(work))
                Path(work).replace(folder)
                Path(work).mkdir()
        yield _opened(prepared, folder / "model.onnx", provider, {})

    return make


def _opened(prepared: Prepared, path: Path, provider: str, options: dict[str, str]) -> Engine:
    engine = session_engine(path, provider, options)
    if provider == "Tensorrt":
        # An engine is built anew each time that a shape leaves the range seen so far: smallest and largest, no more.
        engine(*prepared.golden.request([1]))
        engine(*prepared.golden.request([3] * MAX_BATCH_SIZE))
    return engine


def session_engine(path: Path, provider: str, options: dict[str, str]) -> Engine:
    """Run an ONNX file on a GPU.

    Args:
        path: The file.
        provider: `CUDA` or `Tensorrt`.
        options: Of the provider.

    Raises:
        BenchmarkError: This ONNX Runtime has no such provider, or it fell back to the CPU.
    """
    import onnxruntime

    name = f"{provider}ExecutionProvider"
    if name not in onnxruntime.get_available_providers():
        raise BenchmarkError(f"this ONNX Runtime has no {name}: pip install 'latentclr[gpu]'")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    wanted: list[Any] = [(name, {"device_id": "0", **options})]
    if provider != "CUDA":
        wanted.append(("CUDAExecutionProvider", {"device_id": "0"}))
    session = onnxruntime.InferenceSession(str(path), settings, providers=[*wanted, "CPUExecutionProvider"])
    if name not in session.get_providers():
        raise BenchmarkError(f"{name} cannot be loaded (are CUDA, cuDNN and TensorRT of the right version there?)")
    names = [node.name for node in session.get_inputs()]
    return lambda *arrays: session.run(list(OUTPUTS), dict(zip(names, arrays, strict=True)))[0]


@contextlib.contextmanager
def _ort_cuda_graph(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
    """Let ONNX Runtime replay CUDA graphs: fixed buffers on the device, one recording for each shape."""
    import onnxruntime

    path = prepared.folder / "model.onnx"
    session_engine(path, "CUDA", {})  # says why, if there is no CUDA
    options = {"device_id": "0", "use_tf32": "0", "enable_cuda_graph": "1"}
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path), settings, providers=[("CUDAExecutionProvider", options), "CPUExecutionProvider"]
    )
    names = [node.name for node in session.get_inputs()]
    side = prepared.editor.generator.resolution
    known: dict[Any, tuple[Any, list[Any], Any, Any]] = {}

    def run(*arrays: Array) -> Array:
        shapes = tuple(array.shape for array in arrays)
        if shapes not in known:
            value = onnxruntime.OrtValue
            inputs = [value.ortvalue_from_numpy(array, "cuda", 0) for array in arrays]
            rows = len(arrays[0])
            image = value.ortvalue_from_shape_and_type([rows, side, side, 3], "uint8", "cuda", 0)
            valid = value.ortvalue_from_shape_and_type([rows], "bool", "cuda", 0)
            binding = session.io_binding()
            for name, tensor in zip(names, inputs, strict=True):
                binding.bind_ortvalue_input(name, tensor)
            for name, tensor in zip(OUTPUTS, (image, valid), strict=True):
                binding.bind_ortvalue_output(name, tensor)
            how = onnxruntime.RunOptions()
            how.add_run_config_entry("gpu_graph_id", str(len(known) + 1))
            known[shapes] = binding, inputs, image, how
        binding, inputs, image, how = known[shapes]
        for tensor, array in zip(inputs, arrays, strict=True):
            tensor.update_inplace(array)
        session.run_with_iobinding(binding, how)
        pixels: Array = image.numpy()
        return pixels

    yield run


@contextlib.contextmanager
def _served(prepared: Prepared, place: torch.device) -> Iterator[Engine]:
    if place.type == "cuda":
        session_engine(prepared.folder / "model.onnx", "CUDA", {})  # else the server would draw on the CPU
    with TritonServer(prepared.folder / "models", ports=Ports(0, 0, 0), models=[NAME]) as server:
        with EditClient(server.grpc_url, NAME) as client:
            yield lambda *arrays: client.edit_rows(*arrays).images


# In this order, for each model: what builds for minutes comes last.
ENGINES = {
    "eager": Kind(_eager),
    "eager channels-last": Kind(_channels_last),
    "eager cuda-graph": Kind(_cuda_graph, gpu=True),
    "eager tf32": Kind(_tf32, "tf32", gpu=True),
    "torchscript": Kind(_torchscript),
    "onnxruntime": Kind(_onnxruntime),
    "onnxruntime cuda-graph": Kind(_ort_cuda_graph, gpu=True),
    "onnxruntime tf32": Kind(_ort("CUDA", {"use_tf32": "1"}), "tf32", gpu=True),
    "served": Kind(_served),
    COMPILED: Kind(_compiled),
    "onnxruntime fp16": Kind(_half("CUDA"), "fp16", gpu=True),
    "tensorrt": Kind(_ort("Tensorrt", {}), gpu=True),
    "tensorrt tf32": Kind(_ort("Tensorrt", {}), "tf32", gpu=True),
    "tensorrt fp16": Kind(_half("Tensorrt"), "fp16", gpu=True),
}


def requests_of(prepared: Prepared, rows: int, count: int = 4) -> list[Arrays]:
    """Return random requests of one edit each."""
    return [random_rows(prepared.editor, rows, prepared.end, seed) for seed in range(count)]
