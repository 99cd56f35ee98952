"""Every family from training to the served picture: `latentclr gen` and the served editor draw the same.

That is so for what a run's `feed_layers` mean, and for a class-conditional generator's classes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_generators
import torch
from click.testing import Result
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from export.editor import FusedEditor
from export.pipeline import export_run
from latentclr.commands import run_gen, run_train
from latentclr.config import TrainConfig
from latentclr.generators.biggan.spec import spec_for
from latentclr.generators.biggan.tensors import random_tensors
from latentclr.generators.stylegan2 import layout as stylegan2_layout
from latentclr.pictures.render import GAP
from latentclr.training.experiment import open_run, trained_generator
from serving import EditClient, TritonServer
from serving.client.images import read_recipe
from serving.client.replay import replay
from serving.triton.ports import Ports

pytestmark = pytest.mark.slow
SEED, ALPHA = 7, 2.5
BULBUL, ROBIN = 16, 15
FED = {"dcgan": [0], "biggan": [0, 2, 3], "stylegan2": [3, 1]}
RUNS = [("dcgan", True), ("biggan", True), ("stylegan2", True), ("stylegan2", False)]


def weights_of(name: str, folder: Path) -> list[str]:
    """Overrides for a tiny generator of random weights."""
    if name == "dcgan":
        save_file(tiny_generators.dcgan_tensors(), folder / "dcgan.safetensors")
        return ["generator=dcgan", f"generator.weights={folder / 'dcgan.safetensors'}"]
    if name == "stylegan2":
        tensors = stylegan2_layout.random_tensors(32, n_mlp=2, dim=16, width=8)
        save_file(tensors, folder / "stylegan2.safetensors")
        return ["generator=stylegan2", f"generator.weights={folder / 'stylegan2.safetensors'}",
                "generator.feature_layer=convs.3"]  # fmt: skip
    spec = dataclasses.replace(spec_for(128), channel_width=4)
    (folder / "biggan").mkdir(exist_ok=True)
    config = {**dataclasses.asdict(spec), "layers": [list(layer) for layer in spec.layers]}
    (folder / "biggan" / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(spec), folder / "biggan" / "model.safetensors")
    return ["generator=biggan", f"generator.weights={folder / 'biggan'}", "generator.resolution=128",
            "generator.feature_layer=generator.layers.4", "generator.class_name=[bulbul,robin]"]  # fmt: skip


def key(name: str, fed: bool) -> str:
    return f"{name}_fed" if fed else name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("feed_layers")
    made = {}
    for name, fed in RUNS:
        run = made[key(name, fed)] = folder / "runs" / key(name, fed)
        layers = [f"feed_layers={FED[name]}".replace(" ", "")] if fed else []
        assert run_train([
            *weights_of(name, folder), *layers, "k=3", "model=nonlinear", "model.depth=2", "model.alpha=[-3.0,+3.0]",
            "hparams.batch_size=2", "hparams.iterations=2", "eval_iters=1", "tensorboard=false", "device=cpu",
            f"output_dir={run}",
        ])  # fmt: skip
        (run / "catalog.yaml").write_text("plain: {direction: 1}\nown: {direction: 1, layers: [0]}\n")
    return made


@pytest.fixture(scope="module")
def server(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    pytest.importorskip("pytriton", reason="install latentclr[triton]")
    repository = tmp_path_factory.mktemp("models")
    for name, run in runs.items():
        export_run(run, [], repository, name, max_batch_size=4, say=lambda line: None)
        shutil.rmtree(repository / f"{name}_torchscript")  # the same editor, proven; libtorch takes seconds to load
    with TritonServer(repository, ports=Ports(0, 0, 0)) as running:
        yield running


def drawn_by_gen(run: Path, *words: str) -> NDArray[np.uint8]:
    """The grid of `latentclr gen`."""
    folder = run / "drawn"
    shutil.rmtree(folder, ignore_errors=True)
    written = run_gen(run, ["n_samples=1", f"seed={SEED}", f"output_dir={folder}", "image_size=null", *words])
    with Image.open(written[0]) as grid:
        return np.asarray(grid.convert("RGB"))


def tile(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The last tile of a grid of one row."""
    return picture[-side - GAP : -GAP, -side - GAP : -GAP]


def far(one: Any, other: Any) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


