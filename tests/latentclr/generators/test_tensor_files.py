"""Weights are the same bits whatever file they come from, and are this process's own once they are read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nvidia_files
import pytest
import torch
from safetensors.torch import save
from tiny_generators import dcgan_tensors
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.base import Generator
from latentclr.generators.biggan.biggan import load_biggan
from latentclr.generators.biggan.spec import CONFIG_FILE
from latentclr.generators.dcgan import load_dcgan
from latentclr.generators.stylegan2.layout import random_tensors
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.generators.stylegan2.weights import read_tensors
from latentclr.generators.weights.convert import convert_weights
from latentclr.generators.weights.files import load_tensors
from latentclr.plain_load import load_plain, load_safetensors

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "data" / "biggan_tiny"
ALIGNED = 64  # bytes, of what torch's allocator returns: a cache line, and the widest vector of any CPU

LOAD: dict[str, Callable[[Path], Generator]] = {
    "dcgan": lambda path: load_dcgan(str(path)),
    "biggan": lambda path: load_biggan(
        str(path), truncation=0.37, class_name=[0]
    ),  # between two statistics, so both are blended
    "stylegan2": lambda path: StyleGAN2(read_tensors(path)),
}


@pytest.fixture(scope="module")
def tables() -> dict[str, dict[str, Tensor]]:
    average = {"latent_avg": torch.randn(16, generator=torch.Generator().manual_seed(1))}
    return {
        "dcgan": dcgan_tensors(),
        "biggan": load_tensors(GOLDEN / "pytorch_model.bin"),
        "stylegan2": random_tensors(16, n_mlp=2, dim=16, width=16) | average,
    }


def write_at(path: Path, tensors: dict[str, Tensor], offset: int) -> Path:
    """Write a safetensors file whose numbers begin at `offset` modulo 64: its header may end in spaces."""
    written = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    length = int.from_bytes(written[:8], "little")
    spaces = (offset - 8 - length) % ALIGNED
    header = written[8 : 8 + length] + b" " * spaces
    path.write_bytes(len(header).to_bytes(8, "little") + header + written[8 + length :])
    assert (8 + len(header)) % ALIGNED == offset
    return path


@pytest.mark.parametrize("name", LOAD)
def test_the_folded_generator_is_the_same_bits_from_every_file(
    name: str, tables: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    tensors = tables[name]
    (tmp_path / CONFIG_FILE).write_text((GOLDEN / CONFIG_FILE).read_text())
    torch.save(tensors, tmp_path / "whole.pt")
    # Views into one storage, each at an odd place, and the matrices as transposed ones: torch.save keeps all of that.
    shared = torch.cat([torch.zeros(1), *(tensor.flatten().float() for tensor in tensors.values())])
    places = torch.tensor([1, *(tensor.numel() for tensor in tensors.values())]).cumsum(0).tolist()
    views = {
        key: shared[place:][: t.numel()].view(t.shape) for place, (key, t) in zip(places, tensors.items(), strict=False)
    }
    torch.save(views, tmp_path / "views.pt")
    torch.save({k: t.mT.contiguous().mT if t.ndim > 1 else t for k, t in tensors.items()}, tmp_path / "turned.pt")
    paths = [tmp_path / "views.pt", tmp_path / "turned.pt"]
    paths += [write_at(tmp_path / f"{offset}.safetensors", tensors, offset) for offset in range(0, ALIGNED, 4)]
    paths.append(write_at(tmp_path / "odd.safetensors", tensors, 5))
    if name == "stylegan2":
        pickled = nvidia_files.write_pickle(tmp_path / "a.pkl", {"G_ema": nvidia_files.generator(tensors)})
        for source in (tmp_path / "whole.pt", tmp_path / "views.pt", pickled):
            convert_weights(source, tmp_path / f"{source.stem}_converted.safetensors")
            paths.append(tmp_path / f"{source.stem}_converted.safetensors")
        # NVIDIA's filters sum to 1 and are scaled on reading, so that only files with the same numbers are compared.
        tensors_of_pickle = read_tensors(pickled)
        assert all(torch.equal(tensors_of_pickle[key], value) for key, value in tensors.items())
        paths.append(pickled)

    expected = LOAD[name](tmp_path / "whole.pt").state_dict()
    for path in paths:
        got = LOAD[name](path).state_dict()
        assert got.keys() == expected.keys()
        different = [key for key, value in got.items() if not torch.equal(value, expected[key])]
        assert not different, f"{path.name}: {different}"
        crooked = [key for key, value in got.items() if value.data_ptr() % ALIGNED]
        assert not crooked, f"{path.name}: {crooked}"


@pytest.mark.parametrize("offset", [4, 5, 28, 60])
def test_what_is_read_is_aligned_and_owned(offset: int, tmp_path: Path) -> None:
    tensors = {"a": torch.arange(7.0), "b": torch.arange(6, dtype=torch.float64).view(2, 3), "c": torch.ones(())}
    path = write_at(tmp_path / f"{tmp_path.name}.safetensors", tensors, offset)
    read = load_safetensors(path)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert all(tensor.data_ptr() % ALIGNED == 0 for tensor in read.values())
    assert path.name not in Path("/proc/self/maps").read_text()


def test_expanded_tensors_are_not_blown_up(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(2**40)}, tmp_path / "a.pt")
    with pytest.raises(GeneratorError, match="its tensors are larger than the file"):
        load_tensors(tmp_path / "a.pt")


READ_THEN_CUT = """
import os, sys
from pathlib import Path
import torch
from latentclr.training.checkpoint import load_checkpoint
from latentclr.generators.biggan.biggan import load_biggan
from latentclr.generators.dcgan import load_dcgan
from latentclr.generators.stylegan2.stylegan2 import StyleGAN2
from latentclr.generators.stylegan2.weights import read_tensors
kind, path = sys.argv[1], Path(sys.argv[2])
if kind == "checkpoint":
    checkpoint = load_checkpoint(path)
    modules = [checkpoint.directions, checkpoint.projector]
