"""Pictures a second of the served faces in float32 and in what `export --precision` certifies, over eager PyTorch.

    python benchmarks/served_precision.py --output benchmarks/results/served_precision.json

Requests of --batch edits, from two clients for each instance, that wait for their answers: while one reads its
pictures, the other's are drawn. The server and they share the cores. Eager PyTorch draws the same requests in this
process, with no server at work. All take turns: every round lets each of them work for --seconds, in a new order.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from common.engines import open_editor, random_rows, torch_engine
from common.machine import describe_machine
from common.promises import EAGER
from common.report import Benchmark, finish, target
from common.timing import calls_per_second, table
from export_model import NAME, train_faces
from load.drive import read_manifest

from export.errors import ExportError
from export.options import TritonOptions
from export.pipeline import export_run
from serving import EditClient, TritonServer
from serving.contract.certificate import GATES
from serving.triton.ports import Ports

ITERATIONS = 20  # of the training; latency does not depend on what directions point at
ENGINES = ("onnxruntime", "openvino")
TIERS = ("openvino int8", "openvino bf16")
AT_LEAST = 1.5  # of what certified pictures in reduced precision are to be over eager
PAUSE_S = 0.1
CLIENTS = 2  # of each instance
COLUMNS = ("way", "images_per_s", "speed_up", "worst_step", "mean_step", "psnr_db", "ssim", "edit_fidelity",
           "gate")  # fmt: skip


@click.command(cls=Benchmark)
@click.option("--run", type=click.Path(path_type=Path), help="Run folder of the face generator instead of a new one.")
@click.option("--tier", "tiers", multiple=True, type=click.Choice(TIERS), help="Only these; all if not given.")
@click.option("--batch", type=click.IntRange(1, 16), default=8, show_default=True, help="Edits of a request.")
@click.option("--instances", type=click.IntRange(1, 64), help="Of each model; as many as there are cores if not given.")
@click.option("--threads", type=click.IntRange(0), default=1, show_default=True, help="Of an instance; 0: all cores.")
@click.option("--rounds", type=click.IntRange(1), default=9, show_default=True, help="Turns of each.")
@click.option("--seconds", type=click.FloatRange(0.05), default=2.0, show_default=True, help="Of a turn.")
@click.option("--note", help="A remark to keep with the numbers.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON here too.")
def main(
    run: Path | None,
    tiers: tuple[str, ...],
    batch: int,
    instances: int | None,
    threads: int,
    rounds: int,
    seconds: float,
    note: str | None,
    output: Path | None,
) -> None:
    """Measure the served faces in every precision that is certified here."""
    start = describe_machine()
    instances = instances or start["cores_usable"]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentclr-bench-")))
        if run is None:
            train_faces(run := folder / "run", ITERATIONS)
        _, _, editor, end = open_editor(run)
        request = random_rows(editor, batch, end, 0)
        options = TritonOptions(instances=instances, threads=threads)
        rows = _publish(run, tiers or TIERS, folder / "models", options)
        server = stack.enter_context(TritonServer(folder / "models", ports=Ports(0, 0, 0)))
        eager = torch_engine(editor, torch.device("cpu"))
        calls: dict[str, list[Callable[[], object]]] = {EAGER: [lambda: eager(*request)]}
        for row in rows:
            several = [
                stack.enter_context(EditClient(server.grpc_url, row["model"])) for _ in range(CLIENTS * instances)
            ]
            calls[row["way"]] = [lambda client=one: client.edit_rows(*request) for one in several]  # type: ignore[misc]
        taken = _rates(calls, batch, rounds, seconds)
    results: list[dict[str, Any]] = []
    for row in [{"way": EAGER}, *rows]:
        ratio = np.median(np.array(taken[row["way"]]) / np.array(taken[EAGER]))
        results.append({**row, "images_per_s": round(float(np.median(taken[row["way"]])), 1),
                        "speed_up": round(float(ratio), 2)})  # fmt: skip
    click.echo(table(results, COLUMNS))
    fastest = max((row["speed_up"] for row in results if row.get("gate") == GATES["certified"].name), default=1.0)
    what = f"faces in batches of {batch}, certified and served: images/s over {EAGER}"
    settings = {"batch": batch, "instances": instances, "threads": threads, "clients": CLIENTS * instances,
                "rounds": rounds, "seconds": seconds, "pause_s": PAUSE_S}  # fmt: skip
    targets = [target(what, fastest, at_least=AT_LEAST)]
    finish("served_precision", start=start, settings=settings, results=results, targets=targets,
           random_weights=False, note=note, output=output)  # fmt: skip


def _publish(run: Path, tiers: Sequence[str], repository: Path, options: TritonOptions) -> list[dict[str, Any]]:
    """Publish the faces in float32 for each engine, and in each tier that holds its gate; return what was certified."""
    export_run(run, [], repository, NAME, engines=ENGINES, options=options, say=click.echo)
    models = {(engine, "fp32"): NAME if engine == ENGINES[0] else f"{NAME}_{engine}" for engine in ENGINES}
    for tier in tiers:
        engine, precision = tier.split()
        name = f"{NAME}_{precision}"
        try:
            export_run(
                run, [], repository, name, engines=[engine], precision=precision, options=options, say=click.echo
            )
        except ExportError as error:
            click.echo(f"{tier}: left out, {error}")
            continue
        models[engine, precision] = name
    rows = []
    for (engine, precision), name in models.items():
        certificate = read_manifest(repository / name).parity[engine]
        rows.append({"way": f"served, {engine} {precision}", "model": name, **certificate})
    return rows


def _rates(
    calls: Mapping[str, Sequence[Callable[[], object]]], batch: int, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Return name -> images a second in each round, of functions that work side by side, each in its own thread."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    shuffle = random.Random(0)
    for _ in range(rounds):
        for name in shuffle.sample(list(calls), len(calls)):
            time.sleep(PAUSE_S)  # thread pools of the one before go on spinning for some milliseconds
            rates[name].append(batch * calls_per_second(calls[name], seconds, warm_up_s=seconds / 5))
    return rates


if __name__ == "__main__":
    main()
