"""A served editor small enough for tests: D = 4, K = 3, L = 2, pictures of 8x8, and its formula in numpy."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

D, K, L, SIZE = 4, 3, 2, 8
_random = np.random.RandomState(0)
_raw = _random.randn(K, D).astype(np.float32)
DIRECTIONS = _raw / np.linalg.norm(_raw, axis=1, keepdims=True)  # [K, D]
WEIGHT = (_random.randn(L * D, SIZE * SIZE * 3) / 3).astype(np.float32)

MANIFEST: dict[str, Any] = {
    "format": 1,
    "name": "latent_edit",
    "generator": {
        "name": "tiny",
        "resolution": SIZE,
        "weights_sha256": "0" * 64,
        "random_weights": True,
        "classes": None,
    },
    "latent": {"input": "z", "dim": D, "layers": L, "sampler": "standard_normal", "truncation": None},
    "directions": {"count": K, "model": "global", "alpha_range": [-6.0, 6.0]},
    "edits": {"smile": {"direction": 2, "layers": [1], "alpha_range": [-4, 4], "note": "the second layer only"}},
    "files_sha256": {},
    "versions": {"triton": "any"},
    "parity": {},
    "a_later_key": True,
}
WITH_CLASSES: dict[str, Any] = {
    **MANIFEST,
    "generator": {**MANIFEST["generator"], "classes": {"names": ["tench", "Goldfish"], "default": [1]}},
}


def expected(
    z: NDArray[Any], direction: NDArray[Any], alpha: NDArray[Any], class_id: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """Compute the pictures [N, 8, 8, 3] of z [N, D], direction [N, M], alpha [N, M, L] by the contract's formula."""
    step = np.einsum("nml,nmd->nld", alpha, DIRECTIONS[direction])
    codes = z[:, None] + step  # [N, L, D]
    if class_id is not None:
        codes = codes + class_id[:, None, None]
    x = np.tanh(codes.reshape(len(z), L * D) @ WEIGHT)
    pixels = np.floor(np.clip((x + 1) * 127.5 + 0.5, 0, 255))
    return pixels.astype(np.uint8).reshape(-1, SIZE, SIZE, 3)


