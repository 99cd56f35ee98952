"""The exported graph as OpenVINO's own files, model.xml and model.bin, and their run on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from serving.contract.openvino_engine import OpenVINOError, compile_model, import_openvino
from serving.contract.tensors import OUTPUTS

Array = np.ndarray[Any, np.dtype[Any]]


def export_openvino(onnx: Path, path: Path) -> None:
    """Write an ONNX file as OpenVINO's intermediate representation; weights stay in float32.

    Args:
        onnx: The ONNX file, with the weights beside it if they are apart.
        path: `.xml`; the weights go to the `.bin` beside it.

    Raises:
        ExportError: OpenVINO is not installed, or cannot read the graph.
    """
    try:
        openvino = import_openvino()
        model = openvino.Core().read_model(str(onnx))
        for tensor in (*model.inputs, *model.outputs):  # Triton's backend takes any name, so there is to be but one
            tensor.get_tensor().set_names({_name_of(tensor)})
        openvino.save_model(model, str(path), compress_to_fp16=False)
    except (OpenVINOError, RuntimeError) as error:
        raise ExportError(f"OpenVINO export failed: {str(error).splitlines()[0][:300]}") from None


class OpenVINOEditor:
    """The exported files under OpenVINO on the CPU, as the embedded server runs them."""

    def __init__(self, path: Path, precision: str = "f32", threads: int = 0) -> None:
        """Load the model.

        Args:
            path: The `.xml` file.
            precision: Of the arithmetic, `f32` or `bf16`.
            threads: 0 for OpenVINO's own choice.

        Raises:
            ExportError: OpenVINO cannot load it.
        """
        try:
            self.request = compile_model(path, precision, threads).create_infer_request()
        except OpenVINOError as error:
            raise ExportError(str(error)) from None

    def __call__(self, *inputs: Array) -> tuple[Array, Array]:
        """Run on numpy arrays in `forward`'s order; return (image, valid)."""
        self.request.infer(list(inputs))
        # Copies: the next call writes into the same memory.
        image, valid = (self.request.get_tensor(name).data.copy() for name in OUTPUTS)
        return image, valid.astype(np.bool_)


def _name_of(tensor: Any) -> str:
    """Return the name that ONNX gave an input or output, of those that OpenVINO may have added."""
    names = tensor.get_names()
    known = [name for name in (*OUTPUTS, "z", "w", "direction", "alpha", "class_id") if name in names]
    return known[0] if known else tensor.any_name
