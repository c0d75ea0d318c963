"""Fewer levels than a profile has: the same window, and the laws of the levels that are left."""

import json

import numpy as np
import pytest

from nvaudit.device import load_profile, override_profile, parse_profile
from nvaudit.errors import ProfileError

RRAM_65NM = load_profile("rram_65nm")
FEFET1 = load_profile("fefet1")


def with_term(term: dict, cell_bits: int = 4, window: dict | None = None):
    """`rram_65nm` with one term of another kind."""
    data = RRAM_65NM.model_dump(mode="json") | {"cell_bits": cell_bits, "noise": [term]}
    return parse_profile(json.dumps(data | {"window": window or data["window"]}), "test")


@pytest.mark.parametrize(("bits", "levels"), [(1, [0, 15]), (2, [0, 5, 10, 15]), (4, list(range(16)))])
def test_levels_that_exist_are_taken(bits, levels):
    """Where b divides B each level is one of the profile's, at the same conductance, in every term."""
    fewer = override_profile(RRAM_65NM, cell_bits=bits)
    assert fewer.window == RRAM_65NM.window
    kept = RRAM_65NM.scale.conductance(np.array(levels))
    assert fewer.scale.conductance(np.arange(2**bits)) == pytest.approx(kept)
    for old, new in zip(RRAM_65NM.noise, fewer.noise, strict=True):
        assert list(new.sigma.values) == [old.sigma.values[level] for level in levels]
        assert (new.name, new.enabled) == (old.name, old.enabled)


def test_between_levels_laws_are_interpolated():
    """Level 1 of 8 lies at 2 1/7 of 16, level 6 at 12 6/7; the ends stay."""
    old = RRAM_65NM.noise[0].sigma.values
    new = override_profile(RRAM_65NM, cell_bits=3).noise[0].sigma.values
    assert (new[0], new[-1]) == (old[0], old[-1])
    assert new[1] == pytest.approx(old[2] * 6 / 7 + old[3] / 7)
    assert new[6] == pytest.approx(old[12] / 7 + old[13] * 6 / 7)


def test_other_laws_stay():
    """A law that has no value for each level is what it was."""
    assert override_profile(load_profile("rram"), cell_bits=1).noise == load_profile("rram").noise
    assert override_profile(FEFET1, cell_bits=1).noise[0].sigma.values == (1.0, 1.0)


@pytest.mark.parametrize("unit", ["us", "full_scale", "level"])
def test_measured_levels_are_taken(unit):
    """Means, deviations and raw samples of a table; level units go on counting the profile's spacings."""
    rows = [{"level": i, "mean": 1.5 * i, "std": 0.1 + i} for i in range(16)]
    table = {"kind": "table", "unit": unit, "levels": rows}
    found = override_profile(with_term(table), cell_bits=2).noise[0].levels
    assert [row.level for row in found] == [0, 1, 2, 3]
    assert [row.mean for row in found] == pytest.approx([1.5 * i for i in (0, 5, 10, 15)])
    assert [row.std for row in found] == pytest.approx([0.1 + i for i in (0, 5, 10, 15)])
    raw = {"kind": "table", "unit": unit, "samples": [[i, i + 0.5] for i in range(16)]}
    samples = override_profile(with_term(raw), cell_bits=1).noise[0].samples
    assert samples == ((0.0, 0.5), (15.0, 15.5))


def test_levels_that_were_not_measured_are_refused():
    """Measurements are not interpolated; the message names the numbers of bits that can be had."""
    rows = [{"level": i, "mean": i, "std": 0.1} for i in range(16)]
    profile = with_term({"kind": "table", "unit": "us", "levels": rows})
    with pytest.raises(ProfileError, match=r"3 bits per cell: the table 'table' was measured.*use 1, 2, 4"):
        override_profile(profile, cell_bits=3)


def test_more_levels_are_refused():
    """A law by level says nothing about levels that the device does not have."""
    with pytest.raises(ProfileError, match="16 entries for 32 levels"):
        override_profile(RRAM_65NM, cell_bits=5)
