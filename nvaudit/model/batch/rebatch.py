"""Which axis is the batch, and whether a model exported for one batch size may take any.

A model that was exported for a batch of 1 runs many times faster in batches of 64, but only if its
operators keep the samples apart. That is proved here operator by operator, or not done.

An operator f keeps samples apart if, with the batch along axis a of what it takes and along axis b of what
it gives, f(concat_a(x₁ … xₙ)) = concat_b(f(x₁) … f(xₙ)) for every n. What holds of two operators holds of
one after the other, so a graph keeps samples apart if each of its operators does with the axes that the walk
hands on. A rule answers only where it holds whatever n is: shapes were inferred for one batch size, and what
is true of that one alone (a constant of as many entries, a Reshape to it) proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice, product
from math import prod
from typing import Literal

import numpy as np
import onnx_ir as ir

from nvaudit.model.batch.node import NO_INFLUENCE, UNKNOWN, Influence
from nvaudit.model.batch.walk import BatchWalk, Shapes, infer_shapes, subgraphs, walk

#: Symbolic name of a batch dimension that was made free.
BATCH_NAME = "nvaudit_batch"

#: Size that stands for a free batch dimension while shapes are inferred: a prime that no layer has.
FREE_SIZE = 7919

#: Ways of placing the batch in a model with several inputs that are tried.
MAX_PLACEMENTS = 64

#: Names that exporters make up per input, so that equal sizes get different names.
GENERATED_NAME = re.compile(r"unk__\d+|.*_dynamic_axes_\d+")


@dataclass(frozen=True)
class Rebatch:
    """Where the batch is, and which batch sizes the model takes.

    Attributes
    ----------
    status : {"dynamic", "rebatched", "fixed"}
        The model takes any batch size as it is; it does after the edit; or it takes `fixed_batch` only.
    batch_axes : dict of str to int
        Batch axis per input. Inputs that are absent are constant over the set.
    output_axes : dict of str to (int or None)
        Batch axis per output; None if it has none.
    fixed_batch : int or None
        The batch size that must be fed when the status is "fixed".
    coupled : bool
        Whether the samples of one batch certainly influence each other, so that results depend on how the
        set is cut into batches.
    reason : str
        Why, in plain words.
    influence : dict of str to Influence
        Per output, what is not proved to keep samples apart on the way to it; see :meth:`influence_on`.
    """

    status: Literal["dynamic", "rebatched", "fixed"]
    batch_axes: dict[str, int]
    output_axes: dict[str, int | None]
    fixed_batch: int | None
    coupled: bool
    reason: str
    influence: dict[str, Influence] = field(default_factory=dict)

    def influence_on(self, output: str) -> Influence:
        """Tell what may make samples that run together influence each other's part of an output.

        Nothing does where a run holds one sample, or where every operator is proved to keep them apart.
        """
        return self.influence.get(output, NO_INFLUENCE)


def analyse_batch(model: ir.Model) -> Rebatch:
    """Find the batch axes, and whether the batch size is or can be made free.

    Parameters
    ----------
    model : onnx_ir.Model
        Functions inlined; left unchanged.

    Returns
    -------
    Rebatch
        With status "rebatched" if `rebatch` would edit the model.
    """
    return _decide(model)[0]


def rebatch(model: ir.Model) -> Rebatch:
    """Free the batch size of a model exported for one size, where it is proved that samples stay apart.

    Parameters
    ----------
    model : onnx_ir.Model
        Functions inlined. Edited in place when the returned status is "rebatched", else unchanged.

    Returns
    -------
    Rebatch
        What was proved, and whether the model was edited.
    """
    result, walked = _decide(model)
    if result.status == "rebatched":
        _edit(model, result, walked)
    return result


def _decide(model: ir.Model) -> tuple[Rebatch, BatchWalk]:
    """Return the result and the walk that it rests on."""
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    # Symbolic axes are what the exporter says of itself, so they count even where nothing is proved: the
    # model takes any batch size, and a run on real samples tests whether they are kept apart. A size that is
    # fixed in the file is freed on proof alone.
    axes = _free_axes(inputs)
    if axes:
        walked = _walk_free(model, axes)
        return _dynamic(model, axes, walked), walked
    lone = _lone_free_axis(inputs)
    if lone:
        walked = _walk_free(model, lone)
        if not walked.problems:
            return _dynamic(model, lone, walked), walked
    return _decide_fixed(model, inputs)


def _walk_free(model: ir.Model, axes: dict[str, int]) -> BatchWalk:
    """Walk with a stand-in for the free batch size."""
    shapes = infer_shapes(model, {name: (axis, FREE_SIZE) for name, axis in axes.items()})
    return walk(model, axes, FREE_SIZE, shapes, by_size=True)


# Batch axes of a model whose batch dimension is symbolic.


def _free_dims(value: ir.Value) -> dict[int, str]:
    """Map axis → symbolic name ('' where it has none) of the dimensions without a fixed size."""
    named: dict[int, str] = {}
    for axis, dim in enumerate(value.shape or ()):
        if isinstance(dim, int):
            named |= {axis: ""} if dim < 0 else {}
        else:
            named[axis] = dim.value or ""
    return named


def _free_axes(inputs: list[ir.Value]) -> dict[str, int]:
    """Read batch axes off the symbolic dimensions; empty if the batch is not symbolic."""
    first = _first_free(inputs)
    if first is None:
        return {}
    name = first
    axes: dict[str, int] = {}
    for value in inputs:
        dims = _free_dims(value)
        same = [axis for axis, dim in dims.items() if dim == name and name]
        if same:
            axes[value.name or ""] = same[0]
        # Generated names differ from input to input even where the sizes are one and the same; equality is
        # then believed of axis 0 only.
        elif 0 in dims and _is_anonymous(dims[0]) and _is_anonymous(name):
            axes[value.name or ""] = 0
    return axes


def _first_free(inputs: list[ir.Value]) -> str | None:
    """Name the batch dimension: one that says so, else axis 0 of the first input that has axes."""
    for value in inputs:
        for dim in _free_dims(value).values():
            if "batch" in dim.lower():
                return dim
    ranked = [value for value in inputs if value.shape]
    return _free_dims(ranked[0]).get(0) if ranked else None


def _is_anonymous(name: str) -> bool:
    """Whether a dimension's name carries no meaning."""
    return not name or GENERATED_NAME.fullmatch(name) is not None


