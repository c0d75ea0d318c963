"""Quantisation: W_des = s · c with s = max|W| / (2^H − 1) (TRICE paper, Eq. 11)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nvaudit.mapping.quantize import MAX_BITS, dequantize, quantize

bits_of = st.integers(1, MAX_BITS)
# Magnitudes well inside float32: the scale itself must be a normal number.
weights = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=1, max_dims=4, max_side=5),
    elements=st.floats(-1e6, 1e6, width=32).map(lambda w: 0.0 if abs(w) < 1e-6 else w),
)
# The scale is rounded to single precision, which moves s · c by at most this part of max|W|.
ROUNDING = 2.0**-23


@given(weights, bits_of)
def test_error_is_at_most_half_a_step(values, bits):
    """|W − s·c| ≤ s/2, up to the rounding of s to single precision."""
    codes = quantize(values, bits)
    error = np.abs(values.astype(np.float64) - codes.code * np.float64(codes.scale))
    assert error.max() <= 0.5 * codes.scale + ROUNDING * np.abs(values).max()


@given(weights, bits_of)
def test_the_largest_weight_gets_the_largest_code(values, bits):
    """max|W| maps to ±(2^H − 1), nothing lies beyond it, and signs are kept."""
    codes = quantize(values, bits)
    top, peak = 2**bits - 1, np.abs(values).max()
    assert codes.code.dtype == np.int16
    assert codes.scale.dtype == np.float32
    assert codes.scale == np.float32(np.float64(peak) / top)
    if peak > 0:
        assert (np.abs(codes.code[np.abs(values) == peak]) == top).all()
    assert np.abs(codes.code).max() == (top if peak > 0 else 0)
    assert (codes.code[values == 0] == 0).all()
    assert (np.sign(codes.code) * np.sign(values) >= 0).all()


@given(weights, bits_of)
def test_quantising_twice_changes_nothing(values, bits):
    """The codes of what the codes stand for are the same codes."""
    codes = quantize(values, bits)
    assert (quantize(dequantize(codes.code, codes.scale), bits).code == codes.code).all()


@given(weights, bits_of, st.integers(-20, 20))
def test_a_power_of_two_goes_into_the_scale(values, bits, power):
    """2^k · W has the codes of W and 2^k times its scale, exactly."""
    codes, scaled = quantize(values, bits), quantize(np.ldexp(values, power), bits)
    assert (scaled.code == codes.code).all()
    assert scaled.scale == np.ldexp(codes.scale, power)


@given(weights, bits_of)
def test_negation_negates_the_codes(values, bits):
    """Rounding treats both signs alike."""
    assert (quantize(-values, bits).code == -quantize(values, bits).code).all()


@given(weights, bits_of, st.data())
def test_per_channel_is_per_tensor_on_each_channel(values, bits, data):
    """With channel axes every channel is quantised as if it were alone."""
    axis = data.draw(st.integers(-values.ndim, values.ndim - 1))
    codes = quantize(values, bits, (axis,))
    assert codes.scale.ndim == values.ndim
    for i in range(values.shape[axis]):
        alone = quantize(values.take(i, axis), bits)
        assert (codes.code.take(i, axis) == alone.code).all()
        assert codes.scale.take(i, axis).item() == alone.scale.item()


def test_two_channel_axes():
    """Groups and outputs may both keep a scale: one per pair."""
    values = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    codes = quantize(values, 5, (0, -1))
    assert codes.scale.shape == (2, 1, 4)
    alone = quantize(values[1, :, 2], 5)
    assert (codes.code[1, :, 2] == alone.code).all()


def test_blocks_do_not_show(monkeypatch):
    """Codes are the same however few rows are quantised at a time."""
    values = np.random.default_rng(1).standard_normal((7, 5, 3)).astype(np.float32)
    whole = [quantize(values, 6, axes).code for axes in ((), (0,), (1,))]
    monkeypatch.setattr("nvaudit.mapping.quantize._BLOCK", 16)
    for code, axes in zip(whole, ((), (0,), (1,)), strict=True):
        assert (quantize(values, 6, axes).code == code).all()


@pytest.mark.parametrize("axes", [(), (0,)])
def test_zeros_stay_zero(axes):
    """Where all weights are zero, code and scale are 0 and no warning is raised."""
    values = np.array([[0.0, 0.0], [1.0, -0.5]], np.float32)
    codes = quantize(values if axes else values[:1], 8, axes)
    assert (codes.code[0] == 0).all()
    assert codes.scale.ravel()[0] == 0
    assert (dequantize(codes.code, codes.scale)[0] == 0).all()


@pytest.mark.parametrize("axes", [(), (1,)])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_no_weights(shape, axes):
    """A tensor without elements has no codes and scale 0."""
    codes = quantize(np.zeros(shape, np.float32), 8, axes if len(shape) > 1 else ())
    assert codes.code.shape == shape
    assert codes.scale == 0
    assert dequantize(codes.code, codes.scale).shape == shape


def test_a_scalar():
    """A 0-d weight is its own maximum."""
    codes = quantize(np.array(-0.3, np.float32), 4)
    assert codes.code.shape == ()
    assert isinstance(codes.scale, np.ndarray)
    assert codes.code == -15
    assert dequantize(codes.code, codes.scale) == pytest.approx(-0.3, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(dtype):
    """fp16 and float64 weights are quantised from their own values, not through float32 rounding first."""
    values = np.array([0.125, -1.0, 0.75, 2.0**-10], dtype)
    codes = quantize(values, 3)
    assert codes.code.tolist() == [1, -7, 5, 0]
    assert codes.scale.dtype == np.float32


def test_float64_is_not_rounded_before_the_division():
    """A double just below a half step rounds down although its float32 neighbour would tie."""
    values = np.array([3.0, 1.5 - 1e-12])
    assert quantize(values, 2).code.tolist() == [3, 1]


def test_codes_fit_int16():
    """The widest codes, and their offset form with one bit more, fit int16."""
    codes = quantize(np.array([-1.0, 1.0]), MAX_BITS).code
    assert codes.tolist() == [-(2**14) + 1, 2**14 - 1]
    assert (codes + np.int16(2**14 - 1)).dtype == np.int16
    assert (codes.astype(int) + 2**14 - 1).max() <= np.iinfo(np.int16).max


def test_the_input_is_left_alone():
    """A read-only array is accepted and keeps its values."""
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    before = values.copy()
    values.flags.writeable = False
    quantize(values, 8)
    quantize(values, 8, (0,))
    assert (values == before).all()


@pytest.mark.parametrize("bits", [0, 15, -1])
def test_bits_out_of_range(bits):
    """More bits than codes can hold are refused."""
    with pytest.raises(ValueError, match=f"bits must be 1 … 14, got {bits}"):
        quantize(np.ones(3), bits)
