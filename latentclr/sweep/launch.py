"""Hydra's launchers and sweepers, called as Hydra calls them: a sweep is a multirun of a tiny configuration.

Hydra composes nothing of a run itself. What it launches is `run=0,1,2`, the numbers of the runs, and of a search
`+axis.NAME=...`; what a run is made of stands in the `Job`.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from latentclr.compose import parse_override
from latentclr.errors import ConfigError, LatentCLRError, SaveError, in_one_line, nearest
from latentclr.sweep.job import Job
from latentclr.sweep.words import Axis, path_value

CONFIG = "latentclr_sweep"
BASIC, OPTUNA = "basic", "optuna"
EXTRAS = {
    "hydra/launcher": {
        "joblib": "joblib", "ray": "ray", "ray_aws": "ray", "submitit_local": "submitit", "submitit_slurm": "submitit",
    },
    "hydra/sweeper": {OPTUNA: "optuna"},
}  # fmt: skip
"""Which extra of `pip install latentclr[...]` brings which of them."""
# Hydra writes no logs and no configuration of its own into the runs, which have theirs.
_QUIET = ("hydra/hydra_logging=none", "hydra/job_logging=none", "hydra.output_subdir=null", "hydra.sweep.subdir=.")


@dataclass(frozen=True)
class Launch:
    """How a sweep is carried out.

    Attributes:
        launcher: Its name, such as `joblib`.
        sweeper: `basic`, or `optuna` for a search.
        words: For Hydra, as they were given, and those that follow from them.
        at_once: How many runs are at work together, as far as that is known.
        threads: CPU threads that are fair for each; None for as many as this process has.
        planned: How many runs there are to be; None of a search of unknown length.
        queued: Whether runs go on without this process, in a queue of other machines.
    """

    launcher: str
    sweeper: str
    words: tuple[str, ...]
    at_once: int
    threads: int | None
    planned: int | None
    queued: bool

    @property
    def search(self) -> bool:
        """Whether a sweeper chooses the runs."""
        return self.sweeper == OPTUNA


def prepare(words: Sequence[str], runs: int) -> Launch:
    """Check what a command says to Hydra, before anything is written.

    Args:
        words: As they were given.
        runs: How many runs there are.

    Raises:
        ConfigError: A launcher or sweeper is unknown, or not installed (its extra is named), or has no such option.
    """
    with _errors(), _initialized() as hydra:
        chosen = {group: _chosen(words, group) for group in EXTRAS}
        for group, name in chosen.items():
            _check_installed(group, name, hydra.config_loader.get_group_options(group))
        cfg = compose(CONFIG, overrides=list(words), return_hydra_config=True)
    launcher, sweeper = chosen["hydra/launcher"], chosen["hydra/sweeper"]
    given = {parse_override(word).key_or_group for word in words}
    more = [f"{key}={value}" for key, value in _defaults(cfg, launcher, sweeper).items() if key not in given]
    with _errors(), _initialized():
        cfg = compose(CONFIG, overrides=[*words, *more], return_hydra_config=True)
    at_once, threads = _shares(cfg, launcher, sweeper, runs)
    planned = OmegaConf.select(cfg, "hydra.sweeper.n_trials") if sweeper == OPTUNA else runs
    queued = launcher in ("submitit_slurm", "ray_aws")
    return Launch(launcher, sweeper, (*words, *more), at_once, threads, planned, queued)


def launch(how: Launch, job: Job, numbers: Sequence[int], axes: Sequence[Axis]) -> dict[int, str]:
    """Carry runs out, and return what failed: number -> its one line.

    Args:
        how: What `prepare` returned.
        job: What carries out one run.
        numbers: The runs; of none in a search.
        axes: What a search searches.

    Raises:
        LatentCLRError: The launcher itself failed, as where a process was killed.
        SaveError: The folder cannot be written.
        KeyboardInterrupt: The user stopped it.
    """
    asked = search_words(axes, job.keys) if how.search else [f"run={','.join(map(str, numbers))}"]
    words = [*how.words, *_QUIET, f"hydra.sweep.dir={path_value(job.folder)}", *asked]
    with _initialized() as hydra:
        pass
    if how.search:
        _hush_optuna()
    try:
        with _errors():
            returned = hydra.multirun(CONFIG, job, words)
    except (LatentCLRError, ModuleNotFoundError):
        raise
    except OSError as error:
        raise SaveError(f"could not write {job.folder}: {error.strerror or error}") from error
    except Exception as error:
        if how.launcher == BASIC and not how.search:
            raise
        raise LatentCLRError(f"hydra/launcher={how.launcher} failed: {in_one_line(error)}") from error
    if how.search:
        return {}
    results = [result.return_value for batch in returned for result in batch]
    if full := [error for _, error, of_the_disk in results if of_the_disk]:
        raise SaveError(full[0])
    return {number: error for number, error, _ in results if error}


def search_keys(axes: Sequence[Axis]) -> dict[str, str]:
    """Return names that Hydra's configuration can have for the options of a search: name -> option."""
    keys: dict[str, str] = {}
    for axis in axes:
        name = re.sub(r"\W+", "_", axis.key)
        keys[name if name not in keys else f"{name}_{len(keys)}"] = axis.key
    return keys


