"""Draw what `serving_load.py` and `soak.py` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from latentclr.pictures.figures import save_figure

COLOURS = ("#2a6f97", "#e07a1f", "#5b8c5a", "#8f5ba6")
GREY = "#8a929a"
DPI = 130
PERCENTILES = (("p50_ms", "-", "p50"), ("p90_ms", "--", "p90"), ("p99_ms", ":", "p99"))
Rows = Sequence[Mapping[str, Any]]


def plot_load(rows: Rows, offline: Rows, machine: Mapping[str, Any], path: Path) -> None:
    """Draw throughput, latency and formed batches over the number of clients.

    Args:
        rows: Results of `serving_load.py`.
        offline: Throughput without a server.
        machine: Of `describe_machine`.
        path: The PNG to write.

    Raises:
        SaveError: The file cannot be written.
    """
    plt = _pyplot()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    best = max(offline, key=lambda row: row["images_per_s"])
    left.axhline(best["images_per_s"], color=GREY, linestyle="--", linewidth=1)
    left.annotate(f"no server, batches of {best['batch']}", (1, best["images_per_s"]), xytext=(0, -10),
                  textcoords="offset points", color=GREY, fontsize=8)  # fmt: skip
    first = rows[0]["request_rows"]
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    for shape, colour in zip(shapes, COLOURS * len(shapes), strict=False):
        closed = [row for row in rows if row["shape"] == shape and row["clients"]]
        for size in dict.fromkeys(row["request_rows"] for row in closed):
            points = [(row["clients"], row["images_per_s"]) for row in closed if row["request_rows"] == size]
            left.plot(*zip(*points, strict=True), "o-" if size == first else "s--", color=colour, markersize=4,
                      label=f"{_words(shape)}, {_faces(size)}")  # fmt: skip
        closed = [row for row in closed if row["request_rows"] == first]
        clients = [row["clients"] for row in closed]
        for key, style, name in PERCENTILES:
            middle.plot(clients, [row[key] for row in closed], style, color=colour, marker=".",
                        label=f"{name}, {_words(shape)}")  # fmt: skip
        right.plot(clients, [row["mean_batch"] for row in closed], "o-", color=colour, label=_words(shape))
    for axis, title, unit in (
        (left, "Throughput", "faces a second"),
        (middle, f"Latency, {_faces(first)}", "ms"),
        (right, f"Mean batch that formed, {_faces(first)}", "faces"),
    ):
        axis.set_xscale("log", base=2)
        ticks = sorted({row["clients"] for row in rows if row["clients"]})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set(title=title, xlabel="clients that wait for their answers", ylabel=unit)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, frameon=False, loc="lower right" if axis is left else "upper left")
        axis.spines[["top", "right"]].set_visible(False)
    where = f"{machine['cores_usable']} cores of {machine['cpu']}, the clients on the same cores"
    figure.suptitle(f"Edits of the face DCGAN through Triton; {where}", fontsize=9)
    save_figure(figure, path, dpi=DPI)
    plt.close(figure)


def plot_soak(samples: Rows, machine: Mapping[str, Any], path: Path) -> None:
    """Draw memory and latency over the number of answers.

    Args:
        samples: Results of `soak.py`.
        machine: Of `describe_machine`.
        path: The PNG to write.

    Raises:
        SaveError: The file cannot be written.
    """
    plt = _pyplot()
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    done = [sample["done"] for sample in samples]
    for (role, name), colour in zip(
        {"model": "model process (ONNX Runtime)", "server": "tritonserver"}.items(), COLOURS, strict=False
    ):
        upper.plot(done, [sample[f"{role}_mib"] for sample in samples], color=colour, label=name)
    upper.set(ylabel="resident memory, MiB", ylim=(0, None))
    timed = [sample for sample in samples if sample["p50_ms"] is not None]
    for key, style, name in (PERCENTILES[0], PERCENTILES[2]):
        lower.plot([sample["done"] for sample in timed], [sample[key] for sample in timed], style, color=COLOURS[2],
                   linewidth=1, label=name)  # fmt: skip
    lower.set(ylabel="latency between samples, ms", xlabel="requests answered", ylim=(0, None))
    for axis in (upper, lower):
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Soak of the served face DCGAN; {machine['cores_usable']} cores of {machine['cpu']}", fontsize=9)
    save_figure(figure, path, dpi=DPI)
    plt.close(figure)


def _words(shape: str) -> str:
    instances, threads = map(int, shape.split("x"))
    return f"{instances} instance{'s' * (instances > 1)} of {threads or 'all'} thread{'s' * (threads != 1)}"


def _faces(rows: int) -> str:
    return f"{rows} face{'s' * (rows > 1)} a request"


def _pyplot() -> Any:
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt
