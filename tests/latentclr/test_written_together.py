"""Files that belong together are all new or all old, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from latentclr.errors import SaveError
from latentclr.files import write_together

OLD = {"a": b"old a", "b": b"old b", "c": b"old c"}
NEW = {"a": b"new a", "b": b"new b", "c": b"new c"}


@pytest.fixture
def folder(tmp_path):
    for name, content in OLD.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(folder):
    write_together({folder / name: content for name, content in NEW.items()})


def test_all_are_new(folder):
    write(folder)
    assert files_of(folder) == NEW
    write_together({folder / "new" / "deep": b"x"})
    assert (folder / "new" / "deep").read_bytes() == b"x"


def test_ctrl_c_between_two_renames_waits(folder, monkeypatch):
    rename, order = os.replace, []

    def interrupted(source, target):
        order.append(target.name)
        if len(order) == 2:
            signal.raise_signal(signal.SIGINT)
        rename(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        write(folder)
    assert order == ["c", "b", "a"]
    assert files_of(folder) == NEW
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_is_new_when_bytes_do_not_reach_the_disk(folder, monkeypatch, stopped_by):
    sync, calls = os.fsync, []

    def stopped(number):
        calls.append(number)
        if len(calls) == 3:
            raise stopped_by
        sync(number)

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises((KeyboardInterrupt, SaveError)) as raised:
        write(folder)
    assert files_of(folder) == OLD
    if isinstance(stopped_by, OSError):
        assert str(raised.value) == f"could not write {folder / 'c'}: No space left on device"


def test_a_folder_in_the_place_of_a_file(folder):
    """It is found before anything is renamed: the last file is renamed first."""
    (folder / "a").unlink()
    (folder / "a").mkdir()
    with pytest.raises(SaveError, match=r"could not write .*a: Is a directory"):
        write(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "c"]
    assert [(folder / name).read_bytes() for name in "bc"] == [OLD["b"], OLD["c"]]


def test_in_another_thread_no_signals_are_touched(folder):
    thread = threading.Thread(target=write, args=(folder,))
    thread.start()
    thread.join()
    assert files_of(folder) == NEW
