"""The editor as ONNX, through torch.export."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.editor import FusedEditor
from export.errors import ExportError
from export.reasons import reason_of
from serving.contract.tensors import ALPHA, CLASS_ID, DIRECTION, OUTPUTS

Array = np.ndarray[Any, np.dtype[Any]]

OPSET = 18  # the oldest that torch.export writes; every production Triton's ONNX Runtime reads it
SPLIT_BYTES = 64 << 20  # a generator of more than this has a file of its own
_PREFIX = "generator."  # of the editor's parameters that belong to the generator
_PAGE = 4096  # ONNX Runtime maps tensors that begin at one into memory instead of copying them


def export_onnx(editor: FusedEditor, path: Path, opset: int = OPSET) -> None:
    """Write the editor as one ONNX file with dynamic N and M.

    Args:
        editor: The editor, on the CPU.
        path: Where to write; small models hold their weights inside.
        opset: ONNX operator set, in [18, 20].

    Raises:
        ExportError: The opset is out of range, or torch cannot export or ONNX not check the graph.
    """
    n, m = torch.export.Dim("N", min=1), torch.export.Dim("M", min=0)
    dynamic = {"z": {0: n}, DIRECTION: {0: n, 1: m}, ALPHA: {0: n, 1: m}, CLASS_ID: {0: n}}
    shapes = {name: dynamic[name] for name in editor.input_names}
    # Batch and edit counts above 1 keep torch.export from specialising; three is no size of anything else here.
    write_onnx(editor, editor.example_inputs(3, 2), shapes, OUTPUTS, path, opset)


def write_onnx(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    shapes: Mapping[str, Mapping[int, Any]],
    outputs: Sequence[str],
    path: Path,
    opset: int = OPSET,
) -> None:
    """Write a module as one ONNX file.

    Args:
        module: On the CPU.
        example: Inputs to trace it with.
        shapes: Input name -> axis -> `torch.export.Dim` of the dynamic axes, in `forward`'s order.
        outputs: Names of its outputs.
        path: Where to write; small models hold their weights inside.
        opset: ONNX operator set, in [18, 20].

    Raises:
        ExportError: As `export_onnx`.
    """
    if not 18 <= opset <= 20:
        raise ExportError(f"opset must be in [18, 20] (what production Triton's ONNX Runtime reads), got {opset}")
    try:
        with warnings.catch_warnings(), _quiet("torch", "torch.onnx", "onnxscript", "onnx_ir"):
            warnings.simplefilter("ignore")  # of the exporter's own internals
            # Where it stops, it prints the graph so far.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                torch.onnx.export(
                    module,
                    example,
                    str(path),
                    input_names=list(shapes),
                    output_names=list(outputs),
                    dynamic_shapes={name: dict(axes) for name, axes in shapes.items()},
                    opset_version=opset,
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                )
        onnx.checker.check_model(str(path))
    except Exception as error:  # torch.onnx raises a family of its own, and whatever its passes raise
        raise ExportError(f"ONNX export failed: {reason_of(error)}") from error


def read_graph(path: Path) -> Any:
    """Return an ONNX file that was just exported as its protobuf, with its weights."""
    return onnx.load(str(path))


def rename_input(path: Path, old: str, new: str) -> None:
    """Rename an input of an ONNX file; TorchScript's stay, since servers fall back to the order of inputs.

    Raises:
        ExportError: The new name is taken.
    """
    model = onnx.load(str(path), load_external_data=False)
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if new in taken | {tensor.name for tensor in (*model.graph.initializer, *model.graph.input)}:
        raise ExportError(f"the graph has a value called {new} already")
    for tensor in model.graph.input:
        tensor.name = new if tensor.name == old else tensor.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    onnx.save(model, str(path))


def split_weights(path: Path, weights: Path, larger_than: int = SPLIT_BYTES) -> bool:
    """Move the tensors of a large generator out of an ONNX file into one of their own.

    Directions found for one generator then share that file, which has the same bytes whatever the directions are.

    Args:
        path: The ONNX file, rewritten in place.
        weights: The file to write, in the same folder.
        larger_than: Bytes of the generator's tensors above which it is done.

    Returns:
        Whether it was done.

    Raises:
        ExportError: ONNX does not accept the result.
    """
    model = onnx.load(str(path))
    own = sorted((t for t in model.graph.initializer if _is_weight(t)), key=lambda tensor: str(tensor.name))
    if sum(len(tensor.raw_data) for tensor in own) <= larger_than:
        return False
    with open(weights, "wb") as file:
        for tensor in own:
            file.write(b"\0" * (-file.tell() % _PAGE))
            onnx.external_data_helper.set_external_data(tensor, weights.name, file.tell(), len(tensor.raw_data))
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
    try:
        path.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(path))
    except Exception as error:  # onnx raises its checker's, protobuf's and the system's
        raise ExportError(f"the weights of {path} cannot be split off: {str(error).splitlines()[0][:300]}") from error
    return True


def _is_weight(tensor: Any) -> bool:
    return bool(tensor.name.startswith(_PREFIX)) and len(tensor.raw_data) >= 1024


class OnnxEditor:
    """The exported graph under ONNX Runtime on the CPU, as the server runs it."""

    def __init__(self, path: Path, threads: int = 0, outputs: Sequence[str] = OUTPUTS) -> None:
        """Load the graph.

        Args:
            path: The ONNX file.
            threads: For one operator; 0 for ONNX Runtime's choice.
            outputs: Which two to return.

        Raises:
            ExportError: onnxruntime is not installed, or cannot load the graph.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ExportError(
                "onnxruntime is not installed: pip install 'latentclr[cpu]' (or 'latentclr[gpu]')"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise ExportError(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}") from None
        self.names, self.outputs = [node.name for node in self.session.get_inputs()], list(outputs)

    def __call__(self, *inputs: Array, options: Any = None) -> tuple[Array, Array]:
        """Run on numpy arrays in `forward`'s order, with an `onnxruntime.RunOptions` or none; return (image, valid)."""
        image, valid = self.session.run(self.outputs, dict(zip(self.names, inputs, strict=True)), options)
        return image, valid


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    loggers = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    for log, _ in loggers:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in loggers:
            log.setLevel(level)
