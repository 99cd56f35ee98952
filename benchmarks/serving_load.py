"""Put the served face editor under load: 1 to 32 clients that wait for their answers, and arrivals that do not wait.

    python benchmarks/serving_load.py --output benchmarks/results/serving_load.json \
        --csv benchmarks/results/serving_load.csv --plot docs/load.png

Requests hold one edit, or as many as a walk along a direction has. What a bare ONNX Runtime does with full batches and
no server is measured in the same run, before and after. Triton's own counters say how long requests queued and which
batches formed; the requests of its warm-up are not among them, for the counters are read at both ends of each
measurement. The generator of the load runs on the same cores as the server: its share of them is in the table too.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from common.machine import describe_machine
from common.report import Benchmark, BenchmarkError, Numbers, finish, target
from common.timing import table
from export_model import NAME
from load.drive import Shape, Shapes, drive, find_model, newest_file, read_manifest, serve
from load.generator import Plan
from load.offline import Feed, join, throughput
from load.plot import plot_load
from load.requests import prepare
from tqdm import tqdm

from latentclr.files import replacing

REQUESTS = 256
CLIENTS = 16  # of the promises
THROUGHPUT_SHARE, TAIL = 0.9, 5.0
COLUMNS = ("shape", "request_rows", "clients", "rate", "images_per_s", "p50_ms", "p90_ms", "p99_ms", "max_ms",
           "mean_batch", "queue_ms", "compute_ms", "generator_cpu", "errors")  # fmt: skip
# As perf_analyzer's latency report has them, in microseconds; it measures one kind of load at a time, so it has
# no column for the batch, and either of the next two.
CSV = ("Batch", "Concurrency", "Request Rate", "Inferences/Second", "Client Send", "Network+Server Send/Recv",
       "Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output", "Client Recv",
       "p50 latency", "p90 latency", "p95 latency", "p99 latency", "Avg latency")  # fmt: skip


@click.command(cls=Benchmark)
@click.option("--run", type=click.Path(path_type=Path), help="Run folder of the face generator instead of a new one.")
@click.option("--repository", type=click.Path(path_type=Path), help=f"Repository that holds {NAME}, not a new one.")
@click.option("--clients", type=Numbers(), default="1,2,4,8,16,32", show_default=True, help="Closed-loop clients.")
@click.option("--rows", "sizes", type=Numbers(), default="1,8", show_default=True,
              help="Edits in a request; arrivals are of the first.")  # fmt: skip
@click.option("--rates", default="0.5,0.8", show_default=True,
              help="Poisson arrivals, as parts of the closed loop's best throughput; empty for none.")  # fmt: skip
@click.option("--shapes", type=Shapes(), default="1x0,2x1", show_default=True,
              help="INSTANCESxTHREADS to serve with; 0 threads: all cores.")  # fmt: skip
@click.option("--max-batch-size", type=click.IntRange(1), default=16, show_default=True, help="Of the server.")
@click.option("--seconds", type=click.FloatRange(0.2), default=8.0, show_default=True, help="Of each measurement.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path, dir_okay=False), help="Write rows here too.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw a picture here.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    run: Path | None,
    repository: Path | None,
    clients: tuple[int, ...],
    sizes: tuple[int, ...],
    rates: str,
    shapes: tuple[Shape, ...],
    max_batch_size: int,
    seconds: float,
    note: str | None,
    csv_path: Path | None,
    plot: Path | None,
    output: Path | None,
) -> None:
    """Measure throughput and latency of the served face editor under load."""
    parts, start = _parts(rates), describe_machine()
    with tempfile.TemporaryDirectory(prefix="latentclr-bench-") as temporary:
        folder = Path(temporary)
        model = find_model(run, repository, folder / "export", max_batch_size)
        path, manifest = newest_file(model), read_manifest(model)
        files = {rows: folder / f"requests_{rows}.npz" for rows in sizes}
        feeds = [prepare(path, NAME, manifest, file, count=REQUESTS, sizes=(rows,)) for rows, file in files.items()]
        batches = [2**i for i in range(max_batch_size.bit_length())]
        rows: list[dict[str, Any]] = []
        total = len(shapes) * (2 * len(batches) + len(sizes) * len(clients) + len(parts))
        with tqdm(total=total, unit="load", disable=None) as bar:
            before = _offline(path, shapes, feeds[0], batches, seconds / 2, bar)
            for shape in shapes:
                with serve(model, folder / "served", shape, max_batch_size) as served:
                    for size, file in files.items():
                        plan = Plan(served.url, NAME, str(file), seconds=seconds, pids=served.pids)
                        found = _loads(plan, clients, parts if size == sizes[0] else (), bar)
                        rows += [{"shape": str(shape), "request_rows": size, **row} for row in found]
            after = _offline(path, shapes, feeds[0], batches, seconds / 2, bar)
    offline = [
        {**first, "images_per_s": max(first["images_per_s"], last["images_per_s"])}
        for first, last in zip(before, after, strict=True)
    ]
    click.echo(table(offline, ("shape", "batch", "images_per_s")))
    click.echo(table(rows, COLUMNS))
    if csv_path is not None:
        _write_csv(rows, csv_path)
    if plot is not None:
        plot_load(rows, offline, start, plot)
    settings = {"shapes": [str(shape) for shape in shapes], "clients": clients, "rows": sizes, "rates": parts,
                "seconds": seconds, "max_batch_size": max_batch_size, "requests": REQUESTS,
                "offline": offline}  # fmt: skip
    finish("serving_load", start=start, settings=settings, results=rows, targets=_targets(rows, offline),
           random_weights=False, note=note, output=output)  # fmt: skip


def _parts(text: str) -> tuple[float, ...]:
    try:
        parts = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        parts = (0.0,)
    if not all(0 < part < 2 for part in parts):
        raise BenchmarkError(f"--rates: expected numbers in (0, 2) such as 0.5,0.8, got {text!r}")
    return parts


def _offline(
    path: Path, shapes: Sequence[Shape], feeds: list[Feed], batches: Sequence[int], seconds: float, bar: Any
) -> list[dict[str, Any]]:
    rows = []
    for shape in shapes:
        for batch in batches:
            images = throughput(path, shape, join(feeds, batch), seconds)
            rows.append({"shape": str(shape), "batch": batch, "images_per_s": round(images, 1)})
            bar.update()
    return rows


def _loads(plan: Plan, clients: Sequence[int], parts: Sequence[float], bar: Any) -> list[dict[str, Any]]:
    rows = []
    for count in clients:
        rows.append(_row(count, None, drive(replace(plan, clients=count))))
        bar.update()
    best = max(row["requests_per_s"] for row in rows)
    for part in parts:
        rate = round(part * best, 1)
        rows.append(_row(None, rate, drive(replace(plan, rate=rate))))
        bar.update()
    return rows


def _row(clients: int | None, rate: float | None, figures: dict[str, Any]) -> dict[str, Any]:
    server, cpu = figures["server"], figures["cpu_ms_per_request"]
    return {
        "clients": clients,
        "rate": rate,
        **figures,
        "queue_ms": server["queue_ms"],
        "compute_ms": round(sum(server[f"compute_{part}_ms"] for part in ("input", "infer", "output")), 3),
        "generator_cpu": round(cpu["generator"] / sum(cpu.values()), 3),
    }


def _targets(rows: Sequence[Mapping[str, Any]], offline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    targets = [target("requests with an error", sum(row["errors"] for row in rows), at_most=0)]
    for size in dict.fromkeys(row["request_rows"] for row in rows):
        at = [row for row in rows if (row["clients"], row["request_rows"]) == (CLIENTS, size)]
        if not at:
            continue
        served = max(at, key=lambda row: row["images_per_s"])
        batch = min((row["batch"] for row in offline), key=lambda formed: abs(formed - served["mean_batch"]))
        best = max(row["images_per_s"] for row in offline if row["batch"] == batch)
        what = f"{CLIENTS} clients, requests of {size}, {served['shape']}"
        targets += [
            target(f"{what}: images/s over the best offline at batch {batch}", served["images_per_s"] / best,
                   at_least=THROUGHPUT_SHARE),
            target(f"{what}: p99 over p50", served["p99_ms"] / served["p50_ms"], at_most=TAIL),
        ]  # fmt: skip
    return targets


def _write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV)
        for row in rows:
            server = row["server"]
            inside = sum(server.values())
            ms = [0.0, row["mean_ms"] - inside - row["unpacking_ms"], *server.values(), row["unpacking_ms"],
                  row["p50_ms"], row["p90_ms"], row["p95_ms"], row["p99_ms"], row["mean_ms"]]  # fmt: skip
            load = [row["request_rows"], row["clients"] or "", row["rate"] or "", row["requests_per_s"]]
            writer.writerow([*load, *(round(max(0.0, value) * 1e3) for value in ms)])


if __name__ == "__main__":
    main()
