"""StyleGAN3 against numbers from the reference implementation, and what training and export need of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from golden_networks import assert_near, load_golden
from torch import Tensor, nn

from latentclr.errors import GeneratorError
from latentclr.generators.stylegan3.layout import Design, random_tensors, with_design
from latentclr.generators.stylegan3.stylegan3 import StyleGAN3, released

TINY = Design(16, channel_base=80, channel_max=20, layers=4, margin=2)
ROUND = Design(16, channel_base=80, channel_max=20, layers=4, margin=2, kernel=1, radial=True)


@pytest.fixture(scope="module")
def small() -> StyleGAN3:
    return StyleGAN3(random_tensors(TINY, dim=12))


@pytest.mark.parametrize("name", ["stylegan3_t_32", "stylegan3_r_32"])
def test_golden_numbers(name: str) -> None:
    tensors, expected, spec = load_golden(name)
    g = StyleGAN3(tensors)  # filters are derived: the golden files leave them out
    assert (g.latent.dim, g.latent.layers, g.resolution) == (64, spec["num_ws"], 32)
    assert_near(g.encode(expected["z"]), expected["w"])
    assert_near(g.synthesize(expected["ws"]), expected["image_from_ws"])
    everywhere = expected["w"][:, None].expand(-1, 8, -1)
    assert_near(g.synthesize(everywhere), expected["image_from_z_psi1"])
    g.truncation = 0.7
    assert_near(g.synthesize(everywhere), expected["image_from_z_psi0.7"])
    names = {"input": "input"} | {f"L{i}": full for i, full in enumerate(g.full_names)}
    assert {f"feature.{full}" for full in names.values()} == {key for key in expected if key.startswith("feature.")}
    for short, full in names.items():
        assert_near(g.features(expected["ws"], short)[:, :4], expected[f"feature.{full}"])


def test_released_networks_have_the_published_layers() -> None:
    # As the layers of stylegan3-t-ffhq-1024x1024 and stylegan3-r-ffhq-1024x1024 are called in print-outs of them.
    assert released(1024, "t").names() == [
        *("L0_36_512", "L1_36_512", "L2_52_512", "L3_52_512", "L4_84_512", "L5_148_512", "L6_148_512", "L7_276_323"),
        *("L8_276_203", "L9_532_128", "L10_1044_81", "L11_1044_51", "L12_1044_32", "L13_1024_32", "L14_1024_3"),
    ]
    assert {"L9_532_256", "L10_1044_161", "L11_1044_102"} <= set(released(1024, "r").names())
    with pytest.raises(GeneratorError, match=r"resolutions are 256, 512 and 1024, got 128"):
        released(128, "t")


def plain_layer(x: Tensor, tensors: dict[str, Tensor], name: str, w: Tensor) -> Tensor:
    """One layer as the paper writes it: a sample at a time, zeros inserted, whole filters, then every second pixel."""
    key = f"synthesis.{name}"
    up, down, low, high, _ = (int(v) for v in tensors[f"{key}.geometry"])
    rows = []
    for i in range(len(x)):
        affine = tensors[f"{key}.affine.weight"]
        s = affine @ w[i] / affine.shape[1] ** 0.5 + tensors[f"{key}.affine.bias"]
        weight = tensors[f"{key}.weight"]
        weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt() * s[:, None, None]
        weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        weight = weight * tensors[f"{key}.magnitude_ema"].rsqrt()
        y = nn.functional.conv2d(x[i : i + 1], weight, padding=weight.shape[2] - 1)
        y = y + tensors[f"{key}.bias"][:, None, None]
        fine = y.new_zeros(1, y.shape[1], y.shape[2] * up, y.shape[3] * up)
        fine[:, :, ::up, ::up] = y
        fine = nn.functional.pad(fine, (low, high, low, high)).transpose(0, 1)
        u, d = tensors[f"{key}.up_filter"], tensors[f"{key}.down_filter"]
        fine = nn.functional.conv2d(fine, torch.outer(u, u).flip(0, 1)[None, None] * up**2)
        fine = (nn.functional.leaky_relu(fine, 0.2) * 2**0.5).clamp(-256, 256)
        d = d if d.ndim == 2 else torch.outer(d, d)
        rows.append(nn.functional.conv2d(fine, d.flip(0, 1)[None, None])[:, :, ::down, ::down].transpose(0, 1))
    return torch.cat(rows)


@pytest.mark.parametrize("design", [TINY, ROUND], ids=["t", "r"])
@pytest.mark.parametrize("lopsided", [False, True])
def test_every_layer_is_the_paper_s_for_any_filter(design: Design, lopsided: bool) -> None:
    # Lopsided filters show which way round the taps go, and paddings of both parities which phase comes first.
    tensors = random_tensors(design, dim=12)
    rng = torch.Generator().manual_seed(3)
    if lopsided:
        for key in tensors:
            if key.endswith("_filter"):
                tensors[key] = torch.rand(tensors[key].shape, generator=rng) / tensors[key].shape[0]
    for i, name in enumerate(design.names()[:-1]):
        key = f"synthesis.{name}"
        tensors[f"{key}.magnitude_ema"] = torch.tensor(1.0 + 0.1 * i)
        if lopsided and i % 2:  # one pixel further
            tensors[f"{key}.geometry"][2:4] += torch.tensor([1.0, -1.0])
    g, w = StyleGAN3(tensors), torch.randn(2, 12, generator=rng)
    x = g.input(w)
    for i, name in enumerate(design.names()[:-1]):
        wanted = plain_layer(x[:, : g.channels[i]], tensors, name, w)
        x = g.layers[i](x, w)
        torch.testing.assert_close(x[:, : g.channels[i + 1]], wanted, rtol=1e-4, atol=1e-4)
        assert not x[:, g.channels[i + 1] :].any()  # what fills the channels up stays empty
    assert {w.shape[2] for w in (layer.weight for layer in g.layers[:-1])} == {design.kernel}


def test_a_turned_input_is_the_input_turned() -> None:
    # The paper's point: a quarter turn of the Fourier features turns the picture, exactly, where all filters are round.
    tensors = random_tensors(ROUND, dim=12)
    tensors["synthesis.input.affine.weight"].zero_()
    w = torch.randn(1, 12, generator=torch.Generator().manual_seed(1))
    straight = StyleGAN3(tensors).features(w[:, None].expand(-1, 6, -1), "input")
    turned = tensors | {"synthesis.input.affine.bias": torch.tensor([0.0, 1.0, 0.0, 0.0])}
    torch.testing.assert_close(
        StyleGAN3(turned).features(w[:, None].expand(-1, 6, -1), "input"), straight.rot90(1, (2, 3)), rtol=0, atol=1e-4
    )
    by_hand = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(
        StyleGAN3(tensors | {"synthesis.input.transform": by_hand}).features(w[:, None].expand(-1, 6, -1), "input"),
        straight.rot90(1, (2, 3)), rtol=0, atol=1e-4,
    )  # fmt: skip


def test_feature_layers_know_which_inputs_reach_them(small: StyleGAN3) -> None:
    assert small.feature_layers == ("input", "L0", "L1", "L2", "L3", "L4")
    ws = torch.randn(1, 6, 12, requires_grad=True)
    for count, layer in enumerate(small.feature_layers, start=1):
        (gradient,) = torch.autograd.grad(small.features(ws, layer).square().sum(), ws)
        reached = gradient[0].abs().sum(1) > 0
        assert reached[:count].all() and not reached[count:].any()
        assert small.inputs_reaching(layer) == count
    assert [small.features(ws, layer).shape[1] for layer in small.feature_layers] == [
        TINY.channels()[0],
        *TINY.channels(),
    ]
    with pytest.raises(GeneratorError, match="stylegan3 has no layer 'L9'"):
        small.features(ws, "L9")


def test_gradients_reach_the_codes_and_no_weight(small: StyleGAN3) -> None:
    ps = torch.randn(2, 6, 12, requires_grad=True)
    small.train().synthesize(ps).square().sum().backward()
    assert ps.grad is not None and ps.grad.abs().sum((0, 2)).min() > 0
    assert all(p.grad is None and not p.requires_grad for p in small.parameters()) and not small.training


def test_sefa_reads_the_maps_to_styles(small: StyleGAN3) -> None:
    assert small.first_weights([0]).shape == (4, 12)
    assert small.first_weights([0, 1, 3]).shape == (4 + small.channels[0] + small.channels[2], 12)


def test_a_class_is_part_of_the_code() -> None:
    g = StyleGAN3(random_tensors(TINY, dim=12, classes=3))
    assert g.class_names == ("class 0", "class 1", "class 2") and g.class_ids == (0, 1, 2)
    z = torch.randn(3, 12)
    w = g.encode(z, torch.tensor([0, 1, 2]))
    assert not torch.allclose(w, g.encode(z, torch.tensor([1, 1, 1])))
    torch.testing.assert_close(w[1:2], g.encode(z[1:2], torch.tensor([1])))
    with pytest.raises(GeneratorError, match="class-conditional: expected class_id"):
        g.encode(z)


def test_report_names_all_that_does_not_fit() -> None:
    tensors = random_tensors(TINY, dim=12)
    first = TINY.names()[0]
    del tensors[f"synthesis.{first}.bias"]
    tensors |= {"extra": torch.zeros(1), "mapping.fc1.bias": torch.zeros(11)}
    with pytest.raises(GeneratorError) as error:
        StyleGAN3(tensors)
    assert str(error.value) == (
        f"StyleGAN3 weights (5 layers) do not fit: missing: synthesis.{first}.bias; unexpected: extra;"
        " wrong shape: mapping.fc1.bias: expected [12], got [11]"
    )


def test_what_does_not_tell_how_it_resamples_is_refused() -> None:
    tensors = random_tensors(TINY, dim=12)
    bare = {key: t for key, t in tensors.items() if not key.endswith(("geometry", "filter"))}
    assert with_design(bare).keys() == tensors.keys()
    other = {key.replace("L2_", "L2_1"): t for key, t in bare.items()}
    with pytest.raises(GeneratorError, match="do not tell how these resample"):
        StyleGAN3(other)
    key = f"synthesis.{TINY.names()[1]}.geometry"
    for at, value in ((0, 3.0), (1, 0.0), (2, 0.5), (3, 99.0), (4, 1e9), (0, 1e30)):
        geometry = tensors[key].clone()
        geometry[at] = value
        with pytest.raises(GeneratorError, match=r"geometry of L[12]_\S* does not fit"):
            StyleGAN3(tensors | {key: geometry})
    with pytest.raises(GeneratorError, match="not StyleGAN3 weights: expected synthesis"):
        StyleGAN3({"conv1.weight": torch.zeros(1)})


class Synthesis(nn.Module):
    """The part that is exported, from z so that the mapping is in the graph too."""

    def __init__(self, generator: StyleGAN3) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Tensor:
        p = self.generator.encode(z)
        return self.generator.synthesize(p[:, None].expand(-1, self.generator.latent.layers, -1))


@pytest.mark.parametrize(
    "design",
    [pytest.param(TINY, id="t", marks=pytest.mark.slow), pytest.param(ROUND, id="r", marks=pytest.mark.full)],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_exports_have_a_dynamic_batch(design: Design, tmp_path: Path) -> None:
    ort: Any = pytest.importorskip("onnxruntime")
    model = Synthesis(StyleGAN3(random_tensors(design, dim=12), truncation=0.7)).eval()
    path = str(tmp_path / "model.onnx")
    shapes = ({0: torch.export.Dim("N", min=1)},)
    torch.onnx.export(model, (torch.randn(2, 12),), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    traced = torch.jit.trace(model, (torch.randn(2, 12),))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        z = torch.randn(count, 12)
        (image,) = session.run(None, {session.get_inputs()[0].name: z.numpy()})
        assert_near(torch.from_numpy(image), model(z))
        assert_near(traced(z), model(z))


def test_bfloat16_autocast(small: StyleGAN3) -> None:
    ws = torch.randn(2, 6, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = small.synthesize(ws)
    assert (image - small.synthesize(ws)).abs().mean() < 0.03 * image.abs().max()
