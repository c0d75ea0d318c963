"""A top slice that holds fewer bits than a device: its levels are spread over the window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvaudit.device import load_profile, operating_point, override_profile, profile_digest
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import held_levels, layout
from nvaudit.perturb.choose_codes import code_request
from nvaudit.perturb.moments import code_moments
from nvaudit.session import settle_device
from nvaudit.spec import make_spec

ENCODINGS = st.sampled_from(["sign_magnitude", "differential", "offset"])


@given(st.integers(1, 9), st.integers(1, 8), ENCODINGS)
def test_slices_add_up_to_the_code_and_stay_within_the_window(bits, cell_bits, encoding):
    """Σ significance · level is the stored code; the top slice reaches as high as whole levels go."""
    array = layout(load_profile("rram"), bits=bits, cell_bits=cell_bits, encoding=encoding)
    code = np.arange(-(2**bits - 1), 2**bits)
    devices = list(held_levels(code, array))
    total = sum(held.sign * held.significance * held.level for held in devices)
    assert total - array.code.zero == pytest.approx(code.astype(float), rel=1e-12, abs=1e-9)
    assert all(0 <= held.level.min() <= held.level.max() <= array.top_level for held in devices)
    if array.narrow_top:
        most = array.code.table[array.slices - 1].max()
        assert most <= array.top_level < most + 2**array.narrow_top - 1


@given(st.integers(1, 14), st.integers(1, 8), ENCODINGS)
def test_nothing_changes_where_the_bits_divide_or_the_lowest_levels_are_wanted(bits, cell_bits, encoding):
    """The papers' slices (T-12), digit by digit."""
    profile = override_profile(load_profile("rram"), top_slice="lowest")
    array = layout(profile, bits=bits, cell_bits=cell_bits, encoding=encoding)
    stored = np.arange(array.code.stored)
    for i, row in enumerate(array.code.table[: array.slices]):
        assert np.array_equal(row, stored // 2 ** (i * cell_bits) % 2**cell_bits)
    assert array.significance == tuple(2.0 ** (i * cell_bits) for i in range(array.slices))


@pytest.mark.parametrize(("top_slice", "top"), [("window", 64 / 3), ("lowest", 64.0)])
def test_seven_bits_in_cells_of_two_are_as_quiet_as_the_window_allows(top_slice, top):
    """The spread of a weight, by hand; spread over the window it is less than that of eight bits."""
    profile = override_profile(load_profile("rram"), weight_bits=7, top_slice=top_slice)
    point = operating_point(profile)
    found = code_moments(point, layout(profile, bits=7))
    assert found.std == pytest.approx(0.1 * np.sqrt(1 + 16 + 256 + top**2), rel=1e-12)
    eight = code_moments(operating_point(load_profile("rram")), layout(load_profile("rram"), bits=8))
    assert (found.std[0] / 127 < eight.std[0] / 255) == (top_slice == "window")


def test_a_bit_alone_is_the_ends_of_the_window():
    """Ternary weights in cells of sixteen levels: level 15, where the device is measured to be quiet."""
    array = layout(load_profile("rram_65nm"), bits=1)
    assert next(held_levels(np.array([0, 1]), array)).level.tolist() == [0, 15]


def test_a_profile_keeps_its_digest():
    """Reports and resume folders of before still know it; another use of the levels is another device."""
    profile = load_profile("rram")
    assert profile_digest(override_profile(profile, top_slice="window")) == profile_digest(profile)
    assert profile_digest(override_profile(profile, top_slice="lowest")) != profile_digest(profile)
    # As in the report of an audit from before the keys level_bits, top_slice and timed existed.
    assert profile_digest(profile).startswith("07862e771a6b")


@pytest.mark.parametrize("bits", [3, 8])
def test_a_zero_weight_is_one_digit_and_zeros_if_asked_for(bits):
    """Stored as 2^H instead of 2^H − 1, with as many values on each side; every weight adds up as before."""
    plain = override_profile(load_profile("rram"), encoding="offset")
    other = override_profile(plain, offset_zero="upper")
    lower, upper = layout(plain, bits=bits), layout(other, bits=bits)
    assert (lower.code.zero, upper.code.zero) == (2**bits - 1, 2**bits)
    assert lower.top == upper.top == 2**bits - 1
    value = np.arange(-upper.top, upper.top + 1)
    for array in (lower, upper):
        held = sum(one.significance * one.level for one in held_levels(value, array))
        assert np.allclose(held - array.code.zero, value)
    digits = upper.code.table[:, upper.code.zero]
    assert np.count_nonzero(digits) == 1
    assert digits[-1] > 0
    assert profile_digest(override_profile(plain, offset_zero="lower")) == profile_digest(plain)
    assert profile_digest(other) != profile_digest(plain)


@pytest.mark.parametrize("more", [{}, {"encoding": "differential"}])
def test_it_is_refused_without_offset_slices(more):
    """It would say nothing."""
    spec = make_spec(model="m.onnx", device="rram", offset_zero="upper", **more)
    with pytest.raises(OptionError, match="--offset-zero is for slices"):
        settle_device(spec)


def test_it_is_refused_where_a_code_chooses_the_value():
    """As other options of slices."""
    spec = make_spec(model="m.onnx", device="rram", encoding="offset", code="8,4,2,1", offset_zero="upper")
    with pytest.raises(OptionError, match="--offset-zero is for slices"):
        code_request(spec)
