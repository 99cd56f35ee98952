"""The temporary folder of an embedded server, and those of servers that were killed with the process that owned them.

A folder belongs to a running server as long as somebody holds the lock of the file `lock` in it: the process that
started the server, or Triton, which inherits the open file and may outlive it. The kernel lets go of a lock however its
holder ends, so nobody is taken for alive whose process number has been given away again.
"""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServerStartError

_PREFIX = "latentclr-triton-"
_LOCK = "lock"
_SHARED_MEMORY = Path("/dev/shm")
_REGION = re.compile(r"latentclr_[0-9a-f]{12}_")
_CLIENT_S = 3600
_NEW_S = 60  # a folder without a lock may be one that is just being made


class ServerFolder:
    """A folder for the files of one server; it is removed by `close`.

    Attributes:
        path: The folder.
        lock: The open lock file, which the server must inherit.
    """

    def __init__(self, region: str) -> None:
        """Make the folder.

        Args:
            region: How the names of the server's shared memory begin, which goes with the folder.

        Raises:
            ServerStartError: The folder for temporary files cannot be written.
        """
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self.lock = _lock(self.path, region)
        except OSError as error:
            raise ServerStartError(f"cannot make a temporary folder: {error.strerror or error}") from error
        self._region = region

    def close(self) -> None:
        """Remove the folder and what a killed server left in shared memory."""
        _remove(self.path, self._region)
        os.close(self.lock)


@dataclass(frozen=True)
class Leftover:
    """A folder that no running server uses."""

    path: Path
    region: str

    def memory(self) -> list[Path]:
        """The files of its shared memory."""
        return _regions(self.region)

    def size(self) -> int:
        """Bytes of its files and of its shared memory."""
        files = [*self.path.rglob("*"), *self.memory()]
        return sum(path.lstat().st_size for path in files if path.is_file() and not path.is_symlink())

    def remove(self) -> None:
        """Remove both."""
        _remove(self.path, self.region)


def find_leftovers() -> Iterator[Leftover]:
    """Find the folders of dead servers of this user."""
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        try:
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            handle = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            if _is_old(path) and not _is_mentioned(str(path)):  # as versions without a lock left them
                yield Leftover(path, "")
            continue
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            region = os.read(handle, 100).decode(errors="replace")
        except OSError:
            continue  # somebody holds it
        finally:
            os.close(handle)
        yield Leftover(path, region if _REGION.fullmatch(region) else "")


def find_lost_memory() -> list[Path]:
    """Find shared memory of this user that no process of this machine seems to use.

    It is not removed by itself: a container may share the memory and not be seen from here.
    """
    lost = []
    for path in sorted(_SHARED_MEMORY.glob("latentclr_*")) if _SHARED_MEMORY.is_dir() else []:
        server = _REGION.match(path.name)
        try:
            stat = path.stat()
        except OSError:
            continue
        if stat.st_uid != os.getuid():
            continue
        # A client's is unlinked as soon as the server has it, a server's is named by Triton's and its stubs' arguments.
        if time.time() - stat.st_mtime > _CLIENT_S if server is None else not _is_mentioned(server[0]):
            lost.append(path)
    return lost


def _lock(folder: Path, region: str) -> int:
    new = folder / f"{_LOCK}.new"
    handle = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, region.encode())
        os.rename(new, folder / _LOCK)  # it appears when it is locked
    except BaseException:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return handle


def _remove(path: Path, region: str) -> None:
    for file in _regions(region):
        file.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _regions(region: str) -> list[Path]:
    return list(_SHARED_MEMORY.glob(f"{region}*")) if region and _SHARED_MEMORY.is_dir() else []


def _is_old(path: Path) -> bool:
    try:
        return path.is_dir() and time.time() - path.stat().st_mtime > _NEW_S
    except OSError:
        return False


def _is_mentioned(text: str) -> bool:
    """Whether a process has this among its arguments, as Triton has its backends' folder and its memory's name."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(text) in file.read_bytes():
                return True
        except OSError:
            continue
    return False