@pytest.mark.parametrize(("name", "fed"), RUNS)
def test_gen_equals_served(runs: dict[str, Path], server: TritonServer, name: str, fed: bool, tmp_path: Path) -> None:
    run = runs[key(name, fed)]
    with EditClient(server.grpc_url, key(name, fed)) as client:
        side, layers = client.manifest.generator.resolution, client.manifest.latent.layers
        assert client.manifest.directions.layers == (tuple(sorted(FED[name])) if fed else ())
        numbered = tile(drawn_by_gen(run, "n_dirs=[1]", f"alphas=[{ALPHA}]"), side)
        unedited = client.edit(seed=SEED).image
        assert far(numbered, unedited) > 1
        served = client.edit(seed=SEED, edits={1: ALPHA})
        assert far(served.image, numbered) <= 1
        assert far(client.sweep(seed=SEED, direction=1, alphas=[0, ALPHA]).images[1], numbered) <= 1
        for named, edits in (("plain", f"{{plain: {ALPHA}}}"), ("own", f"{{own: {ALPHA}}}")):
            expected = tile(drawn_by_gen(run, f"edits={edits}"), side)
            assert far(client.edit(seed=SEED, edits={named: ALPHA}).image, expected) <= 1
        # What the caller says of layers counts: all of them by list, or a strength for each.
        everywhere = client.edit(seed=SEED, edits={1: ALPHA}, layers=range(layers)).image
        assert far(client.edit(seed=SEED, edits={1: [ALPHA] * layers}).image, everywhere) == 0
        if fed and layers > 1:
            assert far(everywhere, served.image) > 1
        else:
            assert far(everywhere, served.image) <= 1
        # The recipe holds the resolved rows.
        served.save(tmp_path / "edit.png")
        recipe, _ = read_recipe(tmp_path / "edit.png")
        assert np.flatnonzero(recipe.alpha[0, 0]).tolist() == (sorted(FED[name]) if fed else list(range(layers)))
        assert far(replay(client, recipe).image, served.image) == 0


@pytest.mark.parametrize("fed", [True, False])
def test_command_line_and_studio(
    runs: dict[str, Path], server: TritonServer, fed: bool, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    from serving.contract.catalog import CatalogFile
    from serving.studio.backend import Backend
    from serving.studio.models import DirectionEdit, ImageRequest, NamedEdit, SaveRequest
    from serving.studio.names import Names
    from serving.studio.service import Service

    model = key("stylegan2", fed)
    expected = tile(drawn_by_gen(runs[model], "n_dirs=[1]", f"alphas=[{ALPHA}]"), 32)
    words = ["--url", server.grpc_url, "--model", model, "--seed", str(SEED), "-o", str(tmp_path / "edit.png")]
    result = invoke("edit", *words, "--edit", f"1={ALPHA}")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "edit.png") as picture:
        assert far(picture, expected) <= 1
    service = Service(Backend(server.grpc_url, model, 20.0), Names(CatalogFile(tmp_path / "catalog.yaml")))
    service.save("mine", SaveRequest(direction=1, alpha=[-3.0, 3.0]))
    for edit in (DirectionEdit(direction=1, alpha=ALPHA), NamedEdit(name="mine", alpha=ALPHA)):
        assert far(service.image(ImageRequest(seed=SEED, edits=[edit])).image, expected) <= 1
    assert service.describe().default_layers == (sorted(FED["stylegan2"]) if fed else [])
    for layers in (None, [0], list(range(8)), sorted(FED["stylegan2"])):
        request = ImageRequest(seed=SEED, edits=[DirectionEdit(direction=1, alpha=ALPHA, layers=layers)])
        picture_line = next(line for line in service.python_code(request).splitlines() if "client.edit" in line)
        with EditClient(server.grpc_url, model) as client:
            names: dict[str, Any] = {"client": client}
            exec(picture_line.strip(), names)
        assert far(names["picture"].image, service.image(request).image) == 0
    service.backend.close()


def test_the_class_is_part_of_the_request(runs: dict[str, Path], server: TritonServer) -> None:
    config, checkpoint = open_run(runs["biggan_fed"], [], TrainConfig)
    generator = trained_generator(config, checkpoint)
    assert generator.class_ids == (BULBUL, ROBIN)
    editor = FusedEditor(generator, checkpoint.directions)
    z = generator.sample_seeds(7, 1)
    alpha = torch.zeros(1, 1, generator.latent.layers)
    alpha[..., 1:3] = 2.0
    pictures = {}
    with EditClient(server.grpc_url, "biggan_fed") as client:
        assert client.manifest.latent.sampler == "truncated_normal"
        for name, number in {"bulbul": BULBUL, "robin": ROBIN, "golden retriever": 207}.items():
            with torch.no_grad():
                expected, _ = editor(z, torch.tensor([[1]]), alpha, torch.tensor([number]))
            served = client.edit(seed=7, edits={1: 2.0}, layers=[1, 2], class_name=name).images
            assert far(served, expected) <= 1
            pictures[name] = served
        assert np.array_equal(client.edit(seed=7, edits={1: 2.0}, layers=[1, 2]).images, pictures["bulbul"])  # default
    assert not np.array_equal(pictures["bulbul"], pictures["robin"])


def test_edit_command_takes_a_class_name(
    server: TritonServer, invoke: Callable[..., Result], refused: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "bulbul.png"
    words = ["edit", "--url", server.grpc_url, "--model", "biggan_fed", "--seed", "7", "--direction", "1",
             "--alpha", "2", "-o", out]  # fmt: skip
    result = invoke(*words, "--class-name", "bulbul")
    assert result.exit_code == 0, result.output
    with Image.open(out) as picture:
        assert picture.size == (128, 128)
    assert "bulbul" in refused(invoke(*words, "--class-name", "bulbull"))
