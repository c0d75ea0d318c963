"""The operators of a layer on crossbars: DAC, one product per row block, ADC, shift and add.

With row blocks r of the rows i, devices d of a weight with factors f_d and levels l, steps Δ_in of the DAC
and Δ of the ADC, scale s_o of an output and offset c of the encoding:

    x̂_i = clip(round(x_i / Δ_in))
    y_o = s_o Δ_in [ Δ Σ_d f_d Σ_r clip(round(Σ_{i ∈ r} x̂_i l_{d,o,i} / Δ)) − c Σ_i x̂_i ]

The division by Δ is in the levels (``CellSlot.factor``), so that a column sum comes out in codes of its ADC.
The last sum needs no device: it is worked out digitally, on the same codes of the inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.build import Builder
from nvaudit.model.crossbar.kinds import ProductForm
from nvaudit.model.crossbar.plan import CellReadout, Converter, Converters, RowBlock
from nvaudit.model.crossbar.rounding import LANES, ROUNDER
from nvaudit.model.operators import is_gemm
from nvaudit.model.walk import attribute

_CLIP_INPUTS = 11  # from here on the bounds of Clip are inputs, and there is Round
_CLIP_DOUBLE = 12  # before it, ONNX Runtime clips no doubles
_GEOMETRY = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_DECONV_GEOMETRY = (*_GEOMETRY, "output_padding", "output_shape")


@dataclass(frozen=True)
class Weighting:
    """What the digital part multiplies by.

    Attributes
    ----------
    scale : ndarray, float64, shape (part, output)
        Weight units per code.
    inputs : ndarray, float64, shape (group, channel), or None
        What the inputs are multiplied by before the DACs.
    cuts : tuple of int
        Input channels at which a new part begins.
    """

    scale: Array
    uniform: bool
    cells: CellReadout
    inputs: Array | None = None
    cuts: tuple[int, ...] = ()

    @property
    def scaling(self) -> Literal["output", "input", "block"]:
        """As of ``Split``."""
        if self.inputs is not None:
            return "input"
        return "block" if self.cuts else "output"

    def by_channel(self, channels: int) -> Array:
        """Scale of every output: (output, 1), or (output, channel) where parts have their own."""
        if not self.cuts:
            return self.scale.T
        sizes = np.diff([0, *self.cuts, channels])
        return np.repeat(self.scale.T, sizes, axis=1)


@dataclass(frozen=True)
class Digital:
    """What surrounds the crossbars of one weight.

    Attributes
    ----------
    lanes : int
        Outputs whose devices lie together (:meth:`ProductForm.arrangement`); converters round by adding
        where these are several.
    """

    converters: Converters
    weighting: Weighting
    dtype: ir.DataType
    opset: int
    lanes: int = 1

    @property
    def devices(self) -> int:
        """Devices of one weight."""
        return len(self.weighting.cells.factors)

    @property
    def input_step(self) -> float:
        """Value of one input code."""
        return 1.0 if self.converters.dac is None else self.converters.dac.step

    @property
    def factors(self) -> Array:
        """Weight codes times inputs per ADC code, for each device."""
        # The levels carry 1/Δ: an ADC code stands for Δ levels × input codes, and an input code for Δ_in.
        step = 1.0 if self.converters.adc is None else self.converters.adc.step
        return np.asarray(self.weighting.cells.factors, np.float64) * step * self.input_step

    def array(self, values: Any) -> Array:
        """An array in the type that is computed in."""
        return np.asarray(values, self.dtype.numpy())


def rewrite_use(
    build: Builder,
    kind: ProductForm,
    blocks: Sequence[RowBlock],
    slots: Sequence[ir.Value],
    digital: Digital,
    inside: bool,
) -> tuple[str, list[str]]:
    """Replace one operator by crossbars.

    Parameters
    ----------
    build : Builder
        Stands before the operator, which is removed.
    slots : sequence of onnx_ir.Value
        The devices of each row block.

    Returns
    -------
    tuple of str and list of str
        Names of the value that the DACs see, and of those that the ADCs see.
    """
    node = build.before
    other = node.inputs[1 if kind.form == "left" else 0]
    assert other is not None
    outside = other.dtype or node.outputs[0].dtype or digital.dtype
    x = other if outside == digital.dtype else _cast(build, other, digital.dtype)
    flag = "transB" if kind.form == "left" else "transA"
    if is_gemm(node.op_type, node.domain) and attribute(node, flag, 0):
        x = build.node("Transpose", x, attributes={"perm": [1, 0]})
    if digital.weighting.inputs is not None:
        factors = kind.beside_channels(digital.weighting.inputs)
        x = build.node("Mul", x, build.constant(digital.array(factors)))
    elif inside:
        x = build.node("Identity", x)  # two bodies may have values of one name
    seen = x.name or ""
    x = _dac(build, x, kind, digital)
    sums: list[str] = []
    if kind.form in ("conv", "deconv"):
        made = _conv(build, x, kind, blocks, slots, digital, sums)
    elif kind.form == "left":
        made = _left(build, x, blocks, slots, digital, sums)
    else:
        made = _right(build, x, kind, blocks, slots, digital, sums)
    if is_gemm(node.op_type, node.domain):
        made = _gemm_rest(build, node, made, digital)
    if outside != digital.dtype:
        made = _cast(build, made, outside)
    build.replace(made)
    return seen, sums


def _cast(build: Builder, value: ir.Value, to: ir.DataType) -> ir.Value:
    return build.node("Cast", value, attributes={"to": int(to)})


def _dac(build: Builder, x: ir.Value, kind: ProductForm, digital: Digital) -> ir.Value:
    """The codes of the inputs."""
    dac = digital.converters.dac
    if dac is None:
        return x
    if digital.lanes > 1 and kind.channels % LANES == 0:
        adder = _Adder(build, dac, kind.channels, digital)
        return adder.codes(adder.scaled(x))
    return _convert(build, build.node("Mul", x, build.constant(digital.array(1.0 / dac.step))), dac, digital)


def _convert(build: Builder, value: ir.Value, converter: Converter, digital: Digital) -> ir.Value:
    """Nearest codes of values in code units."""
    # round(clip(v)) = clip(round(v)) for whole bounds; and ONNX Runtime fuses a Clip into a convolution
    # before it.
    low, high = digital.array(converter.low), digital.array(converter.high)
    if digital.opset < _CLIP_INPUTS and digital.dtype == ir.DataType.FLOAT:
        value = build.node("Clip", value, attributes={"min": float(low), "max": float(high)})
    elif digital.opset < _CLIP_DOUBLE and digital.dtype != ir.DataType.FLOAT:
        value = build.node("Max", build.node("Min", value, build.constant(high)), build.constant(low))
    else:
        value = build.node("Clip", value, build.constant(low), build.constant(high))
    if digital.opset < _CLIP_INPUTS:
        # There is no Round yet: ties go up here, and to the even code below.
        return build.node("Floor", build.node("Add", value, build.constant(digital.array(0.5))))
    return build.node("Round", value)


def _adc(
    build: Builder,
    columns: Sequence[ir.Value],
    blocks: Sequence[RowBlock],
    digital: Digital,
    sums: list[str],
    channels: int = 0,
) -> list[ir.Value]:
    """Convert the column sums of every row block and add what belongs together: a total for each part.

    Parameters
    ----------
    channels : int
        Of a column sum of a convolution.
    """
    sums.extend(value.name or "" for value in columns)
    parts: dict[int, list[ir.Value]] = {}
    for column, block in zip(columns, blocks, strict=True):
        parts.setdefault(block.part, []).append(column)
    adc = digital.converters.adc
    if adc is None:
        return [_sum(build, part) for part in parts.values()]
    if digital.lanes > 1:
        adder = _Adder(build, adc, channels, digital)
        return [adder.total(part) for part in parts.values()]
    return [_sum(build, [_convert(build, v, adc, digital) for v in part]) for part in parts.values()]


class _Adder:
    """Converters that round by adding (:mod:`nvaudit.model.crossbar.rounding`), of values with channels.

    All in few passes over memory: ONNX Runtime adds and clips where it makes the values, and makes one pass
    of a convolution by channel and the Add behind it.
    """

    def __init__(self, build: Builder, converter: Converter, channels: int, digital: Digital) -> None:
        self.build, self.channels, self.digital = build, channels, digital
        self.one, self.off = self._constant((1, 1, 1), 1.0), self._constant((), -ROUNDER)
        self.converter = converter
        # Constants are shared: every node takes time when a session is made for a chip.
        self.ends: dict[float, list[ir.Value]] = {}

    def _constant(self, shape: tuple[int, ...], value: float) -> ir.Value:
        return self.build.constant(self.digital.array(np.full((self.channels, *shape), value)))

    def near(self, value: ir.Value, shift: float) -> ir.Value:
        """Nearest codes of values in code units, plus ``ROUNDER`` or minus it."""
        if shift not in self.ends:
            ends = [self.digital.array(end + shift) for end in (self.converter.low, self.converter.high)]
            self.ends[shift] = [self._constant((1, 1), shift), *map(self.build.constant, ends)]
        moved, low, high = self.ends[shift]
        return self.build.node("Clip", self.build.node("Add", value, moved), low, high)

    def by_channel(self, value: ir.Value, factor: ir.Value, *shift: ir.Value) -> ir.Value:
        """Multiply, and add, with one number for each channel."""
        return self.build.node("Conv", value, factor, *shift, attributes={"group": self.channels})

    def codes(self, value: ir.Value) -> ir.Value:
        """Nearest codes of values in code units."""
        return self.by_channel(self.near(value, ROUNDER), self.one, self.off)

    def scaled(self, value: ir.Value) -> ir.Value:
        """Values in code units."""
        return self.by_channel(value, self._constant((1, 1, 1), 1.0 / self.converter.step))

    def total(self, columns: Sequence[ir.Value]) -> ir.Value:
        """The sum of the codes of several values."""
        # With M for ROUNDER: c_0 − M and c_1 + M add up to c_0 + c_1; of every further code M is taken off as
        # it is added. All these are whole numbers below 2²⁴, so each sum is exact.
        if len(columns) == 1:
            return self.codes(columns[0])
        total = self.near(columns[0], -ROUNDER)
        for number, column in enumerate(columns[1:]):
            code = self.by_channel(self.near(column, ROUNDER), self.one, *([self.off] if number else []))
            total = self.build.node("Add", code, total)
        return total


def _sum(build: Builder, values: Sequence[ir.Value]) -> ir.Value:
    return values[0] if len(values) == 1 else build.node("Sum", *values)


def _conv(
    build: Builder,
    x: ir.Value,
    kind: ProductForm,
    blocks: Sequence[RowBlock],
    slots: Sequence[ir.Value],
    digital: Digital,
    sums: list[str],
) -> ir.Value:
    node, spatial = build.before, [1] * (len(kind.shape) - 2)
    kept = _GEOMETRY if kind.form == "conv" else _DECONV_GEOMETRY
    geometry = [node.attributes[name] for name in kept if name in node.attributes]
    parts: dict[tuple[int, int], ir.Value] = {}
    columns = []
    for block, slot in zip(blocks, slots, strict=True):
        if kind.narrows(len(blocks)) and block.channels not in parts:
            parts[block.channels] = build.slice(x, 1, *block.channels, digital.opset)
        columns.append(build.node(node.op_type, parts.get(block.channels, x), slot, attributes=geometry))
    totals = _adc(build, columns, blocks, digital, sums, kind.outputs * digital.devices)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and bias.dtype not in (None, digital.dtype):
        bias = _cast(build, bias, digital.dtype)
    scaled: list[ir.Value] = []
    for total, scale in zip(totals, digital.weighting.scale, strict=True):
        # Shift and add as a convolution, with a group for each output or for the outputs that lie together:
        # what follows it can be fused into it.
        lane = np.eye(digital.lanes)[np.arange(kind.outputs) % digital.lanes]
        weights = scale[:, None, None] * digital.factors[:, None] * lane[:, None, :]
        inputs = [total, build.constant(digital.array(weights.reshape(kind.outputs, -1, *spatial)))]
        if bias is not None and not scaled:
            inputs.append(bias)
        scaled.append(build.node("Conv", *inputs, attributes={"group": kind.outputs // digital.lanes}))
    made = _sum(build, scaled)
    if not digital.weighting.cells.offset:
        return made
    # The offset encoding: −c Σ_i x̂_i is the same operator with the constant weight −c s_o Δ_in. Where all
    # outputs share one scale, one output channel is enough: it is broadcast over them.
    lone = digital.weighting.uniform and kind.groups == 1
    scales = digital.weighting.by_channel(kind.channels)
    shift = -digital.weighting.cells.offset * digital.input_step * scales
    first, second, *kernel = kind.shape
    if kind.form == "conv":
        ones = np.broadcast_to(
            shift[: 1 if lone else None].reshape(1 if lone else first, -1, *(1 for _ in kernel)),
            (1 if lone else first, second, *kernel),
        )
    else:
        by_group = shift.reshape(kind.groups, second, -1).transpose(0, 2, 1)
        by_group = (by_group[:, :, :1] if lone else by_group).reshape(
            *(by_group.shape[:2]), -1, *(1 for _ in kernel)
        )
        ones = np.broadcast_to(
            by_group, (kind.groups, first // kind.groups, 1 if lone else second, *kernel)
        ).reshape(first, -1, *kernel)
    reference = build.node(node.op_type, x, build.constant(digital.array(ones)), attributes=geometry)
    return build.node("Add", made, reference)


def _right(
    build: Builder,
    x: ir.Value,
    kind: ProductForm,
    blocks: Sequence[RowBlock],
    slots: Sequence[ir.Value],
    digital: Digital,
    sums: list[str],
) -> ir.Value:
    """``x @ W``: the devices are the batch of a product with the rows of all samples together."""
    matrix = len(kind.shape) > 1
    flat = build.node("Reshape", x, _sizes(build, -1, kind.channels))
    columns = []
    for block, slot in zip(blocks, slots, strict=True):
        part = flat if len(blocks) == 1 else build.slice(flat, 1, *block.channels, digital.opset)
        columns.append(build.node("MatMul", part, slot))
    totals = _adc(build, columns, blocks, digital, sums)
    uniform = digital.weighting.uniform
    parts = []
    for total, scale in zip(totals, digital.weighting.scale, strict=True):
        # Devices are the first axis of a total: shift and add is (1 × device) times (device × all the rest).
        stacked = build.node("Reshape", total, _sizes(build, digital.devices, -1))
        factors = digital.factors * (scale[0] if uniform else 1.0)
        part = build.node("MatMul", build.constant(digital.array(factors[None])), stacked)
        part = build.node("Reshape", part, _sizes(build, -1, kind.outputs))
        parts.append(part if uniform else build.node("Mul", part, build.constant(digital.array(scale))))
    made = _sum(build, parts)
    if digital.weighting.cells.offset:
        scales = digital.weighting.by_channel(kind.channels)[: 1 if uniform else None]
        shift = -digital.weighting.cells.offset * digital.input_step * scales
        ones = np.broadcast_to(shift.T, (kind.channels, len(shift)))
        made = build.node("Add", made, build.node("MatMul", flat, build.constant(digital.array(ones))))
    if is_gemm(build.before.op_type, build.before.domain):
        return made
    lead = build.slice(build.node("Shape", x), 0, 0, -1, digital.opset)
    shape = (
        build.node("Concat", lead, _sizes(build, kind.outputs), attributes={"axis": 0}) if matrix else lead
    )
    return build.node("Reshape", made, shape)


def _left(
    build: Builder,
    x: ir.Value,
    blocks: Sequence[RowBlock],
    slots: Sequence[ir.Value],
    digital: Digital,
    sums: list[str],
) -> ir.Value:
    """``W @ x``: the devices of an output are neighbouring rows."""
    columns = []
    for block, slot in zip(blocks, slots, strict=True):
        part = x if len(blocks) == 1 else build.slice(x, -2, *block.channels, digital.opset)
        columns.append(build.node("MatMul", slot, part))
    totals = _adc(build, columns, blocks, digital, sums)
    parts = []
    for total, scale in zip(totals, digital.weighting.scale, strict=True):
        # Shift and add as one product: row o holds s_o f_d at its own devices, and 0 at all others.
        add = np.kron(np.eye(len(scale)), digital.factors[None]) * scale[:, None]
        parts.append(build.node("MatMul", build.constant(digital.array(add)), total))
    made = _sum(build, parts)
    if not digital.weighting.cells.offset:
        return made
    channels = blocks[-1].channels[1]
    shift = -digital.weighting.cells.offset * digital.input_step * digital.weighting.by_channel(channels)
    ones = np.broadcast_to(shift, (len(shift), channels))
    return build.node("Add", made, build.node("MatMul", build.constant(digital.array(ones)), x))


def _gemm_rest(build: Builder, node: ir.Node, product: ir.Value, digital: Digital) -> ir.Value:
    """``alpha · product + beta · C``."""
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if alpha != 1:
        product = build.node("Mul", product, build.constant(digital.array(alpha)))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return product
    if bias.dtype not in (None, digital.dtype):
        bias = _cast(build, bias, digital.dtype)
    if beta != 1:
        bias = build.node("Mul", bias, build.constant(digital.array(beta)))
    return build.node("Add", product, bias)


def _sizes(build: Builder, *sizes: int) -> ir.Value:
    return build.constant(np.array(sizes, np.int64))
