"""A loss surface in 3-D and as contours."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.report.document import MEDIA, PAGE, Figure, Sketch
from nvaudit.report.plots import SURFACE_COLOURS, axis, colour, label, layout, plotly_graphs
from nvaudit.report.sections import Roughness
from nvaudit.report.wording import count_text, roughness_text

MAX_SURFACES = 12
"""A figure offers at most this many surfaces, so that a page stays small."""

MAX_POINTS = 101
"""A finer grid is drawn with fewer points along each axis."""


def surface_figure(grid: Floats, losses: Floats, names: list[str], loss: str) -> Any:
    """Draw loss surfaces in 3-D; of several the first is shown.

    Parameters
    ----------
    grid : ndarray, float64, shape (a,)
        Coordinates along both directions.
    losses : ndarray, float64, shape (surface, a, a)
        First along x, then along y.
    names : list of str
        One for each surface.
    loss : str
        Name of the loss, with its unit.
    """
    go = plotly_graphs()
    grid, losses, names = _thinned(grid, losses, names)
    low, high = float(losses.min()), float(losses.max())
    traces = [
        go.Surface(
            x=grid, y=grid, z=surface.T, cmin=low, cmax=high, colorscale=SURFACE_COLOURS, visible=i == 0,
            name=label(name), colorbar=_bar(loss, 0.02),
            contours={"z": {"show": True, "usecolormap": True, "project": {"z": True}}},
            hovertemplate="x %{x:.3g}<br>y %{y:.3g}<br>loss %{z:.4g}<extra></extra>",
        )
        for i, (surface, name) in enumerate(zip(losses, names, strict=True))
    ]  # fmt: skip
    figure = go.Figure(traces)
    # The same heights for all surfaces, so that they can be compared.
    margin = 0.05 * (high - low or 1.0)
    sides = [("x", {}), ("y", {}), ("z", {"range": [low - margin, high + margin]})]
    scene: dict[str, Any] = {
        f"{side}axis": {
            "title": {"text": "loss" if side == "z" else side}, "gridcolor": colour("line"),
            "zerolinecolor": colour("line"), "color": colour("muted"), "nticks": 5, **more,
        }
        for side, more in sides
    }  # fmt: skip
    # Turned round its upright axis only: the loss stays above.
    camera = {"eye": {"x": 1.3, "y": 1.3, "z": 0.8}, "center": {"x": 0, "y": 0, "z": -0.15}}
    scene |= {"aspectmode": "cube", "dragmode": "turntable", "camera": camera}
    figure.update_layout(**layout(scene=scene, margin={"l": 0, "r": 0, "t": 0, "b": 64}))
    return figure


def contour_figure(grid: Floats, losses: Floats, names: list[str], loss: str) -> Any:
    """Draw loss surfaces as contours; of several the first is shown.

    Parameters
    ----------
    grid, losses, names, loss
        As in :func:`surface_figure`.
    """
    go = plotly_graphs()
    grid, losses, names = _thinned(grid, losses, names)
    low, high = float(losses.min()), float(losses.max())
    traces = [
        go.Contour(
            x=grid, y=grid, z=surface.T, zmin=low, zmax=high, colorscale=SURFACE_COLOURS, visible=i == 0,
            name=label(name), ncontours=20, line={"width": 0.7}, colorbar=_bar(loss, -0.16),
            hovertemplate="x %{x:.3g}<br>y %{y:.3g}<br>loss %{z:.4g}<extra></extra>",
        )
        for i, (surface, name) in enumerate(zip(losses, names, strict=True))
    ]  # fmt: skip
    middle = go.Scatter(
        x=[0], y=[0], mode="markers", hovertemplate="the trained weights<extra></extra>",
        marker={"symbol": "cross-thin-open", "size": 14, "color": "white", "line": {"width": 2.5}},
    )  # fmt: skip
    figure = go.Figure([*traces, middle])
    figure.update_layout(
        **layout(
            xaxis=axis("x, in filter lengths", constrain="domain", nticks=6, showgrid=False),
            yaxis=axis("y, in filter lengths", scaleanchor="x", constrain="domain", nticks=6, showgrid=False),
        )
    )
    return figure


def surface_names(names: list[str]) -> list[str]:
    """Give the names of the surfaces that a figure offers."""
    return names[:MAX_SURFACES]


def _bar(loss: str, below: float) -> dict[str, Any]:
    # Below the drawing, so that a phone has its whole width for it.
    return {
        "title": {"text": label(loss), "side": "bottom"}, "orientation": "h", "thickness": 10, "len": 0.7,
        "outlinewidth": 0, "x": 0.5, "y": below, "yanchor": "top", "nticks": 6,
    }  # fmt: skip


def _thinned(grid: Floats, losses: Floats, names: list[str]) -> tuple[Floats, Floats, list[str]]:
    """Keep what can be drawn: some surfaces, and not more points than a screen shows."""
    step = -(-len(grid) // MAX_POINTS)
    few = losses[:MAX_SURFACES, ::step, ::step]
    # Seven places keep a page small; small losses keep four digits of what they differ by.
    spread = float(few.max() / 2 - few.min() / 2)
    places = max(7, 4 - math.floor(math.log10(spread))) if spread > 0 else 7
    with np.errstate(over="ignore"):  # rounding multiplies first; what overflows there is not rounded
        axis, height = np.round(grid[::step], 9), np.round(few, places)
    axis = np.where(np.isfinite(axis), axis, grid[::step])
    return axis, np.where(np.isfinite(height), height, few), names[:MAX_SURFACES]


def surface_figures(
    grid: Floats, losses: Floats, names: list[str], loss: str, sketch: Sketch | None = None, sketched: int = 0
) -> tuple[Figure, ...]:
    """Draw surfaces in 3-D and as contours, and one of them with characters.

    Parameters
    ----------
    grid : ndarray, float64, shape (a,)
        Coordinates along both directions.
    losses : ndarray, float64, shape (surface, a, a)
        First along x, then along y.
    names : list of str
        One for each surface.
    loss : str
        Name of the loss, with its unit.
    sketch : callable, optional
        Draws the surface number ``sketched`` where there are no pictures.
    """
    shown = surface_names(names)
    offers = tuple(shown) if len(shown) > 1 else ()
    words = _surface_words(grid, losses[0], shown[0] if offers else "")
    below = "Seen from above; lines join points of equal loss, the cross marks the trained weights."
    surface = partial(surface_figure, grid, losses, names, loss)
    contours = partial(contour_figure, grid, losses, names, loss)
    pictures = (
        Figure(
            "surface", f"{words}.", surface, tall=True, solid=True, offers=offers, media=PAGE,
            legend="Height and colour: the loss.",
        ),
        Figure("contours", f"{words}.", contours, tall=True, offers=offers, legend=below, media=PAGE),
    )  # fmt: skip
    if sketch is None:
        return pictures
    text = _surface_words(grid, losses[sketched], names[sketched] if len(names) > 1 else "")
    flat = Figure("map", f"{text}.", sketch=sketch, media=MEDIA - PAGE)
    return (*pictures, flat)


def _surface_words(grid: Floats, surface: Floats, name: str) -> str:
    """Say a surface, and which of several it is."""
    middle = int(np.argmin(np.abs(grid)))
    span = f"x and y from {grid.min():g} to {grid.max():g} filter lengths"
    low, high = surface.min(), surface.max()
    of = f" ({name})" if name else ""
    return (
        f"Loss over the plane of two random directions through the trained weights, which are in the middle "
        f"({span}): {surface[middle, middle]:.4g} there, from {low:.4g} to {high:.4g} over the plane{of}"
    )


def roughness_words(roughness: Roughness) -> str:
    """Say a roughness and its setting in sentences."""
    pairs = "one pair" if roughness.pairs == 1 else f"{roughness.pairs} pairs"
    error = "" if roughness.standard_error is None else " (mean and standard error over the pairs)"
    return (
        f"Roughness {roughness_text(roughness.value, roughness.standard_error)}{error}; lower is more "
        f"stable. {roughness.grid} × {roughness.grid} points from −{roughness.span:g} to {roughness.span:g} "
        f"filter lengths along {pairs} of random directions, {count_text(roughness.images, 'image')}, "
        f"{roughness.loss.replace('_', '-')} loss, batch norm {roughness.batch_norm}."
    )
