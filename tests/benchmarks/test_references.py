"""What the benchmarks compare with draws the same pictures as our generators, so the comparison is one of speed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from latentclr.generators.biggan.biggan import BigGAN
from latentclr.generators.biggan.spec import BigGANSpec
from latentclr.generators.biggan.tensors import random_tensors as random_biggan
from latentclr.generators.stylegan2.layout import random_tensors as random_stylegan2
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.generators.stylegan3.layout import Design
from latentclr.generators.stylegan3.layout import random_tensors as random_stylegan3
from latentclr.generators.stylegan3.stylegan3 import StyleGAN3

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Import modules as the scripts do, from beside them, and forget them again."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if (file := getattr(sys.modules[name], "__file__", None)) and BENCHMARKS in Path(file).parents:
            del sys.modules[name]


def stylegan2(**settings: object) -> tuple[StyleGAN2, dict[str, Tensor]]:
    tensors = random_stylegan2(16, n_mlp=2, dim=24, width=16)
    return StyleGAN2(dict(tensors), **settings), tensors


@pytest.mark.parametrize("use_w", [True, False])
def test_grouped_stylegan2_equals_ours(benchmark_module, use_w: bool) -> None:
    lean, tensors = stylegan2(use_w=use_w, truncation=0.7)
    grouped = benchmark_module("references.grouped_stylegan2").GroupedStyleGAN2(lean, tensors)
    z = lean.sample(3, torch.Generator().manual_seed(1))
    with torch.no_grad():
        ps = torch.stack([lean.encode(z.roll(i, 0)) for i in range(lean.latent.layers)], dim=1)  # [N, L, D]
        torch.testing.assert_close(grouped.encode(z), lean.encode(z), rtol=0, atol=1e-5)
        torch.testing.assert_close(grouped.synthesize(ps), lean.synthesize(ps), rtol=0, atol=1e-5)
        for layer in lean.feature_layers:
            torch.testing.assert_close(grouped.features(ps, layer), lean.features(ps, layer), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "design", [Design(16, 80, 20, 3, False, 4, 2), Design(16, 80, 20, 1, True, 4, 2)], ids=["t", "r"]
)
def test_plain_stylegan3_equals_ours(benchmark_module, design: Design) -> None:
    tensors = random_stylegan3(design, dim=12)
    lean = StyleGAN3(dict(tensors), truncation=0.7)
    plain = benchmark_module("references.plain_stylegan3").PlainStyleGAN3(lean, tensors)
    z = lean.sample(3, torch.Generator().manual_seed(1))
    with torch.no_grad():
        ps = torch.stack([lean.encode(z.roll(i, 0)) for i in range(lean.latent.layers)], dim=1)  # [N, L, D]
        torch.testing.assert_close(plain.encode(z), lean.encode(z), rtol=0, atol=1e-5)
        torch.testing.assert_close(plain.synthesize(ps), lean.synthesize(ps), rtol=0, atol=1e-4)
        for layer in lean.feature_layers:
            torch.testing.assert_close(plain.features(ps, layer), lean.features(ps, layer), rtol=0, atol=1e-4)


def test_grouped_stylegan2_collects_gradients_of_its_weights(benchmark_module) -> None:
    lean, tensors = stylegan2()
    grouped = benchmark_module("references.grouped_stylegan2").GroupedStyleGAN2(lean, tensors)
    grouped.features(torch.randn(2, lean.latent.layers, 24), "conv1").sum().backward()
    assert grouped.table["conv1/conv/weight"].grad is not None
    assert not grouped.table["noises/noise_0"].requires_grad


def test_package_biggan_equals_ours(benchmark_module) -> None:
    pytest.importorskip("pytorch_pretrained_biggan")
    layers = ((False, 16, 16), (True, 16, 8), (True, 8, 4), (False, 4, 4), (True, 4, 2), (True, 2, 1))
    # The package ties the class embedding's size to z's.
    spec = BigGANSpec(64, layers, z_dim=12, class_embed_dim=12, channel_width=4, num_classes=5,
                      attention_layer_position=3)  # fmt: skip
    tensors = random_biggan(spec)
    lean = BigGAN(spec, dict(tensors), truncation=0.43)
    package = benchmark_module("references.package_biggan").PackageBigGAN(lean, tensors)
    z = lean.sample(3, torch.Generator().manual_seed(1))
    ps, class_id = z[:, None].expand(-1, lean.latent.layers, -1), torch.tensor([4, 0, 2])
    with torch.no_grad():
        torch.testing.assert_close(package.synthesize(ps, class_id), lean.synthesize(ps, class_id), rtol=0, atol=1e-4)
        for layer in lean.feature_layers:
            got, expected = (model.features(ps, layer, class_id) for model in (package, lean))
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_turns_share_the_rounds(benchmark_module) -> None:
    timing = benchmark_module("common.timing")
    calls = {"slow": 0, "fast": 0}

    def count(name: str) -> None:
        calls[name] += 1

    taken = timing.interleave(
        {name: lambda name=name: count(name) for name in calls}, {"slow": 3, "fast": 40}, settle=2, warm_up=1
    )
    assert {name: len(durations) for name, durations in taken.items()} == {"slow": 3, "fast": 40}
    assert calls == {"slow": 1 + 3 * 3, "fast": 1 + 3 * 2 + 40}
    assert timing.affordable_runs({"slow": 4.0, "fast": 0.1}, runs=100, seconds=8) == {"slow": 5, "fast": 80}
    assert timing.speed_up([4.0, 4.0, 6.0], [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]) == 3.0


def test_slow_functions_alternate(benchmark_module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a neighbour that is loud for some seconds is in all calls of one, and in none of the other."""
    timing = benchmark_module("common.timing")
    order: list[str] = []
    clock, takes = [0.0], {"slow": 0.6, "fast": 0.0}

    def note(name: str) -> None:
        order.append(name)
        clock[0] += takes[name]

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    timing.interleave({name: lambda name=name: note(name) for name in takes}, 6, settle=0, warm_up=1)
    pairs = list(zip(order[2::2], order[3::2], strict=True))  # after the warm-up
    assert len(pairs) == 6 and all({*pair} == {*takes} for pair in pairs)


