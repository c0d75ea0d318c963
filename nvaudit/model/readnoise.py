"""Read noise in the graph: drawn anew for every inference, as an output term.

Independent normal noise N(0, v_ij) on every device of every read turns a product y_j = Σ_i x_i w_ij into
y_j + N(0, Σ_i x_i² v_ij), exactly in law. So the operator is run a second time on the squared input and the
variances, and its square root scales a standard normal that is added to the output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from nvaudit.model.build import Builder, Names
from nvaudit.model.operators import (
    CONVOLUTIONS,
    MATRIX_PRODUCTS,
    OPTIONAL_GEMM_BIAS,
    is_float,
    is_gemm,
    operator_of,
)
from nvaudit.rng import stream

_PREFIX = "nvaudit_read_noise"
_FLOAT = ir.DataType.FLOAT


def takes_read_noise(slot: ir.Value, opset: int) -> bool:
    """Whether every operator that uses a slot is linear in it, so that read noise is an output term.

    Recurrent operators are not: their state goes through the weight again inside the operator.
    """
    return all(_takes(use.node, use.idx, opset) for use in slot.uses())


def _takes(node: ir.Node, index: int, opset: int) -> bool:
    if is_float(node, "einsum"):
        return len(node.inputs) == 2
    if is_gemm(node.op_type, node.domain) and opset < OPTIONAL_GEMM_BIAS:
        return False
    operator = operator_of(node)
    linear = is_float(node, *CONVOLUTIONS, *MATRIX_PRODUCTS)
    return linear and operator is not None and index in operator.weights


def add_read_noise(slot: ir.Value, variance: ir.Value, names: Names) -> None:
    """Add the noise of a read to every operator that uses a slot.

    Parameters
    ----------
    slot : onnx_ir.Value
        The weights; see :func:`takes_read_noise`.
    variance : onnx_ir.Value
        Variance of one read of each weight: float32, the slot's shape.
    """
    for use in list(slot.uses()):
        _add(use.node, use.idx, variance, names)


def _add(node: ir.Node, index: int, variance: ir.Value, names: Names) -> None:
    build = Builder(node, names)
    other = node.inputs[1 - index]
    output = node.outputs[0]
    assert other is not None
    dtype = other.dtype or output.dtype or _FLOAT
    # In half precision the squares could overflow: the variance is worked out in single precision.
    x = other if dtype == _FLOAT else build.node("Cast", other, attributes={"to": int(_FLOAT)})
    squared = build.node("Mul", x, x)
    operands = (squared, variance) if index == 1 else (variance, squared)
    spread = build.node(
        "Sqrt", build.node("Relu", build.node(node.op_type, *operands, attributes=_attributes(node)))
    )
    normal = build.node("RandomNormalLike", spread, attributes={"seed": 0.0})
    maker = normal.producer()
    assert maker is not None
    maker.name = names.fresh(f"{_PREFIX}/{node.name}")
    noise = build.node("Mul", spread, normal)
    if dtype != _FLOAT:
        noise = build.node("Cast", noise, attributes={"to": int(dtype)})
    _insert_sum(node, output, noise, names)


def _attributes(node: ir.Node) -> list[ir.Attr]:
    """Attributes of the operator on variances: factors squared, no bias."""
    kept = [attribute for attribute in node.attributes.values() if attribute.name not in ("alpha", "beta")]
    alpha = node.attributes.get("alpha")
    return kept if alpha is None else [*kept, ir.AttrFloat32("alpha", alpha.as_float() ** 2)]


def _insert_sum(node: ir.Node, output: ir.Value, noise: ir.Value, names: Names) -> None:
    """Put output + noise where the output was used; a graph output keeps its name."""
    graph = node.graph
    assert graph is not None
    add = ir.Node("", "Add", [output, noise], name=names.fresh(f"{node.name}/add_read_noise"))
    total = add.outputs[0]
    total.type, total.shape = output.type, output.shape
    graph.insert_after(node, add)
    name = output.name
    output.name = names.fresh(f"{name}/without_read_noise")
    output.replace_all_uses_with(total, replace_graph_outputs=True)
    add.replace_input_with(0, output)
    total.name = name


def reseed_read_noise(proto: bytes, seed: int, *address: int) -> bytes:
    """Give every read-noise generator in a template the seed of one chip.

    Parameters
    ----------
    proto : bytes
        A template with read noise.

    Returns
    -------
    bytes
        The template with new seeds.
    """
    model = onnx.ModelProto.FromString(proto)
    for node in _noise_nodes(model.graph):
        # ONNX Runtime reads the float as a 32-bit integer: 24 bits are exact, spread over 31.
        number = int(stream(seed, "read", *address, node.name).integers(1, 2**24)) * 128
        for attribute in node.attribute:
            if attribute.name == "seed":
                attribute.f = float(number)
    return bytes(model.SerializeToString())


def _noise_nodes(graph: Any) -> Iterable[Any]:
    for node in graph.node:
        if node.op_type == "RandomNormalLike" and node.name.startswith(_PREFIX):
            yield node
        bodies: Sequence[Any] = [a.g for a in node.attribute if a.HasField("g")]
        for body in [*bodies, *(g for a in node.attribute for g in a.graphs)]:
            yield from _noise_nodes(body)
