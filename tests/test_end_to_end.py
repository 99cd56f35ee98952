"""The promise of the project on real faces and the real Triton: train, export, serve, edit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from export.editor import FusedEditor
from latentclr.cli import cli
from latentclr.config import TrainConfig
from latentclr.training.experiment import open_run, trained_generator
from serving import EditClient, TritonServer
from serving.errors import InvalidEdit
from serving.triton.ports import Ports

K = 6
OVERRIDES = ["k=6", "model=nonlinear", "model.alpha=[-3.0,+3.0]", "hparams.batch_size=4", "hparams.iterations=20"]


def run(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces") / "run"
    run("train", *OVERRIDES, "eval_iters=2", f"output_dir={folder}")
    return folder


@pytest.fixture(scope="module")
def repository(trained: Path) -> Path:
    folder = trained.parent / "model_repository"
    report = run("export", str(trained), "--repository", str(folder))
    assert "onnxruntime fp32: " in report and "torchscript fp32: " in report
    return folder


@pytest.fixture(scope="module")
def eager(trained: Path) -> FusedEditor:
    config, checkpoint = open_run(trained, [], TrainConfig)
    return FusedEditor(trained_generator(config, checkpoint), checkpoint.directions)


@pytest.fixture(scope="module")
def server(repository: Path):
    pytest.importorskip("pytriton", reason="install latentclr[triton]")
    with TritonServer(repository, ports=Ports(0, 0, 0)) as running:
        yield running


@pytest.mark.parametrize("model", ["latent_edit", "latent_edit_torchscript"])
def test_concurrent_requests_draw_what_eager_draws(server: TritonServer, eager: FusedEditor, model: str) -> None:
    rng = np.random.default_rng(0)

    def request(i: int) -> int:
        n, m = int(rng_sizes[i][0]), int(rng_sizes[i][1])
        local = np.random.default_rng(i)
        z = local.standard_normal((n, 100)).astype(np.float32)
        direction = local.integers(0, K, (n, m))
        alpha = local.uniform(-6, 6, (n, m, 1)).astype(np.float32)
        served = client.edit_rows(z, direction, alpha).images
        with torch.no_grad():
            expected, valid = eager(torch.from_numpy(z), torch.from_numpy(direction), torch.from_numpy(alpha))
        assert valid.all() and served.shape == (n, 64, 64, 3)
        return int(np.abs(served.astype(int) - expected.numpy().astype(int)).max())

    rng_sizes = np.stack([rng.integers(1, 21, 40), rng.integers(1, 5, 40)], axis=1)  # N up to 20: over the batch limit
    with EditClient(server.grpc_url, model) as client, ThreadPoolExecutor(8) as pool:
        assert max(pool.map(request, range(40))) <= 1


def test_a_seed_is_the_librarys_seed(server: TritonServer, eager: FusedEditor) -> None:
    z = eager.generator.sample_seeds(7, 1)
    with torch.no_grad():
        expected, _ = eager(z, torch.tensor([[3]]), torch.tensor([[[4.0]]]))
    with EditClient(server.grpc_url) as client:
        served = client.edit(seed=7, edits={3: 4.0}).images
    assert np.abs(served.astype(int) - expected.numpy().astype(int)).max() <= 1


def test_zero_alpha_is_the_unedited_image_bit_for_bit(server: TritonServer) -> None:
    with EditClient(server.grpc_url) as client:
        unedited = client.edit(seed=11).images
        for direction in range(K):
            assert np.array_equal(client.edit(seed=11, edits={direction: 0.0}).images, unedited)


def test_a_sweep_equals_single_edits(server: TritonServer) -> None:
    alphas = [-6, -3, 0, 3, 6]
    with EditClient(server.grpc_url) as client:
        sweep = client.sweep(seed=5, direction=2, alphas=alphas).images
        single = np.concatenate([client.edit(seed=5, edits={2: a}).images for a in alphas])
    assert np.abs(sweep.astype(int) - single.astype(int)).max() <= 1


def test_the_manifest_tells_what_is_served(server: TritonServer, eager: FusedEditor) -> None:
    with EditClient(server.grpc_url) as client:
        manifest = client.manifest
        assert manifest.generator.name == "dcgan" and manifest.generator.resolution == 64
        assert manifest.generator.weights_sha256 == eager.generator.weights_sha256
        assert manifest.directions.count == K and tuple(manifest.directions.alpha_range) == (-6.0, 6.0)
        with pytest.raises(InvalidEdit, match=r"direction must be in \[0, 6\), got 6"):
            client.edit(seed=1, edits={K: 1.0})


def test_edit_command_writes_a_strip(server: TritonServer, tmp_path: Path) -> None:
    out = tmp_path / "strip.png"
    run("edit", "--url", server.grpc_url, "--seed", "7", "--direction", "3", "--alpha", "-6,-3,0,3,6", "-o", str(out))
    with Image.open(out) as picture:
        strip = np.asarray(picture.convert("RGB"))
    assert strip.shape[1] >= 5 * 64 and strip.std() > 20


def test_edit_command_refuses_a_direction_out_of_range(server: TritonServer, tmp_path: Path) -> None:
    out = tmp_path / "strip.png"
    result = CliRunner().invoke(
        cli, ["edit", "--url", server.grpc_url, "--seed", "7", "--direction", "99", "--alpha", "1", "-o", str(out)]
    )
    assert result.exit_code == 2 and not out.exists()
    assert "direction must be in [0, 6), got 99" in result.stderr and len(result.stderr.splitlines()) == 1
