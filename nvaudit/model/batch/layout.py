"""Batch rules of the operators that move or select axes.

They enter the same table as the rules of `nvaudit.model.batch.rules` and answer in the same way.
"""

from __future__ import annotations

from math import prod

from nvaudit.model.batch.node import (
    SHARED,
    Dims,
    NodeView,
    Operand,
    RuleAnswer,
    keep,
    normalise,
    normalise_all,
    refuse,
)
from nvaudit.model.batch.rules import rule

#: A Slice end from here on means "to the end"; exporters write the largest int32 or int64.
TO_THE_END = 2**31 - 1


@rule("Transpose")
def transpose(view: NodeView) -> RuleAnswer:
    """Move the batch axis where the permutation puts it."""
    attr, batch, rank = view.attribute("perm"), view.x.state, view.x.rank
    if not isinstance(batch, int) or (attr is None and rank is None):
        return refuse(view, "has an input of unknown rank")
    # Axis i of the result is axis perm[i] of the input, so the batch lands where perm names it; without perm
    # the axes are reversed, a to rank - 1 - a.
    if attr is None:
        return keep(view, (rank or 0) - 1 - batch)
    perm = tuple(attr.as_ints())
    return keep(view, perm.index(batch)) if batch in perm else refuse(view, "has a bad permutation")


@rule("Flatten")
def flatten(view: NodeView) -> RuleAnswer:
    """Two groups of axes; the batch must be alone in its group, apart from axes of size 1."""
    batch, shape = view.x.state, view.x.shape
    split = normalise(view.int_attribute("axis", 1), view.x.rank)
    if batch == 0 and split == 1:
        return keep(view, 0)
    if not isinstance(batch, int) or shape is None or split is None:
        return refuse(view, "has an input of unknown rank")
    group = range(split) if batch < split else range(split, len(shape))
    # The flat index of a group is the batch's own index only if every other axis in the group has size 1.
    if any(shape[axis] != 1 for axis in group if axis != batch):
        return refuse(view, "folds the batch axis into another axis")
    return keep(view, 0 if batch < split else 1)


@rule("Reshape")
def reshape(view: NodeView) -> RuleAnswer:
    """Accept a constant shape that keeps the batch as an axis of its own, and leave that axis free."""
    batch, target = view.x.state, view.operand(1)
    asked = None if target is None or target.state is not SHARED else target.ints()
    if not isinstance(batch, int) or asked is None:
        return refuse(view, "computes its shape")
    zero_copies = not view.int_attribute("allowzero", 0)
    if 0 in asked and not zero_copies:
        return refuse(view, "makes an empty tensor")
    # n samples of P elements lie one after the other; [n, ...] whose rest fills P cuts only between samples.
    if batch == 0 and asked and (asked[0] == 0 or asked[0] == view.batch):
        return _leading(view, asked, zero_copies)
    return _resolved(view, asked, batch)


def _leading(view: NodeView, asked: tuple[int, ...], zero_copies: bool) -> RuleAnswer:
    """Rearrange each sample within itself: the batch is and stays axis 0, whatever the other sizes."""
    if asked[0] == 0:
        return RuleAnswer((0,))
    if -1 not in asked:
        return RuleAnswer((0,), reshape=(-1, *asked[1:]))
    # Another axis has the one -1 that a shape may hold; 0 copies the size of axis 0, the batch, instead.
    if zero_copies:
        return RuleAnswer((0,), reshape=(0, *asked[1:]))
    return refuse(view, "has a shape whose batch size cannot be left free")


def _resolved(view: NodeView, asked: tuple[int, ...], batch: int) -> RuleAnswer:
    """Find, with all sizes known, the axis with as much before and after it as the batch has."""
    before = _static(view.x.shape)
    after = None if before is None else _resolve(asked, before)
    if before is None or after is None:
        return refuse(view, "has an input whose sizes are not all known")
    # Elements keep their order, so sample b is one run of a block repeated prod(before[:batch]) times. It is
    # an axis of the result exactly where that axis has the batch's size and as many elements in front of it;
    # then as many stand behind it, too.
    homes = [
        axis
        for axis, size in enumerate(after)
        if size == view.batch and prod(after[:axis]) == prod(before[:batch])
    ]
    if not homes:
        return refuse(view, f"to {list(asked)} folds the batch axis into another axis")
    home = batch if batch in homes else homes[0]
    new = tuple(
        size if ask == -1 or (ask == 0 and axis == batch) else ask
        for axis, (ask, size) in enumerate(zip(asked, after, strict=True))
    )
    # -1 leaves the batch free; every other size must then be a number, which `new` has in place of -1 and 0.
    free = 0 if asked[home] == 0 and home == batch else -1
    new = (*new[:home], free, *new[home + 1 :])
    return RuleAnswer((home,), reshape=None if new == asked else new)


