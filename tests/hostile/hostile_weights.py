"""Weights that are none: `.pt`, `.safetensors`, NVIDIA's `.pkl` and BigGAN folders."""

from __future__ import annotations

import builtins
import functools
import io
import json
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import nvidia_files
import torch
from golden_networks import stylegan3_pickle
from hostile_base import DATA, Base, Evil, dumps, safetensors_bytes, spoilt, torch_bytes
from hostile_documents import hostile_copy, text_of
from hostile_trial import Trial

from latentclr.generators.stylegan3.layout import Design
from latentclr.generators.stylegan3.layout import random_tensors as stylegan3_tensors

_TOUCH = 'echo > "$CANARY"'
_OPEN = "open(__import__('os').environ['CANARY'], 'w')"
_QUICK = (
    "hparams.iterations=1",
    "hparams.batch_size=2",
    "k=2",
    "eval_iters=1",
    "save=false",
    "tensorboard=false",
    "device=cpu",
)


def train(generator: str, file: str) -> tuple[str, ...]:
    """The command that trains on a weights file."""
    return "train", f"generator={generator}", f"generator.weights={file}", *_QUICK


CONVERT = ("weights", "convert", "w.pt", "out.safetensors")


def payloads() -> dict[str, Evil]:
    """Calls that would run code."""
    return {
        "os.system": Evil(os.system, _TOUCH),
        "eval": Evil(eval, _OPEN),
        "exec": Evil(exec, _OPEN),
        "builtins.getattr": Evil(getattr, "a", "upper"),
        "builtins.__import__": Evil(builtins.__import__, "os"),
        "subprocess.Popen": Evil(subprocess.Popen, ["sh", "-c", _TOUCH]),
        "functools.partial": Evil(functools.partial, os.system, _TOUCH),
        "builtins.open": Evil(open, "precious.txt", "w"),
        "torch.load": Evil(torch.load, "w.pt"),
        "pickle.loads": Evil(pickle.loads, dumps(Evil(os.system, _TOUCH))),
        "torch.hub.load": Evil(torch.hub.load, "a/b", "c"),
        "loads_from_bytes": Evil(torch.storage._load_from_bytes, torch_bytes(Evil(os.system, _TOUCH), legacy=True)),
    }


@functools.lru_cache(maxsize=1)
def bomb() -> bytes:
    """A gigabyte of zeros, deflated to a megabyte and put together from one block's bytes."""
    block = bytes(1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    return first * 1024 + end


def deflated(name: str, size: int = 1 << 30) -> bytes:
    """A zip whose member `name` is that bomb, with a central directory that says so (or another size)."""
    data, crc = bomb(), 0
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, crc, len(data), size, len(name), 0) + name.encode()
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, crc, len(data), size, len(name), 0, 0, 0, 0, 0, 0
    ) + name.encode()  # fmt: skip
    start = len(local) + len(data)
    return local + data + central + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), start, 0)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip of members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tensors() -> dict[str, Callable[[], Any]]:
    """What may stand where a weight should."""
    return {
        "expanded": lambda: torch.zeros(1).expand(2**34),
        "expanded to four axes": lambda: torch.zeros(1).expand(2**16, 2**16, 4, 4),
        "overlapping strides": lambda: torch.zeros(5000).as_strided((4000, 1000, 4, 4), (0, 1, 0, 0)),
        "expanded a little": lambda: torch.zeros(1).expand(24, 12, 4, 4),
        "quantized": lambda: torch.quantize_per_tensor(torch.zeros(24, 12, 4, 4), 0.1, 0, torch.qint8),
        "quantized by channel": lambda: torch.quantize_per_channel(torch.zeros(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8),
        "meta": lambda: torch.empty(2**20, 2**20, device="meta"),
        "sparse": lambda: torch.eye(4).to_sparse(),
        "sparse of a huge shape": lambda: torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.int64), [1.0], (2**30, 2**30)),
        "compressed rows": lambda: torch.eye(4).to_sparse_csr(),
        "float8": lambda: torch.zeros(24, 12, 4, 4).to(torch.float8_e4m3fn),
        "complex": lambda: torch.zeros(24, 12, 4, 4, dtype=torch.complex64),
        "complex, conjugated": lambda: torch.zeros(24, 12, 4, 4, dtype=torch.complex64).conj(),
        "whole numbers": lambda: torch.zeros(24, 12, 4, 4, dtype=torch.int64),
        "booleans": lambda: torch.zeros(24, 12, 4, 4, dtype=torch.bool),
        "no axes": lambda: torch.tensor(1.0),
        "an empty axis": lambda: torch.zeros(0, 2**40),
        "empty": lambda: torch.zeros(24, 0, 4, 4),
        "twenty axes": lambda: torch.zeros([1] * 20),
        "not a number": lambda: torch.full((24, 12, 4, 4), float("nan")),
        "infinite": lambda: torch.full((24, 12, 4, 4), float("inf")),
        "large": lambda: torch.full((24, 12, 4, 4), 3e38),
        "a parameter": lambda: torch.nn.Parameter(torch.zeros(3, 3)),
        "a storage": lambda: torch.zeros(3).untyped_storage(),
        "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        "a list": lambda: [1.0, 2.0],
        "a number": lambda: 7,
        "None": lambda: None,
        "a size": lambda: torch.Size([1, 2]),
        "a device": lambda: torch.device("cuda:7"),
    }  # fmt: skip


