"""The candidates of a remapping: which were tried, and which were kept."""

from __future__ import annotations

from typing import Any

from nvaudit.report.plots.figures import plotly_graphs
from nvaudit.report.plots.theme import axis, colour, label, layout, percent_axis
from nvaudit.report.remap.result import RemapReport

_ROW, _REST = 30, 90
"""Height of a row and of what surrounds them, in pixels."""


def steps_figure(report: RemapReport) -> Any:
    """Draw the mean of the worst quarter of the calibration chips of every candidate."""
    go = plotly_graphs()
    steps = [step for step in report.steps if step.worst_quarter is not None]
    shown = ":.4~%" if report.unit == "fraction" else ":.5~g"
    # Names may come twice, so rows are placed by number.
    places = list(range(len(steps)))
    most = max((step.chips for step in steps), default=0)
    figure = go.Figure()
    figure.add_scatter(
        x=[step.worst_quarter for step in steps], y=places, mode="markers",
        marker={"color": [colour("chips" if step.chips == most else "line") for step in steps], "size": 12,
                "symbol": ["circle" if step.kept else "circle-open" for step in steps]},
        hovertemplate=f"%{{x{shown}}}<extra></extra>",
    )  # fmt: skip
    names = [label(step.name) for step in steps]
    figure.update_layout(
        **layout(
            height=_REST + _ROW * len(steps),
            xaxis=axis("mean of the worst quarter of the chips", nticks=7, **percent_axis(report.unit)),
            yaxis=axis("", tickvals=places, ticktext=names, range=[len(steps) - 0.5, -0.5]),
        )
    )  # fmt: skip
    return figure
