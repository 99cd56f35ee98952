"""Named edits from the run folder through the manifest to pictures of a real server; random weights are labelled."""

from __future__ import annotations

import json
import shutil
import tempfile

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file
from test_latent_input import check_no_edits
from tritonclient.grpc import model_config_pb2 as pb

from export.editor import FusedEditor
from latentclr.commands import run_train
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.training.checkpoint import load_checkpoint
from serving.contract.edits import edit_arrays
from serving.contract.manifest import parse_manifest
from serving.errors import InvalidEdit

K, D, L = 4, 16, 8
CATALOG = """\
smile: {direction: 2, layers: [4, 5], alpha: [-7, 7], note: mouth only}
rotation: {direction: 0, layers: [0, 1], alpha: [-3, 5]}
all over: {direction: 3}
grass: {direction: 1, layers: [6, 7, 8]}
gone: {direction: 4}
"""


def words(folder):
    return ["generator=stylegan2", f"generator.weights={folder / 'w.safetensors'}", "model=global", f"k={K}",
            "hparams.batch_size=2", "hparams.iterations=2", "eval_iters=1", "model.alpha=2", "device=cpu",
            "tensorboard=false"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stylegan2")
    save_file(random_tensors(32, n_mlp=2, dim=D, width=8), folder / "w.safetensors")
    assert run_train([*words(folder), f"output_dir={folder / 'run'}"])
    (folder / "run" / "catalog.yaml").write_text(CATALOG)
    return folder / "run"


def manifest_of(folder):
    config = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
    return config.parameters["manifest"].string_value


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The repository, and what `latentclr export` said."""
    from click.testing import CliRunner

    from latentclr.cli import cli

    folder = tmp_path_factory.mktemp("repository")
    result = CliRunner().invoke(cli, ["export", str(trained), "--repository", str(folder)])
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_the_manifest_has_the_names_and_export_reports_the_rest(exported):
    folder, said = exported
    lines = said.splitlines()
    assert "named edits: grass: this generator has the layers 0 to 7, not [8]: dropped" in lines
    assert "named edits: gone: direction must be in [0, 4), got 4: left out" in lines
    assert "named edits: smile, rotation, all over, grass" in lines
    assert "random weights" not in said  # from a file: what is in it is not ours to say
    for model in ("latent_edit", "latent_edit_torchscript"):
        text = manifest_of(folder / model)
        assert json.loads(text)["edits"]["smile"] == {
            "direction": 2, "layers": [4, 5], "alpha_range": [-7.0, 7.0], "note": "mouth only"}  # fmt: skip
        edits = parse_manifest(text).edits
        assert {name: edit.layers for name, edit in edits.items()} == {
            "smile": (4, 5), "rotation": (0, 1), "all over": (), "grass": (6, 7)}  # fmt: skip
        assert edits["all over"].alpha_range == (-6.0, 6.0)


def test_alpha_is_at_the_edits_layers_only(exported):
    manifest = parse_manifest(manifest_of(exported[0] / "latent_edit"))
    direction, alpha = edit_arrays(manifest, {"smile": 3.0, "rotation": -2.0, "all over": 1.0, 1: 0.5}, None)
    assert direction.tolist() == [2, 0, 3, 1]
    assert alpha.tolist() == [[0, 0, 0, 0, 3, 3, 0, 0], [-2, -2, 0, 0, 0, 0, 0, 0], [1] * 8, [0.5] * 8]
    with pytest.raises(InvalidEdit, match="did you mean smile"):
        edit_arrays(manifest, {"smil": 1.0}, None)


def test_export_tells_names_that_only_the_model_has(trained, tmp_path):
    from export.pipeline import export_run
    from serving.contract.published import PublishedModel

    said: list[str] = []
    export_run(trained, [], tmp_path, "edit", say=said.append)
    assert not [line for line in said if "alone" in line]
    PublishedModel(tmp_path, "edit").update(lambda e: {**e, "hat": {**e["smile"], "direction": 1}})
    export_run(trained, [], tmp_path, "edit", say=said.append)
    (line,) = [line for line in said if "alone" in line]
    assert line.startswith("named edits: hat (direction 1) was given to edit alone and ends with this version")


def test_edits_without_layers_reach_what_the_run_was_trained_on(trained, tmp_path, monkeypatch):
    from export.pipeline import export_run

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    of_the_dead = tmp_path / "temporary" / "latentclr-export-abcdefgh"
    of_the_dead.mkdir(parents=True)
    (of_the_dead / "lock").touch()  # and nobody holds it
    export_run(trained, ["feed_layers=[0,2]"], tmp_path, "edit", say=lambda line: None)
    assert not list((tmp_path / "temporary").glob("latentclr-*"))
    edits = parse_manifest(manifest_of(tmp_path / "edit")).edits
    assert {name: edit.layers for name, edit in edits.items()} == {
        "smile": (4, 5), "rotation": (0, 1), "all over": (0, 2), "grass": (6, 7)}  # fmt: skip


def test_names_are_published_without_another_export(exported, trained, invoke, refused, tmp_path):
    repository = shutil.copytree(exported[0], tmp_path / "repository")
    run = shutil.copytree(trained, tmp_path / "run")
    before = {
        model: json.loads(manifest_of(repository / model)) for model in ("latent_edit", "latent_edit_torchscript")
    }
    weights = {path: path.stat().st_mtime_ns for path in repository.rglob("model.*")}
    assert invoke("name", run, "hat", "--direction", "1").exit_code == 0
    assert invoke("name", run, "smile", "--direction", "3", "--move").exit_code == 0
    assert invoke("name", run, "rotation", "--remove").exit_code == 0
    result = invoke("names", run, "--publish", "--repository", repository)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    for line in ("rotation: no longer a name of latent_edit", "smile: moved from direction 2 to 3", "hat: direction 1",
                 f"latent_edit in {repository} has the names: all over, grass, hat, smile"):  # fmt: skip
        assert line in lines
    for model, manifest in before.items():
        after = json.loads(manifest_of(repository / model))
        assert after["edits"]["hat"] == {"direction": 1, "layers": [], "alpha_range": [-4.0, 4.0], "note": ""}
        assert after.pop("edits") != manifest.pop("edits")
        assert after == manifest
        # What `rollback` would bring back knows them too.
        config = (repository / model / "config.pbtxt").read_text()
        assert (repository / model / "1" / "config.pbtxt").read_text() == config
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("model.*")} == weights
    assert not list(repository.glob(".*"))
    # Directions of another training have other meanings.
    again = [*words(trained.parent), "seed=5", f"output_dir={tmp_path / 'other'}"]
    assert run_train(again)
    (tmp_path / "other" / "catalog.yaml").write_text("wrong: {direction: 0}\n")
    publishing = ("names", tmp_path / "other", "--publish", "--repository", repository)
    assert "latent_edit in" in refused(invoke(*publishing))
    assert "hat" in json.loads(manifest_of(repository / "latent_edit"))["edits"]
    assert invoke(*publishing, "--force").exit_code == 0
    assert list(json.loads(manifest_of(repository / "latent_edit"))["edits"]) == ["wrong"]
    assert "has no model 'nobody'" in refused(invoke(*publishing, "--name", "nobody"))


def test_no_edits_on_every_engine(exported):
    check_no_edits(exported[0], "latent_edit", np.random.RandomState(5).randn(2, D).astype(np.float32))


@pytest.fixture(scope="module")
def server(exported):
    pytest.importorskip("pytriton", reason="install latentclr[triton]")
    from serving import TritonServer
    from serving.triton.ports import Ports

    with TritonServer(exported[0], ports=Ports(0, 0, 0)) as running:
        yield running


def test_edits_by_name_on_triton(server, trained, invoke, tmp_path):
    checkpoint = load_checkpoint(trained / "best.safetensors")
    tensors = random_tensors(32, n_mlp=2, dim=D, width=8)
    editor = FusedEditor(StyleGAN2(tensors, truncation=0.7), checkpoint.directions)
    alpha = torch.zeros(1, 2, L)
    alpha[0, 0, 4:6], alpha[0, 1, :2] = 3, -2
    with torch.no_grad():
        expected, _ = editor(editor.generator.sample_seeds(7, 1), torch.tensor([[2, 0]]), alpha)
    out = tmp_path / "edit.png"
    words = ("edit", "--url", server.grpc_url, "--seed", "7", "-o", out)
    result = invoke(*words, "--edit", "smile=3", "--edit", "rotation=-2")
    assert result.exit_code == 0, result.output
    assert result.output == f"wrote {out}: 1 image, 32x32\n"
    with Image.open(out) as image:
        assert np.abs(np.asarray(image).astype(int) - expected[0].numpy().astype(int)).max() <= 1
    # The same picture as `gen` draws.
    result = invoke("gen", trained, "edits={smile: 3, rotation: -2}", "n_samples=1", "seed=7", "image_size=null",
                    f"output_dir={tmp_path / 'gen'}")  # fmt: skip
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "gen" / "sample_0.png") as image:
        drawn = np.asarray(image.convert("RGB"))[-34:-2, -34:-2]
    assert np.abs(drawn.astype(int) - expected[0].numpy().astype(int)).max() <= 1
    result = invoke(*words, "--direction", "rotation")
    assert result.exit_code == 0, result.output
    assert "5 images" in result.output  # over its own range, -3 to 5
    result = invoke(*words, "--edit", "smyle=3")
    assert result.exit_code == 2
    assert "did you mean smile" in result.stderr


@pytest.mark.slow
def test_random_weights_are_labelled_everywhere(trained, invoke, tmp_path, monkeypatch):
    import latentclr.pictures.render

    corners = []
    draw = latentclr.pictures.render.grid
    monkeypatch.setattr("latentclr.commands.gen.grid", lambda *given: corners.append(given[4]) or draw(*given))
    noise = ["generator.weights=random:8", "k=2", f"output_dir={tmp_path / 'run'}"]
    result = invoke("train", *words(trained.parent), *noise)
    assert result.exit_code == 0, result.output
    assert "the generator has random weights" in (tmp_path / "run" / "train.log").read_text()
    assert invoke("name", tmp_path / "run", "smile", "--direction", "1").exit_code == 0
    for form in (["n_dirs=-1", "walk=gif"], ["edits=smile", "walk=gif"], ["edits={smile: 2}"]):
        result = invoke("gen", tmp_path / "run", "n_samples=1", "image_size=16", *form)
        assert result.exit_code == 0, result.output
        assert "the generator has random weights" in result.stdout
    assert set(corners) == {"random weights"}
    assert len(corners) > 50  # training's overview, three grids, every frame of the walks
    titles = []
    suptitle, set_title = Figure.suptitle, Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda *given, **more: titles.append(given[1]) or set_title(*given, **more))
    monkeypatch.setattr(Figure, "suptitle", lambda *given, **more: titles.append(given[1]) or suptitle(*given, **more))
    result = invoke("eval", tmp_path / "run", "eval_iters=1")
    assert "the generator has random weights" in result.stdout
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["random_weights"] is True
    again = ["hparams.iterations=1", f"output_dir={tmp_path / 'again'}"]
    assert invoke("train", *words(trained.parent), *noise[:2], *again).exit_code == 0
    assert [title.partition("\n")[0] for title in titles] == 2 * ["random weights: this is noise"]
    titles.clear()
    assert invoke("eval", trained, "eval_iters=1", f"output_dir={tmp_path / 'eval'}").exit_code == 0
    assert titles == ["diagonal: consistency, off it: redundancy"]
    result = invoke("gen", trained, "n_samples=1", "n_dirs=1", f"output_dir={tmp_path / 'gen'}")
    assert "random weights" not in result.stdout
    assert corners[-1] == "alpha"


@pytest.mark.slow
def test_random_weights_are_labelled_by_export_and_edit(trained, invoke, tmp_path):
    pytest.importorskip("pytriton", reason="install latentclr[triton]")
    from serving import TritonServer
    from serving.triton.ports import Ports

    run = tmp_path / "run"
    assert run_train([*words(trained.parent), "generator.weights=random:8", "k=2", f"output_dir={run}"])
    result = invoke("export", run, "--repository", tmp_path / "models", "--name", "noise")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("the generator has random weights")
    assert parse_manifest(manifest_of(tmp_path / "models" / "noise")).generator.random_weights
    with TritonServer(tmp_path / "models", ports=Ports(0, 0, 0), models=["noise"]) as server:
        out = tmp_path / "a.png"
        result = invoke("edit", "--url", server.grpc_url, "--model", "noise", "--direction", "1", "-o", out)
        assert result.exit_code == 0, result.output
        assert result.output.endswith("; the generator has random weights: this is noise\n")
