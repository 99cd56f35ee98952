"""The configuration that Triton loads an editor with, for a CPU or a GPU.

Which keys NVIDIA's C++ backends read was looked up in their sources (onnxruntime_backend/src/onnxruntime.cc,
openvino_backend/src/openvino.cc, pytorch_backend/README.md); every field is explained in model_repository/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from export.options import AS_ACCELERATOR, AS_PARAMETER, TritonOptions, cuda_parameter
from serving.contract.layout import ENSEMBLE, MAX_ROWS, TENSORRT_CACHE, encoder_of
from serving.contract.tensors import (
    ALPHA,
    CLASS_ID,
    CODE,
    DIRECTION,
    IMAGE,
    PICTURE,
    RECONSTRUCTION,
    VALID,
    ZERO_ALPHA,
    ZERO_DIRECTION,
    code_tensor,
    encoder_outputs,
    output_names,
    served_names,
)

_QUEUED_BATCHES, _QUEUED_AT_LEAST = 16, 256
_THREADS = {
    "onnxruntime": "intra_op_thread_count",
    "openvino": "INFERENCE_NUM_THREADS",
    "pytorch": "INTRA_OP_THREAD_COUNT",
}  # fmt: skip


def model_config(
    name: str,
    backend: str,
    manifest: Mapping[str, Any],
    options: TritonOptions | None = None,
    version: int | None = None,
) -> pb.ModelConfig:
    """Return the configuration that Triton loads an editor with, as Triton's own protobuf.

    Args:
        name: The model's name, the same as its folder's.
        backend: `onnxruntime`, `openvino` or `pytorch`.
        manifest: See `manifest.build_manifest`; it travels as a parameter.
        options: How to serve it; TensorRT's precision is the manifest's, for a preview may have another.
        version: The version that this describes, and the only one that is served with it; None for the newest.
    """
    options, latent = options or TritonOptions(), manifest["latent"]
    config, batch = _begin(name, backend, manifest, options, version)
    config.backend = backend
    per_row = pb.ModelTensorReshape(shape=batch)  # one value a row: [N], not [N, 1]
    code = code_tensor(latent.get("input", "z"))
    config.input.add(name=code, data_type=pb.TYPE_FP32, dims=[*batch, *_code_shape(latent)])
    config.input.add(name=DIRECTION, data_type=pb.TYPE_INT64, dims=[*batch, -1])
    config.input.add(name=ALPHA, data_type=pb.TYPE_FP32, dims=[*batch, -1, latent["layers"]])
    if manifest["generator"]["classes"] is not None:
        config.input.add(name=CLASS_ID, data_type=pb.TYPE_INT64, dims=[*batch, 1], reshape=per_row)
    image, valid = output_names(backend)
    config.output.add(name=image, data_type=pb.TYPE_UINT8, dims=[*batch, *_size(manifest), 3])
    config.output.add(name=valid, data_type=pb.TYPE_BOOL, dims=[*batch, 1], reshape=per_row)
    _add_running(config, options, manifest)
    return config


def config_of(
    name: str,
    base: str,
    backend: str,
    manifest: Mapping[str, Any],
    options: TritonOptions | None = None,
    version: int | None = None,
) -> pb.ModelConfig:
    """Return the configuration of an editor, of its encoder, or of the ensemble of both, as their manifests say.

    Args:
        name: Of the published editor whose export this is.
        base: Of the first engine's model of this kind: NAME, NAME_preview, NAME_encoder or NAME_photo.
        backend: See `model_config`.
        manifest: Of the model; its `name` is the model's own.
        options: See `model_config`.
        version: See `model_config`.
    """
    model = str(manifest["name"])
    if manifest.get("encoder_of"):
        return encoder_config(model, backend, manifest, options, version)
    if manifest.get("photo_of"):
        suffix = model.removeprefix(base)  # of a twin
        return photo_config(model, name + suffix, backend, manifest, options, version)
    return model_config(model, backend, manifest, options, version)


def encoder_config(
    name: str,
    backend: str,
    manifest: Mapping[str, Any],
    options: TritonOptions | None = None,
    version: int | None = None,
) -> pb.ModelConfig:
    """Return the configuration that Triton loads an encoder with; see `model_config`."""
    options, latent = options or TritonOptions(), manifest["latent"]
    config, batch = _begin(name, backend, manifest, options, version)
    config.backend = backend
    config.input.add(name=PICTURE, data_type=pb.TYPE_UINT8, dims=[*batch, *_size(manifest), 3])
    code, direction, alpha, again = served_names(backend, encoder_outputs(latent["input"]))
    config.output.add(name=code, data_type=pb.TYPE_FP32, dims=[*batch, *_code_shape(latent)])
    config.output.add(name=direction, data_type=pb.TYPE_INT64, dims=[*batch, 1])
    config.output.add(name=alpha, data_type=pb.TYPE_FP32, dims=[*batch, 1, latent["layers"]])
    config.output.add(name=again, data_type=pb.TYPE_FP32, dims=[*batch, *_code_shape(latent)])
    _add_running(config, options, manifest)
    return config


def photo_config(
    name: str,
    editor: str,
    backend: str,
    manifest: Mapping[str, Any],
    options: TritonOptions | None = None,
    version: int | None = None,
) -> pb.ModelConfig:
    """Return the configuration of the ensemble that edits a photo in one request, and asks for both in one batch size.

    Args:
        name: The ensemble's name.
        editor: The editor's; its encoder is that of the same engine.
        backend: Of both.
        manifest: The ensemble's.
        options: See `model_config`.
        version: See `model_config`.
    """
    latent = manifest["latent"]
    config, batch = _begin(name, backend, manifest, options or TritonOptions(), version)
    config.platform = ENSEMBLE
    size = [*_size(manifest), 3]
    config.input.add(name=PICTURE, data_type=pb.TYPE_UINT8, dims=[*batch, *size])
    config.input.add(name=DIRECTION, data_type=pb.TYPE_INT64, dims=[*batch, -1])
    config.input.add(name=ALPHA, data_type=pb.TYPE_FP32, dims=[*batch, -1, latent["layers"]])
    asked = {DIRECTION: DIRECTION, ALPHA: ALPHA}
    unedited = {DIRECTION: ZERO_DIRECTION, ALPHA: ZERO_ALPHA}
    if manifest["generator"]["classes"] is not None:
        config.input.add(name=CLASS_ID, data_type=pb.TYPE_INT64, dims=[*batch, 1])
        asked[CLASS_ID] = unedited[CLASS_ID] = CLASS_ID
    code = code_tensor(latent["input"])
    config.output.add(name=IMAGE, data_type=pb.TYPE_UINT8, dims=[*batch, *size])
    config.output.add(name=VALID, data_type=pb.TYPE_BOOL, dims=[*batch, 1])
    config.output.add(name=RECONSTRUCTION, data_type=pb.TYPE_UINT8, dims=[*batch, *size])
    config.output.add(name=code, data_type=pb.TYPE_FP32, dims=[*batch, *_code_shape(latent)])
    found = served_names(backend, encoder_outputs(latent["input"]))
    image, valid = output_names(backend)
    steps = config.ensemble_scheduling.step
    encoded = dict(zip(found, (code, ZERO_DIRECTION, ZERO_ALPHA, CODE), strict=True))
    # Triton leaves out steps whose outputs a request does not ask for. There it takes each input of the ensemble that
    # nobody needs any more for an output of the first step, so that may not be one which others need: the order of
    # steps says nothing else.
    _add_step(steps, editor, {code: CODE, **asked}, {image: IMAGE, valid: VALID})
    _add_step(steps, encoder_of(editor), {PICTURE: PICTURE}, encoded)
    _add_step(steps, editor, {code: CODE, **unedited}, {image: RECONSTRUCTION})
    return config


def _begin(
    name: str, backend: str, manifest: Mapping[str, Any], options: TritonOptions, version: int | None
) -> tuple[pb.ModelConfig, list[int]]:
    """Return a configuration with what all have, and what stands before the dims of its tensors.

    OpenVINO's backend fixes the batch of a model with a max_batch_size, and then takes no other. Without one the rows
    are a dimension like others, each request is run by itself, and nobody but the twin refuses too many of them.
    """
    open_rows = backend == "openvino"
    config = pb.ModelConfig(name=name, max_batch_size=0 if open_rows else options.max_batch_size)
    if version is not None:
        config.version_policy.specific.versions.append(version)
    config.parameters["manifest"].string_value = json.dumps(manifest, sort_keys=True)
    return config, [-1] if open_rows else []


def _add_running(config: pb.ModelConfig, options: TritonOptions, manifest: Mapping[str, Any]) -> None:
    """Add how an engine runs the model whose tensors stand there."""
    open_rows = config.max_batch_size == 0
    target = "cpu" if open_rows else options.target  # OpenVINO's backend refuses any other kind of instance
    kind = getattr(pb.ModelInstanceGroup, f"KIND_{target.upper()}")
    config.instance_group.add(count=options.instances, kind=kind)
    if open_rows:
        config.parameters[MAX_ROWS].string_value = str(options.max_batch_size)
    else:
        _add_batching(config, options)
    if options.cache:
        config.response_cache.enable = True
    _add_engine(config, options, manifest)
    for rows in warm_up_sizes(options):
        _add_warm_up(config, rows, manifest["latent"]["layers"])


def _add_step(steps: Any, model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Add a model to an ensemble: its own tensors -> the ensemble's."""
    step = steps.add(model_name=model, model_version=-1)
    for own, name in inputs.items():
        step.input_map[own] = name
    for own, name in outputs.items():
        step.output_map[own] = name


