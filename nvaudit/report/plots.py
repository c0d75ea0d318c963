"""Colours and layout that all figures and pages share, in light and dark, and the libraries that draw them.

A figure is drawn in the light colours. The page replaces each by its dark counterpart where the reader's
system is dark, so a colour means the same everywhere and no two roles may share one.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any, NamedTuple

from nvaudit.errors import OptionError


class Colour(NamedTuple):
    """A role's colour on light and on dark ground."""

    light: str
    dark: str


PALETTE: dict[str, Colour] = {
    "paper": Colour("#f7f8f8", "#0f151b"),
    "panel": Colour("#fefefe", "#161e26"),
    "ink": Colour("#15202b", "#e7edf2"),
    "muted": Colour("#52606c", "#a2b0bc"),
    "line": Colour("#d3dae0", "#33414e"),
    "grid": Colour("#e6eaed", "#24303b"),
    "chips": Colour("#2f6f9f", "#6fb3e0"),
    "band": Colour("#cfe0ec", "#24475f"),
    "worst": Colour("#b5470c", "#ff9d66"),
    "worst-band": Colour("#f6dcc9", "#55321f"),
    "ideal": Colour("#3f4b56", "#c0cad2"),
    "pass": Colour("#1b6b40", "#7ed3a0"),
    "fail": Colour("#a3202f", "#ff959b"),
    "undecided": Colour("#775100", "#efc46c"),
    "second": Colour("#6b4c9a", "#bda4e6"),
}
"""By role. Text colours keep a contrast of at least 4.5 : 1 on paper and panel."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial, sans-serif"

# Viridis reads the same in grey and for the colour-blind.
SURFACE_COLOURS = "Viridis"

_LABEL = 60


def colour(role: str) -> str:
    """Give the light colour of a role."""
    return PALETTE[role].light


def swaps() -> dict[str, str]:
    """Light colours with their dark counterparts."""
    return {pair.light: pair.dark for pair in PALETTE.values()}


def label(text: str, length: int = _LABEL) -> str:
    """Make text from a file safe as a label: plotly reads tags and entities in labels.

    Examples
    --------
    >>> label("<b>conv</b>")
    '&lt;b&gt;conv&lt;/b&gt;'
    """
    short = text if len(text) <= length else f"{text[: length - 1]}…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Give the settings of an axis; charts do not zoom, so that a finger scrolls the page."""
    return {
        "title": {"text": label(title), "standoff": 10},
        "automargin": True,
        "fixedrange": True,
        "gridcolor": colour("grid"),
        "linecolor": colour("line"),
        "tickcolor": colour("line"),
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        **more,
    }


def layout(**more: Any) -> dict[str, Any]:
    """Give the settings of a figure."""
    return {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": colour("ink")},
        "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": colour("panel"),
            "bordercolor": colour("line"),
            "font": {"family": FONT, "size": 13, "color": colour("ink")},
        },
        "separators": ".,",
        **more,
    }


def percent_axis(unit: str) -> dict[str, Any]:
    """Tick format of a metric: a fraction is shown in percent."""
    return {"tickformat": ".4~%"} if unit == "fraction" else {}


def flag(value: float, text: str, row: int, role: str, *, left: bool, dash: str = "solid") -> dict[str, Any]:
    """Mark a value of the x-axis: a line over the whole height, its name above in a row of its own.

    Parameters
    ----------
    row : int
        0 is next to the axes.
    left : bool
        Whether the name stands to the left of the line.
    dash : str
        Style of the line.

    Returns
    -------
    dict
        A ``shape`` and an ``annotation``.
    """
    return {
        "shape": {
            "type": "line", "x0": value, "x1": value, "y0": 0, "y1": 1, "xref": "x", "yref": "paper",
            "line": {"color": colour(role), "width": 2, "dash": dash},
        },
        "annotation": {
            "x": value, "y": 1, "xref": "x", "yref": "paper", "text": text, "showarrow": True,
            "arrowhead": 0, "arrowwidth": 1.5, "arrowcolor": colour(role), "ax": 0, "ay": -14 - 19 * row,
            "xanchor": "right" if left else "left", "yanchor": "middle",
            "font": {"color": colour(role), "size": 13}, "borderpad": 1, "bgcolor": colour("panel"),
        },
    }  # fmt: skip


def plotly_graphs(wanted_by: str = "--html") -> Any:
    """Import ``plotly.graph_objects``; ``wanted_by`` is the option that needs it.

    Raises
    ------
    OptionError
        If it is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise OptionError(f"{wanted_by} needs plotly; run: pip install 'nvaudit[report]'") from error
    return go


def paper_drawer(wanted_by: str) -> Any:
    """Import :mod:`nvaudit.report.render.paper`; ``wanted_by`` is the option or method that needs it.

    Raises
    ------
    OptionError
        If matplotlib, or plotly, in whose terms figures are described, is not installed.
    """
    try:
        for name in ("matplotlib", "plotly"):
            import_module(name)
    except ImportError as error:
        raise OptionError(
            f"{wanted_by} needs matplotlib and plotly; run: pip install 'nvaudit[paper]'"
        ) from error
    return import_module("nvaudit.report.render.paper")


def plotly_library() -> str:
    """Give the JavaScript of plotly, as the text of a script element."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def figure_data(figure: Any) -> dict[str, Any]:
    """Give a figure as plain data: its traces and its layout."""
    content = json.loads(figure.to_json())
    return {"data": content["data"], "layout": content["layout"]}