def _lone_free_axis(inputs: list[ir.Value]) -> dict[str, int]:
    """Take the only symbolic dimension of the first input if it is not axis 0, as in a time-major layout.

    It may as well be a length, so this is believed only if the model keeps its indices apart.
    """
    ranked = [value for value in inputs if value.shape]
    dims = _free_dims(ranked[0]) if ranked else {}
    # [1, T, ...] with T free is more likely one sample of any length than a batch on axis 1.
    if len(dims) != 1 or ranked[0].shape is None or ranked[0].shape[0] == 1:
        return {}
    (axis, name) = next(iter(dims.items()))
    others = {v.name or "": a for v in ranked[1:] for a, dim in _free_dims(v).items() if dim == name and name}
    return {ranked[0].name or "": axis, **others}


def _dynamic(model: ir.Model, axes: dict[str, int], walked: BatchWalk) -> Rebatch:
    """Describe a model that takes any batch size."""
    names = {
        _free_dims(v).get(axes[v.name or ""], "") for v in model.graph.inputs if (v.name or "") in axes
    } - {""}
    outputs: dict[str, int | None] = {}
    for value in model.graph.outputs:
        dims = _free_dims(value)
        same = [axis for axis, dim in dims.items() if dim in names]
        state = walked.states.get(value)
        # What the file names counts before what the walk found, and that before a free axis 0.
        fallback = state if isinstance(state, int) else (0 if 0 in dims else None)
        outputs[value.name or ""] = same[0] if same else fallback
    reason = "takes any batch size"
    if walked.coupled:
        reason += f"; the samples of a batch influence each other: {walked.coupled[0]}"
    elif walked.problems:
        reason += f"; that samples are kept apart is not proved ({walked.problems[0]}): a run tests it"
    return Rebatch("dynamic", axes, outputs, None, bool(walked.coupled), reason, _influences(model, walked))


