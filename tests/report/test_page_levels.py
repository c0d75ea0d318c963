"""The law of each level: how draws are summed up, and how a page shows them."""

import numpy as np
import pytest

pytest.importorskip("plotly", reason="plotly draws the figures of the page")

from page_samples import PROFILE, everything
from report_samples import report

from nvaudit.report.device.result import describe_levels
from nvaudit.report.kinds import document_of
from nvaudit.report.plots import figure_data


def test_levels_are_summed_up():
    """Mean, spread and quantiles are those of the draws; the target is the one given."""
    draws = {0: np.linspace(0, 1, 101), 2: np.full(101, 5.0)}
    found = describe_levels({0: 0.25, 2: 4.0}, draws, "µS")
    assert (found.unit, found.draws) == ("µS", 101)
    first, second = found.levels
    assert (first.level, first.g, first.mean) == (0, 0.25, pytest.approx(0.5))
    assert first.std == pytest.approx(np.std(draws[0]))
    assert first.quantiles == pytest.approx((0.05, 0.25, 0.5, 0.75, 0.95))
    assert (second.level, second.g, second.std) == (2, 4.0, 0)
    assert set(second.quantiles) == {5.0}


def test_levels_are_drawn():
    """Bars reach from quantile to quantile, dashes stand at the targets, and a table has the numbers."""
    found = everything()
    (figure,) = (figure for figure in document_of(found).figures if figure.name == "levels")
    traces = {trace["name"]: trace for trace in figure_data(figure.draw())["data"]}
    ends = [y for y in traces["90 % of the devices"]["y"] if y is not None]
    assert ends == [
        q for level in found.device_levels.levels for q in (level.quantiles[0], level.quantiles[4])
    ]
    assert list(traces["target"]["y"]) == [0, 1, 2, 3]
    assert len(figure.numbers.rows) == 4


def test_levels_may_be_absent():
    """Without them the device is described by its profile alone."""
    page = document_of(report(device=PROFILE))
    assert "levels" not in [figure.name for figure in page.figures]
    (section,) = (section for section in page.sections if section.name == "device")
    facts = dict(next(block for block in section.blocks if block.kind == "facts").rows)
    assert facts["Technology"] == "FeFET, four levels"
    assert facts["Cells"] == "2 bits per cell, 8 bits per weight"
