"""The generated configurations: as Triton's protobuf, and loaded by a real Triton that completes nothing."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from export.errors import ExportError
from export.options import CUDA_OPTIONS, TritonOptions
from export.triton_config import model_config, warm_up_sizes

needs_triton = pytest.mark.skipif(importlib.util.find_spec("pytriton") is None, reason="needs nvidia-pytriton")

MANIFEST = {
    "generator": {"resolution": 8, "classes": None},
    "latent": {"input": "z", "dim": 4, "layers": 2},
    "parity": {},
}
WITH_CLASSES = {**MANIFEST, "generator": {"resolution": 8, "classes": {"names": ["ant", "bee"], "default": [0]}}}
EVERYTHING = TritonOptions(
    "gpu", 6, 2, 500, 2.5, True, 3, "fp16", {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
)
README = Path(__file__).parents[2] / "model_repository" / "README.md"


def build(options: TritonOptions, backend: str = "onnxruntime", manifest=MANIFEST) -> pb.ModelConfig:
    """Through the text that Triton reads."""
    text = text_format.MessageToString(model_config("edit", backend, manifest, options, 3))
    return text_format.Parse(text, pb.ModelConfig())


def parameters(config: pb.ModelConfig) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items() if key != "manifest"}


def accelerators(config: pb.ModelConfig) -> dict[str, dict[str, str]]:
    found = config.optimization.execution_accelerators.gpu_execution_accelerator
    return {accelerator.name: dict(accelerator.parameters) for accelerator in found}


def test_defaults():
    config = build(TritonOptions())
    (group,) = config.instance_group
    assert (group.kind, group.count) == (pb.ModelInstanceGroup.KIND_AUTO, 1)
    assert list(config.version_policy.specific.versions) == [3]
    assert config.max_batch_size == TritonOptions().max_batch_size
    batching = config.dynamic_batching
    assert list(batching.preferred_batch_size) == []
    assert batching.max_queue_delay_microseconds == 0
    assert not batching.preserve_ordering
    assert not batching.HasField("default_queue_policy")  # it makes Triton 2.51 stall
    assert not config.response_cache.enable
    assert parameters(config) == {"cudnn_conv_algo_search": "1"}
    assert accelerators(config) == {}


def test_pictures_that_are_wider_than_high():
    wide = {**MANIFEST, "generator": {**MANIFEST["generator"], "width": 12}}
    image = model_config("m", "onnxruntime", wide).output[0]
    assert list(image.dims) == [8, 12, 3]


def test_cpu():
    options = TritonOptions("cpu", instances=2, threads=4)
    config = build(options)
    (group,) = config.instance_group
    assert (group.kind, group.count) == (pb.ModelInstanceGroup.KIND_CPU, 2)
    assert parameters(config) == {"intra_op_thread_count": "4"}
    assert parameters(build(options, "pytorch")) == {"INTRA_OP_THREAD_COUNT": "4"}
    assert not config.HasField("optimization")


def test_gpu_with_everything():
    config = build(EVERYTHING)
    (group,) = config.instance_group
    assert (group.kind, group.count) == (pb.ModelInstanceGroup.KIND_GPU, 2)
    assert config.max_batch_size == EVERYTHING.max_batch_size
    assert config.dynamic_batching.max_queue_delay_microseconds == EVERYTHING.queue_delay_us
    policy = config.dynamic_batching.default_queue_policy
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds == EVERYTHING.queue_timeout_s * 1e6
    assert policy.allow_timeout_override
    assert policy.max_queue_size == 256
    assert config.response_cache.enable
    assert parameters(config) == {
        "cudnn_conv_algo_search": "1", "arena_extend_strategy": "1", "intra_op_thread_count": "3",
    }  # fmt: skip
    assert accelerators(config) == {
        "tensorrt": {
            "precision_mode": "FP16", "trt_engine_cache_enable": "true", "trt_engine_cache_path": "/tensorrt-cache",
            "trt_engine_cache_prefix": "edit",
        },
        "cuda": {"use_tf32": "0"},
    }  # fmt: skip
    twin = build(EVERYTHING, "pytorch")
    assert parameters(twin) == {"INTRA_OP_THREAD_COUNT": "3"}
    assert accelerators(twin) == {}


@pytest.mark.parametrize(
    ("rows", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16]), (3, [1, 2, 3])]
)
def test_warm_up(rows, sizes):
    assert warm_up_sizes(TritonOptions(max_batch_size=rows)) == sizes
    order = warm_up_sizes(TritonOptions(max_batch_size=rows, tensorrt="fp32"))
    assert sorted(order) == sizes
    assert order[:2] == [1, rows][: len(order)]
    config = build(TritonOptions(max_batch_size=rows), manifest=WITH_CLASSES)
    assert [warm_up.batch_size for warm_up in config.model_warmup] == sizes
    assert len({warm_up.name for warm_up in config.model_warmup}) == len(sizes)
    for warm_up in config.model_warmup:
        assert {name: list(sample.dims) for name, sample in warm_up.inputs.items()} == {
            "z": [4], "direction": [1], "alpha": [1, 2], "class_id": [1],
        }  # fmt: skip
        assert all(sample.zero_data for sample in warm_up.inputs.values())  # a random index would be out of range


@pytest.mark.parametrize(("wrong", "message"), [
    ({"target": "tpu"}, "target must be one of auto, cpu, gpu, got 'tpu'"),
    ({"max_batch_size": 0}, "max batch size must be in [1, 256], got 0"),
    ({"max_batch_size": 257}, "max batch size must be in [1, 256], got 257"),
    ({"instances": 0}, "instances must be in [1, 64]"),
    ({"queue_delay_us": -1}, "queue delay must be in [0, 1000000]"),
    ({"queue_timeout_s": float("nan")}, "queue timeout must be in [0, 3600], got nan"),
    ({"threads": 1000}, "threads must be in [0, 256]"),
    ({"tensorrt": "int8"}, "precision must be one of fp32, fp16, got 'int8'"),
    ({"target": "cpu", "tensorrt": "fp32"}, "need target gpu or auto, got cpu"),
    ({"target": "cpu", "cuda": {"use_tf32": "0"}}, "need target gpu or auto, got cpu"),
    ({"cuda": {"use_tf": "0"}}, "unknown CUDA option 'use_tf', expected one of"),
    ({"cuda": {"use_tf32": "no"}}, "CUDA option use_tf32 must be 0 or 1, got 'no'"),
    ({"cuda": {"gpu_mem_limit": "2G"}}, "must be a number of bytes, got '2G'"),
    ({"cuda": {"cudnn_conv_algo_search": "1"}}, "must be one of EXHAUSTIVE, HEURISTIC, DEFAULT, got '1'"),
])  # fmt: skip
def test_options_out_of_range(wrong, message):
    with pytest.raises(ExportError, match=re.escape(message)):
        TritonOptions(**wrong)


@pytest.mark.parametrize("key", CUDA_OPTIONS)
def test_each_cuda_option_stands_where_the_backend_reads_it(key):
    choices = {"cudnn_conv_algo_search": "DEFAULT", "arena_extend_strategy": "kNextPowerOfTwo", "gpu_mem_limit": "9"}
    config = build(TritonOptions(cuda={key: choices.get(key, "1")}))
    written = {**parameters(config), **accelerators(config).get("cuda", {})}
    numbers = {"cudnn_conv_algo_search": "2", "arena_extend_strategy": "0", "gpu_mem_limit": "9"}
    assert written[key] == numbers.get(key, "1")


def fields_of(message, prefix: str = "") -> set[str]:
    """Names of all fields that are set, as the README writes them."""
    found = set()
    for field, value in message.ListFields():
        name = f"{prefix}{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            found |= {f"{name}.{key}" for key in value} if field.name == "parameters" else {name}
        elif field.message_type is not None:
            for entry in [value] if hasattr(value, "ListFields") else value:
                found |= fields_of(entry, f"{name}.") or {name}
        else:
            found.add(name)
    return found


def test_the_readme_gives_the_shapes_of_a_request():
    """As a raw client sends them: `dims` behind the batch axis, whatever the graph makes of it by `reshape`."""
    config = build(TritonOptions(), manifest=WITH_CLASSES)
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \[(.*?)\] \|", README.read_text(), re.M)
    told = {name: (kind, shape.split(", ")) for name, kind, shape in rows}
    assert told.keys() == {tensor.name for tensor in (*config.input, *config.output)}
    resolution = MANIFEST["generator"]["resolution"]
    sizes = {"N": None, "D": MANIFEST["latent"]["dim"], "L": MANIFEST["latent"]["layers"], "M": -1, "H": resolution}
    sizes["W"] = resolution
    for tensor in (*config.input, *config.output):
        kind, (first, *rest) = told[tensor.name]
        assert pb.DataType.Name(tensor.data_type) == f"TYPE_{kind}", tensor.name
        assert first == "N"
        assert [sizes[word] if word in sizes else int(word) for word in rest] == list(tensor.dims), tensor.name


def test_the_readme_explains_every_field():
    table = re.findall(r"^\| (`.+?) \| .{15,} \|$", README.read_text(), re.M)
    explained = {name for row in table for name in re.findall(r"`([^`]+)`", row)}
    fields = set()
    for backend in ("onnxruntime", "pytorch"):
        fields |= fields_of(build(EVERYTHING, backend, WITH_CLASSES))
    obvious = {"data_type", "name"}
    for field in sorted(fields):
        parts = field.split(".")
        if parts[-1] in obvious or parts[0] == "model_warmup":
            continue
        forms = {field, parts[-1], *(".".join(parts[i:]) for i in range(len(parts)))}
        assert forms & explained, f"{field} is not explained in model_repository/README.md"


SERVED = {
    "auto": TritonOptions(),
    "cpu": TritonOptions("cpu", 6, 2, 1000, 0, False, 1),
    "gpu": TritonOptions("gpu", 4, 1, 100, 5),
    "cache": TritonOptions("cpu", 1, cache=True, threads=1),
    "everything": EVERYTHING,
}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "serving"))
    import tiny_editor

    return tiny_editor


def put(tiny, repository: Path, options: TritonOptions, name: str, classes: bool = False) -> None:
    manifest = tiny.WITH_CLASSES if classes else tiny.MANIFEST
    config = model_config(name, "onnxruntime", {**manifest, "name": name}, options, 3)
    folder = repository / name / "3"
    tiny.save_onnx(folder / "model.onnx", classes)
    (repository / name / "config.pbtxt").write_text(text_format.MessageToString(config))


@needs_triton
def test_a_real_triton_loads_them_and_completes_nothing(tiny, tmp_path):
    """There is no GPU here: of the configurations for one, the kind of the instances is changed and nothing else."""
    import numpy as np
    from tritonclient import grpc

    from serving import TritonServer
    from serving.triton.ports import Ports

    for name, options in SERVED.items():
        put(tiny, tmp_path / "models", options, name, classes=name == "everything")
        path = tmp_path / "models" / name / "config.pbtxt"
        path.write_text(path.read_text().replace("KIND_GPU", "KIND_CPU"))
    with TritonServer(tmp_path / "models", ports=Ports(0, 0, 0), log_file=tmp_path / "log") as server:
        assert server.ready_models() == sorted(SERVED)
        client = grpc.InferenceServerClient(server.grpc_url)
        for name, options in SERVED.items():
            served = client.get_model_config(name).config
            written = text_format.Parse((tmp_path / "models" / name / "config.pbtxt").read_text(), pb.ModelConfig())
            del served.dynamic_batching.preferred_batch_size[:]  # Triton itself writes the largest batch there
            for field in ("input", "output", "dynamic_batching", "version_policy", "parameters", "max_batch_size"):
                assert getattr(served, field) == getattr(written, field), (name, field)
            warmed = client.get_inference_statistics(name).model_stats[0]
            assert warmed.inference_count == sum(warm_up_sizes(options)) * options.instances  # rows that warmed it up
            arrays = [np.zeros((1, 4), np.float32), np.ones((1, 1), np.int64), np.zeros((1, 1, 2), np.float32)]
            inputs = [grpc.InferInput(n, list(a.shape), k) for n, a, k in zip(
                ("z", "direction", "alpha"), arrays, ("FP32", "INT64", "FP32"), strict=True)]  # fmt: skip
            for tensor, array in zip(inputs, arrays, strict=True):
                tensor.set_data_from_numpy(array)
            if name == "everything":
                inputs.append(grpc.InferInput("class_id", [1, 1], "INT64"))
                inputs[-1].set_data_from_numpy(np.zeros((1, 1), np.int64))
            for _ in range(2):
                assert client.infer(name, inputs).as_numpy("valid").all()
            hits = client.get_inference_statistics(name).model_stats[0].inference_stats.cache_hit.count
            assert hits == (1 if options.cache else 0)
        client.close()
    log = (tmp_path / "log").read_text()
    assert "failed to run warmup" not in log.lower()
    assert not [line for line in log.splitlines() if re.match(r"E\d{4} ", line) and "warm" in line.lower()]


@needs_triton
def test_a_server_without_a_gpu_refuses_what_is_for_one(tiny, tmp_path):
    from serving import TritonServer
    from serving.errors import ServerStartError
    from serving.triton.ports import Ports

    put(tiny, tmp_path / "models", replace(EVERYTHING, cache=False), "edit", classes=True)
    server = TritonServer(tmp_path / "models", ports=Ports(0, 0, 0))
    with pytest.raises(ServerStartError, match="has kind KIND_GPU but no GPUs are available"), server:
        pass


def test_the_manifest_travels_whole():
    config = build(TritonOptions())
    assert json.loads(config.parameters["manifest"].string_value) == MANIFEST
