"""The devices of a chip one by one: the same chip as its weights, and each device by its own law."""

import numpy as np
import pytest
from scipy import stats

from nvaudit.device import load_profile, operating_point
from nvaudit.mapping.codes import digits
from nvaudit.mapping.conductance import layout
from nvaudit.perturb.cells import device_factors, device_offset, draw_cells, target_cells
from nvaudit.perturb.chip import MappedTensor, TensorLaw

ENCODINGS = ["sign_magnitude", "differential", "offset"]


def _tensor(profile, encoding, code, bits=8):
    array = layout(profile, bits=bits, cell_bits=profile.cell_bits, encoding=encoding)
    return MappedTensor("w", code.astype(np.int16), np.asarray(0.01, np.float32), array, 255)


def _codes(*shape):
    return np.random.Generator(np.random.SFC64(3)).integers(-255, 256, shape)


def _weights(cells, tensor):
    """Shift and add: what a crossbar with ideal converters multiplies by."""
    total = np.tensordot(np.asarray(device_factors(tensor.array)), cells.levels.astype(np.float64), axes=1)
    return (total - device_offset(tensor.array)) * tensor.scale


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_devices_without_noise_add_up_to_the_codes(encoding):
    """Levels are whole, in range, and give the quantised weight exactly."""
    tensor = _tensor(load_profile("rram"), encoding, _codes(40, 7))
    cells = target_cells(tensor)
    assert np.array_equal(np.abs(cells.levels) % 1, np.zeros_like(cells.levels))
    assert np.abs(cells.levels).max() == 3
    assert np.array_equal(_weights(cells, tensor), tensor.code * np.float64(tensor.scale))


CHIPS = [("rram", {}), ("fefet1", {}), ("rram_65nm", {}), ("rram", {"every_device": True})]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("name", "how"), CHIPS)
def test_devices_are_those_of_the_chip_without_converters(name, how, encoding):
    """Same seed, same chip: the devices add up to the weights that the plain audit draws."""
    profile = load_profile(name)
    tensor = _tensor(profile, encoding, _codes(300, 300))  # more than one block
    law = TensorLaw(tensor, operating_point(profile, None, None, None), **how)
    cells = draw_cells(law, 5, 2)
    assert np.allclose(_weights(cells, tensor), law.draw(5, 2).weights, rtol=0, atol=2e-5)
    other = draw_cells(law, 5, 3)
    assert not np.allclose(cells.levels, other.levels, atol=1e-3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_devices_under_a_collapsed_weight_have_their_own_law(encoding):
    """Given their sum or not, devices are independent normals with the level's spread; false alarm 1e-6."""
    profile = load_profile("fefet1")  # inner levels are four times as noisy
    code = np.tile(_codes(1, 50), (4000, 1))
    tensor = _tensor(profile, encoding, code)
    law = TensorLaw(tensor, operating_point(profile, 0.1, None, None))
    assert law.collapsed is not None
    noise = draw_cells(law, 1, 0).levels - target_cells(tensor).levels
    levels = np.abs(target_cells(tensor).levels)
    spread = np.where((levels == 0) | (levels == 3), 0.1, 0.4)
    z = (noise / spread).reshape(len(noise), -1)
    for one in z:
        assert stats.kstest(one, "norm").pvalue > 1e-6
    correlations = np.corrcoef(z)[np.triu_indices(len(z), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(z.shape[1])


def test_read_noise_is_per_device():
    """Each device has the variance of its own read, in squared level spacings."""
    profile = load_profile("pcm")
    point = operating_point(profile, None, None, 3600.0)
    tensor = _tensor(profile, "differential", _codes(20, 20))
    law = TensorLaw(tensor, point)
    cells, draw = draw_cells(law, 0, 0), law.draw(0, 0)
    assert cells.read_variance is not None
    assert cells.read_variance.shape == cells.levels.shape
    factors = np.square(device_factors(tensor.array)) * np.square(np.float64(tensor.scale))
    total = np.tensordot(factors, cells.read_variance.astype(np.float64), axes=1)
    assert (total > 0).mean() > 0.9
    assert np.allclose(total, draw.read_variance, rtol=1e-4)


def test_slices_come_least_significant_first():
    """The factors and the order of the devices belong together."""
    tensor = _tensor(load_profile("rram"), "differential", np.array([[27, -27]]))
    levels = target_cells(tensor).levels[:, 0]
    assert np.array_equal(levels[:4, 0], digits(np.array(27), 8, 2))
    assert np.array_equal(levels[4:, 1], digits(np.array(27), 8, 2))
    assert not levels[4:, 0].any()
    assert device_factors(tensor.array) == (1.0, 4.0, 16.0, 64.0, -1.0, -4.0, -16.0, -64.0)
