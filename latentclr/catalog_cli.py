"""`latentclr name`, `names` and `import`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from latentclr.errors import ConfigError, nearest


@click.command("name")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("name", metavar="NAME")
@click.option("--direction", type=click.IntRange(0), help="Index of the direction.")
@click.option("--layers", help="Latent inputs that receive the edit: 4-5 or 0,2,5-7.  [default: all]")
@click.option("--alpha", metavar="LOW..HIGH", help="How far its slider reaches.  [default: the run's range]")
@click.option("--note", default="", help="What the name does not say.")
@click.option("--remove", is_flag=True, help="Take the name away.")
def name(
    run: Path, name: str, direction: int | None, layers: str | None, alpha: str | None, note: str, remove: bool
) -> None:
    """Give a direction of RUN a name, in RUN/catalog.yaml; a name that exists is replaced.

    `gen`, `export`, `edit` and the studio understand it.

    \b
    Examples:
      latentclr name outputs/ffhq smile --direction 28 --layers 4-5 --alpha -7..7
      latentclr name outputs/ffhq smile --remove
    """
    from latentclr.catalog import NamedEdit, check_name, fitting_edits, write_catalog
    from latentclr.config import TrainConfig, slider_end
    from latentclr.experiment import catalog_of, open_run

    config, checkpoint = open_run(run, [], TrainConfig)
    folder = checkpoint.path.parent
    # Names that came with one of the origin's checkpoints become the run's own with the first one given or taken.
    edits, _ = catalog_of(config, checkpoint)
    name = check_name(name)
    if remove:
        if direction is not None or layers is not None or alpha is not None or note:
            raise ConfigError("--remove takes no other option")
        if name not in edits:
            raise ConfigError(f"{folder} names no edit {name!r}{nearest(name, edits)}")
        del edits[name]
        write_catalog(folder, edits)
        click.echo(f"removed {name}")
        return
    if direction is None:
        raise ConfigError("expected --direction N, or --remove")
    end = slider_end(config.model.alpha)
    chosen = () if layers is None else parse_layers(layers)
    edit = NamedEdit(direction, chosen, (-end, end) if alpha is None else parse_alpha(alpha), " ".join(note.split()))
    _, problems = fitting_edits({name: edit}, checkpoint.directions.k, checkpoint.generator.get("layers"))
    if problems:  # of one's own words nothing is dropped
        raise ConfigError(problems[0].rpartition(": ")[0])
    done = "replaced" if name in edits else "named"
    write_catalog(folder, {**edits, name: edit})
    click.echo(f"{done} {name}: {_describe(edit)}")


@click.command("names")
@click.argument("run", type=click.Path(path_type=Path))
def names(run: Path) -> None:
    """List the named edits of RUN."""
    from latentclr.config import TrainConfig
    from latentclr.experiment import named_edits, open_run

    config, checkpoint = open_run(run, [], TrainConfig)
    edits, problems = named_edits(config, checkpoint, checkpoint.generator.get("layers"))
    for problem in problems:
        click.echo(problem, err=True)
    if not edits:
        click.echo(f"{run} names no edits; give one a name: latentclr name {run} NAME --direction N")
        return
    rows = [("name", "direction", "layers", "alpha", "note")]
    rows += [
        (name, str(e.direction), _ranges(e.layers), f"{e.alpha[0]:g}..{e.alpha[1]:g}", e.note)
        for name, e in edits.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


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
    from latentclr.checkpoint import ORIGIN_BEST, ORIGIN_LAST, find_checkpoint, holds_run, write_checkpoint
    from latentclr.compose import compose_run, save_config
    from latentclr.config import TrainConfig
    from latentclr.errors import CheckpointError
    from latentclr.experiment import named_edits
    from latentclr.origin_run import read_origin_run

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


def parse_layers(text: str) -> tuple[int, ...]:
    """Read layer numbers and ranges, both ends included: `4-5` or `0,2,5-7`.

    Raises:
        ConfigError: a part is neither.
    """
    layers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise ConfigError(f"--layers must be like 4-5 or 0,2,5-7, got {text!r}")
        layers |= set(range(first, last + 1))
    return tuple(sorted(layers))


def parse_alpha(text: str) -> tuple[float, float]:
    """Read `LOW..HIGH`.

    Raises:
        ConfigError: it is not two finite numbers, the lower one first.
    """
    low, dots, high = text.partition("..")
    try:
        alpha = float(low), float(high)
    except ValueError:
        alpha = (0.0, 0.0)
    if not dots or not float("-inf") < alpha[0] < alpha[1] < float("inf"):
        raise ConfigError(f"--alpha must be LOW..HIGH such as -7..7, got {text!r}")
    return alpha


def _ranges(layers: tuple[int, ...]) -> str:
    """Write layers as --layers takes them."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts) or "all"


def _describe(edit: object) -> str:
    from latentclr.catalog import NamedEdit

    assert isinstance(edit, NamedEdit)
    layers = "all layers" if not edit.layers else f"layers {_ranges(edit.layers)}"
    return f"direction {edit.direction}, {layers}, alpha {edit.alpha[0]:g}..{edit.alpha[1]:g}"