def _static(shape: Dims | None) -> tuple[int, ...] | None:
    """Return the shape if all its dimensions are known and none is 0."""
    known = tuple(dim for dim in shape or () if dim)
    return known if shape is not None and len(known) == len(shape) else None


def _resolve(asked: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape that Reshape makes, or None if it does not fit."""
    if any(ask == 0 and axis >= len(before) for axis, ask in enumerate(asked)):
        return None
    after = tuple(before[axis] if ask == 0 else ask for axis, ask in enumerate(asked))
    # -1 takes what the other sizes leave of all elements; a remainder means that nothing fits.
    rest = prod(size for size in after if size != -1)
    if after.count(-1) == 1 and rest and prod(before) % rest == 0:
        after = tuple(prod(before) // rest if size == -1 else size for size in after)
    return after if prod(after) == prod(before) and min(after, default=1) > 0 else None


@rule("Concat")
def concat(view: NodeView) -> RuleAnswer:
    """Along another axis, with every operand batched on the same one."""
    operands = [op for op in view.inputs if op is not None]
    if any(op.state is SHARED for op in operands):
        return refuse(view, "joins samples with a constant, which has a batch size of its own")
    states = {op.state for op in operands}
    rank = next((op.rank for op in operands if op.rank is not None), None)
    axis = normalise(view.int_attribute("axis", 1), rank)
    if len(states) != 1 or axis is None:
        return refuse(view, "joins inputs whose batch axes differ or whose rank is unknown")
    (batch,) = states
    return refuse(view, "joins along the batch axis") if axis == batch else keep(view, batch)


@rule("Split", "GatherElements")
def split(view: NodeView) -> RuleAnswer:
    """Parts along another axis; indices of GatherElements come with the samples."""
    axis = normalise(view.int_attribute("axis", 0), view.x.rank)
    other = view.operand(1)
    partner = view.x.state if view.node.op_type == "GatherElements" else SHARED
    if other is not None and other.state != partner:
        return refuse(view, "has a second input whose batch axis does not fit")
    if axis is None or axis == view.x.state:
        return refuse(view, "picks along the batch axis")
    return keep(view, view.x.state)


@rule("Slice")
def slice_(view: NodeView) -> RuleAnswer:
    """Not along the batch, or all of it."""
    if not view.shared():
        return refuse(view, "has bounds that depend on the samples")
    starts, ends = view.list_of("starts", 1, 10), view.list_of("ends", 2, 10)
    axes = view.list_of("axes", 3, 10)
    if axes is None and view.lacks("axes", 3, 10) and starts is not None:
        axes = tuple(range(len(starts)))
    placed = None if axes is None else normalise_all(axes, view.x.rank)
    if placed is None:
        return refuse(view, "computes the axes that it cuts")
    if view.x.state not in placed:
        return keep(view, view.x.state)
    steps = view.list_of("steps", 4, 10)
    index = placed.index(view.x.state)
    # An end equal to the present batch size will not do: it would cut a larger batch.
    all_samples = starts is not None and starts[index] == 0 and ends is not None and ends[index] >= TO_THE_END
    forward = steps[index] == 1 if steps is not None else view.lacks("steps", 4, 10)
    return keep(view, view.x.state) if all_samples and forward else refuse(view, "cuts along the batch axis")


@rule("Pad")
def pad(view: NodeView) -> RuleAnswer:
    """Nothing is added along the batch."""
    pads, axes = view.list_of("pads", 1, 11), view.list_of("axes", 3, 18)
    if pads is None or not view.shared() or (axes is None and view.operand(3) is not None):
        return refuse(view, "computes its padding")
    # pads = [begin of each axis ..., end of each axis ...].
    half = len(pads) // 2
    placed = tuple(range(half)) if axes is None else normalise_all(axes, view.x.rank)
    if placed is None:
        return refuse(view, "has an input of unknown rank")
    added = any(pads[i] or pads[i + half] for i, axis in enumerate(placed) if axis == view.x.state)
    return refuse(view, "pads the batch axis") if added else keep(view, view.x.state)


@rule("Gather")
def gather(view: NodeView) -> RuleAnswer:
    """Constant indices into samples on another axis, or samples of indices into a constant."""
    indices = view.operand(1)
    axis = normalise(view.int_attribute("axis", 0), view.x.rank)
    if indices is None or axis is None:
        return refuse(view, "has an input of unknown rank")
    # The axes of the indices replace `axis`: batch axis b of the indices lands on axis + b, and a batch of
    # the data behind `axis` moves by rank(indices) - 1.
    if view.x.state is SHARED and isinstance(indices.state, int):
        return keep(view, axis + indices.state)
    if indices.state is not SHARED or indices.rank is None or not isinstance(view.x.state, int):
        return refuse(view, "takes both data and indices from the samples")
    if axis == view.x.state:
        return refuse(view, "picks single samples of the batch")
    return keep(view, view.x.state if view.x.state < axis else view.x.state + indices.rank - 1)


@rule("OneHot")
def one_hot(view: NodeView) -> RuleAnswer:
    """Add an axis before or after the batch."""
    if not isinstance(view.x.state, int) or view.x.rank is None or not view.shared():
        return refuse(view, "has an input of unknown rank, or a parameter that carries samples")
    axis = view.int_attribute("axis", -1)
    # Axes count in the result, of rank + 1; a new axis at or before the batch pushes it back by one.
    axis += view.x.rank + 1 if axis < 0 else 0
    return keep(view, view.x.state + int(axis <= view.x.state))


@rule("Squeeze")
def squeeze(view: NodeView) -> RuleAnswer:
    """Drop listed axes; without a list a batch of one sample would vanish too."""
    listed = view.list_of("axes", 1, 13)
    axes = normalise_all(listed, view.x.rank) if listed else None
    if axes is None or not isinstance(view.x.state, int):
        return refuse(view, "drops all axes of size 1, or axes that are not known beforehand")
    if view.x.state in axes:
        return refuse(view, "drops the batch axis")
    return keep(view, view.x.state - sum(axis < view.x.state for axis in axes))


@rule("Unsqueeze")
def unsqueeze(view: NodeView) -> RuleAnswer:
    """Add axes at the listed places of the result."""
    listed = view.list_of("axes", 1, 13)
    rank = None if view.x.rank is None or listed is None else view.x.rank + len(listed)
    axes = None if listed is None else normalise_all(listed, rank)
    if axes is None or not isinstance(view.x.state, int):
        return refuse(view, "adds axes that are not known beforehand")
    # Places of the result that are not new hold the input's axes in order; the batch is never
    # behind state + len(axes).
    old = [place for place in range(view.x.state + len(axes) + 1) if place not in axes]
    return keep(view, old[view.x.state])


@rule("Expand")
def expand(view: NodeView) -> RuleAnswer:
    """Accept a shape that asks for 1 (or nothing) at the batch axis."""
    target = view.operand(1)
    asked = None if target is None or target.state is not SHARED else target.ints()
    if asked is None or view.x.rank is None or not isinstance(view.x.state, int):
        return refuse(view, "computes its shape")
    # Shapes align from the right. A size other than 1 there, even the present one, fits one batch size only.
    place = view.x.rank - view.x.state
    if not Operand(SHARED, asked).one_at(place):
        return refuse(view, "asks for a fixed batch size")
    return keep(view, max(view.x.rank, len(asked)) - place)


@rule("Tile")
def tile(view: NodeView) -> RuleAnswer:
    """Accept repeats that leave the batch alone."""
    target = view.operand(1)
    repeats = None if target is None or target.state is not SHARED else target.ints()
    if repeats is None or not isinstance(view.x.state, int) or view.x.state >= len(repeats):
        return refuse(view, "computes its repeats")
    if repeats[view.x.state] != 1:
        return refuse(view, "repeats the batch")
    return keep(view, view.x.state)


@rule("Trilu")
def trilu(view: NodeView) -> RuleAnswer:
    """Keep triangles of matrices that do not include the batch axis."""
    batch, rank = view.x.state, view.x.rank
    if not isinstance(batch, int) or rank is None or batch >= rank - 2 or not view.shared():
        return refuse(view, "cuts a triangle that includes the batch axis")
    return keep(view, batch)