def _influences(model: ir.Model, walked: BatchWalk) -> dict[str, Influence]:
    """Give the influence on each output that may have any."""
    lost = Influence(unproved="what leads to it is not followed")
    return {
        v.name or "": walked.influence.get(v, lost)
        for v in model.graph.outputs
        if v in walked.influence or walked.states.get(v) is UNKNOWN
    }


# Batch axes of a model whose batch dimension has a fixed size.


def _decide_fixed(model: ir.Model, inputs: list[ir.Value]) -> tuple[Rebatch, BatchWalk]:
    """Try the possible places of the batch; the first that is proved wins, else the first of all counts."""
    shapes = infer_shapes(model, {})
    # A batch of 1 can lie along any axis of size 1, and inputs may have none, so places are tried: a wrong
    # one finds no proof, since some operator then mixes or drops what it takes for samples.
    first: tuple[dict[str, int], int, BatchWalk] | None = None
    for axes, batch in islice(_placements(inputs), MAX_PLACEMENTS):
        walked = walk(model, axes, batch, shapes, by_size=False)
        outputs = _output_axes(model, walked, batch, shapes)
        # Without a batched output, what was placed has no part in any result: no problem is then no proof.
        if not walked.problems and any(axis is not None for axis in outputs.values()):
            reason = f"fixed at batch {batch}; re-batched: every operator keeps samples apart"
            done = Rebatch("rebatched", axes, outputs, None, False, reason + _told(walked))
            return done, walked
        first = first or (axes, batch, walked)
    axes, batch, walked = first or ({}, 1, BatchWalk({}))
    why = (walked.coupled or walked.problems or ["no output has a batch axis"])[0]
    outputs = _output_axes(model, walked, batch, shapes)
    reason = f"fixed at batch {batch}: {why}"
    # A run of one sample holds no other that could influence it.
    influence = {} if batch == 1 else _influences(model, walked)
    return Rebatch("fixed", axes, outputs, batch, bool(walked.coupled), reason, influence), walked


def _placements(inputs: list[ir.Value]) -> Iterator[tuple[dict[str, int], int]]:
    """Yield possible batch axes per input and the batch size, the most likely first."""
    ranked = [value for value in inputs if value.shape is None or len(value.shape)]
    if not ranked:
        return
    dims = [() if v.shape is None else tuple(v.shape) for v in ranked]
    size = dims[0][0] if dims[0] else 1
    lead = [(0, size if isinstance(size, int) and size > 0 else 1)]  # 1 where it is free but not the batch
    if len(dims[0]) > 2 and dims[0][0] != 1 and dims[0][1] == 1:
        lead.append((1, 1))  # time-major: [steps, batch, features]
    for axis, batch in lead:
        # Any other input carries the batch on one of its axes of that size, or is shared (None).
        rest = [[*(a for a, dim in enumerate(shape) if dim == batch), None] for shape in dims[1:]]
        for chosen in product([axis], *rest):
            named = zip(ranked, chosen, strict=True)
            yield {value.name or "": place for value, place in named if place is not None}, batch


def _output_axes(model: ir.Model, walked: BatchWalk, batch: int, shapes: Shapes) -> dict[str, int | None]:
    """Find the batch axis per output; where it is not known, axis 0 if its size is the batch size."""
    outputs: dict[str, int | None] = {}
    for value in model.graph.outputs:
        state = walked.states.get(value)
        likely = state is UNKNOWN and shapes.get(value, ())[:1] == (batch,)
        outputs[value.name or ""] = state if isinstance(state, int) else (0 if likely else None)
    return outputs


def _told(walked: BatchWalk) -> str:
    """Tell the reshapes that were edited, for people."""
    told = []
    for node, new in walked.reshapes:
        target = node.inputs[1]
        tensor = None if target is None else ir.convenience.get_const_tensor(target)
        old = "" if tensor is None else f" {np.ravel(tensor.numpy()).tolist()}".replace(", ", ",")
        told.append(f"Reshape '{node.name}' shape{old} became {list(new)}".replace(", ", ","))
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    return f" ({'; '.join(told[:3])}{more})" if told else ""


