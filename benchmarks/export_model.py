"""Export a model for `edit_latency.py` in a process of its own, and say how much memory and time that took.

    python benchmarks/export_model.py outputs/bench-stylegan2 --generator stylegan2 --resolution 1024

Faces get a short training run. For the large generators directions as they are before training are as good: latency
does not depend on what they point at.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from common.memory import peak_kib
from common.report import Benchmark, BenchmarkError, child_environment, run_latentclr

from export.pipeline import export_run
from latentclr.compose import plain
from latentclr.config import (
    BigGANConfig,
    DCGANConfig,
    GeneratorConfig,
    ModelConfig,
    StyleGAN2Config,
    TrainConfig,
)
from latentclr.files import replacing
from latentclr.generators.registry import build_generator
from latentclr.generators.stylegan3.config import StyleGAN3Config
from latentclr.training.checkpoint import make_directions, make_projector, save_checkpoint
from latentclr.training.rng import stream
from serving.contract.layout import DEFAULT_MODEL

NAME = DEFAULT_MODEL
FACES = ("k=16", "generator=dcgan", "model=nonlinear", "model.alpha=[-3.0,+3.0]", "hparams.batch_size=8",
         "eval_iters=2", "tensorboard=false")  # fmt: skip
RESOLUTIONS = {"dcgan": 64, "biggan": 128, "stylegan2": 256, "stylegan3": 256, "stylegan3-r": 256}  # if none is given
RECORD = "export.json"


@click.command(cls=Benchmark)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--generator", type=click.Choice(list(RESOLUTIONS)), default="dcgan", show_default=True, help="Which.")
@click.option("--resolution", type=click.IntRange(1), help=f"Of the pictures; {RESOLUTIONS} if not given.")
@click.option("--run", type=click.Path(path_type=Path), help="Run folder to export instead of a new one.")
@click.option("--max-batch-size", type=click.IntRange(1), default=8, show_default=True, help="Of the served model.")
@click.option("--proof", type=click.IntRange(1), default=200, show_default=True,
              help="Edited pictures of the export's proof; a published model's has 200.")  # fmt: skip
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="0 for PyTorch's own choice.")
def main(
    folder: Path,
    generator: str,
    resolution: int | None,
    run: Path | None,
    max_batch_size: int,
    proof: int,
    threads: int,
) -> None:
    """Make a run and export it to FOLDER/models; end in one JSON line."""
    if threads:
        torch.set_num_threads(threads)
    resolution = resolution_of(generator, resolution)
    new = run is None
    if run is None:
        run = folder / "run"
        if generator == "dcgan":
            train_faces(run, 20, threads)
        else:
            write_untrained(run, generator, resolution)
    start = time.perf_counter()
    versions = export_run(run, [], folder / "models", NAME, max_batch_size=max_batch_size, edited=proof, say=click.echo)
    record: dict[str, Any] = {
        "run": str(run.resolve()),
        "directions": "untrained" if new and generator != "dcgan" else "trained",
        "max_batch_size": max_batch_size,
        "files": {path.name: str(path.resolve()) for version in versions for path in version.glob("model.*")},
        "export_s": round(time.perf_counter() - start, 1),
        "export_peak_mib": round(peak_kib() / 1024),
    }
    with replacing(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record))
    click.echo(json.dumps(record))


def resolution_of(generator: str, resolution: int | None) -> int:
    """Return what --resolution came to.

    Raises:
        BenchmarkError: The faces have no such resolution.
    """
    resolution = resolution or RESOLUTIONS[generator]
    if generator == "dcgan" and resolution != RESOLUTIONS["dcgan"]:
        raise BenchmarkError(f"--resolution: the faces have {RESOLUTIONS['dcgan']} pixels, got {resolution}")
    return resolution


def export_apart(
    folder: Path, generator: str, resolution: int | None, run: Path | None, max_batch_size: int, threads: int
) -> dict[str, Any]:
    """Run this script in a process of its own, unless the folder holds an export already; return its record.

    Raises:
        BenchmarkError: The export failed, or what is there is for smaller batches.
    """
    if (folder / RECORD).is_file():
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
        if record["max_batch_size"] < max_batch_size:
            raise BenchmarkError(f"{folder} holds an export for batches up to {record['max_batch_size']}: take another")
        return record
    options = {"--generator": generator, "--resolution": resolution, "--run": run,
               "--max-batch-size": max_batch_size, "--threads": threads}  # fmt: skip
    words = [str(word) for pair in options.items() if pair[1] is not None for word in pair]
    command = [sys.executable, __file__, str(folder), *words]
    with subprocess.Popen(
        command, env=child_environment(threads), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        output, errors = process.communicate()
    lines = output.strip().splitlines()
    if process.returncode or not lines:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise BenchmarkError(f"the export failed: {last.removeprefix('Error: ')}")
    for line in lines[:-1]:
        click.echo(line)
    record = json.loads(lines[-1])
    return record


def train_faces(run: Path, iterations: int, threads: int = 0) -> None:
    """Train directions of the faces, as README does in 400 iterations.

    Raises:
        BenchmarkError: The training failed.
    """
    words = ["train", *FACES, f"hparams.iterations={iterations}", f"output_dir={run}"]
    run_latentclr(words, "the short training run failed", threads=threads)


def write_untrained(run: Path, name: str, resolution: int) -> None:
    """Write a run folder of a generator with directions as they are before training.

    Args:
        run: The folder.
        name: `dcgan` (the faces, with their weights), or `biggan`, `stylegan2`, `stylegan3`
            or `stylegan3-r` with seeded random ones.
        resolution: Of its pictures.
    """
    alpha = [-3.0, 3.0] if name in ("biggan", "dcgan") else 1.0
    generators: dict[str, Callable[[], GeneratorConfig]] = {
        "dcgan": DCGANConfig,
        "biggan": lambda: BigGANConfig(resolution=resolution, weights="random"),
        "stylegan2": lambda: StyleGAN2Config(weights=f"random:{resolution}"),
        "stylegan3": lambda: StyleGAN3Config(weights=f"random:{resolution}"),
        "stylegan3-r": lambda: StyleGAN3Config(weights=f"random:{resolution}", configuration="r"),
    }
    # K = 2: an edit's cost does not grow with K, but the export's proof of parity does.
    config = TrainConfig(generator=generators[name](), model=ModelConfig(name="nonlinear", alpha=alpha), k=2)
    generator = build_generator(config.generator)
    rng = stream(config.seed, "init")
    directions = make_directions(plain(config), config.k, generator.latent.dim, rng)
    run.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        run / "best.safetensors", directions.eval(), make_projector(plain(config), 1, rng),
        config=plain(config), generator=generator, iteration=0, loss=None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
