"""plotly, or one clear line about where to get it, and figures as part of a page."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

from nvaudit.errors import OptionError


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
