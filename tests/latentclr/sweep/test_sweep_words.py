"""The words of a sweep, in Hydra's grammar."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentclr.errors import ConfigError
from latentclr.sweep.words import (
    Axis,
    check_runs,
    check_search,
    expand,
    path_value,
    short_keys,
    shown_value,
    sort_words,
)


def test_words_are_sorted():
    given = sort_words([
        "model=nonlinear", "+k=8,16", "k=4", "seed=0,1", "k=2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
        "+hydra.launcher.x=1", "scorers=[pixels,faces]", "codes=24", "codes=48", "hydra.sweep.dir=out", "model.size=3",
        "hparams.optimizer._target_=torch.optim.Adam,torch.optim.SGD", "hparams.scheduler._target_=a.ConstantLR",
    ])  # fmt: skip
    assert given.fixed == ("model=nonlinear", "hparams.scheduler.name=ConstantLR")
    assert given.axes == (
        Axis("seed", "0,1", ("0", "1")),
        Axis("k", "2,3", ("2", "3")),
        Axis("hparams.optimizer.name", "torch.optim.Adam,torch.optim.SGD", ("Adam", "SGD")),
    )
    assert given.hydra == ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+hydra.launcher.x=1")
    assert given.score == ("scorers=[pixels,faces]", "codes=48")
    assert (given.folder, given.checkpoint) == (Path("out"), None)
    assert sort_words(["k=2,3", "k=4"]).fixed == ("k=4",)  # the later counts, as in Hydra


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("k=8,16", ["8", "16"]),
        ("seed=range(0,6,2)", ["0", "2", "4"]),
        ("model=choice(linear,nonlinear)", ["linear", "nonlinear"]),
        ("model=choice(linear)", ["linear"]),
        ("model=glob(*linear)", ["linear", "nonlinear"]),
        ("model.alpha=[-3.0,+3.0],[-6.0,6.0]", ["[-3.0,3.0]", "[-6.0,6.0]"]),
        ("generator.weights='a,b.pt',c", ["'a,b.pt'", "c"]),
        ("k=sort(16,8)", ["8", "16"]),
        ("hparams.optimizer.lr=interval(0.1,1)", []),
    ],
)
def test_values(word, values):
    assert list(sort_words([word]).axes[0].values) == values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["k=8,16", "seed"], "expected key=value, got 'seed'"),
        (["k=choice()"], "empty choice"),
        (["k=8,"], "is not a valid override"),
        (["seed=range(3,3)"], "'seed=range(3,3)' sweeps over nothing"),
        (["model=glob(nothing*)"], "sweeps over nothing"),
        (["k=glob(*)"], "sweeps over nothing"),
        (["seed=0,1,0"], "'seed=0,1,0' has 0 twice"),
        (["output_dir=a,b"], "numbered folders of one folder"),
        (["checkpoint=a,b"], "give one value"),
        (["codes=24,48"], "it is the sweep's"),
        (["hydra.launcher.n_jobs=1,2"], "it is the sweep's"),
        (["hydra.verbose=true"], "unknown option 'hydra.verbose'"),
        (["hydra.sweep.subdir=x"], "unknown option 'hydra.sweep.subdir'"),
        (["~hydra.launcher"], "expected key=value"),
        (["k=${seed},3"], "interpolation"),
        (["hydra.launcher.name=${oc.env:HOME}"], "interpolation"),
        (["hydra.launcher._target_=os.system"], "chosen by name, not by _target_"),
        (["hydra.sweeper.sampler={_target_:os.system}"], "chosen by name, not by _target_"),
    ],
)
def test_refused_in_one_line(words, message):
    with pytest.raises(ConfigError) as raised:
        sort_words(words)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_runs_are_a_product_in_hydras_order():
    runs = expand(sort_words(["k=8,16", "seed=0,1"]).axes)
    assert runs == [("k=8", "seed=0"), ("k=8", "seed=1"), ("k=16", "seed=0"), ("k=16", "seed=1")]
    assert expand([]) == [()]
    with pytest.raises(ConfigError, match="at most 1000 runs, got 1600"):
        expand(sort_words(["seed=range(0,800)", "k=2,3"]).axes)
    with pytest.raises(ConfigError, match=r"lr=interval\(0,1\) has no single values: .* hydra/sweeper=optuna"):
        expand(sort_words(["hparams.optimizer.lr=interval(0,1)"]).axes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kk=2,3"], "unknown option 'kk'; did you mean 'k'"),
        (["k=1,2"], "k must be at least 2"),
        (["k=", "seed=0,1"], "k="),
        (["feature_layer=main.2,main.5"], "unknown option 'feature_layer'"),
        (["model=linear,lineal"], "did you mean 'linear'"),
        (["model.alpha=[],[1]"], "model.alpha must be"),
        (["model=global,linear", "model.name=global,linear"], "two runs of the sweep are the same"),
        (["save=false", "k=2,3"], "leave save=false out"),
    ],
)
def test_every_run_is_checked_before_the_first_begins(words, message):
    given = sort_words(words)
    with pytest.raises(ConfigError) as raised:
        check_runs(given.fixed, expand(given.axes))
    assert message in str(raised.value)


def test_a_search_is_checked_at_its_ends():
    check_search(["model=linear"], sort_words(["k=2,3", "hparams.optimizer.lr=interval(0.1,1)"]).axes)
    for word in ("seed=interval(-1,3)", "k=8,1", "model=linear,lineal", "kk=interval(0,1)"):
        with pytest.raises(ConfigError):
            check_search([], sort_words(["feed_layers=null", word]).axes)


def test_keys_and_values_are_short_in_tables():
    assert short_keys(["k", "generator.feature_layer", "model"]) == {
        "k": "k", "generator.feature_layer": "feature_layer", "model": "model",
    }  # fmt: skip
    same = ["model.depth", "projector.depth"]
    assert list(short_keys(same).values()) == same
    assert [shown_value(v) for v in ("8", "0.004812893194", "main.2", "[-3.0,3.0]")] == [
        "8", "0.00481", "main.2", "[-3.0,3.0]",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "with space", "it's", "a=b,c", "x'\\", "[1]", "007", "null"])
def test_any_path_survives_the_grammar(name):
    assert sort_words([f"output_dir={path_value(Path(name))}"]).folder == Path(name)
