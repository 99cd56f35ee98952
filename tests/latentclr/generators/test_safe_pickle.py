"""Hostile and damaged pickles: every one ends in a one-line error that names what it asked for, and nothing runs."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import pickletools
import shutil
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import nvidia_files
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentclr.errors import GeneratorError
from latentclr.generators.weights.pickle_objects import DType, Name, Record, Storage, StoredArray, StoredTensor
from latentclr.generators.weights.safe_pickle import load_pickle


class Reduce:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.value = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.value


class Settable:
    def __setstate__(self, state: Any) -> None:
        raise AssertionError("ran")

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}


def load(data: bytes, tmp_path: Path) -> Any:
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    return load_pickle(path)


def write(operations: bytes) -> bytes:
    """Return a protocol 2 pickle of hand-written operations."""
    return b"\x80\x02" + operations + b"."


def test_plain_data_comes_back_as_it_went(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None, True, "text", b"bytes", (1,), (1, 2, 3, 4), 10**30], "b": {3: {"x", "y"}}, "c": {}}
    for protocol in range(6):
        if protocol < 3:  # protocols 0 to 2 write sets and bytes as calls, the former with names of Python 2
            assert load(pickle.dumps(content["a"][:5], protocol), tmp_path) == content["a"][:5]
        assert load(pickle.dumps(content, protocol), tmp_path) == content


def test_tensors_records_and_numpy_scalars(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    content = {
        "view": base[1:, ::2],
        "transposed": base.T,
        "half": base.half(),
        "long": torch.arange(3),
        "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base),
    }
    record = nvidia_files.Persistent("Thing", content=OrderedDict(content), options=nvidia_files.EasyDict(a=1))
    read = load(nvidia_files.dumps(record), tmp_path)
    assert isinstance(read, Record) and read.class_name == "Thing"
    assert read.state["options"] == {"a": 1}
    for name, tensor in content.items():
        stored = read.state["content"][name]
        assert isinstance(stored, StoredTensor)
        assert torch.equal(stored.read(), tensor) and stored.read().dtype == tensor.dtype

    numbers = [np.float64(0.1), np.float32(0.5), np.int64(-3), np.uint8(250), np.bool_(True), np.float16(2)]
    assert load(pickle.dumps(numbers), tmp_path) == numbers


ARRAYS = {
    "sizes": np.broadcast_to(np.asarray(36), [2]),
    "filter": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">i4"),
    "half": np.array(2.5, dtype=np.float16),
    "flags": np.array([True, False]),
    "unsigned": np.array([2**64 - 1], dtype=np.uint64),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("protocol", range(6))
def test_numpy_arrays_of_numbers(protocol: int, tmp_path: Path) -> None:
    for name, array in ARRAYS.items():
        stored = load(pickle.dumps(array, protocol), tmp_path)
        assert isinstance(stored, StoredArray)
        read = stored.read()
        assert read.dtype == array.dtype and read.shape == array.shape and read.flags["C_CONTIGUOUS"], name
        assert np.array_equal(read, array), name


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
EMPTY_ARRAY = RECONSTRUCT + b"(cnumpy\nndarray\n(K\x00tc_codecs\nencode\n(X\x01\x00\x00\x00bX\x06\x00\x00\x00latin1tRtR"
DOUBLE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8\x89\x88tR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(np.array([os.system], dtype=object)), r"numpy\.dtype with arguments that it never has"),
        (pickle.dumps(np.array(["text"])), r"numpy\.dtype with arguments that it never has"),
        (pickle.dumps(np.zeros(1, dtype=[("a", "f8")])), r"numpy\.dtype with arguments that it never has"),
        (pickle.dumps(np.ma.array([1.0])), r"asks for numpy\.ma\.core\._mareconstruct"),
        (pickle.dumps(np.random.RandomState(0)), r"asks for numpy\.random"),
        (write(b"cnumpy\nndarray\n(K\x02tR"), r"numpy\.ndarray with arguments that it never has"),
        (write(RECONSTRUCT + b"(cnumpy\ndtype\n(K\x00tK\x00tR"), "_reconstruct with arguments that it never has"),
        # (version, shape, dtype, order, bytes), where the bytes are missing, an object, too few or of no shape
        (write(EMPTY_ARRAY + b"(K\x01(K\x02t" + DOUBLE + b"\x89tb"), "setting the state of a StoredArray"),
        (write(EMPTY_ARRAY + b"(K\x01(K\x02t" + DOUBLE + b"\x89]tb"), "numpy array that is not of numbers"),
        (write(EMPTY_ARRAY + b"(K\x01(K\x02t" + DOUBLE + b"\x89C\x04aaaatb"), "or not of their size"),
        (write(EMPTY_ARRAY + b"(K\x01(\x8a\x06\x00\x00\x00\x00\x00\x40K\x00t" + DOUBLE + b"\x89C\x00tb"), None),
        (write(EMPTY_ARRAY + b"(K\x01(J\xff\xff\xff\xfft" + DOUBLE + b"\x89C\x00tb"), "or not of their size"),
        (write(EMPTY_ARRAY + b"(K\x01K\x02" + DOUBLE + b"\x89C\x00tb"), "numpy array that is not of numbers"),
    ],
)
def test_other_numpy_objects_are_refused(content: bytes, message: str | None, tmp_path: Path) -> None:
    if message is None:  # an empty array may have a large side
        assert load(content, tmp_path).read().size == 0
        return
    with pytest.raises(GeneratorError, match=message):
        load(content, tmp_path)


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (Reduce(os.system, "touch pwned"), f"{os.name}.system"),
        (Reduce(eval, "1"), "builtins.eval"),
        (Reduce(exec, "1"), "builtins.exec"),
        (Reduce(getattr, [], "append"), "builtins.getattr"),
        (Reduce(builtins.__import__, "os"), "builtins.__import__"),
        (Reduce(shutil.rmtree, "not-there"), "shutil.rmtree"),
        (Reduce(torch.load, "x"), "torch.serialization.load"),
        (Reduce(torch.storage._load_from_bytes, Reduce(os.system, "true")), f"{os.name}.system"),
        (Reduce(OrderedDict, [(Reduce(os.system, "true"), 1)]), f"{os.name}.system"),
        (Settable(), rf"({Settable.__module__}\.Settable|copy_reg\._reconstructor)"),
        ({"G_ema": Reduce(os.system, "true")}, f"{os.name}.system"),
        (os.system, f"{os.name}.system"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_what_a_file_may_not_ask_for_is_named(
    content: Any, asked: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where `touch pwned` would leave its mark
    asked = asked.replace("builtins", "__builtin__") if protocol < 3 else asked
    with pytest.raises(GeneratorError, match=rf"a\.pkl is refused: it asks for {asked} \(only tensors and plain data"):
        load(pickle.dumps(content, protocol), tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_names_cannot_be_changed_or_reached_into(tmp_path: Path) -> None:
    allowed = b"ccollections\nOrderedDict\n"
    cases = {
        # BUILD with (None, {slot: value}) sets attributes in Python's own machine
        allowed + b"N}X\x05\x00\x00\x00fieldK\x01s\x86b": "setting the state of a collections.OrderedDict",
        allowed + b")R}X\x05\x00\x00\x00fieldK\x01sb": "setting the state of a dict",
        b"]}X\x05\x00\x00\x00fieldK\x01sb": "setting the state of a list",
        b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R}b": "setting the state of a DType",
        b"K\x01)R": "calling a int",
        allowed + b")R)R": "calling a dict",
        allowed + b"]R": "calling a collections.OrderedDict",
        b"ccollections\nOrderedDict.fromkeys\n)R": r"asks for collections\.OrderedDict\.fromkeys",
        b"c__builtin__\nset.__class__\n)R": r"asks for __builtin__\.set\.__class__",
        b"(ios\nsystem\n": "instruction INST",
        b"(cos\nsystem\no": "asks for os.system",
        b"(K\x01o": "instruction OBJ",
        b"K\x01Q": "instruction BINPERSID",
        b"\x82\x01": "instruction EXT1",
        b"K\x01K\x02\x93": "asks for a name that is no text",
        b"cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R": "numpy.dtype with arguments that it never has",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf16\x86R": "_codecs.encode with arguments",
        b"(K\x01K\x02": "it has no end|its end leaves work undone",
        b"K\x01K\x02": "its end leaves work undone",
        b"\x86": "its stack runs empty",
        b")K\x01a": "appending to a tuple",
        b"]K\x01K\x02s": "setting items of a list",
        b"])K\x01\x86K\x02s": "setting items of a list",
        b"})\x85K\x02s": "a tuple as a key",
        b"}]K\x02s": "a list as a key",
        b"}\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01K\x02s": "a int as a key",
    }
    before = dict(vars(OrderedDict))
    for operations, message in cases.items():
        with pytest.raises(GeneratorError, match=message):
            load(write(operations), tmp_path)
    assert dict(vars(OrderedDict)) == before


def rebuild(storage: Any, offset: Any = 0, size: Any = (2,), stride: Any = (1,)) -> Reduce:
    return Reduce(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


def storage(data: bytes) -> Reduce:
    return Reduce(torch.storage._load_from_bytes, data)


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False, **options)
    return buffer.getvalue()


WHOLE = torch.arange(4.0)._typed_storage().__reduce__()[1][0]  # four values, as torch pickles their storage


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (rebuild(storage(WHOLE), size=(5,)), r"size \[5\] lies outside its storage of 4 values"),
        (rebuild(storage(WHOLE), offset=3), "lies outside its storage"),
        (rebuild(storage(WHOLE), stride=(4,)), "lies outside its storage"),
        (rebuild(storage(WHOLE), size=(2**40,), stride=(0,)), "lies outside its storage"),
        (rebuild(storage(WHOLE), size=(2**40, 0), stride=(1, 1)), None),
        (rebuild(storage(WHOLE[:-3])), "storage cannot be read"),
        (rebuild(storage(WHOLE[:100])), "storage cannot be read"),
        (rebuild(storage(WHOLE.replace(b"K\x04N", b"M\xff\xffN"))), "storage cannot be read"),
        (
            rebuild(storage(WHOLE.replace(b"K\x04N", b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"N"))),
            "cannot be read",
        ),
        (
            rebuild(storage(torch.zeros(4, dtype=torch.cfloat)._typed_storage().__reduce__()[1][0])),
            "of complex64, which",
        ),
        (rebuild(storage(b"")), "not in the form"),
        (rebuild(storage(pickle.dumps(Reduce(os.system, "true")))), "not in the form"),
        (rebuild(storage(saved(Reduce(os.system, "true")))), "storage cannot be read"),
        (rebuild(storage(saved([1, 2]))), "cannot be read: it holds a list"),
        (rebuild(storage(saved(torch.zeros(4)))), "cannot be read: it holds a Tensor"),
    ],
)
def test_storages_of_wrong_sizes_and_kinds(tensor: Reduce, message: str | None, tmp_path: Path) -> None:
    stored = load(pickle.dumps(tensor, 2), tmp_path)
    if message is None:
        assert stored.read().shape == (2**40, 0)
        return
    with pytest.raises(GeneratorError, match=message):
        stored.read()


@pytest.mark.parametrize(
    "tensor",
    [
        rebuild(b"bytes"),
        rebuild(storage(WHOLE), offset=-1),
        rebuild(storage(WHOLE), size=(-1,)),
        rebuild(storage(WHOLE), size=(2**60,)),
        rebuild(storage(WHOLE), size=(True,)),
        rebuild(storage(WHOLE), stride=(1, 1)),
        rebuild(storage(WHOLE), size=(1,) * 9, stride=(1,) * 9),
        rebuild(storage(WHOLE), size=7),
        Reduce(torch._utils._rebuild_tensor_v2),
        Reduce(torch._utils._rebuild_parameter, "text"),
    ],
)
def test_tensors_with_impossible_arguments(tensor: Reduce, tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match="with arguments that it never has"):
        load(pickle.dumps(tensor, 2), tmp_path)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laughs: list[Any] = ["ha"]
    for _ in range(60):  # 2 ** 60 items if anything walked them; as references they are 60 lists
        laughs = [laughs, laughs]
    assert len(load(pickle.dumps(laughs), tmp_path)) == 2
    depth = 200_000
    for deep in (b"]" * depth + b"a" * (depth - 1), b")" + b"\x85" * depth):
        nested = load(write(deep), tmp_path)
        assert len(nested) == 1
        del nested
    with pytest.raises(GeneratorError, match="a tuple as a key"):
        load(write(b"}" + b")" + b"\x85" * depth + b"K\x01s"), tmp_path)
    monkeypatch.setattr("latentclr.generators.weights.safe_pickle.MAX_OPCODES", 1000)
    with pytest.raises(GeneratorError, match="more than 1000 instructions"):
        load(write(b"]" * 1001), tmp_path)
    monkeypatch.setattr("latentclr.generators.weights.safe_pickle.MAX_TEXT", 1000)
    with pytest.raises(GeneratorError, match="a string of 1001 characters"):
        load(pickle.dumps("x" * 1001), tmp_path)
    for length in (b"\x8d" + struct.pack("<Q", 2**62), b"B" + struct.pack("<I", 2**31)):  # claims, not bytes
        with pytest.raises(GeneratorError, match="is not a whole pickle"):
            load(write(length), tmp_path)


def test_a_truncated_file_is_never_whole(tmp_path: Path) -> None:
    data = nvidia_files.dumps({"G_ema": nvidia_files.Persistent("Thing", a=torch.zeros(3), b=[1, {"c": 2.0}])})
    for length in range(len(data)):
        with pytest.raises(GeneratorError):
            load(data[:length], tmp_path)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"cannot read .*none\.pkl: No such file"):
        load_pickle(tmp_path / "none.pkl")
    with pytest.raises(GeneratorError, match="Is a directory"):
        load_pickle(tmp_path)


# Made once: the name of a storage in it is not the same each time, and examples must be.
TO_MUTATE = nvidia_files.dumps({"a": nvidia_files.Persistent("Thing", b=torch.zeros(3), c=np.ones(2))})


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_bytes_give_data_or_one_error(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = bytearray(TO_MUTATE)
    codes = [opcode.code.encode("latin1")[0] for opcode in pickletools.opcodes]
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.sampled_from(codes) | st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.pkl"
    path.write_bytes(whole)
    try:
        found = load_pickle(path)
    except GeneratorError as error:
        assert "\n" not in str(error)
    else:
        assert_inert(found)


PLAIN = {dict, list, tuple, set, str, bytes, int, float, bool, type(None)}
OWN = {Record, Name, Storage, DType, StoredArray, StoredTensor}


def assert_inert(found: Any) -> None:
    """Plain data and our own records, all the way down: nothing that could be called."""
    waiting, seen = [found], set()
    while waiting:
        value = waiting.pop()
        assert type(value) in PLAIN | OWN, type(value)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif type(value) in OWN:
            waiting += vars(value).values()


def test_a_list_is_no_class_name_and_one_text_is_not_encoded_over_and_over(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    nested = b"]" * 500 + b"a" * 499
    head = b"\x80\x02ctorch_utils.persistence\n_reconstruct_persistent_obj\n("
    table = b"}(U\x04typeU\x05classU\x0aclass_name" + nested + b"U\x05state}u"
    path.write_bytes(head + table + b"tR.")
    with pytest.raises(GeneratorError, match="with arguments that it never has"):
        load_pickle(path)
    text = b"X" + (100_000).to_bytes(4, "little") + b"a" * 100_000 + b"q\x000"
    path.write_bytes(b"\x80\x02" + text + b"](" + b"c_codecs\nencode\n(h\x00U\x06latin1tR" * 50 + b"e.")
    with pytest.raises(GeneratorError, match="more out of one text than the file holds"):
        load_pickle(path)
