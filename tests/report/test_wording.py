"""Numbers in words, histograms, and doctests of the report package."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import nvaudit.report
from nvaudit.report.histogram import Marker, bin_values, histogram_lines
from nvaudit.report.wording import limit_text, share_text, wrap
from nvaudit.rng import stream

MODULES = [m.name for m in pkgutil.iter_modules(nvaudit.report.__path__) if m.name != "__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    """The examples in docstrings are true."""
    assert doctest.testmod(importlib.import_module(f"nvaudit.report.{name}")).failed == 0


def test_thresholds_are_not_rounded():
    """A threshold is shown as given, so that 89.96 % never reads as 90 %."""
    assert [limit_text(t, "fraction") for t in (0.9, 0.8996, 0.29, 1 / 3)] == [
        "90 %", "89.96 %", "29 %", "33.33333333 %",
    ]  # fmt: skip
    assert limit_text(0.35, "nats") == "0.35"


def test_shares_near_the_ends_are_not_rounded_to_them():
    """Only an exact 0 or 1 reads as 0 % or 100 %."""
    assert share_text(0.99996) == "above 99.99 %"
    assert share_text(0.00004) == "below 0.01 %"
    assert [share_text(p) for p in (0.0, 0.5, 1.0)] == ["0 %", "50.00 %", "100 %"]


def test_percent_signs_stay_with_their_numbers():
    """No line begins with a percent sign."""
    text = "a 95 % b 12.5 % " * 20
    for width in range(20, 60):
        lines = wrap(text, width)
        assert not any(line.startswith("%") for line in lines)
        assert " ".join(lines) == text.strip()


@pytest.mark.parametrize("columns", [10, 33, 64])
def test_bins_count_every_chip_once(columns):
    """No chip is lost or counted twice, with and without a resolution."""
    values = np.rint(stream(0, "bins").normal(0.9, 0.02, 777) * 450) / 450
    for step in (0.0, 1 / 450):
        for include in ([], [0.5]):
            bins = bin_values(values, columns, step, include)
            assert bins.counts.sum() == 777
            assert len(bins.counts) <= columns
            for value in np.unique(values):
                assert bins.counts[bins.column(float(value))] > 0 or step == 0


def test_bins_of_an_accuracy_hold_equally_many_possible_values():
    """With a resolution, one chip at each possible value gives a flat histogram but for the last bin."""
    values = np.arange(300, 420) / 450
    counts = bin_values(values, 50, 1 / 450).counts
    assert len(set(counts[:-1].tolist())) == 1


@pytest.mark.parametrize(
    "values", [[0.0, 5e-324], [-1e308, 1e308], [1.0, np.nextafter(1, 2)], [1e16, 1e16 + 2]]
)
def test_bins_of_extreme_values(values):
    """Tiny and huge spans neither crash nor lose a chip."""
    bins = bin_values(np.array(values), 20)
    assert bins.counts.sum() == 2


def test_histogram_is_drawn_to_scale():
    """The tallest bin fills all rows, one with half as many fills half, a single chip still shows."""
    bins = bin_values(np.repeat([0.5, 1.5, 2.5], [80, 40, 1]), 3, 0.0, [0.0, 3.0])
    lines = histogram_lines(
        bins, [Marker(1.5, "KPP"), Marker(9.0, "far"), Marker(-1.0, "low")], ("0", "3"), 3
    )
    assert lines == [
        "█", "█", "█▄", "██", "██▁", "───", "0 3", "KPP ▲" if lines[7][0] == "K" else " ▲ KPP",
        "(right of the axis: far)", "(left of the axis: low)",
    ]  # fmt: skip
