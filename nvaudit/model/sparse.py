"""Rewrites of a message before the graph is built: sparse tensors become dense, map types are dropped."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from nvaudit.errors import ModelError
from nvaudit.model.check import CheckedModel, check_tensor, count_elements

MAX_DENSE_BYTES = 2**30
_STRING_BYTES = 64  # about what an empty string in a message takes
ORIGIN_KEY = "nvaudit.origin"


def densify(proto: Any, checked: CheckedModel) -> None:
    """Replace every sparse tensor by a dense one and drop map types, in place.

    Parameters
    ----------
    proto : onnx.ModelProto
        The message; it is changed.
    checked : CheckedModel
        The result of ``check_model``.

    Raises
    ------
    ModelError
        If a sparse tensor is malformed, or too large when dense.
    """
    _check_total(proto, checked)
    _densify_graph(proto.graph, checked)
    for function in proto.functions:
        for node in function.node:
            _densify_node(node, checked)


def _check_total(proto: Any, checked: CheckedModel) -> None:
    """Add up what all sparse tensors are when dense, before any is expanded: a few bytes stand for each."""
    total = 0
    for sparse, place in _sparse_tensors(proto):
        where = f"{checked.path}: {place}"
        count = count_elements(sparse.dims, where)
        nbytes = count * _element_bytes(sparse.values, where)
        if nbytes > MAX_DENSE_BYTES:
            raise ModelError(f"{where}: has {count} elements when dense; at most 1 GiB is expanded")
        total += nbytes
        if total > MAX_DENSE_BYTES:
            raise ModelError(
                f"{where}: with it all sparse tensors need more than {MAX_DENSE_BYTES} bytes when dense; "
                "at most 1 GiB is expanded in all: store them dense, as external data"
            )


def _sparse_tensors(proto: Any) -> Iterator[tuple[Any, str]]:
    """Yield every sparse tensor that is expanded, at any depth, with its place in words."""
    nodes = [node for function in proto.functions for node in function.node]
    graphs = [proto.graph]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            for sparse in graph.sparse_initializer:
                yield sparse, f"sparse initializer {sparse.values.name!r}"
            nodes.extend(graph.node)
            continue
        node = nodes.pop()
        for attribute in node.attribute:
            graphs.extend(attribute.graphs)
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            if _is_sparse_value(attribute):
                yield attribute.sparse_tensor, f"sparse Constant {node.name!r}"


def _is_sparse_value(attribute: Any) -> bool:
    return bool(attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"))


def _element_bytes(tensor: Any, where: str) -> int:
    if tensor.data_type == onnx.TensorProto.STRING:
        return _STRING_BYTES
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{where}: unknown element type {tensor.data_type}; export the model again"
        ) from error


def _densify_graph(graph: Any, checked: CheckedModel) -> None:
    for sparse in graph.sparse_initializer:
        _dense(sparse, f"sparse initializer {sparse.values.name!r}", checked, graph.initializer.add())
    del graph.sparse_initializer[:]
    for value in (*graph.input, *graph.output, *graph.value_info):
        if _holds_map(value.type):
            value.ClearField("type")
    for node in graph.node:
        _densify_node(node, checked)


def _densify_node(node: Any, checked: CheckedModel) -> None:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            _densify_graph(attribute.g, checked)
        for graph in attribute.graphs:
            _densify_graph(graph, checked)
        if _is_sparse_value(attribute):
            sparse = onnx.SparseTensorProto()
            sparse.CopyFrom(attribute.sparse_tensor)
            attribute.Clear()
            attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
            _dense(sparse, f"sparse Constant {node.name!r}", checked, attribute.t)


def _holds_map(type_proto: Any) -> bool:
    """Whether a type is a map, or a sequence or optional of one."""
    kind = type_proto.WhichOneof("value")
    if kind in ("sequence_type", "optional_type"):
        return _holds_map(getattr(type_proto, kind).elem_type)
    return bool(kind == "map_type")


def _dense(sparse: Any, place: str, checked: CheckedModel, dense: Any) -> None:
    """Fill a tensor message with a sparse one, marked with its origin."""
    where = f"{checked.path}: {place}"
    for part in (sparse.values, sparse.indices):
        if part.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(f"{where}: is both sparse and external; store it dense")
        check_tensor(part, place, checked)
    count = count_elements(sparse.dims, where)
    values = numpy_helper.to_array(sparse.values).reshape(-1)
    indices = numpy_helper.to_array(sparse.indices)
    flat = _flat_indices(indices, tuple(sparse.dims), where)
    if flat.size != values.size or (flat.size and not 0 <= flat.min() <= flat.max() < count):
        raise ModelError(f"{where}: its indices do not fit its shape {list(sparse.dims)}; export again")
    array = np.zeros(count, values.dtype)
    array[flat] = values
    if values.dtype.kind in "biufc" and sys.byteorder == "little":
        # In place: a copy of the message would hold the bytes once more.
        dense.dims.extend(sparse.dims)
        dense.data_type, dense.name = sparse.values.data_type, sparse.values.name
        dense.raw_data = array.tobytes()
    else:  # text, and types that numpy does not know
        dense.CopyFrom(numpy_helper.from_array(array.reshape(tuple(sparse.dims)), sparse.values.name))
    entry = dense.metadata_props.add()
    entry.key, entry.value = ORIGIN_KEY, "sparse"


def _flat_indices(indices: Any, dims: tuple[int, ...], where: str) -> Any:
    """Linear indices, from linear ones or from coordinates, shape (stored, rank)."""
    if indices.dtype != np.int64:
        raise ModelError(f"{where}: its indices are {indices.dtype}, not int64; export again")
    if indices.ndim == 1:
        return indices
    if indices.ndim != 2 or indices.shape[1] != len(dims) or (indices < 0).any():
        raise ModelError(f"{where}: its indices have shape {list(indices.shape)}; export again")
    # Each axis by itself: too large a coordinate can still be the linear index of another element.
    if indices.size and (indices >= np.asarray(dims)).any():
        raise ModelError(f"{where}: its indices do not fit its shape {list(dims)}; export again")
    # Row-major: the linear index is Σ_k i_k Π_{l>k} d_l.
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    return indices @ np.asarray(strides, np.int64)
