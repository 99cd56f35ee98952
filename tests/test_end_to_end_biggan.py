"""A class-conditional generator from training to the served picture: BigGAN-deep, few channels, all 1000 classes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from export.editor import FusedEditor
from latentclr.cli import cli
from latentclr.config import TrainConfig
from latentclr.generators.biggan.spec import spec_for
from latentclr.generators.biggan.tensors import random_tensors
from latentclr.training.experiment import open_run, trained_generator
from serving import EditClient, TritonServer
from serving.triton.ports import Ports

BULBUL, ROBIN = 16, 15


def run(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("biggan")
    spec = dataclasses.replace(spec_for(128), channel_width=4)
    weights = folder / "weights"
    weights.mkdir()
    config = {**dataclasses.asdict(spec), "layers": [list(layer) for layer in spec.layers]}
    (weights / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(spec), weights / "model.safetensors")
    run(
        "train", "k=4", "generator=biggan", f"generator.weights={weights}", "generator.resolution=128",
        "generator.feature_layer=generator.layers.4", "generator.class_name=[bulbul,robin]", "model=nonlinear",
        "model.alpha=[-3.0,+3.0]", "hparams.batch_size=3", "hparams.iterations=2", "eval_iters=1",
        "feed_layers=[0,1,2]", f"output_dir={folder / 'run'}",
    )  # fmt: skip
    return folder / "run"


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[TritonServer]:
    pytest.importorskip("pytriton", reason="install latentclr[triton]")
    repository = trained.parent / "model_repository"
    run("export", str(trained), "--repository", str(repository))
    with TritonServer(repository, ports=Ports(0, 0, 0)) as running:
        yield running


@pytest.mark.slow
def test_the_class_is_part_of_the_request(trained: Path, server: TritonServer) -> None:
    config, checkpoint = open_run(trained, [], TrainConfig)
    generator = trained_generator(config, checkpoint)
    assert generator.class_ids == (BULBUL, ROBIN)
    editor = FusedEditor(generator, checkpoint.directions)
    z = generator.sample_seeds(7, 1)
    alpha = torch.zeros(1, 1, generator.latent.layers)
    alpha[..., 1:3] = 2.0
    pictures = {}
    with EditClient(server.grpc_url) as client:
        assert client.manifest.latent.sampler == "truncated_normal"
        for name, number in {"bulbul": BULBUL, "robin": ROBIN, "golden retriever": 207}.items():
            with torch.no_grad():
                expected, _ = editor(z, torch.tensor([[1]]), alpha, torch.tensor([number]))
            served = client.edit(seed=7, edits={1: 2.0}, layers=[1, 2], class_name=name).images
            assert np.abs(served.astype(int) - expected.numpy().astype(int)).max() <= 1
            pictures[name] = served
        assert np.array_equal(client.edit(seed=7, edits={1: 2.0}, layers=[1, 2]).images, pictures["bulbul"])  # default
    assert not np.array_equal(pictures["bulbul"], pictures["robin"])


@pytest.mark.slow
def test_edit_command_takes_a_class_name(server: TritonServer, tmp_path: Path) -> None:
    out = tmp_path / "bulbul.png"
    words = ["edit", "--url", server.grpc_url, "--seed", "7", "--direction", "1", "--alpha", "2", "-o", str(out)]
    run(*words, "--class-name", "bulbul")
    with Image.open(out) as picture:
        assert picture.size == (128, 128)
    result = CliRunner().invoke(cli, [*words, "--class-name", "bulbull"])
    assert result.exit_code == 2 and "bulbul" in result.stderr and len(result.stderr.splitlines()) == 1
