"""Groups of zeros without devices: exactly zero on every chip, and nothing else changes."""

import numpy as np
import pytest

from nvaudit.device import load_profile, operating_point
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.tiling import Lines
from nvaudit.perturb.cells import device_factors, device_offset, draw_cells
from nvaudit.perturb.chip import MappedTensor, TensorLaw

LINES = Lines((1,), 300, 20)
CODE = np.random.Generator(np.random.SFC64(1)).integers(-255, 256, (300, 20)).astype(np.int16)
CODE[64:128, :15] = 0
CODE[256:] = 0
CODE[0, 3] = 0  # one zero makes no group

GONE = np.zeros(CODE.shape, bool)
GONE[64:128, :15] = True
GONE[256:] = True


def laws(name, encoding="sign_magnitude", **how):
    """The same tensor with all devices, and without those of groups of zeros."""
    profile = load_profile(name)
    array = layout(profile, bits=8, cell_bits=profile.cell_bits, encoding=encoding)
    rest = (np.asarray(0.01, np.float32), array, 255, LINES)
    whole, less = (MappedTensor("w", CODE, *rest, skip) for skip in (None, 64))
    point = operating_point(profile, **{k: how.pop(k) for k in ("time_s", "enable") if k in how})
    return TensorLaw(whole, point, **how), TensorLaw(less, point, **how)


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("rram", {}),  # one normal per weight
        ("fefet1", {}),
        ("rram_65nm", {}),  # device by device
        ("rram", {"every_device": True}),
    ],
)
def test_groups_of_zeros_are_zero_and_the_rest_is_the_same_chip(name, how, encoding):
    """With no devices there is no noise; all other weights are those of the same chip, bit for bit."""
    whole, less = laws(name, encoding, **how)
    for trial in (0, 1):
        all_of_it, drawn = whole.draw(7, trial).weights, less.draw(7, trial).weights
        assert (drawn[GONE] == 0).all()
        assert np.array_equal(drawn[~GONE], all_of_it[~GONE])
        assert (all_of_it[GONE] != 0).any()
        assert drawn[0, 3] != 0


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
@pytest.mark.parametrize("name", ["rram", "rram_65nm"])
def test_on_crossbars_with_converters_too(name, encoding):
    """The devices of a group of zeros, one by one, make no column sum, whatever the encoding subtracts."""
    whole, less = laws(name, encoding)
    cells, full = draw_cells(less, 7, 0), draw_cells(whole, 7, 0)
    sums = np.tensordot(device_factors(less.tensor.array), cells.levels.astype(np.float64), axes=1)
    assert (sums[GONE] == device_offset(less.tensor.array)).all()
    assert np.array_equal(cells.levels[:, ~GONE], full.levels[:, ~GONE])
    assert not np.array_equal(cells.levels[:, GONE], full.levels[:, GONE])


def test_no_reads_of_what_is_not_there():
    """Read noise, too, has no part of a group of zeros."""
    from nvaudit.device import add_terms

    profile = add_terms(load_profile("rram"), read_noise="0.05")
    array = layout(profile, bits=8, cell_bits=profile.cell_bits)
    tensor = MappedTensor("w", CODE, np.asarray(0.01, np.float32), array, 255, LINES, 64)
    drawn = TensorLaw(tensor, operating_point(profile)).draw(0, 0)
    assert drawn.read_variance is not None
    assert (drawn.read_variance[GONE] == 0).all()
    assert (drawn.read_variance[~GONE] > 0).all()
    cells = draw_cells(TensorLaw(tensor, operating_point(profile)), 0, 0)
    assert (cells.read_variance[:, GONE] == 0).all()
    assert (cells.read_variance[:, ~GONE] > 0).any()


def test_nothing_is_skipped_unless_asked_for():
    """A tensor without groups of zeros is drawn as ever."""
    full = np.where(CODE == 0, 1, CODE).astype(np.int16)
    array = layout(load_profile("rram"), bits=8, cell_bits=2)
    law = TensorLaw(
        MappedTensor("w", full, np.asarray(0.01, np.float32), array, 255, LINES, 64),
        operating_point(load_profile("rram")),
    )
    assert law.skipped is None
