"""Places and rank correlations."""

import math

import numpy as np
import pytest
from scipy import stats

from nvaudit.report.comparison.ranks import places, spearman
from nvaudit.rng import stream


def test_equal_values_share_a_place():
    """And the next one comes after all of them."""
    assert places([0.9, 0.95, 0.9, 0.8], higher_is_better=True) == (2, 1, 2, 4)
    assert places([0.9, 0.95, 0.9, 0.8], higher_is_better=False) == (2, 4, 2, 1)


def test_missing_values_have_no_place():
    """They count for nobody else either."""
    assert places([None, 2.0, None, 1.0], higher_is_better=False) == (None, 2, None, 1)
    assert places([], higher_is_better=True) == ()


@pytest.mark.parametrize("n", [3, 5, 8, 12])
def test_correlation_is_scipys(n):
    """With ties, whatever the number of models."""
    rng = stream(1, "spearman", n)
    x, y = rng.integers(0, 6, n).astype(float), rng.standard_normal(n)
    found = spearman("roughness", "kpp", list(zip(x, y, strict=True)))
    expected = stats.spearmanr(x, y)
    assert found.value == pytest.approx(expected.statistic)
    assert found.models == n
    if n > 8:
        assert found.p == pytest.approx(expected.pvalue)


def test_p_counts_all_orders():
    """Up to eight models p is that of the permutation test."""
    rng = stream(2, "exact")
    x, y = rng.standard_normal((2, 6))
    found = spearman("roughness", "kpp", list(zip(x, y, strict=True)))
    test = stats.permutation_test(
        (x,), lambda a: stats.spearmanr(a, y).statistic, permutation_type="pairings", n_resamples=np.inf
    )
    assert found.p == pytest.approx(np.mean(np.abs(test.null_distribution) >= abs(found.value) - 1e-9))


@pytest.mark.parametrize(("n", "said"), [(2, True), (3, True), (4, True), (5, False)])
def test_few_models_say_that_they_say_little(n, said):
    """Below five no order is beyond chance at 5 %, and the remark names the least p."""
    found = spearman("roughness", "mean", [(float(i), -float(i)) for i in range(n)])
    assert found.value == pytest.approx(-1)
    assert found.p == found.least_p == pytest.approx(2 / math.factorial(n))
    assert (found.remark is not None) == said
    if said:
        assert f"{n} models say little" in found.remark
        assert found.least_p > 0.05


def test_perfect_order_of_many_models():
    """p stays above 0."""
    found = spearman("roughness", "kpp", [(float(i), float(i)) for i in range(12)])
    assert found.value == pytest.approx(1)
    assert 0 < found.p < 1e-6


@pytest.mark.parametrize(
    ("pairs", "remark"),
    [
        ([], "needs two models"),
        ([(1.0, 0.9), (None, 0.8)], "needs two models"),
        ([(1.0, 0.9), (1.0, 0.8), (1.0, 0.7)], "all models have the same roughness"),
        ([(1.0, 0.9), (2.0, 0.9)], "all models have the same kpp"),
    ],
)
def test_what_cannot_be_correlated(pairs, remark):
    """No value, and why."""
    found = spearman("roughness", "kpp", pairs)
    assert found.value is None
    assert found.p is None
    assert remark in found.remark
