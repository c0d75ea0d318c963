"""Operators that ONNX Runtime does not have: of operator sets before 7, and of other people's domains.

ONNX Runtime begins at operator set 7. A file that is older and has an operator which changed until then is
brought there by onnx's own version converter, which keeps names and numbers; the rest runs as it is.

Until set 6 the second operand of an element-wise operator stood anywhere inside the first one's axes
(``broadcast``, ``axis``), and the slopes of PRelu along axis 1. onnx 1.23's version converter appends
``rank - axis`` axes of length 1 where ``rank - axis - rank of the operand`` are right, so that a bias of
channels is added along the batch; and it leaves PRelu's slopes on the last axis. Both run. So both are put as
numpy broadcasts before the converter sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx import defs, helper, shape_inference, version_converter

from nvaudit.model.cause import cause
from nvaudit.model.check import check_model
from nvaudit.model.walk import places

FIRST_OPSET = 7
"""The first operator set that ONNX Runtime implements as a whole."""

_STILL_RUN = frozenset(["Reshape"])  # ONNX Runtime has kept the old form of these
_STAND_IN = 7919
"""Stands for a free dimension while a file is converted: the converter wants numbers."""

KNOWN_DOMAINS = frozenset(
    [
        *("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"),
        *("com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc"),
        "org.pytorch.aten",
    ]
)
_QUANTISERS = frozenset(["Quant", "IntQuant", "FloatQuant", "BipolarQuant", "Trunc"])
_FEW = 3


def upgrade(proto: Any, path: Path) -> tuple[Any, str | None]:
    """Bring a message of an old operator set to the first one that ONNX Runtime has.

    Returns
    -------
    tuple of onnx.ModelProto and str or None
        The message, and what was done, in words; the same message and None where nothing has to be done, or
        where the converter cannot do it: :func:`obstacle` then says so.
    """
    opset = _opset(proto)
    if opset >= FIRST_OPSET or next(_changed(proto.graph.node, opset), None) is None:
        return proto, None
    check_model(proto, path)  # the converter trusts what it is given
    try:
        new = _converted(proto)
    except Exception:  # whatever the converter stumbles over: said when the model is to be run
        return proto, None
    return new, (
        f"the file is of operator set {opset}, which ONNX Runtime does not run; onnx's version converter "
        f"brought it to {FIRST_OPSET}, and a model written from it is of operator set {FIRST_OPSET}"
    )


def _opset(proto: Any) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    return int(versions[0]) if versions else (FIRST_OPSET if proto.opset_import else 1)


def _changed(nodes: Any, opset: int) -> Iterator[Any]:
    """Nodes at any depth whose operator became another one until the first set that is run."""
    for node in nodes:
        if _is_old(node, opset):
            yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _changed(graph.node, opset)


def _is_old(node: Any, opset: int) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in _STILL_RUN:
        return False
    # The same since_version in both sets means the same definition.
    return _since(node.op_type, opset) != _since(node.op_type, FIRST_OPSET)


def _since(name: str, opset: int) -> int | None:
    try:
        return int(defs.get_schema(name, max(opset, 1), "").since_version)
    except Exception:  # not an operator of this set: whoever runs it says so
        return None


def _converted(proto: Any) -> Any:
    if any(tensor.external_data for tensor in proto.graph.initializer):
        raise ValueError("external data")
    # The converter wants numbers for all sizes, may drop what it does not know, and states shapes for the
    # numbers that it was given: interface and metadata are put back, and values whose shape moved betray a
    # wrong rewrite.
    given = onnx.ModelProto()
    given.CopyFrom(proto)
    del given.graph.value_info[:]
    for value in (*given.graph.input, *given.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value <= 0:
                dim.dim_value = _STAND_IN
    spell_out(given)
    new = version_converter.convert_version(given, FIRST_OPSET)
    stored = {tensor.name: tensor for tensor in new.graph.initializer}
    if set(stored) < {tensor.name for tensor in proto.graph.initializer}:
        raise ValueError("the converter dropped tensors")
    del new.graph.value_info[:]
    for field in ("input", "output"):
        old = {value.name: value for value in getattr(proto.graph, field)}
        for value in getattr(new.graph, field):
            if value.name in old:
                value.CopyFrom(old[value.name])
    del new.metadata_props[:]
    new.metadata_props.extend(proto.metadata_props)
    _check_same_shapes(proto, new)
    return new


def _check_same_shapes(proto: Any, new: Any) -> None:
    """Refuse what the converter made another network of: a value whose shape contradicts the file's."""
    after = shapes(new)
    for name, shape in shapes(proto).items():
        other = after.get(name, shape)
        # Free sizes (None) contradict nothing: only two numbers can.
        if len(other) != len(shape) or any(a and b and a != b for a, b in zip(shape, other, strict=True)):
            raise ValueError(f"it changes the shape of {name!r} from {list(shape)} to {list(other)}")


def obstacle(model: ir.Model, path: Path) -> str | None:
    """Say why ONNX Runtime cannot run a model, and what to do, where its operators show that.

    Parameters
    ----------
    model : onnx_ir.Model
        Functions inlined.

    Returns
    -------
    str or None
        None where nothing is known against it.
    """
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    foreign: list[tuple[str, str, str]] = []
    old: list[tuple[str, str]] = []
    for place in places(model.graph):
        node = place.node
        label = f"{place.path}/{place.label}" if place.path else place.label
        own = node.domain in KNOWN_DOMAINS
        if not own or (node.domain == "" and node.op_type in _QUANTISERS):
            foreign.append((label, node.op_type, node.domain))
        elif opset < FIRST_OPSET and _is_old(node, opset):
            old.append((label, node.op_type))
    if foreign:
        return f"{path}: {_foreign(foreign, path)}"
    if old:
        return f"{path}: {_old(old, opset, path)}"
    return None


