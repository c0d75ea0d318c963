"""Bit slices: what is taken apart comes back together (TRICE paper, Eq. 12 and 14)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvaudit.mapping.codes import digits, slice_widths

BITS = range(1, 15)
CELLS = range(1, 9)


def _shift_and_add(digit, cell_bits):
    """T-14, written out: what the slices of a code add up to."""
    return sum(2.0 ** (cell_bits * i) * one for i, one in enumerate(digit))


@pytest.mark.parametrize("cell_bits", CELLS)
@pytest.mark.parametrize("bits", BITS)
def test_every_code_comes_back_exactly(bits, cell_bits):
    """For all codes, H 1 … 14 and B 1 … 8, also where B does not divide H, shift and add undoes slicing."""
    code = np.arange(2**bits)
    digit = digits(code, bits, cell_bits)
    assert digit.shape == (-(-bits // cell_bits), len(code))
    assert (_shift_and_add(digit, cell_bits) == code).all()


@pytest.mark.parametrize("cell_bits", CELLS)
@pytest.mark.parametrize("bits", BITS)
def test_digits_fit_their_device(bits, cell_bits):
    """A digit uses all 2^B levels of its device, the top one as many as its width says."""
    digit = digits(np.arange(2**bits), bits, cell_bits)
    widths = slice_widths(bits, cell_bits)
    assert sum(widths) == bits
    assert digit.min() == 0
    assert tuple(digit.max(axis=1)) == tuple(2**width - 1 for width in widths)


@given(st.integers(1, 14), st.integers(1, 8), st.data())
def test_a_digit_is_its_bits(bits, cell_bits, data):
    """Digit i holds bits iB … iB + B − 1 of the code, least significant slice first."""
    code = data.draw(st.integers(0, 2**bits - 1))
    text = format(code, "b")[::-1]
    wanted = [int(text[i : i + cell_bits][::-1] or "0", 2) for i in range(0, bits, cell_bits)]
    assert digits(np.array([code], np.int16), bits, cell_bits).ravel().tolist() == wanted


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8])
def test_any_integer_type_and_shape(dtype):
    """The shape of the codes follows the slice axis; the integer type does not matter."""
    code = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    digit = digits(code, 8, 3)
    assert digit.shape == (3, 2, 3, 4)
    assert digit.dtype == np.int16
    assert (_shift_and_add(digit, 3) == code).all()


@pytest.mark.parametrize(("bits", "cell_bits"), [(0, 2), (8, 0), (-1, 1)])
def test_widths_below_one_are_refused(bits, cell_bits):
    """A code and a device hold at least one bit."""
    with pytest.raises(ValueError, match=f"at least 1, got {bits} and {cell_bits}"):
        slice_widths(bits, cell_bits)
