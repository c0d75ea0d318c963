"""The generalised Pareto law of a tail: likelihood, goodness, interval."""

import numpy as np
import pytest
from scipy import optimize, stats

from nvaudit.rng import stream
from nvaudit.stats.gpd import (
    SHAPE_RANGE,
    Tail,
    chi_square_sum_above,
    excess,
    fit_tail,
    goodness,
    log_likelihood,
    log_survival,
    quantile,
    quantile_interval,
)

SHAPES = [-0.5, -0.2, 0.0, 1e-12, 0.3, 1.0]


def tail_of(excesses, step: float, trials: int = 1000) -> Tail:
    """Excesses, rounded down to cells."""
    lower, counts = np.unique(np.floor(np.asarray(excesses) / step) * step, return_counts=True)
    return Tail(np.stack([lower, lower + step]), counts.astype(float), step, trials)


def drawn(shape: float, size: int, *address: int) -> np.ndarray:
    return stats.genpareto.isf(stream(3, "test gpd", *address).random(size), shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_law_is_the_generalised_pareto(shape):
    """Survival and quantile agree with scipy's, also where the shape is nearly 0 and beyond the end."""
    y = np.array([0.0, 0.1, 1.0, 1.9, 2.5, 40.0, np.inf])
    # The likelihood needs no more of shapes that differ from 0 by rounding.
    law = stats.genpareto(shape if abs(shape) > 1e-9 else 0.0, scale=2.0)
    assert np.exp(log_survival(y, 2.0, shape)) == pytest.approx(law.sf(y), rel=1e-9, abs=1e-300)
    assert excess(np.array([1.0, 10.0, 1e4]), 2.0, shape) == pytest.approx(law.isf([1, 0.1, 1e-4]), rel=1e-9)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4])
def test_likelihood_of_fine_cells_is_the_density(shape):
    """With fine cells the likelihood is scipy's density times the width of a cell."""
    y = drawn(shape, 50, 1)
    tail = tail_of(y, 1e-4)
    density = stats.genpareto.logpdf(tail.edges.mean(axis=0), 0.2, scale=1.5)
    expected = float(tail.counts @ density) + 50 * np.log(1e-4)
    assert log_likelihood(tail, 1.5, 0.2) == pytest.approx(expected, abs=1e-3)


def test_likelihood_of_cells_adds_up_to_one():
    """The probabilities of all cells, the last one open, sum to 1."""
    edges = np.stack([np.arange(8.0), np.append(np.arange(1.0, 8.0), np.inf)])
    probs = [np.exp(log_likelihood(Tail(e[:, None], np.ones(1), 1.0, 9), 1.5, 0.1)) for e in edges.T]
    assert sum(probs) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("step", [1e-3, 0.3])
@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
def test_fit_finds_the_most_likely_law(shape, step):
    """No other start or optimiser finds a likelier law within the allowed shapes."""
    tail = tail_of(drawn(shape, 100, 2), step)
    found = fit_tail(tail)
    assert log_likelihood(tail, found.scale, found.shape) == found.log_likelihood
    other = optimize.differential_evolution(
        lambda point: -log_likelihood(tail, np.exp(point[0]), point[1]),
        [(-3, 3), SHAPE_RANGE],
        seed=0,
        tol=1e-9,
    )
    assert found.log_likelihood == pytest.approx(-other.fun, abs=1e-3)


@pytest.mark.parametrize("step", [0.01, 0.3])
def test_fit_is_not_biased_by_rounding(step):
    """Over many samples the mean shape and scale are right, however coarse the steps are."""
    found = [fit_tail(tail_of(drawn(0.1, 400, 3, i), step)) for i in range(40)]
    assert np.mean([law.shape for law in found]) == pytest.approx(0.1, abs=0.04)
    assert np.mean([law.scale for law in found]) == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize(
    "weights", [[1.0], [0.3, 0.3, 0.3], [1.0, 0.5, 0.1], [0.14, 0.064, 0.037, 0.024, 0.017]]
)
def test_tail_of_a_sum_of_chi_squares(weights):
    """Its upper tail is what simulation gives."""
    weights = np.array(weights)
    sums = np.square(stream(3, "test chi").standard_normal((200_000, weights.size))) @ weights
    for prob in (0.01, 0.05, 0.2):
        assert chi_square_sum_above(float(np.quantile(sums, 1 - prob)), weights) == pytest.approx(
            prob, rel=0.12
        )