else:
    load = {"dcgan": lambda: load_dcgan(str(path)), "biggan": lambda: load_biggan(str(path), class_name=[0]),
            "stylegan2": lambda: StyleGAN2(read_tensors(path))}
    modules = [load[kind]()]
os.truncate(path, 0)
for module in modules:
    for tensor in module.state_dict().values():
        assert tensor.double().sum().isfinite()
print("alive")
"""


@pytest.mark.parametrize("kind", [*LOAD, "checkpoint"])
def test_a_file_that_is_cut_short_kills_no_process_that_has_read_it(
    kind: str, tables: dict[str, dict[str, Tensor]], run: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    if kind == "checkpoint":
        path = run / "best.safetensors"
    else:
        (tmp_path / CONFIG_FILE).write_text((GOLDEN / CONFIG_FILE).read_text())
        path = write_at(tmp_path / "a.safetensors", tables[kind], 8)
    process = start(kind, path, code=READ_THEN_CUT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, "alive\n"), err


def test_a_damaged_safetensors_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No such file"):
        load_safetensors(tmp_path / "none.safetensors")
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 15)
    with pytest.raises(ValueError, match=r"(?i)incomplete") as caught:
        load_safetensors(path)
    assert "\n" not in str(caught.value)
    torch.save({"a": torch.zeros(2)}, tmp_path / "b.pt")
    assert torch.equal(load_plain(tmp_path / "b.pt")["a"], torch.zeros(2))


def stored(header: Any, data: bytes = b"\0" * 16) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (4,), start: Any = 0, end: Any = 16) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "incomplete"),
        (b"\xff" * 8 + b"{}", "incomplete"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "incomplete"),
        (stored(b"[" * 100_000), "its header is nested more than"),
        (stored(b'{"a":' * 100_000), "its header is nested more than"),
        (stored(b"[]"), "its header is no table"),
        (stored({"a": 1}), "its header is not one of tensors"),
        (stored({"a": {"dtype": "F32"}}), "its header is not one of tensors"),
        (stored({"a": entry([[]])}), "its header is not one of tensors"),
        (stored({"a": entry(shape=[4.0])}), "its header is not one of tensors"),
        (stored({"a": entry(shape=[1] * 99)}), "its header is not one of tensors"),
        (stored({"a": entry("F8_E4M3", [16])}), "a tensor of F8_E4M3, which is not read"),
        (stored({"a": entry("C64", [2])}), "a tensor of C64, which is not read"),
        (stored({"a": entry("F4", [32])}), "a tensor of F4, which is not read"),
        (stored({"a": entry("x" * 5000)}), "a tensor of x{40}, which is not read"),
        (stored({"a": entry(shape=[2**40])}), "shape and size do not fit"),
        (stored({"a": entry(shape=[2**62, 0], end=0)}), "shape and size do not fit"),
        (stored({"a": entry(shape=[-4], end=-16)}), "shape and size do not fit"),
        (stored({"a": entry(shape=[2**46], end=2**48)}), "incomplete"),
        (stored({"a": entry()}, b"\0" * 20), "a file of 20 bytes of numbers, its header tells of 16"),
        (stored({"a": entry(), "b": entry()}), "tells of 32"),
        (stored({"a": entry(), "b": entry()}, b"\0" * 32), "(?i)offset"),
        (stored({"__metadata__": {"x": "${oc.env:HOME}"}, "a": entry()}), "its header holds an interpolation"),
        (stored({"__metadata__": {"x": [1]}, "a": entry()}), "(?i)header"),
    ],
)
def test_safetensors_files_are_checked_before_a_tensor_is_made(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        load_safetensors(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_small_and_empty_tensors_of_safetensors_are_read(tmp_path: Path) -> None:
    tensors = {
        "a": torch.ones(()),
        "b": torch.zeros(3, 0),
        "c": torch.arange(5, dtype=torch.uint8),
        "d": torch.ones(2) > 0,
    }
    tensors |= {
        str(kind): torch.ones(3).to(kind) for kind in (torch.bfloat16, torch.float16, torch.float64, torch.int16)
    }
    (tmp_path / "a.safetensors").write_bytes(save(tensors, {"note": "x"}))
    read = load_safetensors(tmp_path / "a.safetensors")
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())


def _deflated(path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_deflated, "its members are compressed"),
        (lambda path: torch.save({"a": torch.zeros(1, device="meta")}, path), "not plain numbers"),
        (lambda path: torch.save({"a": torch.zeros(2).to_sparse()}, path), "not plain numbers"),
        (lambda path: torch.save({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, path), "a tensor of float8_e4m3fn"),
        (lambda path: torch.save({"a": torch.zeros(1).expand(2**34)}, path), "larger than the file"),
    ],
)
def test_what_is_no_table_of_plain_numbers_is_refused(tmp_path: Path, write, message) -> None:
    write(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        load_plain(tmp_path / "a.pt")
