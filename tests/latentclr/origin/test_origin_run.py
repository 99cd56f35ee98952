"""Runs of the origin's trainer: opened directly, in its own command form, and imported; its configuration is data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from latentclr.catalog import read_catalog
from latentclr.compose import compose_train, parse_overrides
from latentclr.config import TrainConfig
from latentclr.errors import CheckpointError, ConfigError
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.origin.run import load_origin_run, origin_layer, read_origin_run
from latentclr.training.checkpoint import find_checkpoint, load_checkpoint
from latentclr.training.experiment import named_edits, open_run

KINDS = ("global", "linear", "nonlinear_depth1", "nonlinear_depth3")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A 32-pixel StyleGAN2 with D = 16, as the golden direction models have it."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(random_tensors(32, n_mlp=2, dim=16, width=8), path)
    return path


@pytest.fixture
def origin(golden_folder, tmp_path):
    """Make a copy of a golden run, changed: state entries, dotted configuration keys (None removes)."""

    def make(name="nonlinear_depth3", *, state=None, file="best_model.pt", config_at=".hydra/config.yaml", **changes):
        folder = tmp_path / "origin"
        shutil.rmtree(folder, ignore_errors=True)
        content = torch.load(golden_folder / name / "best_model.pt", weights_only=True)
        config = yaml.safe_load((golden_folder / name / ".hydra" / "config.yaml").read_text())
        for dotted, value in changes.items():
            *parents, leaf = dotted.split("__")
            section = config
            for parent in parents:
                section = section[parent]
            section[leaf] = value
            if value is None:
                del section[leaf]
        (folder / config_at).parent.mkdir(parents=True)
        (folder / config_at).write_text(yaml.safe_dump(config))
        torch.save({**content, **(state or {})}, folder / file)
        return folder

    return make


@pytest.mark.parametrize("name", KINDS)
def test_opened_directly_it_is_the_origins_model(golden_folder, golden, name):
    config, checkpoint = open_run(golden_folder / name, [], TrainConfig)
    z = torch.from_numpy(golden["z"])
    edited = (z + 0.7 * checkpoint.directions(z)).flatten(0, 1).detach().numpy()  # [K * B, D]
    assert np.abs(edited - golden[f"{name}.forward_alpha0.7"]).max() <= 1e-5
    assert (checkpoint.iteration, checkpoint.loss) == (3001, None)
    assert (config.generator.name, config.generator.class_name, config.generator.feature_layer) == (
        "stylegan2", "ffhq", "conv1")  # fmt: skip
    assert (config.generator.use_w, config.generator.truncation) == (True, 0.7)
    assert (config.k, config.model.alpha, config.hparams.batch_size, config.feed_layers) == (4, 0.7, 8, None)
    assert config.hparams.optimizer == {"name": "Adam", "lr": 0.001, "weight_decay": 0.001}
    assert config.hparams.scheduler == {"name": "MultiStepLR", "milestones": [1000, 5000], "gamma": 0.2}
    assert checkpoint.generator["layers"] == 18
    assert not checkpoint.directions.training


FORMS = [
    ("RUN",), ("RUN/best_model.pt",), ("checkpoint=RUN/best_model.pt",), ("RUN", "checkpoint=best"),
    ("--config-path=RUN", "--config-name=config", "checkpoint=RUN/best_model.pt"),
    ("--config-path", "RUN/.hydra", "--config-name", "config", "checkpoint=RUN/best_model.pt"),
]  # fmt: skip


@pytest.mark.parametrize("words", FORMS)
def test_eval_and_gen_in_every_form(origin, weights, invoke, words):
    run = origin()
    words = [word.replace("RUN", str(run)) for word in words]
    here = f"generator.weights={weights}"
    result = invoke("eval", *words, here, "eval_iters=1", "hparams.batch_size=2")
    assert result.exit_code == 0, result.output
    assert (run / "eval.json").is_file()
    result = invoke("gen", *words, here, "+n_samples=2", "+alphas=[-15,-10,-5,5,10,15]", "+iterative=False",
                    "+image_size=32", "+n_dirs=[0,1,2,3]", "generator.device=cpu", "model.size=16")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (run / "gen").iterdir()) == ["gen.json", "sample_0.png", "sample_1.png"]
    assert "weights are not those" not in result.output  # the origin records none to compare with


def test_another_config_name_is_refused_not_ignored(origin, invoke):
    result = invoke("gen", f"--config-path={origin()}", "--config-name=other", "n_samples=1")
    assert result.exit_code == 2
    assert "called config, got 'other'" in result.output


def test_the_configuration_may_lie_elsewhere(origin, golden_folder, tmp_path):
    run = origin()
    moved = (run / "best_model.pt").rename(tmp_path / "best_model.pt")
    with pytest.raises(CheckpointError, match=r"needs its configuration beside it: .hydra/config.yaml or config.yaml"):
        load_origin_run(moved)
    assert load_origin_run(moved, run).directions.k == 4


def test_files_by_their_names(origin):
    run = origin(file="model.pt", config_at="config.yaml")  # how the authors published theirs
    assert open_run(run, [], TrainConfig)[1].directions.kind == "nonlinear"
    for name in ("most_recent.pt", "final_model.pt", "best_model.pt"):
        shutil.copy(run / "model.pt", run / name)
    assert find_checkpoint(run).name == find_checkpoint(run, "best").name == "best_model.pt"
    assert find_checkpoint(run, "last").name == "final_model.pt"
    for name in ("best_model.pt", "model.pt", "final_model.pt"):
        (run / name).unlink()
    assert find_checkpoint(run).name == "most_recent.pt"
    with pytest.raises(CheckpointError, match=r"holds no best.safetensors"):
        find_checkpoint(run, "best")


def test_import_rewrites_it_as_ours(origin, weights, golden, invoke, refused, tmp_path):
    run, out = origin(), tmp_path / "out"
    state = torch.load(run / "best_model.pt", weights_only=True)
    torch.save({**state, "iteration": 9001}, run / "final_model.pt")
    result = invoke("import", run, out)
    assert result.exit_code == 0, result.output
    assert "K = 100; this one has 4, so it gets none" in result.output
    assert result.output.splitlines()[-1].endswith(f"4 nonlinear directions over 16 values, 0 named edits: {out}")
    assert sorted(p.name for p in out.iterdir()) == [".hydra", "best.safetensors", "last.safetensors"]
    best, last = load_checkpoint(out / "best.safetensors"), load_checkpoint(out / "last.safetensors")
    assert (best.iteration, last.iteration) == (3001, 9001)
    z = torch.from_numpy(golden["z"])
    assert torch.equal(best.directions(z), load_origin_run(run / "best_model.pt").directions(z))
    expected = {"name": "nonlinear", "alpha": 0.7, "normalize": True, "depth": 3, "orient": False}
    assert expected.items() <= best.config["model"].items()
    result = invoke("gen", out, f"generator.weights={weights}", "n_samples=1", "n_dirs=-1")
    assert result.exit_code == 0, result.output
    assert "weights are not those" not in result.output
    assert yaml.safe_load((out / ".hydra" / "config.yaml").read_text())["generator"]["name"] == "stylegan2"
    assert "already holds a run" in refused(invoke("import", run, out))
    assert "our own run already" in refused(invoke("import", out, tmp_path / "again"))
    assert "no run folder" in refused(invoke("import", tmp_path / "nowhere", tmp_path / "again"))
    assert "nothing to resume" in refused(invoke("train", f"checkpoint={run}"))


@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_projectors_come_along(origin, golden, golden_folder, tmp_path, invoke, kind):
    projector = torch.load(golden_folder / f"projector_{kind}.pt", weights_only=True)
    cls = f"colat.projectors.{kind.capitalize()}Projector"
    section = {"_target_": cls, "normalize": True, "in_features": 24, "middle_features": 99, "out_features": 32}
    run = origin(state={"projector": projector}, projector=section)
    x = torch.from_numpy(golden["projector.input"])
    checkpoint = load_origin_run(run / "best_model.pt")
    assert np.abs(checkpoint.projector(x).detach().numpy() - golden[f"projector.{kind}"]).max() <= 1e-5
    assert invoke("import", run, tmp_path / "out").exit_code == 0
    imported = load_checkpoint(tmp_path / "out" / "best.safetensors")
    assert torch.equal(imported.projector(x), checkpoint.projector(x))
    assert imported.config["projector"]["out_features"] == 10  # the tensors', whatever the configuration says


def test_depth_is_the_networks_not_the_configurations(origin, tmp_path):
    run = origin("nonlinear_depth1", model__depth=3)  # so it stands in the authors' published configurations
    checkpoint, notes = read_origin_run(run / "best_model.pt")
    assert checkpoint.directions.kind == "nonlinear"
    assert checkpoint.config["model"]["depth"] == 1
    assert notes == ["its configuration says depth 3, its networks have 1 layer(s): 1 it is"]
    open_run(run, [], TrainConfig)
    with pytest.raises(ConfigError, match=r"model.depth=3: .* was trained with 1"):
        open_run(run, ["model.depth=3"], TrainConfig)


def test_what_published_configurations_hold_besides(origin):
    run = origin(epoch=3, hparams__iteration=3000, feed_layers=[0, 1], model__alpha=[-7.0, 7.0], device="cuda")
    config, _ = open_run(run, [], TrainConfig)
    assert (config.model.alpha, config.feed_layers, config.device) == ([-7.0, 7.0], [0, 1], "cuda")
    config, _ = open_run(origin(loss=None, projector=None, hparams=None, k=None), [], TrainConfig)
    assert (config.k, config.loss.temp, config.projector.name) == (4, 0.5, "identity")


def test_a_biggan_run(origin):
    section = {"_target_": "colat.generators.BigGANGenerator", "resolution": "128", "device": "cuda",
               "class_name": "bulbul", "feature_layer": "generator.layers.4.conv_0", "truncation": 0.4}  # fmt: skip
    checkpoint, notes = read_origin_run(origin(generator=section) / "best_model.pt")
    assert checkpoint.config["generator"]["resolution"] == 128
    assert checkpoint.config["generator"]["feature_layer"] == "generator.layers.4"
    assert (checkpoint.generator["layers"], len(notes)) == (11, 1)


def test_defaults_are_those_of_the_origins_constructors(origin):
    run = origin(generator={"_target_": "colat.generators.StyleGAN2Generator", "feature_layer": "conv1"})
    generator = load_origin_run(run / "best_model.pt").config["generator"]
    assert (generator["use_w"], generator["truncation"], generator["class_name"]) == (False, 1.0, "ffhq")


@pytest.mark.parametrize(
    ("generator", "layer", "meant"),
    [
        ("stylegan2", "conv1", "conv1"), ("stylegan2", "to_rgb1", "to_rgb1"), ("stylegan2", "convs.1", "convs.1"),
        ("stylegan2", "convs.10", "convs.1"), ("stylegan2", "convs.15", "convs.1"), ("stylegan2", "convs.7", "convs.7"),
        ("stylegan2", "to_rgbs.0", "convs.1"), ("stylegan2", "to_rgbs.3", "convs.7"), ("stylegan2", "style", "style"),
        ("biggan", "generator.layers.11", "generator.layers.11"), ("biggan", "embeddings", "generator.gen_z"),
        ("biggan", "generator.gen_z", "generator.gen_z"),
    ],
)  # fmt: skip
def test_layer_names_are_found_inside_one_another(generator, layer, meant):
    assert origin_layer(generator, layer) == meant


OPTIMIZERS = {
    "torch.optim.SGD": "SGD", "torch.optim.adam.Adam": "Adam", "torch.optim.AdamW": "AdamW",
}  # fmt: skip
SCHEDULERS = {
    "torch.optim.lr_scheduler.StepLR": "StepLR", "colat.scheduler.ExponentialDecayLR": "ExponentialDecayLR",
    "colat.scheduler.ConstantLR": "ConstantLR",
}  # fmt: skip


@pytest.mark.parametrize(("target", "name"), OPTIMIZERS.items())
def test_optimizers(origin, target, name):
    config, _ = open_run(origin(hparams__optimizer={"_target_": target, "lr": 0.5}), [], TrainConfig)
    assert config.hparams.optimizer == {"name": name, "lr": 0.5}


@pytest.mark.parametrize(("target", "name"), SCHEDULERS.items())
def test_schedulers(origin, target, name):
    config, _ = open_run(origin(hparams__scheduler={"_target_": target, "gamma": 0.5}), [], TrainConfig)
    assert config.hparams.scheduler == {"name": name, "gamma": 0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator__class_name": "${oc.env:HOME}"}, "holds an interpolation"),
        (
            {"model___target_": "os.system"},
            r"model._target_ must be one of Fixed, LinearConditional, .* got 'os.system'",
        ),
        ({"model___target_": "colat.models.NonlinearCondition"}, "did you mean 'NonlinearConditional'"),
        ({"model___target_": "evil.models.Fixed"}, "got 'evil.models.Fixed'"),
        ({"model___target_": None}, "model must be a table with a _target_"),
        ({"model": None}, "model must be a table"),
        ({"generator": "stylegan2"}, "generator must be a table"),
        ({"generator___target_": "colat.generators.StyleGANGenerator"}, "got 'colat.generators.StyleGANGenerator'"),
        ({"generator__class_name": "dog"}, "class_name must be one of ffhq"),
        ({"projector___target_": "colat.projectors.Odd"}, "projector._target_ must be one of"),
        ({"projector___target_": "colat.projectors.LinearProjector"}, "best_model.pt: not a linear projector"),
        ({"loss___target_": "colat.loss.TripletLoss"}, "loss._target_ must be one of ContrastiveLoss of colat"),
        ({"hparams__optimizer___target_": "os.system"}, "optimizer._target_ must be a class of torch.optim"),
        ({"hparams__optimizer___target_": "torch.optim.Nothing"}, "got 'torch.optim.Nothing'"),
        ({"hparams__scheduler___target_": "torch.optim.Adam"}, "scheduler._target_ must be a class of torch.optim"),
        ({"hparams": [1]}, "hparams must be a table"),
        ({"k": 5}, "says k=5, but .* holds 4 directions"),
        ({"model__alpha": "much"}, "model.alpha must be"),
        ({"hparams__batch_size": "many"}, "the saved configuration is damaged"),
        ({"model___target_": "colat.models.Fixed"}, "best_model.pt: not a global model of the origin"),
    ],
)
def test_configurations_that_cannot_be(origin, changes, message, invoke, refused):
    run = origin(**changes)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        open_run(run, [], TrainConfig)
    refused(invoke("gen", run, "n_samples=1"))


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"model": {}}, "missing"),
        ({"model": [1]}, "holds no table `model`"),
        ({"model": {"params": 3}}, "model.params is no plain tensor"),
        ({"model": {3: torch.zeros(1)}}, "`model` is no table of tensors"),
        ({"model": {"params": torch.full((4, 16), float("nan"))}}, "model.params holds numbers that are not finite"),
        ({"projector": [1]}, "`projector` is no table"),
        ({"projector": {"net.linear_1.weight": torch.zeros(1, 1)}}, "unexpected"),
    ],
)
def test_states_that_cannot_be(origin, state, message):
    with pytest.raises(CheckpointError, match=message):
        open_run(origin("global", state=state), [], TrainConfig)


def test_nothing_in_the_file_runs(origin, tmp_path, invoke, refused):
    run = origin(state={"optimizer": Hostile(tmp_path / "executed")})
    assert "asks for posix.system" in refused(invoke("gen", run, "n_samples=1"))
    assert "asks for posix.system" in refused(invoke("import", run, tmp_path / "out"))
    (run / ".hydra" / "config.yaml").write_text("!!python/object/apply:os.system ['touch executed']")
    torch.save({"model": {}}, run / "best_model.pt")
    assert "is not YAML" in refused(invoke("gen", run, "n_samples=1"))
    (run / ".hydra" / "config.yaml").write_text("[1, 2]")
    assert "must be a table" in refused(invoke("gen", run, "n_samples=1"))
    (run / "best_model.pt").write_bytes(b"rubbish")
    assert "is not a checkpoint of plain tensors" in refused(invoke("gen", run, "n_samples=1"))
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out").exists()


def published(origin, class_name, k=100, **changes):
    state = {"model": {"params": torch.randn(k, 16, generator=torch.Generator().manual_seed(0))}}
    return origin("global", state=state, k=k, generator__class_name=class_name, file="model.pt", **changes)


def test_published_names_attach_to_a_published_checkpoint(origin, invoke, weights, tmp_path):
    run = published(origin, "car")
    config, checkpoint = open_run(run, [], TrainConfig)
    edits, problems = named_edits(config, checkpoint, checkpoint.generator["layers"])
    assert len(edits) == 7
    assert problems == ["add_grass: this generator has the layers 0 to 15, not [16]: dropped"]
    result = invoke("names", run)
    assert "add_grass  10         7-15    -7..7" in result.stdout
    assert problems[0] in result.stderr
    # A smaller generator carries out what it can and says what it cannot.
    result = invoke("gen", run, f"generator.weights={weights}", "n_samples=1", "edits=[type_2]", "image_size=32")
    assert result.exit_code == 0, result.output
    assert "named edits: add_grass: this generator has the layers 0 to 7, not [8, 9" in result.stderr
    result = invoke("import", run, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert problems[0] in result.output
    assert "7 named edits" in result.output
    assert read_catalog(tmp_path / "out")["add_grass"].layers == tuple(range(7, 16))
    # Own names replace them, one by one.
    assert invoke("name", run, "wheels", "--direction", "3").exit_code == 0
    assert len(read_catalog(run)) == 8
    assert invoke("import", published(origin, "car"), tmp_path / "bare", "--no-names").exit_code == 0
    assert not (tmp_path / "bare" / "catalog.yaml").exists()


@pytest.mark.parametrize(
    ("class_name", "k", "changes", "count"),
    [("ffhq", 100, {}, 10), ("church", 100, {}, 4), ("bedrooms", 100, {}, 3), ("cat", 100, {}, 3),
     ("horse", 100, {}, 0), ("cat", 64, {}, 0), ("cat", 100, {"generator__use_w": False}, 0)],
)  # fmt: skip
def test_published_names_attach_to_nothing_else(origin, class_name, k, changes, count):
    config, checkpoint = open_run(published(origin, class_name, k, **changes), [], TrainConfig)
    edits, problems = named_edits(config, checkpoint, None)
    assert len(edits) == count
    assert len(problems) == (k == 64)


def test_the_origins_words():
    words = ["generator.device=cuda", "model.size=512", "projector.in_features=8",
             "hparams.optimizer._target_=torch.optim.SGD", "hydra.run.dir=x"]  # fmt: skip
    assert {o.key_or_group: o.value() for o in parse_overrides(words).items} == {
        "device": "cuda", "hparams.optimizer.name": "SGD", "output_dir": "x"}  # fmt: skip
    config = compose_train([*words[:4], "hparams.scheduler._target_=colat.scheduler.ConstantLR"])
    assert (config.device, config.hparams.optimizer["name"]) == ("cuda", "SGD")
    assert config.hparams.scheduler["name"] == "ConstantLR"
