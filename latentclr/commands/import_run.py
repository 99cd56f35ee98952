"""`latentclr import`: a run of the origin's trainer as one of ours."""

from __future__ import annotations

from pathlib import Path

import click

from latentclr.errors import ConfigError


@click.command("import")
@click.argument("origin_run", type=click.Path(path_type=Path))
@click.argument("out_run", type=click.Path(path_type=Path))
@click.option("--names/--no-names", "with_names", default=True,
              help="Take the authors' names, if it is a checkpoint they published.  [default: names]")  # fmt: skip
def import_(origin_run: Path, out_run: Path, with_names: bool) -> None:
    """Rewrite ORIGIN_RUN, a run of the origin's trainer, as our run folder OUT_RUN.

    ORIGIN_RUN holds best_model.pt (or model.pt, final_model.pt, most_recent.pt) and .hydra/config.yaml or config.yaml.
    `eval`, `gen` and `export` open such a folder directly too.

    \b
    Example:
      latentclr import outputs/run/train/2021-09-01 outputs/ffhq
    """
    from latentclr.catalog import write_catalog
    from latentclr.compose import compose_run, save_config
    from latentclr.config import TrainConfig
    from latentclr.errors import CheckpointError
    from latentclr.origin.run import read_origin_run
    from latentclr.training.checkpoint import ORIGIN_BEST, ORIGIN_LAST, find_checkpoint, holds_run, write_checkpoint
    from latentclr.training.experiment import named_edits

    if holds_run(out_run):
        raise ConfigError(f"{out_run} already holds a run; choose another folder")
    found = find_checkpoint(origin_run)
    if found.suffix == ".safetensors":
        raise CheckpointError(f"{origin_run} is our own run already")
    last = [origin_run / file for file in ORIGIN_LAST if found.name in ORIGIN_BEST and (origin_run / file).is_file()]
    # Everything is read before anything is written.
    targets = {"best": read_origin_run(found, origin_run)}
    if last:
        targets["last"] = read_origin_run(last[0], origin_run)
    checkpoint, notes = targets["best"]
    config = compose_run(checkpoint.config, [], TrainConfig)
    edits, problems = named_edits(config, checkpoint, checkpoint.generator["layers"]) if with_names else ({}, [])
    for target, (read, _) in targets.items():
        write_checkpoint(out_run / f"{target}.safetensors", read)
    save_config(config, out_run)
    if edits:
        write_catalog(out_run, edits)
    for note in [*notes, *problems]:
        click.echo(note)
    d = checkpoint.directions
    click.echo(f"imported {found}: {d.k} {d.kind} directions over {d.dim} values, {len(edits)} named edits: {out_run}")
