"""Names of other files in ONNX models, wherever a tensor can stand, against onnx's own reader of the format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tiny_networks import OPSET, colour_network, model_with_everything_external, outside, with_subgraph

from latentclr.scores import external_data
from latentclr.scores.external_data import external_files


def tensor(name):
    return outside(helper.make_tensor("t", TensorProto.FLOAT, [2, 3], bytes(24), raw=True), name)


def in_a_function():
    node = helper.make_node("Constant", [], ["y"], value=tensor("f.data"))
    function = helper.make_function("own", "F", [], ["y"], [node], OPSET)
    model = colour_network(np.eye(3), [0, 0, 0])
    model.functions.append(function)
    return model


def in_a_list_of_tensors():
    model = colour_network(np.eye(3), [0, 0, 0])
    model.graph.node[0].attribute.add(name="many", type=9).tensors.append(tensor("l.data"))
    return model


def in_a_sparse_tensor():
    model = colour_network(np.eye(3), [0, 0, 0])
    model.graph.sparse_initializer.add().values.CopyFrom(tensor("s.data"))
    model.graph.sparse_initializer.add().indices.CopyFrom(tensor("i.data"))
    return model


def in_training_info():
    model = colour_network(np.eye(3), [0, 0, 0])
    model.training_info.add().algorithm.initializer.append(tensor("a.data"))
    return model


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (colour_network(np.eye(3), [0, 0, 0]), set()),
        (model_with_everything_external("x/y.data"), {"x/y.data"}),
        (with_subgraph(tensor("branch.data")), {"branch.data"}),
        (in_a_function(), {"f.data"}),
        (in_a_list_of_tensors(), {"l.data"}),
        (in_a_sparse_tensor(), {"s.data", "i.data"}),
        (in_training_info(), {"a.data"}),
    ],
)
def test_every_place(model, names):
    assert external_files(model.SerializeToString()) == names


def test_the_order_of_key_and_value_does_not_matter():
    """Protobuf lets a writer choose; whoever hides a name would."""
    entry = bytes([0x12, 3]) + b"../" + bytes([0x0A, 8]) + b"location"
    message = bytes([13 << 3 | 2, len(entry)]) + entry
    initial = bytes([5 << 3 | 2, len(message)]) + message
    model = bytes([7 << 3 | 2, len(initial)]) + initial
    assert external_files(model) == {"../"}
    # Numbers may be longer than they need to be.
    entry = bytes([0x0A, 0x88, 0x00]) + b"location" + bytes([0x12, 3]) + b"../"
    message = bytes([13 << 3 | 2, len(entry)]) + entry
    initial = bytes([5 << 3 | 2, len(message)]) + message
    assert external_files(bytes([7 << 3 | 2, len(initial)]) + initial) == {"../"}


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data):
    try:
        assert isinstance(external_files(data), set)
    except ValueError as error:
        assert "\n" not in str(error)


def test_bounds(monkeypatch):
    deep = b""
    for _ in range(200):
        deep = bytes([2 << 3 | 2]) + varint(len(deep)) + deep  # no field of a model: skipped, not followed
    assert external_files(deep) == set()
    inner = b""
    for _ in range(40):  # a graph in an attribute in a node in a graph ...
        inner = field(1, field(5, field(6, inner)))
    with pytest.raises(ValueError, match="is nested more than 64 deep"):
        external_files(field(7, inner))
    monkeypatch.setattr(external_data, "_MOST_FIELDS", 1000)
    assert external_files(field(2, b"") * 1000) == set()
    with pytest.raises(ValueError, match="has more than 1000 parts"):
        external_files(field(2, b"") * 1001)


def field(number, content):
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
