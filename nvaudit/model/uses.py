"""Every constant of a model: which are weights on the array, and why the others are not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.model.analysis import Analysis, Root, analyse
from nvaudit.model.attributes import Coefficients, listed_coefficients
from nvaudit.model.cause import cause
from nvaudit.model.load import LoadedModel
from nvaudit.model.reasons import explain
from nvaudit.model.walk import bodies, captured, places
from nvaudit.model.weights import Choice, Weight, choose, dtype_name, make_weight


@dataclass(frozen=True)
class Constant:
    """One stored tensor of a model, and what becomes of it.

    Attributes
    ----------
    name : str
        Its name, unique as ``Weight.key`` is.
    path : str
        The graph it is in, ``""`` for the main one.
    size : int
        Number of elements; of a weight, as its operator multiplies by them (several may share a byte).
    origin : str
        ``"initializer"``, ``"constant"`` (a Constant node), ``"attribute"`` (plain numbers of a
        node), ``"sparse"``, or ``"folded"`` (a weight computed from other constants).
    uses : tuple of str
        Operators that consume it, in graph order, each once.
    weight : Weight or None
        The array that it makes.
    reason : str
        Why it stays digital; for a weight, which uses do.
    values : tuple of onnx_ir.Value
        Where it stands in the graph; several where the graph computes one weight again.
    """

    name: str
    path: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    origin: str
    uses: tuple[str, ...]
    weight: Weight | None
    reason: str
    values: tuple[ir.Value, ...] = field(default=(), repr=False, compare=False)


def constants(loaded: LoadedModel) -> list[Constant]:
    """List every constant of a model.

    Returns
    -------
    list of Constant
        Every initializer and Constant node at any depth in graph order, then the weights that are
        computed from several of them, then numbers in attributes of operators of ai.onnx.ml.

    Raises
    ------
    ModelError
        If the graph cannot be analysed.
    """
    try:
        analysis = analyse(loaded.model)
        folded = folding_nodes(analysis)
        found = [_constant(root, analysis, folded, str(loaded.path)) for root in analysis.roots]
        return [*found, *(_listed(held) for held in listed_coefficients(loaded.model.graph))]
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{loaded.path}: the graph cannot be analysed: {cause(error)}; check it with onnx.checker"
        ) from error


def folding_nodes(analysis: Analysis) -> dict[ir.Node, str]:
    """Find the nodes whose result becomes part of a computed weight.

    Returns
    -------
    dict of onnx_ir.Node to str
        Each with what becomes of its result, in words; weights that are computed come before operands that
        could not be.
    """
    nodes: dict[ir.Node, str] = {}
    for root in analysis.roots:
        if root.origin == "folded":
            _mark((root.value, *root.copies), f"computed into the weight {root.key!r}", nodes)
    for value, reason in analysis.refused.items():
        text = f"would be computed into {value.name!r}, but {reason}: stays digital; taken"
        _mark((value,), text, nodes)
    return nodes


def _mark(values: tuple[ir.Value, ...], text: str, nodes: dict[ir.Node, str]) -> None:
    pending = list(values)
    while pending:
        node = pending.pop().producer()
        if node is not None and node not in nodes:
            nodes[node] = text
            nodes |= {place.node: text for _, body in bodies(node) for place in places(body)}
            pending += [*(value for value in node.inputs if value is not None), *captured(node)]


def _constant(root: Root, analysis: Analysis, folded: dict[ir.Node, str], path: str) -> Constant:
    choice = choose(root)
    uses = dict.fromkeys(end.place.node.op_type if end.place else "output" for end in root.ends)
    weight = make_weight(root, choice, analysis, path) if choice.mapped else None
    return Constant(
        name=root.key,
        path=root.path,
        dtype=dtype_name(root.state.dtype),
        shape=root.state.shape,
        size=math.prod(root.state.shape if weight is None else weight.shape),
        origin=root.origin,
        uses=tuple(uses),
        weight=weight,
        reason=_reason(root, choice, analysis, folded),
        values=(root.value, *root.copies),
    )


def _listed(held: Coefficients) -> Constant:
    return Constant(
        name=held.name,
        path=held.path,
        dtype="float32",
        shape=(held.size,),
        size=held.size,
        origin="attribute",
        uses=(held.op,),
        weight=None,
        reason=held.reason,
    )


def _reason(root: Root, choice: Choice, analysis: Analysis, folded: dict[ir.Node, str]) -> str:
    text = explain(root, analysis, choice.digital, folded)
    return f"the array serves the weight uses only; digital as {text}" if choice.mapped and text else text
