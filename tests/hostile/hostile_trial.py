"""One try: a hostile file before the command that reads it, in a process of its own that is measured and bounded.

The command is the console script's own entry point. What counts as a fault stands in `judge`.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

SECRET = "the-secret-d41c0a77"
"""What $SECRET holds in a try; it must come out nowhere."""
MOST_CPU_S, MOST_MIB = 10.0, 2048.0
_HANG_S = 120.0  # on a machine that does many other things besides
_ROOM = 4 << 30  # bytes beyond what the process has already: what protects the machine, not what is judged
_LONGEST_LINE = 2000
_PRECIOUS = "precious.txt"
# What a training that has begun says before it fails: its log, and its progress bar.
_BEGUN = re.compile(r"^\d\d:\d\d:\d\d |^\s*\d+%\|")


@dataclass(frozen=True)
class Trial:
    """A hostile file and the command that reads it.

    Attributes:
        format: Of the file, such as `.pt`.
        name: What is hostile about it.
        words: The command line, run in the folder where the file is.
        write: Writes the file, and what must lie beside it, into a folder.
        may_pass: Whether the file may turn out harmless, so that the command does its work (exit code 0).
        codes: Exit codes besides these that the command has for a file that it refuses.
    """

    format: str
    name: str
    words: tuple[str, ...]
    write: Callable[[Path, Random], object]
    may_pass: bool = False
    codes: tuple[int, ...] = (2,)


@dataclass
class Outcome:
    """What came of a try; `faults` should be empty."""

    format: str
    name: str
    command: str
    code: int = 0
    said: str = ""
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    faults: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


def attempt(trial: Trial, seed: int, scratch: Path) -> Outcome:
    """Write the file, run the command, judge what it did; nothing of it stays."""
    folder = scratch / f"try-{os.getpid()}"
    folder.mkdir()
    place = folder / "here"
    place.mkdir()
    outcome = Outcome(trial.format, trial.name, " ".join(word for word in trial.words[:2] if "=" not in word))
    try:
        (place / _PRECIOUS).write_text("precious")
        trial.write(place, Random(f"{seed} {trial.name}"))
        before = listing(place)
        pid = os.fork()
        if not pid:
            _child(trial.words, folder, place)
        status, usage = _wait(pid)
        outcome.code = os.waitstatus_to_exitcode(status)
        outcome.cpu_s = round(usage.ru_utime + usage.ru_stime, 2)
        outcome.peak_mib = round(usage.ru_maxrss / 1024, 1)
        judge(trial, outcome, folder, before)
    except Exception as error:  # of the corpus itself
        outcome.faults.append(f"the try failed: {type(error).__name__}: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def judge(trial: Trial, outcome: Outcome, folder: Path, before: set[str]) -> None:
    """Say what was wrong."""
    place, faults = folder / "here", outcome.faults
    stderr = (folder / "err").read_text(errors="replace")
    lines = [line for line in stderr.splitlines() if line.strip()]
    outcome.said = lines[-1][:300] if lines else ""
    allowed = (*trial.codes, 0) if trial.may_pass else trial.codes
    if outcome.code not in allowed:
        faults.append(f"exit code {outcome.code}, expected {' or '.join(map(str, allowed))}")
    if "Traceback (most recent call last)" in stderr:
        faults.append("a stack trace")
    if outcome.code == 2:
        told = [line for line in lines if not (trial.may_pass and _BEGUN.search(line))]
        if len(told) != 1 or not told[0].startswith("Error: "):
            faults.append(f"{len(told)} lines on standard error, expected one that begins with Error:")
        if len(stderr) > _LONGEST_LINE:
            faults.append(f"a message of {len(stderr)} characters")
        if left := sorted(listing(place) - before):
            faults.append(f"left behind: {left[:3]}")
    if "not enough memory" in stderr or "MemoryError" in stderr:
        faults.append("it ran out of memory, which a bound should have prevented")
    if (folder / "canary").exists():
        faults.append("it executed the file")
    if _leaks(folder):
        faults.append("it gave the secret away")
    precious = place / _PRECIOUS
    if not precious.is_file() or precious.read_text() != "precious":
        faults.append("it changed a file that is none of its business")
    if outcome.cpu_s > MOST_CPU_S:
        faults.append(f"{outcome.cpu_s} s of CPU")
    if outcome.peak_mib > MOST_MIB:
        faults.append(f"{outcome.peak_mib} MiB")


def listing(folder: Path) -> set[str]:
    """Return what lies in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _leaks(folder: Path) -> bool:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and SECRET.encode() in path.read_bytes():
            return True
    return False


def _child(words: tuple[str, ...], folder: Path, place: Path) -> None:
    """Be `latentclr WORDS`; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(place)
        os.environ |= {"SECRET": SECRET, "CANARY": str(folder / "canary"), "COLUMNS": "200"}
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o666), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + _ROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from latentclr.cli import main

        sys.argv = ["latentclr", *words]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(pid: int) -> tuple[int, resource.struct_rusage]:
    end = time.monotonic() + _HANG_S
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # whatever the command started
            return status, usage
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.005)
