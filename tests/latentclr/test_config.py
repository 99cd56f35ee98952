"""Configurations from words: Hydra's grammar, the origin's keys, nearest names, typed and checked values."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from latentclr.compose import CONFIG_FILE, compose_run, compose_train, parse_overrides, plain, save_config
from latentclr.config import (
    GROUPS,
    GenConfig,
    TrainConfig,
    check_alpha,
    option_sections,
    own_lines,
    slider_end,
)
from latentclr.errors import ConfigError

ORIGIN_WORDS = {  # every key of the origin's configuration files
    "model.normalize": "true", "model.alpha": "0.7", "model.depth": "3", "loss.temp": "0.5", "loss.abs": "true",
    "loss.reduce": "mean", "generator.feature_layer": "main.2", "projector.normalize": "true",
    "hparams.batch_size": "8", "hparams.iterations": "10000", "hparams.grad_clip_max_norm": "null",
    "hparams.optimizer.lr": "0.001",
    "hparams.optimizer.weight_decay": "0.001", "hparams.scheduler.milestones": "[1000,5000]",
    "hparams.scheduler.gamma": "0.2", "checkpoint": "null", "tensorboard": "true", "auto_cpu_if_no_gpu": "true",
    "device": "cuda:0", "mixed_precision": "false", "save": "true", "eval_freq": "1000", "eval_iters": "100", "k": "4",
    "train_projector": "true", "feed_layers": "null", "seed": "3", "hydra.run.dir": "somewhere",
}  # fmt: skip


def test_defaults_are_the_origins():
    config = compose_train([])
    assert (config.k, config.hparams.batch_size, config.hparams.iterations) == (32, 32, 10_000)
    assert config.hparams.optimizer == {"name": "Adam", "lr": 1e-3, "weight_decay": 1e-3}
    assert config.hparams.scheduler == {"name": "MultiStepLR", "milestones": [1000, 5000], "gamma": 0.2}
    assert (config.loss.temp, config.loss.abs, config.loss.reduce) == (0.5, True, "mean")
    assert (config.eval_freq, config.eval_iters, config.train_projector, config.feed_layers) == (1000, 100, True, None)
    assert (config.generator.name, config.model.name, config.projector.name) == ("dcgan", "global", "identity")


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_every_key_of_the_origin(plus):
    config = compose_train([f"{plus}{key}={value}" for key, value in ORIGIN_WORDS.items()])
    assert (config.k, config.seed, config.output_dir) == (4, 3, "somewhere")
    assert config.model.alpha == 0.7


@pytest.mark.parametrize("group", [g for g in GROUPS if g != "generator"])
def test_every_group(group):
    for option in GROUPS[group]:
        needed = {"vectors": ["vectors=v.npy"], "attributes": ["attributes=[happy]"]}.get(option, [])
        value = compose_train([f"{group}={option}", *needed])
        for part in group.split("/"):
            value = getattr(value, part)
        name = value["name"] if isinstance(value, dict) else value.name
        expected = GROUPS[group][option]
        assert name == (expected["name"] if isinstance(expected, dict) else expected.name)


def test_the_issues_own_command():
    config = compose_train(["k=16", "generator=dcgan", "model=nonlinear", "model.alpha=[-3.0,+3.0]",
                            "hparams.batch_size=8", "hparams.iterations=400"])  # fmt: skip
    assert (config.k, config.model.name, config.model.alpha) == (16, "nonlinear", [-3.0, 3.0])
    assert (config.hparams.batch_size, config.hparams.iterations) == (8, 400)


def test_optimizer_group_replaces_and_does_not_merge():
    sgd = compose_train(["hparams/optimizer=sgd", "hparams.optimizer.lr=0.3"]).hparams.optimizer
    assert sgd == {"name": "SGD", "lr": 0.3, "weight_decay": 0.0005, "momentum": 0.1, "nesterov": True}
    constant = compose_train(["hparams/scheduler=constant"]).hparams.scheduler
    assert constant == {"name": "ConstantLR"}
    free = compose_train(["hparams.optimizer.betas=[0.5,0.9]"]).hparams.optimizer  # any argument of the class
    assert free["betas"] == [0.5, 0.9]


def test_the_order_of_words_does_not_matter_for_groups():
    assert compose_train(["model.depth=2", "model=nonlinear"]) == compose_train(["model=nonlinear", "model.depth=2"])


def test_composing_leaves_no_global_state():
    one = compose_train(["hparams.optimizer.lr=5", "model.alpha=9"])
    two = compose_train([])
    assert (one.hparams.optimizer["lr"], two.hparams.optimizer["lr"], two.model.alpha) == (5, 0.001, 0.1)
    from hydra.core.global_hydra import GlobalHydra

    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("modle=linear", "unknown option 'modle'; did you mean 'model"),
        ("hparams.batchsize=4", "did you mean 'hparams.batch_size'"),
        ("hparam.batch_size=4", "unknown option 'hparam.batch_size'; did you mean 'hparams.batch_size'"),
        ("evalfreq=4", "did you mean 'eval_freq'"),
        ("generator=dcgna", "generator must be one of .*got 'dcgna'; did you mean 'dcgan'"),
        (
            "model=nonlinaer",
            "model must be one of global, .*, got 'nonlinaer'; did you mean 'nonlinear'",
        ),
        ("hparams/optimizer=adma", "must be one of adam, sgd, got 'adma'; did you mean 'adam'"),
        ("model=3", "model must be one of global, .*, got 3"),
        ("hparams=3", "hparams is a group of options"),
        ("k=1", "k must be at least 2 .*got 1"),
        ("k=1.5", "k=1.5.*could not be converted to Integer"),
        ("k=many", "k=many.*could not be converted to Integer"),
        ("k=null", "k=null"),
        ("hparams.batch_size=1", "hparams.batch_size must be at least 2 .*got 1"),
        ("hparams.iterations=0", "hparams.iterations must be at least 1, got 0"),
        ("hparams.chunk=0", "hparams.chunk must be at least 1, got 0"),
        ("hparams.grad_clip_max_norm=0", "grad_clip_max_norm must be positive, got 0"),
        ("hparams.grad_clip_max_norm=nan", "grad_clip_max_norm must be positive, got nan"),
        ("model.depth=0", "model.depth must be at least 1"),
        ("eval_iters=0", "eval_iters must be at least 1"),
        ("seed=-1", "seed must be at least 0, got -1"),
        ("seed=5000000000", r"seed must be in \[0, 2147483648\), got 5000000000"),
        ("loss.temp=nan", "loss.temp must be positive and finite, got nan"),
        ("loss.temp=0", "loss.temp must be positive and finite, got 0"),
        ("loss.reduce=median", "loss.reduce must be mean or sum, got 'median'"),
        ("mixed_precision=fp8", "mixed_precision must be false, true, bf16 or fp16, got 'fp8'"),
        ("model.alpha=0", "model.alpha must be a nonzero finite number or a .* range"),
        ("model.alpha=nan", "model.alpha must be"),
        ("model.alpha=inf", "model.alpha must be"),
        ("model.alpha=-inf", "model.alpha must be"),
        ("model.alpha=[nan,1]", "model.alpha must be"),
        ("model.alpha=[1,1]", "model.alpha must be"),
        ("model.alpha=[3,1]", "low < high"),
        ("model.alpha=[1,2,3]", "model.alpha must be"),
        ("model.alpha=[]", "model.alpha must be"),
        ("model.alpha=true", "model.alpha must be"),
        ("model.alpha=strong", "model.alpha must be"),
        ("model.alpha=[a,b]", "model.alpha must be"),
        ("feed_layers=first", "feed_layers=first"),
        ("feed_layers=[a]", r"feed_layers=\[a\]"),
        ("k", "expected key=value, got 'k'"),
        ("k=", "k="),
        ("=3", "unknown option ''"),
        ("k=[1", "not a valid override"),
        ("~k=3", "deletions are not supported"),
        ("k=2,3", "several are a sweep: latentclr train --multirun"),
        ("k=range(2,5)", "several are a sweep"),
        ("loss._target_=os.system", "unknown option 'loss._target_'"),
        ("generator.truncation=0.7", "unknown option 'generator.truncation'"),
    ],
)
def test_refused_in_one_line(word, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose_train([word])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [("${oc.env:HOME}", "holds an interpolation"), ("${k}", "holds an interpolation"),
     ("${nonsense:1}", "holds an interpolation"), ("???", "missing mandatory value: output_dir")],
)  # fmt: skip
def test_interpolations_are_no_crash(word, message):
    with pytest.raises(ConfigError, match=message) as caught:
        compose_train([f"output_dir='{word}'"])
    assert "\n" not in str(caught.value)


def test_alphas_and_sliders():
    assert check_alpha(-2) == -2.0
    assert check_alpha([0.5]) == 0.5
    assert check_alpha((-3, 3)) == (-3.0, 3.0)
    assert slider_end(0.5) == 1.0
    assert slider_end([-3.0, 2.0]) == 6.0
    assert slider_end(-4) == 8.0


def test_runs_take_overrides():
    saved = plain(compose_train(["model=nonlinear", "k=4", "hparams/optimizer=sgd"]))
    config = compose_run(saved, ["+n_samples=3", "hparams.batch_size=5"], GenConfig)
    assert (config.n_samples, config.hparams.batch_size, config.model.name) == (3, 5, "nonlinear")
    assert config.hparams.optimizer["momentum"] == 0.1
    assert compose_run(saved, ["model=nonlinear", "hparams/optimizer=sgd", "k=4"], TrainConfig).k == 4
    assert saved == plain(compose_train(["model=nonlinear", "k=4", "hparams/optimizer=sgd"]))  # not changed
    for word, message in (
        ("model=global", "model=global: this run was trained with model nonlinear"),
        ("hparams/optimizer=adam", "this run was trained with hparams/optimizer SGD"),
        ("n_sample=3", "did you mean 'n_samples'"),
    ):
        with pytest.raises(ConfigError, match=message):
            compose_run(saved, [word], GenConfig)


@pytest.mark.parametrize(
    "damage",
    [
        {}, {"generator": None}, {"generator": {"name": "dcgan", "_target_": "os.system"}}, {"k": "many"},
        {"hparams": 7}, {"hparams": {"optimizer": "Adam"}}, {"model": {"name": "x"}}, {"model": None}, {"loss": []},
        {"generator": {"name": ["dcgan"]}}, {"model": {"alpha": "${oc.env:HOME}"}}, {"feed_layers": {"a": 1}},
    ],
)  # fmt: skip
def test_damaged_saved_configurations(damage):
    saved = {**plain(compose_train([])), **damage} if damage else {}
    with pytest.raises(ConfigError) as caught:
        compose_run(saved, [], TrainConfig)
    assert "\n" not in str(caught.value)


def test_saved_yaml_comes_back(tmp_path):
    config = compose_train(["model=nonlinear", "model.alpha=[-3.0,+3.0]"])
    save_config(config, tmp_path)
    saved = yaml.safe_load((tmp_path / CONFIG_FILE).read_text())
    assert saved == plain(config)
    assert compose_run(saved, [], TrainConfig) == config


def test_parse_overrides():
    override = parse_overrides(["+hydra.run.dir=outputs/x"]).items[0]
    assert (override.key_or_group, override.value()) == ("output_dir", "outputs/x")


def test_every_option_has_a_default_and_a_meaning():
    lines = [line for section in option_sections().values() for line in section] + own_lines(GenConfig, ())
    keys = [key for key, _, _ in lines]
    for option in dataclasses.fields(GenConfig):
        found = [key for key in keys if key == option.name or key.startswith(f"{option.name}.")]
        assert found, option.name
    assert all(default and meaning for _, default, meaning in lines)
