"""The catalog file: never half written, never overwritten when it is not understood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from serving.contract.catalog import CatalogFile, without
from serving.contract.documents import read_yaml
from serving.contract.errors import CatalogError, CatalogWriteError
from serving.contract.named_edit import NamedEdit, check_name, entry_of
from serving.studio.names import Names

ROOT = Path(__file__).parents[3]
EDIT = NamedEdit(28, (4, 5), (-7.0, 7.5), "mouth: closed #1")


class Catalog:
    """The file, one entry at a time."""

    def __init__(self, path: Path) -> None:
        self._file = CatalogFile(path, path.name)

    def read(self) -> dict[str, NamedEdit]:
        return dict(self._file.read().edits)

    def save(self, name: str, edit: NamedEdit) -> None:
        self._file.update(lambda entries: {**entries, name: entry_of(edit)})

    def delete(self, name: str) -> None:
        self._file.update(lambda entries: without(entries, name))


def fitting(path: Path, manifest: object) -> tuple[dict[str, NamedEdit], list[str]]:
    held, problems = Names(CatalogFile(path)).for_model(manifest)  # type: ignore[arg-type]
    return {name: one.edit for name, one in held.items()}, problems


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "catalog.yaml"


def test_an_entry_comes_back(path: Path) -> None:
    catalog = Catalog(path)
    assert catalog.read() == {}
    catalog.save("smile", EDIT)
    assert catalog.read() == {"smile": EDIT}
    assert path.read_text() == "smile: {direction: 28, layers: [4, 5], alpha: [-7, 7.5], note: 'mouth: closed #1'}\n"
    catalog.save("smile", NamedEdit(1, (), (-1, 1)))
    catalog.save("yes", EDIT)
    assert catalog.read() == {"smile": NamedEdit(1, (), (-1, 1)), "yes": EDIT}
    catalog.delete("smile")
    assert list(catalog.read()) == ["yes"]
    assert os.listdir(path.parent) == ["catalog.yaml"]


def test_a_new_entry_keeps_comments_and_form(path: Path) -> None:
    text = "# found on Monday\nsmile:\n  direction: 28  # really\n  layers: [4, 5]\n  mine: kept"
    path.write_text(text)
    Catalog(path).save("hat", NamedEdit(3, (), (-6, 6)))
    assert path.read_text() == text + "\nhat: {direction: 3, layers: [], alpha: [-6, 6], note: ''}\n"


def test_a_file_in_flow_form_is_written_anew(path: Path) -> None:
    path.write_text("{smile: {direction: 28, mine: kept}}")
    catalog = Catalog(path)
    catalog.save("hat", NamedEdit(3, (), (-6, 6)))
    assert sorted(catalog.read()) == ["hat", "smile"]
    assert yaml.safe_load(path.read_text())["smile"] == {"direction": 28, "mine": "kept"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smile: [", "not YAML, line 1"),
        ("smile: !!python/object/apply:os.system [ls]", "not YAML, line 1"),
        ("- a", "must be a table from names to edits"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_what_is_not_a_catalog_is_said(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    with pytest.raises(CatalogError, match=re.escape(words)):
        Catalog(path).read()
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("28: {direction: 1}", "begin with a letter, got '28'"),
        ("yes: {direction: 1}", "YAML reads a name as True: write it in quotes"),
        ("a/b: {direction: 1}", "begin with a letter, got 'a/b'"),
        ("smile: 28", "smile must be like"),
        ("smile: {direction: '28'}", "smile must be like"),
        ("smile: {direction: true}", "smile must be like"),
        ("smile: {direction: -1}", "smile must be like"),
        ("smile: {direction: 1, layers: 4}", "smile must be like"),
        ("smile: {direction: 1, layers: [a]}", "smile must be like"),
        ("smile: {direction: 1, layers: [true]}", "smile must be like"),
        ("smile: {direction: 1, layers: [-1]}", "smile must be like"),
        ("smile: {direction: 1, alpha: [1]}", "smile must be like"),
        ("smile: {direction: 1, alpha: [2, 1]}", "smile must be like"),
        ("smile: {direction: 1, alpha: [.nan, 1]}", "smile must be like"),
        ("smile: {direction: 1, alpha: [-.inf, .inf]}", "smile must be like"),
        ("hat: {direction: 1}\nh\u0061t: {direction: 2}", ""),
        ("\u00e9: {direction: 1}\ne\u0301: {direction: 2}", "\u00e9 stands there twice"),
    ],
)
def test_a_bad_entry_is_named_and_the_others_are_read(
    path: Path, manifest_of: Callable[[int, int], object], entry: str, words: str
) -> None:
    """The same grammar everywhere: what the studio takes, `latentclr` takes, and the other way round."""
    from latentclr.catalog import readable_edits

    path.write_text(f"{entry}\nold: {{direction: 2}}\n")
    good, problems = fitting(path, manifest_of(3, 2))
    assert good["old"] == NamedEdit(2)
    assert [words in problem for problem in problems] == ([True] if words else [])
    edits, told = readable_edits(path.parent)
    assert edits == good
    assert [words in line and line.endswith("left out") for line in told] == ([True] if words else [])
    # It stays in the file for whoever wrote it, also when the file is written anew.
    before = yaml.safe_load(path.read_text())
    Catalog(path).save("new", EDIT)
    Catalog(path).delete("new")
    assert yaml.safe_load(path.read_text()) == before


@pytest.mark.parametrize("text", ["smile: [", "- a"])
def test_a_damaged_file_is_not_overwritten(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(CatalogError):
        Catalog(path).save("hat", EDIT)
    assert path.read_text() == text


def test_what_could_not_be_read_again_is_not_written(path: Path) -> None:
    catalog = Catalog(path)
    catalog.save("smile", EDIT)
    before = path.read_text()
    with pytest.raises(CatalogError, match="could not be read again"):
        catalog.save("hat", NamedEdit(1, (), (-6, 6), "${oc.env:HOME}"))
    assert path.read_text() == before


def test_other_kinds_of_damage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CatalogError, match="not UTF-8"):
        Catalog(path).read()
    path.write_text("#" * 1_000_001)
    with pytest.raises(CatalogError, match="at most 1000000 bytes"):
        Catalog(path).read()
    path.unlink()
    path.mkdir()
    with pytest.raises(CatalogError, match="cannot read the catalog"):
        Catalog(path).read()


def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(path)
    catalog.save("smile", EDIT)
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CatalogError, match=r"cannot write the catalog.*No space left"):
        catalog.save("hat", EDIT)
    assert path.read_text() == before
    assert os.listdir(path.parent) == ["catalog.yaml"]


def test_the_file_is_read_again_only_when_it_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = read_yaml
    monkeypatch.setattr("serving.contract.catalog.read_yaml", lambda text: parsed.append(text) or parse(text))
    path.write_text("smile: {direction: 1}\n")
    os.utime(path, ns=(1, 1))  # long ago
    catalog = Catalog(path)
    for _ in range(3):
        assert catalog.read() == {"smile": NamedEdit(1)}
    assert len(parsed) == 1
    path.write_text("smile: {direction: 2}\n")  # as long as before, in the same inode
    assert catalog.read() == {"smile": NamedEdit(2)}
    path.write_text("smile: {direction: 0}\n")  # and within one tick of the clock
    assert catalog.read() == {"smile": NamedEdit(0)}
    path.unlink()
    assert catalog.read() == {}


def test_processes_do_not_lose_entries(path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom serving.contract.catalog import CatalogFile\nsys.stdin.readline()\n"
        "for n in range(20):\n"
        "    name = f'edit {sys.argv[2]} {n}'\n"
        "    CatalogFile(pathlib.Path(sys.argv[1])).update(lambda e: {**e, name: {'direction': n}})"
    )
    command = [sys.executable, "-c", code, str(path)]
    running = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, cwd=ROOT, text=True) for number in range(6)
    ]
    for process in running:  # all are there before one begins
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in running] == [0] * 6
    assert len(Catalog(path).read()) == 120
    assert os.listdir(path.parent) == ["catalog.yaml"]


def test_a_lock_that_a_killed_process_left_holds_nobody_up(path: Path) -> None:
    (path.parent / ".catalog.yaml.lock").touch()
    Catalog(path).save("smile", EDIT)
    assert os.listdir(path.parent) == ["catalog.yaml"]


def test_a_lock_that_is_a_link_or_a_pipe_is_refused(path: Path, tmp_path: Path) -> None:
    """Neither is opened: the one may point anywhere, the other keeps who opens it waiting."""
    lock = path.parent / ".catalog.yaml.lock"
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CatalogWriteError, match="cannot write the catalog"):
        Catalog(path).save("smile", EDIT)
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(CatalogWriteError, match=r"cannot write the catalog .*: \.catalog\.yaml\.lock is no lock file"):
        Catalog(path).save("smile", EDIT)
    assert not path.exists()
    assert not (tmp_path / "elsewhere").exists()


def test_threads_do_not_lose_entries(path: Path) -> None:
    catalog = Catalog(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: catalog.save(f"edit {number}", EDIT), range(40)))
    assert len(catalog.read()) == 40


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path.symlink_to(tmp_path / "real" / "faces.yaml")
    Catalog(path).save("smile", EDIT)
    assert path.is_symlink()
    assert (tmp_path / "real" / "faces.yaml").exists()


def test_the_new_file_is_readable_like_any_other(path: Path) -> None:
    Catalog(path).save("smile", EDIT)
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("name", ["smile", "Lächeln", "微笑み", "मुस्कान", "head left-right", "hat_2", "x" * 40])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", "28", "2x", "-a", "_a", "a ", "a\n", "a:b", "a,b", "a=b", "a/b", "..", "\x00"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="a name must be 1 to 40"):
        check_name(name)


def test_names_are_composed() -> None:
    assert check_name("La\u0308cheln") == "L\u00e4cheln"


def test_entries_of_another_model_are_left_out(path: Path, manifest_of: Callable[[int, int], object]) -> None:
    path.write_text("a: {direction: 28}\nb: {direction: 1, layers: [7]}\nc: {direction: 1}\n")
    good, problems = fitting(path, manifest_of(3, 2))
    assert list(good) == ["c"]
    assert problems == ["a: direction must be in [0, 3), got 28", "b: layers must be in [0, 2), got [7]"]
