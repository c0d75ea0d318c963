"""What a device does: where the devices of each level end up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvaudit.report.device_levels import DeviceLevel
from nvaudit.report.plots.figures import plotly_graphs
from nvaudit.report.plots.theme import axis, colour, layout


def levels_figure(levels: Sequence[DeviceLevel], unit: str) -> Any:
    """Draw target, median, half and nine tenths of the devices of each level.

    Parameters
    ----------
    levels : sequence of DeviceLevel
    unit : str
        Of the conductance.
    """
    go = plotly_graphs()
    places = list(range(len(levels)))
    figure = go.Figure()
    for title, pair, width in (("90 % of the devices", (0, 4), 7), ("50 % of the devices", (1, 3), 15)):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for place, level in zip(places, levels, strict=True):
            xs += [place, place, None]
            ys += [level.quantiles[pair[0]], level.quantiles[pair[1]], None]
        role = "band" if width == 7 else "chips"
        figure.add_scatter(
            x=xs, y=ys, mode="lines", name=title, line={"color": colour(role), "width": width},
            hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=places, y=[level.quantiles[2] for level in levels], mode="markers", name="median",
        marker={"color": colour("panel"), "size": 7, "line": {"color": colour("ink"), "width": 1.5}},
        hovertemplate="median %{y:.4~g}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=places, y=[level.g for level in levels], mode="markers", name="target",
        marker={"symbol": "line-ew-open", "size": 26, "color": colour("worst"), "line": {"width": 2}},
        hovertemplate="target %{y:.4~g}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        **layout(
            xaxis=axis(
                "level", tickmode="array", tickvals=places, ticktext=[str(level.level) for level in levels],
                range=[-0.6, len(levels) - 0.4], showgrid=False,
            ),
            yaxis=axis(f"conductance, {unit}", nticks=7),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )  # fmt: skip
    return figure
