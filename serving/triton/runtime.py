"""The parts of the nvidia-pytriton wheel that make a Triton server, put together in a folder of our own.

The wheel ships a real `tritonserver` and its Python backend. From these and `serving/backends` this module builds

    FOLDER/backends/python/        the wheel's Python backend and its stub for this Python
    FOLDER/backends/onnxruntime/   model.py, which stands in for NVIDIA's C++ backend of that name
    FOLDER/backends/openvino/      the same for OpenVINO
    FOLDER/backends/pytorch/       the same for LibTorch
    FOLDER/lib/                    a link to libpython, which the stub needs and the wheel has not

The folder lies in the cache under a name that says what is in it, and all servers of one installation share it. It is
never deleted or changed, since a server may be using it that was started by hand and that nobody knows of.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serving.contract.layout import ENGINES
from serving.errors import ServerStartError

OWN_BACKENDS = tuple(ENGINES)
_CONTAINER = "NVIDIA's Triton container serves the same model repository"


@dataclass(frozen=True)
class Runtime:
    """A server that can be launched: the program, its backends and caches, and its environment."""

    program: Path
    backends: Path
    caches: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class _Parts:
    """What a runtime folder holds, by relative path: files of the wheel, targets of links, and texts."""

    wheel: Path
    files: Mapping[str, Path]
    links: Mapping[str, str]
    texts: Mapping[str, str]

    def name(self) -> str:
        """Name this content, so that another Python or another wheel gets a folder of its own."""
        stats = {name: [str(path), path.stat().st_size, path.stat().st_mtime_ns] for name, path in self.files.items()}
        return hashlib.sha256(json.dumps([stats, self.links, self.texts], sort_keys=True).encode()).hexdigest()[:16]


def runtimes_folder() -> Path:
    """Where the runtimes lie that servers share: in LATENTCLR_CACHE, or ~/.cache/latentclr."""
    cache = Path(os.environ.get("LATENTCLR_CACHE") or Path.home() / ".cache" / "latentclr").expanduser()
    return cache.absolute() / "triton-runtime"


def shared_runtime(otherwise: Path | None = None) -> Runtime:
    """Find the runtime in the cache; the first time, put it there.

    Args:
        otherwise: A folder to build it in where the cache cannot be written.

    Raises:
        ServerStartError: As `build_runtime`, or the cache cannot be written and there is no other folder.
    """
    parts = _collect()
    folder = runtimes_folder() / parts.name()
    try:
        return _put_together(folder, parts)
    except OSError as error:
        if otherwise is not None:
            return _put_together(otherwise, parts)
        raise ServerStartError(
            f"cannot write Triton's runtime to {folder}: {error.strerror or error}; "
            "set LATENTCLR_CACHE to a folder that can be written"
        ) from error


def build_runtime(folder: Path) -> Runtime:
    """Put a Triton runtime together in a folder that lives as long as its servers.

    Args:
        folder: May hold the same runtime already, which then stays as it is.

    Raises:
        ServerStartError: The platform is not supported, or the wheel or libpython is missing.
    """
    return _put_together(folder, _collect())


def _collect() -> _Parts:
    wheel = find_wheel()
    triton = wheel / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServerStartError(
            f"nvidia-pytriton has no Triton stub for Python {version}; use Python 3.10, 3.11 or 3.12"
        )
    libpython = find_libpython()
    backend = [path for path in (triton / "backends" / "python").iterdir() if path.is_file()]
    files = {f"backends/python/{path.name}": path for path in [*backend, stub]}
    # A link of its own, so that the folder of libpython (often /usr/lib) does not shadow the wheel's libraries.
    links = {f"lib/{libpython.name}": str(libpython)}
    return _Parts(wheel, files, links, {f"backends/{name}/model.py": _backend(name) for name in OWN_BACKENDS})


def _put_together(folder: Path, parts: _Parts) -> Runtime:
    """Write what is missing; each entry appears whole, so that several processes may do this at once."""
    for name in [*parts.files, *parts.links, *parts.texts]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():  # its owner could put any program in
        raise PermissionError(f"{folder} belongs to another user")
    for name, source in parts.files.items():
        path = folder / name
        if not (path.is_file() and path.stat().st_size == source.stat().st_size):
            _place(path, partial(_link_or_copy, source))
    for name, target in parts.links.items():
        path = folder / name
        if not (path.is_symlink() and os.readlink(path) == target):
            _place(path, partial(os.symlink, target))
    for name, text in parts.texts.items():
        path = folder / name
        if not (path.is_file() and path.read_bytes() == text.encode()):
            _place(path, partial(_write, text))
    triton = parts.wheel / "tritonserver"
    environment = _environment([folder / "lib", parts.wheel.parent / "nvidia_pytriton.libs"])
    return Runtime(triton / "bin" / "tritonserver", folder / "backends", triton / "caches", environment)


def _place(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(text: str, target: Path) -> None:
    target.write_bytes(text.encode())


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it; a symbolic link would not do, since Triton refuses what leads outside."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or another owner
        shutil.copy2(source, target)


def find_wheel() -> Path:
    """Find the folder of the nvidia-pytriton package, without importing it (that takes seconds).

    Raises:
        ServerStartError: The platform is not x86-64 Linux, or the wheel is not installed.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        here = f"{platform.system()} {platform.machine()}"
        raise ServerStartError(f"the embedded Triton runs on x86-64 Linux only, this is {here}; {_CONTAINER}")
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "tritonserver").is_dir():
        raise ServerStartError("the embedded Triton is not installed: pip install nvidia-pytriton")
    return Path(spec.origin).parent


