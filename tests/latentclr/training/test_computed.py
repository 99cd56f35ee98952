"""Runs whose directions are computed, not trained: the same folder, and every command works on it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_checkpoint import put, with_metadata
from tiny_generators import dcgan_tensors

from export.pipeline import export_run
from latentclr.catalog import NamedEdit, read_catalog
from latentclr.commands import run_train
from latentclr.compose import compose_train
from latentclr.config import COMPUTED
from latentclr.errors import CheckpointError, ConfigError
from latentclr.generators.biggan.spec import spec_for
from latentclr.generators.biggan.tensors import random_tensors as biggan_tensors
from latentclr.generators.registry import build_generator
from latentclr.generators.stylegan2.layout import random_tensors as stylegan2_tensors
from latentclr.method.closed_form import random_directions, sefa
from latentclr.pictures.pixels import to_uint8
from latentclr.scores.pixels import PixelScorer
from latentclr.training.checkpoint import load_checkpoint
from latentclr.training.rng import stream
from serving.contract.published import PublishedModel

GENERATORS = {"dcgan": 24, "biggan": 8, "stylegan2": 16}  # D
# Six steps of a code of eight numbers leave black and white of BigGAN's picture, where float32 is 38 steps off float64.
ALPHA = {"dcgan": 3.0, "biggan": 0.5, "stylegan2": 3.0}
FILES = [".hydra", "best.safetensors", "grid.png", "last.safetensors", "train.log"]
V = np.random.default_rng(0).standard_normal((2, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Overrides for tiny generators of random weights."""
    folder = tmp_path_factory.mktemp("generators")
    save_file(dcgan_tensors(), folder / "dcgan.safetensors")
    save_file(stylegan2_tensors(8, n_mlp=2, dim=16, width=8), folder / "stylegan2.safetensors")
    spec = dataclasses.replace(spec_for(128), channel_width=4, z_dim=8, class_embed_dim=2)
    (folder / "biggan").mkdir()
    config = {**dataclasses.asdict(spec), "layers": [list(layer) for layer in spec.layers]}
    (folder / "biggan" / "config.json").write_text(json.dumps(config))
    save_file(biggan_tensors(spec), folder / "biggan" / "model.safetensors")
    return {
        "dcgan": ["generator=dcgan", f"generator.weights={folder / 'dcgan.safetensors'}"],
        "stylegan2": ["generator=stylegan2", f"generator.weights={folder / 'stylegan2.safetensors'}"],
        "biggan": ["generator=biggan", f"generator.weights={folder / 'biggan'}", "generator.class_name=[robin,husky]",
                   "generator.feature_layer=generator.layers.1"],
    }  # fmt: skip


def words_of(model: str, dim: int, folder: Path) -> list[str]:
    """What makes one of the models over codes of a size; K = 3."""
    if model == "vectors":
        np.savez(folder / "mine.npz", smile=np.eye(dim)[0], other=-np.eye(dim)[:2])
        return ["model=vectors", f"vectors={folder / 'mine.npz'}"]
    return [f"model={model}", "k=3", *(["model.samples=60"] if model == "ganspace" else [])]


