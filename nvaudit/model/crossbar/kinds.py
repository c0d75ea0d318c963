"""Which axes of a weight are rows of a crossbar and which are columns, operator by operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.crossbar.plan import RowBlock
from nvaudit.model.crossbar.recurrent import why_not_unrolled
from nvaudit.model.layout import Layout, Move
from nvaudit.model.operators import MATRIX_PRODUCTS, find_operator, is_float
from nvaudit.model.walk import attribute


class Refused(Exception):
    """A use of a weight that is not split over crossbars; says why."""


@dataclass(frozen=True)
class ProductForm:
    """How an operator takes a weight.

    Attributes
    ----------
    form : str
        ``conv``, ``deconv`` (ConvTranspose), ``right`` and ``left`` (the side of a matrix product).
    shape : tuple of int
        The weight as the operator takes it.
    transposed : bool
        Of ``right``: stored as [output, input].
    """

    form: Literal["conv", "deconv", "right", "left"]
    shape: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def channels(self) -> int:
        """Input channels of one matrix."""
        if self.form == "conv":
            return self.shape[1]
        if self.form == "deconv":
            return self.shape[0] // self.groups
        return self.shape[1 if self.form == "left" or self.transposed else 0]

    @property
    def kernel(self) -> int:
        """Positions of the kernel."""
        return math.prod(self.shape[2:]) if self.form in ("conv", "deconv") else 1

    @property
    def outputs(self) -> int:
        """Weight columns of all matrices together."""
        if self.form == "conv":
            return self.shape[0]
        if self.form == "deconv":
            return self.shape[1] * self.groups
        if len(self.shape) == 1:
            return 1
        return self.shape[0 if self.form == "left" or self.transposed else 1]

    def arrangement(
        self, block: RowBlock, devices: int, blocks: int, lanes: int = 1
    ) -> tuple[Layout, tuple[int, ...]]:
        """Steps from the stacked devices, (device, *shape), to the slot of one row block; and its shape.

        Parameters
        ----------
        lanes : int
            Of ``conv``: outputs that stay together, first device by first device; it divides the outputs.

        Raises
        ------
        Refused
            If the rows cannot be split so.
        """
        start, stop = block.channels
        cut = [("slice", (2, start, stop))] if blocks > 1 else []
        if self.form == "conv":
            return self._conv(block, devices, blocks, lanes)
        if self.form == "deconv":
            if blocks > 1 and (self.groups > 1 or block.used < (stop - start) * self.kernel):
                raise Refused(
                    "the rows of its transposed convolution do not fit a crossbar in whole channels"
                )
            cut = [("slice", (1, start, stop))] if blocks > 1 else []
            axes = tuple(range(3, len(self.shape) + 1))
            wanted = (
                (stop - start if blocks > 1 else self.shape[0]),
                self.shape[1] * devices,
                *self.shape[2:],
            )
            # [device, input, output, kernel] to [input, (output, device), kernel]: devices of an output
            # become neighbouring output channels.
            return Layout([*cut, ("transpose", (1, 2, 0, *axes)), ("reshape", wanted)]), wanted
        if self.form == "left":
            # [device, output, input] to [(output, device), input]: one row for each device of an output.
            wanted = (self.shape[0] * devices, stop - start)
            return Layout([*cut, ("transpose", (1, 0, 2)), ("reshape", wanted)]), wanted
        # A batch of matrices, one for each device: MatMul broadcasts x over them.
        wanted = (devices, stop - start, self.outputs)
        if len(self.shape) == 1:
            unsplit = (devices, self.shape[0], 1)
            cut = [("slice", (1, start, stop))] if blocks > 1 else []
            return Layout([("reshape", unsplit), *cut]), wanted
        turn = [("transpose", (0, 2, 1))] if self.transposed else []
        cut = [("slice", (1, start, stop))] if blocks > 1 else []
        return Layout([*turn, *cut]), wanted

    def _conv(self, block: RowBlock, devices: int, blocks: int, lanes: int) -> tuple[Layout, tuple[int, ...]]:
        outputs, channels, *kernel = self.shape
        start, stop = block.channels
        steps: list[Move] = []
        whole_channels = block.rows == (start * self.kernel, stop * self.kernel)
        if blocks > 1 and (self.groups > 1 or not whole_channels):
            # Groups keep their input whole: the rows of other crossbars are zero in this one.
            steps += [
                ("reshape", (devices, outputs, channels * self.kernel)),
                ("keep", (2, *block.rows)),
                ("reshape", (devices, *self.shape)),
            ]
        if self.narrows(blocks):
            steps.append(("slice", (2, start, stop)))
            channels = stop - start
        # Devices of an output (of a few outputs, with lanes) are near each other: groups of the convolution
        # stay whole, and what shifts and adds them is again a convolution, with a group for each of these.
        wanted = (outputs * devices, channels, *kernel)
        steps.append(("reshape", (devices, outputs // lanes, lanes, channels, *kernel)))
        axes = tuple(range(2, len(self.shape) + 2))
        return Layout([*steps, ("transpose", (1, 0, *axes)), ("reshape", wanted)]), wanted

    def narrows(self, blocks: int) -> bool:
        """Whether a row block takes only its own input channels."""
        return blocks > 1 and self.groups == 1

    def beside_channels(self, values: Array) -> Array:
        """Shape a value for each input channel of each matrix to multiply the other operand.

        Parameters
        ----------
        values : ndarray, shape (group, channel)
        """
        flat = values.reshape(-1)
        if self.form in ("conv", "deconv"):
            return flat.reshape(1, -1, *(1 for _ in self.shape[2:]))
        return flat[:, None] if self.form == "left" else flat

    def by_output(self, values: Array) -> Array:
        """Bring a table over the weight's elements to [output, element]."""
        if self.form == "deconv":
            channels, outputs, *kernel = self.shape
            grouped = values.reshape(self.groups, channels // self.groups, outputs, math.prod(kernel))
            return grouped.transpose(0, 2, 1, 3).reshape(self.groups * outputs, -1)
        if self.form == "right" and not self.transposed:
            return values.reshape(self.shape[0], -1).T
        return values.reshape(self.outputs, -1)


def use_kind(node: ir.Node, index: int) -> ProductForm:
    """How an operator takes the weight at one of its inputs.

    Raises
    ------
    Refused
        If it is not split.
    """
    value = node.inputs[index]
    assert value is not None
    assert value.shape is not None
    shape = tuple(int(size) for size in value.shape if isinstance(size, int))
    if is_float(node, "recurrent"):
        raise Refused(why_not_unrolled(node) or "not all weights of its operator are to be split")
    return kind_of(node.op_type, node.domain, partial(attribute, node), index, shape)


def kind_of(
    op_type: str, domain: str, attribute: Callable[[str, Any], Any], index: int, shape: tuple[int, ...]
) -> ProductForm:
    """How an operator takes a weight of some shape at one of its inputs.

    Parameters
    ----------
    attribute : callable
        From the name of an attribute and its default to its value.

    Raises
    ------
    Refused
        If it is not split.
    """
    operator = find_operator(op_type, domain) if domain in ("", "ai.onnx") else None
    family = None if operator is None or operator.decode else operator.family
    if family == "convolution":
        return ProductForm("conv", shape, attribute("group", 1))
    if family == "transposed convolution":
        return ProductForm("deconv", shape, attribute("group", 1))
    if family not in MATRIX_PRODUCTS:
        raise Refused(f"its operator {op_type} is not taken apart into column sums")
    if len(shape) > 2:
        raise Refused("it is a stack of matrices, one for each item of a batch")
    if index:
        return ProductForm("right", shape, transposed=bool(attribute("transB", 0)))
    if len(shape) == 1:
        raise Refused("it is a vector on the left of a matrix product")
    if attribute("transA", 0):
        raise Refused(f"it is the transposed left side of a {op_type}")
    return ProductForm("left", shape)
