"""Each family of generators through everything: train, eval, score, gen, name, export, Triton, client, edit, studio."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from tiny_families import FAMILIES, QUICK

from export.editor import FusedEditor
from latentclr.config import TrainConfig, slider_end
from latentclr.generators.registry import is_built_in
from latentclr.training.checkpoint import load_checkpoint
from latentclr.training.experiment import open_run, trained_generator
from serving import EditClient, TritonServer
from serving.contract.catalog import CatalogFile
from serving.studio.app import create_app
from serving.studio.backend import Backend
from serving.studio.names import Names
from serving.studio.runner import WebServer
from serving.studio.security import Policy
from serving.studio.service import Service
from serving.triton.ports import Ports

STEPS = ["k=3", "model=nonlinear", "model.depth=1", "model.alpha=[-3.0,+3.0]", "hparams.batch_size=2",
         "hparams.iterations=4", "hparams.chunk=4", "eval_freq=4", "eval_iters=1", "device=cpu"]  # fmt: skip


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in QUICK else pytest.mark.full) for name in FAMILIES]
)
def test_a_family_walks_through_everything(name: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    pytest.importorskip("pytriton", reason="install latentclr[triton]")
    words = FAMILIES[name](tmp_path)
    again = [] if is_built_in(words[0].partition("=")[2]) else words[:1]  # a plug-in's word is said each time
    run, repository = tmp_path / "run", tmp_path / "models"

    def call(*arguments: object) -> str:
        result = invoke(*map(str, arguments))
        assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception}"
        return result.output

    call("train", *STEPS, *words, f"output_dir={run}")
    call("train", f"checkpoint={run}", *again, "hparams.iterations=5")
    config, checkpoint = open_run(run, again, TrainConfig)
    generator = trained_generator(config, checkpoint)
    end = slider_end(config.model.alpha)
    (height, width), latent, first_class = generator.size, generator.latent, (generator.class_ids or (0,))[0]
    assert load_checkpoint(run / "last.safetensors").iteration == 5
    assert checkpoint.generator["weights_sha256"] == generator.weights_sha256
    assert generator.feature_size(config.generator.feature_layer) > 0

    assert "held-out loss" in call("eval", run, *again)
    score = call("score", run, *again, "codes=24", "scorers=[pixels]")
    assert "mean largest effect" in score and (run / "score.html").is_file()
    call("gen", run, *again, "n_samples=1", "n_dirs=2", "walk=gif", f"image_size={height}")
    with Image.open(next((run / "gen").glob("*.png"))) as picture:
        assert picture.height > height and picture.width > width
    call("name", run, "mine", "--direction", 1, "--alpha", "-2..2")
    assert "mine" in call("names", run)
    report = call("export", run, *again, "--repository", repository)
    assert report.count("holds exact") == 2, report  # ONNX and TorchScript

    editor = FusedEditor(generator, checkpoint.directions)
    z, fed = generator.sample_seeds(7, 1), torch.full((1, 1, latent.layers), end / 3)
    classes = [torch.tensor([first_class])] if editor.conditional else []
    with torch.no_grad():
        expected, valid = editor(z, torch.tensor([[1]]), fed, *classes)
    assert valid.all() and tuple(expected.shape) == (1, height, width, 3)
    picked = {"class_id": first_class} if editor.conditional else {}
    with TritonServer(repository, ports=Ports(0, 0, 0)) as server:
        for model in ("latent_edit", "latent_edit_torchscript"):
            with EditClient(server.grpc_url, model) as client:
                manifest = client.manifest
                assert manifest.generator.size == (height, width) and manifest.generator.name == generator.name
                assert manifest.directions.scores and "mine" in manifest.edits
                names = manifest.generator.classes
                assert (names is None) == (generator.class_names is None)
                assert names is None or names.names == generator.class_names
                served = client.edit(seed=7, edits={"mine": end / 3}, **picked).images
                assert np.abs(served.astype(int) - expected.numpy().astype(int)).max() <= 1
                assert client.sweep(seed=7, direction=0, alphas=[-1, 0, 1], **picked).images.shape[1:3] == (
                    height,
                    width,
                )
        strip = tmp_path / "strip.png"
        call("edit", "--url", server.grpc_url, "--seed", 7, "--direction", "mine", "--alpha=-1,0,1", "-o", strip)
        with Image.open(strip) as picture:
            assert picture.width >= 3 * width and picture.height >= height
        call("edit", "--url", server.grpc_url, "--from", strip, "-o", tmp_path / "again.png")
        catalog = run / "catalog.yaml"
        service = Service(Backend(server.grpc_url, "latent_edit", 20.0), Names(CatalogFile(catalog, catalog.name)))
        with WebServer(create_app(service, Policy()), "127.0.0.1", 0) as web:
            address = f"http://127.0.0.1:{web.port}"
            with httpx.Client(base_url=address, timeout=20, trust_env=False) as studio:
                model = studio.get("/api/model").json()
                assert (model["resolution"], model["width"]) == (height, width)
                assert model["class_count"] == len(generator.class_names or ())
                edits = [{"name": "mine", "alpha": end / 3}]
                body = {"seed": 7, "edits": edits, "format": "png", **picked}
                one = opened(studio.post("/api/image", json=body).content)
                assert np.abs(one.astype(int) - expected[0].numpy().astype(int)).max() <= 1
                body = {"seed": 7, "edits": edits, "side": 32, "format": "png", **picked}
                thumbnail = opened(studio.post("/api/thumbnails", json=body).content)
                assert thumbnail.shape[0] <= max(32, min(height, 32))
        service.backend.close()
    report_file = json.loads((run / "score.json").read_text())
    assert report_file["run"]["generator"] == generator.name
