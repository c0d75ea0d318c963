"""The numbers of a weight: a stored tensor taken through its chain, on its own integer grid if it has one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.errors import ModelError
from nvaudit.model.chains import Cast, ChainStep, Clamp, Quantize, Reshape, Transpose, Unpack, integer_range
from nvaudit.model.fold import fold
from nvaudit.model.layout import Shape
from nvaudit.model.roles import Decode


@dataclass(frozen=True)
class IntegerGrid:
    """The integers that a quantised weight is stored as.

    Attributes
    ----------
    codes : ndarray, int16 or int32
        Stored integer minus zero point, in the weight's primary layout.
    scale : ndarray, float32
        Value of one step; broadcasts against ``codes``. 1.0 where the operator works on bare integers.
    storage_bits : int
        Bits of the stored type, e.g. 8 for int8 and uint8.
    """

    codes: Array
    scale: Array
    storage_bits: int


@dataclass(frozen=True)
class _Stage:
    """A tensor on its way: values, or integers that are still to be scaled (``bits`` is then set)."""

    array: Array
    scale: Array | None = None
    bits: int = 0
    dtype: ir.DataType = ir.DataType.FLOAT


def decode_values(
    stored: Array, dtype: ir.DataType, steps: tuple[ChainStep, ...], decode: Decode | None, opset: int
) -> tuple[Array, IntegerGrid | None]:
    """Take a stored tensor through a chain.

    Parameters
    ----------
    steps : tuple of ChainStep
        The chain to its first weight use.
    decode : Decode or None
        How the operator itself reads integers, None for an operator on floats.

    Returns
    -------
    tuple of ndarray, and IntegerGrid or None
        Values in the layout and float type at the operator (float32 at an integer operator), and the
        integer grid if there is one.

    Raises
    ------
    ModelError
        If scales or zero points do not fit the tensor.
    """
    stage = _Stage(stored, dtype=dtype, bits=dtype.bitwidth if dtype.is_integer() else 0)
    for step in steps:
        if isinstance(step, Transpose):
            stage = _moved(stage, lambda array, perm=step.perm: array.transpose(perm))
        elif isinstance(step, Reshape):
            stage = _reshaped(stage, step.shape)
        elif isinstance(step, Cast):
            stage = _cast(stage, step.dtype)
        elif isinstance(step, Clamp):
            stage = _clamped(stage, step)
        elif isinstance(step, Unpack):
            stage = _unpacked(stage, step, opset)
        else:
            stage = _quantized(stage, step, opset)
    if decode is not None and stage.scale is None and stage.bits:
        stage = _decoded(stage, decode, opset)
    if stage.scale is None:
        return np.ascontiguousarray(stage.array), None
    scale = stage.scale.astype(np.float32)
    # An 8-bit integer less its zero point reaches from −255 to 255: one bit more than it is stored in.
    codes = np.ascontiguousarray(stage.array.astype(np.int16 if stage.bits <= 8 else np.int32))
    # One product in single precision: as DequantizeLinear computes it, bit for bit.
    values = codes.astype(np.float32) * scale
    return values.astype(stage.dtype.numpy()), IntegerGrid(codes, scale, stage.bits)


def _moved(stage: _Stage, move: object) -> _Stage:
    assert callable(move)
    return replace(stage, array=move(stage.array), scale=None if stage.scale is None else move(stage.scale))


def _reshaped(stage: _Stage, shape: Shape) -> _Stage:
    """Reshape values; a scale that varies must be spread over every element first."""
    scale = stage.scale
    if scale is not None:
        if scale.size == 1:
            scale = scale.reshape((1,) * len(shape))
        else:
            scale = np.broadcast_to(scale, stage.array.shape).reshape(shape)
    return replace(stage, array=stage.array.reshape(shape), scale=scale)


def _cast(stage: _Stage, dtype: ir.DataType) -> _Stage:
    """Another element type; integers that become floats are a grid of step 1."""
    if stage.scale is not None:
        return replace(stage, dtype=dtype)
    if stage.bits and dtype.is_floating_point():
        one = np.ones((1,) * stage.array.ndim, np.float32)
        return replace(stage, array=stage.array.astype(np.int32), scale=one, dtype=dtype)
    with np.errstate(over="ignore"):
        return replace(stage, array=stage.array.astype(dtype.numpy()), dtype=dtype)


def _clamped(stage: _Stage, step: Clamp) -> _Stage:
    """Integers of a narrower range: they take as many bits as a type with that range has."""
    array = np.clip(stage.array, step.low, step.high).astype(stage.array.dtype)
    return replace(stage, array=array, bits=min(stage.bits, _clamp_bits(step)))


def _unpacked(stage: _Stage, step: Unpack, opset: int) -> _Stage:
    """Packed integers, less zero points, with their scales; both spread over their blocks."""
    inputs, outputs = step.shape
    blocks = -(-inputs // step.block)
    scale, zero = _parameters(step.scale, step.zero, opset)
    codes = _integers(stage.array.reshape(outputs, -1), step.bits)
    if codes.shape[1] < inputs or scale.size != outputs * blocks:
        return _misfit(scale, step.shape)  # type: ignore[return-value]
    if zero is None:  # MatMulNBits then takes the middle of the range for zero
        zeros = np.full((outputs, blocks), 2 ** (step.bits - 1), np.int32)
    elif zero.dtype == np.uint8:
        zeros = _integers(zero.reshape(outputs, -1), step.bits)[:, :blocks]
    else:
        zeros = zero.reshape(outputs, blocks)
    # Input k belongs to block ⌊k / block⌋; the last block may be partly filled.
    spread = np.arange(inputs) // step.block
    less, scales = codes[:, :inputs] - zeros[:, spread], scale.reshape(outputs, blocks)[:, spread]
    if not _is_grid(step):
        return _Stage((less * scales).astype(np.float32).T)
    return _Stage(less.T, scales.T, step.bits, ir.DataType.FLOAT)


def _is_grid(step: Unpack) -> bool:
    """Whether zero points are integers; those of the type of the scale may be anything between."""
    return step.zero is None or step.zero.dtype == ir.DataType.UINT8


def _integers(packed: Array, bits: int) -> Array:
    """Unpack unsigned integers along the last axis, lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    unpacked = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return unpacked.reshape(*packed.shape[:-1], -1).astype(np.int32)