def _size(manifest: Mapping[str, Any]) -> tuple[int, int]:
    height = manifest["generator"]["resolution"]
    return height, manifest["generator"].get("width") or height


def _code_shape(latent: Mapping[str, Any]) -> list[int]:
    return [latent["layers"], latent["dim"]] if latent.get("input", "z") == "w+" else [latent["dim"]]


def warm_up_sizes(options: TritonOptions) -> list[int]:
    """Return the batch sizes that run before the model is ready: powers of two up to the largest, and that one."""
    sizes = [1 << i for i in range(options.max_batch_size.bit_length())]
    sizes = sorted({*sizes, options.max_batch_size})
    if options.tensorrt and len(sizes) > 2:
        # TensorRT builds an engine each time that a size leaves the range seen so far: the largest second, so twice.
        sizes = [sizes[0], sizes[-1], *sizes[1:-1]]
    return sizes


def _add_batching(config: pb.ModelConfig, options: TritonOptions) -> None:
    batching = config.dynamic_batching
    batching.max_queue_delay_microseconds = options.queue_delay_us
    if not options.queue_timeout_s:
        # Under any queue policy Triton 2.51 misses the arrival of some requests, which then wait for its next look at
        # the queue, half a second later: up to one in twenty in a closed loop of one client, none without a policy.
        return
    policy = batching.default_queue_policy
    # A full queue answers "unavailable" at once, which clients retry, instead of making everybody wait in vain.
    policy.timeout_action = pb.ModelQueuePolicy.REJECT
    policy.default_timeout_microseconds = round(options.queue_timeout_s * 1e6)
    policy.allow_timeout_override = True
    policy.max_queue_size = max(_QUEUED_AT_LEAST, _QUEUED_BATCHES * options.max_batch_size)


