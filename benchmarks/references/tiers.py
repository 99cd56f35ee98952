"""Engines and precisions beside the default, exported with their certificates as users export them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from common.engines import Engine
from common.report import BenchmarkError, child_environment

from export.onnx import OnnxEditor
from export.openvino import OpenVINOEditor
from serving.contract.documents import read_json

FILES = {"onnxruntime": "model.onnx", "openvino": "model.xml"}


def split_tier(text: str) -> tuple[str, str]:
    """Read `openvino:bf16`.

    Raises:
        BenchmarkError: It is something else.
    """
    engine, _, precision = text.partition(":")
    if engine not in FILES or precision not in ("fp32", "bf16", "fp16", "int8"):
        raise BenchmarkError(f"--tier must be ENGINE:PRECISION such as openvino:bf16, got {text!r}")
    return engine, precision


def tier_model(tier: str) -> str:
    """Return the name under which a tier is published."""
    return "tier_" + "_".join(split_tier(tier))


def tier_row(tier: str) -> str:
    """Return what a tier is called in tables."""
    return f"{' '.join(split_tier(tier))}, certified"


def export_tier(run: Path, repository: Path, tier: str, max_batch_size: int, threads: int) -> dict[str, Any]:
    """Export a run in this tier, unless the repository has it already; return its certificate.

    Raises:
        BenchmarkError: It misses its quality, or its engine is not installed.
    """
    (engine, precision), model = split_tier(tier), tier_model(tier)
    report = repository / model / "1" / "parity.json"
    if not report.is_file():
        command = [
            sys.executable, "-m", "latentclr", "export", str(run), "--repository", str(repository), "--name", model,
            "--engine", engine, "--precision", precision, "--max-batch-size", str(max_batch_size),
            "--threads", str(threads), "--target", "cpu",
        ]  # fmt: skip
        done = subprocess.run(command, env=child_environment(threads), capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise BenchmarkError(last.rpartition("Error: ")[2])  # a progress bar may stand before it
    certificate: dict[str, Any] = read_json(report.read_bytes())[engine]
    return certificate


def tier_engine(repository: Path, tier: str, threads: int) -> Engine:
    """Run the published file without a server."""
    engine, _ = split_tier(tier)
    path = repository / tier_model(tier) / "1" / FILES[engine]
    editor = (OpenVINOEditor if engine == "openvino" else OnnxEditor)(path, threads=threads)
    return lambda *arrays: editor(*arrays)[0]
