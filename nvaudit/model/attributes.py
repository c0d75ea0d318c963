"""Coefficients that operators of ai.onnx.ml hold in attributes instead of tensors.

Linear models are opened: a product with the coefficients is put before the operator, which keeps the rest of
its work (labels, transforms of scores) with the identity as its matrix. Others are listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from nvaudit.model.build import Builder, Names
from nvaudit.model.sparse import ORIGIN_KEY
from nvaudit.model.walk import Place, attribute, places

DOMAIN = "ai.onnx.ml"
_LINEAR = frozenset({"LinearClassifier", "LinearRegressor"})
_FIRST_GEMM = 7  # operator set from which on its bias is broadcast
_OPSET = 13  # where the model has no operator of ONNX's own domain
_OPENED, _REPLACED = "opened", ("coefficients", "intercepts")


@dataclass(frozen=True)
class Coefficients:
    """Numbers in an attribute of an operator, and why they stay digital."""

    name: str
    path: str
    op: str
    size: int
    reason: str


def open_linear(model: ir.Model) -> None:
    """Put a product before every linear model, in place.

    X·C + b goes to the operator instead of X, and the identity and zeros to where C and b stood: the identity
    adds exact zeros only, so that scores, labels and transforms stay what they were to the last bit.

    Parameters
    ----------
    model : onnx_ir.Model
        The model, without functions; it is changed.
    """
    linear = [place for place in places(model.graph) if _is_linear(place.node)]
    if not linear:
        return
    if model.opset_imports.setdefault("", _OPSET) < _FIRST_GEMM:
        return
    names = Names(model.graph)
    for place in linear:
        _open(place, names)


def is_opened(node: ir.Node) -> bool:
    """Whether a product was put before a linear model, which has the identity and zeros left.

    A file that was written from an opened model has no mark of ours, and the same numbers.
    """
    if node.domain != DOMAIN or node.op_type not in _LINEAR:
        return False
    if node.metadata_props.get(ORIGIN_KEY) == _OPENED:
        return True
    count = _outputs(node)
    matrix = np.asarray(attribute(node, "coefficients", ()), np.float32)
    same = matrix.size == count * count > 0 and np.array_equal(matrix.reshape(count, count), np.eye(count))
    return bool(same and not np.any(attribute(node, "intercepts", ())))


def listed_coefficients(graph: ir.Graph) -> Iterator[Coefficients]:
    """Yield what operators hold in attributes and no device holds."""
    for place in places(graph):
        node = place.node
        if node.domain != DOMAIN:
            continue
        for given in node.attributes.values():
            opened = is_opened(node) and given.name in _REPLACED
            size = 0 if opened or given.is_ref() else _size(given)
            if size:
                where = f"attribute of {node.op_type} '{place.label}'"
                reason = f"{given.name.replace('_', ' ')} in an {where}: {_why(node)}; stays digital"
                yield Coefficients(f"{place.label}/{given.name}", place.path, node.op_type, size, reason)


def _size(given: ir.Attr) -> int:
    """Numbers in an attribute, floats only."""
    if given.type == ir.AttributeType.FLOATS:
        return len(given.as_floats())
    if given.type != ir.AttributeType.TENSOR:
        return 0
    tensor = given.as_tensor()
    return int(np.prod(tensor.shape.numpy())) if tensor.dtype.is_floating_point() else 0


def _why(node: ir.Node) -> str:
    if node.op_type.startswith("TreeEnsemble"):
        return "a tree compares, it does not multiply"
    if node.op_type.startswith("SVM"):
        return "kernels with support vectors are not mapped"
    if node.op_type in _LINEAR:
        return "not one intercept for each output, input other than float32, or operator set too old"
    return "no product takes them"


def _is_linear(node: ir.Node) -> bool:
    if node.domain != DOMAIN or node.op_type not in _LINEAR or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "LinearRegressor" and node.inputs[0].dtype not in (None, ir.DataType.FLOAT):
        return False  # no other type is implemented
    outputs = _outputs(node)
    count, added = len(attribute(node, "coefficients", ())), len(attribute(node, "intercepts", ()))
    optional = added == 0 and node.op_type == "LinearRegressor"
    if is_opened(node):
        return False
    return outputs > 0 and (added == outputs or optional) and count > 0 and count % outputs == 0


def _outputs(node: ir.Node) -> int:
    given = attribute(node, "targets", 1) if node.op_type == "LinearRegressor" else None
    return len(attribute(node, "intercepts", ())) if given is None else int(given)


def _open(place: Place, names: Names) -> None:
    node = place.node
    node.name = node.name or names.fresh(place.label)
    build = Builder(node, names)
    x = node.inputs[0]
    assert x is not None
    # y = X·C + b, then (X·C + b)·1 + 0 inside the operator: exact, since each sum has one term that is not
    # zero.
    count = _outputs(node)
    bias = np.asarray(attribute(node, "intercepts", (0.0,) * count), np.float32)
    matrix = np.asarray(attribute(node, "coefficients"), np.float32).reshape(count, -1)
    if x.dtype != ir.DataType.FLOAT and node.op_type == "LinearClassifier":
        x = build.node("Cast", x, attributes={"to": int(ir.DataType.FLOAT)})
    if x.shape is None or len(x.shape) != 2:
        x = build.node("Reshape", x, build.constant(np.array([-1, matrix.shape[1]], np.int64)))
    stored = [_constant(build, array, f"{place.label}/{name}") for name, array in
              (("coefficients", matrix), ("intercepts", bias))]  # fmt: skip
    product = build.node("Gemm", x, *stored, attributes={"transB": 1})
    node.replace_input_with(0, product)
    node.attributes["coefficients"] = ir.AttrFloat32s("coefficients", np.eye(count).reshape(-1).tolist())
    node.attributes["intercepts"] = ir.AttrFloat32s("intercepts", [0.0] * count)
    node.metadata_props[ORIGIN_KEY] = _OPENED


def _constant(
    build: Builder, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]], name: str
) -> ir.Value:
    """A Constant node that says where its numbers come from: they cannot be written back as a tensor."""
    value = build.constant(array)
    value.name = build.names.fresh(name)
    maker = value.producer()
    assert maker is not None
    maker.attributes["value"].as_tensor().metadata_props[ORIGIN_KEY] = "attribute"
    return value
