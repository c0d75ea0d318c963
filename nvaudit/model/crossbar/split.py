"""Crossbars in the graph: a weight's operator becomes one operator per crossbar row block, on device values.

Every device of a weight becomes an output column of its own; each column sum goes through an ADC (``Clip``
and ``Round``), what the row blocks give is added, and the slices are shifted and added with their signs, all
by ordinary operators. A weight is split wholly or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.build import Builder, Names
from nvaudit.model.crossbar.kinds import ProductForm, Refused, use_kind
from nvaudit.model.crossbar.nodes import Digital, Weighting, rewrite_use
from nvaudit.model.crossbar.plan import Converters, CrossbarPlan, CrossbarSplit, RowBlock, cut_blocks
from nvaudit.model.crossbar.rounding import LANES, rounds_by_adding
from nvaudit.model.layout import Layout
from nvaudit.model.walk import bodies, graphs

MIN_OPSET = 7
"""Before it, operators broadcast by attributes."""

MOST_PARTS = 1024
"""Parts that the rows of a matrix are cut into: each is at least one product and one conversion."""

_HOLDERS = ("If", "Loop", "Scan")
_SCAN_WITHOUT_BATCH = 9
_SAME = 1e-6
"""Scales that differ by less, relatively, are the same: they are stored in single precision."""

OpenPlace = tuple[str, Layout, str, ir.Value]
"""A slot as it is opened: name, layout from the primary one, element type, and its value."""


@dataclass(frozen=True)
class CellSlot:
    """A place for the devices of one row block.

    Attributes
    ----------
    steps : Layout
        From the stacked devices, (device, *primary layout), to the slot.
    factor : float
        ADC codes per level.
    """

    dtype: str
    shape: tuple[int, ...]
    steps: Layout
    factor: float
    value: ir.Value


def split_weight(
    key: str,
    shape: tuple[int, ...],
    places: Sequence[OpenPlace],
    plan: CrossbarPlan,
    graph: ir.Graph,
    names: Names,
    opset: int,
    initializer: Callable[[str, ir.DataType, tuple[int, ...]], ir.Value],
) -> tuple[CrossbarSplit, list[CellSlot]]:
    """Split every use of one weight over crossbars.

    Parameters
    ----------
    places : sequence
        Its slots, already opened.
    initializer : callable
        Makes an open initializer from a wished name, a type and a shape.

    Returns
    -------
    tuple of CrossbarSplit and list of CellSlot
        What became of it, and its new slots; none where it was not split: the graph is then as it was.
    """
    try:
        # All parts are worked out before the first is rewritten: a refusal leaves the graph as it was.
        parts = [_part(place, key, shape, plan, graph, opset) for place in places]
        # Several slots are one array only where each is another slice of it (directions of a recurrent
        # weight); two layouts of the same numbers would be two sets of crossbars.
        if len(parts) > 1 and any(not part.direction for part in parts):
            raise Refused("its operators take it in several layouts")
    except Refused as refused:
        return CrossbarSplit(key, str(refused)), []
    converters = plan.converters.get(key, Converters())
    # Levels are stored in units of the ADC's step: one multiplication for each device when a chip is made,
    # instead of one for each column sum of each sample.
    factor = 1.0 if converters.adc is None else 1.0 / converters.adc.step
    slots: list[CellSlot] = []
    inputs: list[str] = []
    sums: list[str] = []
    for part in parts:
        own = [
            CellSlot(
                str(part.work.numpy()), wanted, part.lifted.then(steps), factor,
                initializer(f"{part.name}/block{number}", part.work, wanted),
            )
            for number, (steps, wanted) in enumerate(part.arrangements)
        ]  # fmt: skip
        digital = Digital(converters, part.weighting, part.work, opset, part.lanes)
        for use in list(part.value.uses()):
            build = Builder(use.node, names)
            slot_values, inside = [s.value for s in own], use.node.graph is not graph
            given, made = rewrite_use(build, part.kind, part.blocks, slot_values, digital, inside)
            inputs.append(given)
            sums.extend(made)
        slots += own
    groups = max(len({part.direction for part in parts}), parts[0].kind.groups)
    columns = sum(part.kind.outputs for part in parts) // groups
    told = [part.weighting.scaling for part in parts]
    scaling = next((one for one in told if one != "output"), told[0])
    split = CrossbarSplit(
        key, None, parts[0].blocks, groups, columns, tuple(dict.fromkeys(inputs)), tuple(sums), scaling,
        any(part.inside for part in parts), any(part.lanes > 1 for part in parts),
    )  # fmt: skip
    return split, slots


@dataclass(frozen=True)
class _SlotPart:
    """One slot of a weight; a recurrent weight may have several."""

    name: str
    value: ir.Value
    kind: ProductForm
    weighting: Weighting
    blocks: tuple[RowBlock, ...]
    arrangements: list[tuple[Layout, tuple[int, ...]]]
    lifted: Layout
    work: ir.DataType
    direction: tuple[int, ...]
    inside: bool
    lanes: int


def _part(
    place: OpenPlace, key: str, shape: tuple[int, ...], plan: CrossbarPlan, graph: ir.Graph, opset: int
) -> _SlotPart:
    """Work out how one slot of a weight lies on crossbars; refused where that cannot be."""
    if opset < MIN_OPSET:
        raise Refused(f"operator set {opset} is too old to be rewritten; {MIN_OPSET} or newer is needed")
    name, layout, dtype, value = place
    uses = list(value.uses())
    for use in uses:
        _check_bodies(use.node, graph, opset)
    if any(size == 0 for size in _shape(value)):
        raise Refused("it is empty")
    kinds = [use_kind(use.node, use.idx) for use in uses]
    if any(kind != kinds[0] for kind in kinds):
        raise Refused("its operators lay it out on crossbars in several ways")
    kind, devices = kinds[0], len(plan.cells[key].factors)
    weighting = _weighting(plan, key, shape, layout, kind)
    blocks = cut_blocks(kind.channels, kind.kernel, plan.rows, weighting.cuts)
    work = ir.DataType.DOUBLE if dtype == "float64" else ir.DataType.FLOAT
    adc = plan.converters.get(key, Converters()).adc
    adds = key in plan.by_adding and adc is not None and rounds_by_adding(kind, blocks, adc, work, opset)
    lanes = LANES if adds else 1
    return _SlotPart(
        name=name,
        value=value,
        kind=kind,
        weighting=weighting,
        blocks=blocks,
        arrangements=[kind.arrangement(block, devices, len(blocks), lanes) for block in blocks],
        lifted=layout.with_devices(devices),
        work=work,
        direction=next((argument for step, argument in layout if step == "slice"), ()),
        inside=any(use.node.graph is not graph for use in uses),
        lanes=lanes,
    )


def _check_bodies(node: ir.Node, graph: ir.Graph, opset: int) -> None:
    """Refuse an operator in a body whose inner values cannot be looked at to calibrate converters."""
    inner, below = node.graph, ""
    while inner is not graph:
        holder = next(
            (one for outer, _ in graphs(graph) for one in outer for _, body in bodies(one) if body is inner),
            None,
        )
        kind = "another one" if holder is None else _with_article(holder.op_type)
        if holder is None or holder.domain not in ("", "ai.onnx") or holder.op_type not in _HOLDERS:
            raise Refused(f"its operator is in the body of {kind}")
        if holder.op_type == "Scan" and opset < _SCAN_WITHOUT_BATCH:
            raise Refused(f"its operator is in the body of a Scan of operator set {opset}")
        if holder.op_type == "Scan" and below:  # its outputs have one shape in every round
            raise Refused(f"its operator is in the body of {_with_article(below)} within a Scan")
        inner, below = holder.graph, holder.op_type


def _with_article(operator: str) -> str:
    return f"{'an' if operator[:1] in 'AEIOU' else 'a'} {operator}"


def _shape(value: ir.Value) -> tuple[int, ...]:
    return () if value.shape is None else tuple(int(size) for size in value.shape if isinstance(size, int))


def _weighting(
    plan: CrossbarPlan, key: str, shape: tuple[int, ...], layout: Layout, kind: ProductForm
) -> Weighting:
    """The digital factors of each output.

    A column sum is multiplied by one number, so the scale must be one for what a column adds up. Where it
    is not: a factor for each input channel goes to the inputs, w = c_o r_i code; else the rows are cut where
    it changes, and every part has column sums of its own.
    """
    # The scale lies in the primary layout; the operator may take the weight turned, or a part of it.
    cells = plan.cells[key]
    scale: Array = np.broadcast_to(np.asarray(cells.scale, np.float64), shape)
    if cells.scale.size == 1:
        lone = float(cells.scale.reshape(-1)[0])
        return Weighting(np.full((1, kind.outputs), lone), True, cells)
    table = kind.by_output(layout.apply(scale)).reshape(kind.outputs, kind.channels, kind.kernel)
    if (table != table[:, :, :1]).any():
        raise Refused("its quantisation scale differs within the kernel of an input channel")
    table = table[:, :, 0]
    if (table == table[:, :1]).all():
        return Weighting(np.array(table[:, 0])[None], False, cells)
    # [group, output, channel], of rank 1 in every group if the scale is a product c_o r_i: then all rows are
    # the first one times c_o / c_0, and r_i goes to the inputs, which all outputs of a group share.
    grouped = table.reshape(kind.groups, -1, kind.channels)
    first = grouped[:, :1, :]
    if (first[:, :, :1] > 0).all():
        inputs = first / first[:, :, :1]
        if np.allclose(grouped[:, :, :1] * inputs, grouped, rtol=_SAME, atol=0):
            return Weighting(np.array(table[:, 0])[None], False, cells, inputs[:, 0])
    # A cut wherever any output's scale changes: between cuts every column sum has one scale.
    cuts = np.flatnonzero((table[:, 1:] != table[:, :-1]).any(0)) + 1
    if len(cuts) >= MOST_PARTS:
        raise Refused(
            f"its quantisation scale differs within an output: the rows would be cut into {len(cuts) + 1} "
            f"parts, at most {MOST_PARTS} are"
        )
    starts = [0, *cuts.tolist()]
    return Weighting(np.array(table[:, starts]).T, False, cells, cuts=tuple(starts[1:]))
