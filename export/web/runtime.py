"""ONNX Runtime Web, which runs the graph in a browser: one version, got once with npm, each file known by its hash.

    python -m export.web.runtime    # gets it, or says where it is

It lies in the cache folder (LATENTCLR_CACHE, default ~/.cache/latentclr), so a copied cache folder works offline. No
code of the package runs here. The WebAssembly files are kept under gzip, as a page has them: a quarter of the bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from latentclr.errors import LatentCLRError
from latentclr.generators.weights.cache import cache_folder

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
NPM = ("install", "--ignore-scripts", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
PACKED = ".bin"
"""Ends the name of a file under gzip: servers do something of their own with .gz and .wasm."""
_PATIENCE_S = 900
_LARGEST = 64 << 20
# Of the package's folder `dist`: the SHA-256 of each file as it is published.
HASHES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}


@dataclass(frozen=True)
class Variant:
    """The files of one way to run a graph: what a page imports, what that imports, the WebAssembly and its size."""

    script: str
    module: str
    binary: str
    unpacked: int

    @property
    def files(self) -> tuple[str, ...]:
        """All of them."""
        return self.script, self.module, self.binary


_PLAIN, _GPU = "ort-wasm-simd-threaded", "ort-wasm-simd-threaded.asyncify"
VARIANTS = {
    "wasm": Variant("ort.wasm.min.mjs", f"{_PLAIN}.mjs", f"{_PLAIN}{PACKED}", 14_239_897),
    "webgpu": Variant("ort.webgpu.min.mjs", f"{_GPU}.mjs", f"{_GPU}{PACKED}", 26_781_914),
}


def runtime_folder() -> Path:
    """Return where the runtime lies in the cache, whether it is there or not."""
    return cache_folder() / f"{PACKAGE}-{VERSION}"


def runtime_files(say: Callable[[str], None] = lambda line: None) -> dict[str, bytes]:
    """Return the runtime's files by name, as a page has them; got with npm if the cache has none.

    Args:
        say: Is told that npm is asked.

    Raises:
        ExportError: They cannot be had, or are not the pinned ones.
    """
    folder = runtime_folder()
    if not folder.is_dir():
        say(f"getting {PACKAGE} {VERSION} (MIT) with npm, once, into {folder}")
        _install(folder)
    return {kept_name(name): _read(folder / kept_name(name), digest) for name, digest in HASHES.items()}


def kept_name(name: str) -> str:
    """Return what a file of the package is called in the cache and in a page."""
    return name.removesuffix(".wasm") + PACKED if name.endswith(".wasm") else name


def gzipped(data: bytes) -> bytes:
    """Return bytes under gzip, the same for the same bytes, as a browser unpacks them."""
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(data) + packer.flush()


def _read(path: Path, digest: str) -> bytes:
    """Read a file of the cache, if it is the pinned one."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        whole = zlib.decompressobj(wbits=31).decompress(data, _LARGEST) if path.suffix == PACKED else data
    except (OSError, zlib.error):
        whole = b""
    if hashlib.sha256(whole).hexdigest() != digest:
        raise ExportError(f"{path} is not the file of {PACKAGE} {VERSION}: remove {path.parent}, and it is got again")
    return data


def _install(folder: Path) -> None:
    """Let npm put the package into a folder beside, and keep the files that a page wants; whole or not at all."""
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(
            f"a page needs {PACKAGE} {VERSION}, which npm gets, and there is no npm here: install it (apt-get install"
            f" npm), or copy {folder} from a machine that has it"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".tmp-{folder.name}-", dir=folder.parent) as name:
            place = Path(name)
            words = [npm, *NPM, "--prefix", str(place), "--cache", str(place / "npm"), f"{PACKAGE}@{VERSION}"]
            done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
            if done.returncode:
                lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
                raise ExportError(f"npm could not get {PACKAGE} {VERSION}: {' '.join(lines[:2])[:300]}")
            kept = place / "kept"
            kept.mkdir()
            for file, digest in HASHES.items():
                data = (place / "node_modules" / PACKAGE / "dist" / file).read_bytes()
                if hashlib.sha256(data).hexdigest() != digest:
                    raise ExportError(f"npm brought another {file} than that of {PACKAGE} {VERSION}; nothing is kept")
                (kept / kept_name(file)).write_bytes(gzipped(data) if file.endswith(".wasm") else data)
            if not folder.is_dir():  # another process may have been faster
                os.rename(kept, folder)
    except subprocess.TimeoutExpired:
        raise ExportError(f"npm did not get {PACKAGE} {VERSION} in {_PATIENCE_S} s") from None
    except OSError as error:
        raise ExportError(f"could not keep {PACKAGE} in {folder.parent}: {error.strerror or error}") from error


if __name__ == "__main__":
    try:
        runtime_files(print)
    except LatentCLRError as error:
        sys.exit(f"Error: {error}")
    print(runtime_folder())