def assert_close(got: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> None:
    """Pictures may differ by one step: float sums are not associative."""
    assert got.shape == wanted.shape
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 1


def with_preview(folder: Path, name: str = "latent_edit") -> dict[str, dict[str, Any]]:
    """Write an editor and its preview, which draws every second pixel of every second row, as models of a repository.

    Returns:
        Their manifests by name.
    """
    manifests = {}
    for model, side in ((name + "_preview", SIZE // 2), (name, SIZE)):
        save_onnx(add_model(folder, model, "") / "model.onnx", side=side)
        digest = hashlib.sha256((folder / model / "1" / "model.onnx").read_bytes()).hexdigest()
        generator = {**MANIFEST["generator"], "resolution": side}
        manifest = {**MANIFEST, "name": model, "generator": generator, "files_sha256": {"model.onnx": digest}}
        if manifests:
            its = manifests[name + "_preview"]
            manifest["preview"] = {"size": [SIZE // 2, SIZE // 2], "files_sha256": its["files_sha256"]}
        else:
            manifest |= {"preview_of": name, "likeness": {"rows": 1}}
        text = config(model, manifest=manifest, image=f"{side}, {side}, 3")
        (folder / model / "config.pbtxt").write_text(text)
        manifests[model] = manifest
    return manifests


def save_onnx(path: Path, classes: bool = False, side: int = SIZE) -> None:
    """Write the editor as ONNX, with clamped indices and a `valid` mark for each row.

    With classes it takes `class_id` [N] too, which is added to the codes. With a smaller side it draws fewer pixels of
    the same picture.
    """
    apart = SIZE // side
    weight = WEIGHT.reshape(L * D, SIZE, SIZE, 3)[:, ::apart, ::apart].reshape(L * D, -1)
    constants = {
        "directions": DIRECTIONS,
        "weight": weight,
        "zero": np.float32(0),
        "one": np.float32(1),
        "minus": np.float32(-1),
        "half": np.float32(0.5),
        "scale": np.float32(127.5),
        "top": np.float32(255),
        "first": np.int64(0),
        "last": np.int64(K - 1),
        "row": np.array([1], np.int64),
        "row_m": np.array([1, 2], np.int64),
        "per_code": np.array([-1, 1, 1], np.int64),
        "flat": np.array([-1, L * D], np.int64),
        "picture": np.array([-1, side, side, 3], np.int64),
        "mark": np.array([-1, 1, 1, 1], np.int64),
    }
    nodes = [
        ("Clip", ["direction", "first", "last"], "index", {}),
        ("Gather", ["directions", "index"], "d", {"axis": 0}),
        ("Transpose", ["alpha"], "alpha_t", {"perm": [0, 2, 1]}),
        ("MatMul", ["alpha_t", "d"], "step", {}),  # ONNX Runtime 1.23 crashes in Einsum where M = 0
        ("Unsqueeze", ["z", "row"], "z_row", {}),
        ("Add", ["z_row", "step"], "walked", {}),
        ("Cast", ["class_id"], "shift", {"to": TensorProto.FLOAT}),
        ("Reshape", ["shift", "per_code"], "shift_row", {}),
        ("Add", ["walked", "shift_row"], "codes", {}),
        ("Reshape", ["codes", "flat"], "codes_flat", {}),
        ("MatMul", ["codes_flat", "weight"], "logits", {}),
        ("Tanh", ["logits"], "x", {}),
        ("Reshape", ["x", "picture"], "x_picture", {}),
        # A row is good if its index was not clamped and nothing in it is NaN or infinite (x - x = 0 only if finite).
        ("Equal", ["direction", "index"], "inside", {}),
        ("Sub", ["z", "z"], "z_zero", {}),
        ("Equal", ["z_zero", "zero"], "z_good", {}),
        ("Sub", ["alpha", "alpha"], "a_zero", {}),
        ("Equal", ["a_zero", "zero"], "a_good", {}),
        ("Cast", ["inside"], "inside_n", {"to": TensorProto.FLOAT}),
        ("Cast", ["z_good"], "z_good_n", {"to": TensorProto.FLOAT}),
        ("Cast", ["a_good"], "a_good_n", {"to": TensorProto.FLOAT}),
        ("ReduceMin", ["inside_n", "row"], "inside_row", {"keepdims": 0}),
        ("ReduceMin", ["z_good_n", "row"], "z_row_good", {"keepdims": 0}),
        ("ReduceMin", ["a_good_n", "row_m"], "a_row_good", {"keepdims": 0}),
        ("Mul", ["inside_row", "z_row_good"], "good_1", {}),
        ("Mul", ["good_1", "a_row_good"], "good", {}),
        ("Cast", ["good"], "valid", {"to": TensorProto.BOOL}),
        ("Reshape", ["valid", "mark"], "valid_pixel", {}),
        ("Where", ["valid_pixel", "x_picture", "minus"], "x_safe", {}),
        ("Add", ["x_safe", "one"], "p1", {}),
        ("Mul", ["p1", "scale"], "p2", {}),
        ("Add", ["p2", "half"], "p3", {}),
        ("Clip", ["p3", "zero", "top"], "p4", {}),
        ("Floor", ["p4"], "p5", {}),
        ("Cast", ["p5"], "image", {"to": TensorProto.UINT8}),
    ]
    if not classes:
        constants["class_id"] = np.array([0], np.int64)
    _save(path, nodes, constants, side)


def save_fragile_onnx(path: Path) -> None:
    """Write an editor that breaks the contract: an index out of range makes it raise for the whole batch."""
    constants = {
        "table": np.arange(K, dtype=np.uint8).reshape(K, 1, 1, 1),
        "first": np.array(0),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        ("Gather", ["direction", "first"], "index", {"axis": 1}),
        ("Gather", ["table", "index"], "image", {"axis": 0}),
        ("ReduceSum", ["alpha"], "total", {"keepdims": 0}),
        ("ReduceMax", ["z", "axis"], "largest", {"keepdims": 0}),
        ("Add", ["largest", "total"], "sum", {}),
        ("Cast", ["sum"], "valid", {"to": TensorProto.BOOL}),
    ]
    _save(path, nodes, constants, side=1, channels=1)


def _save(path: Path, nodes: Any, constants: dict[str, Any], side: int = SIZE, channels: int = 3) -> None:
    known = "class_id" in constants or all("class_id" not in inputs for _, inputs, _, _ in nodes)
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in nodes],
        "editor",
        [
            helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", D]),
            helper.make_tensor_value_info("direction", TensorProto.INT64, ["N", "M"]),
            helper.make_tensor_value_info("alpha", TensorProto.FLOAT, ["N", "M", L]),
            *([] if known else [helper.make_tensor_value_info("class_id", TensorProto.INT64, ["N"])]),
        ],
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", side, side, channels]),
            helper.make_tensor_value_info("valid", TensorProto.BOOL, ["N"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def save_torchscript(path: Path) -> None:
    """Write the editor as TorchScript, with `forward(z, direction, alpha)`."""
    import torch
    from torch import Tensor, nn

    class Editor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("directions", torch.from_numpy(DIRECTIONS))
            self.register_buffer("weight", torch.from_numpy(WEIGHT))

        def forward(self, z: Tensor, direction: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
            index = direction.clamp(0, 2)
            finite = torch.isfinite(z).all(1) & torch.isfinite(alpha).flatten(1).all(1)
            valid = (direction == index).all(1) & finite
            codes = z[:, None] + torch.einsum("nml,nmd->nld", alpha, self.directions[index])
            x = torch.tanh(codes.flatten(1) @ self.weight).reshape(-1, 8, 8, 3)
            x = torch.where(valid[:, None, None, None], x, torch.full_like(x, -1.0))
            return ((x + 1) * 127.5 + 0.5).clamp(0, 255).floor().to(torch.uint8), valid

    example = (torch.zeros(2, D), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 2, L))
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # TorchScript is deprecated upstream, and still what Triton's PyTorch backend loads.
        warnings.filterwarnings("ignore", r"`torch\.jit\.")
        torch.jit.trace(Editor().eval(), example).save(str(path))


def config(
    name: str,
    backend: str = "onnxruntime",
    *,
    manifest: dict[str, Any] | None = MANIFEST,
    image: str = f"{SIZE}, {SIZE}, 3",
    queue_us: int = 0,
) -> str:
    """Write the config.pbtxt that NVIDIA's server would read."""
    suffix = ("__0", "__1") if backend == "pytorch" else ("", "")
    entry = class_id = ""
    if manifest is not None and manifest["generator"]["classes"] is not None:
        class_id = ', { name: "class_id" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }'
    if manifest is not None:
        text = json.dumps(json.dumps(manifest))  # a JSON string literal is a valid pbtxt string
        entry = f'parameters {{ key: "manifest" value {{ string_value: {text} }} }}'
    return f"""
name: "{name}"
backend: "{backend}"
max_batch_size: 8
input [
  {{ name: "z" data_type: TYPE_FP32 dims: [ {D} ] }},
  {{ name: "direction" data_type: TYPE_INT64 dims: [ -1 ] }},
  {{ name: "alpha" data_type: TYPE_FP32 dims: [ -1, {L} ] }}{class_id}
]
output [
  {{ name: "image{suffix[0]}" data_type: TYPE_UINT8 dims: [ {image} ] }},
  {{ name: "valid{suffix[1]}" data_type: TYPE_BOOL dims: [ 1 ] reshape {{ shape: [ ] }} }}
]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
dynamic_batching {{ max_queue_delay_microseconds: {queue_us} }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
{entry}
"""


def add_model(repository: Path, name: str, text: str) -> Path:
    """Make a model's folder; returns its version folder, into which the weights go."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(text)
    return repository / name / "1"


READS = (np.random.RandomState(5).randn(SIZE * SIZE * 3, D) / 12).astype(np.float32)  # what the tiny encoder does


def code_of(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the code [1, D] of a picture [8, 8, 3] by the tiny encoder's formula."""
    return np.asarray((picture.reshape(1, -1).astype(np.float32) / 127.5 - 1) @ READS)


def with_encoder(folder: Path, name: str = "latent_edit", *, flip: bool = False) -> dict[str, dict[str, Any]]:
    """Write an editor and its encoder, and the editor's preview, as models of a repository.

    Args:
        folder: The repository.
        name: The editor's name.
        flip: Whether the encoder's codes are the other way round, as another version's.

    Returns:
        The manifests of editor and encoder, by name.
    """
    manifests = with_preview(folder, name)
    encoder = f"{name}_encoder"
    path = add_model(folder, encoder, "") / "model.onnx"
    save_encoder(path, flip)
    files = {"model.onnx": hashlib.sha256(path.read_bytes()).hexdigest()}
    info = {"space": "z", "sha256": files["model.onnx"], "files_sha256": files}
    manifest = {**MANIFEST, "name": encoder, "files_sha256": files, "encoder_of": name}
    (folder / encoder / "config.pbtxt").write_text(encoder_config(encoder, manifest))
    full = {**manifests[name], "encoder": info}
    (folder / name / "config.pbtxt").write_text(config(name, manifest=full))
    return {name: full, encoder: manifest}


def save_encoder(path: Path, flip: bool = False) -> None:
    """Write the tiny encoder as ONNX."""
    constants = {
        "flat": np.array([-1, SIZE * SIZE * 3], np.int64),
        "scale": np.float32(127.5),
        "one": np.float32(1),
        "reads": -READS if flip else READS,
    }
    nodes = [
        ("Cast", ["picture"], "pixels", {"to": TensorProto.FLOAT}),
        ("Reshape", ["pixels", "flat"], "row", {}),
        ("Div", ["row", "scale"], "scaled", {}),
        ("Sub", ["scaled", "one"], "centred", {}),
        ("MatMul", ["centred", "reads"], "z", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **attributes) for kind, inputs, output, attributes in nodes],
        "encoder",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", D])],
        [numpy_helper.from_array(np.asarray(constants[key]), key) for key in ("flat", "scale", "one", "reads")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def encoder_config(name: str, manifest: dict[str, Any]) -> str:
    """Write the encoder's config.pbtxt."""
    return f"""
name: "{name}"
backend: "onnxruntime"
max_batch_size: 8
input [ {{ name: "picture" data_type: TYPE_UINT8 dims: [ {SIZE}, {SIZE}, 3 ] }} ]
output [ {{ name: "z" data_type: TYPE_FP32 dims: [ {D} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
parameters {{ key: "manifest" value {{ string_value: {json.dumps(json.dumps(manifest))} }} }}
"""
