"""The model with open places for its weights.

Every use of a chosen weight gets an initializer of its own, a slot, directly at the operator; what stood
between (Transpose, Cast, DequantizeLinear …) is folded into the numbers that fill the slot. Slots are
declared as external data: a session is made from a small message and arrays in memory, its constants. Tensors
that stay digital travel in the message where they are small, and beside it like slots where they are large.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.errors import ModelError
from nvaudit.model.analysis import Analysis, End, Root, analyse
from nvaudit.model.batch.rebatch import Rebatch, rebatch
from nvaudit.model.build import Names, remove_unused
from nvaudit.model.cause import graph_errors
from nvaudit.model.crossbar.plan import CrossbarPlan, CrossbarSplit
from nvaudit.model.crossbar.recurrent import find_lengths, unroll, why_not_unrolled
from nvaudit.model.crossbar.split import MIN_OPSET, split_weight
from nvaudit.model.integer import rewrite_integer
from nvaudit.model.layout import Layout
from nvaudit.model.load import LoadedModel
from nvaudit.model.operators import is_float
from nvaudit.model.readnoise import add_read_noise, takes_read_noise
from nvaudit.model.tensors import read_tensor
from nvaudit.model.walk import graphs, is_constant_node, places
from nvaudit.model.weights import choose

SLOT_FILE = "nvaudit-slots.bin"
"""The external data that slots and large digital tensors point to."""

MAX_INLINE_BYTES = 2**20
"""Digital tensors up to this size travel in the message."""

ALIGNMENT = 64
_EXTERNAL_IR_VERSION = 4  # the first in which an initializer need not be an input


@dataclass(frozen=True)
class Slot:
    """One open place.

    Attributes
    ----------
    name : str
        The initializer's name in the template.
    weight_key : str
        The weight that fills it.
    dtype : str
        Element type it takes.
    shape : tuple of int
        Shape it takes.
    transform : Layout
        From the weight's primary layout to the slot.
    offset : int
        Where its bytes start in ``nvaudit-slots.bin``.
    variance : bool
        Takes the variance of one read of each weight instead of the weights.
    cells : bool
        Takes the levels of every device instead of the weights, times ``factor``; ``transform`` then starts
        from (device, *primary layout).
    """

    name: str
    weight_key: str
    dtype: str
    shape: tuple[int, ...]
    transform: Layout
    offset: int = 0
    variance: bool = False
    cells: bool = False
    factor: float = 1.0

    def fill(self, values: Array) -> Array:
        """Lay a weight out as the slot takes it.

        Parameters
        ----------
        values : ndarray
            The weight in its primary layout, any float type.

        Returns
        -------
        ndarray
            A contiguous array of the slot's shape and type.
        """
        return self.cast(self.transform.apply(values)).reshape(self.shape)

    def cast(self, values: Array) -> Array:
        """Bring an array to the slot's element type.

        Parameters
        ----------
        values : ndarray
            Any float type.

        Returns
        -------
        ndarray
            Contiguous, in the slot's type.
        """
        return np.ascontiguousarray(values, dtype=_numpy_type(self.dtype))


@dataclass(frozen=True)
class Template:
    """A model with open places.

    Attributes
    ----------
    proto : bytes
        The ONNX message; slots and large digital tensors are declared as external data in
        ``nvaudit-slots.bin``.
    slots : tuple of Slot
        What to fill, in graph order.
    digital : dict of str to ndarray
        Large digital tensors by initializer name; read-only, memory-mapped where the model's are.
    offsets : dict of str to int
        Where the bytes of each slot and digital tensor start in ``nvaudit-slots.bin``.
    rebatch : Rebatch or None
        What became of the batch size; None where it was left alone.
    splits : tuple of CrossbarSplit
        What became of each weight that was to be split over crossbars.
    """

    proto: bytes
    slots: tuple[Slot, ...]
    digital: dict[str, Array]
    offsets: dict[str, int]
    rebatch: Rebatch | None = None
    splits: tuple[CrossbarSplit, ...] = ()


def build_template(
    loaded: LoadedModel,
    weight_keys: Sequence[str],
    *,
    batch: Literal["keep", "free"] = "keep",
    read_noise: Collection[str] = (),
    crossbars: CrossbarPlan | None = None,
) -> Template:
    """Make the template of a model.

    Parameters
    ----------
    weight_keys : sequence of str
        Keys of the weights that are on the array.
    batch : {"keep", "free"}
        Whether to free a fixed batch size where that is provably the same model.
    read_noise : collection of str
        Weights whose reads are noisy: the noise is drawn in the graph where every use allows it, and a
        slot for its variance is added.
    crossbars : CrossbarPlan, optional
        Weights to split over crossbars.

    Raises
    ------
    ModelError
        If a key is not a weight of the model, or the graph cannot be rewritten.
    """
    with graph_errors(loaded.path, "rewritten"):
        return _build(loaded, list(weight_keys), batch, read_noise, crossbars)


def _build(
    loaded: LoadedModel, keys: list[str], batch: str, noisy: Collection[str], crossbars: CrossbarPlan | None
) -> Template:
    model = loaded.model.clone()
    freed = rebatch(model) if batch == "free" else None
    analysis = analyse(model)
    roots = {root.key: root for root in analysis.roots}
    maker = _SlotMaker(model)
    for key in dict.fromkeys(keys):
        if key not in roots or not choose(roots[key]).mapped:
            raise ModelError(f"{loaded.path}: {key!r} is not a weight of this model; see `nvaudit inspect`")
        maker.open(roots[key], analysis)
    # Order matters: a recurrent operator is written out while its slots are whole; what is split has its
    # places replaced; noise of reading needs to know in which places, whole or split, the weight has ended
    # up.
    if crossbars is not None:
        maker.unroll(set(crossbars.cells))
    for key in dict.fromkeys(keys):
        if crossbars is not None and key in crossbars.cells:
            maker.split(key, crossbars)
        if key in noisy:
            maker.add_variances(key)
    # An initializer that is also an input is only a default; as a constant it is folded and packed.
    for value in list(model.graph.inputs):
        if value.is_initializer():
            model.graph.inputs.remove(value)
    remove_unused(model.graph)
    model.ir_version = max(model.ir_version or 0, _EXTERNAL_IR_VERSION)
    slots = maker.named(roots)
    digital = take_large(model, {slot.name for slot in slots}, maker.names)
    offsets = _declare_external(model, slots, digital)
    slots = tuple(Slot(**{**vars(slot), "offset": offsets[slot.name]}) for slot in slots)
    proto = ir.serde.serialize_model(model)
    return Template(proto.SerializeToString(), slots, digital, offsets, freed, tuple(maker.splits))


def open_inputs(proto: bytes, names: Collection[str]) -> bytes:
    """Make inputs of some initializers of the main graph: a session then takes their numbers at each run.

    Parameters
    ----------
    proto : bytes
        An ONNX message.
    names : collection of str
        Of initializers; what else the message declares stays as it is.

    Returns
    -------
    bytes
        The message with these as further inputs, in the order in which they were declared.
    """
    model = onnx.ModelProto.FromString(proto)
    graph = model.graph
    opened = [tensor for tensor in graph.initializer if tensor.name in names]
    left = [tensor for tensor in graph.initializer if tensor.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(left)
    for tensor in opened:
        graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    return bytes(model.SerializeToString())


class _SlotMaker:
    """Opens slots; uses that take the same numbers in the same layout and type share one."""

    def __init__(self, model: ir.Model) -> None:
        self.model, self.graph = model, model.graph
        self.opset = model.opset_imports.get("", 1)
        self.names = Names(model.graph)
        self.open_slots: dict[tuple[str, Layout, ir.DataType], tuple[Slot, ir.Value]] = {}
        self.variance_slots: list[Slot] = []
        self.cell_slots: list[tuple[Slot, ir.Value]] = []
        self.splits: list[CrossbarSplit] = []
        self.shapes: dict[str, tuple[int, ...]] = {}

    def open(self, root: Root, analysis: Analysis) -> None:
        """Replace every mapped use of a constant."""
        choice = choose(root)
        self.shapes[root.key] = choice.mapped[0].state.shape
        for end, layout in zip(choice.mapped, choice.layouts, strict=True):
            value = self._value(root.key, end, layout)
            assert end.place is not None
            assert end.role is not None
            if end.role.decode is None:
                end.place.node.replace_input_with(end.index, value)
            else:
                rewrite_integer(end.place.node, end.index, value, self.names, self.opset)

    def _value(self, key: str, end: End, layout: Layout) -> ir.Value:
        assert end.role is not None
        dtype = ir.DataType.FLOAT if end.role.decode is not None else end.state.dtype
        opened = self.open_slots.get((key, layout, dtype))
        if opened is None:
            shape = end.state.shape if end.taken is None else end.taken.shape
            value = self._initializer(f"{key}/slot", dtype, shape)
            slot = Slot(value.name or "", key, str(dtype.numpy()), shape, layout)
            opened = self.open_slots[(key, layout, dtype)] = (slot, value)
        return opened[1]

    def _initializer(self, wish: str, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
        name = self.names.fresh(wish)
        # The size-0 length is set when every slot is known.
        tensor = ir.ExternalTensor(SLOT_FILE, 0, 0, dtype, shape=ir.Shape(shape), name=name)
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def unroll(self, keys: set[str]) -> None:
        """Write recurrent operators out whose weights are all to be split over crossbars."""
        recurrent = [node for inner, _ in graphs(self.graph) for node in inner if is_float(node, "recurrent")]
        if recurrent:
            find_lengths(self.model)
        at = {id(value): place for place, (_, value) in self.open_slots.items()}
        for node in recurrent:
            weights = [node.inputs[1], node.inputs[2]]
            places = [at.get(id(value)) for value in weights]
            # The whole operator goes: another use of one of its slots would be left without it.
            lone = all(value is not None and len(list(value.uses())) == 1 for value in weights)
            if not lone or why_not_unrolled(node) is not None or self.opset < MIN_OPSET:
                continue
            if any(place is None or place[0] not in keys for place in places):
                continue
            self._unroll(node, [self.open_slots.pop(place)[0] for place in places if place is not None])

    def _unroll(self, node: ir.Node, slots: list[Slot]) -> None:
        def part(index: int, steps: Layout, shape: tuple[int, int]) -> ir.Value:
            slot = slots[index - 1]
            dtype = ir.DataType.from_numpy(_numpy_type(slot.dtype))
            value = self._initializer(f"{slot.weight_key}/part", dtype, shape)
            # Primary layout to the operator's, then to the part: it is filled from the weight as any slot is.
            layout = slot.transform.then(steps)
            made = Slot(value.name or "", slot.weight_key, slot.dtype, shape, layout)
            self.open_slots[slot.weight_key, layout, dtype] = (made, value)
            return value

        unroll(node, part, slots[0].shape[2], self.names, self.opset)

    def split(self, key: str, plan: CrossbarPlan) -> None:
        """Split a weight over crossbars, if every use of it allows that."""
        own = {at: place for at, place in self.open_slots.items() if place[0].weight_key == key}
        places = [(slot.name, slot.transform, slot.dtype, value) for slot, value in own.values()]
        split, made = split_weight(
            key, self.shapes[key], places, plan, self.graph, self.names, self.opset, self._initializer
        )
        self.splits.append(split)
        if split.reason is not None:
            return
        for at in own:
            del self.open_slots[at]
        for cell in made:
            slot = Slot(cell.value.name or "", key, cell.dtype, cell.shape, cell.steps)
            self.cell_slots.append((replace(slot, cells=True, factor=cell.factor), cell.value))

    def add_variances(self, key: str) -> None:
        """Draw the noise of reading a weight in the graph, if every use of it allows that."""
        every = (*self.open_slots.values(), *self.cell_slots)
        own = [(slot, value) for slot, value in every if slot.weight_key == key]
        # All uses or none: with noise in some of them only, the weight would follow neither model of reading.
        if not all(takes_read_noise(value, self.opset) for _, value in own):
            return
        for slot, value in own:
            variance = self._initializer(f"{key}/read_variance", ir.DataType.FLOAT, slot.shape)
            add_read_noise(value, variance, self.names)
            name = variance.name or ""
            self.variance_slots.append(replace(slot, name=name, dtype="float32", variance=True))

    def named(self, roots: dict[str, Root]) -> tuple[Slot, ...]:
        """Give slots the weights' own names where these have become free."""
        left = Names(self.graph).taken
        slots = []
        for slot, value in self.open_slots.values():
            # The weight's name is free once no digital use reads the old initializer: files that are
            # written from a template then keep the names of the model.
            own = roots[slot.weight_key].value.name or ""
            if own and own not in left:
                left.add(own)
                value.name = own
                slot = Slot(own, slot.weight_key, slot.dtype, slot.shape, slot.transform)
            slots.append(slot)
        return (*slots, *(slot for slot, _ in self.cell_slots), *self.variance_slots)


