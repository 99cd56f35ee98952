"""The generators of the GPU pack, each made ready once: run folder, graphs, golden requests and a model repository.

Directions are untrained and large generators have seeded random weights, which is as good for time and memory. Nothing
is proven here by `check_parity`, which takes a CPU minutes for a large generator: each row carries its own certificate.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from common.engines import open_editor
from export_model import NAME, write_untrained

from export.editor import FusedEditor
from export.golden import save_golden
from export.manifest import build_manifest
from export.onnx import export_onnx, split_weights
from export.options import TritonOptions
from export.repository import publish
from export.torchscript import export_torchscript
from latentclr.files import replacing, sha256_of
from serving.contract.golden import Golden, read_golden
from serving.contract.layout import MODEL_FILES, WEIGHTS_FILE

CODES = 2  # of the golden requests, each with four pictures: a CPU draws them
MAX_BATCH_SIZE = 8
READY = "ready.json"


@dataclass(frozen=True)
class Model:
    """A generator of the pack."""

    generator: str
    resolution: int


# In this order: where time runs out, the last ones go without.
MODELS = {
    "faces": Model("dcgan", 64),
    "stylegan2-256": Model("stylegan2", 256),
    "biggan-256": Model("biggan", 256),
    "stylegan2-1024": Model("stylegan2", 1024),
    "stylegan3-256": Model("stylegan3", 256),
    "biggan-512": Model("biggan", 512),
}


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be measured.

    Attributes:
        editor: Eager, on the CPU, in float32.
        folder: Holds `model.onnx`, `model.pt` and the repository `models`.
        golden: Requests, and what `editor` draws of them.
        end: The largest strength.
        seconds: How long each part of the preparation took.
    """

    editor: FusedEditor
    folder: Path
    golden: Golden
    end: float
    seconds: dict[str, float]


def prepare(name: str, folder: Path, device: str) -> Prepared:
    """Make a model ready, or take what an earlier process left.

    Args:
        name: One of `MODELS`.
        folder: The model's own.
        device: What it is to be served on, `cpu` or `cuda`.

    Raises:
        LatentCLRError: The faces' weights are not installed, or an export failed.
    """
    model = MODELS[name]
    start = time.perf_counter()
    if not (folder / "run").exists():
        write_untrained(folder / "run", model.generator, model.resolution)
    _, checkpoint, editor, end = open_editor(folder / "run")
    took = {"load_s": time.perf_counter() - start}
    if not (folder / READY).exists():
        graphs = {
            backend: folder / file for backend, file in MODEL_FILES.items() if backend in ("onnxruntime", "pytorch")
        }
        start = time.perf_counter()
        export_onnx(editor, graphs["onnxruntime"])
        split_weights(graphs["onnxruntime"], folder / WEIGHTS_FILE)
        took["onnx_s"] = time.perf_counter() - start
        start = time.perf_counter()
        export_torchscript(editor, graphs["pytorch"])
        took["torchscript_s"] = time.perf_counter() - start
        files = [path for path in (*graphs.values(), folder / WEIGHTS_FILE) if path.exists()]
        manifest = build_manifest(NAME, editor.generator, checkpoint, files, [])
        start = time.perf_counter()
        golden = save_golden(folder, editor, manifest, [-end, -end / 2, end / 4, end], most_codes=CODES)
        took["golden_s"] = time.perf_counter() - start
        manifest["files_sha256"][golden.name] = sha256_of(golden)
        shutil.rmtree(folder / "models", ignore_errors=True)
        options = TritonOptions(target="gpu" if device == "cuda" else "cpu", max_batch_size=MAX_BATCH_SIZE)
        publish(folder / "models", NAME, graphs, manifest, options)
        with replacing(folder / READY) as temporary:
            temporary.write_text(json.dumps({key: round(value, 1) for key, value in took.items()}))
    seconds = json.loads((folder / READY).read_text())
    return Prepared(editor, folder, read_golden(folder / "golden.npz"), end, seconds)


def set_tf32(allowed: bool) -> None:
    """Let PyTorch round float32 products to TF32 on a GPU, or not."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
