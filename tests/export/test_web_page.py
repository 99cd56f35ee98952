"""`latentclr export --target web` without a browser: small graphs, what is refused, files whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result
from onnx import TensorProto, helper, numpy_helper
from tiny_generators import LayeredGenerator

from export.editor import FusedEditor
from export.errors import ExportError
from export.parity import run_eager
from export.web import page, pipeline, runtime, smallest
from export.web.markup import POLICY, page_html
from export.web.memory import MOST_BYTES, browser_bytes, check_browser
from export.web.page import check_folder, visitor_bytes, write_page
from export.web.runtime import HASHES, gzipped, kept_name, runtime_files, runtime_folder
from export.web.smallest import smallest_graph
from export.web.weights import halves, stored
from latentclr.config import StyleGAN2Config
from latentclr.errors import SaveError
from latentclr.generators.registry import build_generator
from latentclr.method.directions import build_directions
from serving.contract.certificate import GATES, Gate
from serving.contract.manifest import parse_manifest

Invoke = Callable[..., Result]
ROOT = Path(__file__).parents[2]
STUDIO, OWN = ROOT / "serving/studio/static", ROOT / "export/web/static"
needs_runtime = pytest.mark.skipif(
    not runtime_folder().is_dir(), reason="pages need ONNX Runtime Web: `python -m export.web.runtime` gets it"
)


def tiny_editor() -> FusedEditor:
    return FusedEditor(LayeredGenerator(), build_directions("global", 3, 6, torch.Generator().manual_seed(0)))


def nearest_with(value: float, bits: int) -> float:
    """The number with so many bits of fraction that is nearest, by its definition."""
    mantissa, power = np.frexp(value)
    return float(np.rint(mantissa * 2.0 ** (bits + 1)) * 2.0 ** (float(power) - bits - 1))


@pytest.mark.parametrize("bits", [4, 7, 10])
@pytest.mark.parametrize("size", [1.0, 1e-6, 1e5])
def test_weights_keep_so_many_bits(bits: int, size: float) -> None:
    values = (size * np.random.RandomState(0).randn(2000)).astype(np.float32)
    values[:3] = [0.0, values.max(), -1e-9 * size]
    half, scale = halves(values, bits)
    assert (scale == 1) == (size == 1.0 and not (np.abs(values[values != 0]) < 2.0**-14).any())
    assert np.log2(scale) == int(np.log2(scale))
    got = half.astype(np.float64) * scale
    normal = np.abs(values) > scale * 2.0**-14  # below that float16 itself has fewer bits
    wanted = np.array([nearest_with(float(value), bits) for value in values])
    assert np.array_equal(got[normal], wanted[normal])
    assert np.abs(got - values)[~normal].max(initial=0) <= scale * 2.0 ** -(14 + bits)


def test_a_graph_of_stored_weights_computes_in_float32(tmp_path: Path) -> None:
    weights = np.random.RandomState(0).randn(40, 40).astype(np.float32) * 1e-7
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 40])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(weights[0], "small")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    new = stored(model, 8)
    onnx.checker.check_model(new)
    assert [node.op_type for node in new.graph.node] == ["Cast", "Mul", "MatMul"]
    kinds = {tensor.name: tensor.data_type for tensor in new.graph.initializer}
    assert kinds == {"w_stored": TensorProto.FLOAT16, "small": TensorProto.FLOAT, "w_scale": TensorProto.FLOAT}
    assert stored(model, None) == model
    (single,) = (numpy_helper.to_array(tensor) for tensor in stored(model, 14).graph.initializer if tensor.name == "w")
    assert single.tolist() == [[nearest_with(float(value), 14) for value in row] for row in weights]
    half, scale = halves(weights, 8)
    onnx.save(new, str(tmp_path / "g.onnx"))
    from onnxruntime import InferenceSession

    x = np.eye(40, dtype=np.float32)
    (got,) = InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert np.array_equal(got, half.astype(np.float32) * np.float32(scale))


def test_the_fewest_bits_that_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("export.web.weights.STORED", 16)
    editor, made = tiny_editor(), {}
    for name, gate in (
        ("loose", Gate("loose", psnr_db=30)),
        ("exact", GATES["exact"]),
    ):
        (tmp_path / name).mkdir()
        made[name] = smallest_graph(editor, gate, tmp_path / name, alphas=(-2.0, 1.0), opset=18)
        assert made[name].certificate.passed and made[name].certificate.images > 200
    bits = [int((re.search(r"of (\d+) bits", one.weights) or [0, 10])[1]) for one in made.values()]
    assert bits == sorted(bits) and bits[0] < 8
    sizes = [len(one.packed) for one in made.values()]
    assert sizes == sorted(sizes)
    assert zlib.decompress(made["exact"].packed, 31) == made["exact"].path.read_bytes()
    inputs = [tensor.numpy() for tensor in editor.example_inputs(2, 2)]
    assert np.abs(made["exact"].engine(*inputs)[0].astype(int) - run_eager(editor, *inputs)[0]).max() <= 1


def test_weights_that_miss_the_quality_are_told(tmp_path: Path) -> None:
    editor, said = tiny_editor(), []
    gate = GATES["certified"]
    with pytest.raises(ExportError, match=r"^weights in fp32 miss certified: .*; nothing is written$"):
        editor.forward = _noisy(editor.forward)  # type: ignore[method-assign]
        smallest_graph(editor, gate, tmp_path, alphas=(-2.0, 1.0), opset=18, say=said.append)
    assert [line.partition(" miss ")[0] for line in said] == ["weights in fp16", "weights in fp32 of 14 bits"]
    with pytest.raises(ExportError, match="precision is that of the stored weights, fp32 or fp16, got int8"):
        smallest_graph(editor, gate, tmp_path, alphas=(1.0,), precision="int8", opset=18)


def _noisy(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Draw something else outside of torch.export than in it."""

    def noisy(*inputs: torch.Tensor) -> Any:
        image, valid = forward(*inputs)
        other = torch.where(valid[:, None, None, None], 255 - image, image)
        return (image if torch.compiler.is_compiling() else other), valid

    return noisy


