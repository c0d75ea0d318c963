"""The same chips before and after a hardening, and how the training went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.report.hardening.result import HardenReport, TrainingInfo
from nvaudit.report.histogram import bin_values
from nvaudit.report.plots import axis, colour, label, layout, percent_axis, plotly_graphs
from nvaudit.report.wording import kpp_name, value_text

_BINS = 56
_NETWORKS = (("left", "second", "dot"), ("mid", "chips", "solid"), ("right", "worst", "dash"))
"""Networks of TRICE with their colour and line."""


def pair_figure(report: HardenReport) -> Any:
    """Draw how the same chips are distributed before and after, with their KPPs."""
    go = plotly_graphs()
    unit, name = report.metric_info.unit, kpp_name(report.difference.percentile)
    sides = (("before", report.before, "worst"), ("after", report.after, "chips"))
    every = np.concatenate([np.asarray(side.values) for _, side, _ in sides])
    step = 1 / report.data.count if unit == "fraction" else 0.0
    figure, shapes, notes = go.Figure(), [], []
    shown = ":.4~%" if unit == "fraction" else ":.5~g"
    for row, (title, side, role) in enumerate(sides):
        centres, counts, width = _counts(np.asarray(side.values), every, step)
        figure.add_bar(
            x=centres, y=counts, width=width, name=title, opacity=0.75,
            marker={"color": colour(role), "line": {"width": 0}},
            hovertemplate=f"{title}, %{{x{shown}}}: %{{y}} chips<extra></extra>",
        )  # fmt: skip
        value = side.kpp.value
        shapes.append(
            {"type": "line", "x0": value, "x1": value, "y0": 0, "y1": 1, "yref": "paper",
             "line": {"color": colour(role), "width": 2, "dash": "dash"}}
        )  # fmt: skip
        notes.append(
            {"x": value, "y": 1, "yref": "paper", "showarrow": False, "yshift": 12 + 19 * row,
             "text": label(f"{name} {title} {value_text(value, unit)}"), "font": {"color": colour(role)},
             "xanchor": "left" if value < (every.min() + every.max()) / 2 else "right"}
        )  # fmt: skip
    figure.update_layout(
        **layout(
            height=420, barmode="overlay", bargap=0, shapes=shapes, annotations=notes,
            xaxis=axis(report.metric, nticks=7, showgrid=False, **percent_axis(unit)),
            yaxis=axis("chips", rangemode="tozero", tickformat="~g"),
            margin={"l": 8, "r": 12, "t": 56, "b": 8},
        )
    )  # fmt: skip
    return figure


def _counts(
    values: NDArray[np.float64], every: NDArray[np.float64], step: float
) -> tuple[list[float], list[float], float]:
    """Centres and heights of one side's bars, in bins that both sides share; and their width."""
    if every.min() == every.max():
        return [float(every[0])], [float(len(values))], step or max(abs(float(every[0])), 1.0) / 100
    bins = bin_values(every, _BINS, step)
    edges = bins.start + bins.width * np.arange(len(bins.counts) + 1)
    counts = np.bincount(
        np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(bins.counts) - 1),
        minlength=len(bins.counts),
    )
    return [float(x) for x in edges[:-1] + bins.width / 2], [float(n) for n in counts], float(bins.width)


def training_figure(training: TrainingInfo, unit: str, kpp: str) -> Any:
    """Draw the loss of every epoch, and the KPP where it was scored.

    Parameters
    ----------
    unit : str
        Of the metric.
    kpp : str
        Name of the KPP.
    """
    go = plotly_graphs()
    rows, scored = training.history, any(row.kpp for row in training.history)
    figure = go.Figure()
    lanes = max(len(row.loss) for row in rows)
    for lane in range(lanes):
        name, role, dash = _NETWORKS[lane] if lanes == len(_NETWORKS) else ("", "chips", "solid")
        line = {"color": colour(role), "width": 2.5, "dash": dash}
        losses = [(row.epoch, row.loss[lane]) for row in rows if lane < len(row.loss)]
        figure.add_scatter(**_curve(losses, line, f"{name} loss".strip(), ":.4~g", name, "y"))
        scores = [(row.epoch, row.kpp[lane]) for row in rows if lane < len(row.kpp)]
        if scores:
            shown = ":.4~%" if unit == "fraction" else ":.5~g"
            figure.add_scatter(**_curve(scores, line, f"{name} {kpp}".strip(), shown, "", "y2"))
    axes = {"yaxis": axis("loss", rangemode="tozero", domain=[0.0, 0.44 if scored else 1.0])}
    if scored:
        axes["yaxis2"] = axis(kpp, domain=[0.56, 1.0], **percent_axis(unit))
    figure.update_layout(
        **layout(
            height=480 if scored else 320, xaxis=axis("epoch", tick0=0, dtick=-(-len(rows) // 8)), **axes,
            showlegend=lanes > 1,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 40 if lanes > 1 else 12, "b": 8},
        )
    )  # fmt: skip
    return figure


def _curve(
    points: Sequence[tuple[int, float]], line: dict[str, Any], title: str, shown: str, name: str, axis: str
) -> dict[str, Any]:
    return {
        "x": [x for x, _ in points], "y": [y for _, y in points], "mode": "lines+markers", "line": line,
        "marker": {"color": line["color"], "size": 6}, "name": name, "showlegend": bool(name), "yaxis": axis,
        "hovertemplate": f"epoch %{{x}}: {label(title)} %{{y{shown}}}<extra></extra>",
    }  # fmt: skip


def candidates_figure(report: HardenReport, training: TrainingInfo) -> Any:
    """Draw the KPP of the candidates of stability-vat over their roughness.

    Parameters
    ----------
    training : TrainingInfo
        With candidates.
    """
    go = plotly_graphs()
    unit = report.metric_info.unit
    roles = ["worst" if i == training.kept_candidate else "chips" for i in range(len(training.candidates))]
    names = ["start" if one.sigma is None else f"σ {one.sigma:g}" for one in training.candidates]
    right = max(1e3 * (one.roughness + (one.spread or 0)) for one in training.candidates)
    figure = go.Figure()
    figure.add_scatter(
        x=[1e3 * one.roughness for one in training.candidates], y=[one.kpp for one in training.candidates],
        error_x={"type": "data", "array": [1e3 * (one.spread or 0) for one in training.candidates],
                 "color": colour("line"), "thickness": 1.5},
        mode="markers+text", text=names, textposition="top center",
        marker={"color": [colour(role) for role in roles], "size": 11},
        hovertemplate="%{text}: roughness %{x:.4~g} ×10⁻³, KPP %{y"
                      + (":.4~%" if unit == "fraction" else ":.5~g") + "}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        **layout(
            height=380,
            xaxis=axis("roughness ×10⁻³", range=[0.0, 1.05 * right or 1.0]),
            yaxis=axis(kpp_name(report.difference.percentile), **percent_axis(unit)),
            margin={"l": 8, "r": 12, "t": 28, "b": 8},
        )
    )
    return figure
