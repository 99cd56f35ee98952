"""`latentclr export --latent-input w|w+`: codes of GAN inversion instead of z, in editor, graphs and on Triton."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from safetensors.torch import save_file
from tiny_generators import LayeredGenerator
from tritonclient.grpc import model_config_pb2 as pb

from export.editor import MAX_EDITS, FusedEditor
from export.errors import ExportError
from export.onnx import OnnxEditor, rename_input
from export.parity import parity_cases
from export.torchscript import TorchScriptEditor
from latentclr.commands import run_train
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.method.directions import build_directions
from latentclr.pictures.pixels import to_uint8
from latentclr.training.checkpoint import load_checkpoint
from serving.contract.edits import check_latents, check_rows
from serving.contract.latents import draw_latents
from serving.contract.manifest import parse_manifest
from serving.errors import InvalidEdit

K, D, L = 4, 16, 8


def tensors():
    return random_tensors(32, n_mlp=2, dim=D, width=8)


def editor(latent_input, kind="nonlinear", truncation=0.7):
    directions = build_directions(kind, K, D, torch.Generator().manual_seed(1), depth=2)
    return FusedEditor(StyleGAN2(tensors(), truncation=truncation), directions, latent_input)


def request(n=3, m=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(n, D, generator=rng)
    return z, torch.randint(K, (n, m), generator=rng), 3 * torch.randn(n, m, L, generator=rng)


@pytest.mark.parametrize("kind", ["global", "linear", "nonlinear"])
def test_equal_codes_draw_the_same_image_in_all_forms(kind):
    z, direction, alpha = request()
    with torch.no_grad():
        expected, _ = editor("z", kind)(z, direction, alpha)
        w = editor("z").generator.encode(z)
        from_w, valid_w = editor("w", kind)(w, direction, alpha)
        from_wp, valid_wp = editor("w+", kind)(w[:, None].expand(-1, L, -1), direction, alpha)
    assert torch.equal(from_w, expected)
    assert (from_wp.int() - expected.int()).abs().max() <= 1
    assert valid_w.all()
    assert valid_wp.all()


def test_each_layer_goes_its_own_code_s_way():
    made = editor("w+")
    codes, _ = made.sample_codes(2, torch.Generator().manual_seed(5))  # [N, L, D]
    _, direction, alpha = request(2)
    ps = codes.clone()
    with torch.no_grad():
        for n in range(2):
            for layer in range(L):
                d = made.directions(codes[n, layer][None])[:, 0]  # [K, D]
                for m in range(2):
                    ps[n, layer] += alpha[n, m, layer] * d[direction[n, m]]
        expected = to_uint8(made.generator.synthesize(ps))
        image, _ = made(codes, direction, alpha)
    assert (codes[:, 0] != codes[:, 1]).any()
    assert (image.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("latent_input", ["w", "w+"])
def test_alpha_zero_is_the_unedited_image_bit_for_bit(latent_input):
    made = editor(latent_input)
    codes, _ = made.sample_codes(2, torch.Generator().manual_seed(5))
    with torch.no_grad():
        ps = codes if latent_input == "w+" else codes[:, None].expand(-1, L, -1)
        expected = to_uint8(made.generator.synthesize(ps))
        image, _ = made(codes, torch.tensor([[1], [3]]), torch.zeros(2, 1, L))
        without, valid = made(codes, torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, L))
    assert torch.equal(image, expected)
    assert torch.equal(without, expected) and valid.all()


@pytest.mark.parametrize("latent_input", ["w", "w+"])
def test_bad_rows(latent_input):
    made = editor(latent_input)
    codes, direction, alpha = (tensor.clone() for tensor in made.example_inputs(4, 1))
    good, _ = made(codes, direction, alpha)
    codes[1].view(-1)[-1] = torch.nan
    direction[2] = -1
    image, valid = made(codes, direction, alpha)
    assert valid.tolist() == [True, False, False, True]
    assert not image[1:3].any()
    assert torch.equal(image[[0, 3]], good[[0, 3]])


@pytest.mark.parametrize("latent_input", ["w", "w+"])
def test_parity_cases_are_codes_of_w(latent_input):
    made = editor(latent_input)
    cases = [case.inputs for case in parity_cases(made, [-6.0, 3.0])]
    shape = (L, D) if latent_input == "w+" else (D,)
    assert all(codes.shape[1:] == shape and codes.dtype == np.float32 for codes, *_ in cases)
    assert sum(len(codes) for codes, *_ in cases) >= 200
    if latent_input == "w+":
        assert all((codes[:, 0] != codes[:, -1]).any() for codes, *_ in cases)


def test_generators_that_have_no_w():
    plain = LayeredGenerator()
    directions = build_directions("global", K, plain.latent.dim, torch.Generator())
    with pytest.raises(ExportError, match="w needs a generator with a W space; layered takes z"):
        FusedEditor(plain, directions, "w")
    in_z = StyleGAN2(tensors(), use_w=False)
    with pytest.raises(ExportError, match=r"w\+ needs directions in W; this run has generator.use_w=false"):
        FusedEditor(in_z, build_directions("global", K, D, torch.Generator()), "w+")
    with pytest.raises(ExportError, match=r"must be one of z, w, w\+, got 'W'"):
        FusedEditor(plain, directions, "W")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run on a 32-pixel StyleGAN2 of random weights, saved as a file."""
    folder = tmp_path_factory.mktemp("stylegan2")
    save_file(tensors(), folder / "w.safetensors")
    words = ["generator=stylegan2", f"generator.weights={folder / 'w.safetensors'}", "model=linear", f"k={K}",
             "hparams.batch_size=2", "hparams.iterations=2", "eval_iters=1", "model.alpha=2", "device=cpu",
             "tensorboard=false", f"output_dir={folder / 'run'}"]  # fmt: skip
    assert run_train(words)
    (folder / "run" / "catalog.yaml").write_text("smile: {direction: 2, layers: [3, 4]}\n")
    return folder / "run"


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The repository, and by latent input what `latentclr export` said; W+ is not truncated."""
    from click.testing import CliRunner

    from latentclr.cli import cli

    folder = tmp_path_factory.mktemp("repository")
    said = {}
    for latent_input, name, *more in (("w", "inverted"), ("w+", "inverted_plus", "generator.truncation=1")):
        words = ["export", str(trained), *more, "--repository", str(folder), "--name", name]
        result = CliRunner().invoke(cli, [*words, "--latent-input", latent_input])
        assert result.exit_code == 0, result.output
        said[latent_input] = result.output
    return folder, said


@pytest.fixture(scope="module")
def repository(exported):
    return exported[0]


def config_of(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims", "latent_input"), [("inverted", [D], "w"), ("inverted_plus", [L, D], "w+")])
def test_config_and_manifest(repository, name, dims, latent_input):
    for model in (name, f"{name}_torchscript"):
        config = config_of(repository / model)
        first = config.input[0]
        assert (first.name, first.data_type, list(first.dims)) == ("w", pb.TYPE_FP32, dims)
        assert len(config.model_warmup) >= 3
        assert all(list(warm_up.inputs["w"].dims) == dims for warm_up in config.model_warmup)
        text = config.parameters["manifest"].string_value
        assert json.loads(text)["latent"]["input"] == latent_input
        manifest = parse_manifest(text)
        assert (manifest.latent.input, manifest.latent.tensor, manifest.latent.shape) == (
            latent_input,
            "w",
            tuple(dims),
        )
        assert manifest.directions.max_edits == MAX_EDITS
        assert all(report["worst_step"] <= 1 and report["images"] >= 24 for report in manifest.parity.values())


@pytest.mark.slow
def test_what_the_client_checks(repository):
    manifest = parse_manifest(config_of(repository / "inverted_plus").parameters["manifest"].string_value)
    codes = np.zeros((2, L, D))
    assert check_latents(manifest, codes).shape == (2, L, D)
    assert check_latents(manifest, codes[0]).shape == (1, L, D)
    arrays = check_rows(manifest, codes, np.zeros((2, 1), int), np.zeros((2, 1, L)), None)
    assert list(arrays) == ["w", "direction", "alpha"]
    for bad in (np.zeros((2, D)), np.zeros((D,)), np.zeros((0, L, D)), np.zeros((1, 2, L, D))):
        with pytest.raises(InvalidEdit, match=r"w\+ must be of shape \[N, 8, 16\] or \[8, 16\]"):
            check_latents(manifest, bad)
    codes[1, 3, 2] = np.inf
    with pytest.raises(InvalidEdit, match=r"row 1: w\+ must be finite, got inf"):
        check_latents(manifest, codes)
    with pytest.raises(InvalidEdit, match="and no seed: give w"):
        draw_latents(manifest.latent, 3)


@pytest.mark.slow
def test_export_says_what_it_does_to_w(exported, trained, invoke, refused, tmp_path):
    told = "w is truncated by 0.7 after the edit, as z is; inversion wants generator.truncation=1"
    assert told in exported[1]["w"]
    assert "truncated" not in exported[1]["w+"]
    words = ("export", trained, "--repository", tmp_path / "models", "--latent-input")
    assert "use_w=false" in refused(invoke(*words, "w", "generator.use_w=false"))
    assert invoke(*words, "v").exit_code == 2


def check_no_edits(repository, name, codes):
    """Assert that both engines of a published model draw no edits as they draw an edit of strength 0, bit for bit."""
    onnx = OnnxEditor(repository / name / "1" / "model.onnx", threads=1)
    torchscript = TorchScriptEditor(repository / f"{name}_torchscript" / "1" / "model.pt")
    none = np.zeros((2, 0), np.int64), np.zeros((2, 0, L), np.float32)
    zero = np.ones((2, 1), np.int64), np.zeros((2, 1, L), np.float32)
    for engine in (onnx, torchscript):
        expected, _ = engine(codes, *zero)
        for _ in range(10):
            image, valid = engine(codes, *none)
            assert valid.all()
            assert np.array_equal(image, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inverted", "inverted_plus"])
def test_no_edits_on_every_engine(repository, name):
    codes = np.linspace(-1, 1, 2 * L * D, dtype=np.float32).reshape(2, L, D)
    check_no_edits(repository, name, codes if "plus" in name else codes[:, 0])


@pytest.mark.slow
def test_an_input_is_renamed_and_nothing_else(repository, trained, tmp_path):
    published = repository / "inverted" / "1" / "model.onnx"
    graph = shutil.copy(published, tmp_path / "model.onnx")
    rename_input(graph, "w", "code")
    engine = OnnxEditor(graph, threads=1)
    assert engine.names == ["code", "direction", "alpha"]
    made = FusedEditor(StyleGAN2(tensors()), load_checkpoint(trained / "best.safetensors").directions, "w")
    given = [tensor.numpy() for tensor in made.example_inputs(5, 3)]
    for drawn, expected in zip(engine(*given), OnnxEditor(published, threads=1)(*given), strict=True):
        assert np.array_equal(drawn, expected)
    with pytest.raises(ExportError, match="has a value called alpha already"):
        rename_input(graph, "code", "alpha")


@pytest.fixture(scope="module")
def server(repository):
    pytest.importorskip("pytriton", reason="install latentclr[triton]")
    from serving import TritonServer
    from serving.triton.ports import Ports

    with TritonServer(repository, ports=Ports(0, 0, 0)) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize(("model", "valid"), [("inverted", "valid"), ("inverted_plus_torchscript", "valid__1")])
def test_no_edits_and_too_many_on_triton(server, model, valid):
    """What only a raw client can ask for: no edits are the unedited image, and too many are refused."""
    import tritonclient.grpc as grpc

    shape = (2, L, D) if "plus" in model else (2, D)
    codes = np.linspace(-1, 1, np.prod(shape), dtype=np.float32).reshape(shape)
    image = valid.replace("valid__1", "image__0").replace("valid", "image")
    answers = {}
    with grpc.InferenceServerClient(server.grpc_url) as client:
        for m in (0, 1, MAX_EDITS + 1, 5000):
            arrays = {"w": codes, "direction": np.ones((2, m), np.int64), "alpha": np.zeros((2, m, L), np.float32)}
            inputs = []
            for name, array in arrays.items():
                inputs.append(grpc.InferInput(name, list(array.shape), "INT64" if name == "direction" else "FP32"))
                inputs[-1].set_data_from_numpy(array)
            result = client.infer(model, inputs)
            answers[m] = result.as_numpy(image), result.as_numpy(valid)
            assert answers[m][1].shape == (2, 1)
    assert answers[0][1].all() and answers[1][1].all()
    assert np.array_equal(answers[0][0], answers[1][0])
    for m in (MAX_EDITS + 1, 5000):
        assert not answers[m][1].any() and not answers[m][0].any()


@pytest.mark.slow
def test_the_studio_refuses_a_model_that_takes_no_seeds(server, invoke, refused):
    said = refused(invoke("studio", "--url", server.grpc_url, "--model", "inverted_plus", "--port", "0"))
    assert said.endswith(
        "the studio draws seeds and photos, and 'inverted_plus' takes w+ codes and has no encoder: export it with z, "
        "or --with-encoder"
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["", "_torchscript"])
@pytest.mark.parametrize(("name", "latent_input"), [("inverted", "w"), ("inverted_plus", "w+")])
def test_on_triton(server, trained, invoke, tmp_path, name, latent_input, engine):
    from serving import EditClient

    generator = StyleGAN2(tensors(), truncation=0.7 if latent_input == "w" else 1.0)
    made = FusedEditor(generator, load_checkpoint(trained / "best.safetensors").directions, latent_input)
    codes, _ = made.sample_codes(3, torch.Generator().manual_seed(9))
    alpha = torch.zeros(3, 1, L)
    alpha[:, :, 3:5] = 2.5  # smile reaches its own layers only
    with torch.no_grad():
        expected, _ = made(codes, torch.full((3, 1), 2), alpha)
    with EditClient(server.grpc_url, name + engine) as client:
        images = client.edit(edits={"smile": 2.5}, w=codes.numpy()).images
        assert np.abs(images.astype(int) - expected.numpy().astype(int)).max() <= 1
        one = client.sweep(direction="smile", alphas=[0, 2.5], w=codes[0].numpy()).images
        assert np.abs(one[1].astype(int) - expected[0].numpy().astype(int)).max() <= 1
        with pytest.raises(InvalidEdit, match=r"this model takes w.*, got z; export with --latent-input z"):
            client.edit(z=np.zeros((1, D)))
        with pytest.raises(InvalidEdit, match="no seed"):
            client.edit(seed=1)
        with pytest.raises(InvalidEdit, match="either a seed or z"):
            client.edit(seed=1, w=codes.numpy())
    np.save(tmp_path / "w.npy", codes.numpy())
    words = (
        "edit",
        "--url",
        server.grpc_url,
        "--model",
        name + engine,
        "--edit",
        "smile=2.5",
        "-o",
        tmp_path / "a.png",
    )
    result = invoke(*words, "--w", tmp_path / "w.npy")
    assert result.exit_code == 0, result.output
    assert "3 images" in result.output
    assert "not both" in invoke(*words, "--w", tmp_path / "w.npy", "--seed", "1").output
    assert "no seed: give w" in invoke(*words).output
