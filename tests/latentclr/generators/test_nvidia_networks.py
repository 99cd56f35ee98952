"""NVIDIA's pickles of StyleGAN3 and of class-conditional StyleGAN2, read without running them."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nvidia_files
import pytest
import torch
from golden_networks import assert_near, load_golden, stylegan2_pickle, stylegan3_pickle
from safetensors.torch import save_file
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.stylegan2.stylegan2 import load_stylegan2
from latentclr.generators.stylegan3.config import StyleGAN3Config
from latentclr.generators.stylegan3.layout import with_design
from latentclr.generators.stylegan3.stylegan3 import StyleGAN3, load_stylegan3
from latentclr.generators.weights.convert import convert_weights

CONDITIONAL = "stylegan2_conditional_32"


@dataclass
class Options:
    weights: str | None = None
    class_name: str = "cat"
    use_w: bool = True
    truncation: float = 1.0
    noise_seed: int | None = None
    classes: Any = None


@pytest.fixture(scope="module")
def conditional() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    tensors, expected, _ = load_golden(CONDITIONAL)
    return tensors, expected


def test_golden_numbers_of_a_class_conditional_stylegan2(
    conditional: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    tensors, expected = conditional
    path = nvidia_files.write_pickle(tmp_path / "a.pkl", {"G_ema": stylegan2_pickle(tensors, 5)})
    z, class_id, ws = expected["z"], expected["class_id"], expected["ws"]
    g = load_stylegan2(Options(str(path)))
    assert g.class_names == ("class 0", "class 1", "class 2", "class 3", "class 4") and g.class_ids == (0, 1, 2, 3, 4)
    w = g.encode(z, class_id)
    assert_near(w, expected["w"])
    assert_near(g.synthesize(ws, class_id), expected["image_from_ws"])
    everywhere = w[:, None].expand(-1, 8, -1)
    assert_near(g.synthesize(everywhere, class_id), expected["image_from_z_psi1"])
    g.truncation = 0.7
    assert_near(g.synthesize(everywhere, class_id), expected["image_from_z_psi0.7"])
    names = {"conv1": "b4.conv1", "to_rgb1": "b4.torgb"}
    for i in range(6):
        names[f"convs.{i}"] = f"b{8 * 2 ** (i // 2)}.conv{i % 2}"
    for ours, theirs in names.items():
        assert_near(g.features(ws, ours, class_id)[:, :4], expected[f"feature.{theirs}"])
    in_z = load_stylegan2(Options(str(path), use_w=False, classes=[3, 1]))
    assert in_z.class_ids == (3, 1)
    assert_near(in_z.synthesize(z[:, None].expand(-1, 8, -1), class_id), expected["image_from_z_psi1"])
    with pytest.raises(GeneratorError, match="class-conditional: expected class_id"):
        g.encode(z)
    for classes in (5, [0, -1], [], "dog", [True]):
        with pytest.raises(GeneratorError, match=r"generator.classes must be ids in \[0, 5\), got"):
            load_stylegan2(Options(str(path), classes=classes))


@pytest.mark.parametrize("name", ["stylegan3_t_32", "stylegan3_r_32"])
def test_a_stylegan3_in_every_format_gives_the_golden_image(name: str, tmp_path: Path) -> None:
    tensors, expected, _ = load_golden(name)
    whole = with_design(tensors)
    save_file({key: t.contiguous() for key, t in tensors.items()}, tmp_path / "bare.safetensors")
    save_file({key: t.contiguous() for key, t in whole.items()}, tmp_path / "whole.safetensors")
    torch.save(tensors, tmp_path / "bare.pt")
    paths = [tmp_path / file for file in ("bare.safetensors", "whole.safetensors", "bare.pt")]
    content = {"training_set_kwargs": nvidia_files.EasyDict(path="x"), "G": None, "G_ema": stylegan3_pickle(whole)}
    paths += [nvidia_files.write_pickle(tmp_path / f"{p}.pkl", content, p) for p in (2, 3, 4, 5)]
    for source in (paths[0], paths[-1]):
        convert_weights(source, source.with_suffix(".converted.safetensors"))
        paths.append(source.with_suffix(".converted.safetensors"))
    for path in paths:
        loaded = load_stylegan3(StyleGAN3Config(weights=str(path), truncation=1.0))
        assert_near(loaded.synthesize(expected["ws"]), expected["image_from_ws"])
        assert len(loaded.weights_sha256) == 64 and not loaded.random_weights


def test_what_a_stylegan3_pickle_says_of_itself_is_checked(tmp_path: Path) -> None:
    whole = with_design(load_golden("stylegan3_t_32")[0])

    def refuses(message: str, module: str = "", **state: Any) -> None:
        generator = target = stylegan3_pickle(whole)
        for part in filter(None, module.split(".")):
            target = target.meta["state"]["_modules"][part]
        target.meta["state"].update(state)
        path = nvidia_files.write_pickle(tmp_path / "a.pkl", generator)
        with pytest.raises(GeneratorError, match=message):
            load_stylegan3(StyleGAN3Config(weights=str(path)))

    refuses(r"a\.pkl: synthesis\.L0_24_32\.padding must be two numbers, twice", "synthesis.L0_24_32", padding=[1, 2])
    refuses(r"padding must be two numbers, twice", "synthesis.L0_24_32", padding=[1, 2, 3, 4])
    refuses(r"geometry of L1_24_32 does not fit", "synthesis.L0_24_32", padding=[1, 2, 1, 2])
    refuses(r"geometry of L0_24_32 does not fit", "synthesis.L0_24_32", up_factor=10**15)
    refuses(r"up_factor must be a number", "synthesis.L0_24_32", up_factor=float("nan"))
    refuses(r"out_size must be two sides of one length", "synthesis.L0_24_32", out_size=[24, 25])
    refuses(r"expected one conv_clamp for all layers", "synthesis.L0_24_32", conv_clamp=1)
    refuses(r"bandwidth must be a number", "synthesis.input", bandwidth="wide")


def test_a_network_of_another_family_is_refused_by_its_name(
    conditional: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    whole = with_design(load_golden("stylegan3_t_32")[0])
    three = nvidia_files.write_pickle(tmp_path / "3.pkl", {"G_ema": stylegan3_pickle(whole)})
    two = nvidia_files.write_pickle(tmp_path / "2.pkl", {"G_ema": stylegan2_pickle(conditional[0], 5)})
    other = nvidia_files.module("SuperresGenerator", {"a": torch.zeros(1)}, {}, img_resolution=64)
    unknown = nvidia_files.write_pickle(tmp_path / "x.pkl", {"G_ema": other})
    with pytest.raises(GeneratorError, match=r"3\.pkl holds a StyleGAN3 generator of 32 px: use generator=stylegan3"):
        load_stylegan2(Options(str(three)))
    with pytest.raises(GeneratorError, match=r"2\.pkl holds a StyleGAN2 generator of 32 px: use generator=stylegan2"):
        load_stylegan3(StyleGAN3Config(weights=str(two)))
    for load in (
        lambda path: load_stylegan2(Options(path)),
        lambda path: load_stylegan3(StyleGAN3Config(weights=path)),
    ):
        with pytest.raises(
            GeneratorError, match=r"x\.pkl holds a network of class SuperresGenerator of 64 px; expected"
        ):
            load(str(unknown))


class Hostile:
    """What a pickle of it would do: make a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def test_hostile_and_cut_files_are_refused_and_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pkl").write_bytes(pickle.dumps({"G_ema": Hostile()}))
    with pytest.raises(GeneratorError, match=r"a\.pkl is refused: it asks for (posix|nt)\.system"):
        load_stylegan3(StyleGAN3Config(weights="a.pkl"))
    assert not Path("pwned").exists()
    data = nvidia_files.dumps({"G_ema": stylegan3_pickle(with_design(load_golden("stylegan3_t_32")[0]))})
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        Path("b.pkl").write_bytes(data[:length])
        with pytest.raises(GeneratorError, match=r"b\.pkl"):
            load_stylegan3(StyleGAN3Config(weights="b.pkl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": None}, "weights must name a StyleGAN3 file"),
        ({"weights": "none.pkl"}, r"cannot read none\.pkl: No such file"),
        ({"weights": "random:big"}, "takes a number of pixels, got 'big'"),
        ({"weights": "random:128"}, "resolutions are 256, 512 and 1024, got 128"),
        ({"weights": "random", "configuration": "x"}, "configuration must be t or r, got 'x'"),
        ({"weights": "random", "truncation": 1.5}, r"truncation must be in \[0, 1\], got 1.5"),
    ],
    ids=lambda value: None if isinstance(value, str) else "options",
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GeneratorError, match=message):
        load_stylegan3(StyleGAN3Config(**options))


def test_an_unconditional_network_has_no_classes(tmp_path: Path) -> None:
    torch.save(load_golden("stylegan3_t_32")[0], tmp_path / "a.pt")
    assert isinstance(load_stylegan3(StyleGAN3Config(weights=str(tmp_path / "a.pt"))), StyleGAN3)
    with pytest.raises(GeneratorError, match=r"generator\.classes: the generator has no classes, got 1"):
        load_stylegan3(StyleGAN3Config(weights=str(tmp_path / "a.pt"), classes=1))