@pytest.fixture(scope="module")
def runs(generators: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder, made = tmp_path_factory.mktemp("computed"), {}
    for name, dim in GENERATORS.items():
        for model in ("random", "sefa", "ganspace", "vectors"):
            run = made[name, model] = folder / f"{name}-{model}"
            words = words_of(model, dim, folder)
            words.append(f"model.alpha=[-{ALPHA[name]},{ALPHA[name]}]")
            assert run_train([*generators[name], *words, "device=cpu", "hparams.batch_size=2", f"output_dir={run}"])
    return made


ALL = [(name, model) for name in GENERATORS for model in ("random", "sefa", "ganspace", "vectors")]


@pytest.mark.parametrize(("name", "model"), ALL)
def test_the_run_folder(runs, name, model):
    run = runs[name, model]
    assert sorted(os.listdir(run)) == sorted([*FILES, *(["catalog.yaml"] if model == "vectors" else [])])
    for file in ("best", "last"):
        checkpoint = load_checkpoint(run / f"{file}.safetensors")
        d = checkpoint.directions
        assert (d.kind, d.k, d.dim) == (model, 3, GENERATORS[name])
        assert (checkpoint.iteration, checkpoint.loss) == (0, None)
        assert checkpoint.config["model"]["alpha"] == [-ALPHA[name], ALPHA[name]]
        codes = torch.randn(2, d.dim, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(d(codes).norm(dim=-1), torch.ones(3, 2), atol=1e-6)
        assert torch.allclose(d(codes)[:, 0], d(codes)[:, 1], atol=0)
    with Image.open(run / "grid.png") as grid:
        assert grid.height > 3 * 64
    log = (run / "train.log").read_text()
    assert f"{name}, {model}: 3 directions over {GENERATORS[name]} values, computed in" in log


def test_the_directions_are_the_methods(runs, generators):
    """What the methods' own tests compare with numpy is what stands in the checkpoint."""
    for name in GENERATORS:
        generator = build_generator(compose_train(generators[name]).generator)
        inputs = range(generator.latent.layers)
        expected = {
            "random": random_directions(3, generator.latent.dim, stream(0, "random")),
            "sefa": sefa(generator, 3, inputs),
            "vectors": torch.cat([torch.eye(generator.latent.dim)[:1], -torch.eye(generator.latent.dim)[:2]]),
        }
        for model, vectors in expected.items():
            saved = load_checkpoint(runs[name, model] / "best.safetensors").directions.params
            assert torch.allclose(saved.double(), vectors.double(), atol=1e-5), (name, model)


def test_sefa_reads_the_weights_of_the_layers_that_are_fed(generators, tmp_path):
    assert run_train([*generators["stylegan2"], "model=sefa", "k=3", "feed_layers=[3,1]", "device=cpu",
                      f"output_dir={tmp_path / 'run'}"])  # fmt: skip
    generator = build_generator(compose_train(generators["stylegan2"]).generator)
    saved = load_checkpoint(tmp_path / "run" / "best.safetensors").directions.params
    assert torch.allclose(saved.double(), sefa(generator, 3, [1, 3]), atol=1e-5)
    assert not torch.allclose(saved.double(), sefa(generator, 3, range(4)), atol=1e-2)


@pytest.mark.parametrize(("name", "model"), ALL)
def test_commands_of_a_run(runs, invoke, tmp_path, name, model):
    run, out = runs[name, model], tmp_path / "out"
    result = invoke("gen", run, "n_samples=1", "n_dirs=-1", "alphas=[2]", "image_size=null", f"output_dir={out}")
    assert result.exit_code == 0, result.output
    assert (out / "sample_0.png").is_file()
    result = invoke("names", run)
    assert result.exit_code == 0, result.output
    assert ("smile" in result.stdout) == (model == "vectors")
    if model in ("sefa", "vectors"):
        result = invoke("eval", run, "eval_iters=1", f"output_dir={out}")
        assert result.exit_code == 0, result.output
        assert len(json.loads((out / "eval.json").read_text())["directions"]) == 3


def test_names_of_the_file(runs, invoke, generators, tmp_path):
    edits = read_catalog(runs["dcgan", "vectors"])
    assert edits == {"smile": NamedEdit(0, (), (-6.0, 6.0), "from mine.npz")}
    run = tmp_path / "run"
    save_file({"v": torch.from_numpy(V)}, tmp_path / "v.safetensors", metadata={"names": '["yaw", "4"]'})
    words = (*generators["dcgan"], "model=vectors", f"vectors={tmp_path / 'v.safetensors'}", "device=cpu",
             "model.alpha=1.5", f"output_dir={run}")  # fmt: skip
    assert invoke("train", *words).exit_code == 0
    assert "direction 1 stays without a name: a name must be" in (run / "train.log").read_text()
    assert read_catalog(run) == {"yaw": NamedEdit(0, (), (-3.0, 3.0), "from v.safetensors")}
    assert invoke("name", run, "smile", "--direction", "1").exit_code == 0
    assert list(read_catalog(run)) == ["yaw", "smile"]


def test_lengths_are_kept_if_asked(generators, tmp_path):
    np.save(tmp_path / "v.npy", V)
    words = [*generators["dcgan"], "model=vectors", f"vectors={tmp_path / 'v.npy'}", "device=cpu"]
    assert run_train([*words, "model.normalize=false", "k=1", f"output_dir={tmp_path / 'run'}"])
    d = load_checkpoint(tmp_path / "run" / "best.safetensors").directions
    assert np.array_equal(d(torch.zeros(1, 24))[:, 0].detach().numpy(), V[:1])


@pytest.fixture(scope="module")
def attributes(generators: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, made = tmp_path_factory.mktemp("attributes"), {}
    for name in GENERATORS:
        words = ["model=attributes", "attributes=[brightness,warmth]", "device=cpu", "hparams.batch_size=2",
                 f"model.samples={100 if name == 'biggan' else 300}"]  # fmt: skip
        if name == "biggan":  # the weights are noise, of which only a small piece is anywhere near linear
            words.append("generator.truncation=0.1")
        made[name] = folder / name
        run_train([*generators[name], *words, f"output_dir={made[name]}"])
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATORS)
def test_sliders_for_scores(attributes, invoke, tmp_path, name):
    run = attributes[name]
    assert sorted(os.listdir(run)) == sorted([*FILES, "catalog.yaml"])
    checkpoint = load_checkpoint(run / "best.safetensors")
    edits = read_catalog(run)
    assert list(edits) == ["brightness", "warmth"]
    assert next(iter(edits.values())) == NamedEdit(0, (), (-6.0, 6.0), edits["brightness"].note)
    assert edits["brightness"].note.endswith("of it is linear in the codes")
    assert checkpoint.directions.kind == "attributes"
    assert "100% of the pictures are trusted" in (run / "train.log").read_text()
    words = ("n_samples=1", "edits=all", "image_size=null", f"output_dir={tmp_path}")
    result = invoke("gen", run, *words)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_plus_is_more_of_what_it_is_called(attributes, generators):
    """What the slider promises, on codes that it was not made from."""
    generator = build_generator(compose_train(generators["dcgan"]).generator)
    d = load_checkpoint(attributes["dcgan"] / "best.safetensors").directions
    z = torch.randn(200, 24, generator=torch.Generator().manual_seed(9))
    scorer = PixelScorer()

    def scores(p):
        values = scorer(to_uint8(generator.synthesize(p[:, None])).numpy()).values
        return values[:, [scorer.attributes.index(name) for name in ("brightness", "warmth")]]

    with torch.no_grad():
        spread = scores(z).std(axis=0)
        for i, own in enumerate(d(z)):
            moved = (scores(z + 2 * own) - scores(z - 2 * own)).mean(axis=0) / spread
            assert moved[i] > 1
            assert abs(moved[1 - i]) < 0.3 * moved[i]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("dcgan", marks=pytest.mark.slow),
        *(pytest.param(n, marks=pytest.mark.full) for n in ("biggan", "stylegan2")),
    ],
)
def test_export(runs, tmp_path, name):
    said: list[str] = []
    folders = export_run(runs[name, "vectors"], [], tmp_path, "edit", say=said.append)
    assert len(folders) == 2
    manifest = PublishedModel(tmp_path, "edit").manifest()
    assert manifest["directions"]["count"] == 3
    assert list(manifest["edits"]) == ["smile"]
    assert "named edits: smile" in said