def _add_engine(config: pb.ModelConfig, options: TritonOptions, manifest: Mapping[str, Any]) -> None:
    if options.threads:
        config.parameters[_THREADS[config.backend]].string_value = str(options.threads)
    if config.backend == "openvino":
        config.parameters["PERFORMANCE_HINT"].string_value = "LATENCY"
    if options.target == "cpu" or config.backend != "onnxruntime":
        return
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    if options.tensorrt:
        accelerator = accelerators.add(name="tensorrt")
        accelerator.parameters["precision_mode"] = manifest.get("precision", options.tensorrt).upper()
        accelerator.parameters["trt_engine_cache_enable"] = "true"
        accelerator.parameters["trt_engine_cache_path"] = TENSORRT_CACHE
        accelerator.parameters["trt_engine_cache_prefix"] = config.name
    # The default, an exhaustive search, runs again for each batch size that was not warmed up.
    cuda = {"cudnn_conv_algo_search": "HEURISTIC", **options.cuda}
    for key in AS_PARAMETER:
        if key in cuda:
            config.parameters[key].string_value = cuda_parameter(key, cuda[key])
    rest = {key: value for key, value in cuda.items() if key in AS_ACCELERATOR}
    if rest:
        accelerator = accelerators.add(name="cuda")
        for key, value in sorted(rest.items()):
            accelerator.parameters[key] = value


def _add_warm_up(config: pb.ModelConfig, rows: int, layers: int) -> None:
    # Zeros are the only data that Triton can make which is valid here: a random direction index is out of range.
    batched = config.max_batch_size > 0
    warm_up = config.model_warmup.add(name=f"batch_{rows}", batch_size=rows if batched else 1)
    dynamic = {DIRECTION: [1], ALPHA: [1, layers]}  # M = 1
    for tensor in config.input:
        sample = warm_up.inputs[tensor.name]
        sample.data_type = tensor.data_type
        dims = tensor.dims if batched else tensor.dims[1:]  # of one row
        sample.dims.extend([] if batched else [rows])
        sample.dims.extend(dynamic.get(tensor.name, dims))
        sample.zero_data = True
