"""What a number is worth nothing without: the machine, the versions and the command that made it.

Nothing here names a host, a user or a folder, so results can be published as they are.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

# Instruction sets that decide how fast a convolution or a matrix product can be on a CPU.
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd")
PACKAGES = (
    "latentclr", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "pytorch-pretrained-biggan", "numpy",
    "tritonclient", "nvidia-pytriton",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Return CPU, memory, GPU, system and load as plain data.

    `load_average_1m` tells how busy the machine was when the question was asked: above zero at the start of a
    benchmark, others were computing too.
    """
    cpu, flags = _cpu()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "cores_usable": usable,
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "os": _os_name(),
        "architecture": platform.machine(),
        "load_average_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python, CUDA and the packages that are installed here."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def describe_command(arguments: Sequence[str] | None = None) -> str:
    """Return the command line as a reader would type it in a checkout; of every path only its last part.

    Args:
        arguments: Program and its arguments; this process's own by default.
    """
    program, *rest = sys.argv if arguments is None else arguments
    return shlex.join(["python", f"benchmarks/{Path(program).name}", *map(_without_folders, rest)])


def now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _without_folders(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={_without_folders(value)}"
    return Path(argument).name if os.sep in argument else argument


def _cpu() -> tuple[str, set[str]]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine(), set()
    fields: dict[str, str] = {}
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name") or platform.machine(), set(flags.split())


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"
