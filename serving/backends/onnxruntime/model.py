"""`backend: "onnxruntime"`: runs `<version>/model.onnx` with ONNX Runtime, as NVIDIA's C++ backend does.

The same `config.pbtxt` serves both. Of the C++ backend's `parameters` these are read: `intra_op_thread_count` and
`inter_op_thread_count` (0: ONNX Runtime's own choice, one thread a core).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnxruntime as ort

from serving.backends.batching import Arrays, Signature, execute, model_file, parameter, read_config


class TritonPythonModel:
    """One execution instance of an ONNX model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session and check that it has the configured inputs and outputs.

        Args:
            args: What Triton tells an instance: configuration, folder, version, device.

        Raises:
            FileNotFoundError: There is no model file.
            ValueError: The model's names differ from the configuration's.
        """
        config = read_config(args)
        self._signature = Signature(config)
        path = model_file(args, config, "model.onnx")
        options = ort.SessionOptions()
        options.intra_op_num_threads = parameter(config, "intra_op_thread_count", 0)
        options.inter_op_num_threads = parameter(config, "inter_op_thread_count", 0)
        self._session = ort.InferenceSession(str(path), sess_options=options, providers=_providers(args))
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._signature.require([entry.name for entry in inputs], [entry.name for entry in outputs], "model.onnx")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch."""
        return execute(requests, self._signature, self._run)

    def _run(self, inputs: Arrays) -> Arrays:
        names = list(self._signature.outputs)
        return dict(zip(names, self._session.run(names, inputs), strict=True))


def _providers(args: dict[str, str]) -> list[Any]:
    """Use CUDA only where Triton placed the instance on a GPU and this ONNX Runtime can."""
    if args["model_instance_kind"] == "GPU" and "CUDAExecutionProvider" in ort.get_available_providers():
        # CUDA and cuDNN from wheels lie where no linker looks; ONNX Runtime from 1.21 on knows these places.
        getattr(ort, "preload_dlls", lambda: None)()
        return [("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
