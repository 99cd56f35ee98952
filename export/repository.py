"""A Triton model repository: config.pbtxt, version folders, publishing whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import ExportError
from latentclr.errors import SaveError
from latentclr.files import replacing

ENGINES = {"onnxruntime": "model.onnx", "pytorch": "model.pt"}  # backend -> the file that Triton looks for
LIMIT = 256


def model_config(name: str, backend: str, manifest: Mapping[str, Any], max_batch_size: int) -> pb.ModelConfig:
    """Return the configuration that Triton loads an editor with, as Triton's own protobuf.

    Every field is explained in model_repository/README.md.

    Args:
        name: the model's name, the same as its folder's.
        backend: `onnxruntime` or `pytorch`.
        manifest: see `manifest.build_manifest`; it travels as a parameter.
        max_batch_size: rows that the dynamic batcher may put together, in [1, 256].

    Raises:
        ExportError: max_batch_size is out of range.
    """
    if not 1 <= max_batch_size <= LIMIT:
        raise ExportError(f"max batch size must be in [1, {LIMIT}], got {max_batch_size}")
    latent, resolution = manifest["latent"], manifest["generator"]["resolution"]
    config = pb.ModelConfig(name=name, backend=backend, max_batch_size=max_batch_size)
    per_row = pb.ModelTensorReshape(shape=[])  # one value a row: [N], not [N, 1]
    config.input.add(name="z", data_type=pb.TYPE_FP32, dims=[latent["dim"]])
    config.input.add(name="direction", data_type=pb.TYPE_INT64, dims=[-1])
    config.input.add(name="alpha", data_type=pb.TYPE_FP32, dims=[-1, latent["layers"]])
    if manifest["generator"]["classes"] is not None:
        config.input.add(name="class_id", data_type=pb.TYPE_INT64, dims=[1], reshape=per_row)
    # Triton's libtorch backend finds outputs by position, which it reads from the end of their names.
    image, valid = ("image__0", "valid__1") if backend == "pytorch" else ("image", "valid")
    config.output.add(name=image, data_type=pb.TYPE_UINT8, dims=[resolution, resolution, 3])
    config.output.add(name=valid, data_type=pb.TYPE_BOOL, dims=[1], reshape=per_row)
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_AUTO)
    config.dynamic_batching.SetInParent()
    for rows in sorted({1, 2, max_batch_size}):
        if rows <= max_batch_size:
            _warm_up(config, rows, latent)
    config.parameters["manifest"].string_value = json.dumps(manifest, sort_keys=True)
    return config


def publish(
    repository: Path, name: str, graphs: Mapping[str, Path], manifest: Mapping[str, Any], max_batch_size: int
) -> list[Path]:
    """Put exported files where Triton looks for them.

    A name that exists already gets the next version number; older versions stay. Everything is written under a
    temporary name in the repository first, and renamed when whole, so a server that polls never sees half a model.

    Args:
        repository: the model repository; made if missing.
        name: of the ONNX model; the TorchScript twin is `<name>_torchscript`.
        graphs: backend -> exported file.
        manifest: see `manifest.build_manifest`.
        max_batch_size: see `model_config`.

    Returns:
        The new version folders.

    Raises:
        SaveError: the disk is full or the repository cannot be written; what stood there is untouched.
    """
    published = []
    staging: Path | None = None
    try:
        repository.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".tmp-", dir=repository))
        ready = []
        for backend, graph in graphs.items():
            model = name if backend == "onnxruntime" else f"{name}_torchscript"
            staged = staging / model
            number = next_version(repository / model)
            (staged / str(number)).mkdir(parents=True)
            shutil.copyfile(graph, staged / str(number) / ENGINES[backend])
            (staged / str(number) / "parity.json").write_text(json.dumps(manifest["parity"], indent=1))
            config = model_config(model, backend, {**manifest, "name": model}, max_batch_size)
            (staged / "config.pbtxt").write_text(text_format.MessageToString(config))
            ready.append((staged, repository / model, str(number)))
        for staged, target, number_text in ready:
            staged.chmod(0o755)
            if not target.exists():
                os.replace(staged, target)
            else:
                os.replace(staged / number_text, target / number_text)
                with replacing(target / "config.pbtxt") as temporary:
                    shutil.copyfile(staged / "config.pbtxt", temporary)
            published.append(target / number_text)
    except OSError as error:
        raise SaveError(f"could not publish to {repository}: {error.strerror or error}") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return published


def next_version(model: Path) -> int:
    """Return one more than the highest version number in a model's folder, 1 if there is none."""
    numbers = [int(entry.name) for entry in model.glob("*") if entry.is_dir() and entry.name.isdigit()]
    return max(numbers, default=0) + 1


def _warm_up(config: pb.ModelConfig, rows: int, latent: Mapping[str, Any]) -> None:
    # Zeros are the only data that Triton can make which is valid here: a random direction index is out of range.
    warm_up = config.model_warmup.add(name=f"batch_{rows}", batch_size=rows)
    shapes = {"z": [latent["dim"]], "direction": [1], "alpha": [1, latent["layers"]], "class_id": [1]}
    for tensor in config.input:
        sample = warm_up.inputs[tensor.name]
        sample.data_type = tensor.data_type
        sample.dims.extend(shapes[tensor.name])
        sample.zero_data = True
