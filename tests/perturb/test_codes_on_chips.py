"""Codes on simulated chips: the law of a weight follows from the levels that its code puts on devices."""

from __future__ import annotations

import numpy as np
import pytest

from nvaudit.device import DeviceProfile, OperatingPoint, load_profile, operating_point, override_profile
from nvaudit.mapping.codes import Code, least_noisy_code, slice_code
from nvaudit.mapping.conductance import DeviceArray, code_layout, held_levels, layout
from nvaudit.mapping.tiling import Lines
from nvaudit.options import Encoding
from nvaudit.perturb.cells import device_factors, device_offset, draw_cells, target_cells
from nvaudit.perturb.chip import MappedTensor, TensorLaw
from nvaudit.perturb.choose_codes import level_variance
from nvaudit.perturb.collapse import collapse

ENCODINGS: tuple[Encoding, ...] = ("sign_magnitude", "sign_per_device", "differential", "offset")
REPEATS = 4000


def profile_of(name: str, encoding: Encoding) -> DeviceProfile:
    """A bundled device with another encoding, and cells of two bits."""
    return override_profile(load_profile(name), encoding=encoding, cell_bits=2)


def code_for(point: OperatingPoint, encoding: Encoding) -> Code:
    """The code 8,4,2,1, or two pairs."""
    f = [4, 1] if encoding == "differential" else [8, 4, 2, 1]
    return least_noisy_code(f, level_variance(point, 4), encoding)


def repeated(array: DeviceArray, values: np.ndarray) -> MappedTensor:
    """Each value many times over."""
    codes = np.repeat(values.astype(np.int16)[:, None], REPEATS, axis=1)
    return MappedTensor("w", codes, np.ones((), np.float32), array, int(np.abs(values).max()), Lines((1,)))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["rram", "fefet1", "rram_milo2021"])
def test_the_variance_of_a_weight_is_that_of_its_devices(name: str, encoding: Encoding) -> None:
    """The collapse gives Var W = s² Σ f² σ²(l) of the representation, for every value that has one."""
    profile = profile_of(name, encoding)
    point = operating_point(profile)
    code = code_for(point, encoding)
    law = collapse(point, code_layout(profile, code), code.top)
    assert law is not None
    expected = code.value_variance(level_variance(point, 4))
    has = np.isfinite(expected)
    assert has.sum() > code.top
    np.testing.assert_allclose(np.square(law.std)[has], expected[has], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["fefet1", "rram_milo2021"])
def test_one_draw_per_weight_has_the_law_of_its_devices(name: str, encoding: Encoding) -> None:
    """Device by device, mean and spread of every value are those of the collapse (4,000 draws, 5 σ)."""
    profile = profile_of(name, encoding)
    point = operating_point(profile)
    code = code_for(point, encoding)
    array = code_layout(profile, code)
    law = collapse(point, array, code.top)
    assert law is not None
    values = np.arange(-code.top, code.top + 1)[code.reachable]
    drawn = TensorLaw(repeated(array, values), point, every_device=True).draw(3, 0).weights
    mean, std = (part[values + code.top] for part in (law.mean, law.std))
    assert np.abs(drawn.mean(axis=1) - values - mean).max() < 5 * std.max() / np.sqrt(REPEATS)
    np.testing.assert_allclose(drawn.std(axis=1), std, rtol=5 / np.sqrt(2 * REPEATS))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_devices_add_up_to_the_weights(encoding: Encoding) -> None:
    """What a crossbar with converters sees, device by device, sums to the weights of the same chip."""
    profile = profile_of("fefet1", encoding)
    point = operating_point(profile)
    code = code_for(point, encoding)
    array = code_layout(profile, code)
    values = np.arange(-code.top, code.top + 1)[code.reachable][:, None]
    tensor = MappedTensor("w", values.astype(np.int16), np.ones((), np.float32), array, code.top, Lines((1,)))
    factors = np.asarray(device_factors(array))
    assert len(factors) == array.slices * array.polarities == code.devices
    held = np.tensordot(factors, target_cells(tensor).levels, 1) - device_offset(array)
    assert (held == values).all()
    for every_device in (False, True):
        law = TensorLaw(tensor, point, every_device=every_device)
        cells = np.tensordot(factors, draw_cells(law, 1, 2).levels, 1) - device_offset(array)
        np.testing.assert_allclose(cells, law.draw(1, 2).weights, atol=1e-3)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_stuck_devices_reach_the_weight_by_their_significance(encoding: Encoding) -> None:
    """All devices stuck at g_min: every weight is what no level at all stands for."""
    from nvaudit.session import settle_device
    from nvaudit.spec import make_spec

    options = {"device": "rram", "encoding": encoding, "sigmas": (0.0,), "stuck_at": "1,0"}
    profile, (point,) = settle_device(make_spec(model="m.onnx", **options))
    code = code_for(operating_point(profile), encoding)
    array = code_layout(profile, code)
    values = np.arange(-code.top, code.top + 1)[code.reachable]
    drawn = TensorLaw(repeated(array, values), point).draw(0, 0).weights
    assert (drawn == -code.zero).all()


def test_slices_given_as_a_code_are_the_slices() -> None:
    """The table of the papers' slices, taken as any other code, draws the same chips bit for bit."""
    profile = load_profile("fefet1")
    point = operating_point(profile)
    values = np.arange(-255, 256, dtype=np.int16)[:, None]
    scale = np.asarray(0.01, np.float32)
    plain, given = (
        TensorLaw(MappedTensor("w", values, scale, array, 255, Lines((1,))), point).draw(5, 7).weights
        for array in (layout(profile, bits=8), code_layout(profile, slice_code(8, 2, "sign_magnitude")))
    )
    assert np.array_equal(plain, given)


def test_each_device_has_its_own_sign() -> None:
    """With ``sign_per_device`` 3 = 4 − 1 may be held by two devices of opposite signs."""
    quiet_ends = np.array([0.0, 4.0, 4.0, 0.0])
    code = least_noisy_code([4, 1], quiet_ends, "sign_per_device")
    array = code_layout(load_profile("fefet1"), code)
    signs = [float(np.asarray(held.sign)[0]) for held in held_levels(np.array([9]), array)]
    levels = [int(held.level[0]) for held in held_levels(np.array([9]), array)]
    assert (signs, levels) == ([-1.0, 1.0], [3, 3])
