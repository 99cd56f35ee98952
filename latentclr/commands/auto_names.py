"""`latentclr name RUN --auto`: the names that a run's score proposes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from latentclr.catalog import NamedEdit, update_catalog
from latentclr.config import TrainConfig
from latentclr.errors import CheckpointError, ConfigError
from latentclr.scores.report import SCORE_FILE, RunScores, Thresholds, load_scores, with_names
from latentclr.training.experiment import catalog_of, open_run
from serving.contract.catalog import understand
from serving.contract.named_edit import entry_of


def name_by_score(run: Path, **limits: float | None) -> None:
    """Write the names that a run's score proposes into its catalog, with the evidence in the note.

    Names and directions that somebody named by hand stay as they are. What an earlier call wrote, and nobody has
    changed since, is replaced.

    Args:
        run: The run folder.
        limits: Fields of `Thresholds`; None for the score's own.

    Raises:
        LatentCLRError: The run cannot be opened, was not scored, or was scored by another version or for another
            checkpoint; or no name is left because its scorers trust too few pictures.
    """
    config, checkpoint = open_run(run, [], TrainConfig, closed=True)
    folder = checkpoint.path.parent
    scores = load_scores(folder / SCORE_FILE)
    if scores.run.checkpoint_sha256 != checkpoint.sha256:
        raise CheckpointError(
            f"{folder / SCORE_FILE} is of another checkpoint; score the run again: latentclr score {run}"
        )
    scores = with_thresholds(scores, limits)
    proposals = proposed_edits(scores)
    mistrusted = [
        f"{s.name} trusts {s.trusted:.0%} of the unedited pictures and names nothing" for s in scores.mistrusted
    ]
    if mistrusted and not proposals:
        raise ConfigError(f"{run}: {', '.join(mistrusted)}; and no other scorer's attribute is clear enough")
    lines: list[str] = []

    def change(entries: dict[Any, Any]) -> Mapping[Any, Any]:
        entries = entries or {known: entry_of(edit) for known, edit in catalog_of(config, checkpoint)[0].items()}
        edits = understand(entries).edits
        automatic = {name for name, edit in edits.items() if is_automatic(edit)}
        kept = {key: entry for key, entry in entries.items() if str(key) not in automatic}
        taken = {edits[name].direction: name for name in edits if name not in automatic}
        by_hand = {str(key).casefold() for key in kept}
        for name, edit in proposals.items():
            if edit.direction in taken:
                lines.append(f"direction {edit.direction} stays {taken[edit.direction]}: it was named by hand")
            elif name.casefold() in by_hand:
                lines.append(
                    f"{name} stays what it is: it was named by hand (the score says direction {edit.direction})"
                )
            else:
                kept[name] = entry_of(edit)
                lines.append(f"{name}: {edit.note}")
        return kept

    update_catalog(folder, change)
    for line in [*mistrusted, *lines]:
        click.echo(line)
    limit = scores.settings.thresholds
    click.echo(
        f"{len(proposals)} of {len(scores.directions)} directions are clear enough (effect {limit.effect:g} sd,"
        f" purity {limit.purity:g}, sign agreement {limit.agreement:.0%}); the others keep their numbers"
    )


def with_thresholds(scores: RunScores, limits: Mapping[str, float | None]) -> RunScores:
    """Propose names under other thresholds.

    Args:
        scores: What was measured.
        limits: Fields of `Thresholds`; None for the score's own.
    """
    given = {key: value for key, value in limits.items() if value is not None}
    thresholds: Thresholds = dataclasses.replace(scores.settings.thresholds, **given)
    settings = dataclasses.replace(scores.settings, thresholds=thresholds)
    return with_names(dataclasses.replace(scores, settings=settings))


def proposed_edits(scores: RunScores) -> dict[str, NamedEdit]:
    """Return the proposals as named edits: oriented, in their ranges, with the evidence as note."""
    edits = {}
    for k, direction in enumerate(scores.directions):
        named_after = scores.naming(direction)
        if not direction.name or named_after is None:
            continue
        _, effect = named_after
        low, high = direction.slider
        if direction.reverse:
            low, high = -high, -low
        evidence = (
            f"{abs(effect.mean):.2f}±{(effect.high - effect.low) / 2:.2f} sd, purity {direction.purity:.2f}, "
            f"signs {effect.agreement:.0%}"
        )
        edits[direction.name] = NamedEdit(k, (), (low, high), _head(k, low, high) + evidence, direction.reverse)
    return edits


def is_automatic(edit: NamedEdit) -> bool:
    """Return whether an entry is as `--auto` wrote it: its note still tells its direction and range."""
    return edit.note.startswith(_head(edit.direction, *edit.alpha))


def _head(direction: int, low: float, high: float) -> str:
    return f"auto {direction} {low:g}..{high:g}: "
