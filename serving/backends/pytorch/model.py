"""`backend: "pytorch"`: runs `<version>/model.pt` (TorchScript), as NVIDIA's LibTorch backend does.

The same `config.pbtxt` serves both, so the LibTorch backend's rules hold: inputs are matched to `forward`'s arguments
by name, else by an index `<name>__<index>`, else by their order; outputs by index, else by order. Of its `parameters`
these are read: `INTRA_OP_THREAD_COUNT` and `INTER_OP_THREAD_COUNT`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from serving.backends.batching import Arrays, Signature, execute, model_file, parameter, read_config

_INDEXED = re.compile(r".*?__(\d+)")


class TritonPythonModel:
    """One execution instance of a TorchScript model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the module and work out the order of its arguments and results.

        Args:
            args: What Triton tells an instance: configuration, folder, version, device.

        Raises:
            FileNotFoundError: There is no model file.
            ValueError: `forward` takes another number of arguments than the configuration has inputs.
        """
        config = read_config(args)
        self._signature = Signature(config)
        path = model_file(args, config, "model.pt")
        threads = parameter(config, "INTRA_OP_THREAD_COUNT", 0)
        if threads > 0:
            torch.set_num_threads(threads)
        threads = parameter(config, "INTER_OP_THREAD_COUNT", 0)
        if threads > 0:
            torch.set_num_interop_threads(threads)
        self._device = _device(args)
        self._module = _load(path, self._device)
        arguments = [argument.name for argument in self._module.forward.schema.arguments if argument.name != "self"]
        self._input_order = input_order(list(self._signature.inputs), arguments)
        self._output_index = output_index(list(self._signature.outputs))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch."""
        return execute(requests, self._signature, self._run)

    def _run(self, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            arguments = [torch.from_numpy(inputs[name]).to(self._device) for name in self._input_order]
            result = self._module(*arguments)
        outputs = result if isinstance(result, tuple) else (result,)
        return {name: outputs[index].cpu().numpy() for name, index in self._output_index.items()}


def input_order(configured: list[str], arguments: list[str]) -> list[str]:
    """Order the configured inputs as `forward` takes them.

    Args:
        configured: Input names of the configuration.
        arguments: Argument names of `forward`, without self.

    Raises:
        ValueError: The numbers differ.
    """
    if len(configured) != len(arguments):
        raise ValueError(f"config.pbtxt has inputs {configured}, forward takes {arguments}")
    if set(configured) == set(arguments):
        return arguments
    if all(_INDEXED.fullmatch(name) for name in configured):
        return sorted(configured, key=_index)
    return configured


def output_index(configured: list[str]) -> dict[str, int]:
    """Map each configured output to its place in what `forward` returns."""
    if all(_INDEXED.fullmatch(name) for name in configured):
        return {name: _index(name) for name in configured}
    return {name: index for index, name in enumerate(configured)}


def _load(path: Path, device: torch.device) -> Any:
    load: Any = torch.jit.load  # not typed by torch
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.")  # deprecated, and still what this backend is for
        return load(str(path), map_location=device).eval()


def _index(name: str) -> int:
    match = _INDEXED.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} does not end in __<index>")
    return int(match.group(1))


def _device(args: dict[str, str]) -> torch.device:
    """Use CUDA only where Triton placed the instance on a GPU and this torch can."""
    if args["model_instance_kind"] == "GPU" and torch.cuda.is_available():
        return torch.device("cuda", int(args["model_instance_device_id"]))
    return torch.device("cpu")
