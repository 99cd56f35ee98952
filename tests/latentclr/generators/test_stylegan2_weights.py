"""The three file formats of StyleGAN2 weights, and options of loading."""

from __future__ import annotations

import argparse
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nvidia_files
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentclr.cli import main
from latentclr.errors import GeneratorError
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2, load_stylegan2
from latentclr.generators.stylegan2.weights import read_tensors
from latentclr.generators.weights.convert import convert_weights


@dataclass
class Options:
    weights: str | None = None
    class_name: str = "cat"
    use_w: bool = True
    truncation: float = 0.7
    noise_seed: int | None = None
    classes: Any = None


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    average = {"latent_avg": torch.randn(16, generator=torch.Generator().manual_seed(1))}
    return random_tensors(32, n_mlp=2, dim=16, width=16) | average


@pytest.fixture(scope="module")
def image(tensors: dict[str, Tensor]) -> Tensor:
    return StyleGAN2(tensors, truncation=0.7).synthesize(codes())


def codes() -> Tensor:
    return torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(2))


def save_pt(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def test_the_same_weights_in_every_format_give_the_same_image(
    tensors: dict[str, Tensor], image: Tensor, tmp_path: Path
) -> None:
    g_ema = {key: value for key, value in tensors.items() if key != "latent_avg"}
    training = {"g": g_ema, "g_ema": g_ema, "latent_avg": tensors["latent_avg"], "args": argparse.Namespace(size=32)}
    save_file(tensors, tmp_path / "a.safetensors")
    paths = [
        save_pt(tmp_path / "a.pt", {"g_ema": g_ema, "latent_avg": tensors["latent_avg"]}),
        save_pt(tmp_path / "b.pt", training),
        save_pt(tmp_path / "c.pt", {"g_ema": g_ema, "latent_avg": tensors["latent_avg"].expand(8, 16)}),
        save_pt(tmp_path / "d.pt", tensors),
        str(tmp_path / "a.safetensors"),
    ]
    generator = nvidia_files.generator(tensors)
    snapshot = {"training_set_kwargs": nvidia_files.EasyDict(path="x"), "G": None, "D": None, "G_ema": generator}
    for protocol in (2, 3, 4, 5):
        paths.append(str(nvidia_files.write_pickle(tmp_path / f"{protocol}.pkl", snapshot, protocol)))
    paths.append(str(nvidia_files.write_pickle(tmp_path / "bare.pkl", generator)))
    for path in paths:
        loaded = load_stylegan2(Options(path))
        torch.testing.assert_close(loaded.synthesize(codes()), image, rtol=0, atol=1e-6)
        assert len(loaded.weights_sha256) == 64 and not loaded.random_weights


def test_nvidia_clamp_and_learning_rate_are_kept(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = nvidia_files.write_pickle(tmp_path / "a.pkl", nvidia_files.generator(tensors, conv_clamp=0.25))
    clamped = load_stylegan2(Options(str(path)))
    assert clamped.features(codes(), "convs.5").abs().max() == 0.25
    assert clamped.features(codes(), "to_rgb1").abs().max() == 0.25
    convert_weights(path, tmp_path / "a.safetensors")
    again = load_stylegan2(Options(str(tmp_path / "a.safetensors")))
    assert torch.equal(again.synthesize(codes()), clamped.synthesize(codes()))

    faster = nvidia_files.generator(tensors)
    for layer in faster.meta["state"]["_modules"]["mapping"].meta["state"]["_modules"].values():
        layer.meta["state"]["weight_gain"] *= 2
        layer.meta["state"]["bias_gain"] *= 2
    read = read_tensors(nvidia_files.write_pickle(tmp_path / "b.pkl", faster))
    torch.testing.assert_close(read["style.1.weight"], 2 * tensors["style.1.weight"])
    torch.testing.assert_close(read["style.2.bias"], 2 * tensors["style.2.bias"])


def test_nvidia_without_noise(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    silent = tensors | {key: torch.zeros(1) for key in tensors if key.endswith("noise.weight")}
    generator = nvidia_files.generator(tensors)
    for block in generator.meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"].values():
        for name, layer in block.meta["state"]["_modules"].items():
            if name != "torgb":
                layer.meta["state"]["use_noise"] = False
                del layer.meta["state"]["_parameters"]["noise_strength"], layer.meta["state"]["_buffers"]["noise_const"]
    read = StyleGAN2(read_tensors(nvidia_files.write_pickle(tmp_path / "a.pkl", generator)))
    torch.testing.assert_close(read.synthesize(codes()), StyleGAN2(silent).synthesize(codes()))
    assert read.conv1.noise is None


def change(generator: nvidia_files.Persistent, path: str, **state: Any) -> nvidia_files.Persistent:
    target = generator
    for name in path.split("."):
        target = target.meta["state"]["_modules"][name]
    target.meta["state"].update(state)
    return generator


def test_other_nvidia_networks_are_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    def refuses(content: Any, message: str) -> None:
        with pytest.raises(GeneratorError, match=message):
            read_tensors(nvidia_files.write_pickle(tmp_path / "a.pkl", content))

    def make() -> nvidia_files.Persistent:
        return nvidia_files.generator(tensors)

    refuses({"G": make()}, r"a\.pkl holds no generator: expected a dict with G_ema")
    refuses([1, 2], r"holds no generator")
    refuses(change(make(), "synthesis.b8", architecture="resnet"), r"synthesis\.b8 is not of the skip architecture")
    refuses(
        change(make(), "mapping.fc0", activation="relu"), r"mapping\.fc0 is not of the skip architecture with lrelu"
    )
    extra = {"extra": torch.zeros(1)}
    refuses(change(make(), "synthesis.b8", _buffers=extra), r"not StyleGAN2: unexpected: synthesis\.b8\.extra")
    refuses(change(make(), "synthesis.b4.torgb", _parameters={}), r"missing: synthesis\.b4\.torgb\.weight, .*bias")
    refuses(change(make(), "synthesis.b4", _modules={"a\nb": make()}), "a module's _modules must be a dict of names")
    clamped = nvidia_files.generator(tensors, conv_clamp=None)
    refuses(change(clamped, "synthesis.b4.torgb", conv_clamp=1), "expected one conv_clamp for all layers")


def test_module_trees_are_bounded(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    own_child = nvidia_files.module("Generator", {}, {})
    own_child.meta["state"]["_modules"]["again"] = own_child
    doubling = nvidia_files.module("Leaf", {}, {})
    for _ in range(40):
        doubling = nvidia_files.module("Node", {}, {"left": doubling, "right": doubling})
    for content in (doubling, nvidia_files.module("Generator", {}, {f"m{i}": doubling for i in range(9)})):
        with pytest.raises(GeneratorError, match="nests modules too deeply"):
            read_tensors(nvidia_files.write_pickle(tmp_path / "a.pkl", content))


def test_convert_writes_a_whole_table_with_the_mean_latent(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    bare = {key: value.half() for key, value in tensors.items() if key != "latent_avg"}
    source = Path(save_pt(tmp_path / "a.pt", {"g_ema": bare}))
    convert_weights(source, tmp_path / "sub" / "out.safetensors")
    written = load_file(tmp_path / "sub" / "out.safetensors")
    assert set(written) == set(tensors) and all(value.dtype == torch.float32 for value in written.values())
    assert torch.equal(written["latent_avg"], StyleGAN2(bare).latent_avg)
    with pytest.raises(GeneratorError, match=r"written as \.safetensors, got out\.pt"):
        convert_weights(source, tmp_path / "out.pt")


def test_the_command_converts_and_refuses_in_one_line(
    tensors: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*paths: Path) -> tuple[Any, str]:
        monkeypatch.setattr("sys.argv", ["latentclr", "weights", "convert", *map(str, paths)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return ended.value.code, told.out + told.err

    source = nvidia_files.write_pickle(tmp_path / "a.pkl", {"G_ema": nvidia_files.generator(tensors)})
    target = tmp_path / "a.safetensors"
    assert run(source, target) == (0, f"wrote {target}\n")
    torch.testing.assert_close(load_file(target)["convs.0.conv.weight"], tensors["convs.0.conv.weight"])

    monkeypatch.chdir(tmp_path)
    hostile = tmp_path / "b.pkl"
    hostile.write_bytes(pickle.dumps(Hostile()))
    before = sorted(tmp_path.iterdir())
    code, told = run(hostile, tmp_path / "b.safetensors")
    assert code == 2
    assert "system" in told and told.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before  # nothing ran, nothing was written


class Hostile:
    """What a pickle of it would do: make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    page = tmp_path / "page.pt"
    page.write_text("<!DOCTYPE html><html>quota exceeded</html>")
    with pytest.raises(GeneratorError, match="it is a web page: download it with a browser"):
        read_tensors(page)
    with pytest.raises(GeneratorError, match="no weights file at"):
        read_tensors(tmp_path / "none.pkl")
    with pytest.raises(GeneratorError, match="holds no table of tensors under g_ema"):
        read_tensors(Path(save_pt(tmp_path / "a.pt", {"g_ema": [1]})))
    with pytest.raises(GeneratorError, match="is not a file of plain tensors"):
        read_tensors(Path(save_pt(tmp_path / "b.pt", {"g_ema": Options()})))


def test_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = load_stylegan2(Options("random:8", truncation=1.0))
    assert generator.random_weights and generator.resolution == 8 and generator.latent.dim == 512
    z = generator.sample_seeds(0, 2)
    image = generator.synthesize(generator.encode(z)[:, None].expand(-1, 4, -1))
    assert torch.equal(
        image,
        load_stylegan2(Options("random:8", truncation=1.0)).synthesize(generator.encode(z)[:, None].expand(-1, 4, -1)),
    )
    assert 0.1 < image.std() < 2  # about the range of a real one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options("random:9"), "resolutions are 8, 16, ... 1024, got 9"),
        (Options("random:big"), "takes a number of pixels, got 'big'"),
        (Options("random:" + "9" * 5000), "takes a number of pixels, got '99999"),
        (Options("random:8", noise_seed=10**20), r"noise_seed must be in \[-2\*\*63, 2\*\*64\)"),
        (Options("random", class_name="dog"), "class_name must be one of ffhq, car, .*, got 'dog'"),
        (Options("random", truncation=1.5), r"truncation must be in \[0, 1\], got 1.5"),
        (Options(), r"by hand: open https://drive.google.com/.* save the file as .*cat\.pt and run `.* stylegan2-cat`"),
    ],
    ids=lambda value: None if isinstance(value, str) else "options",
)
def test_options_that_cannot_be_used(
    options: Options, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LATENTCLR_CACHE", str(tmp_path))
    with pytest.raises(GeneratorError, match=message):
        load_stylegan2(options)


def test_a_class_s_file_is_found_in_the_cache(
    tensors: dict[str, Tensor], image: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LATENTCLR_CACHE", str(tmp_path))
    (tmp_path / "stylegan2-cat").mkdir()
    save_pt(tmp_path / "stylegan2-cat" / "cat.pt", {"g_ema": tensors})
    assert torch.equal(load_stylegan2(Options()).synthesize(codes()), image)
