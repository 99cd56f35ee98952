"""`backend: "openvino"`: runs `<version>/model.xml` with OpenVINO on the CPU, as NVIDIA's C++ backend does.

The same `config.pbtxt` serves both. Of the C++ backend's `parameters` these are read: `INFERENCE_NUM_THREADS` (0:
OpenVINO's own choice), `PERFORMANCE_HINT`, `NUM_STREAMS` and `HINT_BF16`. Without that last one this backend computes
in float32; NVIDIA's leaves the choice to OpenVINO, which takes bfloat16 where the CPU has it. `MAX_ROWS` is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving.backends.batching import Arrays, Signature, execute, model_file, parameter, read_config
from serving.contract.layout import BF16, MAX_ROWS
from serving.contract.openvino_engine import Runner

_PASSED_ON = ("PERFORMANCE_HINT", "NUM_STREAMS")


class TritonPythonModel:
    """One execution instance of an OpenVINO model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the model and check that it has the configured inputs and outputs.

        Args:
            args: What Triton tells an instance: configuration, folder, version, device.

        Raises:
            FileNotFoundError: There is no model file.
            OpenVINOError: OpenVINO is not installed, cannot load the model, or not compute in bfloat16 here.
            ValueError: The model's names differ from the configuration's.
        """
        config = read_config(args)
        self._signature = Signature(config)
        path = model_file(args, config, "model.xml")
        self._max_rows = parameter(config, MAX_ROWS, 0)
        parameters = {key: entry["string_value"] for key, entry in config.get("parameters", {}).items()}
        self._model = Runner(
            path,
            "bf16" if parameters.get(BF16, "").upper() == "YES" else "f32",
            parameter(config, "INFERENCE_NUM_THREADS", 0),
            {key: parameters[key].upper() for key in _PASSED_ON if key in parameters},
        )
        self._signature.require(self._model.inputs, self._model.outputs, "model.xml")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, each of which is a batch of its own."""
        return execute(requests, self._signature, self._run)

    def _run(self, inputs: Arrays) -> Arrays:
        rows = len(next(iter(inputs.values())))
        if 0 < self._max_rows < rows:
            raise ValueError(f"a request may have at most {self._max_rows} rows, got {rows}")
        return self._model(inputs)