@pytest.mark.parametrize(("shape", "step", "size"), [(-0.2, 0.01, 60), (0.2, 0.01, 60), (0.0, 0.3, 60)])
def test_goodness_rejects_a_true_law_as_often_as_stated(shape, step, size):
    """P-values of true laws are below 0.05 in about 5 % and below 0.5 in about half of the cases."""
    tails = (tail_of(drawn(shape, size, 4, i), step) for i in range(150))
    p_values = np.array([goodness(tail, fit_tail(tail)) for tail in tails])
    assert 0.005 <= (p_values < 0.05).mean() <= 0.05 + 3.5 * (0.05 * 0.95 / 150) ** 0.5
    assert 0.38 <= (p_values < 0.5).mean() <= 0.64


def test_goodness_rejects_a_gap():
    """A tail with a gap and a bump beyond it is no generalised Pareto tail."""
    y = np.concatenate([drawn(-0.2, 50, 5), 6 + 0.3 * stream(3, "test bump").standard_normal(20)])
    tail = tail_of(y, 0.01)
    assert goodness(tail, fit_tail(tail)) < 1e-3


def test_goodness_needs_groups():
    """Too few different values cannot be tested."""
    tail = tail_of([0.5] * 30 + [1.5] * 10 + [2.5] * 3, 1.0)
    assert goodness(tail, fit_tail(tail)) is None


@pytest.mark.parametrize(("shape", "prob"), [(-0.3, 1e-3), (0.2, 1e-4)])
def test_interval_is_the_profile_of_the_likelihood(shape, prob):
    """At both ends the best that a grid of shapes and shares reaches is the deviance that is allowed."""
    tail = tail_of(drawn(shape, 80, 6), 0.01)
    found = fit_tail(tail)
    low, high = quantile_interval(tail, found, prob, 0.95, np.inf)
    assert low < quantile(tail, found, prob) < high
    cut = 80 * np.log1p(stats.t.ppf(0.975, 78) ** 2 / 78)
    shapes, shares = np.linspace(*SHAPE_RANGE, 201), np.linspace(0.07, 0.09, 9)
    at_best = stats.binom.logpmf(80, 1000, 0.08)
    for end in (low, high):
        best = max(
            log_likelihood(tail, end / float(excess(share / prob, 1.0, s)), s)
            + stats.binom.logpmf(80, 1000, share)
            for share in shares
            for s in shapes[np.abs(shapes - found.shape) < 0.5]
        )
        assert 2 * (found.log_likelihood + at_best - best) == pytest.approx(cut, abs=0.1)


def test_interval_stops_at_the_limit():
    """No end lies beyond the worst value that the metric can take."""
    tail = tail_of(drawn(0.3, 60, 7), 0.01)
    found = fit_tail(tail)
    low, high = quantile_interval(tail, found, 1e-4, 0.95, np.inf)
    middle = quantile(tail, found, 1e-4)
    assert quantile_interval(tail, found, 1e-4, 0.95, middle) == (pytest.approx(low, rel=5e-3), middle)
    assert quantile_interval(tail, found, 1e-4, 0.95, 0.9 * low) == (0.9 * low, 0.9 * low)
    assert high > middle


def test_interval_widens_with_confidence_and_distance():
    """More confidence and rarer chips take a wider interval."""
    tail = tail_of(drawn(0.0, 60, 8), 0.01)
    found = fit_tail(tail)

    def width(prob, confidence):
        low, high = quantile_interval(tail, found, prob, confidence, np.inf)
        return high - low

    assert width(1e-3, 0.8) < width(1e-3, 0.95) < width(1e-3, 0.99)
    assert width(1e-3, 0.95) < width(3e-4, 0.95) < width(1e-4, 0.95)