def _named(nodes: list[Any], text: Callable[[Any], str]) -> str:
    more = len(nodes) - _FEW
    return ", ".join(text(node) for node in nodes[:_FEW]) + (f" and {more} more" if more > 0 else "")


def _foreign(nodes: list[tuple[str, str, str]], path: Path) -> str:
    named = _named(nodes, lambda node: f"{node[0]!r} ({node[1]} of the domain {node[2]!r})")
    start = f"ONNX Runtime has no operator for {named}"
    domains = {domain for _, _, domain in nodes}
    if any(domain.startswith("finn.") for domain in domains):
        return (
            f"{start}: the file is from inside FINN's flow; audit the one that FINN was given, brought from "
            "QONNX's Quant nodes to standard ones: `pip install qonnx`, then `qonnx-convert MODEL.onnx`"
        )
    theirs = any(domain.startswith(("qonnx.", "onnx.brevitas")) for domain in domains)
    if theirs or {op for _, op, _ in nodes} <= _QUANTISERS:
        return (
            f"{start}: these are QONNX's; convert the file to QuantizeLinear, Clip and DequantizeLinear: "
            f"`pip install qonnx`, then `qonnx-convert {path}`; or export with Brevitas' export_onnx_qcdq"
        )
    return (
        f"{start}; put the operator into the file as a model-local function of standard operators, or export "
        "the model without it"
    )


def _old(nodes: list[tuple[str, str]], opset: int, path: Path) -> str:
    named = _named(nodes, lambda node: f"{node[0]!r} ({node[1]})")
    reason = "it cannot"
    try:
        _converted(onnx.load(path, load_external_data=False))
    except Exception as error:
        reason = cause(error)
    return (
        f"the file is of operator set {opset}; ONNX Runtime begins at {FIRST_OPSET} and does not run "
        f"{named}; onnx's version converter fails on it ({reason}); export the model again with opset 13 or "
        "newer, or repair what the converter names and run: "
        'python -c "import onnx, onnx.version_converter as v; '
        f"onnx.save(v.convert_version(onnx.load('{path}'), 13), 'new.onnx')\""
    )


_PAIRS = frozenset(
    ["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"],
)


def spell_out(proto: Any) -> None:
    """Give second operands the axes of length 1 by which numpy puts them in the same place.

    Parameters
    ----------
    proto : onnx.ModelProto
        Of an operator set before 7; changed in place.

    Raises
    ------
    ValueError
        If a rank that this needs is not known.
    """
    ranks = {name: len(shape) for name, shape in shapes(proto).items()}
    nodes = list(proto.graph.node)
    for node in nodes:
        for inner in _inside(node):
            # Nodes inside are not rewritten; with no ranks given, None tells that one might have to be.
            if _added(inner, {}) is None:
                raise ValueError(f"{inner.op_type} broadcasts inside a graph of {node.op_type} {node.name!r}")
    taken = set(ranks) | {name for node in nodes for name in (*node.input, *node.output)}
    del proto.graph.node[:]
    for node in nodes:
        added = _added(node, ranks)
        if added is None:
            raise ValueError(f"the axes of {node.op_type} {node.name or node.output[0]!r} are not known")
        if added:
            name = next(n for n in (f"{node.input[1]}_axes{k or ''}" for k in range(len(taken) + 1))
                        if n not in taken)  # fmt: skip
            taken.add(name)
            proto.graph.node.append(helper.make_node("Unsqueeze", [node.input[1]], [name], axes=added))
            node.input[1] = name
        # Now aligned from the right, the operand must not be moved again by `axis`; `broadcast` still holds.
        if node.op_type in _PAIRS:
            kept = [attribute for attribute in node.attribute if attribute.name != "axis"]
            del node.attribute[:]
            node.attribute.extend(kept)
        proto.graph.node.append(node)


def shapes(proto: Any) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the values of the main graph, as far as onnx infers them; None for a free dimension."""
    graph = shape_inference.infer_shapes(proto).graph
    shape_of: dict[str, tuple[int | None, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shape_of.setdefault(value.name, tuple(d.dim_value if d.dim_value > 0 else None for d in dims))
    return shape_of


def _inside(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield inner
                yield from _inside(inner)


def _added(node: Any, ranks: Mapping[str, int]) -> list[int] | None:
    """Axes that the second operand is to gain behind its own; None where they cannot be told."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.domain not in ("", "ai.onnx") or len(node.input) < 2:
        return []
    if node.op_type in _PAIRS and attributes.get("broadcast") and "axis" in attributes:
        axis = attributes["axis"]
    elif node.op_type == "PRelu":
        axis = 1
    else:
        return []
    first, second = (ranks.get(name) for name in node.input[:2])
    if first is None or second is None:
        return None
    if node.op_type == "PRelu" and second != 1:
        return []
    # The operand covers axes start .. start + second - 1 of `first`. Aligned from the right it needs
    # first - start - second axes of length 1 behind its own: numbers second .. first - start - 1.
    start = axis + first if axis < 0 else axis
    return list(range(second, first - start)) if 0 <= start < first else None
