"""Rewrites of a message before the graph is built: sparse tensors become dense, map types are dropped."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from nvaudit.errors import ModelError
from nvaudit.model.check import Checked, check_tensor, count_elements

MAX_DENSE_BYTES = 2**30
ORIGIN_KEY = "nvaudit.origin"


def densify(proto: Any, checked: Checked) -> None:
    """Replace every sparse tensor by a dense one and drop map types, in place.

    Parameters
    ----------
    proto : onnx.ModelProto
        The message; it is changed.
    checked : Checked
        The result of ``check_model``.

    Raises
    ------
    ModelError
        If a sparse tensor is malformed, or too large when dense.
    """
    _densify_graph(proto.graph, checked)
    for function in proto.functions:
        for node in function.node:
            _densify_node(node, checked)


def _densify_graph(graph: Any, checked: Checked) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse, f"sparse initializer {sparse.values.name!r}", checked))
    del graph.sparse_initializer[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        if _holds_map(value.type):
            value.ClearField("type")
    for node in graph.node:
        _densify_node(node, checked)


def _densify_node(node: Any, checked: Checked) -> None:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            _densify_graph(attribute.g, checked)
        for graph in attribute.graphs:
            _densify_graph(graph, checked)
        if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
            dense = _dense(attribute.sparse_tensor, f"sparse Constant {node.name!r}", checked)
            attribute.Clear()
            attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
            attribute.t.CopyFrom(dense)


def _holds_map(type_proto: Any) -> bool:
    """Whether a type is a map, or a sequence or optional of one."""
    kind = type_proto.WhichOneof("value")
    if kind in ("sequence_type", "optional_type"):
        return _holds_map(getattr(type_proto, kind).elem_type)
    return bool(kind == "map_type")


def _dense(sparse: Any, place: str, checked: Checked) -> Any:
    """The dense tensor of a sparse one, marked with its origin."""
    where = f"{checked.path}: {place}"
    for part in (sparse.values, sparse.indices):
        if part.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(f"{where}: is both sparse and external; store it dense")
        check_tensor(part, place, checked)
    count = count_elements(sparse.dims, where)
    values = numpy_helper.to_array(sparse.values).reshape(-1)
    indices = numpy_helper.to_array(sparse.indices)
    if count * values.itemsize > MAX_DENSE_BYTES:
        raise ModelError(f"{where}: has {count} elements when dense; at most 1 GiB is expanded")
    flat = _flat_indices(indices, tuple(sparse.dims), where)
    if flat.size != values.size or (flat.size and not 0 <= flat.min() <= flat.max() < count):
        raise ModelError(f"{where}: its indices do not fit its shape {list(sparse.dims)}; export again")
    array = np.zeros(count, values.dtype)
    array[flat] = values
    dense = numpy_helper.from_array(array.reshape(tuple(sparse.dims)), sparse.values.name)
    entry = dense.metadata_props.add()
    entry.key, entry.value = ORIGIN_KEY, "sparse"
    return dense


def _flat_indices(indices: Any, dims: tuple[int, ...], where: str) -> Any:
    """Linear indices, from linear ones or from coordinates, shape (stored, rank)."""
    if indices.dtype != np.int64:
        raise ModelError(f"{where}: its indices are {indices.dtype}, not int64; export again")
    if indices.ndim == 1:
        return indices
    if indices.ndim != 2 or indices.shape[1] != len(dims) or (indices < 0).any():
        raise ModelError(f"{where}: its indices have shape {list(indices.shape)}; export again")
    if indices.size and (indices >= np.asarray(dims)).any():
        raise ModelError(f"{where}: its indices do not fit its shape {list(dims)}; export again")
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    return indices @ np.asarray(strides, np.int64)
