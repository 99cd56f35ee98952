"""Directions out of files that anybody may have written."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from latentclr.errors import ConfigError
from latentclr.method.vectors import read_vectors
from serving.contract.arrays import read_npz

RNG = np.random.default_rng(0)
V = RNG.standard_normal((3, 5))


@pytest.mark.parametrize(
    "array", [V, V.astype(np.float32), np.asfortranarray(V), V.astype(">f8"), V.astype(np.float16)]
)
def test_npy(tmp_path, array):
    np.save(tmp_path / "v.npy", array)
    vectors, names, problems = read_vectors(tmp_path / "v.npy", 5)
    assert vectors.dtype == torch.float32
    assert np.array_equal(vectors.numpy(), array.astype(np.float32))
    assert names == [None] * 3
    assert not problems


def test_one_direction(tmp_path):
    np.save(tmp_path / "v.npy", V[0])
    assert read_vectors(tmp_path / "v.npy", 5)[0].shape == (1, 5)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    """InterFaceGAN's boundaries are [1, D]; a block of several has no names of its own."""
    save(tmp_path / "v.npz", smile=V[0], age=V[1:2], more=V)
    vectors, names, problems = read_vectors(tmp_path / "v.npz", 5)
    assert np.array_equal(vectors.numpy(), np.concatenate([V[:2], V]).astype(np.float32))
    assert names == ["smile", "age", None, None, None]
    assert not problems
    save(tmp_path / "w.npz", V[0], V[1])
    assert read_vectors(tmp_path / "w.npz", 5)[1] == [None, None]  # arr_0 and arr_1 are nobody's words


def test_safetensors(tmp_path):
    save_file({"yaw": V[:1], "age": V[2]}, tmp_path / "v.safetensors")
    vectors, names, _ = read_vectors(tmp_path / "v.safetensors", 5)
    assert names == ["age", "yaw"]
    assert np.array_equal(vectors.numpy(), V[[2, 0]].astype(np.float32))
    save_file({"params": V}, tmp_path / "w.safetensors", metadata={"names": json.dumps(["a", "b", "c"])})
    assert read_vectors(tmp_path / "w.safetensors", 5)[1] == ["a", "b", "c"]


def test_names_that_are_none(tmp_path):
    names = ["smile", "3", "all", "smile"]
    save_file({"v": np.concatenate([V, V[:1]])}, tmp_path / "v.safetensors", metadata={"names": json.dumps(names)})
    _, found, problems = read_vectors(tmp_path / "v.safetensors", 5)
    assert found == ["smile", None, None, None]
    assert [line.split(":")[0] for line in problems] == [f"direction {i} stays without a name" for i in (1, 2, 3)]


def write(path, name, content):
    if name == "text":
        path.write_bytes(content)
    elif isinstance(content, dict) and path.suffix == ".safetensors":
        save_file(content, path, metadata={"names": name} if name else None)
    elif isinstance(content, dict):
        np.savez(path, **content)
    else:
        np.save(path, content, allow_pickle=True)


BAD = V.copy()
BAD[1, 2] = np.nan
ZERO = V.copy()
ZERO[2] = 0


@pytest.mark.parametrize(
    ("file", "name", "content", "message"),
    [
        ("v.npy", "", V[:, :4], r"expected \[K, 5\], as the generator's codes have 5 values, got \[3, 4\]"),
        ("v.npy", "", V[0, :4], r"expected \[K, 5\] or \[5\].* got \[4\]"),
        ("v.npy", "", V[None], r"got \[1, 3, 5\]"),
        ("v.npy", "", V[:0], r"got \[0, 5\]"),
        ("v.npy", "", np.float64(3), r"got \[\]"),
        ("v.npy", "", BAD, "holds numbers that are not finite"),
        ("v.npy", "", V * 1e300, "holds numbers that are not finite"),
        ("v.npy", "", ZERO, "direction 2 is zero"),
        ("v.npy", "", V > 0, "must hold whole or floating-point numbers, got bool"),
        ("v.npy", "", V.astype(complex), "must hold numbers, got complex128"),
        ("v.npy", "", np.array([{}]), "must hold numbers, got object"),
        ("v.npy", "text", b"", "is not a plain .npy array"),
        ("v.npy", "text", b"\x93NUMPY\x01\x00" + b"\xff" * 40, "is not a plain .npy array"),
        ("v.npz", "", {"a": V, "b": V[:, :4]}, r"v.npz, b: expected \[K, 5\]"),
        ("v.npz", "", {"a": BAD}, "v.npz, a holds numbers that are not finite"),
        ("v.npz", "", {"a": np.array(["x"])}, "holds 'a', which must hold numbers, got <U1"),
        ("v.npz", "", {}, "holds no arrays"),
        ("v.npz", "text", b"PK\x03\x04 and so on", "is not a plain .npz archive"),
        ("v.safetensors", "", {"a": V[:, :4]}, r"v.safetensors, a: expected \[K, 5\]"),
        ("v.safetensors", '["a"]', {"v": V}, "its metadata names 1 directions, and it holds 3"),
        ("v.safetensors", '{"a": 1}', {"v": V}, "has `names` that are no list of texts"),
        ("v.safetensors", "[" * 100_000, {"v": V}, "cannot read vectors="),
        ("v.safetensors", "text", b"\xff" * 30, "cannot read vectors="),
        ("v.pt", "text", b"", "must end in .npy, .npz or .safetensors"),
        ("nowhere/v.npy", "absent", b"", "cannot be read: No such file"),
        ("nowhere/v.npz", "absent", b"", "cannot be read: No such file"),
        ("nowhere/v.safetensors", "absent", b"", "No such file"),
    ],
)  # fmt: skip
def test_refused_in_one_line(tmp_path, file, name, content, message):
    if name != "absent":
        write(tmp_path / file, name, content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_vectors(tmp_path / file, 5)
    assert "\n" not in str(caught.value)


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_archives_that_numpy_does_not_write(tmp_path, method):
    """Damage in them is an error of each method's own."""
    path = tmp_path / "v.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", npy_bytes(V))
    content = bytearray(path.read_bytes())
    content[50] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a plain .npz archive: it compresses 'a.npy' otherwise"):
        read_npz(path)


def test_archives_that_lie(tmp_path):
    path, good = tmp_path / "v.npz", npy_bytes(V)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", npy_bytes(np.zeros((1 << 18, 5))))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(ValueError, match=r"holds 'bomb', which is of shape .* and must be at most 1000 bytes"):
        read_npz(path, 1000)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", good)
        archive.writestr("b.npy", good)
    with pytest.raises(ValueError, match="holds 'b', which"):  # the bound is of all arrays together
        read_npz(path, 200)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("short.npy", good[:-1])
    with pytest.raises(ValueError, match="holds 'short', which is cut short"):
        read_npz(path)
    for name in ("notes.txt", "a.npy"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", good)
            if name == "a.npy":
                with pytest.warns(UserWarning, match="Duplicate name"):
                    archive.writestr(name, good)
            else:
                archive.writestr(name, good)
        with pytest.raises(ValueError, match=r"is not a plain .npz archive: it holds"):
            read_npz(path)
    np.savez(path, a=V)
    content = bytearray(path.read_bytes())
    content[200] ^= 255  # a number, which the check sum then does not fit
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a plain"):
        read_npz(path)
    for cut in range(1, len(content), 50):
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"is not a plain .npz archive|is cut short"):
            read_npz(path)
