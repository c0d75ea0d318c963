"""Energy of an inference by layer and component, stacked."""

from __future__ import annotations

from typing import Any

from nvaudit.report.cost.result import COMPONENT_NAMES, CostInfo
from nvaudit.report.plots.figures import plotly_graphs
from nvaudit.report.plots.theme import axis, colour, label, layout

_ROLES = (
    "chips",
    "band",
    "second",
    "worst",
    "undecided",
    "worst-band",
    "muted",
    "pass",
    "fail",
    "ideal",
    "line",
)
_ROW, _REST, _MOST = 22, 150, 60


def cost_figure(info: CostInfo) -> Any:
    """Draw the layers from first to last, each a bar of its components."""
    go = plotly_graphs()
    names = list(info.layers)[:_MOST]
    places = list(range(len(names)))
    figure = go.Figure()
    for role, (part, words) in zip(_ROLES, COMPONENT_NAMES.items(), strict=True):
        values = [
            1e6 * info.layers[name].components[part].energy_j if part in info.layers[name].components else 0.0
            for name in names
        ]
        if any(values):
            figure.add_bar(
                x=values, y=places, orientation="h", name=words, marker={"color": colour(role)},
                hovertemplate=f"{words}: %{{x:.4~g}} µJ<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        **layout(
            barmode="stack",
            height=_REST + _ROW * len(names),
            xaxis=axis("energy of an inference, µJ", nticks=7),
            yaxis=axis(
                "", tickvals=places, ticktext=[label(name, 32) for name in names],
                range=[len(names) - 0.5, -0.5],
            ),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom",
                    "traceorder": "normal"},
            margin={"l": 8, "r": 12, "t": 96, "b": 8},
        )
    )  # fmt: skip
    return figure
