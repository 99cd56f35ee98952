"""`--engine auto`: the engine that is fastest on this machine, of those whose graph holds its quality."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from export.engines import BACKENDS, Graphs
from export.errors import ExportError
from export.options import TritonOptions
from export.parity import Arrays, Engine
from export.reduced import REFUSED
from serving.contract.certificate import Certificate
from serving.contract.layout import ENGINES

AUTO = "auto"
SECONDS = 10.0  # of all engines together
_PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torchscript": "torch"}
Certify = Callable[[str, Engine], list[Certificate]]
Make = Callable[[Sequence[str], Path], tuple[Graphs, list[Certificate]]]


def candidates(engines: Sequence[str], options: TritonOptions, *precisions: str) -> tuple[str, ...]:
    """Return the engines that are installed here, have all these precisions and can be served so.

    OpenVINO serves on CPUs, and the options of TensorRT and CUDA are ONNX Runtime's.

    Raises:
        ExportError: Engines are named beside `auto`, or there is none.
    """
    if list(engines) != [AUTO]:
        raise ExportError(f"{AUTO} chooses one engine by itself, got {', '.join(engines)}")
    found = tuple(
        name
        for name, package in _PACKAGES.items()
        if importlib.util.find_spec(package) is not None
        and not any(of != "fp32" and {name, (name, of)} & {*REFUSED} for of in precisions)
        and not (name == "openvino" and options.target == "gpu")
        and (name == "onnxruntime" or not (options.tensorrt or options.cuda))
    )
    if not found:
        what = " and ".join(dict.fromkeys(precisions))
        raise ExportError(f"no engine that is installed here has {what} for target {options.target}")
    return found


def fastest_of(
    engines: Sequence[str], make: Make, request: Arrays, folder: Path, say: Callable[[str], None]
) -> tuple[Graphs, list[Certificate]]:
    """Make and certify the graph of each engine, and time those that hold.

    Args:
        engines: Their names.
        make: Returns graphs and certificates of engines, in a folder; raises `ExportError` if one misses the gate.
        request: One request of one picture.
        folder: Where to write.
        say: Receives the times, and why an engine is not taken.

    Raises:
        ExportError: None holds.
    """
    joined, known = Graphs(), {}
    for name in engines:
        place = folder / f"auto_{name}"
        place.mkdir()
        try:
            made, known[name] = make([name], place)
        except ExportError as error:
            say(f"{name} is not taken: {error}")
            continue
        joined.files |= made.files
        joined.weights += made.weights
        joined.engines |= made.engines
    if not joined.engines:
        raise ExportError(f"no engine holds its quality, nothing is published; tried {', '.join(engines)}")
    return fastest(joined, request, lambda name, _: known[name], say)


def fastest(
    made: Graphs, request: Arrays, certify: Certify, say: Callable[[str], None], seconds: float | None = None
) -> tuple[Graphs, list[Certificate]]:
    """Time all engines, then certify them in order of speed until one holds.

    Args:
        made: The graphs, each for an engine.
        request: One request of one picture.
        certify: Returns the certificates of an engine by name; raises `ExportError` if it misses the gate.
        say: Receives the times, and why a faster engine is not taken.
        seconds: To time for, of all engines together; None for `SECONDS`.

    Returns:
        The graph of one engine, and its certificates.

    Raises:
        ExportError: None holds.
    """
    seconds = SECONDS if seconds is None else seconds
    times = time_engines(made.engines, request, seconds)
    order = sorted(times, key=lambda name: times[name])
    told = ", ".join(f"{name} {1e3 * times[name]:.2f} ms" for name in order)
    say(f"a picture takes, on this machine (medians of {seconds:g} s): {told}")
    for name in order:
        try:
            certificates = certify(name, made.engines[name])
        except ExportError as error:
            say(f"{name} is not taken: {error}")
            continue
        say(f"{name} it is")
        return only(made, name), certificates
    raise ExportError(f"no engine holds its quality, nothing is published; tried {', '.join(order)}")


def time_engines(engines: Mapping[str, Engine], request: Arrays, seconds: float) -> dict[str, float]:
    """Return the median seconds of each engine; all take turns, so that they have the same neighbours."""
    for engine in engines.values():
        engine(*request)  # warms up
    taken: dict[str, list[float]] = {name: [] for name in engines}
    end = time.monotonic() + seconds
    while time.monotonic() < end or not all(taken.values()):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(*request)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def only(made: Graphs, name: str) -> Graphs:
    """Return the graph of one engine, with its weights."""
    backend = BACKENDS[name]
    path = made.files[backend]
    weights = [file for file in made.weights if file.parent == path.parent and file.name == ENGINES[backend].weights]
    return Graphs({backend: path}, weights, {name: made.engines[name]})
