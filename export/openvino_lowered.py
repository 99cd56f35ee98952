"""OpenVINO's graph in bfloat16 or int8, where any convolution can stay in float32.

The types stand in the graph itself, and all the rest is computed in float32: a hint to the whole engine could not keep
an operation back, since the marks that OpenVINO has for that are lost where its plugin rewrites operations.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from export.errors import ExportError
from export.openvino import MODEL, OpenVINOEditor, read_onnx, save_model
from export.operations import find_operations
from export.parity import Arrays
from export.precision import Built, Operation
from serving.contract.openvino_engine import has_bf16, import_openvino

CALIBRATION = 300  # batches at most, of which NNCF takes the ranges
_LOWERED = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "MatMul")


class BFloat16Graph:
    """The editor with convolutions, and products of what they draw, in bfloat16 between casts."""

    engine, precision = "openvino", "bf16"

    def __init__(self, path: Path, emulated: bool = False) -> None:
        """Read the ONNX graph in float32.

        Args:
            path: The file.
            emulated: Do without a CPU that has bfloat16: on one with AVX-512 OpenVINO emulates it, slowly.

        Raises:
            ExportError: This CPU has no bfloat16, so that what is published could not be tried.
        """
        if not emulated and not has_bf16():
            raise ExportError("openvino bf16 needs a CPU with AVX-512 BF16 or AMX, which this one lacks; try int8")
        self._model = read_onnx(path)
        self._nodes, self.operations = _operations(path, self._model)

    def build(self, keep: frozenset[str], folder: Path) -> Built:
        """Write the graph with casts around all operations but `keep`; see `precision.Lowered`."""
        openvino = import_openvino()
        from openvino import opset13 as ops

        model = self._model.clone()
        names = {node: name for name, node in self._nodes.items() if name not in keep}
        for node in [node for node in model.get_ordered_ops() if node.get_friendly_name() in names]:
            readers = node.output(0).get_target_inputs()
            for port in node.inputs():
                source = port.get_source_output()
                if source.get_node().get_type_name() == "Constant":
                    # OpenVINO would cut the lower bits off, with twice the error of rounding, and all of one sign.
                    nearest = torch.tensor(source.get_node().get_data()).bfloat16().float().numpy()
                    small = ops.constant(nearest, openvino.Type.bf16)
                else:
                    small = ops.convert(source, "bf16")
                port.replace_source_output(small.output(0))
            back = ops.convert(node, "f32").output(0)
            for reader in readers:
                reader.replace_source_output(back)
        model.validate_nodes_and_infer_types()
        return _built(model, folder)


class Int8Graph:
    """The editor with convolutions in int8: per channel and symmetric for weights, as NNCF calibrates activations."""

    engine, precision = "openvino", "int8"

    def __init__(self, path: Path, calibration: Sequence[Arrays]) -> None:
        """Read the ONNX graph in float32 and calibrate it, once for all choices of operations.

        Args:
            path: The file.
            calibration: The editor's inputs, in `forward`'s order: edited samples over all directions.

        Raises:
            ExportError: NNCF is not installed, or cannot quantise the graph.
        """
        self._model = _with_constant_weights(read_onnx(path))
        self._nodes, found = _operations(path, self._model)
        kinds = {node.get_friendly_name(): node.get_type_name() for node in self._model.get_ops()}
        self.operations = [operation for operation in found if kinds[self._nodes[operation.name]] != "MatMul"]
        lowered = {self._nodes[operation.name] for operation in self.operations}
        names = [tensor.any_name for tensor in self._model.inputs]
        data = [dict(zip(names, inputs, strict=True)) for inputs in calibration[:CALIBRATION]]
        others = [
            node.get_friendly_name()
            for node in self._model.get_ops()
            if node.get_friendly_name() not in lowered
            and node.get_type_name() not in ("Constant", "Parameter", "Result")
        ]
        self._quantised = _quantise(self._model, data, others)

    def build(self, keep: frozenset[str], folder: Path) -> Built:
        """Write the graph with all operations but `keep` between quantisers; see `precision.Lowered`."""
        from openvino import opset13 as ops

        model, original = self._quantised.clone(), {n.get_friendly_name(): n for n in self._model.get_ops()}
        kept = {self._nodes[name] for name in keep}
        for node in [node for node in model.get_ordered_ops() if node.get_friendly_name() in kept]:
            signal, weight = node.input(0), node.input(1)
            if (before := signal.get_source_output().get_node()).get_type_name() == "FakeQuantize":
                signal.replace_source_output(before.input_value(0))
            constant = original[node.get_friendly_name()].input_value(1).get_node()  # NNCF stores it in int8
            weight.replace_source_output(ops.constant(constant.get_data()).output(0))
        model.validate_nodes_and_infer_types()
        return _built(model, folder)


def _with_constant_weights(model: Any) -> Any:
    """Compute what is constant: to OpenVINO, depthwise convolutions have weights that are reshaped at run time."""
    import_openvino()
    from openvino.passes import ConstantFolding, Manager

    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    return model


def _operations(path: Path, model: Any) -> tuple[dict[str, str], list[Operation]]:
    """Return the node of each operation by name, and the operations, of those that this engine can lower."""
    graph = onnx.load(str(path))
    found = find_operations(graph)
    there: dict[str, str] = {}
    for node in model.get_ops():
        if node.get_type_name() in _LOWERED:
            name = node.get_friendly_name()
            node.set_friendly_name(name)  # one that OpenVINO made up would change with a copy of the model
            # Where it splits an operation from its bias, it is the addition that has ONNX's name.
            after = [port.get_node() for port in node.output(0).get_target_inputs()]
            biased = [other.get_friendly_name() for other in after if other.get_type_name() == "Add"]
            there |= dict.fromkeys([name, name.removesuffix("/WithoutBiases"), *biased], name)
    named = {name: graph.graph.node[index].name for name, index in found.nodes.items()}
    nodes = {name: there[node] for name, node in named.items() if node in there}
    return nodes, [operation for operation in found.operations if operation.name in nodes]


def _built(model: Any, folder: Path) -> Built:
    path = folder / MODEL
    save_model(model, path)
    return Built([path, path.with_suffix(".bin")], OpenVINOEditor(path))


def _quantise(model: Any, data: Sequence[Any], ignored: list[str]) -> Any:
    import_openvino()  # without its telemetry, which is NNCF's too
    try:
        with _quiet():
            import nncf
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet

            return nncf.quantize(
                model.clone(),
                nncf.Dataset(data),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(data),
                ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
                # NNCF's own choice, the mean of the samples' ranges, cuts the strongest edits off, and the whole range
                # makes all others coarse.
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
                ),
            )
    except ModuleNotFoundError as error:
        raise ExportError(f"int8 with OpenVINO needs {error.name}: pip install 'latentclr[openvino]'") from None
    except Exception as error:  # NNCF's and OpenVINO's have no common base
        raise ExportError(f"NNCF cannot quantise the graph: {str(error).splitlines()[0][:300]}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    log = logging.getLogger("nncf")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the packages that NNCF imports
        log.setLevel(logging.ERROR)
        yield
