"""A loss surface in 3-D and as contours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.report.plots.figures import plotly_graphs

Float = NDArray[np.float64]

MAX_SURFACES = 12
"""A figure offers at most this many surfaces, so that a page stays small."""

MAX_POINTS = 101
"""A finer grid is drawn with fewer points along each axis."""

_COLOURS = "Viridis"  # reads the same in grey and for the colour-blind


def surface_figure(axis: Float, losses: Float, names: list[str], loss: str, wanted_by: str = "--html") -> Any:
    """Draw loss surfaces in 3-D, with a menu if there are several.

    Parameters
    ----------
    axis : ndarray, float64, shape (a,)
        Coordinates along both directions.
    losses : ndarray, float64, shape (surface, a, a)
        First along x, then along y.
    names : list of str
        One for each surface.
    loss : str
        Name of the loss, with its unit.
    wanted_by : str
        The option that asks for a figure, for the message if plotly is missing.

    Returns
    -------
    plotly.graph_objects.Figure

    Raises
    ------
    OptionError
        If plotly is not installed.
    """
    go = plotly_graphs(wanted_by)
    axis, losses, names = _thinned(axis, losses, names)
    low, high = float(losses.min()), float(losses.max())
    traces = [
        go.Surface(
            x=axis, y=axis, z=surface.T, cmin=low, cmax=high, colorscale=_COLOURS, visible=i == 0,
            colorbar={"title": {"text": loss, "side": "right"}, "thickness": 12},
            contours={"z": {"show": True, "usecolormap": True, "project": {"z": True}}},
            hovertemplate="x %{x:.3g}<br>y %{y:.3g}<br>loss %{z:.4g}<extra></extra>",
        )
        for i, surface in enumerate(losses)
    ]  # fmt: skip
    figure = go.Figure(traces)
    # The same heights for all surfaces, so that they can be compared.
    margin = 0.05 * (high - low or 1.0)
    figure.update_layout(
        scene={
            "xaxis": {"title": {"text": "along x"}},
            "yaxis": {"title": {"text": "along y"}},
            "zaxis": {"title": {"text": "loss"}, "range": [low - margin, high + margin]},
            "aspectmode": "cube",
        },
        **_layout(names),
    )
    return figure


def contour_figure(axis: Float, losses: Float, names: list[str], loss: str, wanted_by: str = "--html") -> Any:
    """Draw loss surfaces as contours, with a menu if there are several.

    Parameters
    ----------
    axis, losses, names, loss, wanted_by
        As in :func:`surface_figure`.

    Returns
    -------
    plotly.graph_objects.Figure

    Raises
    ------
    OptionError
        If plotly is not installed.
    """
    go = plotly_graphs(wanted_by)
    axis, losses, names = _thinned(axis, losses, names)
    low, high = float(losses.min()), float(losses.max())
    traces = [
        go.Contour(
            x=axis, y=axis, z=surface.T, zmin=low, zmax=high, colorscale=_COLOURS, visible=i == 0,
            ncontours=20,
            colorbar={"title": {"text": loss, "side": "right"}, "thickness": 12},
            hovertemplate="x %{x:.3g}<br>y %{y:.3g}<br>loss %{z:.4g}<extra></extra>",
        )
        for i, surface in enumerate(losses)
    ]  # fmt: skip
    figure = go.Figure(traces)
    figure.update_layout(
        xaxis={"title": {"text": "along x, in filter lengths"}, "constrain": "domain"},
        yaxis={"title": {"text": "along y, in filter lengths"}, "scaleanchor": "x", "constrain": "domain"},
        **_layout(names),
    )
    return figure


def _thinned(axis: Float, losses: Float, names: list[str]) -> tuple[Float, Float, list[str]]:
    """Keep what can be drawn: some surfaces, and not more points than a screen shows."""
    step = -(-len(axis) // MAX_POINTS)
    few = losses[:MAX_SURFACES, ::step, ::step]
    return np.round(axis[::step], 9), few, names[:MAX_SURFACES]


def _layout(names: list[str]) -> dict[str, Any]:
    """Size, margins, and the menu that shows one surface at a time."""
    layout: dict[str, Any] = {"template": "plotly_white", "margin": {"l": 10, "r": 10, "t": 40, "b": 40}}
    if len(names) > 1:
        buttons = [
            {"label": name, "method": "update", "args": [{"visible": [i == j for j in range(len(names))]}]}
            for i, name in enumerate(names)
        ]
        layout["updatemenus"] = [
            {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.08, "yanchor": "bottom"}
        ]
        layout["margin"]["t"] = 70
    return layout
