"""What the devices of a chip share: correlated variation and the compensation of drift; and write-verify.

False-alarm rates as in noise_cases; seeds are fixed.
"""

import numpy as np
import pytest
from noise_cases import (
    STEP,
    assert_law,
    assert_normal,
    assert_same_law,
    assert_uncorrelated,
    constant,
    devices,
    make_law,
    make_profile,
    target,
)
from scipy import stats

from nvaudit.device import load_profile, operating_point
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.tiling import Lines, lines_of
from nvaudit.perturb.cells import draw_cells
from nvaudit.perturb.chip import BLOCK, MappedTensor, TensorLaw
from nvaudit.perturb.common import Tiles
from nvaudit.perturb.moments import code_moments, level_moments

CHIPS = 1000
MULTIPLIER = {"default": 1.0, "unit": "multiplier", "min": 0.0, "max": 4.0}
LEVEL_KNOB = {"default": 0.2, "unit": "level", "min": 0.0, "max": 1.0}
TIMED = {"kind": "drift", "t0_s": 20.0, "nu_mean": constant(0.05), "nu_law": "normal"}


def shared(scope, sigma=1.5, unit="us", **more):
    return {"kind": "shared", "scope": scope, "sigma": constant(sigma), "unit": unit, **more}


def normal(sigma=1.5, unit="us", **more):
    return {"kind": "normal", "sigma": constant(sigma), "unit": unit, **more}


def tensor_law(profile, code, *, lines=None, key="w", bits=4, **point):
    array = layout(profile, bits=bits)
    code = np.asarray(code, np.int16)
    tensor = MappedTensor(key, code, np.ones((), np.float32), array, 2**bits - 1, lines or Lines((1,)))
    return TensorLaw(tensor, operating_point(profile, **point))


def deviations(law, trial):
    """Programmed less target, in the window's unit."""
    return (law.draw(0, trial).weights.astype(np.float64) - law.tensor.code) * law.tensor.array.step


# ---- correlated variation


@pytest.mark.parametrize("scope", ["chip", "tensor"])
@pytest.mark.parametrize(
    ("unit", "sigma", "one"),
    [("us", 1.5, 1.0), ("level", 0.2, STEP), ("full_scale", 0.02, 90.0), ("relative", 0.1, target(6))],
)
def test_a_common_component_is_normal_over_chips(scope, unit, sigma, one):
    """Over chips it is N(0, (σ · unit)²)."""
    law = tensor_law(make_profile(shared(scope, sigma, unit)), [[6]])
    sample = np.array([deviations(law, trial)[0, 0] for trial in range(CHIPS)])
    assert_normal(sample, 0.0, sigma * one)


def test_all_devices_of_a_chip_or_of_a_tensor_share_it():
    """Within a tensor all deviate alike; two tensors do with scope ``chip`` and not with ``tensor``."""
    for scope, alike in (("chip", True), ("tensor", False)):
        profile = make_profile(shared(scope))
        one, other = (tensor_law(profile, np.full((3, 4), 6), key=key) for key in ("a", "b"))
        first = np.array([deviations(one, trial) for trial in range(CHIPS)])
        assert np.ptp(first.reshape(CHIPS, -1), axis=1).max() < 1e-3
        second = np.array([deviations(other, trial)[0, 0] for trial in range(CHIPS)])
        if alike:
            assert second == pytest.approx(first[:, 0, 0], abs=1e-3)
        else:
            assert_uncorrelated(first[:, 0, 0], second)


def test_a_common_component_follows_its_law_per_level():
    """Devices of different levels move together, each by the spread of its own level."""
    profile = make_profile(
        shared("chip", unit="us") | {"sigma": {"kind": "polynomial", "coefficients": [0.1, 2.0], "of": "rel"}}
    )
    law = tensor_law(profile, [[0, 6, 15]])
    expected = np.array([0.1 + 2.0 * target(level) / 100.0 for level in (0, 6, 15)])
    for trial in range(5):
        found = deviations(law, trial)[0]
        assert found / found[1] == pytest.approx(expected / expected[1], rel=1e-3)


