"""A template as ONNX Runtime has rewritten it: sessions of chips are then made without optimising it again.

Rewrites that move weights about (blocked layouts of convolutions) or multiply them by constants (a batch
normalisation that goes into a convolution) are found by what they do to ones and to numbered weights. Where
more is done to weights, the template is optimised for each chip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from nvaudit.arrays import Array
from nvaudit.model.template import SLOT_FILE, Slot

_TYPES = ("float32", "float64")
"""Types of slots that can hold numbers up to the most weights there may be."""

_MOST = 1 << 22
"""Weights that can be told apart by number, in single precision and multiplied by something."""


@dataclass(frozen=True)
class _OpenWeight:
    """An initializer that is filled for each chip.

    Attributes
    ----------
    slot : str
        Whose weights it takes.
    place : ndarray of int, or None
        Which of them, element by element; beyond the last one stands a 0 that fills up. None: all, in order.
    factor : ndarray or None
        What each element is multiplied by.
    """

    slot: str
    place: NDArray[np.intp] | None
    factor: Array | None

    def fill(self, slots: Mapping[str, Array]) -> Array:
        """Lay the weights of a chip out."""
        values = slots[self.slot]
        if self.place is not None:
            values = np.append(values.ravel(), values.dtype.type(0))[self.place]
        return values if self.factor is None else values * self.factor


@dataclass(frozen=True)
class OptimisedTemplate:
    """A rewritten template, to be run as it is.

    Attributes
    ----------
    message : bytes
        Its initializers that hold weights are declared as external data.
    """

    message: bytes
    _open: Mapping[str, _OpenWeight]

    def fills(self, slots: Mapping[str, Array]) -> dict[str, Array]:
        """Lay the weights of a chip out as the rewritten template takes them.

        Parameters
        ----------
        slots : mapping of str to ndarray
            By the names of the slots.
        """
        return {name: how.fill(slots) for name, how in self._open.items()}


def trial_fills(slots: Sequence[Slot]) -> tuple[dict[str, Array], dict[str, Array]] | None:
    """Fill slots with ones, and with numbers from 1 on, each once; None where their types hold too few."""
    sizes = [int(np.prod(slot.shape)) for slot in slots]
    if any(slot.dtype not in _TYPES for slot in slots) or sum(sizes) >= _MOST:
        return None
    ends = np.cumsum(sizes).tolist()
    ones = {slot.name: np.ones(slot.shape, slot.dtype) for slot in slots}
    numbers = {
        slot.name: np.arange(end - size + 1, end + 1, dtype=slot.dtype).reshape(slot.shape)
        for slot, size, end in zip(slots, sizes, ends, strict=True)
    }
    return ones, numbers


def read_optimised(
    slots: Sequence[Slot], tried: Sequence[Mapping[str, Array]], written: Sequence[bytes]
) -> OptimisedTemplate | None:
    """Find out where the weights of a template have gone as it was optimised.

    Parameters
    ----------
    tried : sequence of mapping of str to ndarray
        The two of :func:`trial_fills`, and the weights of some chip.
    written : sequence of bytes
        The template as it was optimised with each of them.

    Returns
    -------
    OptimisedTemplate or None
        None where weights were computed with otherwise, or where what they are made a difference to the
        graph.
    """
    protos = [onnx.ModelProto.FromString(data) for data in written]
    values = [{i.name: numpy_helper.to_array(i) for i in proto.graph.initializer} for proto in protos]
    opened: dict[str, _OpenWeight] = {}
    for name in set.intersection(*(set(each) for each in values)):
        ones, numbers, found = (each[name] for each in values)
        if ones.tobytes() == numbers.tobytes() == found.tobytes():
            continue
        how = _where(slots, tried[1], ones, numbers)
        if how is None or how.fill(tried[2]).tobytes() != found.tobytes():
            return None
        opened[name] = how
    for proto in protos:
        for tensor in proto.graph.initializer:
            if tensor.name in opened:
                _declare_external(tensor)
        for node in proto.graph.node:
            node.name = ""  # numbered in an order that is another in each session
    messages = {proto.SerializeToString(deterministic=True) for proto in protos}
    return OptimisedTemplate(messages.pop(), opened) if len(messages) == 1 else None


def _where(
    slots: Sequence[Slot], numbers: Mapping[str, Array], factor: Array, values: Array
) -> _OpenWeight | None:
    """Which weights an initializer holds, told by their numbers and by what was made of ones."""
    with np.errstate(divide="ignore", invalid="ignore"):
        number = np.where(factor == 0, 0, np.rint(values / factor.astype(np.float64)))
    for slot in slots:
        own = numbers[slot.name]
        if own.dtype != values.dtype or not own.size:
            continue
        place = np.where(number == 0, own.size, number - own.min())
        if not ((place >= 0) & (place <= own.size)).all() or not number.any():
            continue
        index = place.astype(np.intp)
        in_order = values.shape == own.shape and np.array_equal(index.ravel(), np.arange(own.size))
        kept = np.where(factor == 0, factor.dtype.type(1), factor)  # beyond the last weight stands a 0
        return _OpenWeight(slot.name, None if in_order else index, None if (kept == 1).all() else kept)
    return None


def _declare_external(tensor: onnx.TensorProto) -> None:
    """Leave an initializer open."""
    size = int(np.prod(tensor.dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    for field in ("raw_data", "float_data", "double_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", SLOT_FILE), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