def test_what_a_browser_cannot_hold_is_refused() -> None:
    needed = browser_bytes(tiny_editor())
    assert 128 << 20 < needed < 512 << 20
    check_browser(needed)
    with pytest.raises(ExportError) as told:
        check_browser(int(3.2 * 2**30))
    assert str(told.value) == (
        "a browser cannot hold this model: it would take about 3.2 GiB, and a tab has 2.0 GiB; publish it for a server,"
        " with --target cpu or gpu"
    )
    assert MOST_BYTES == 2 << 30


def test_a_model_that_is_too_large_is_one_line_and_no_file(
    trained: Path, tmp_path: Path, invoke: Invoke, refused: Callable[[Result], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "browser_bytes", lambda editor: 3 << 30)
    line = refused(invoke("export", trained, "--target", "web", "-o", tmp_path / "page"))
    assert line.startswith("Error: a browser cannot hold this model: it would take about 3.0 GiB")
    assert not list(tmp_path.iterdir())


@pytest.mark.full  # 1024 pixels are drawn once
def test_the_largest_networks_are_too_large() -> None:
    generator = build_generator(StyleGAN2Config(weights="random:1024"))
    editor = FusedEditor(generator, build_directions("global", 2, 512, torch.Generator().manual_seed(0)))
    with pytest.raises(ExportError, match="a browser cannot hold this model"):
        check_browser(browser_bytes(editor))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--target", "web", "--engine", "openvino"], "--target web writes a page, which has no --engine"),
        (["--target", "web", "--repository", "x"], "--target web writes a page, which has no --repository"),
        (["--target", "web", "--latent-input", "w"], "--target web writes a page, which has no --latent-input"),
        (["--target", "web", "--preview", "8"], "--target web writes a page, which has no --preview"),
        (["--target", "web", "--max-batch-size", "16"], "--target web writes a page, which has no --max-batch-size"),
        (["-o", "x"], "only --target web has --output"),
        (["--target", "cpu", "--title", "x"], "only --target web has --title"),
        (["--target", "web", "--quality", "fine"], "quality must be exact, certified or numbers"),
        (["--target", "web", "--precision", "bf16"], "precision is that of the stored weights, fp32 or fp16, got bf16"),
    ],
)
def test_options_that_mean_nothing_here(
    trained: Path, tmp_path: Path, invoke: Invoke, words: list[str], told: str
) -> None:
    folder = tmp_path / "page"
    result = invoke("export", trained, *words, *(["-o", folder] if "web" in words else []))
    assert result.exit_code == 2
    assert told in result.stderr and result.stderr.splitlines()[-1].startswith("Error: ")
    assert not folder.exists()