def tables(weights: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Tables of tensors that are not what a generator needs."""
    first = next(iter(weights))

    def of_itself() -> Any:
        table: dict[str, Any] = dict(weights)
        table["self"] = table
        return table

    def deep() -> Any:
        value: Any = torch.zeros(1)
        for _ in range(150):
            value = [value]
        return {**weights, "deep": value}

    odd = {
        "a number as key": {**weights, 7: torch.zeros(1)},
        "bytes as key": {**weights, b"a": torch.zeros(1)},
        "a pair as key": {**weights, ("a", 1): torch.zeros(1)},
        "a line in a key": {**weights, "a\nError: b": torch.zeros(1)},
        "an escape in a key": {**weights, "\x1b[2J": torch.zeros(1)},
        "a megabyte of key": {**weights, "a" * 1_000_000: torch.zeros(1)},
        "a huge layer number": {**weights, "main.99999999999999999999.weight": torch.zeros(1, 1, 4, 4)},
        "many layers": {**weights, **{f"style.{i}.weight": torch.zeros(1, 1) for i in range(3000)}},
        "a layer of digits": {**weights, f"convs.{'9' * 400}.conv.weight": torch.zeros(1)},
        "odd digits": {**weights, "main.²³.weight": torch.zeros(1, 1, 4, 4), "main.٣.weight": torch.zeros(1)},
        "one missing": {name: value for name, value in weights.items() if name != first},
        "none": {},
        "a list": [torch.zeros(1)],
        "a tensor": torch.zeros(3),
        "a text": "weights",
        "None": None,
        "nested tables": {"g_ema": {"g_ema": weights}, "netG_state_dict": {"netG_state_dict": weights}},
        "lists in the table": {**weights, "a": [[[1]]]},
        "a set": {1, 2},
        "half a surrogate": {**weights, "\ud800": torch.zeros(1)},
        "many": {f"t{i}": torch.zeros(0) for i in range(3000)},
    }
    return {**{name: (lambda value=value: value) for name, value in odd.items()}, "itself": of_itself, "deep": deep}


def of_torch(base: Base) -> Iterator[Trial]:
    """Files of `torch.save`."""
    commands = {"dcgan": train("dcgan", "w.pt"), "stylegan2": train("stylegan2", "w.pt"), "convert": CONVERT}

    def trial(name: str, content: Callable[[], bytes], *which: str, may_pass: bool = False) -> Iterator[Trial]:
        for command in which or ("dcgan", "convert"):
            yield Trial(".pt", name, commands[command], lambda folder, draw: (folder / "w.pt").write_bytes(content()),
                        may_pass)  # fmt: skip

    for name, evil in payloads().items():
        table = {**base.dcgan, "a": evil}
        yield from trial(f"{name}, bare", lambda evil=evil: dumps(evil, 2))
        yield from trial(f"{name}, saved", lambda table=table: torch_bytes(table))
        yield from trial(f"{name}, saved as before", lambda table=table: torch_bytes(table, legacy=True), "dcgan")
    for protocol in (0, 1, 3, 4, 5):
        yield from trial(
            f"os.system, protocol {protocol}", lambda p=protocol: dumps(Evil(os.system, _TOUCH), p), "dcgan"
        )
    for name, make in tensors().items():
        yield from trial(f"a weight that is {name}", lambda make=make: torch_bytes({**base.dcgan, "main.0.weight": make()}), "dcgan",
                         may_pass=name in ("expanded a little", "whole numbers", "booleans", "large"))  # fmt: skip
        yield from trial(f"a style that is {name}", lambda make=make: torch_bytes({**base.stylegan2, "style.1.weight": make()}), "convert")  # fmt: skip
        yield from trial(f"beside them one that is {name}", lambda make=make: torch_bytes({**base.dcgan, "main.1.num_batches_tracked": make()}), "dcgan", may_pass=True)  # fmt: skip
    for weights, command in ((base.dcgan, "dcgan"), (base.stylegan2, "stylegan2")):
        for name, make in tables(weights).items():
            # The layers of one are unknown to the other, and a table of tables is unwrapped.
            yield from trial(f"{command}: {name}", lambda make=make: torch_bytes(make()), command,
                             may_pass=name == "nested tables")  # fmt: skip
    files = {
        "nothing": b"",
        "zeros": bytes(1000),
        "a text": b"weights",
        "a page": b"<!doctype html><title>Not found</title>",
        "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
        "an empty zip": zipped({}),
        "a zip of a text": zipped({"archive/data.pkl": b"text", "archive/version": b"3"}),
        "a zip of a deep pickle": zipped({"archive/data.pkl": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."}),
        "a zip of a memo bomb": zipped({"archive/data.pkl": b"\x80\x02]q\x00" + b"(h\x00h\x00l" * 30_000 + b"."}),
        "a zip of a frame that lies": zipped({"archive/data.pkl": b"\x80\x04\x95" + b"\xff" * 8 + b"N."}),
        "a zip of a text that lies": zipped({"archive/data.pkl": b"\x80\x02X\xff\xff\xff\x7fa."}),
        "a zip with names outside": zipped({"../../precious.txt": b"x", "archive/data.pkl": b"\x80\x02}."}),
        "a zip with one name often": zipped({f"archive/data{i}.pkl": b"\x80\x02}." for i in range(2000)}),
        "compressed": zipped({"archive/data.pkl": b"\x80\x02}." + bytes(10_000)}, zipfile.ZIP_DEFLATED),
        "lzma": zipped({"archive/data.pkl": b"\x80\x02}." + bytes(10_000)}, zipfile.ZIP_LZMA),
    }
    for name, content in files.items():
        yield from trial(name, lambda content=content: content)
    yield from trial("a bomb as its pickle", lambda: deflated("archive/data.pkl"))
    yield from trial("a bomb as its storage", lambda: deflated("archive/data/0"), "dcgan")
    yield from trial("a bomb of a small size", lambda: deflated("archive/data.pkl", 100))
    yield from trial("a tar", _tar)
    yield from trial("a script", _script, "dcgan")
    yield from trial("a shape larger than its storage", lambda: _rebuilt(10, (2**40,), (1,)))
    yield from trial("strides beyond its storage", lambda: _rebuilt(10, (3, 3), (2**40, 1)))
    yield from trial("strides below zero", lambda: _rebuilt(10, (3,), (-1,)))
    yield from trial("an offset beyond its storage", lambda: _rebuilt(10, (3,), (1,), 2**50))
    yield from trial("a storage that claims more", lambda: _rebuilt(2**40, (3,), (1,)))
    yield from trial("a negative storage", lambda: _rebuilt(-5, (3,), (1,)))


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("storages", "tensors", "pickle", "../precious.txt"):
            entry = tarfile.TarInfo(name)
            data = dumps(Evil(os.system, _TOUCH))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def _script() -> bytes:
    file = io.BytesIO()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), file)
    return file.getvalue()


def _rebuilt(claimed: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A file of torch.save whose one tensor does not fit its storage of ten numbers."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", claimed) if item == "here" else None

    file = io.BytesIO()
    rebuilt = Evil(torch._utils._rebuild_tensor_v2, "here", offset, size, stride, False, OrderedDict())
    Pickler(file, 2).dump({"main.0.weight": rebuilt})
    return zipped({"archive/data.pkl": file.getvalue(), "archive/data/0": bytes(40), "archive/version": b"3\n"})


def of_safetensors(base: Base) -> Iterator[Trial]:
    """Files of safetensors."""
    good = safetensors_bytes({"main.0.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, bytes(16))

    def entry(dtype: Any = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
        return {"main.0.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}

    files = {
        "nothing": b"",
        "seven bytes": bytes(7),
        "a header of no length": bytes(8),
        "a header beyond the file": safetensors_bytes({}, length=2**20),
        "a header of 2**63": safetensors_bytes({}, length=2**63 - 1),
        "a header of 2**64": safetensors_bytes({}, length=2**64 - 1),
        "a huge header": safetensors_bytes(b" " * 120_000_000 + b"{}"),
        "a header of many": safetensors_bytes({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}),
        "no JSON": safetensors_bytes(b"weights"),
        "deep JSON": safetensors_bytes(b"[" * 100_000 + b"]" * 100_000),
        "a list": safetensors_bytes([]),
        "not UTF-8": safetensors_bytes(b'{"\xff\xfe": 1}'),
        "an unknown type": safetensors_bytes(entry("F9"), bytes(16)),
        "a type that is a list": safetensors_bytes(entry(["F32"]), bytes(16)),
        "a huge shape": safetensors_bytes(entry(shape=(2**40, 2**40)), bytes(16)),
        "a negative shape": safetensors_bytes(entry(shape=(-2, -2)), bytes(16)),
        "a shape of many axes": safetensors_bytes(entry(shape=[1] * 100_000), bytes(16)),
        "a shape beyond 64 bits": safetensors_bytes(entry(shape=(2**70,)), bytes(16)),
        "another size": safetensors_bytes(entry(shape=(3, 3)), bytes(16)),
        "offsets beyond": safetensors_bytes(entry(offsets=(0, 2**40)), bytes(16)),
        "offsets backwards": safetensors_bytes(entry(offsets=(16, 0)), bytes(16)),
        "bytes that nobody has": safetensors_bytes(entry(), bytes(1000)),
        "overlapping": safetensors_bytes({**entry(), "b": entry()["main.0.weight"]}, bytes(16)),
        "one name twice": safetensors_bytes(json.dumps(entry()).encode()[:-1] + b"," + json.dumps(entry()).encode()[1:], bytes(16)),
        "metadata of numbers": safetensors_bytes({"__metadata__": {"latentclr": 1}, **entry()}, bytes(16)),
        "metadata that is a list": safetensors_bytes({"__metadata__": [], **entry()}, bytes(16)),
        "metadata that is large": safetensors_bytes({"__metadata__": {"a": "a" * 20_000_000}, **entry()}, bytes(16)),
        "half a surrogate": safetensors_bytes(b'{"\\ud800": ' + json.dumps(entry()["main.0.weight"]).encode() + b"}", bytes(16)),
        "a line in a name": safetensors_bytes({"a\nError: b": entry()["main.0.weight"]}, bytes(16)),
        "a megabyte of name": safetensors_bytes({"a" * 1_000_000: entry()["main.0.weight"]}, bytes(16)),
        "a pickle": dumps(Evil(os.system, _TOUCH)),
        "a file of torch.save": torch_bytes(base.dcgan),
        "cut": good[:-1],
    }  # fmt: skip
    for dtype, width in (("F8_E4M3", 1), ("F8_E5M2", 1), ("F4", 1), ("U16", 2), ("U64", 8), ("C64", 8), ("BOOL", 1), ("I64", 8), ("F64", 8)):  # fmt: skip
        files[f"of {dtype}"] = safetensors_bytes(entry(dtype, (1, 2), (0, 2 * width)), bytes(2 * width))
    commands = (train("dcgan", "w.safetensors"), train("stylegan2", "w.safetensors"))
    for number, (name, content) in enumerate(files.items()):
        for words in (commands[number % 2], ("weights", "convert", "w.safetensors", "out.safetensors")):
            yield Trial(".safetensors", name, words, _writes("w.safetensors", content))
    for name in ("expanded", "not a number", "infinite", "large", "whole numbers", "booleans", "float8", "no axes",
                 "empty", "an empty axis", "complex", "twenty axes"):  # fmt: skip
        make = tensors()[name]

        def write(folder: Path, draw: Random, make: Any = make, name: str = name) -> None:
            tensor = make() if name != "expanded" else torch.zeros(1)
            write_safetensors(folder / "w.safetensors", {**base.dcgan, "main.0.weight": tensor})

        may = name in ("whole numbers", "booleans", "large")
        yield Trial(".safetensors", f"a weight that is {name}", commands[0], write, may)


def write_safetensors(path: Path, table: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write tensors, also of types that torch cannot convert."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in table.items()}, path, metadata)


def _writes(name: str, content: bytes) -> Callable[[Path, Random], object]:
    return lambda folder, draw: (folder / name).write_bytes(content)


_HEAD = b"\x80\x02ctorch_utils.persistence\n_reconstruct_persistent_obj\n("


def of_nvidia(base: Base) -> Iterator[Trial]:
    """NVIDIA's pickles."""
    text = b"X" + (200_000).to_bytes(4, "little") + b"a" * 200_000 + b"q\x000"
    tree = nvidia_files.generator(base.stylegan2)
    many = b"c_codecs\nencode\n(h\x00U\x06latin1tR"
    files: dict[str, bytes] = {
        "nothing": b"",
        "a stop": b".",
        "one text encoded over and over": b"\x80\x02" + text + b"](" + many * 20_000 + b"e.",
        "one text in ever new sets": b"\x80\x02" + text + b"](" + b"c__builtin__\nset\n((lp1\nh\x00atR" * 10_000 + b"e.",
        "a memo bomb": b"\x80\x02]q\x00" + b"".join(b"](" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(200)) + b".",
        "a memo of tuples": b"\x80\x02)q\x00" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(200)) + b".",
        "deep lists": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
        "deep tuples": b"\x80\x02)" + b"\x85" * 900_000 + b".",
        "a deep key": b"\x80\x02})" + b"\x85" * 900_000 + b"Ns.",
        "marks": b"\x80\x02" + b"(" * 1_900_000 + b".",
        "too many instructions": b"\x80\x02" + b"N0" * 1_100_000 + b"N.",
        "nested class name": _HEAD + b"}(U\x04typeU\x05classU\x0aclass_name" + b"]" * 5000 + b"a" * 4999 + b"U\x05state}utR.",
        "a type of lists": _HEAD + b"}(U\x04type" + b"]" * 5000 + b"a" * 4999 + b"U\x0aclass_nameU\x01aU\x05state}utR.",
        "a long integer": b"\x80\x02\x8b" + (2**20).to_bytes(4, "little") + b"\x7f" * 2**20 + b".",
        "an integer in digits": b"I" + b"9" * 900_000 + b"\n.",
        "a long in digits": b"L" + b"9" * 900_000 + b"L\n.",
        "a length that lies": b"\x80\x04\x8e" + b"\xff" * 8 + b".",
        "a float of text": b"F" + b"9" * 900_000 + b"\n.",
        "a frame that lies": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
        "an instance": b"(cos\nsystem\nU\x01ao.",
        "inst": b"(U\x0etouch $CANARY\nios\nsystem\n.",
        "an extension": b"\x80\x02\x82\x01.",
        "a persistent id": b"Pabc\n.",
        "a bytearray": b"\x80\x05\x96" + (8).to_bytes(8, "little") + bytes(8) + b".",
        "an out of band buffer": b"\x80\x05\x97.",
        "getattr": b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        "a name with dots": b"\x80\x04\x8c\x05torch\x8c\x0fnn.Module.apply_\x93.",
        "a name over lines": b"\x80\x04\x8c\x04os\na\x8c\x06system\x93.",
        "a name of a megabyte": b"\x80\x04\x8c\x02osX" + (2**20).to_bytes(4, "little") + b"a" * 2**20 + b"\x93.",
        "an array of objects": dumps(__import__("numpy").array([os.system], dtype=object)),
        "an array that lies": b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(C\x08aaaaaaaacnumpy\ndtype\n(X\x02\x00\x00\x00f8\x89\x88tR(\x8a\x06\x00\x00\x00\x00\x00\x10t\x8c\x01CtR.",
        "its source": nvidia_files.dumps(nvidia_files.Persistent("Generator", evil=1)),
        "a module in itself": _HEAD + b"}q\x01(U\x04typeU\x05classU\x0aclass_nameU\x09GeneratorU\x05state}(U\x08_modules}q\x02uutRq\x03h\x02U\x01ah\x03s0.",
        "a list": dumps([1, 2]),
        "no generator": dumps({"G_ema": None}),
        "a storage of code": nvidia_files.dumps({"G_ema": _spoilt_generator(base)}),
    }  # fmt: skip
    for name, evil in payloads().items():
        files[name] = dumps(evil)
        files[f"{name} in a generator"] = nvidia_files.dumps({"G_ema": tree, "G": evil})
    words = ("weights", "convert", "w.pkl", "out.safetensors")
    for name, content in files.items():
        # What is beside the generator is not decoded, so the code in such a storage is never looked at.
        yield Trial(".pkl", name, words, _writes("w.pkl", content), name == "loads_from_bytes in a generator")
    for name in ("os.system", "deep lists", "a memo bomb", "nested class name", "a storage of code", "nothing"):
        yield Trial(".pkl", name, train("stylegan2", "w.pkl"), _writes("w.pkl", files[name]))
    for attribute, value in (("conv_clamp", 10**400), ("conv_clamp", float("nan")), ("conv_clamp", [1]),
                             ("activation", [["a"]]), ("weight_gain", float("inf")), ("use_noise", "a"),
                             ("architecture", {}), ("conv_clamp", "a" * 10**6), ("conv_clamp", True)):  # fmt: skip
        changed = nvidia_files.generator(base.stylegan2)
        synthesis = changed.meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"]["b4"]
        synthesis.meta["state"]["_modules"]["conv1"].meta["state"][attribute] = value
        content = nvidia_files.dumps({"G_ema": changed})
        yield Trial(".pkl", f"{attribute} of {type(value).__name__}", words, _writes("w.pkl", content), may_pass=True)
    yield from _of_stylegan3(words)
    yield from _of_r3gan(words)


def _of_stylegan3(words: tuple[str, ...]) -> Iterator[Trial]:
    design = Design(16, channel_base=80, channel_max=8, layers=4, margin=2)
    tensors = stylegan3_tensors(design, dim=8)
    first = design.names()[0]
    for module, attribute, value in (
        ("input", "size", [10**9, 10**9]), ("input", "size", [2000, 2000]), ("input", "bandwidth", float("nan")),
        ("input", "sampling_rate", 10**400), (first, "padding", [10**12] * 4), (first, "padding", "a" * 10**6),
        (first, "up_factor", 2**62), (first, "down_factor", 0), (first, "out_size", [[[]]]), (first, "conv_clamp", {}),
    ):  # fmt: skip
        changed = stylegan3_pickle(tensors)
        synthesis = changed.meta["state"]["_modules"]["synthesis"].meta["state"]
        synthesis["_modules"][module].meta["state"][attribute] = value
        content = nvidia_files.dumps({"G_ema": changed})
        yield Trial(".pkl", f"StyleGAN3's {attribute}: {str(value)[:20]}", words, _writes("w.pkl", content))


def _of_r3gan(words: tuple[str, ...]) -> Iterator[Trial]:
    made = b"\x80\x02ctraining.networks\nGenerator\n"
    whole = (DATA / "r3gan_16" / "network.pkl").read_bytes()
    files = {
        "a plain module in itself": made + b")\x81q\x00}U\x08_modules}U\x05Modelh\x00ssb.",
        "a plain module with arguments": made + b"(U\x0etouch $CANARYt\x81}b.",
        "a plain module's state twice": made + b")\x81}U\x01aNsb}U\x01bNsb.",
        "a plain module's slots": made + b")\x81N}U\x01aNs\x86b.",
        "a plain module that is called": made + b"(U\x01atR.",
        "a plain module that is none": made + b")\x81}U\x08_modulesNsb.",
        "one storage under many names": nvidia_files.dumps(nvidia_files.one_storage(4000, 2**18)),
        "half of R3GAN": whole[: len(whole) // 2],
        "another class in R3GAN": whole.replace(b"GeneratorStage", b"os.systemStage"),
    }
    for name, content in files.items():
        yield Trial(".pkl", name, words, _writes("w.pkl", content))


def _spoilt_generator(base: Base) -> Any:
    """A generator of which a tensor's storage would run code."""
    tree = nvidia_files.generator(base.stylegan2)
    layer = tree.meta["state"]["_modules"]["mapping"].meta["state"]["_modules"]["fc0"]
    evil = torch_bytes(Evil(os.system, _TOUCH), legacy=True)
    stored = Evil(torch.storage._load_from_bytes, evil)
    layer.meta["state"]["_parameters"]["weight"] = Evil(
        torch._utils._rebuild_tensor_v2, stored, 0, (2, 2), (2, 1), False, OrderedDict()
    )
    return tree


def of_biggan(base: Base) -> Iterator[Trial]:
    """Folders of BigGAN: `config.json` and weights."""
    good = json.loads((DATA / "biggan_tiny" / "config.json").read_text())
    words = (*train("biggan", "biggan"), "generator.class_name=[0]", "generator.feature_layer=generator.gen_z")
    texts = {
        "nothing": "",
        "a list": "[]",
        "deep lists": "[" * 100_000 + "]" * 100_000,
        "deep layers": text_of({**good, "layers": "@deep@"}),
        "wide layers": text_of({**good, "layers": [[False, 16, 16]] * 20_000}),
        "layers of lists": text_of({**good, "layers": [[[], [], []]]}),
        "layers of tables": text_of({**good, "layers": [[{}, {}, {}]]}),
        "huge width": text_of({**good, "channel_width": 65_536}),
        "huge classes": text_of({**good, "num_classes": 65_536}),
        "huge codes": text_of({**good, "z_dim": 65_536, "class_embed_dim": 65_536}),
        "huge statistics": text_of({**good, "n_stats": 65_536}),
        "digits": text_of({**good, "n_stats": "@digits@"}),
        "eps of nothing": text_of({**good, "eps": float("nan")}),
        "attention nowhere": text_of({**good, "attention_layer_position": float("nan")}),
        "attention of lists": text_of({**good, "attention_layer_position": [8]}),
        "large": text_of({**good, "a": "a" * 30_000_000}),
        "many keys": text_of({**good, **{f"k{i}": i for i in range(300_000)}}),
        "not UTF-8": "\udcff",
        "a secret": text_of({**good, "output_dim": "@env@"}),
        "half a surrogate": text_of({**good, "layers": "@surrogate@"}),
    }
    for name, text in texts.items():

        def write(folder: Path, draw: Random, text: str = text) -> None:
            (base.put_biggan(folder) / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))

        yield Trial("BigGAN folder", name, words, write)

    def endless(folder: Path, draw: Random) -> None:
        config = base.put_biggan(folder) / "config.json"
        config.unlink()
        config.symlink_to("/dev/zero")

    yield Trial("BigGAN folder", "an endless configuration", words, endless)

    def crowded(folder: Path, draw: Random) -> None:
        (folder / "biggan").mkdir()
        for number in range(2000):
            (folder / "biggan" / f"{number:0200}").touch()

    yield Trial("BigGAN folder", "two thousand other files", words, crowded)
    for name in ("os.system", "eval", "pickle.loads"):

        def coded(folder: Path, draw: Random, name: str = name) -> None:
            (base.put_biggan(folder) / "pytorch_model.bin").write_bytes(torch_bytes({"a": payloads()[name]}))

        yield Trial("BigGAN folder", f"{name} as weights", words, coded)
    for name in ("expanded", "quantized", "meta", "sparse", "float8", "complex", "not a number", "empty", "no axes"):

        def odd(folder: Path, draw: Random, name: str = name) -> None:
            table = torch.load(DATA / "biggan_tiny" / "pytorch_model.bin", weights_only=True)
            table["embeddings.weight"] = tensors()[name]()
            (base.put_biggan(folder) / "pytorch_model.bin").write_bytes(torch_bytes(table))

        yield Trial("BigGAN folder", f"an embedding that is {name}", words, odd)


def spoilt_weights(base: Base, number: int) -> Trial:
    """One of endlessly many weights files with damage."""
    kind = number % 5
    if kind == 0:
        return Trial(".pt", f"damage {number}", train("dcgan", "w.pt"),
                     lambda folder, draw: (folder / "w.pt").write_bytes(spoilt(draw, torch_bytes(base.dcgan, legacy=draw.random() < 0.3))), True)  # fmt: skip
    if kind == 1:
        return Trial(".safetensors", f"damage {number}", train("dcgan", "w.safetensors"),
                     lambda folder, draw: (folder / "w.safetensors").write_bytes(spoilt(draw, base.weights.read_bytes())), True)  # fmt: skip
    if kind == 2:
        return Trial(".pkl", f"damage {number}", ("weights", "convert", "w.pkl", "out.safetensors"),
                     lambda folder, draw: (folder / "w.pkl").write_bytes(spoilt(draw, base.pickle)), True)  # fmt: skip
    if kind == 3:
        return Trial(".pt", f"damage {number}", CONVERT,
                     lambda folder, draw: (folder / "w.pt").write_bytes(spoilt(draw, torch_bytes(base.stylegan2))), True)  # fmt: skip

    def config(folder: Path, draw: Random) -> None:
        path = base.put_biggan(folder) / "config.json"
        path.write_text(text_of(hostile_copy(draw, json.loads(path.read_text()))))

    return Trial("BigGAN folder", f"changed configuration {number}",
                 (*train("biggan", "biggan"), "generator.class_name=[0]", "generator.feature_layer=generator.gen_z"),
                 config, True)  # fmt: skip
