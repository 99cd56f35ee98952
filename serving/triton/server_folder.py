"""The temporary folder of an embedded server, and those of servers that were killed with the process that owned them.

Triton inherits the folder's lock (`serving.contract.temporary`) and may outlive the process that started it.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.contract.temporary import dead_folders, is_mentioned, make_folder
from serving.errors import ServerStartError

_SHARED_MEMORY = Path("/dev/shm")
_REGION = re.compile(r"latentclr_[0-9a-f]{12}_")
_CLIENT_S = 3600


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
            self.path, self.lock = make_folder("triton", region)
        except OSError as error:
            raise ServerStartError(f"cannot make a temporary folder: {error.strerror or error}") from error
        self._region = region

    def close(self) -> None:
        """Remove the folder and what a killed server left in shared memory."""
        _remove(self.path, self._region)
        os.close(self.lock)


@dataclass(frozen=True)
class Leftover:
    """A folder that no running process uses."""

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
    """Find the folders of dead servers, exports and doctors of this user."""
    for path, region in dead_folders(("doctor", "export", "triton")):
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
        if time.time() - stat.st_mtime > _CLIENT_S if server is None else not is_mentioned(server[0]):
            lost.append(path)
    return lost


def _remove(path: Path, region: str) -> None:
    for file in _regions(region):
        file.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _regions(region: str) -> list[Path]:
    return list(_SHARED_MEMORY.glob(f"{region}*")) if region and _SHARED_MEMORY.is_dir() else []
