"""One file from a web server to the disk: resumed where it broke off, whole and checked before it gets its name."""

from __future__ import annotations

import contextlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from latentclr.errors import GeneratorError, SaveError
from latentclr.files import sha256_of

ATTEMPTS = 4  # connections to one file, as long as each brings something
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 18


class Unreachable(GeneratorError):
    """The server does not answer, or does not have the file."""


class _BrokenOff(Exception):
    """The connection ended early; what came is on the disk."""


def transfer(url: str, target: Path, expected: str | None = None) -> None:
    """Download a file.

    It is written to `target` + `.part`, which a later call goes on with if the server can (HTTP Range) and the file
    there is still the same (ETag or Last-Modified), and starts over otherwise.

    Args:
        url: http or https.
        target: Its final place, which it gets by a rename.
        expected: Its SHA-256, None if not known yet.

    Raises:
        Unreachable: The server does not answer, or does not have it.
        GeneratorError: It broke off, or has another hash (it is deleted then).
        SaveError: The disk is full or the folder cannot be written.
    """
    if not url.startswith(("https://", "http://")):
        raise GeneratorError(f"can only download over http and https, got {url}")
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if target.is_file():  # another process was faster
                return
            _download(url, part)
            if is_page(part):  # a login or a consent that stands before the file
                _forget(part)
                raise Unreachable(f"{url}: the server sent a web page instead of the file: open it in a browser")
            digest = sha256_of(part)
            if expected is not None and digest != expected:
                _forget(part)
                raise GeneratorError(f"{url}: wrong checksum: expected SHA-256 {expected}, got {digest}; deleted")
            _validator_file(part).unlink(missing_ok=True)  # nobody looks for it once the file has its name
            os.replace(part, target)
    except OSError as error:
        raise SaveError(f"could not write {target}: {error.strerror or error}") from error


def _download(url: str, part: Path) -> None:
    for attempt in range(ATTEMPTS):
        before = _size(part)
        try:
            _connect(url, part)
            return
        except _BrokenOff as error:
            came = _size(part)
            if attempt + 1 == ATTEMPTS or came <= before:
                kept = f"; {came} bytes are kept, run it again to go on" if came else ""
                raise GeneratorError(f"{url}: the download broke off: {error}{kept}") from None


def _connect(url: str, part: Path) -> None:
    # One connection: the rest of the file, or all of it if the server cannot give the rest.
    start, validator = _size(part), _validator_file(part)
    headers = {"User-Agent": "latentclr", "Accept-Encoding": "identity"}
    if start and validator.is_file():
        headers |= {"Range": f"bytes={start}-", "If-Range": validator.read_text(encoding="latin-1")}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # the server's file is no longer than the part: start over, without a range
            _forget(part)
            return _connect(url, part)
        raise Unreachable(f"{url}: the server answered {error.code} {error.reason}") from None
    except (http.client.HTTPException, OSError) as error:
        raise Unreachable(f"{url} cannot be reached: {getattr(error, 'reason', error) or error!r}") from None
    with response:
        if response.status == 206 and _range_start(response) != start:
            raise GeneratorError(f"{url}: asked for bytes from {start}, got {response.headers['Content-Range']}")
        start = start if response.status == 206 else 0
        length = response.headers["Content-Length"]
        total = start + int(length) if length and length.isdigit() else None
        known = response.headers["ETag"] or response.headers["Last-Modified"]
        weak = not known or known.startswith("W/")
        if start == 0 and not weak:
            validator.write_text(known, encoding="latin-1")
        elif start == 0:
            validator.unlink(missing_ok=True)
        with open(part, "ab" if start else "wb") as file:
            _copy(response, file, start, total, url.rsplit("/", 1)[-1])
            os.fsync(file.fileno())  # a rename must never be older than the bytes it names
    if total is not None and _size(part) != total:
        raise _BrokenOff(f"expected {total} bytes, got {_size(part)}")


def _copy(response: http.client.HTTPResponse, file: BinaryIO, start: int, total: int | None, label: str) -> None:
    from tqdm import tqdm  # listing what is cached does without

    with tqdm(desc=label, initial=start, total=total, unit="B", unit_scale=True, disable=None) as progress:
        while True:
            try:
                block = response.read1(BLOCK)
            except (http.client.HTTPException, OSError) as error:
                raise _BrokenOff(str(error) or type(error).__name__) from None
            if not block:
                return
            file.write(block)
            progress.update(len(block))


def is_page(path: Path) -> bool:
    """Return whether a file is a web page."""
    with open(path, "rb") as file:
        return file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html"))


def _range_start(response: http.client.HTTPResponse) -> int | None:
    unit, _, span = (response.headers["Content-Range"] or "").partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    # Processes started together (torchrun) must not write one file at once; the second finds it done.
    try:
        import fcntl
    except ImportError:  # Windows: there, the last rename wins
        yield
        return
    with open(target.with_name(f".{target.name}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
