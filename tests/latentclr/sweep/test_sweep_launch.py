"""What is said to Hydra, and how the cores are shared."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch
from omegaconf import OmegaConf

from latentclr.errors import ConfigError
from latentclr.sweep.launch import EXTRAS, _shares, prepare, search_keys, search_words
from latentclr.sweep.words import sort_words


def test_one_after_the_other_is_the_default():
    how = prepare([], 8)
    assert (how.launcher, how.sweeper, how.at_once, how.threads, how.planned) == ("basic", "basic", 1, None, 8)
    assert not how.search
    assert not how.queued


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in EXTRAS.items() for name in names])
def test_what_is_not_installed_names_its_extra(group, name):
    extra = EXTRAS[group][name]
    kind = group.removeprefix("hydra/")
    if find_spec("hydra_plugins") and find_spec(f"hydra_plugins.hydra_{extra}_{kind}"):
        pytest.skip(f"{name} is installed")
    with pytest.raises(ConfigError) as raised:
        prepare([f"{group}={name}"], 2)
    assert str(raised.value) == f"{group}={name} is not installed: pip install 'latentclr[{extra}]'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra/launcher=jobli"], "hydra/launcher must be one of basic, .*, got 'jobli'; did you mean 'joblib'"),
        (["hydra/sweeper=grid"], "hydra/sweeper must be one of basic, optuna, got 'grid'"),
        (["hydra.launcher.n_job=2"], "Could not override 'hydra.launcher.n_job'. To append"),
        (["hydra/sweeper/sampler=tpe"], "sampler"),
    ],
)  # fmt: skip
def test_refused_in_one_line(words, message):
    with pytest.raises(ConfigError, match=message) as raised:
        prepare(words, 2)
    assert "\n" not in str(raised.value)


def shares(launcher, runs, monkeypatch, sweeper="basic", cpus=16, **options):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(cpus))
    monkeypatch.setattr(torch, "get_num_threads", lambda: cpus)
    cfg = OmegaConf.create({"hydra": {"launcher": {}, "sweeper": {}}})
    for key, value in options.items():
        OmegaConf.update(cfg, f"hydra.{key.replace('__', '.')}", value)
    return _shares(cfg, launcher, sweeper, runs)


def test_threads_are_shared_fairly(monkeypatch):
    assert shares("basic", 8, monkeypatch) == (1, None)
    assert shares("joblib", 8, monkeypatch, launcher__n_jobs=-1) == (8, 2)
    assert shares("joblib", 3, monkeypatch, launcher__n_jobs=-1) == (3, 5)
    assert shares("joblib", 40, monkeypatch, launcher__n_jobs=-1) == (16, 1)
    assert shares("joblib", 40, monkeypatch, launcher__n_jobs=-5) == (12, 1)
    assert shares("joblib", 40, monkeypatch, launcher__n_jobs=4) == (4, 4)
    assert shares("joblib", 1, monkeypatch, "optuna", launcher__n_jobs=-1, sweeper__n_jobs=2) == (2, 8)
    assert shares("ray", 40, monkeypatch) == (16, 1)  # Ray's own share of a task
    assert shares("ray", 40, monkeypatch, launcher__ray__remote__num_cpus=4) == (4, 4)
    assert shares("submitit_local", 40, monkeypatch, sweeper__max_batch_size=4) == (4, 4)
    assert shares("submitit_slurm", 40, monkeypatch) == (40, None)  # of another machine
    assert shares("submitit_slurm", 40, monkeypatch, launcher__cpus_per_task=6) == (40, 6)


def test_a_search_gets_names_that_hydra_can_hold():
    given = sort_words([
        "generator.feature_layer=main.2,main.5", "hparams/optimizer=adam,sgd", "k=range(4,9)", "generator=glob(dc*)",
        "hparams.optimizer.lr=interval(0.001,0.1)", "hparams.optimizer_lr=1,2",
    ])  # fmt: skip
    keys = search_keys(given.axes)
    assert list(keys) == [
        "generator_feature_layer", "hparams_optimizer", "k", "generator", "hparams_optimizer_lr",
        "hparams_optimizer_lr_5",
    ]  # fmt: skip
    assert list(keys.values())[1] == "hparams/optimizer"
    assert search_words(given.axes, keys) == [
        "+axis.generator_feature_layer=choice(main.2,main.5)", "+axis.hparams_optimizer=choice(adam,sgd)",
        "+axis.k=range(4,9)", "+axis.generator=choice(dcgan)", "+axis.hparams_optimizer_lr=interval(0.001,0.1)",
        "+axis.hparams_optimizer_lr_5=choice(1,2)",
    ]  # fmt: skip