def test_covariance_within_and_across_tiles():
    """Weights of one 2 × 3 tile share all of it, weights of two tiles nothing; beside an independent term."""
    profile = make_profile(shared("tile", 1.0, tile=(2, 3)), normal(0.5))
    law = tensor_law(profile, np.full((4, 6), 8))
    drawn = np.array([deviations(law, trial) for trial in range(CHIPS)]).reshape(CHIPS, -1)
    row, col = np.divmod(np.arange(24), 6)
    same = (row[:, None] // 2 == row // 2) & (col[:, None] // 3 == col // 3)
    expected = np.where(same, 1.0, 0.0) + 0.25 * np.eye(24)
    # The error of a covariance of normals is at most sqrt((v_i v_j + c²) / N).
    error = np.sqrt((1.25**2 + expected**2) / CHIPS)
    assert (np.abs(np.cov(drawn.T) - expected) < 5.5 * error).all()
    assert_normal(drawn[:, 0], 0.0, np.sqrt(1.25))


def test_a_weight_that_straddles_two_tiles_has_a_part_of_each():
    """Device columns of a weight are neighbours: with two slices and tiles of one column each has its own."""
    profile = make_profile(shared("tile", 0.1, "level", tile=(9, 1)), cell_bits=2)
    law = tensor_law(profile, np.full((3, 2), 5))
    sample = np.array([law.draw(0, trial).weights[0, 0] - 5 for trial in range(CHIPS)]).astype(float)
    assert_normal(sample, 0.0, 0.1 * np.sqrt(1 + 16))  # independent slices
    whole = tensor_law(
        make_profile(shared("tile", 0.1, "level", tile=(9, 2)), cell_bits=2), np.full((3, 2), 5)
    )
    sample = np.array([whole.draw(0, trial).weights[0, 0] - 5 for trial in range(CHIPS)]).astype(float)
    assert_normal(sample, 0.0, 0.1 * (1 + 4))  # both slices move together


def test_of_a_differential_pair_a_common_component_cancels():
    """The same shift of both polarities leaves the weight as it was."""
    law = tensor_law(make_profile(shared("tensor"), encoding="differential"), [[5, -7, 0]])
    assert law.draw(0, 0).weights == pytest.approx(np.array([[5, -7, 0]]), abs=1e-5)


def test_two_terms_and_two_chips_have_components_of_their_own():
    """Names and trials address the streams."""
    profile = make_profile(shared("chip", 1.0, name="one"), shared("chip", 2.0, name="two"))
    law = tensor_law(profile, [[6]])
    sample = np.array([deviations(law, trial)[0, 0] for trial in range(CHIPS)])
    assert_normal(sample, 0.0, np.sqrt(5.0))
    assert_uncorrelated(sample[:-1], sample[1:])


def test_groups_have_tiles_of_their_own():
    """No tile reaches from one group of a convolution into the next, by columns or by rows."""
    by_columns = Tiles.of((4, 6), Lines((0,), rows=6, cols=2), 1, (100, 100))
    assert by_columns.shape == (1, 2)
    rows, cols = by_columns.of_device(0, (slice(0, 4),))
    assert (rows == 0).all()
    assert cols.ravel().tolist() == [0, 0, 1, 1]
    by_rows = Tiles.of((4, 6), Lines((1,), rows=2, cols=6), 1, (100, 100))
    assert by_rows.of_device(0, (slice(2, 4),))[0].ravel().tolist() == [1, 1]


def test_rows_and_columns_of_a_convolution():
    """Rows count input channels and kernel positions, columns output channels."""
    rows, cols = lines_of((5, 2, 3, 3), Lines((0,)))
    assert rows.shape == (1, 2, 3, 3)
    assert rows.ravel().tolist() == list(range(18))
    assert cols.ravel().tolist() == [0, 1, 2, 3, 4]
    assert [index.shape for index in lines_of((), Lines((0,)))] == [(), ()]


def test_tiles_are_the_same_whatever_the_blocks_of_a_draw():
    """A tensor larger than a block has the tiles of the whole."""
    profile = make_profile(shared("tile", 1.0, tile=(3, 256)))
    law = tensor_law(profile, np.full((BLOCK // 256 + 40, 256), 6))
    found = deviations(law, 0)[:, 0]
    starts = found[: len(found) // 3 * 3].reshape(-1, 3)
    assert np.ptp(starts, axis=1).max() < 1e-3
    assert len(np.unique(starts[:, 0])) > 0.95 * len(starts)


@pytest.mark.parametrize("scope", ["chip", "tile"])
def test_moments_are_those_of_one_weight_over_chips(scope):
    """The figures of a device are those of chips, also where all weights of one move together."""
    tile = {"tile": (64, 64)} if scope == "tile" else {}
    point = operating_point(make_profile(shared(scope, 0.1, "level", **tile), cell_bits=2))
    array = layout(point.profile, bits=8)
    moments = code_moments(point, array)
    assert moments.std == pytest.approx(np.full(len(moments.code), 0.1 * (1 + 4 + 16 + 64)), rel=0.1)
    assert level_moments(point, array).std == pytest.approx(np.full(4, 0.1), rel=0.02)


def test_crossbars_see_the_same_common_components():
    """The devices that converters read add up to the weights of the plain audit."""
    profile = make_profile(shared("tile", 1.0, tile=(2, 3)), normal(0.5), cell_bits=2)
    law = tensor_law(profile, np.arange(24).reshape(4, 6) % 16)
    cells = draw_cells(law, 0, 3).levels
    assert cells[0] + 4 * cells[1] == pytest.approx(law.draw(0, 3).weights, abs=1e-4)


# ---- write-verify


@pytest.mark.parametrize(
    ("mean", "tolerance"), [(0.0, 1.0), (0.0, 20.0), (-1.0, 2.0), (3.0, 0.5), (-60.0, 2.0)]
)
def test_a_tolerance_truncates_the_error(mean, tolerance):
    """The error is the normal on the condition |error| ≤ tolerance, also far out in its tail."""
    law = normal(1.5, mean=constant(mean), tolerance=tolerance)
    sample = devices(make_profile(law), 6) - target(6)
    expected = stats.truncnorm((-tolerance - mean) / 1.5, (tolerance - mean) / 1.5, mean, 1.5)
    assert np.abs(sample).max() <= tolerance + 1e-4
    if abs(mean) < 30:  # beyond, single precision of the conductance shows
        assert_law(sample, expected)
    n, std = len(sample), expected.std()
    assert abs(sample.mean() - expected.mean()) < 5 * std / np.sqrt(n) + 1e-5
    assert abs(sample.std() / std - 1) < 5 * np.sqrt(float(expected.stats("k")) + 2) / np.sqrt(4 * n) + 1e-3


@pytest.mark.parametrize(("knob", "one"), [("level", STEP), ("full_scale", 90.0)])
def test_a_tolerance_is_in_the_unit_of_sigma_and_not_multiplied_by_it(knob, one):
    """Unit ``sigma``: the tolerance is in the unit of the knob whatever its value."""
    profile = make_profile(normal(1.0, "sigma"), sigma={**LEVEL_KNOB, "unit": knob})
    point = operating_point(profile, 0.05, write_verify=0.04)
    law = make_law(point, np.full(40_000, 6))
    sample = deviations(law, 0)
    assert_law(sample, stats.truncnorm(-0.8, 0.8, 0.0, 0.05 * one))


def test_a_multiplier_does_not_widen_a_tolerance():
    """Twice the spread, the same tolerance."""
    profile = make_profile(normal(1.0, tolerance=1.2), sigma=MULTIPLIER)
    assert_law(devices(profile, 6, sigma=2.0) - target(6), stats.truncnorm(-0.6, 0.6, 0.0, 2.0))


@pytest.mark.parametrize("code", [-200, 31])
def test_a_tolerance_in_weight_space(code):
    """As a fraction of max|W|, on the weight itself."""
    point = operating_point(make_profile(normal(0.02, "weight_max", tolerance=0.01)))
    drawn = make_law(point, np.full(40_000, code), bits=8).draw(0, 0).weights.astype(float)
    assert_law(drawn - code, stats.truncnorm(-0.5, 0.5, 0.0, 0.02 * 255))


def test_a_wide_tolerance_changes_nothing_in_law_and_a_zero_one_leaves_no_error():
    """The limits: no truncation, and exact programming."""
    wide = devices(make_profile(normal(1.5, tolerance=1e6)), 6)
    assert_same_law(wide, devices(make_profile(normal(1.5)), 6))
    assert (devices(make_profile(normal(1.5, tolerance=0.0)), 6) == target(6)).all()
    without_spread = devices(make_profile(normal(0.0, mean=constant(-3.0), tolerance=2.0)), 6)
    assert without_spread == pytest.approx(target(6) - 2.0, abs=1e-4)


def test_a_tolerance_ends_the_exact_collapse():
    """A sum of truncated normals is no normal, so devices are drawn one by one."""
    profile = load_profile("rram")
    assert tensor_law(profile, [[5]], sigma=0.2).collapsed is not None
    assert tensor_law(profile, [[5]], sigma=0.2, write_verify=0.1).collapsed is None


def test_the_narrower_of_two_tolerances_holds():
    """``--write-verify`` tightens what a profile states and never loosens it."""
    profile = make_profile(normal(1.5, tolerance=1.0))
    for asked, held in ((0.5, 0.5), (2.0, 1.0)):
        assert operating_point(profile, write_verify=asked).terms[0].tolerance == held


# ---- drift compensation


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
@pytest.mark.parametrize("cell_bits", [2, 4])
def test_uniform_drift_is_restored_exactly(encoding, cell_bits):
    """Every device lost the same share: the factor gives every weight back, whatever g_min is."""
    profile = make_profile({**TIMED, "nu_std": constant(0.0)}, encoding=encoding, cell_bits=cell_bits)
    code = np.random.default_rng(0).integers(-15, 16, (30, 40))
    lost = tensor_law(profile, code, time_s=86400.0).draw(0, 0).weights
    assert np.abs(lost - code).max() > 0.5
    kept = tensor_law(profile, code, time_s=86400.0, drift_compensation=True).draw(0, 0).weights
    assert kept == pytest.approx(code, abs=2e-4)


def test_it_is_the_total_conductance_before_over_after():
    """The factor stands in for a sum over all devices of the tensor, chip by chip."""
    profile = make_profile(normal(1.0), {**TIMED, "nu_std": constant(0.02)})
    code = np.random.default_rng(1).integers(0, 16, (50, 60))
    fresh = tensor_law(profile, code, time_s=0.0)
    for trial in range(3):
        plain, fixed = (
            tensor_law(profile, code, time_s=3600.0, drift_compensation=asked).draw(0, trial).weights
            for asked in (False, True)
        )
        # The programming errors are the same numbers at both times when drawn one by one.
        before = TensorLaw(fresh.tensor, fresh.point, every_device=True).draw(0, trial).weights
        g = [10.0 + weights.astype(float) * STEP for weights in (before, plain, fixed)]
        assert g[2] == pytest.approx(g[1] * g[0].sum() / g[1].sum(), rel=1e-5)


def test_the_mean_is_restored_where_devices_drift_differently():
    """With a spread of the exponent the total comes back, and the spread of the weights stays."""
    profile = make_profile({**TIMED, "nu_std": constant(0.02)})
    code = np.full((200, 200), 8)
    fixed = tensor_law(profile, code, time_s=86400.0, drift_compensation=True).draw(0, 0).weights
    assert fixed.mean() == pytest.approx(8.0, abs=1e-4)
    ratio = np.exp(-0.02 * np.log(86420 / 20) * np.random.default_rng(3).standard_normal(1_000_000))
    spread = target(8) / STEP * ratio.std() / ratio.mean()
    assert fixed.std() == pytest.approx(spread, rel=0.03)


def test_compensation_scales_read_noise_too():
    """What is read is multiplied, noise and all."""
    profile = make_profile(
        {**TIMED, "nu_std": constant(0.0)}, {"kind": "read", "unit": "us", "sigma": constant(1.5)}
    )
    factor = (86420 / 20) ** 0.05
    plain, fixed = (
        tensor_law(profile, np.full((4, 4), 8), time_s=86400.0, drift_compensation=asked).draw(0, 0)
        for asked in (False, True)
    )
    assert fixed.read_variance == pytest.approx(factor**2 * plain.read_variance, rel=1e-4)


def test_compensation_changes_nothing_at_time_zero():
    """Nothing has drifted: the same chips bit for bit."""
    profile = load_profile("pcm")
    code = np.arange(-120, 120).reshape(12, 20)
    one, other = (
        tensor_law(profile, code, bits=8, time_s=0.0, drift_compensation=asked).draw(0, 0)
        for asked in (False, True)
    )
    assert np.array_equal(one.weights, other.weights)


def test_a_logarithmic_decay_is_compensated_too():
    """The factor takes the sum back, the exact collapse does not apply."""
    decay = {"kind": "log_decay", "mean_per_ln_s": -1.0, "std_const": 0.0, "std_per_ln_s": 0.0, "unit": "us"}
    law = tensor_law(make_profile(decay), np.full((5, 5), 8), time_s=3600.0, drift_compensation=True)
    assert law.collapsed is None
    assert law.draw(0, 0).weights == pytest.approx(np.full((5, 5), 8), abs=1e-4)
