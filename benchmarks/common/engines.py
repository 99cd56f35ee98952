"""The engines that can draw an edit, all as functions of the same numpy arrays that give the same picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tritonclient.grpc as triton
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.utils import np_to_triton_dtype

from common.report import BenchmarkError
from export.editor import FusedEditor
from export.onnx import OnnxEditor
from latentclr.config import TrainConfig, slider_end
from latentclr.training.checkpoint import Checkpoint
from latentclr.training.experiment import open_run, trained_generator
from latentclr.training.rng import stream
from serving.contract.tensors import OUTPUTS

Array = NDArray[Any]
Arrays = tuple[Array, ...]
Engine = Callable[..., Array]  # z [N, D], direction [N, M], alpha [N, M, L] and class_id [N] if conditional -> image


def open_editor(run: Path) -> tuple[TrainConfig, Checkpoint, FusedEditor, float]:
    """Return a run's configuration, its checkpoint, the editor on the CPU, and the strength at which sliders end.

    Raises:
        LatentCLRError: The run cannot be opened.
    """
    config, checkpoint = open_run(run, [], TrainConfig)
    editor = FusedEditor(trained_generator(config, checkpoint), checkpoint.directions)
    return config, checkpoint, editor, slider_end(checkpoint.config["model"]["alpha"])


def random_rows(editor: FusedEditor, rows: int, end: float, seed: int) -> Arrays:
    """Draw a request of N = rows, M = 1: random codes, directions and strengths in [-end, end]."""
    rng = stream(seed, "latency")
    latent, k = editor.generator.latent, editor.directions.k
    z = editor.generator.sample(rows, rng)
    direction = torch.randint(k, (rows, 1), generator=rng)  # [N, 1]
    alpha = ((torch.rand(rows, 1, 1, generator=rng) * 2 - 1) * end).expand(rows, 1, latent.layers)  # [N, 1, L]
    tensors = [z, direction, alpha.contiguous()]
    if editor.conditional:
        tensors.append(torch.randint(len(editor.generator.class_names or ()), (rows,), generator=rng))
    return tuple(tensor.numpy() for tensor in tensors)


def torch_engine(module: Any, device: torch.device) -> Engine:
    """Run an eager or TorchScript editor on a device; arrays go there and pictures come back."""

    def run(*arrays: Array) -> Array:
        with torch.inference_mode():
            image, _ = module(*(torch.from_numpy(array).to(device) for array in arrays))
        pixels: Array = image.cpu().numpy()  # waits for the device
        return pixels

    return run


def compiled_engine(editor: FusedEditor, device: torch.device, first: Arrays) -> Engine:
    """Run an eager editor through `torch.compile`; the first request is compiled here.

    Raises:
        RuntimeError: torch cannot compile it, for want of a C++ compiler for instance.
    """
    run = torch_engine(torch.compile(editor, dynamic=True), device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own internals
        run(*first)
    return run


def load_torchscript(path: Path, device: torch.device) -> Any:
    """Load a TorchScript editor as the server's backend does."""
    load: Any = torch.jit.load
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.")  # deprecated, and still what Triton's backend loads
        return load(str(path), map_location=device).eval()


def onnx_engine(path: Path, device: torch.device, threads: int, keep_memory: bool = True) -> Engine:
    """Run the ONNX file in a bare session with the settings of the served one.

    Args:
        path: The file.
        device: Where to draw.
        threads: For one operator; 0 for ONNX Runtime's choice.
        keep_memory: Whether a CPU session keeps what a picture took for the next one, as it does by itself.

    Raises:
        BenchmarkError: The installed ONNX Runtime cannot use the device.
    """
    import onnxruntime

    if device.type == "cpu":
        editor = OnnxEditor(path, threads)
        if keep_memory:
            return lambda *arrays: editor(*arrays)[0]
        shrink = onnxruntime.RunOptions()
        shrink.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return lambda *arrays: editor(*arrays, options=shrink)[0]
    if not has_cuda_session():
        raise BenchmarkError("this ONNX Runtime has no CUDA provider: pip install 'latentclr[gpu]'")
    providers = [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), providers=providers)
    names = [node.name for node in session.get_inputs()]
    return lambda *arrays: session.run(list(OUTPUTS), dict(zip(names, arrays, strict=True)))[0]


def has_cuda_session() -> bool:
    """Whether the installed ONNX Runtime can run on a GPU."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def raw_grpc_engine(client: Any, model: str, names: tuple[str, ...]) -> Engine:
    """Send requests with tritonclient alone, nothing checked: what the client costs is the difference to `EditClient`.

    Args:
        client: A `tritonclient.grpc.InferenceServerClient`.
        model: The served model.
        names: Of its inputs, in the order of the arrays.
    """
    outputs = [triton.InferRequestedOutput(name) for name in OUTPUTS]

    def run(*arrays: Array) -> Array:
        inputs = []
        for name, array in zip(names, arrays, strict=True):
            array = array[:, None] if array.ndim == 1 else array  # one value a row: Triton takes [N, 1]
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        image: Array = client.infer(model, inputs, outputs=outputs).as_numpy("image")
        return image

    return run


def set_served_threads(model: Path, threads: int) -> None:
    """Give a published ONNX model the number of threads that the bare session has; 0 leaves the choice to both."""
    path = model / "config.pbtxt"
    config = text_format.Parse(path.read_text(), pb.ModelConfig())
    config.parameters["intra_op_thread_count"].string_value = str(threads)
    path.write_text(text_format.MessageToString(config))


def server_times(client: Any, model: str) -> dict[str, int]:
    """Return Triton's own sums so far: `count` of requests, and nanoseconds of each part of their way."""
    stats = client.get_inference_statistics(model).model_stats[0].inference_stats
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    return {"count": stats.success.count, **{part: getattr(stats, part).ns for part in parts}}


def mean_server_times(before: dict[str, int], after: dict[str, int]) -> dict[str, float]:
    """Return what Triton says that a request took in each part, in ms, between two `server_times`."""
    count = max(1, after["count"] - before["count"])
    return {f"{key}_ms": round((after[key] - before[key]) / count / 1e6, 3) for key in before if key != "count"}


def steps_apart(images: list[Array], expected: list[Array]) -> dict[str, float]:
    """Return the largest and the mean difference of the pixels, in 1/255."""
    pairs = zip(images, expected, strict=True)
    apart = [np.abs(a.astype(np.int16) - b.astype(np.int16)) for a, b in pairs]
    mean = float(np.mean([difference.mean() for difference in apart]))
    return {"worst_step": max(int(difference.max()) for difference in apart), "mean_step": float(f"{mean:.2g}")}
