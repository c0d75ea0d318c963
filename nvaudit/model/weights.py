"""One array of devices: the numbers of a weight, and every place that takes them."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.errors import ModelError
from nvaudit.model.analysis import Analysis, End, Root
from nvaudit.model.chains import Clamp, Quantize, Unpack, layout_of
from nvaudit.model.decode import IntegerGrid, decode_values, grid_bits
from nvaudit.model.evaluate import NotFolded
from nvaudit.model.fold import computed, stored_array
from nvaudit.model.layout import UNMOVED, Layout
from nvaudit.model.roles import CrossbarMatrix
from nvaudit.model.tensors import find_bad


@dataclass(frozen=True)
class WeightUse:
    """One operator that takes a weight.

    Attributes
    ----------
    node_name : str
        Its name, or operator and position.
    domain : str
        Domain of the operator, ``""`` for ONNX's own.
    input_index : int
        Position of the weight among its inputs.
    graph_path : str
        The graph it is in, ``""`` for the main one.
    node : onnx_ir.Node
        The operator itself; names may come twice.
    turned : bool
        Whether it takes the weight in another layout than the first use does, or a part of a stack.
    """

    node_name: str
    op_type: str
    domain: str
    input_index: int
    graph_path: str
    node: ir.Node = field(repr=False, compare=False)
    turned: bool = False


@dataclass(frozen=True)
class WeightValues:
    """The numbers of a weight.

    Attributes
    ----------
    values : ndarray
        In the primary layout and in the float type that the operator takes (``Weight.dtype``).
    grid : IntegerGrid or None
        The integers behind the values, for a quantised weight.
    """

    values: Array
    grid: IntegerGrid | None


@dataclass(frozen=True)
class Weight:
    """One array of devices: a constant that operators multiply by.

    Attributes
    ----------
    key : str
        Unique name: the constant's own, with its graph's path where several share it.
    product : str
        What multiplies by it there, in words; its operator, unless that picks from a stack of weights.
    shape : tuple of int
        The primary layout: that in which the first use takes it.
    dtype : str
        Float type at the first use; ``"float32"`` for integer operators.
    is_integer : bool
        Whether it has its own integer grid.
    grid_bits : int or None
        Bits of the integers of this grid.
    channel_axes : tuple of int
        Output-channel axes of the primary layout; ``()`` for a single output.
    uses : tuple of WeightUse
        Every operator that takes it as a weight, in graph order.
    origin : str
        How it is stored, as of ``Constant``; ``"folded"``: computed from several tensors.
    stored_shape : tuple of int
        As it is stored; of a computed one as it is computed.
    to_stored : Layout
        From the primary layout to that.
    """

    key: str
    op: str
    product: str
    shape: tuple[int, ...]
    dtype: str
    is_integer: bool
    grid_bits: int | None
    channel_axes: tuple[int, ...]
    matrix: CrossbarMatrix
    uses: tuple[WeightUse, ...]
    origin: str
    stored_shape: tuple[int, ...]
    to_stored: Layout
    source: _WeightSource = field(repr=False, compare=False)

    def load(self) -> WeightValues:
        """Read the numbers; nothing is kept, so that large models fit.

        Raises
        ------
        ModelError
            If the data cannot be read, or holds NaN or infinite values.
        """
        where = f"{self.source.path}: weight {self.key!r}"
        try:
            values, grid = self.source.read()
        except ModelError as error:
            raise ModelError(f"{where}: {error}") from error
        bad = find_bad(values)
        if bad:
            raise ModelError(f"{where}: {bad} of {values.size} values are NaN or infinite; repair the model")
        return WeightValues(values, grid)


@dataclass(frozen=True)
class _WeightSource:
    """Where a weight's numbers come from."""

    path: str
    value: ir.Value
    end: End
    state: object
    folded: bool
    opset: int

    def read(self) -> tuple[Array, IntegerGrid | None]:
        try:
            stored = computed(self.value, self.opset) if self.folded else stored_array(self.value)
        except NotFolded as error:
            raise ModelError(f"it cannot be computed: {error}; keep it digital") from error
        if stored is None:
            raise ModelError("its data cannot be computed; keep it digital")
        role = self.end.role
        dtype = ir.DataType.from_numpy(stored.dtype)
        return decode_values(stored, dtype, self.end.steps, role.decode if role else None, self.opset)


