"""The exported ONNX file under OpenVINO, in float32 or bfloat16."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from common.engines import Array, Engine

from serving.contract.openvino_engine import core, has_bf16, import_openvino


def has_openvino() -> bool:
    """Whether OpenVINO is installed; nothing else needs it."""
    return importlib.util.find_spec("openvino") is not None


def precisions() -> tuple[str, ...]:
    """Return the precisions of the arithmetic that this CPU has; others OpenVINO may emulate, slowly."""
    return ("f32", "bf16") if has_bf16() else ("f32",)


def openvino_engine(path: Path, precision: str, threads: int) -> Engine:
    """Run the ONNX file on the CPU, compiled anew for each batch size: OpenVINO is faster with fixed shapes.

    Args:
        path: The file.
        precision: `f32` or `bf16`, of the arithmetic; tensors in and out stay as they are.
        threads: 0 for OpenVINO's own choice.
    """
    openvino = import_openvino()
    from openvino import properties

    settings: dict[Any, Any] = {
        properties.hint.inference_precision(): getattr(openvino.Type, precision),
        properties.hint.performance_mode(): properties.hint.PerformanceMode.LATENCY,
    }
    if threads:
        settings[properties.inference_num_threads()] = threads
    requests: dict[tuple[Any, ...], Any] = {}

    def run(*arrays: Array) -> Array:
        shapes = tuple(array.shape for array in arrays)
        if shapes not in requests:
            model = core().read_model(path)
            model.reshape({tensor.any_name: list(shape) for tensor, shape in zip(model.inputs, shapes, strict=True)})
            requests[shapes] = core().compile_model(model, "CPU", settings).create_infer_request()
        image: Array = requests[shapes].infer(list(arrays))[0]
        return image.copy()  # the request writes its next picture into the same memory

    return run
