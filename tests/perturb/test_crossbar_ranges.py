"""Ranges of converters: what the calibration saw, and what the converters make of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvaudit.device import load_profile
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.tiling import Crossbar, tiling_of_split
from nvaudit.model import CrossbarSplit
from nvaudit.model.crossbar.plan import RowBlock
from nvaudit.perturb.crossbar import (
    ConverterSpec,
    MagnitudeHistogram,
    _groups,
    samples_at_once,
    settle_layer,
)

SPLIT = CrossbarSplit(
    "w", None, (RowBlock((0, 24), (0, 216)), RowBlock((24, 40), (216, 360))), 1, 40, ("x",), ("a", "b")
)


def _spread(*parts):
    spread = MagnitudeHistogram()
    for part in parts:
        spread.add(np.asarray(part, np.float32))
    return spread


def _array(encoding="differential"):
    return layout(load_profile("rram"), bits=8, cell_bits=2, encoding=encoding)


def _found(method, inputs, sums, encoding="differential", dac_bits=None, adc_bits=4):
    how = ConverterSpec(256, 256, adc_bits, dac_bits, method)
    return settle_layer(SPLIT, _array(encoding), (_spread(inputs), _spread(sums)), how)


def _reach(layer):
    """Largest column sum that is not clipped, in levels times inputs."""
    dac, adc = layer.converters.dac, layer.converters.adc
    return adc.high * adc.step * (1.0 if dac is None else dac.step)


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.9])
def test_a_percentile_is_that_of_all_magnitudes_seen(percentile):
    """Over several batches, within the histogram's 0.4 %, never below the true one."""
    values = np.random.Generator(np.random.SFC64(1)).normal(size=20_000).astype(np.float32)
    found = _spread(values[:9000], values[9000:]).reach(f"percentile:{percentile}")
    true = np.percentile(np.abs(values), percentile, method="inverted_cdf")
    assert true <= found <= true * 1.008


def test_all_values_are_within_the_hundredth_percentile():
    """It is the maximum, exactly."""
    assert _spread([0.1, -0.7, 0.3]).reach("percentile:100") == pytest.approx(0.7)
    assert _spread([0.1, -0.7, 0.3]).reach("max") == pytest.approx(0.7)


def test_the_share_beyond_a_limit_is_counted():
    """What was clipped stands in the report."""
    spread = _spread(np.arange(1000))
    assert spread.beyond(900.0) == pytest.approx(0.099, abs=0.005)
    assert spread.beyond(1000.0) == 0


@given(st.floats(1e-3, 1e6), st.integers(2, 16), st.sampled_from(["differential", "sign_magnitude"]))
def test_the_range_holds_what_was_seen_and_little_more(peak, bits, encoding):
    """The step is rounded up to 6 significant bits of its inverse: at most 3.2 % more."""
    layer = _found("max", [0, 1], [0, peak], encoding, adc_bits=bits)
    adc = layer.converters.adc
    assert np.float32(peak) * (1 - 1e-6) <= _reach(layer) <= peak * 1.033
    assert (1 / adc.step) * 2.0 ** (6 - np.frexp(1 / adc.step)[1]) % 1 == pytest.approx(0, abs=1e-9)
    assert layer.clipped == 0


@pytest.mark.parametrize(
    ("encoding", "inputs", "codes"),
    [
        ("differential", [0, 1], (0, 15)),
        ("offset", [0, 1], (0, 15)),
        ("differential", [-0.1, 1], (-7, 7)),
        ("sign_magnitude", [0, 1], (-7, 7)),
    ],
)
def test_codes_are_signed_where_column_sums_can_be(encoding, inputs, codes):
    """Signed inputs, or devices of both signs on one column, need a signed ADC."""
    adc = _found("max", inputs, [0, 9], encoding).converters.adc
    assert (adc.low, adc.high) == codes


def test_full_scale_is_every_row_at_the_largest_input_and_the_top_level():
    """Of the row block with the most rows in use: nothing can be clipped."""
    layer = _found("full_scale", [0, 0.5], [0, 9])
    assert 216 * 3 * 0.5 <= _reach(layer) <= 216 * 3 * 0.5 * 1.033


def test_a_percentile_clips_what_is_beyond_it():
    """A smaller range and finer steps, for some conversions that are cut off."""
    sums = np.concatenate([np.linspace(0, 1, 990), np.full(10, 100.0)])
    layer = _found("percentile:99", [0, 1], sums)
    assert 1 <= _reach(layer) <= 1.05
    assert layer.clipped == pytest.approx(0.01)


def test_dac_codes_are_of_the_inputs_and_adc_codes_of_their_sums():
    """The range of the ADC is the same in the units of the model, whatever the DAC's step is."""
    layer = _found("max", [-2.0, 1.0], [-30, 20], dac_bits=8)
    assert (layer.converters.dac.low, layer.converters.dac.high) == (-127, 127)
    assert layer.converters.dac.step == pytest.approx(2 / 127)
    assert 30 <= _reach(layer) <= 30 * 1.033


def test_a_layer_that_never_sees_anything_still_has_steps():
    """All-zero inputs divide by nothing."""
    layer = _found("max", [0.0], [0.0], dac_bits=8)
    assert layer.converters.adc.step > 0
    assert layer.converters.dac.step > 0


def test_crossbars_are_counted_by_row_blocks_and_device_columns():
    """40 outputs × 4 slices × 2 polarities take two crossbars for each of two row blocks."""
    layer = _found("max", [0, 1], [0, 9])
    tiling = tiling_of_split(layer.split, layer.array, Crossbar(256, 256))
    assert tiling.crossbars == 4
    assert tiling.utilisation == pytest.approx(360 * 320 / (4 * 256 * 256))


def test_values_are_watched_in_groups_that_fit():
    """Nothing is lost or looked at twice, and what is too large goes alone."""
    sizes = {"a": 30 << 20, "b": 30 << 20, "c": 90 << 20, "d": 1}
    groups = _groups(sizes)
    assert groups == [["a", "b"], ["c"], ["d"]]


@pytest.mark.parametrize(
    ("sums", "most", "samples"),
    [([1 << 18], 64, 4), ([1 << 16] * 3, 64, 8), ([1 << 18] + [1 << 10] * 99, 64, 64), ([1 << 30], 64, 4),
     ([1 << 30], 2, 2), ([0], 64, 64), ([], 64, 64)],
)  # fmt: skip
def test_as_many_samples_at_a_time_as_keep_column_sums_in_a_cache(sums, most, samples):
    """A power of two by the mean size of the sums, at least 4 and never more than was asked for."""
    assert samples_at_once(sums, most, 1 << 19) == samples