def test_promises_hold_only_where_they_were_made(benchmark_module) -> None:
    promises = benchmark_module("common.promises")
    rows = [
        {"batch": 1, "engine": engine, "p50_ms": p50, "speed_up": speed_up, "worst_step": step}
        for engine, p50, speed_up, step in [
            (promises.PACKAGE, 200.0, 1.0, 1),
            ("eager", 150.0, 1.3, 0),
            ("onnxruntime", 100.0, 2.0, 1),
            ("openvino bf16", 40.0, 5.0, 3),
            ("served, raw gRPC", 104.0, 1.9, 1),
        ]
    ]
    settings = {"generator": "biggan", "resolution": 128, "speed_up_over": promises.PACKAGE, "export_peak_mib": 1}
    met = {
        entry["name"].split(":")[0] + str(entry["value"]): entry["met"]
        for entry in promises.edit_targets(rows, settings)
    }
    assert met["onnxruntime2.0"] is False
    assert met["openvino bf165.0"] is True
    assert "openvino bf163" not in met  # a worst pixel is promised in float32 alone
    assert met["served, raw gRPC1.04"] is True
    assert met["all engines in float321"] is True
    other = promises.edit_targets(rows, {**settings, "resolution": 256})
    assert not any("times faster" in entry["name"] for entry in other)


def test_tiers_by_name(benchmark_module):
    tiers = benchmark_module("references.tiers")
    assert (tiers.tier_model("openvino:bf16"), tiers.tier_row("openvino:bf16")) == (
        "tier_openvino_bf16", "openvino bf16, certified",
    )  # fmt: skip
    for text in ("openvino", "openvino:", "tensorflow:fp32", "openvino:fp64", ""):
        with pytest.raises(benchmark_module("common.report").BenchmarkError, match="--tier must be ENGINE:PRECISION"):
            tiers.split_tier(text)