def search_words(axes: Sequence[Axis], keys: Mapping[str, str]) -> list[str]:
    """Return what a search is given: each axis under its name, choices one by one, intervals as they are."""
    words = []
    for name, axis in zip(keys, axes, strict=True):
        override = parse_override(f"{axis.key}={axis.given}")
        values = f"choice({','.join(axis.values)})" if override.is_choice_sweep() else axis.given
        words.append(f"+axis.{name}={values}")
    return words


def _chosen(words: Sequence[str], group: str) -> str:
    values = [word.partition("=")[2] for word in words if word.lstrip("+").partition("=")[0] == group]
    return str(OverridesParser.create().parse_override(f"x={values[-1]}").value()) if values else BASIC


def _check_installed(group: str, name: str, installed: Sequence[str]) -> None:
    known = [BASIC, *EXTRAS[group]]
    if name in installed and (group == "hydra/launcher" or name in known):
        return
    if name in EXTRAS[group]:
        raise ConfigError(f"{group}={name} is not installed: pip install 'latentclr[{EXTRAS[group][name]}]'")
    raise ConfigError(f"{group} must be one of {', '.join(known)}, got {name!r}{nearest(name, known)}")


def _defaults(cfg: DictConfig, launcher: str, sweeper: str) -> dict[str, object]:
    """Return what a sweep sets unless the user does."""
    defaults: dict[str, object] = {}
    if sweeper == OPTUNA:
        defaults |= {"hydra.sweeper.direction": "[maximize,maximize]", "hydra.sweeper.max_failure_rate": 1.0}
        if "seed" in (OmegaConf.select(cfg, "hydra.sweeper.sampler") or {}):
            defaults["hydra.sweeper.sampler.seed"] = 0  # the same search again, so that it can go on after a kill
        if launcher == BASIC:
            defaults["hydra.sweeper.n_jobs"] = 1  # each run tells the next one
    elif launcher == "submitit_local":
        defaults["hydra.sweeper.max_batch_size"] = _cpus()  # it starts all that it is given
    return defaults


def _shares(cfg: DictConfig, launcher: str, sweeper: str, runs: int) -> tuple[int, int | None]:
    """Return how many runs are at work at once, and the threads of each."""

    def asked(key: str) -> int:
        value = OmegaConf.select(cfg, f"hydra.{key}", throw_on_missing=False)
        return int(value) if isinstance(value, int | float) and value else 0

    cpus = _cpus()
    most = asked("sweeper.n_jobs") if sweeper == OPTUNA else (asked("sweeper.max_batch_size") or runs)
    most = max(1, min(most, runs) if sweeper != OPTUNA else most)
    if launcher == "joblib":
        jobs = asked("launcher.n_jobs")
        at_once = min(most, max(1, jobs if jobs > 0 else cpus + 1 + jobs))
    elif launcher in ("ray", "ray_aws"):
        each = max(1, asked("launcher.ray.remote.num_cpus"))  # 1 is Ray's own default
        return min(most, max(1, cpus // each)), each
    elif launcher == "submitit_slurm":
        return most, asked("launcher.cpus_per_task") or None
    elif launcher == "submitit_local":
        at_once = most
        if each := asked("launcher.cpus_per_task"):
            return at_once, each
    else:
        return 1, None
    return at_once, max(1, min(cpus // at_once, torch.get_num_threads()))


def _cpus() -> int:
    return len(os.sched_getaffinity(0))


def _hush_optuna() -> None:
    """Leave the screen to the table; the old SQLAlchemy words of Optuna 2 warn, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("hydra_plugins").setLevel(logging.ERROR)


@contextmanager
def _initialized() -> Iterator[Any]:
    """Yield Hydra with the configuration of a sweep; runs compose theirs with a Hydra of their own."""
    ConfigStore.instance().store(name=CONFIG, node={"run": -1, "axis": {}})
    with initialize(version_base="1.3", config_path=None, job_name="latentclr"):
        yield GlobalHydra.instance().hydra


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except HydraException as error:
        reason = f": {error.__cause__}" if error.__cause__ is not None else ""  # what the value should have been
        raise ConfigError(" ".join(f"{error}{reason}".split())[:300]) from None
