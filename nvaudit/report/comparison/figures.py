"""The pictures of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvaudit.report.comparison.result import ComparedModel, ComparisonReport
from nvaudit.report.plots import axis, colour, label, layout, percent_axis, plotly_graphs
from nvaudit.report.wording import kpp_name

_RATIO = 30
"""Roughnesses that differ by more than this are drawn on a logarithmic axis."""

_ROW_PX = 44
_NAME = 28


def kpp_figure(report: ComparisonReport) -> Any:
    """Draw KPP with its interval, mean, and ideal of each model, the best at the top."""
    go = plotly_graphs()
    models, unit = report.models, report.metric_info.unit
    rows = list(range(len(models)))
    marks = (
        ("ideal", "ideal", "line-ns-open", [model.nominal for model in models], None),
        ("mean", "chips", "circle", [model.mean for model in models], None),
        (kpp_name(report.percentile), "worst", "diamond", [model.kpp[0].value for model in models],
         kpp_errors(models)),
    )  # fmt: skip
    figure = go.Figure()
    for title, role, symbol, values, errors in marks:
        figure.add_scatter(
            x=values, y=rows, name=title, mode="markers", error_x=errors,
            text=[label(model.name) for model in models],
            marker={"symbol": symbol, "size": 12, "color": colour(role), "line": {"width": 2}},
            hovertemplate=f"%{{text}}: {title} %{{x{_hover(unit)}}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        **layout(
            height=120 + _ROW_PX * len(models),
            xaxis=axis(report.metric, nticks=7, **percent_axis(unit)),
            yaxis=axis(
                "", tickvals=rows, ticktext=[label(model.name, _NAME) for model in models],
                range=[len(models) - 0.5, -0.5],
            ),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )  # fmt: skip
    return figure


def roughness_figure(report: ComparisonReport) -> Any | None:
    """Draw KPP over roughness; None where fewer than two models have one.

    Parameters
    ----------
    report
        As in :func:`kpp_figure`.
    """
    go = plotly_graphs()
    models = [model for model in report.models if model.roughness is not None]
    if len(models) < 2:
        return None
    unit = report.metric_info.unit
    scores = [model.roughness for model in models if model.roughness is not None]
    values = [1e3 * score.value for score in scores]
    figure = go.Figure()
    figure.add_scatter(
        x=values, y=[model.kpp[0].value for model in models], mode="markers+text",
        text=[label(model.name, _NAME) for model in models], textposition="top right", cliponaxis=False,
        error_x={"type": "data", "array": [1e3 * (score.standard_error or 0.0) for score in scores],
                 "color": colour("chips"), "thickness": 1.5, "width": 4},
        error_y=kpp_errors(models),
        marker={"symbol": "diamond", "size": 11, "color": colour("worst")},
        hovertemplate=f"%{{text}}: roughness %{{x:.4~g}}, KPP %{{y{_hover(unit)}}}<extra></extra>",
    )  # fmt: skip
    logarithmic = min(values) > 0 and max(values) > _RATIO * min(values)
    figure.update_layout(
        **layout(
            height=400,
            xaxis=axis("roughness ×10⁻³, lower is more stable", type="log" if logarithmic else "linear"),
            yaxis=axis(f"{kpp_name(report.percentile)} {report.metric}", nticks=7,
                       **percent_axis(unit)),
            margin={"l": 8, "r": 24, "t": 24, "b": 8},
        )
    )  # fmt: skip
    return figure


def kpp_errors(models: Sequence[ComparedModel]) -> dict[str, Any]:
    """Give intervals as plotly's error bars; an end that is missing is not drawn."""
    kpps = [model.kpp[0] for model in models]
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if each.high is None else each.high - each.value for each in kpps],
        "arrayminus": [0.0 if each.low is None else each.value - each.low for each in kpps],
        "color": colour("worst"),
        "thickness": 1.8,
        "width": 5,
    }


def _hover(unit: str) -> str:
    return ":.4~%" if unit == "fraction" else ":.5~g"