def _declare_external(model: ir.Model, slots: Sequence[Slot], digital: dict[str, Array]) -> dict[str, int]:
    """Give slots and large tensors their places in the external file."""
    offsets: dict[str, int] = {}
    offset = 0
    for name in (*(slot.name for slot in slots), *digital):
        value = model.graph.initializers[name]
        tensor = value.const_value
        assert tensor is not None
        nbytes = int(tensor.nbytes)
        value.const_value = ir.ExternalTensor(
            SLOT_FILE, offset, nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
        )
        offsets[name] = offset
        offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return offsets


def _numpy_type(name: str) -> np.dtype[np.generic]:
    """A numpy type by name, ``ml_dtypes`` included."""
    return ir.DataType[_SHORT.get(name, name.upper())].numpy()


_SHORT = {"float32": "FLOAT", "float64": "DOUBLE"}


def take_large(model: ir.Model, slots: set[str], names: Names) -> dict[str, Array]:
    """Move large digital tensors to initializers of the main graph, and make small external ones inline.

    Parameters
    ----------
    model : onnx_ir.Model
        The model; it is changed.
    slots : set of str
        Initializers of the main graph that are left alone.

    Returns
    -------
    dict of str to ndarray
        The large tensors by initializer name; memory-mapped where the model's are.

    Raises
    ------
    ModelError
        If a tensor cannot be read.
    """
    taken: dict[str, Array] = {}
    for graph, path in list(graphs(model.graph)):
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or (not path and value.name in slots):
                continue
            # An initializer that is itself an output is returned, and has to stay one in its graph.
            if _is_large(tensor) and not value.is_graph_output():
                hoisted = value if not path else _hoist(model.graph, value, tensor, names)
                taken[hoisted.name or ""] = read_tensor(tensor)
            elif isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(read_tensor(tensor), dtype=tensor.dtype, name=tensor.name)
    for place in list(places(model.graph)):
        if is_constant_node(place.node):
            _take_constant(model.graph, place.node, names, taken)
    return taken