def find_libpython() -> Path:
    """Find the shared library of this Python: beside this interpreter first, then on the loader's paths.

    Raises:
        ServerStartError: There is none, as with a statically linked Python.
    """
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    own = [sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib")]
    loader = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    for folder in [*own, *loader]:
        if folder and (Path(folder) / name).is_file():
            return Path(folder) / name
    for line in _loader_cache().splitlines():
        entry, _, path = line.strip().partition(" => ")
        if entry.startswith(name) and Path(path).is_file():
            return Path(path)
    raise ServerStartError(
        f"Triton needs {name}, which this Python lacks: install it (Debian: apt install "
        f"{name.removesuffix('.so.1.0')}) or use a Python built with --enable-shared"
    )


def _loader_cache() -> str:
    program = shutil.which("ldconfig", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if program is None:
        return ""
    return subprocess.run([program, "-p"], capture_output=True, text=True, check=False).stdout


def _environment(libraries: list[Path]) -> dict[str, str]:
    """Let the program find its libraries, and the stub (which embeds Python) this interpreter's standard library."""
    environment = dict(os.environ)
    for name, folders in (("LD_LIBRARY_PATH", libraries), ("PATH", [Path(sys.executable).parent])):
        present = [entry for entry in environment.get(name, "").split(os.pathsep) if entry]
        environment[name] = os.pathsep.join([*map(str, folders), *present])
    return environment


def _backend(name: str) -> str:
    """Return the `model.py` that Triton loads: it finds our packages and hands over to `serving.backends`."""
    # The stub ignores PYTHONPATH, so the search path of this interpreter is written down; not the folder that
    # `python -m` happens to run in, which would make a runtime for each.
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    packages = [
        entry
        for entry in sys.path
        if os.path.isabs(entry) and os.path.isdir(entry) and (entry in named or not os.path.samefile(entry, os.curdir))
    ]
    paths = list(dict.fromkeys([str(Path(__file__).resolve().parents[2]), *packages]))
    return (
        "import sys\n\n"
        f"sys.path.extend(path for path in {paths!r} if path not in sys.path)\n\n"
        f"from serving.backends.{name}.model import TritonPythonModel\n"
    )