def _clamp_bits(step: Clamp) -> int:
    # Two's complement: −2^(n−1) … 2^(n−1) − 1 takes n bits, so −low − 1 and high are compared, and a sign
    # adds one.
    bits = max(step.high.bit_length(), (-step.low - 1).bit_length() if step.low < 0 else 0)
    return max(bits + (step.low < 0), 1)


def grid_bits(dtype: ir.DataType, steps: tuple[ChainStep, ...]) -> int | None:
    """Bits of the integers that a chain leaves a tensor on, without reading it.

    Returns
    -------
    int or None
        None where the tensor is on no grid of integers.
    """
    bits = dtype.bitwidth if dtype.is_integer() else None
    for step in steps:
        if isinstance(step, Quantize) and not step.back:
            bits = step.dtype.bitwidth
        elif isinstance(step, Clamp) and bits is not None:
            bits = min(bits, _clamp_bits(step))
        elif isinstance(step, Unpack):
            bits = step.bits if _is_grid(step) else None
    return bits


def _quantized(stage: _Stage, step: Quantize, opset: int) -> _Stage:
    """QuantizeLinear of values, or DequantizeLinear of integers (or of float8, which has no grid)."""
    scale, zero = _parameters(step.scale, step.zero, opset)
    scale = _spread(scale, stage.array.shape, step.axis, step.block)
    if step.back:
        zero = None if zero is None else _spread(zero, stage.array.shape, step.axis, step.block)
        if stage.bits:
            codes = stage.array.astype(np.int32)
            # In 32 bits: two 8-bit integers differ by up to 255, which wraps in their own type.
            codes = codes if zero is None else codes - zero.astype(np.int32)
            return replace(stage, array=codes, scale=scale, dtype=step.dtype)
        values = stage.array.astype(np.float32) * scale.astype(np.float32)
        return replace(stage, array=values.astype(step.dtype.numpy()), dtype=step.dtype)
    if not step.dtype.is_integer() or stage.scale is not None:
        raise ModelError(f"a weight is quantised to {step.dtype.name}: no integer grid; keep it digital")
    # Rounded before the zero point is added, as QuantizeLinear does: ties go to the even quotient, which an
    # odd zero point added first would turn around.
    codes = np.rint(stage.array.astype(np.float32) / scale.astype(np.float32))
    if zero is not None:
        codes += _spread(zero, stage.array.shape, step.axis, step.block).astype(np.float32)
    low, high = integer_range(step.dtype)
    codes = np.clip(codes, low, high).astype(np.int32)
    return _Stage(codes, None, step.dtype.bitwidth, step.dtype)


def _decoded(stage: _Stage, decode: Decode, opset: int) -> _Stage:
    """Integers as an integer operator reads them."""
    scale, zero = _parameters(decode.scale, decode.zero, opset)
    codes = stage.array.astype(np.int32)
    if zero is not None:
        codes = codes - _spread(zero, codes.shape, decode.axis, 0).astype(np.int32)
    return _Stage(codes, _spread(scale, codes.shape, decode.axis, 0), stage.bits, ir.DataType.FLOAT)


def _parameters(scale: ir.Value | None, zero: ir.Value | None, opset: int) -> tuple[Array, Array | None]:
    """Scale (1 if there is none) and zero point as arrays."""
    scales = np.ones((), np.float32) if scale is None else fold(scale, opset)
    zeros = None if zero is None else fold(zero, opset)
    if scales is None or (zero is not None and zeros is None):
        raise ModelError("the scale or zero point of a quantised weight is not constant; keep it digital")
    return scales, zeros


def _spread(parameter: Array, shape: Shape, axis: int | None, block: int) -> Array:
    """A scale or zero point in a shape that broadcasts against the tensor."""
    if parameter.size == 1:
        return parameter.reshape((1,) * len(shape))
    if block and axis is not None and parameter.ndim == len(shape):
        return _blocks(parameter, shape, axis, block)
    if parameter.ndim == len(shape):
        fits = all(size in (1, full) for size, full in zip(parameter.shape, shape, strict=True))
        return parameter if fits else _misfit(parameter, shape)
    if parameter.ndim == 1 and axis is not None and axis < len(shape) and parameter.size == shape[axis]:
        return parameter.reshape([-1 if position == axis else 1 for position in range(len(shape))])
    return _misfit(parameter, shape)


def _blocks(parameter: Array, shape: Shape, axis: int, block: int) -> Array:
    """One parameter per block of elements along an axis, repeated for each element."""
    count = -(-shape[axis] // block)
    if parameter.shape != (*shape[:axis], count, *shape[axis + 1 :]):
        return _misfit(parameter, shape)
    return np.take(parameter, np.arange(shape[axis]) // block, axis)


def _misfit(parameter: Array, shape: Shape) -> Array:
    raise ModelError(
        f"quantisation parameters of shape {list(parameter.shape)} do not fit its shape {list(shape)}; "
        "quantise the model again"
    )