def _is_large(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor is handed over beside the message; text and packed types cannot be."""
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes <= MAX_INLINE_BYTES:
        return False
    return tensor.dtype == ir.DataType.BFLOAT16 or tensor.dtype.numpy().kind in "fiubc"


def _take_constant(main: ir.Graph, node: ir.Node, names: Names, taken: dict[str, Array]) -> None:
    """A Constant node, if it holds a large or external tensor."""
    attribute = node.attributes.get("value")
    if attribute is None or attribute.type != ir.AttributeType.TENSOR:
        return
    tensor, output = attribute.as_tensor(), node.outputs[0]
    if _is_large(tensor) and not output.is_graph_output():
        hoisted = _hoist(main, output, tensor, names)
        taken[hoisted.name or ""] = read_tensor(tensor)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
    elif isinstance(tensor, ir.ExternalTensor):
        inline = ir.Tensor(read_tensor(tensor), dtype=tensor.dtype, name=tensor.name)
        node.attributes["value"] = ir.AttrTensor("value", inline)


def _hoist(main: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol, names: Names) -> ir.Value:
    """Put an initializer of the main graph in the place of a value."""
    name = names.fresh(f"{value.name}/digital")
    shape = ir.Shape(tensor.shape.numpy())
    stand_in = ir.ExternalTensor(SLOT_FILE, 0, 0, tensor.dtype, shape=shape, name=name)
    hoisted = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=stand_in)
    main.register_initializer(hoisted)
    graph = value.graph
    value.replace_all_uses_with(hoisted)
    if value.is_initializer() and graph is not None and value.name is not None:
        del graph.initializers[value.name]
    return hoisted