# The edit.


def _edit(model: ir.Model, result: Rebatch, walked: BatchWalk) -> None:
    """Free the batch dimension of inputs and outputs, and drop what says otherwise in between."""
    # Shapes of values in between are stated for the old size; ONNX Runtime takes them for true.
    ends = {*model.graph.inputs, *model.graph.outputs}
    for value, state in walked.states.items():
        if not isinstance(state, int) or value.shape is None:
            continue
        if value in ends:
            dims = list(value.shape)
            value.shape = ir.Shape([*dims[:state], BATCH_NAME, *dims[state + 1 :]])
        else:
            value.shape = None
    taken = _names(model)
    for node, shape in walked.reshapes:
        _set_shape(model, node, shape, taken)


def _names(model: ir.Model) -> set[str]:
    """Collect all value names, subgraphs included."""
    graphs = [model.graph, *model.graph.subgraphs()]
    values = [v for g in graphs for v in (*g.inputs, *g.initializers.values())]
    return {v.name or "" for v in values} | {
        v.name or "" for node in model.graph.all_nodes() for v in node.outputs
    }


def _set_shape(model: ir.Model, node: ir.Node, shape: tuple[int, ...], taken: set[str]) -> None:
    """Give a Reshape an initializer of its own: the old one may serve other nodes."""
    name = next(n for i in count() if (n := f"nvaudit_shape_{i}") not in taken)
    taken.add(name)
    tensor = ir.tensor(np.array(shape, np.int64), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape([len(shape)]), type=ir.TensorType(ir.DataType.INT64), const_value=tensor
    )
    model.graph.register_initializer(value)
    if model.ir_version < 4:  # where every initializer must be listed among the inputs
        model.graph.inputs.append(value)
    node.replace_input_with(1, value)


_UNKNOWN_BYTES = 4
"""Of a number whose type the file does not tell: float32."""

_NO_WIDTH = (None, ir.DataType.STRING, ir.DataType.UNDEFINED)


def activation_bytes(model: ir.Model, rebatch: Rebatch, count: int) -> int:
    """Estimate the memory that activations take in a run on so many samples.

    Parameters
    ----------
    rebatch : Rebatch
        Where its batch is.
    count : int
        Samples of the run.

    Returns
    -------
    int
        The most bytes that are needed at one time in the order of the nodes, a value from the node that
        makes it to the last that reads it. Values of unknown shape count nothing, so it is a lower bound.
    """
    shapes = infer_shapes(model, {name: (axis, count) for name, axis in rebatch.batch_axes.items()})
    last: dict[ir.Value, int] = {}
    nodes = list(model.graph)
    for place, node in enumerate(nodes):
        inner = [v for attr in node.attributes.values() for g in subgraphs(attr) for n in g for v in n.inputs]
        last.update({v: place for v in (*node.inputs, *inner) if v is not None})
    last.update(dict.fromkeys(model.graph.outputs, len(nodes)))

    def size(value: ir.Value) -> int:
        dims = shapes.get(value, ())
        kind = value.dtype
        bits = 8 * _UNKNOWN_BYTES if kind in _NO_WIDTH else kind.bitwidth
        return prod(d or 1 for d in dims) * (bits or 8 * _UNKNOWN_BYTES) // 8

    # Inputs belong to the caller and stay for the whole run; a result goes after the last node that reads it.
    held = most = sum(size(value) for value in model.graph.inputs if value in last)
    ends: dict[int, int] = {}
    for value, place in last.items():
        if value.producer() is not None:
            ends[place] = ends.get(place, 0) + size(value)
    for place, node in enumerate(nodes):
        made = sum(size(value) for value in node.outputs if value in last)
        held += made
        # A node's results exist beside what it reads, so the peak is taken before the latter goes.
        most = max(most, held)
        held -= ends.get(place, 0)
    return most
