"""BigGAN-deep against numbers from the package and the origin, and what training and export need of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from latentclr.errors import GeneratorError
from latentclr.generators.biggan.biggan import BigGAN, load_biggan
from latentclr.generators.biggan.spec import LAYERS, BigGANSpec, read_spec, spec_for
from latentclr.generators.biggan.tensors import blend_of, random_tensors
from latentclr.generators.weights.files import load_tensors

GOLDEN = Path(__file__).parents[2] / "data" / "biggan_tiny"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    with np.load(GOLDEN / "expected.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@pytest.fixture(scope="module")
def spec() -> BigGANSpec:
    return read_spec(GOLDEN / "config.json")


@pytest.fixture(scope="module")
def tiny(spec: BigGANSpec) -> BigGAN:
    return BigGAN(spec, load_tensors(GOLDEN / "pytorch_model.bin"), truncation=0.4)


@pytest.mark.parametrize("truncation", [0.4, 0.5, 1.0, 0.37])
def test_golden_images(spec: BigGANSpec, expected: dict[str, Tensor], truncation: float) -> None:
    generator = BigGAN(spec, load_tensors(GOLDEN / "pytorch_model.bin"), truncation)
    same = expected["z"][:, None].expand(-1, generator.latent.layers, -1)
    for name, codes in {"image": same, "image_layers": expected["z_layers"]}.items():
        image = generator.synthesize(codes * truncation, expected["class_id"])
        torch.testing.assert_close(image, expected[f"{name}.trunc={truncation}"], atol=TOLERANCE, rtol=0)


def test_golden_features(tiny: BigGAN, expected: dict[str, Tensor]) -> None:
    for layer in tiny.feature_layers[1:]:
        features = tiny.features(expected["z_layers"] * 0.4, layer, torch.ones(3, dtype=torch.int64))
        torch.testing.assert_close(features, expected[f"feature.{layer}.class=1"], atol=TOLERANCE, rtol=0)


def test_latent_and_layers(tiny: BigGAN) -> None:
    assert (tiny.latent.dim, tiny.latent.layers, tiny.latent.truncation) == (128, 11, 0.4)
    assert tiny.resolution == 128
    assert tiny.feature_layers == ("generator.gen_z", *(f"generator.layers.{i}" for i in range(11)))
    assert tiny.feature_size("generator.gen_z") == 64 * 4 * 4
    with pytest.raises(GeneratorError, match=r"has no layer 'generator.layers.4.conv_0'.*generator.layers.10"):
        tiny.check_layer("generator.layers.4.conv_0")


def test_inputs_reaching_is_exact(tiny: BigGAN) -> None:
    """A code changes a layer's output exactly if `inputs_reaching` says so; attention (layer 8) takes no code."""
    rng = torch.Generator().manual_seed(1)
    for layer in tiny.feature_layers:
        ps = torch.randn(1, 11, 128, generator=rng, requires_grad=True)
        tiny.features(ps, layer, torch.tensor([3])).square().sum().backward()
        assert ps.grad is not None
        assert (ps.grad.abs().sum(dim=(0, 2)) > 0).tolist() == [i < tiny.inputs_reaching(layer) for i in range(11)]
    assert tiny.inputs_reaching("generator.layers.7") == tiny.inputs_reaching("generator.layers.8") == 9


def test_frozen(tiny: BigGAN) -> None:
    tiny.train()
    assert not tiny.training
    assert not any(parameter.requires_grad for parameter in tiny.parameters())


def test_bfloat16_autocast(tiny: BigGAN, expected: dict[str, Tensor]) -> None:
    ps = (expected["z_layers"] * 0.4).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        features = tiny.features(ps, "generator.layers.4", expected["class_id"])
        image = tiny.synthesize(ps, expected["class_id"])
    assert (image.float() - expected["image_layers.trunc=0.4"]).abs().max() < 0.1
    features.float().sum().backward()
    assert ps.grad is not None
    assert ps.grad.isfinite().all()


def test_sampling_is_truncated(tiny: BigGAN) -> None:
    z = tiny.sample(500, torch.Generator().manual_seed(0))
    assert z.abs().max() <= 0.8
    assert z.std() == pytest.approx(0.4 * 0.8796, rel=0.02)  # a normal cut at +-2 has that deviation


NO_SCIPY = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "scipy":
            raise ModuleNotFoundError("No module named 'scipy'")

sys.meta_path.insert(0, Refuse())
from latentclr.cli import main
sys.argv[0] = "latentclr"
try:
    main()
except SystemExit as ended:
    assert ended.code == 0, ended.code
