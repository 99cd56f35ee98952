"""StyleGAN2 against numbers from the reference implementation, and what training and export need of it."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latentclr.errors import GeneratorError
from latentclr.generators.stylegan2.layout import blur_kernel, random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2

GOLDEN = Path(__file__).parents[2] / "data" / "stylegan2_32"
TOLERANCE = 1e-4  # of the largest value


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    with np.load(GOLDEN / "expected.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def golden(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {}
    for key, entry in json.loads((GOLDEN / "spec.json").read_text())["weights"].items():
        draw = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(entry["shape"])
        values = None if entry.get("keep") else (entry["mean"] + entry["std"] * draw).astype(np.float32)
        tensors[key] = blur_kernel(gain=4.0) if values is None else torch.from_numpy(values)
    tensors |= {f"noises.noise_{i}": expected[f"noise.{i}"] for i in range(7)}
    return tensors | {"latent_avg": expected["latent_avg"]}


@pytest.fixture(scope="module")
def golden_generator(golden: dict[str, Tensor]) -> StyleGAN2:
    return StyleGAN2(golden)


@pytest.fixture(scope="module")
def small() -> StyleGAN2:
    return StyleGAN2(random_tensors(32, n_mlp=2, dim=16, width=16))


def everywhere(p: Tensor, layers: int = 8) -> Tensor:
    return p[:, None].expand(-1, layers, -1)


def assert_near(actual: Tensor, wanted: Tensor) -> None:
    assert actual.shape == wanted.shape
    assert (actual - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


def test_golden_mapping_and_images(golden_generator: StyleGAN2, expected: dict[str, Tensor]) -> None:
    g = golden_generator
    assert (g.latent.dim, g.latent.layers, g.resolution) == (512, 8, 32)
    assert_near(g.encode(expected["z"]), expected["w"])
    assert_near(g.synthesize(expected["ws"]), expected["image_from_ws"])
    assert_near(g.synthesize(everywhere(expected["w"])), expected["image_from_w"])
    assert_near(g.synthesize(everywhere(g.encode(expected["z"]))), expected["image_from_z_psi1"])


def test_golden_truncation_and_z_space(golden: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    in_z = StyleGAN2(golden, use_w=False, truncation=0.7)
    assert torch.equal(in_z.encode(expected["z"]), expected["z"])
    assert_near(in_z.synthesize(everywhere(expected["z"])), expected["image_from_z_psi0.7"])
    in_z.truncation = 1.0
    assert_near(in_z.synthesize(everywhere(expected["z"])), expected["image_from_z_psi1"])


def test_golden_features(golden_generator: StyleGAN2, expected: dict[str, Tensor]) -> None:
    names = [key.removeprefix("feature.") for key in expected if key.startswith("feature.")]
    assert len(names) == 7
    for name in names:
        assert_near(golden_generator.features(expected["ws"], name)[:, :32], expected[f"feature.{name}"])


def test_features_are_never_truncated_and_images_are_after_the_edit() -> None:
    tensors = random_tensors(16, n_mlp=2, dim=16, width=16)
    plain, truncated = StyleGAN2(tensors), StyleGAN2(tensors, truncation=0.5)
    ws = torch.randn(2, plain.latent.layers, 16)
    assert torch.equal(plain.features(ws, "convs.1"), truncated.features(ws, "convs.1"))
    towards = truncated.latent_avg + 0.5 * (ws - truncated.latent_avg)
    torch.testing.assert_close(truncated.synthesize(ws), plain.synthesize(towards))
    assert torch.equal(plain.latent_avg, truncated.latent_avg)  # recomputed from a seed


def test_feature_layers_have_exact_names_and_know_which_inputs_reach_them(small: StyleGAN2) -> None:
    assert small.feature_layers == (
        *("conv1", "to_rgb1", "convs.0", "convs.1", "to_rgbs.0", "convs.2", "convs.3", "to_rgbs.1"),
        *("convs.4", "convs.5", "to_rgbs.2"),
    )
    ws = torch.randn(1, 8, 16, requires_grad=True)
    for layer in small.feature_layers:
        (gradient,) = torch.autograd.grad(small.features(ws, layer).square().sum(), ws)
        reached = gradient[0].abs().sum(1) > 0
        count = small.inputs_reaching(layer)
        # The image takes in only the last of its convolutions, so between an image and the next some input is skipped:
        # to_rgb1's own style (input 1) is also convs.0's. Nothing past `count` may matter, and input count - 1 must.
        assert reached[count - 1] and not reached[count:].any(), layer
        changed = ws.detach().clone()
        changed[:, count:] = 9.0
        assert torch.equal(small.features(changed, layer), small.features(ws.detach(), layer))
    with pytest.raises(GeneratorError, match=r"stylegan2 has no layer 'conv2'; did you mean"):
        small.features(ws, "conv2")


def test_one_image_feature_is_the_image(small: StyleGAN2) -> None:
    ws = torch.randn(2, 8, 16)
    assert torch.equal(small.features(ws, "to_rgbs.2"), small.synthesize(ws))
    assert small.feature_size("convs.1") == 16 * 8 * 8


@pytest.mark.parametrize("use_w", [True, False])
def test_gradients_reach_the_codes_and_no_weight(use_w: bool) -> None:
    generator = StyleGAN2(random_tensors(16, n_mlp=2, dim=16, width=16), use_w=use_w).train()
    assert not generator.training
    ps = torch.randn(2, 6, 16, requires_grad=True)
    generator.features(ps, "conv1").square().sum().backward()
    assert ps.grad is not None
    assert ps.grad[:, 0].abs().min() > 0 and not ps.grad[:, 1:].any()
    assert all(p.grad is None and not p.requires_grad for p in generator.parameters())


def test_noise_is_the_file_s_or_a_seed_s() -> None:
    tensors = random_tensors(16, n_mlp=1, dim=8, width=8)
    bare = {key: value for key, value in tensors.items() if not key.startswith("noises.")}
    ws = torch.randn(1, 6, 8)
    before = torch.random.get_rng_state()
    stored, five, again, six = (StyleGAN2(tensors, noise_seed=s).synthesize(ws) for s in (None, 5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(five, again)
    assert not torch.equal(five, stored) and not torch.equal(five, six)
    assert torch.equal(StyleGAN2(bare).synthesize(ws), StyleGAN2(tensors, noise_seed=0).synthesize(ws))


@pytest.mark.parametrize("n_mlp", [1, 3])
def test_mapping_depth_and_channel_table_are_read_from_the_weights(n_mlp: int) -> None:
    tensors = random_tensors(64, n_mlp=n_mlp, dim=8, width=24)
    narrow = StyleGAN2(tensors)
    assert len(narrow.mapping.weights) == n_mlp
    assert [layer.energy.shape[0] for layer in narrow.convs] == [24] * 8
    table = [24, 20, 16, 16, 12, 8, 4, 6]  # any table will do, as long as neighbours agree
    widths = [24, *table]
    for i, (inputs, outputs) in enumerate(zip(widths, table, strict=False)):
        name, rgb = f"convs.{i}", f"to_rgbs.{i // 2}"
        for key in (f"{name}.conv.weight", f"{name}.activate.bias"):
            tensors[key] = tensors[key].narrow(1 if "weight" in key else 0, 0, outputs)
        tensors[f"{name}.conv.weight"] = tensors[f"{name}.conv.weight"][:, :, :inputs]
        for key, count in [(name, inputs), (rgb, outputs)] if i % 2 else [(name, inputs)]:
            for part in ("weight", "bias"):
                tensors[f"{key}.conv.modulation.{part}"] = tensors[f"{key}.conv.modulation.{part}"][:count]
        if i % 2:
            tensors[f"{rgb}.conv.weight"] = tensors[f"{rgb}.conv.weight"][:, :, :outputs]
    generator = StyleGAN2(tensors)
    assert generator.synthesize(torch.randn(2, generator.latent.layers, 8)).shape == (2, 3, 64, 64)
    assert generator.features(torch.randn(2, generator.latent.layers, 8), "convs.6").shape == (2, 4, 64, 64)


def test_latent_inputs_and_published_channel_table_by_resolution() -> None:
    # Checked against the reference's table for channel multiplier 2, scaled to a width of 64.
    generator = StyleGAN2(random_tensors(1024, n_mlp=1, dim=4, width=64))
    assert generator.latent.layers == 18
    assert [layer.energy.shape[0] for layer in generator.convs][::2] == [64, 64, 64, 64, 32, 16, 8, 4]
    with pytest.raises(GeneratorError, match=r"resolutions are 8, 16, ... 1024, got 48"):
        random_tensors(48)


def test_report_names_all_that_does_not_fit() -> None:
    tensors = random_tensors(16, n_mlp=2, dim=16, width=16)
    del tensors["conv1.noise.weight"], tensors["to_rgbs.1.bias"]
    tensors |= {"style.9": torch.zeros(1), "convs.0.activate.bias": torch.zeros(15), "extra": torch.zeros(1)}
    tensors["convs.1.activate.bias"] = torch.full((16,), float("nan"))
    with pytest.raises(GeneratorError) as error:
        StyleGAN2(tensors)
    assert str(error.value) == (
        "StyleGAN2 weights (16 px, 2 mapping layers) do not fit: missing: conv1.noise.weight, to_rgbs.1.bias;"
        " unexpected: extra, style.9; wrong shape: convs.0.activate.bias: expected [16], got [15];"
        " not finite numbers: convs.1.activate.bias"
    )


@pytest.mark.parametrize("keys", [{}, {"a": 1}, {"style.1.weight": 2}, {"convs.99999999.x": 1}])
def test_other_networks_are_refused(keys: dict[str, int]) -> None:
    with pytest.raises(GeneratorError, match="not StyleGAN2 weights: expected style"):
        StyleGAN2({key: torch.zeros(size) for key, size in keys.items()})


def test_kernels_may_be_left_out_and_must_be_separable() -> None:
    tensors = random_tensors(16, n_mlp=1, dim=8, width=8)
    ws = torch.randn(1, 6, 8)
    bare = {key: value for key, value in tensors.items() if "kernel" not in key}
    assert torch.equal(StyleGAN2(bare).synthesize(ws), StyleGAN2(tensors).synthesize(ws))
    with pytest.raises(GeneratorError, match=r"convs.0.conv.blur.kernel must be separable"):
        StyleGAN2(tensors | {"convs.0.conv.blur.kernel": torch.eye(4)})


def test_separable_blur_is_the_two_dimensional_one_for_any_kernel() -> None:
    # The reference filters with the flipped kernel; a lopsided one shows which way round the taps go.
    tensors = random_tensors(8, n_mlp=1, dim=8, width=8)
    kernel = torch.outer(torch.tensor([1.0, 2.0, 3.0, 5.0]), torch.tensor([2.0, 7.0, 1.0, 1.0])) / 25
    layer = StyleGAN2(tensors | {"convs.0.conv.blur.kernel": kernel}).convs[0]
    x, w = torch.randn(2, 8, 4, 4), torch.randn(2, 8)
    s = layer.affine(w)  # [N, I]
    weight = tensors["convs.0.conv.weight"][0] / (8 * 9) ** 0.5  # [O, I, 3, 3]
    rows = []
    for i in range(2):  # one sample at a time, weight modulated, as the paper writes it
        modulated = weight * s[i][:, None, None]
        modulated = modulated / (modulated.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        up = torch.nn.functional.conv_transpose2d(x[i : i + 1], modulated.transpose(0, 1), stride=2)  # [1, O, 9, 9]
        rows.append(torch.nn.functional.conv2d(up, kernel.flip(0, 1).expand(8, 1, 4, 4), padding=1, groups=8))
    plain = torch.cat(rows) + tensors["convs.0.noise.weight"] * tensors["noises.noise_1"]
    plain = plain + tensors["convs.0.activate.bias"][:, None, None]
    torch.testing.assert_close(layer(x, w), torch.nn.functional.leaky_relu(plain, 0.2) * 2**0.5)


@pytest.mark.parametrize("use_w", [True, False])
def test_a_preview_is_the_skip_image(use_w: bool) -> None:
    whole = StyleGAN2(random_tensors(32, n_mlp=2, dim=16, width=16), truncation=0.7, use_w=use_w)
    assert whole.previews() == (8, 16)
    ps = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(1))
    styles = ps if use_w else whole.mapping(ps)
    styles = whole.latent_avg + 0.7 * (styles - whole.latent_avg)
    for size, block in ((8, 0), (16, 1)):
        smaller = whole.stopping_at(size)
        assert (smaller.resolution, smaller.latent, smaller.name) == (size, whole.latent, "stylegan2")
        assert torch.equal(smaller.synthesize(ps), whole._run(styles, f"to_rgbs.{block}"))
        assert smaller.synthesize(ps).shape == (3, 3, size, size)
        assert torch.equal(smaller.encode(ps[:, 0]), whole.encode(ps[:, 0]))
        shared = dict(whole.named_parameters())
        assert all(shared[name] is parameter for name, parameter in smaller.named_parameters())
        assert len(list(smaller.parameters())) < len(shared)
    assert whole.synthesize(ps).shape == (3, 3, 32, 32)  # nothing was taken from the whole one
    assert smaller.previews() == (8,)


@pytest.mark.parametrize("size", [0, -8, 4, 12, 32, 64])
def test_a_preview_of_another_size_is_refused(small: StyleGAN2, size: int) -> None:
    with pytest.raises(GeneratorError, match=f"stylegan2 of 32 pixels has no preview of {size}: it stops at 8, 16"):
        small.stopping_at(size)


def test_bfloat16_autocast(small: StyleGAN2) -> None:
    ws = torch.randn(2, 8, 16, requires_grad=True)
    full = small.synthesize(ws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image, feature = small.synthesize(ws), small.features(ws, "convs.3")
    assert feature.dtype == torch.bfloat16
    assert (image - full).abs().mean() < 0.03 * full.abs().max()
    feature.float().sum().backward()
    assert ws.grad is not None


class Synthesis(nn.Module):
    """The part that is exported, from z so that the mapping is in the graph too."""

    def __init__(self, generator: StyleGAN2) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Tensor:
        p = self.generator.encode(z)
        return self.generator.synthesize(p[:, None].expand(-1, self.generator.latent.layers, -1))


@pytest.mark.parametrize("options", [{"truncation": 0.7}, {"use_w": False}], ids=str)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnx_export_has_a_dynamic_batch(options: dict[str, Any], tmp_path: Path) -> None:
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    tensors = random_tensors(16, n_mlp=2, dim=16, width=16) | {"conv_clamp": torch.tensor(2.0)}
    model, path = Synthesis(StyleGAN2(tensors, **options)).eval(), str(tmp_path / "model.onnx")
    shapes = ({0: torch.export.Dim("N", min=1)},)
    torch.onnx.export(model, (torch.randn(2, 16),), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    for node in onnx.load(path).graph.node:  # a per-sample grouped convolution would freeze the batch
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        assert groups in (1, 3, 16), node.name
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 5):
        z = torch.randn(count, 16)
        (image,) = session.run(None, {session.get_inputs()[0].name: z.numpy()})
        assert_near(torch.from_numpy(image), model(z))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_trace_has_a_dynamic_batch(small: StyleGAN2) -> None:
    model = Synthesis(small).eval()
    traced = torch.jit.trace(model, (torch.randn(2, 16),))
    for count in (1, 3):
        z = torch.randn(count, 16)
        assert_near(traced(z), model(z))
