"""`latentclr certify` on models in reduced precision, each served as it was published."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from safetensors.torch import save_file
from test_precision import style_tensors
from tiny_models import nudge

from export.editor import FusedEditor
from export.golden import save_golden
from export.half import HalfGraph
from export.int8 import Int8Graph
from export.manifest import build_manifest
from export.onnx import export_onnx
from export.options import TritonOptions
from export.parity import Judge
from export.reduced import calibration_samples
from export.repository import publish
from latentclr.commands import run_train
from latentclr.config import TrainConfig
from latentclr.files import sha256_of
from latentclr.training.experiment import open_run, trained_generator
from serving import Ports, TritonServer
from serving.contract.certificate import Certificate, Gate

pytestmark = [pytest.mark.triton, pytest.mark.slow]
ALPHAS = [-4.0, -2.0, 1.0, 4.0]
TIERS = {"fp16": ("onnxruntime", "fp16"), "int8": ("onnxruntime", "int8")}
if importlib.util.find_spec("openvino"):
    from serving.contract.openvino_engine import has_bf16

    TIERS |= {"openvino_bf16": ("openvino", "bf16")} if has_bf16() else {}
    TIERS |= {"openvino_int8": ("openvino", "int8")}


def lowered(tier, plain, samples, folder):
    if tier == "fp16":
        return HalfGraph(plain)
    if tier == "int8":
        return Int8Graph(plain, samples, folder)
    from export import openvino_lowered

    return openvino_lowered.BFloat16Graph(plain) if tier == "openvino_bf16" else openvino_lowered.Int8Graph(plain)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Every tier with nothing kept in float32, published with the quality that it was measured to have, and no less."""
    work = tmp_path_factory.mktemp("tiers")
    save_file(style_tensors(), work / "w.safetensors")
    words = ["generator=stylegan2", f"generator.weights={work / 'w.safetensors'}", "model=random", "k=3", "device=cpu",
             "tensorboard=false", f"output_dir={work / 'run'}"]  # fmt: skip
    assert run_train(words)
    config, checkpoint = open_run(work / "run", [], TrainConfig)
    generator = trained_generator(config, checkpoint)
    editor = FusedEditor(generator, checkpoint.directions)
    plain = work / "model.onnx"
    export_onnx(editor, plain)
    samples = calibration_samples(editor, [(-4.0, 4.0)] * editor.directions.k)
    judge = Judge(editor, ALPHAS)
    for tier, (engine, precision) in TIERS.items():
        (folder := work / tier).mkdir()
        built = lowered(tier, plain, samples, work).build(frozenset(), folder)
        measured = judge.compare({engine: built.engine})[engine].measured()
        gate = Gate.parse(f"psnr={measured['psnr_db'] - 0.1:.2f},mean={measured['mean_step'] + 0.01:.3f}")
        certificate = Certificate(engine, precision, **measured, gate=gate.name, passed=True)
        manifest = build_manifest(tier, generator, checkpoint, built.files, [certificate], precision=precision)
        golden = save_golden(folder, editor, manifest, ALPHAS, None, {engine: built.engine}, gate)
        manifest["files_sha256"][golden.name] = sha256_of(golden)
        options = TritonOptions(max_batch_size=8, threads=1)
        publish(work / "repository", tier, {engine: built.files[0]}, manifest, options)
        if tier == "fp16":  # the same under another name, and then not quite the same
            (version,) = publish(work / "repository", "nudged", {engine: built.files[0]}, manifest, options)
            nudge(version, 1.2)
    return work / "repository"


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer(repository, ports=Ports(0, 0, 0)) as running:
        yield running


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_draws_what_it_was_certified_for(tier, server, repository, invoke):
    words = ["--url", server.grpc_url, "--model", tier, "--repository", repository, "--requests", 3]
    result = invoke("certify", *words)
    assert result.exit_code == 0, result.output
    engine, precision = TIERS[tier]
    line = result.stdout.splitlines()[1]
    assert line.startswith(f"{engine} {precision}: 80 images, worst ")
    assert "; holds psnr=" in line
    worse = invoke("certify", *words, "--quality", "psnr=100")
    assert worse.exit_code == 2
    assert "misses psnr=100: PSNR " in worse.stderr


def test_a_tier_whose_weights_were_nudged(server, repository, invoke, refused):
    line = refused(invoke("certify", "--url", server.grpc_url, "--model", "nudged", "--repository", repository))
    assert line.startswith("Error: nudged misses psnr=")
