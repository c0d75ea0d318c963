"""Roughness of a surface: S-1 and S-2 as laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvaudit.stats.roughness import fit_quadratic, roughness

AXIS = np.linspace(-0.5, 0.5, 11)
NUMBER = st.floats(-100, 100).map(lambda value: round(value, 6))


def surface(function, axis=AXIS):
    """A surface from a function of x and y."""
    x, y = np.meshgrid(axis, axis, indexing="ij")
    return function(x, y) + 0 * x


def bumpy(seed=0, axis=AXIS):
    """Some surface without any symmetry."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal((len(axis), len(axis)))


@given(
    st.tuples(*[NUMBER] * 5),
    st.sampled_from([1e-4, 0.05, 0.3, 1.0, 30.0]),
    st.sampled_from([3, 5, 11, 26]),
)
def test_a_quadratic_has_no_roughness(weights, span, points):
    """Any surface w4 x² + w3 y² + w2 x + w1 y + w0 is fitted to rounding, its weights found."""
    axis = np.linspace(-span, span, points)
    w4, w3, w2, w1, w0 = weights
    loss = surface(lambda x, y: w4 * x**2 + w3 * y**2 + w2 * x + w1 * y + w0, axis)
    fit = fit_quadratic(axis, axis, loss)
    size = max(np.abs(loss).max(), 1e-30)
    assert fit.mse <= (1e-12 * size) ** 2
    terms = np.array(fit.coefficients) * [span**2, span**2, span, span, 1]
    assert terms == pytest.approx(np.array(weights) * [span**2, span**2, span, span, 1], abs=1e-10 * size)


def test_the_cross_term_is_roughness():
    """S-1 has no term in x y: of c x y all is left, c² mean(x²) mean(y²)."""
    fit = fit_quadratic(AXIS, AXIS, surface(lambda x, y: 3 * x * y + x**2 - y))
    assert fit.mse == pytest.approx(9 * np.square(AXIS).mean() ** 2, rel=1e-12)
    assert fit.coefficients == pytest.approx((1, 0, 0, -1, 0), abs=1e-12)


def test_a_cubic_leaves_what_a_line_does_not_take():
    """Of x³ the part along x is taken away: mean(x⁶) − mean(x⁴)²/mean(x²) is left."""
    mean = {power: (AXIS**power).mean() for power in (2, 4, 6)}
    fit = fit_quadratic(AXIS, AXIS, surface(lambda x, y: x**3))
    assert fit.mse == pytest.approx(mean[6] - mean[4] ** 2 / mean[2], rel=1e-12)


def test_exchanged_axes_change_nothing():
    """x and y exchanged give the same roughness and the coefficients exchanged, on unequal grids too."""
    other = np.linspace(-0.2, 0.2, 7)
    loss = bumpy()[:, :7]
    here, there = fit_quadratic(AXIS, other, loss), fit_quadratic(other, AXIS, loss.T)
    assert here.mse == pytest.approx(there.mse, rel=1e-12)
    w4, w3, w2, w1, w0 = there.coefficients
    assert here.coefficients == pytest.approx((w3, w4, w1, w2, w0), rel=1e-9)


def test_mirrored_axes_change_nothing():
    """A direction and its opposite give the same roughness."""
    loss = bumpy()
    first = fit_quadratic(AXIS, AXIS, loss).mse
    assert fit_quadratic(AXIS, AXIS, loss[::-1]).mse == pytest.approx(first, rel=1e-12)
    assert fit_quadratic(AXIS, AXIS, loss[:, ::-1]).mse == pytest.approx(first, rel=1e-12)


def test_a_quadratic_on_top_changes_nothing():
    """Only what is not quadratic counts, and c times the surface is c² times as rough."""
    loss = bumpy()
    first = fit_quadratic(AXIS, AXIS, loss).mse
    more = loss + surface(lambda x, y: 40 * x**2 + 7 * y - 3)
    assert fit_quadratic(AXIS, AXIS, more).mse == pytest.approx(first, rel=1e-9)
    assert fit_quadratic(AXIS, AXIS, -3 * loss).mse == pytest.approx(9 * first, rel=1e-12)


def test_it_is_least_squares():
    """The normal equations, written out, give the same fit."""
    loss = bumpy()
    x, y = (axis.ravel() for axis in np.meshgrid(AXIS, AXIS, indexing="ij"))
    design = np.array([x**2, y**2, x, y, np.ones(x.size)])
    weights = np.linalg.solve(design @ design.T, design @ loss.ravel())
    fit = fit_quadratic(AXIS, AXIS, loss)
    assert fit.coefficients == pytest.approx(weights, rel=1e-9)
    assert fit.mse == pytest.approx(((loss.ravel() - weights @ design) ** 2).mean(), rel=1e-12)


def test_a_huge_surface_keeps_its_digits():
    """Losses of 10⁶ around a flat middle are fitted as losses of 1 are."""
    first = fit_quadratic(AXIS, AXIS, bumpy()).mse
    assert fit_quadratic(AXIS, AXIS, 1e6 * bumpy()).mse == pytest.approx(1e12 * first, rel=1e-9)


def test_mean_and_spread_over_pairs():
    """The score is the mean over pairs, with the sample standard deviation; one pair has none."""
    losses = np.stack([bumpy(seed) for seed in range(4)])
    score = roughness(AXIS, AXIS, losses)
    values = [fit_quadratic(AXIS, AXIS, loss).mse for loss in losses]
    assert [fit.mse for fit in score.fits] == values
    assert score.value == pytest.approx(np.mean(values), rel=1e-15)
    assert score.spread == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert roughness(AXIS, AXIS, losses[:1]).spread is None


def test_the_surface_is_not_written_to():
    """A caller's arrays stay as they are."""
    loss, axis = bumpy(), AXIS.copy()
    loss.flags.writeable = axis.flags.writeable = False
    assert fit_quadratic(axis, axis, loss).mse > 0
