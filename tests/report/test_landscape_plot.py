"""Figures of a loss surface."""

import numpy as np
import pytest

pytest.importorskip("plotly", reason="plotly draws the figures")

from nvaudit.report.landscape.document import map_lines
from nvaudit.report.landscape.figures import (
    MAX_POINTS,
    MAX_SURFACES,
    contour_figure,
    surface_figure,
    surface_figures,
)

AXIS = np.linspace(-0.3, 0.3, 7)


def tilted(count=3, axis=AXIS):
    """Surfaces that rise along x, and more for each further one."""
    return np.stack([np.add.outer((i + 1) * axis, 0 * axis) for i in range(count)])


@pytest.mark.parametrize("draw", [surface_figure, contour_figure])
def test_x_goes_to_the_right(draw):
    """plotly takes rows as y: a surface that rises along x does so in the figure."""
    trace = draw(AXIS, tilted(1), ["one"], "loss").data[0]
    z = np.asarray(trace.z)
    assert np.asarray(trace.x) == pytest.approx(AXIS)
    assert (np.diff(z, axis=1) > 0).all()
    assert (np.diff(z, axis=0) == 0).all()


@pytest.mark.parametrize("draw", [surface_figure, contour_figure])
def test_one_surface_is_shown_at_a_time(draw):
    """Several surfaces share one scale; the first is shown, and the page offers all by their names."""
    figure = draw(AXIS, tilted(3), ["a", "b", "c"], "loss")
    surfaces = [trace for trace in figure.data if trace.type in ("surface", "contour")]
    assert [trace.visible for trace in surfaces] == [True, False, False]
    assert [trace.name for trace in surfaces] == ["a", "b", "c"]
    low, high = ("cmin", "cmax") if draw is surface_figure else ("zmin", "zmax")
    for trace in surfaces:
        assert (trace[low], trace[high]) == pytest.approx((-0.9, 0.9))
    _, flat = surface_figures(AXIS, tilted(3), ["a", "b", "c"], "loss")
    assert flat.offers == ("a", "b", "c")
    _, single = surface_figures(AXIS, tilted(1), ["a"], "loss")
    assert single.offers == ()


def test_a_large_landscape_is_thinned():
    """Many surfaces of a fine grid become a figure that a page can hold."""
    axis = np.linspace(-1, 1, 401)
    figure = surface_figure(axis, tilted(20, axis), [str(i) for i in range(20)], "loss")
    assert len(figure.data) == MAX_SURFACES
    assert len(figure.data[0].x) == 101 <= MAX_POINTS
    assert (figure.data[0].x[0], figure.data[0].x[-1]) == (-1, 1)


@pytest.mark.parametrize("size", [1e-9, 1e-300, 5e-324, 1.0, 1e300])
def test_small_losses_are_not_rounded_away(size):
    """A surface of a loss that is small as a whole keeps its shape."""
    z = np.asarray(surface_figure(AXIS, size * tilted(1), ["small"], "loss").data[0].z)
    assert z == pytest.approx(size * tilted(1)[0].T, rel=1e-3, abs=1e-4 * size)


def test_a_flat_surface_can_be_drawn():
    """Where nothing changes, nothing is divided by 0."""
    flat = np.ones((1, 7, 7))
    assert surface_figure(AXIS, flat, ["flat"], "loss").layout.scene.zaxis.range == pytest.approx(
        (0.95, 1.05)
    )
    assert map_lines(flat[0], 80)[:-1] == [f"|{14 * ' '}|"] * 7


def test_the_map_on_a_terminal():
    """x goes to the right and y up, darker where the loss is higher; a fine grid is thinned to the width."""
    rising = np.add.outer(0 * AXIS, AXIS)  # along y
    lines = map_lines(rising, 80)
    assert len(lines) == 7 + 1
    assert lines[0] == f"|{14 * '@'}|"
    assert lines[6] == f"|{14 * ' '}|"
    assert lines[7] == "' ' -0.3 … '@' 0.3, in equal steps"
    assert {len(line) for line in map_lines(np.add.outer(np.arange(51.0), np.arange(51.0)), 30)} <= set(
        range(31)
    )