def test_one_direction_is_a_run_too(generators, invoke, refused, tmp_path):
    np.save(tmp_path / "v.npy", V[0])
    run = tmp_path / "run"
    words = (*generators["dcgan"], "model=vectors", f"vectors={tmp_path / 'v.npy'}", "device=cpu")
    assert invoke("train", *words, f"output_dir={run}").exit_code == 0
    assert load_checkpoint(run / "best.safetensors").directions.k == 1
    assert invoke("gen", run, "n_samples=1", "n_dirs=-1", "image_size=null").exit_code == 0
    assert "eval compares directions with each other, and" in refused(invoke("eval", run))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=random", "k=25"], r"k must be at most 24 of model=random"),
        (["model=sefa", "k=25"], r"k must be at most 24 of model=sefa \(that is the rank"),
        (["model=ganspace", "k=9", "model.samples=9"], r"k must be at most 8 of model=ganspace"),
        (["model=ganspace", "model.samples=1"], "model.samples must be at least 2, got 1"),
        (["model=vectors"], "model=vectors needs vectors=PATH, got None"),
        (["model=vectors", "vectors=nowhere.npy"], "cannot read vectors=nowhere.npy: cannot be read: No such file"),
        (["model=vectors", "vectors=V", "k=3"], r"k must be at most 2 of model=vectors \(so many are in .*\), got 3"),
        (["model=attributes", "attributes=[brighness]"], "no attribute 'brighness'; did you mean 'brightness'"),
        (["model=attributes", "attributes=[warmth]", "model.scorers=[pixel]"], "no scorer 'pixel'; did you mean"),
        (["model=attributes", "attributes=[warmth,warmth]"], "attribute 'warmth' is asked for twice"),
        (["model=attributes", "attributes=[warmth]", "k=2"], r"k is the number of attributes \(1\), got 2"),
        (["model=attributes", "attributes=[]"], r"model=attributes needs attributes=\[happy,yaw\], got \[\]"),
        (["model=attributes"], r"model=attributes needs attributes=\[happy,yaw\], got None"),
        (["model=global", "vectors=V"], "model.vectors is an option of model=vectors, not of model=global"),
        (["model=sefa", "model.samples=9"], "model.samples is an option of model=ganspace and model=attributes"),
        (["model=sefa", "hparams.iterations=9", "hparams/optimizer=sgd"],
         "model=sefa is computed, not trained, and has no use for hparams.iterations, hparams.optimizer: leave it out"),
        (["model=random", "projector=linear"], "has no use for projector.name"),
        (["model=random", "k=0"], "k must be at least 1, got 0"),
        (["model=random", "feed_layers=[1]"], r"feed_layers must name layers in \[0, 1\), got \[1\]"),
        (["model=random", "generator.feature_layer=main.99"], "dcgan has no layer 'main.99'"),
        (["model=sefas"], "model must be one of .*; did you mean 'sefa'"),
        (["model=random", "vector=a"], "unknown option 'vector'"),
    ],
)  # fmt: skip
def test_refused_in_one_line_and_nothing_written(generators, invoke, refused, tmp_path, words, message):
    np.save(tmp_path / "V.npy", V)
    words = [word.replace("vectors=V", f"vectors={tmp_path / 'V.npy'}") for word in words]
    result = invoke("train", *generators["dcgan"], *words, "device=cpu", f"output_dir={tmp_path / 'a' / 'run'}")
    line = refused(result)

    assert re.search(message, line), line
    assert not (tmp_path / "a").exists()


