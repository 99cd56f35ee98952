"""How a model is to be served: the options of `latentclr export`, checked, each with its range said once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from export.errors import ExportError
from latentclr.errors import nearest

TARGETS = ("auto", "cpu", "gpu")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
TENSORRT = ("fp32", "fp16")
RANGES: dict[str, tuple[int, int]] = {
    "max_batch_size": (1, 256),
    "instances": (1, 64),
    "queue_delay_us": (0, 1_000_000),
    "queue_timeout_s": (0, 3600),
    "threads": (0, 256),
}
"""Lowest and highest value of each number of `TritonOptions`."""

# ONNX Runtime's CUDA options. The first four must stand in `parameters`: where a configuration has parameters at all
# (ours has the manifest), the backend resets these four after it has read the accelerator's. Two are numbers there.
AS_PARAMETER: dict[str, tuple[str, ...]] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "gpu_mem_limit": (),
    "do_copy_in_default_stream": (),
}
AS_ACCELERATOR = ("cudnn_conv_use_max_workspace", "prefer_nhwc", "use_ep_level_unified_stream", "use_tf32")
CUDA_OPTIONS = (*AS_PARAMETER, *AS_ACCELERATOR)


@dataclass(frozen=True)
class TritonOptions:
    """How a model is to be served.

    Attributes:
        target: `auto` (on the GPU if there is one), `cpu`, or `gpu` (a server without one refuses to load it).
        max_batch_size: Rows that the dynamic batcher may put together, in [1, 256].
        instances: Copies of the model on each GPU, or on the CPU, in [1, 64].
        queue_delay_us: Microseconds that a request may wait for others to join its batch, in [0, 1000000].
        queue_timeout_s: Seconds after which a request that still waits is refused, and a full queue is; 0 for no
            queue policy at all.
        cache: Answer repeated requests from Triton's response cache.
        threads: Of one operator on a CPU, in [0, 256]; 0 leaves it to the engine, which takes all cores.
        tensorrt: Let TensorRT run the graph in this precision, fp32 or fp16, which must be the graph's own: TensorRT 10
            wants it said, and 11 takes it from the graph alone.
        cuda: Options of ONNX Runtime's CUDA provider, see `CUDA_OPTIONS`.
    """

    target: str = "auto"
    max_batch_size: int = 16
    instances: int = 1
    queue_delay_us: int = 0
    queue_timeout_s: float = 0.0
    cache: bool = False
    threads: int = 0
    tensorrt: str | None = None
    cuda: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check all of them.

        Raises:
            ExportError: One is out of range, or does not go with the target.
        """
        if self.target not in TARGETS:
            raise ExportError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # also refuses NaN
                what = name.removesuffix("_us").removesuffix("_s").replace("_", " ")
                raise ExportError(f"{what} must be in [{low}, {high}], got {value}")
        if self.tensorrt is not None and self.tensorrt not in TENSORRT:
            raise ExportError(f"TensorRT's precision must be one of {', '.join(TENSORRT)}, got {self.tensorrt!r}")
        if self.target == "cpu" and (self.tensorrt or self.cuda):
            raise ExportError("TensorRT and CUDA options need target gpu or auto, got cpu")
        for key, value in self.cuda.items():
            cuda_parameter(key, value)


def cuda_parameter(key: str, value: str) -> str:
    """Return a CUDA option's value as Triton's `parameters` want it: the number of a named choice."""
    if key not in CUDA_OPTIONS:
        raise ExportError(
            f"unknown CUDA option {key!r}, expected one of {', '.join(CUDA_OPTIONS)}{nearest(key, CUDA_OPTIONS)}"
        )
    choices = AS_PARAMETER.get(key, ())
    if choices:
        if value not in choices:
            raise ExportError(f"CUDA option {key} must be one of {', '.join(choices)}, got {value!r}")
        return str(choices.index(value))
    if key == "gpu_mem_limit":
        if not value.isdecimal() or int(value) == 0:
            raise ExportError(f"CUDA option {key} must be a number of bytes, got {value!r}")
    elif value not in ("0", "1"):
        raise ExportError(f"CUDA option {key} must be 0 or 1, got {value!r}")
    return value
