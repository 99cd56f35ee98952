"""`latentclr eval`, from words to files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from latentclr.commands.notice import RANDOM_NOTICE
from latentclr.compose import parse_overrides
from latentclr.config import TrainConfig
from latentclr.errors import ConfigError
from latentclr.files import replacing
from latentclr.pictures.plots import similarity_map
from latentclr.training.distributed import resolve_device
from latentclr.training.evaluation import Evaluation, evaluate
from latentclr.training.experiment import open_run, trained_step


def run_eval(run: Path, words: Sequence[str]) -> Evaluation:
    """Measure a run, print the table, write `eval.json` and `eval.png` beside the checkpoint.

    Raises:
        LatentCLRError: The run cannot be opened or an override is wrong.
    """
    overrides = parse_overrides(words)
    config, checkpoint = open_run(run, overrides, TrainConfig)
    if config.k == 1:
        raise ConfigError(f"eval compares directions with each other, and {run} has one: look at it with latentclr gen")
    step = trained_step(config, checkpoint, resolve_device(config))
    result = evaluate(step, config.hparams.batch_size, config.eval_iters, config.seed)
    redundancy, other = result.nearest_other()
    rows = [
        {"direction": i, "consistency": round(c, 4), "redundancy": round(r, 4), "most_like": o}
        for i, (c, r, o) in enumerate(
            zip(result.consistency.tolist(), redundancy.tolist(), other.tolist(), strict=True)
        )
    ]
    if step.generator.random_weights:
        click.echo(RANDOM_NOTICE)
    click.echo(f"held-out loss {result.loss:.4f}, accuracy {result.accuracy:.3f} ({result.samples} codes)")
    click.echo("direction  consistency  redundancy  most like")
    for row in sorted(rows, key=lambda row: -row["consistency"]):
        click.echo(
            f"{row['direction']:9d}  {row['consistency']:11.3f}  {row['redundancy']:10.3f}  {row['most_like']:9d}"
        )
    folder = Path(config.output_dir) if "output_dir" in overrides.keys and config.output_dir else checkpoint.path.parent
    report = {
        "checkpoint": checkpoint.path.name,
        "loss": result.loss,
        "accuracy": result.accuracy,
        "samples": result.samples,
        "random_weights": step.generator.random_weights,
        "directions": rows,
        "similarity": [[round(v, 4) for v in row] for row in result.similarity.tolist()],
    }
    with replacing(folder / "eval.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1))
    similarity_map(result, folder / "eval.png", step.generator.random_weights)
    click.echo(f"wrote {folder / 'eval.json'} and {folder / 'eval.png'}")
    return result
