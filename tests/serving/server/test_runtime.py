"""The runtime in the cache: one for each installation, whole, and never changed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.errors import ServerStartError
from serving.triton.runtime import build_runtime, runtimes_folder, shared_runtime

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LATENTCLR_CACHE", str(tmp_path / "cache"))
    return runtimes_folder()


def test_many_at_once_find_one_whole_runtime(cache: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = {runtime.backends for runtime in pool.map(lambda _: shared_runtime(), range(16))}
    (backends,) = found
    assert [backends.parent] == list(cache.iterdir())
    assert not list(cache.rglob(".tmp-*"))
    for name in ("python/triton_python_backend_stub", "python/libtriton_python.so", "onnxruntime/model.py"):
        assert (backends / name).is_file()


def test_the_working_folder_makes_no_difference(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shared_runtime().backends
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as `python -m` does
    assert shared_runtime().backends == first


def test_another_python_path_gets_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shared_runtime().backends / "onnxruntime" / "model.py"
    text, inode = first.read_text(), first.stat().st_ino
    other = cache.parent / "other"
    other.mkdir()
    monkeypatch.syspath_prepend(str(other))
    assert shared_runtime().backends.parent != first.parents[2]
    assert (first.read_text(), first.stat().st_ino) == (text, inode)


def test_what_is_lost_is_put_back_and_the_rest_stays() -> None:
    backends = shared_runtime().backends
    model, stub = backends / "pytorch" / "model.py", backends / "python" / "triton_python_backend_stub"
    inode = model.stat().st_ino
    size = stub.stat().st_size
    stub.unlink()
    shared_runtime()
    assert (os.access(stub, os.X_OK), stub.stat().st_size) == (True, size)
    assert model.stat().st_ino == inode


def test_a_cache_that_cannot_be_written(cache: Path, tmp_path: Path) -> None:
    cache.parent.write_text("a file")
    with pytest.raises(ServerStartError, match=r"cannot write Triton's runtime to .*set LATENTCLR_CACHE") as caught:
        shared_runtime()
    assert "\n" not in str(caught.value)
    assert shared_runtime(otherwise=tmp_path / "own").backends == tmp_path / "own" / "backends"


def test_a_folder_of_another_user_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match="belongs to another user"):
        build_runtime(tmp_path)
