"""Encodings, conductances of levels, and how many crossbars a matrix fills."""

import numpy as np
import pytest

from nvaudit.device import load_profile
from nvaudit.mapping.codes import slice_code
from nvaudit.mapping.conductance import DeviceArray, held_levels, layout, target_conductance

RRAM = load_profile("rram")
MILO = load_profile("rram_milo2021")  # analog, 50 … 225 µS
ENCODINGS = ("sign_magnitude", "differential", "offset")


def all_codes(bits):
    top = 2**bits - 1
    return np.arange(-top, top + 1, dtype=np.int16)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("bits", "cell_bits"), [(1, 1), (4, 2), (7, 2), (8, 3), (8, 4), (14, 4), (5, 8)])
def test_what_is_stored_reconstructs_every_code(bits, cell_bits, encoding):
    """For every code, Σ sign · significance · level, less the offset's reference, is the code again."""
    array = layout(RRAM, bits=bits, cell_bits=cell_bits, encoding=encoding)
    code = all_codes(bits)
    assert array.top == 2**bits - 1
    devices = list(held_levels(code, array))
    assert len(devices) == array.slices * array.polarities
    total = np.zeros(len(code))
    for held in devices:
        assert 0 <= held.level.min() <= held.level.max() <= array.top_level
        total += held.sign * held.significance * held.level
    reference = 2**bits - 1 if encoding == "offset" else 0
    np.testing.assert_allclose(total - reference, code, atol=1e-9)


def test_zero_lands_on_a_level_with_offset():
    """The shifted zero is a whole level of every slice: no rounding, so zero weights are exactly zero."""
    array = layout(RRAM, bits=8, encoding="offset")
    assert array.code.zero == 255
    levels = [int(held.level[0]) for held in held_levels(np.zeros(1, np.int16), array)]
    assert levels == [3, 3, 3, 3, 0]


def test_the_sign_of_a_weight_is_kept_digitally():
    """With sign_magnitude a deviation enters with the weight's sign; a zero weight counts as positive."""
    for held in held_levels(np.array([-5, -1, 0, 1, 5]), layout(RRAM, bits=8)):
        assert np.asarray(held.sign).tolist() == [-1, -1, 1, 1, 1]


def test_the_idle_device_of_a_pair_is_at_level_zero():
    """With differential devices exactly one polarity holds a magnitude."""
    sums = {1.0: np.zeros(31), -1.0: np.zeros(31)}
    for held in held_levels(all_codes(4), layout(RRAM, bits=4, encoding="differential")):
        sums[float(held.sign)] += held.significance * held.level
    assert (np.minimum(sums[1.0], sums[-1.0]) == 0).all()
    assert (np.maximum(sums[1.0], sums[-1.0]) == np.abs(all_codes(4))).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("profile", [RRAM, MILO], ids=lambda p: p.name)
def test_lowest_and_highest_level_are_the_window(profile, encoding):
    """Level 0 is g_min and the top level g_max, also for an analog device; neighbours are one step apart."""
    array = layout(profile, bits=8, encoding=encoding)
    low, high = (profile.window.min, profile.window.max) if profile.window else (0.0, 3.0)
    g = target_conductance(np.arange(array.top_level + 1), array)
    assert g[0] == low
    assert g[-1] == pytest.approx(high, rel=1e-14)
    assert np.diff(g) == pytest.approx(array.step, rel=1e-9)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_analog_device_spans_its_window_with_the_codes_in_use(encoding):
    """One device holds the whole code, and the largest stored code is the top level."""
    array = layout(MILO, bits=6, encoding=encoding)
    assert array.slices == 1
    assert max(held.level.max() for held in held_levels(all_codes(6), array)) == array.top_level


def test_without_a_window_conductance_is_the_level():
    """The papers count conductance in levels: g_i is the digit itself."""
    level = np.arange(4)
    assert (target_conductance(level, layout(RRAM, bits=8)) == level).all()


@pytest.mark.parametrize(
    ("bits", "cell_bits", "encoding", "narrow"),
    [
        (8, 2, "sign_magnitude", 0),
        (7, 2, "sign_magnitude", 1),
        (8, 3, "differential", 2),
        (8, 2, "offset", 1),
        (7, 2, "offset", 0),
        (3, 4, "sign_magnitude", 3),
    ],
)
def test_a_narrower_top_slice_is_told(bits, cell_bits, encoding, narrow):
    """narrow_top is the width of a top slice that does not use its device fully, else 0."""
    assert layout(RRAM, bits=bits, cell_bits=cell_bits, encoding=encoding).narrow_top == narrow


def test_layout_takes_its_defaults_from_the_profile():
    """Cell bits and encoding are the profile's unless given."""
    two, whole = slice_code(8, 2, "sign_magnitude"), slice_code(8, 8, "differential")
    assert layout(RRAM, bits=8) == DeviceArray(two, 8, 2, 3, 0.0, 3.0)
    assert layout(MILO, bits=8) == DeviceArray(whole, 8, 8, 255, 50.0, 225.0)
    offset = layout(RRAM, bits=8, cell_bits=4, encoding="offset")
    assert offset == DeviceArray(slice_code(9, 4, "offset", 15), 8, 4, 15, 0.0, 15.0, 1)
