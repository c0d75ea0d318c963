"""Where the devices of a chip err, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nvaudit.report.deployment.chips import CrossbarOnChip
from nvaudit.report.plots.figures import plotly_graphs
from nvaudit.report.plots.theme import SURFACE_COLOURS, axis, label, layout

MOST_DRAWN = 64
"""Crossbars of a picture: those with the largest errors."""

_ROW, _REST = 14, 110
"""Height of a crossbar and of what surrounds them, in pixels."""


def error_map(crossbars: Sequence[CrossbarOnChip], line: str) -> Any:
    """Draw the rms error of every row, or column, of each crossbar as a heat map.

    Parameters
    ----------
    line : str
        ``row`` or ``column``.
    """
    go = plotly_graphs()
    kept = sorted(crossbars, key=lambda one: -(one.errors.rms or 0.0))[:MOST_DRAWN]
    drawn = [one for one in crossbars if one in kept]
    values = [getattr(one, f"{line}_rms") for one in drawn]
    width = max(map(len, values), default=0)
    grid = np.full((len(drawn), width), np.nan)
    for number, one in enumerate(values):
        grid[number, : len(one)] = [np.nan if value is None else value for value in one]
    names = [label(f"{one.tensor} {one.file.rpartition('/')[2].lstrip('0') or '0'}", 30) for one in drawn]
    figure = go.Figure(
        go.Heatmap(
            z=grid, x=list(range(width)), y=list(range(len(drawn))), customdata=[[n] * width for n in names],
            colorscale=SURFACE_COLOURS, zmin=0, zmax=float(np.nanmax(grid, initial=1e-12)),
            colorbar={"title": {"text": "rms error, levels", "side": "right"}, "thickness": 14},
            hovertemplate=f"%{{customdata}}<br>{line} %{{x}}: %{{z:.3g}}<extra></extra>",
        )
    )  # fmt: skip
    every = max(1, len(drawn) // 24)
    ticks = list(range(0, len(drawn), every))
    figure.update_layout(
        **layout(
            height=_REST + _ROW * max(len(drawn), 8),
            xaxis=axis(f"{line} of the crossbar"),
            yaxis=axis(
                "", tickvals=ticks, ticktext=[names[tick] for tick in ticks], range=[len(drawn) - 0.5, -0.5]
            ),
        )
    )
    return figure
