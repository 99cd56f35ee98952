"""`--engine auto`: times, certificates in order of speed, and one engine in the end."""

from __future__ import annotations

import importlib.util
import re
import time
from pathlib import Path

import numpy as np
import pytest

import export.fastest
from export.engines import Graphs
from export.errors import ExportError
from export.fastest import candidates, fastest, fastest_of
from export.options import TritonOptions

REQUEST = (np.zeros((1, 6), np.float32),)


def slow(seconds: float):
    def run(*inputs):
        time.sleep(seconds)
        return np.zeros((1, 8, 8, 3), np.uint8), np.ones(1, np.bool_)

    return run


def graphs(folder: Path = Path("x"), **seconds: float) -> Graphs:
    files = {"onnxruntime": "model.onnx", "openvino": "model.xml", "torchscript": "model.pt"}
    backends = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torchscript": "pytorch"}
    return Graphs(
        {backends[name]: folder / files[name] for name in seconds},
        [folder / "generator.bin", folder / "model.bin"],
        {name: slow(value) for name, value in seconds.items()},
    )


def test_the_fastest_that_holds():
    said, asked = [], []

    def certify(name, engine):
        asked.append(name)
        if name == "onnxruntime":
            raise ExportError("parity failed")
        return [name]

    made, certificates = fastest(graphs(torchscript=0.03, onnxruntime=0.001, openvino=0.01), REQUEST, certify,
                                 said.append, 0.1)  # fmt: skip
    assert asked == ["onnxruntime", "openvino"]
    assert certificates == ["openvino"]
    assert (made.files, made.weights) == ({"openvino": Path("x/model.xml")}, [Path("x/model.bin")])
    assert re.search(r"\(medians of 0.1 s\): onnxruntime \S+ ms, openvino \S+ ms, torchscript \S+ ms$", said[0])
    assert said[1:] == ["onnxruntime is not taken: parity failed", "openvino it is"]


def test_none_holds():
    def certify(name, engine):
        raise ExportError("parity failed")

    with pytest.raises(ExportError, match="no engine holds its quality, nothing is published; tried onnxruntime"):
        fastest(graphs(onnxruntime=0.001), REQUEST, certify, lambda line: None, 0.01)


def test_in_reduced_precision_those_that_hold_are_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(export.fastest, "SECONDS", 0.1)
    said = []

    def make(names, folder):
        assert folder.is_dir()
        if names == ["torchscript"]:
            raise ExportError("it misses certified")
        return graphs(folder, **{names[0]: 0.02 if names == ["onnxruntime"] else 0.001}), names

    made, certificates = fastest_of(["onnxruntime", "openvino", "torchscript"], make, REQUEST, tmp_path, said.append)
    assert certificates == ["openvino"]
    assert made.files == {"openvino": tmp_path / "auto_openvino" / "model.xml"}
    assert "torchscript is not taken: it misses certified" in said


CPU = TritonOptions()


def test_who_takes_part(monkeypatch):
    everything = ("onnxruntime", "openvino", "torchscript")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert candidates(["auto"], CPU, "fp32") == everything
    assert candidates(["auto"], CPU, "int8") == ("onnxruntime", "openvino")
    assert candidates(["auto"], CPU, "bf16") == ("openvino",)
    assert candidates(["auto"], CPU, "fp32", "int8") == ("onnxruntime", "openvino")  # a preview's precision
    assert candidates(["auto"], TritonOptions(target="gpu"), "fp32") == ("onnxruntime", "torchscript")
    assert candidates(["auto"], TritonOptions(cuda={"use_tf32": "0"}), "fp32") == ("onnxruntime",)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else name)
    assert candidates(["auto"], CPU, "fp32") == ("onnxruntime", "torchscript")
    with pytest.raises(ExportError, match="no engine that is installed here has bf16"):
        candidates(["auto"], CPU, "bf16", "bf16")
    with pytest.raises(ExportError, match="auto chooses one engine by itself, got auto, openvino"):
        candidates(["auto", "openvino"], CPU, "fp32")


def test_from_the_command_line(trained, tmp_path, invoke, monkeypatch):
    monkeypatch.setattr(export.fastest, "SECONDS", 0.2)
    result = invoke("export", trained, "--engine", "auto", "--repository", tmp_path / "repository", "--name", "edit")
    assert result.exit_code == 0, result.output
    taken = re.findall(r"^(\w+) it is$", result.stdout, re.M)
    assert len(taken) == 1
    assert re.search(rf"on this machine \(medians of 0.2 s\): {taken[0]} \S+ ms, ", result.stdout)
    assert [path.name for path in (tmp_path / "repository").iterdir() if path.is_dir()] == ["edit"]
    main = {"onnxruntime": "model.onnx", "openvino": "model.xml", "torchscript": "model.pt"}[taken[0]]
    assert (tmp_path / "repository" / "edit" / "1" / main).is_file()


def test_twins_are_asked_for_before_the_work(trained, tmp_path, invoke, refused):
    """Whichever engine it will be takes the name itself."""
    words = ("export", trained, "--repository", tmp_path / "repository", "--name", "edit")
    assert invoke(*words).exit_code == 0
    line = refused(invoke(*words, "--engine", "auto"))
    assert "also holds edit_torchscript, which would go on serving the older version" in line
