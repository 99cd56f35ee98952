"""The parts of the nvidia-pytriton wheel that make a Triton server, put together in a folder of our own.

The wheel ships a real `tritonserver` and its Python backend. From these and `serving/backends` this module builds

    FOLDER/backends/python/        the wheel's Python backend and the stub for this Python
    FOLDER/backends/onnxruntime/   model.py, which stands in for NVIDIA's C++ backend of that name
    FOLDER/backends/pytorch/       the same for LibTorch
    FOLDER/lib/                    a link to libpython, which the stub needs and the wheel has not
"""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.errors import ServerStartError

OWN_BACKENDS = ("onnxruntime", "pytorch")
_CONTAINER = "NVIDIA's Triton container serves the same model repository"


@dataclass(frozen=True)
class Runtime:
    """A server that can be launched: the program, its backends and caches, and its environment."""

    program: Path
    backends: Path
    caches: Path
    environment: Mapping[str, str]


def build_runtime(folder: Path) -> Runtime:
    """Put a Triton runtime together.

    Args:
        folder: An empty folder that lives as long as the server.

    Raises:
        ServerStartError: The platform is not supported, or the wheel or libpython is missing.
    """
    wheel = find_wheel()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServerStartError(
            f"nvidia-pytriton has no Triton stub for Python {version}; use Python 3.10, 3.11 or 3.12"
        )
    libpython = find_libpython()
    backends = folder / "backends"
    shutil.copytree(wheel / "tritonserver" / "backends" / "python", backends / "python")
    shutil.copy2(stub, backends / "python")
    for name in OWN_BACKENDS:
        _write_backend(backends / name, name)
    libraries = folder / "lib"
    libraries.mkdir()
    # A link of its own, so that the folder of libpython (often /usr/lib) does not shadow the wheel's libraries.
    (libraries / libpython.name).symlink_to(libpython)
    environment = _environment([libraries, wheel.parent / "nvidia_pytriton.libs"])
    triton = wheel / "tritonserver"
    return Runtime(triton / "bin" / "tritonserver", backends, triton / "caches", environment)


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


def _write_backend(folder: Path, name: str) -> None:
    """Write the `model.py` that Triton loads: it finds our packages and hands over to `serving.backends`."""
    folder.mkdir()
    # The stub ignores PYTHONPATH, so the search path of this interpreter is written down.
    packages = [entry for entry in sys.path if os.path.isabs(entry) and os.path.isdir(entry)]
    paths = list(dict.fromkeys([str(Path(__file__).resolve().parents[1]), *packages]))
    text = (
        "import sys\n\n"
        f"sys.path.extend(path for path in {paths!r} if path not in sys.path)\n\n"
        f"from serving.backends.{name}.model import TritonPythonModel\n"
    )
    (folder / "model.py").write_text(text)
