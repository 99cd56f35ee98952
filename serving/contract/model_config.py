"""What the configurations in a model repository ask of the server that loads them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ServerStartError

CACHE_BYTES = 256 << 20  # of Triton's response cache: 20,000 pictures of 64x64, or 80 of 1024x1024


@dataclass(frozen=True)
class Needs:
    """What the models want.

    Attributes:
        gpu: One is to run on a GPU and nowhere else.
        cache: One wants its answers cached, which the server has to allow.
        tensorrt: One runs on TensorRT, whose engines take minutes to build and are worth keeping.
    """

    gpu: bool = False
    cache: bool = False
    tensorrt: bool = False


def repository_needs(repository: Path) -> Needs:
    """Read all configurations of a repository; those that cannot be read are left to Triton to refuse.

    Args:
        repository: Folder with one folder per model.
    """
    gpu = cache = tensorrt = False
    for config in _configs(repository):
        gpu |= any(group.kind == group.KIND_GPU for group in config.instance_group)
        cache |= config.response_cache.enable
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        tensorrt |= any(accelerator.name == "tensorrt" for accelerator in accelerators)
    return Needs(gpu, cache, tensorrt)


def read_config(path: Path) -> Any:
    """Read a config.pbtxt as Triton's own protobuf.

    Raises:
        ServerStartError: It cannot be read, or is no configuration of Triton's.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ServerStartError(f"cannot read {path}: {str(error).splitlines()[0]}") from None


def _configs(repository: Path) -> Iterator[Any]:
    for path in sorted(repository.glob("*/config.pbtxt")):
        try:
            yield read_config(path)
        except ServerStartError:
            continue