from serving.contract.latents import draw_latents
from serving.contract.manifest import Latent
print(draw_latents(Latent("z", 3, 11, "truncated_normal", 0.4), 7).tolist())
"""


@pytest.mark.slow
def test_a_biggan_is_trained_and_drawn_without_scipy(
    tiny: BigGAN, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    words = ["generator=biggan", f"generator.weights={GOLDEN}", "generator.class_name=3", "model=linear", "k=2",
             "generator.feature_layer=generator.gen_z", "hparams.batch_size=2", "hparams.iterations=2", "eval_iters=1",
             "tensorboard=false", "device=cpu", f"output_dir={tmp_path / 'run'}"]  # fmt: skip
    process = start("train", *words, code=NO_SCIPY)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert (tmp_path / "run" / "grid.png").is_file()  # whose rows are seeds
    served = json.loads(out.splitlines()[-1])[0]
    assert served == tiny.sample_seeds(7, 1)[0, :3].tolist()  # the client's draw and the trainer's are one


def test_class_is_needed(tiny: BigGAN) -> None:
    with pytest.raises(GeneratorError, match="class-conditional: expected class_id"):
        tiny.synthesize(torch.zeros(1, 11, 128))


def test_describe(tiny: BigGAN) -> None:
    described = tiny.describe()
    assert described["truncation"] == 0.4
    assert described["classes"]["names"] == [str(i) for i in range(10)]


@pytest.mark.parametrize(("resolution", "latents"), [(128, 11), (256, 13), (512, 15)])
def test_published_shapes(resolution: int, latents: int) -> None:
    spec = spec_for(resolution)
    assert (spec.output_dim, len(spec.layers) + 1, len(LAYERS[resolution])) == (resolution, latents, latents - 1)
    attention = spec.attention_layer_position
    assert 4 * 2 ** sum(up for up, _, _ in spec.layers[:attention]) == 64  # BigGAN-deep attends at 64 x 64


def test_blend_keeps_the_packages_order() -> None:
    assert blend_of(1.0, 51) == [(50, 1.0)]
    assert blend_of(0.4, 51) == [(20, 1.0)]
    assert blend_of(0.37, 51) == [(18, pytest.approx(0.5)), (19, pytest.approx(0.5))]
    assert blend_of(0.375, 51)[0] == (18, pytest.approx(0.75))  # nearer to 19, yet 18 weighs more
    for wrong in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(GeneratorError, match=r"truncation must be in \(0, 1\]"):
            blend_of(wrong, 51)


class Served(nn.Module):
    def __init__(self, generator: BigGAN) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, ps: Tensor, class_id: Tensor) -> Tensor:
        return self.generator.synthesize(ps, class_id)


@pytest.fixture(scope="module")
def onnx_session(tiny: BigGAN, tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    batch = torch.export.Dim("n", min=1, max=64)
    inputs = (torch.zeros(2, 11, 128), torch.zeros(2, dtype=torch.int64))
    torch.onnx.export(
        Served(tiny),
        inputs,
        path,
        dynamo=True,
        opset_version=18,
        dynamic_shapes=({0: batch}, {0: batch}),
        verbose=False,
    )
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("count", [1, 3])
def test_onnx_has_a_dynamic_batch(
    tiny: BigGAN, expected: dict[str, Tensor], onnx_session: onnxruntime.InferenceSession, count: int
) -> None:
    ps, class_id = expected["z_layers"][:count] * 0.4, expected["class_id"][:count]
    names = [entry.name for entry in onnx_session.get_inputs()]
    (image,) = onnx_session.run(None, dict(zip(names, (ps.numpy(), class_id.numpy()), strict=True)))
    np.testing.assert_allclose(image, tiny.synthesize(ps, class_id), atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
def test_torchscript_has_a_dynamic_batch(tiny: BigGAN, expected: dict[str, Tensor]) -> None:
    traced = torch.jit.trace(Served(tiny), (torch.zeros(2, 11, 128), torch.zeros(2, dtype=torch.int64)))
    ps, class_id = expected["z_layers"] * 0.4, expected["class_id"]
    torch.testing.assert_close(traced(ps, class_id), tiny.synthesize(ps, class_id), atol=TOLERANCE, rtol=0)


def test_load_folder_and_files(tmp_path: Path, tiny: BigGAN, expected: dict[str, Tensor]) -> None:
    tensors = load_tensors(GOLDEN / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((GOLDEN / "config.json").read_text())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    places = (GOLDEN, GOLDEN / "pytorch_model.bin", tmp_path, tmp_path / "model.safetensors")
    loaded = [load_biggan(str(place), truncation=0.4, class_name=[3, 7]) for place in places]
    ps, class_id = expected["z_layers"] * 0.4, expected["class_id"]
    for generator in loaded:
        assert torch.equal(generator.synthesize(ps, class_id), tiny.synthesize(ps, class_id))
        assert generator.class_ids == (3, 7)
        assert not generator.random_weights
    assert loaded[0].weights_sha256 == loaded[1].weights_sha256 != loaded[2].weights_sha256
    drawn = loaded[0].sample_classes(50, torch.Generator().manual_seed(0))
    assert drawn is not None
    assert set(drawn.tolist()) == {3, 7}


def test_load_errors(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"classes \[0, 10\), got 16"):
        load_biggan(str(GOLDEN), class_name="bulbul")
    with pytest.raises(GeneratorError, match="no file or folder at"):
        load_biggan(str(tmp_path / "absent"))
    with pytest.raises(GeneratorError, match=r"neither model.safetensors nor pytorch_model.bin"):
        load_biggan(str(tmp_path))
    with pytest.raises(GeneratorError, match="must be one of 128, 256, 512, got 300"):
        load_biggan("random", resolution=300)
    save_file({"embeddings.weight": torch.zeros(128, 1000)}, tmp_path / "part.safetensors")
    with pytest.raises(GeneratorError, match=r"lack 'generator.gen_z.weight_orig'"):
        load_biggan(str(tmp_path / "part.safetensors"))
    save_file({"embeddings.weight": torch.zeros(5, 1000)}, tmp_path / "shape.safetensors")
    with pytest.raises(GeneratorError, match=r"embeddings.weight must be \[128, 1000\], got \[5, 1000\]"):
        load_biggan(str(tmp_path / "shape.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_width": 0}, "channel_width must be an integer"),
        ({"num_classes": 10**9}, "num_classes must be an integer"),
        ({"layers": "no"}, "layers must be a list"),
        ({"layers": [[True, 16, 8], [True, 16, 8]]}, r"layer 1 must be \[upsample, 8, 8 or 4\], got \[True, 16, 8\]"),
        ({"layers": [[1, 16, 16]]}, "layer 0 must be"),
        ({"layers": [[True, 16.0, 16]]}, "layer 0 must be"),
        ({"layers": [[True, 16, 8.0]]}, "layer 0 must be"),
        ({"output_dim": 64}, "at 128 px, expected 1 x at 64"),
        ({"attention_layer_position": 99}, "attention before one of them, got 99"),
        ({"attention_layer_position": 1.0}, "attention before one of them, got 1.0"),
        ({"eps": "tiny"}, "0 < eps < 1"),
        ({"layers": [[True, 16, 16]] * 10_000}, "at most 64 layers, got 10000"),
        ({"layers": [list(range(9999))]}, r"got \[0, 1, .*\.\.\.\]"),
    ],
)
def test_config_errors(tmp_path: Path, change: dict[str, object], message: str) -> None:
    config = json.loads((GOLDEN / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(GeneratorError, match=message):
        read_spec(tmp_path / "config.json")


def test_config_that_is_no_config(tmp_path: Path) -> None:
    for text in ("[]", "{", '{"a": 1}', "[" * 100_000, '{"a":' * 100_000, " " * 1_000_001):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(GeneratorError, match="is not a BigGAN config"):
            read_spec(tmp_path / "config.json")


def test_damaged_spectral_norm(spec: BigGANSpec) -> None:
    tensors = load_tensors(GOLDEN / "pytorch_model.bin")
    tensors["generator.gen_z.weight_u"].zero_()
    with pytest.raises(GeneratorError, match="gen_z has spectral norm 0"):
        BigGAN(spec, tensors, 0.4)


def test_leftover_tensors_are_named(spec: BigGANSpec, caplog: pytest.LogCaptureFixture) -> None:
    BigGAN(spec, {**load_tensors(GOLDEN / "pytorch_model.bin"), "surprise": torch.zeros(1)}, 0.4)
    assert "surprise" in caplog.text


def test_random_weights_are_seeded_and_sane(spec: BigGANSpec) -> None:
    tables = [random_tensors(spec, seed) for seed in (0, 0, 1)]
    assert tables[0].keys() == load_tensors(GOLDEN / "pytorch_model.bin").keys()
    assert all(torch.equal(tables[0][name], tables[1][name]) for name in tables[0])
    assert not torch.equal(tables[0]["embeddings.weight"], tables[2]["embeddings.weight"])
    generator = BigGAN(spec, tables[0], 0.4)
    z = generator.sample(4, torch.Generator().manual_seed(0))
    image = generator.synthesize(z[:, None].expand(-1, 11, -1), torch.arange(4))
    assert 0.05 < image.std() < 0.8
    assert (image.abs() > 0.99).float().mean() < 0.05
