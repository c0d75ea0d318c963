"""The picture of a matrix: every KPP with its interval and its threshold, coloured by the verdict."""

from __future__ import annotations

from typing import Any

from nvaudit.report.check.rows import CheckRow
from nvaudit.report.plots.figures import plotly_graphs
from nvaudit.report.plots.theme import axis, colour, label, layout, percent_axis

_ROW_PX = 30
_NAME = 44
_ROLES = {"fail": "fail", "undecided": "undecided", "pass": "pass", None: "chips"}
_SYMBOLS = {"fail": "x", "undecided": "diamond-open", "pass": "circle", None: "circle-open"}


def matrix_figure(rows: list[CheckRow], metric: str, unit: str) -> Any:
    """Draw the rows from the top down; the metric's unit must be the same in all.

    Parameters
    ----------
    rows : list of CheckRow
    metric, unit : str
    """
    go = plotly_graphs()
    figure = go.Figure()
    for verdict, role in _ROLES.items():
        chosen = [(place, row) for place, row in enumerate(rows) if row.verdict == verdict]
        if not chosen:
            continue
        kpps = [row.case.kpp for _, row in chosen]
        figure.add_scatter(
            x=[kpp.value for kpp in kpps], y=[place for place, _ in chosen], name=verdict or "no gate",
            mode="markers", text=[label(row.name) for _, row in chosen],
            marker={"symbol": _SYMBOLS[verdict], "size": 11, "color": colour(role), "line": {"width": 2}},
            error_x={
                "type": "data", "symmetric": False, "color": colour(role), "thickness": 1.8, "width": 5,
                "array": [0.0 if kpp.high is None else kpp.high - kpp.value for kpp in kpps],
                "arrayminus": [0.0 if kpp.low is None else kpp.value - kpp.low for kpp in kpps],
            },
            hovertemplate=f"%{{text}}: KPP %{{x{':.4~%' if unit == 'fraction' else ':.5~g'}}}<extra></extra>",
        )  # fmt: skip
    demanded = [
        (place, row.case.gate.threshold) for place, row in enumerate(rows) if row.case.gate is not None
    ]
    if demanded:
        figure.add_scatter(
            x=[threshold for _, threshold in demanded], y=[place for place, _ in demanded], name="demanded",
            mode="markers", hoverinfo="skip",
            marker={"symbol": "line-ns-open", "size": 16, "color": colour("ideal"), "line": {"width": 2}},
        )  # fmt: skip
    figure.update_layout(
        **layout(
            height=120 + _ROW_PX * len(rows),
            xaxis=axis(metric, nticks=7, **percent_axis(unit)),
            yaxis=axis(
                "", tickvals=list(range(len(rows))), ticktext=[label(row.name, _NAME) for row in rows],
                range=[len(rows) - 0.5, -0.5],
            ),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )  # fmt: skip
    return figure
