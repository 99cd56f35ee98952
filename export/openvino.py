"""The exported graph as OpenVINO's own files, model.xml and model.bin, and their run on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from serving.contract.openvino_engine import OpenVINOError, Runner, core, import_openvino
from serving.contract.tensors import ALPHA, CLASS_ID, DIRECTION, OUTPUTS, PICTURE, ZERO_ALPHA, ZERO_DIRECTION

MODEL = "model.xml"
Array = np.ndarray[Any, np.dtype[Any]]


def export_openvino(onnx: Path, path: Path) -> None:
    """Write an ONNX file as OpenVINO's intermediate representation; weights stay in float32.

    Args:
        onnx: The ONNX file, with the weights beside it if they are apart.
        path: `.xml`; the weights go to the `.bin` beside it.

    Raises:
        ExportError: OpenVINO is not installed, or cannot read the graph.
    """
    save_model(read_onnx(onnx), path)


def read_onnx(path: Path) -> Any:
    """Read an ONNX file as an `openvino.Model`, with one name for each input and output.

    Raises:
        ExportError: OpenVINO is not installed, or cannot read the graph.
    """
    try:
        model = core().read_model(str(path))
    except (OpenVINOError, RuntimeError) as error:
        raise ExportError(f"OpenVINO cannot read the graph: {str(error).splitlines()[0][:300]}") from None
    for tensor in (*model.inputs, *model.outputs):  # Triton's backend takes any of the names, so there is to be but one
        tensor.get_tensor().set_names({_name_of(tensor)})
    return model


def save_model(model: Any, path: Path) -> None:
    """Write an `openvino.Model`, `.xml` and `.bin`, with its weights in the types that they have.

    Raises:
        ExportError: OpenVINO cannot write it.
    """
    try:
        import_openvino().save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot write {path}: {str(error).splitlines()[0][:300]}") from None


class OpenVINOEditor:
    """The exported files under OpenVINO on the CPU, as the embedded server runs them."""

    def __init__(self, path: Path, precision: str = "f32", threads: int = 0, outputs: Sequence[str] = OUTPUTS) -> None:
        """Load the model.

        Args:
            path: The `.xml` file.
            precision: Of the arithmetic, `f32` or `bf16`.
            threads: 0 for OpenVINO's own choice.
            outputs: Which two to return.

        Raises:
            ExportError: OpenVINO cannot load it.
        """
        self.outputs = tuple(outputs)
        try:
            self.model = Runner(path, precision, threads)
        except OpenVINOError as error:
            raise ExportError(str(error)) from None

    def __call__(self, *inputs: Array) -> tuple[Array, Array]:
        """Run on numpy arrays in `forward`'s order; return (image, valid)."""
        drawn = self.model(dict(zip(self.model.inputs, inputs, strict=True)))
        image, valid = (drawn[name] for name in self.outputs)
        return image, valid.astype(np.bool_)


def _name_of(tensor: Any) -> str:
    """Return the name that ONNX gave an input or output, of those that OpenVINO may have added."""
    names = tensor.get_names()
    ours = (*OUTPUTS, "z", "w", DIRECTION, ALPHA, CLASS_ID, PICTURE, ZERO_DIRECTION, ZERO_ALPHA)
    known = [name for name in ours if name in names]
    return known[0] if known else tensor.any_name
