"""What the project promises of an edit's latency, as targets to compare measurements with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.report import target

PACKAGE, REFERENCE = "pytorch_pretrained_biggan", "grouped reference"
PLAIN, EAGER = "plain operations", "eager"
# generator -> what it is to be faster than
COMPARED = {"biggan": PACKAGE, "stylegan2": REFERENCE, "stylegan3": PLAIN, "stylegan3-r": PLAIN}
SERVED_OVERHEAD_MS = 1.0  # for the small generator
SERVED_RATIO = 1.05  # for the large ones
SERVED = ("served, EditClient", "served, raw gRPC")
EXPORT_MIB = 10_000
# (generator, resolution, engine) -> times faster than what it is compared with, at batch 1
SPEED_UPS = {
    ("biggan", 128, "onnxruntime"): 2.2,
    ("biggan", 128, "openvino bf16"): 4.0,
    ("biggan", 128, "openvino bf16, certified"): 4.0,
    ("stylegan2", 256, "onnxruntime"): 1.9,
    ("stylegan2", 256, "openvino bf16, certified"): 4.0,
    ("stylegan2", 1024, "onnxruntime"): 4.0,
    ("stylegan2", 1024, "openvino bf16, certified"): 8.0,
    **{
        (name, resolution, "onnxruntime"): 2.0
        for name in ("stylegan3", "stylegan3-r")
        for resolution in (256, 512, 1024)
    },
}
REDUCED = {"bf16", "fp16", "int8"}  # of these the worst pixel is not promised: one outlier decides it, see precision.py


def edit_targets(results: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare the first batch size's rows with the promises, and the pictures of all rows.

    Args:
        results: Rows of `edit_latency.py`.
        settings: Its settings.
    """
    generator, resolution, batch = settings["generator"], settings["resolution"], results[0]["batch"]
    first = {row["engine"]: row for row in results if row["batch"] == batch}
    session = first.get("onnxruntime")
    targets = []
    for name, row in first.items():
        promised = SPEED_UPS.get((generator, resolution, name))
        if promised is not None and batch == 1 and settings["speed_up_over"] == COMPARED[generator]:
            what = f"{name}: times faster than {COMPARED[generator]} at batch 1"
            targets.append(target(what, row["speed_up"], at_least=promised))
        if name in SERVED and session is not None:
            targets.append(_served(name, row["p50_ms"], session["p50_ms"], batch, small=generator not in COMPARED))
    worst = {name: max(row["worst_step"] for row in results if row["engine"] == name) for name in first}
    exact = [steps for name, steps in worst.items() if name != EAGER and not REDUCED & {*name.replace(",", "").split()}]
    if exact:
        targets.append(target("all engines in float32: worst difference of a pixel, steps", max(exact), at_most=1))
    if generator == "stylegan2":
        targets.append(target("export's peak memory, MiB", settings["export_peak_mib"], at_most=EXPORT_MIB))
    return targets


def _served(name: str, p50: float, bare: float, batch: int, small: bool) -> dict[str, Any]:
    if small:
        return target(
            f"{name}: p50 above the bare session's at batch {batch}, ms", p50 - bare, at_most=SERVED_OVERHEAD_MS
        )
    return target(f"{name}: p50 over the bare session's at batch {batch}, ratio", p50 / bare, at_most=SERVED_RATIO)