@dataclass(frozen=True)
class Choice:
    """The ends of a constant, split.

    Attributes
    ----------
    mapped : list of End
        Weight uses of one array.
    layouts : list of Layout
        From the primary layout to each of these.
    to_primary, to_stored : Layout
        From the stored layout to the primary one, and back.
    """

    mapped: list[End]
    layouts: list[Layout]
    digital: list[End]
    to_primary: Layout = UNMOVED
    to_stored: Layout = UNMOVED


def choose(root: Root) -> Choice:
    """Split the ends of a constant into weight uses of one array, and digital ones.

    Returns
    -------
    Choice
        Weight uses that read the same numbers as the first one; others are digital.
    """
    weights = [end for end in root.ends if end.role is not None]
    if not weights:
        return Choice([], [], list(root.ends))
    # One array of devices holds one set of numbers: ends that read others (another scale of the same
    # integers) cannot share it and stay digital.
    first = _reading(weights[0])
    mapped = [end for end in weights if _reading(end) == first]
    taken = {id(end) for end in mapped}
    stored = root.state.shape
    to_primary = layout_of(stored, mapped[0].steps)
    to_stored = to_primary.inverse(stored)
    # From the primary layout back to the stored one, then along the chain of each use, and back into blocks
    # where an operator takes them so.
    layouts = [
        to_stored.then(layout_of(stored, end.steps), end.taken.back if end.taken else ()).simplified(
            mapped[0].state.shape
        )
        for end in mapped
    ]
    digital = [end for end in root.ends if id(end) not in taken]
    return Choice(mapped, layouts, digital, to_primary, to_stored)


def make_weight(root: Root, choice: Choice, analysis: Analysis, path: str) -> Weight:
    """Describe the array that a constant makes.

    Parameters
    ----------
    choice : Choice
        Its ends; at least one is mapped.
    """
    end = choice.mapped[0]
    role, place = end.role, end.place
    assert role is not None
    assert place is not None
    bits = grid_bits(root.state.dtype, end.steps)
    return Weight(
        key=root.key,
        op=place.node.op_type,
        product=role.product or place.node.op_type,
        shape=end.state.shape,
        dtype="float32" if role.decode is not None else dtype_name(end.state.dtype),
        is_integer=bits is not None,
        grid_bits=bits,
        channel_axes=role.channel_axes,
        matrix=role.matrix,
        uses=tuple(
            WeightUse(
                e.place.label,
                e.place.node.op_type,
                e.place.node.domain,
                e.index,
                e.path,
                e.place.node,
                turned=bool(layout) or e.taken is not None,
            )
            for e, layout in zip(choice.mapped, choice.layouts, strict=True)
            if e.place is not None
        ),
        origin=root.origin,
        stored_shape=root.state.shape,
        to_stored=choice.to_stored,
        source=_WeightSource(path, root.value, end, root.state, root.origin == "folded", analysis.opset),
    )


def dtype_name(dtype: ir.DataType) -> str:
    """Name an element type as numpy does.

    Returns
    -------
    str
        For instance ``"float32"``, ``"bfloat16"``, ``"string"``.
    """
    if dtype == ir.DataType.STRING:
        return "string"
    return "undefined" if dtype == ir.DataType.UNDEFINED else str(dtype.numpy())


def _reading(end: End) -> tuple[object, ...]:
    """What decides the numbers that an end reads, beside their layout."""
    scales: list[object] = [
        step
        if isinstance(step, Clamp | Unpack)
        else (step.back, _origin(step.scale), _origin(step.zero), step.axis, step.block)
        for step in end.steps
        if isinstance(step, Quantize | Clamp | Unpack)
    ]
    decode = end.role.decode if end.role else None
    if decode is not None:
        scales.append((_origin(decode.scale), _origin(decode.zero)))
    return tuple(scales)


def _origin(value: ir.Value | None) -> object:
    """What tells one scale from another: the stored bytes where they are small, else the value."""
    # Exporters store the same scale once for each reader: equal bytes are one scale, or two uses of a
    # tensor would look like two arrays.
    array = None if value is None else stored_array(value)
    if array is None or array.size > 1 << 16 or array.dtype.kind == "U":
        return value
    return (str(array.dtype), array.shape, array.tobytes())