def test_the_defaults_of_training_are_no_reason_to_refuse(generators):
    for model in ("random", "sefa", "ganspace"):
        config = compose_train([*generators["dcgan"], f"model={model}", "hparams.iterations=10000", "k=1"])
        assert config.model.name == model
    with pytest.raises(ConfigError, match="k must be at least 2"):
        compose_train(["k=1"])


def test_nothing_to_resume(runs, invoke, refused, tmp_path):
    line = refused(invoke("train", f"checkpoint={runs['dcgan', 'sefa']}"))
    assert line.endswith("was computed in one go (model=sefa), not trained")
    assert line.startswith("Error: nothing to resume: ")
    line = refused(invoke("train", "model=random", f"output_dir={runs['dcgan', 'sefa']}"))
    assert "already holds a run" in line


@pytest.mark.parametrize("when", ["compute", "grid"])
def test_interrupted(generators, invoke, monkeypatch, tmp_path, when):
    def stop(*arguments, **named):
        raise KeyboardInterrupt

    target = {"compute": "latentclr.training.computed.sefa", "grid": "latentclr.commands.train.draw_overview"}[when]
    monkeypatch.setattr(target, stop)
    run = tmp_path / "a" / "run"
    result = invoke("train", *generators["dcgan"], "model=sefa", "k=3", "device=cpu", f"output_dir={run}")
    if when == "compute":
        assert result.exit_code == 130
        assert not (tmp_path / "a").exists()
    else:
        assert result.exit_code == 0
        assert "the run is saved in" in result.stdout
        assert load_checkpoint(run / "best.safetensors").directions.k == 3


def test_save_false_leaves_nothing(generators, tmp_path):
    assert run_train([*generators["dcgan"], "model=random", "k=3", "save=false", f"output_dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("k", 10**12), ("k", 4), ("dim", 10**9), ("config.model.name", "linear"), ("config.model.name", "nonlinear"),
     ("config.model.name", []), ("config.model.depth", 10**9), ("config.projector.name", "linear")],
)  # fmt: skip
def test_metadata_that_lies(runs, tmp_path, key, value):
    path = tmp_path / "best.safetensors"
    path.write_bytes((runs["dcgan", "sefa"] / "best.safetensors").read_bytes())
    with_metadata(path, lambda meta: put(meta, key, value))
    if key == "config.model.depth":  # not read of vectors
        assert load_checkpoint(path).directions.k == 3
        return
    with pytest.raises(CheckpointError, match="weights and metadata do not fit"):
        load_checkpoint(path)


def test_every_computed_model_is_tried_here(runs):
    assert {model for _, model in runs} | {"attributes"} == set(COMPUTED)


@pytest.mark.full
def test_happy_and_yaw_of_the_faces(tmp_path):
    """Each moves its own attribute more than the other's, at a step that changes the picture by about 25/255."""
    pytest.importorskip("ai_edge_litert", reason="install latentclr[faces]")
    from latentclr.scores.faces import FaceScorer

    assert run_train(["model=attributes", "attributes=[happy,yaw]", "device=cpu", f"output_dir={tmp_path / 'run'}"])
    d = load_checkpoint(tmp_path / "run" / "best.safetensors").directions
    generator, scorer = build_generator(compose_train([]).generator), FaceScorer()
    z = torch.randn(64, 100, generator=torch.Generator().manual_seed(9))

    def scores(p):
        with torch.no_grad():
            scored = scorer(to_uint8(generator.synthesize(p[:, None])).numpy())
        values = np.where(scored.trusted[:, None], scored.values, np.nan)
        return values[:, [scorer.attributes.index(name) for name in ("happy", "yaw")]]

    spread = np.nanstd(scores(z), axis=0)
    for i, (alpha, least) in enumerate(((7.0, 1.5), (4.0, 0.35))):
        own = d(z)[i].detach()
        moved = np.nanmean(scores(z + alpha * own) - scores(z - alpha * own), axis=0) / 2 / spread
        assert moved[i] > least
        assert abs(moved[1 - i]) < 0.3
