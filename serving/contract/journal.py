"""Several renames in a model repository as one: all of them or none, also when the process is killed between two.

What is to come lies in a staging folder, on the disk for certain. Then `.journal.json` says which renames follow and
where the files are that they replace, then they are made, and the journal goes: from then on the new state holds. Who
finds a journal and can have the repository alone knows that its writer is dead, and takes the renames back. Each of
these steps may be cut short and done again. To take back needs no room on the disk, as a rename needs none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from serving.contract.documents import read_json
from serving.contract.lock import Busy, alone
from serving.errors import ServingError

JOURNAL = ".journal.json"
PATIENCE_S = 5.0
"""Seconds to wait for another command: most have a repository for a moment only."""
_LARGEST = 100_000
# The last two were written by versions that named the edits of a published model without a journal. Lock files are
# none of these: whoever has the repository alone need not have a catalog in it, whose lock is then held.
_FILES = ("*/.tmp-config-*", "*/*/.tmp-config-*", "*/.config.pbtxt.*", "*/*/.config.pbtxt.*")
# What a repository of ours changes; a journal in a foreign one moves nothing else.
_TARGET = re.compile(r"(?!\.)[\w.-]+(/\d+)?(/config\.pbtxt)?", re.ASCII)
_STAGED = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+){0,2}", re.ASCII)


class JournalError(ServingError):
    """A repository's journal is none of ours; nothing was changed."""


@contextlib.contextmanager
def changing(repository: Path) -> Iterator[Path]:
    """Have a repository alone, in order, and yield an empty staging folder on its file system.

    The folder lies beside the repository where that is possible: to Triton every folder inside is a model, and one
    without a configuration keeps a server from starting.

    Raises:
        Busy: Another process changes the repository.
        JournalError: What stands there as its journal is none.
        OSError: The repository cannot be written.
    """
    with alone(repository, PATIENCE_S):
        recover(repository)
        repository = repository.resolve()
        outside = repository.parent
        same = outside.stat().st_dev == repository.stat().st_dev and os.access(outside, os.W_OK)
        staging = Path(tempfile.mkdtemp(prefix=f".tmp-{repository.name}-", dir=outside if same else repository))
        try:
            yield staging
        finally:
            if not (repository / JOURNAL).exists():  # else it holds what brings the old state back
                shutil.rmtree(staging, ignore_errors=True)


def rename_together(repository: Path, staging: Path, moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename all or none.

    Args:
        repository: As given to `changing`.
        staging: As yielded by it.
        moves: (what lies in the staging folder, where it goes in the repository). A folder must be new there, a file
            may replace one.

    Raises:
        OSError: One of them cannot be made; those before it are taken back.
    """
    top, entries = repository.resolve(), []
    for number, (source, target) in enumerate(moves):
        before = None
        if target.exists():
            before = staging / f"before-{number}"
            _same_file(target, before)
        names = (source.relative_to(staging), target.relative_to(top), before and before.relative_to(staging))
        entries.append([None if name is None else name.as_posix() for name in names])
    journal = staging / "journal.json"
    journal.write_text(json.dumps({"staging": staging.name, "beside": staging.parent != top, "moves": entries}))
    for path in (*staging.rglob("*"), staging, staging.parent):  # a rename must never be older than what it names
        if path.is_file() or path.is_dir():
            _sync(path)
    try:
        os.replace(journal, top / JOURNAL)
        _sync(top)
        for source, target in moves:
            os.replace(source, target)
        for folder in {folder for source, target in moves for folder in (source.parent, target.parent)}:
            _sync(folder)
    except BaseException:
        take_back(repository)
        raise
    (top / JOURNAL).unlink()
    _sync(top)


def recover(repository: Path) -> None:
    """Bring a repository into order that one has alone: take back what was cut short, remove what was left.

    Raises:
        JournalError: What stands there as its journal is none.
        OSError: The repository cannot be written.
    """
    take_back(repository)
    for path in leftovers(repository):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def recover_if_free(repository: Path) -> None:
    """Bring a repository into order before somebody reads it, unless a change is under way or none is allowed.

    A staging folder inside is a model to Triton, without a configuration, and keeps a server from starting.

    Raises:
        JournalError: What stands there as its journal is none.
    """
    if (repository / JOURNAL).exists() or leftovers(repository):
        with contextlib.suppress(Busy, OSError), alone(repository):
            recover(repository)


def leftovers(repository: Path) -> list[Path]:
    """Return the temporary files and folders in and beside a repository; whoever has it alone knows that they are dead.

    Args:
        repository: The folder.
    """
    repository = repository.resolve()
    # Of another repository, whose name goes on with a dash, the rest has a dash too.
    ours = re.compile(re.escape(f".tmp-{repository.name}-") + "[a-z0-9_]{8}")
    beside = [path for path in repository.parent.glob(".tmp-*") if ours.fullmatch(path.name) and path.is_dir()]
    inside = [path for path in repository.glob(".tmp-*") if path.is_dir()]
    files = [path for pattern in _FILES for path in repository.glob(pattern) if path.is_file()]
    return [path for path in (*beside, *inside, *files) if not path.is_symlink()]


def take_back(repository: Path) -> None:
    """Undo the renames of the journal, if there is one, from the last to the first."""
    top = repository.resolve()
    read = _read(top)
    if read is None:
        return
    staging, moves = read
    for source, target, before in reversed(moves):
        if before is not None:
            if before.exists():  # else the file stands where it stood already
                os.replace(before, target)
        elif target.exists():
            source.parent.mkdir(parents=True, exist_ok=True)
            os.replace(target, source)
        with contextlib.suppress(FileNotFoundError):
            _sync(target.parent)
    (top / JOURNAL).unlink()
    _sync(top)
    shutil.rmtree(staging, ignore_errors=True)


def _read(top: Path) -> tuple[Path, list[tuple[Path, Path, Path | None]]] | None:
    """Read the journal: staging folder and (source, target, what stood at the target)."""
    path = top / JOURNAL
    try:
        with path.open("rb") as file:
            entries: Any = read_json(file.read(_LARGEST + 1), _LARGEST)
        name, moves = entries["staging"], entries["moves"]
        if not re.fullmatch(r"\.tmp-[\w.-]+", name, re.ASCII) or type(entries["beside"]) is not bool:
            raise ValueError
        staging = (top.parent if entries["beside"] else top) / name
        if staging.is_symlink():
            raise ValueError
        return staging, [_move(top, staging, *move) for move in moves]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise JournalError(f"{path} is not a journal that latentclr wrote; look at the models and remove it") from None


def _move(top: Path, staging: Path, source: str, target: str, before: str | None) -> tuple[Path, Path, Path | None]:
    for name, form in ((source, _STAGED), (target, _TARGET), (before or source, _STAGED)):
        if not form.fullmatch(name) or ".." in PurePosixPath(name).parts:
            raise ValueError
    folder = top / target.partition("/")[0]
    if folder.is_symlink() or (top / target).is_symlink() or (staging / source).parent.is_symlink():
        raise ValueError
    return staging / source, top / target, None if before is None else staging / before


def _same_file(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:  # not all file systems have hard links
        shutil.copy2(path, other)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
