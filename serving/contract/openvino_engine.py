"""OpenVINO as exporter, server and doctor use it: without its telemetry, and in the precision that was asked for.

OpenVINO writes a client id to the user's home and sends an event at each import, through the package
`openvino-telemetry`; where that is missing it does without. Left to itself the CPU plugin computes in bfloat16 wherever
the CPU can, so the precision of the arithmetic is always said.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.errors import ServingError

PRECISIONS = ("f32", "bf16")
"""Of the arithmetic between the model's tensors; int8 is in the graph itself, and its rest is one of these."""


_FAR = 2**31 - 1


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


@functools.cache
def core() -> Any:
    """Return the `openvino.Core` of this process.

    There is one, and it is never freed: its CPU plugin brings a signal stack of its own, and gives it back in an order
    that leaves a freed one behind if there were several. The next Ctrl-C would then end in a segmentation fault.

    Raises:
        OpenVINOError: It is not installed.
    """
    openvino = import_openvino()
    return openvino.Core()


def has_bf16() -> bool:
    """Whether this CPU computes in bfloat16 (AVX-512 BF16 or AMX); OpenVINO takes float32 where it cannot.

    Raises:
        OpenVINOError: It is not installed.
    """
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compile_model(
    path: Path,
    precision: str = "f32",
    threads: int = 0,
    settings: Mapping[str, str] | None = None,
    rows: int | None = None,
) -> Any:
    """Load a model (`.xml` with its `.bin`, or `.onnx`) for this CPU.

    Args:
        path: The file.
        precision: One of `PRECISIONS`.
        threads: 0 for OpenVINO's own choice, one a core.
        settings: Other properties of the CPU plugin, by name.
        rows: The batch size that it is for; None for all.

    Returns:
        The `openvino.CompiledModel`; inputs and outputs keep their other dynamic sizes.

    Raises:
        OpenVINOError: It is not installed, does not understand the file, or cannot run it in this precision here.
    """
    if precision not in PRECISIONS:
        raise OpenVINOError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    openvino = import_openvino()
    if precision == "bf16" and not has_bf16():
        raise OpenVINOError("bf16 needs a CPU with AVX-512 BF16 or AMX, which this one lacks: OpenVINO takes float32")
    # Pinned, each process would begin with the first core: several instances would share it, and leave others idle.
    wanted: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False, **(settings or {}),
                              "INFERENCE_PRECISION_HINT": precision}  # fmt: skip
    if threads:
        wanted["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core().read_model(str(path))
        if rows is not None:
            shapes = {tensor.any_name: list(tensor.get_partial_shape()) for tensor in model.inputs}
            model.reshape({name: openvino.PartialShape([rows, *shape[1:]]) for name, shape in shapes.items()})
        return core().compile_model(model, "CPU", wanted)
    except RuntimeError as error:
        raise OpenVINOError(f"OpenVINO cannot load {path}: {_first_line(error)}") from None


class Runner:
    """A model on this CPU, compiled twice: for one row, whose fixed sizes are faster, and for any number of rows.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs.
    """

    def __init__(
        self, path: Path, precision: str = "f32", threads: int = 0, settings: Mapping[str, str] | None = None
    ) -> None:
        """Compile it, see `compile_model`.

        Raises:
            OpenVINOError: As there.
        """
        compiled = [compile_model(path, precision, threads, settings, rows) for rows in (None, 1)]
        # The file's own names: where an operation that changes nothing is dropped, its input's name comes beside them.
        file = core().read_model(str(path))
        self.inputs = [tensor.any_name for tensor in file.inputs]
        self.outputs = [tensor.any_name for tensor in file.outputs]
        self._any, self._one = (model.create_infer_request() for model in compiled)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run on inputs [N, ...] by name; return the outputs by name.

        Raises:
            RuntimeError: OpenVINO's own, for wrong shapes.
        """
        request = self._one if len(inputs[self.inputs[0]]) == 1 else self._any
        # OpenVINO computes with the low 32 bits of an index, so one far out of range could fall into it.
        given = {name: a.clip(-_FAR, _FAR) if a.dtype == np.int64 else a for name, a in inputs.items()}
        request.infer(given, share_inputs=True)
        # Copies: the next run writes into the same memory.
        return {name: request.get_tensor(name).data.copy() for name in self.outputs}


def _first_line(error: Exception) -> str:
    """Return what went wrong; OpenVINO's texts begin with the places in its source that it came through."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0][:300]
