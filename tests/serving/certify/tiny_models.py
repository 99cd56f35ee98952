"""Published models that are then made other than they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def nudge(version: Path, factor: float) -> None:
    """Scale the largest kernel of the published graph in a version's folder."""
    model = onnx.load(str(version / "model.onnx"))
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16)
    kernels = [tensor for tensor in model.graph.initializer if tensor.data_type in kinds and len(tensor.dims) == 4]
    tensor = max(kernels, key=lambda kernel: np.prod(kernel.dims))
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(array * array.dtype.type(factor), tensor.name))
    onnx.save(model, str(version / "model.onnx"))
