"""`latentclr name` and `latentclr names`."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latentclr.errors import ConfigError, nearest
from serving.contract.layers import parse_layers, show_layers
from serving.contract.layout import DEFAULT_MODEL

if TYPE_CHECKING:
    from latentclr.config import TrainConfig
    from latentclr.training.checkpoint import Checkpoint


@click.command("name")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--direction", type=click.IntRange(0), help="Index of the direction.")
@click.option("--layers", help="Latent inputs that receive the edit: 4-5 or 0,2,5-7.  [default: the run's feed_layers]")
@click.option(
    "--alpha", metavar="LOW..HIGH", help="How far its slider reaches.  [default: as scored, else the run's range]"
)
@click.option("--reverse", is_flag=True, help="More of what it names is against the direction.")
@click.option("--note", default="", help="What the name does not say.")
@click.option("--move", is_flag=True, help="Take the name from the direction that has it.")
@click.option("--remove", is_flag=True, help="Take the name away.")
@click.option("--auto", is_flag=True, help="Take the names that `latentclr score RUN` proposed.")
@click.option(
    "--min-effect",
    type=click.FloatRange(0),
    metavar="SD",
    help="With --auto: lower end of the effect's interval, at equal change.  [default: 0.5]",
)
@click.option(
    "--min-purity",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="With --auto: largest effect / sum of all.  [default: 0.15]",
)
@click.option("--min-agreement", type=click.FloatRange(0, 1), metavar="SHARE",
              help="With --auto: share of codes on which the sign agrees.  [default: 0.9]")  # fmt: skip
def name(
    run: Path,
    name: str | None,
    direction: int | None,
    layers: str | None,
    alpha: str | None,
    reverse: bool,
    note: str,
    move: bool,
    remove: bool,
    auto: bool,
    min_effect: float | None,
    min_purity: float | None,
    min_agreement: float | None,
) -> None:
    """Give a direction of RUN a name, in RUN/catalog.yaml.

    `gen`, `export` and `studio RUN` understand it; `latentclr names RUN --publish` brings it to a model that is served
    already. A name that the direction has is replaced; one that another direction has needs --move.

    With --auto, directions that a score found clear enough are named after what they do: + is more of it, over the
    range that was measured, with the evidence as note. What was named by hand stays.

    \b
    Examples:
      latentclr name outputs/ffhq smile --direction 28 --layers 4-5 --alpha -7..7
      latentclr name outputs/ffhq smile --direction 29 --move
      latentclr name outputs/ffhq smile --remove
      latentclr name outputs/ffhq --auto
    """
    from latentclr.catalog import NamedEdit, check_name, fitting_edits, update_catalog
    from latentclr.config import TrainConfig, slider_end
    from latentclr.scores.report import read_scores
    from latentclr.training.experiment import catalog_of, open_run
    from serving.contract.catalog import understand, without
    from serving.contract.named_edit import entry_of

    limits = {"effect": min_effect, "purity": min_purity, "agreement": min_agreement}
    if auto:
        if name is not None or direction is not None or layers or alpha or reverse or note or move or remove:
            raise ConfigError("--auto takes no name, and no option but --min-effect, --min-purity and --min-agreement")
        from latentclr.commands.auto_names import name_by_score

        return name_by_score(run, **limits)
    if name is None:
        raise click.UsageError("expected a name, or --auto")
    if any(limit is not None for limit in limits.values()):
        raise ConfigError("--min-effect, --min-purity and --min-agreement need --auto")
    config, checkpoint = open_run(run, [], TrainConfig, closed=True)
    folder = checkpoint.path.parent
    name = unicodedata.normalize("NFC", name) if remove else check_name(name)  # what should never have been one can go

    def standing(entries: dict[Any, Any]) -> dict[Any, Any]:
        # Names that came with one of the origin's checkpoints become the run's own with the first one given or taken.
        return entries or {known: entry_of(edit) for known, edit in catalog_of(config, checkpoint)[0].items()}

    def drop(entries: dict[Any, Any]) -> Mapping[Any, Any]:
        entries = standing(entries)
        left = without(entries, name)
        if len(left) == len(entries):
            raise ConfigError(f"{folder} names no edit {name!r}{nearest(name, understand(entries).edits)}")
        return left

    if remove:
        if direction is not None or layers is not None or alpha is not None or reverse or note or move:
            raise ConfigError("--remove takes no other option")
        update_catalog(folder, drop)
        click.echo(f"removed {name}")
        return
    if direction is None:
        raise ConfigError("expected --direction N, or --remove")
    end = slider_end(config.model.alpha)
    chosen = () if layers is None else parse_layers(layers)
    scores = read_scores(folder, checkpoint.sha256) if alpha is None else None
    reach = (-end, end) if alpha is None else parse_alpha(alpha)
    if scores is not None and direction < len(scores.directions):
        low, high = scores.directions[direction].slider
        reach = (-high, -low) if reverse else (low, high)
    edit = NamedEdit(direction, chosen, reach, note, reverse)
    _, problems = fitting_edits({name: edit}, checkpoint.directions.k, checkpoint.generator.get("layers"))
    if problems:  # of one's own words nothing is dropped
        raise ConfigError(problems[0].rpartition(": ")[0])
    done = "named"

    def put(entries: dict[Any, Any]) -> Mapping[Any, Any]:
        nonlocal done
        entries = standing(entries)
        before = understand(entries).edits.get(name)
        if before is not None and before.direction != edit.direction and not move:
            raise ConfigError(f"{name} is {_describe(before)}; --move gives the name to direction {edit.direction}")
        done = "named" if before is None else "replaced" if before.direction == edit.direction else "moved"
        return {**without(entries, name), name: entry_of(edit)}

    update_catalog(folder, put)
    click.echo(f"{done} {name}: {_describe(edit)}")


@click.command("names", context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--publish", is_flag=True, help="Make them the names of a model that was exported from RUN.")
@click.option("--repository", type=click.Path(path_type=Path, file_okay=False), default=Path("model_repository"),
              help="With --publish: its Triton model repository.")  # fmt: skip
@click.option("--name", default=DEFAULT_MODEL, help="With --publish: the model; its TorchScript twin goes along.")
@click.option("--force", is_flag=True, help="With --publish: also if the model was exported from another run.")
def names(run: Path, publish: bool, repository: Path, name: str, force: bool) -> None:
    """List the named edits of RUN, or bring them to a model that is published already.

    The run's catalog is the truth: with --publish the model's names become the run's. Weights and versions stay. A
    server that polls (`latentclr serve --poll 2`) takes the names up, another one when it starts again.

    \b
    Example:
      latentclr names outputs/faces --publish --repository model_repository --name latent_edit
    """
    from latentclr.config import TrainConfig
    from latentclr.training.experiment import named_edits, open_run

    config, checkpoint = open_run(run, [], TrainConfig, closed=True)
    if publish:
        for line in publish_names(config, checkpoint, repository, name, force):
            click.echo(line)
        return
    if force:
        raise ConfigError("--force needs --publish")
    edits, problems = named_edits(config, checkpoint, checkpoint.generator.get("layers"))
    for problem in problems:
        click.echo(problem, err=True)
    if not edits:
        click.echo(f"{run} names no edits; give one a name: latentclr name {run} NAME --direction N")
        return
    rows = [("name", "direction", "layers", "alpha", "note")]
    rows += [
        (
            name,
            f"{e.direction}{' reversed' * e.reverse}",
            show_layers(e.layers),
            f"{e.alpha[0]:g}..{e.alpha[1]:g}",
            e.note,
        )
        for name, e in edits.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def publish_names(
    config: TrainConfig, checkpoint: Checkpoint, repository: Path, name: str, force: bool = False
) -> list[str]:
    """Make a run's named edits those of a published model.

    Args:
        config: The run's configuration.
        checkpoint: The run's checkpoint.
        repository: Where the model is.
        name: Of the model; its TorchScript twin goes along.
        force: Also if the model was exported from another run's checkpoint.

    Returns:
        A line for each thing that was done or left out.

    Raises:
        ConfigError: The model is another run's.
        ServingError: There is no such model, or it cannot be written.
    """
    from latentclr.training.experiment import named_edits
    from serving.contract.manifest import edit_entry
    from serving.contract.published import PublishedModel, holds_checkpoint

    model = PublishedModel(repository, name)
    count, layers = model.sizes()
    manifest, folder = model.manifest(), checkpoint.path.parent
    if not (force or holds_checkpoint(folder, manifest)):
        has = str(manifest["directions"].get("checkpoint_sha256") or "unknown")[:12]
        raise ConfigError(
            f"{name} in {repository} was exported from another checkpoint (SHA-256 {has}...) than those in "
            f"{folder}, and names fit no other directions; export the run again, or --force"
        )
    edits, lines = named_edits(config, checkpoint, layers)
    if force:
        from latentclr.catalog import fitting_edits

        edits, beyond = fitting_edits(edits, count, layers)
        lines += beyond
    after = {key: edit_entry(edit) for key, edit in edits.items()}

    def change(before: dict[str, Any]) -> Mapping[str, Any]:
        lines.extend(f"{key}: no longer a name of {name}" for key in before if key not in after)
        for key, entry in after.items():
            old, now = (e.get("direction") if e else None for e in (before.get(key), entry))
            done = f"moved from direction {old} to" if old not in (None, now) else "direction"
            if before.get(key) != entry:
                lines.append(f"{key}: {done} {now}")
        return after

    model.update(change)
    lines.append(f"{name} in {repository} has the names: {', '.join(after) or 'none'}")
    return lines


def parse_alpha(text: str) -> tuple[float, float]:
    """Read `LOW..HIGH`.

    Raises:
        ConfigError: It is not two finite numbers, the lower one first.
    """
    low, dots, high = text.partition("..")
    try:
        alpha = float(low), float(high)
    except ValueError:
        alpha = (0.0, 0.0)
    if not dots or not float("-inf") < alpha[0] < alpha[1] < float("inf"):
        raise ConfigError(f"--alpha must be LOW..HIGH such as -7..7, got {text!r}")
    return alpha


def _describe(edit: object) -> str:
    from latentclr.catalog import NamedEdit

    assert isinstance(edit, NamedEdit)
    layers = "all layers" if not edit.layers else f"layers {show_layers(edit.layers)}"
    reverse = " reversed" if edit.reverse else ""
    return f"direction {edit.direction}{reverse}, {layers}, alpha {edit.alpha[0]:g}..{edit.alpha[1]:g}"