def test_a_folder_of_something_else_is_left_alone(
    trained: Path, tmp_path: Path, invoke: Invoke, refused: Callable[[Result], str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    line = refused(invoke("export", trained, "--target", "web", "-o", tmp_path))
    assert line == f"Error: {tmp_path} holds thesis.tex, which is of no page: take another folder with --output"
    line = refused(invoke("export", trained, "--target", "web", "-o", tmp_path / "thesis.tex"))
    assert line == f"Error: {tmp_path / 'thesis.tex'} must be a folder for the page, or not there yet"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "page"
    files = b'{"files": ["page.json", "onnxruntime/x.mjs", "gone.js"]}'
    old, new = ({"page.json": text + files, "onnxruntime/x.mjs": text} for text in (b"", b" "))
    write_page(folder, {**old, "gone.js": b""})
    write_page(folder, new)
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == new
    calls = 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(page.os, "fsync", full)
        with pytest.raises(SaveError, match="No space left on device"):
            write_page(folder, old)
    rename = os.rename

    def stuck(source: Path, target: Path) -> None:
        if (
            target == folder
            and ".tmp-" in str(source)
            and not (Path(source) / "page.json").read_bytes() == new["page.json"]
        ):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(page.os, "rename", stuck)
    with pytest.raises(SaveError, match="Input/output error"):
        write_page(folder, old)
    assert (folder / "page.json").read_bytes() == new["page.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    check_folder(folder)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("years")
    with pytest.raises(ExportError, match=r"holds \.git/HEAD, which is of no page: take another folder"):
        write_page(folder, new)
    assert (folder / ".git" / "HEAD").read_text() == "years"


@needs_runtime
def test_the_page_as_files(trained: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LARGEST_FILE", 4000)  # a large graph lies in several files
    folder = tmp_path / "site" / "page"
    words = ("--name", "mine", "--title", "<b>", "--precision", "fp16")
    result = invoke("export", trained, "--target", "web", "-o", folder, *words)
    assert result.exit_code == 0, result.stderr
    lines = result.output.splitlines()
    sizes = next(number for number, line in enumerate(lines) if line.startswith("a visitor loads"))
    assert re.match(r"writing \d+ files, [\d.]+ MiB", lines[sizes + 2])  # told before it is written
    assert lines[-2:] == [f"wrote {folder}", f"look at it: python -m http.server --directory {folder}"]
    described = json.loads((folder / "page.json").read_text())
    files = described["graph"]["files"]
    assert len(files) > 1 and all(entry["bytes"] <= 4000 for entry in files)
    packed = b"".join((folder / entry["file"]).read_bytes() for entry in files)
    graph = zlib.decompress(packed, 31)
    assert len(graph) == described["graph"]["unpacked"]
    manifest = parse_manifest((folder / "manifest.json").read_text())
    assert manifest.name == "mine" and manifest.files_sha256["model.onnx"] == hashlib.sha256(graph).hexdigest()
    assert manifest.parity["onnxruntime-web"]["passed"] and manifest.precision == "fp32"
    listed = [entry for one in (described["graph"], described["golden"]["pictures"]) for entry in one["files"]]
    listed += [entry for name in ("wasm", "webgpu") for entry in described["runtime"][name]["binary"]["files"]]
    for entry in listed:
        data = (folder / entry["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])
    assert [len(row["direction"]) for row in described["golden"]["rows"]] == [3, 1, 1]
    assert "Permission is hereby granted" in (folder / "onnxruntime" / "LICENSE.txt").read_text()
    made = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    loads = visitor_bytes(made)
    assert loads["wasm"] < loads["webgpu"] < sum(map(len, made.values()))
    for name, data in made.items():
        if name.endswith((".js", ".html", ".css")):
            for link in re.findall(r"""(?:\bfrom |href=|src=)["']([^"'\n]+)["']""", data.decode()):
                assert (folder / link).is_file(), (name, link)  # nothing lies elsewhere
    assert b"<title>&lt;b&gt;</title>" in made["index.html"]


def test_the_pages_markup_is_the_studios_without_its_server() -> None:
    text = page_html((STUDIO / "index.html").read_text(), "Faces")
    for gone in ("/static/", "studio", "Studio", "token", "dialog", 'id="gif"', 'id="code"', "<!--", "-->", "{title}"):
        assert gone not in text, gone
    for there in ("<title>Faces</title>", 'id="loading-bar"', 'id="png-scale"', 'id="walk"', f'content="{POLICY}"'):
        assert there in text, there
    assert not re.search(r"<script(?! src=| type=\"module\" src=)", text) and "style=" not in text
    assert not re.search(r"\son\w+=", text)
    assert "'unsafe" not in POLICY and "*" not in POLICY


def test_an_api_without_a_server_has_the_studios_functions() -> None:
    exported = [
        set(re.findall(r"^export (?:async function|const|class|\{) ?(\w+)", (folder / "api.js").read_text(), re.M))
        for folder in (STUDIO, OWN)
    ]
    assert exported[0] <= exported[1]
    for script in STUDIO.glob("*.js"):
        for name in re.findall(r"import \{([^}]+)\} from './api.js'", script.read_text()):
            assert {one.strip() for one in name.split(",")} <= exported[1] or script.name == "docs.js"


@needs_runtime
def test_the_runtime_is_the_pinned_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = runtime_files()
    assert set(files) == {kept_name(name) for name in HASHES}
    for one in runtime.VARIANTS.values():
        assert len(zlib.decompress(files[one.binary], 31)) == one.unpacked
    monkeypatch.setenv("LATENTCLR_CACHE", str(tmp_path))
    folder = runtime_folder()
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert runtime_files() == files  # a copied cache needs no npm
    (folder / "ort.wasm.min.mjs").write_bytes(b"fetch('evil')")
    with pytest.raises(ExportError, match=r"ort.wasm.min.mjs is not the file of onnxruntime-web .* got again$"):
        runtime_files()


def test_without_npm_the_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"^a page needs onnxruntime-web .* there is no npm here: install it"):
        runtime_files()
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    npm.chmod(0o755)
    said: list[str] = []
    with pytest.raises(ExportError, match=r"^npm could not get onnxruntime-web [\d.]+: npm error code ENOTFOUND$"):
        runtime_files(said.append)
    assert "(MIT) with npm, once, into" in said[0]
    dist = "node_modules/onnxruntime-web/dist"
    npm.write_text(f"#!/bin/sh\n/bin/mkdir -p {dist}\nfor f in {' '.join(HASHES)}; do echo evil > {dist}/$f; done\n")
    with pytest.raises(ExportError, match=r"^npm brought another ort.wasm.min.mjs than that of .*; nothing is kept$"):
        runtime_files()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == []


def test_packing_is_the_same_each_time() -> None:
    data = bytes(range(256)) * 100
    assert gzipped(data) == gzipped(data) and zlib.decompress(gzipped(data), 31) == data
    assert smallest.words_of(None) == "fp32" and smallest.words_of(10) == "fp16"
