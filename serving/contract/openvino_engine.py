"""OpenVINO as exporter, server and doctor use it: without its telemetry, and in the precision that was asked for.

OpenVINO writes a client id to the user's home and sends an event at each import, through the package
`openvino-telemetry`; where that is missing it does without. Left to itself the CPU plugin computes in bfloat16 wherever
the CPU can, so the precision of the arithmetic is always said.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.errors import ServingError

PRECISIONS = ("f32", "bf16")
"""Of the arithmetic between the model's tensors; int8 is in the graph itself, and its rest is one of these."""


class OpenVINOError(ServingError):
    """OpenVINO is missing, or cannot run a model."""


class OpenVINOMissing(OpenVINOError):
    """OpenVINO is not installed."""


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    Raises:
        OpenVINOMissing: It is not installed.
        OpenVINOError: It is damaged.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # then importing it fails, as allowed for
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise OpenVINOError(f"OpenVINO cannot be imported: {error}") from None
        raise OpenVINOMissing("OpenVINO is not installed: pip install 'latentclr[openvino]'") from None
    except Exception as error:  # whatever a damaged installation raises
        raise OpenVINOError(f"OpenVINO cannot be imported: {error}") from None
    return openvino


def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16 (AVX-512 BF16 or AMX); OpenVINO takes float32 where it cannot.

    Raises:
        OpenVINOError: It is not installed.
    """
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compile_model(
    path: Path, precision: str = "f32", threads: int = 0, settings: Mapping[str, str] | None = None
) -> Any:
    """Load a model (`.xml` with its `.bin`, or `.onnx`) for this CPU.

    Args:
        path: The file.
        precision: One of `PRECISIONS`.
        threads: 0 for OpenVINO's own choice, one a core.
        settings: Other properties of the CPU plugin, by name.

    Returns:
        The `openvino.CompiledModel`; inputs and outputs keep their dynamic sizes.

    Raises:
        OpenVINOError: It is not installed, does not understand the file, or cannot run it in this precision here.
    """
    if precision not in PRECISIONS:
        raise OpenVINOError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    openvino = import_openvino()
    core = openvino.Core()
    if precision == "bf16" and not has_bf16():
        raise OpenVINOError("bf16 needs a CPU with AVX-512 BF16 or AMX, which this one lacks: OpenVINO takes float32")
    wanted: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **(settings or {}), "INFERENCE_PRECISION_HINT": precision}
    if threads:
        wanted["INFERENCE_NUM_THREADS"] = threads
    try:
        return core.compile_model(core.read_model(str(path)), "CPU", wanted)
    except RuntimeError as error:
        raise OpenVINOError(f"OpenVINO cannot load {path}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    """Return what went wrong; OpenVINO's texts begin with the places in its source that it came through."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0][:300]
