"""The words of a sweep: what all runs share, what is swept over, and what is for Hydra, the score or the folder.

The grammar is Hydra's: `k=8,16`, `seed=range(0,3)`, `model=choice(linear,nonlinear)`, `model=glob(*linear)`, and for
sweepers that search `hparams.optimizer.lr=interval(0.0001,0.01)`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString

from latentclr.compose import NOT_NEEDED, RENAMED, compose_train, parse_override, plain
from latentclr.config import GROUPS, TrainConfig
from latentclr.errors import ConfigError, nearest

MOST_RUNS = 1000
OF_HYDRA = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper")
"""What of Hydra's own configuration a command may set; the rest belongs to the sweep's folder."""
OF_SCORE = ("scorers", "codes")


@dataclass(frozen=True)
class Axis:
    """What differs between runs.

    Attributes:
        key: An option or group, such as `k`.
        given: Its values as they were given, such as `8,16`.
        values: The values one by one, as Hydra writes them; empty of an interval, which only a search can draw from.
    """

    key: str
    given: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class SweepWords:
    """The words of a command, sorted.

    Attributes:
        fixed: Options that all runs share, as `key=value`.
        axes: Options with several values.
        hydra: For Hydra's launcher and sweeper, as they were given.
        score: `scorers=` and `codes=`.
        folder: Where the sweep goes; None if nothing was said.
        checkpoint: The sweep that is to go on; None for a new one, or one whose command is repeated.
    """

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    hydra: tuple[str, ...]
    score: tuple[str, ...]
    folder: Path | None
    checkpoint: Path | None


def sort_words(words: Sequence[str]) -> SweepWords:
    """Sort the words of `latentclr train --multirun`; of two for one option the later counts, as in Hydra.

    Raises:
        ConfigError: A word does not parse, sweeps over nothing, or sweeps where one value is needed.
    """
    fixed: dict[str, str] = {}
    axes: dict[str, Axis] = {}
    hydra: dict[str, str] = {}
    score: dict[str, str] = {}
    paths: dict[str, Path] = {}
    for word in words:
        override = parse_override(word)
        key = "output_dir" if override.key_or_group == "hydra.sweep.dir" else override.key_or_group
        if "${" in word:
            raise ConfigError(f"{word!r} holds an interpolation ${{...}}; write the value instead")
        if override.is_delete():
            raise ConfigError(f"{word!r}: deletions are not supported; give a value")
        if key in NOT_NEEDED:
            continue
        if override.is_hydra_override() and key.startswith("hydra"):
            _one_value(word, override)
            if not key.startswith(OF_HYDRA):
                raise ConfigError(f"unknown option {key!r}{nearest(key, OF_HYDRA)}")
            if "_target_" in word:  # what Hydra would import and call
                raise ConfigError(f"{word!r}: a launcher or sweeper is chosen by name, not by _target_")
            hydra[key] = word
        elif key in OF_SCORE:
            _one_value(word, override)
            score[key] = word.lstrip("+")
        elif key in ("output_dir", "checkpoint"):
            _one_value(word, override, "the runs of a sweep lie in numbered folders of one folder")
            paths.pop(key, None)
            if override.value() is not None:
                paths[key] = Path(str(override.value()))
        elif override.is_sweep_override():
            fixed.pop(key, None)
            axes[key] = _axis(word, override, key)
        else:
            axes.pop(key, None)
            fixed[key] = f"{key}={_value_of(word, override)}"
    return SweepWords(
        tuple(fixed.values()), tuple(axes.values()), tuple(hydra.values()), tuple(score.values()),
        paths.get("output_dir"), paths.get("checkpoint"),
    )  # fmt: skip


def expand(axes: Sequence[Axis]) -> list[tuple[str, ...]]:
    """Return the words of each run that are its own, the last axis changing first.

    Raises:
        ConfigError: There are too many runs, or an interval, which has no single values.
    """
    for axis in axes:
        if not axis.values:
            raise ConfigError(
                f"{axis.key}={axis.given} has no single values: give them, or search it with hydra/sweeper=optuna"
            )
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_RUNS:
        raise ConfigError(f"a sweep has at most {MOST_RUNS} runs, got {count}")
    return list(itertools.product(*([f"{axis.key}={value}" for value in axis.values] for axis in axes)))


def check_runs(fixed: Sequence[str], runs: Sequence[Sequence[str]]) -> list[TrainConfig]:
    """Compose every run before the first one begins.

    Returns:
        Their configurations.

    Raises:
        ConfigError: An option is unknown or out of range, or two runs are the same.
    """
    seen: dict[str, Sequence[str]] = {}
    configs = []
    for own in runs:
        config = compose_train([*fixed, *own])
        if not config.save:
            raise ConfigError("a sweep compares what its runs have saved: leave save=false out")
        same = json.dumps(plain(config), sort_keys=True, default=str)
        if same in seen:
            raise ConfigError(f"two runs of the sweep are the same: {' '.join(own)} and {' '.join(seen[same])}")
        seen[same] = own
        configs.append(config)
    return configs


def check_search(fixed: Sequence[str], axes: Sequence[Axis]) -> None:
    """Compose a run with each value that a search may try, the others at their first; of intervals both ends.

    Raises:
        ConfigError: As `check_runs`.
    """
    tried = {axis.key: axis.values or _ends(axis) for axis in axes}
    first = {key: values[0] for key, values in tried.items()}
    runs = [[f"{key}={value}" for key, value in first.items()]]
    for key, values in tried.items():
        runs += [[f"{k}={value if k == key else v}" for k, v in first.items()] for value in values[1:]]
    for own in runs:
        check_runs(fixed, [own])


def path_value(path: Path) -> str:
    """Return a path as a value in Hydra's grammar: as it is, or in quotes where that would be read as another one."""
    try:
        if str(parse_override(f"path={path}").value()) == str(path):
            return str(path)
    except ConfigError:
        pass
    return QuotedString(str(path), Quote.single).with_quotes()


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return what options are called in tables: the last part of their name, or all of it where two share that."""
    last = [key.replace("/", ".").rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def shown_value(value: str) -> str:
    """Return a value for a table: of a long number, as a search draws them, three digits."""
    try:
        return value if len(value) < 8 else f"{float(value):.3g}"
    except ValueError:
        return value


def _one_value(word: str, override: Override, why: str = "it is the sweep's, not a run's") -> None:
    if override.is_sweep_override():
        raise ConfigError(f"{word!r}: give one value; {why}")


def _axis(word: str, override: Override, key: str) -> Axis:
    _, _, given = word.partition("=")
    if override.is_interval_sweep():
        return Axis(key, given, ())
    if isinstance(override.value(), Glob):
        glob: Glob = override.value()  # type: ignore[assignment]
        values = glob.filter(list(GROUPS.get(key, ())))
    else:
        values = list(override.sweep_string_iterator())
    if _names_a_class(word):
        values = [value.rpartition(".")[2] for value in values]
    if not values:
        raise ConfigError(f"{word!r} sweeps over nothing; give one value or more")
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ConfigError(f"{word!r} has {twice[0]} twice: two runs of the sweep would be the same")
    return Axis(key, given, tuple(values))


def _value_of(word: str, override: Override) -> str:
    if _names_a_class(word) and isinstance(override.value(), str):
        return str(override.value())
    return word.partition("=")[2]


def _names_a_class(word: str) -> bool:
    key = word.lstrip("+").partition("=")[0]
    return key.endswith("._target_") and key in RENAMED


def _ends(axis: Axis) -> tuple[str, ...]:
    interval = parse_override(f"{axis.key}={axis.given}").value()
    return tuple(str(getattr(interval, end)) for end in ("start", "end"))
