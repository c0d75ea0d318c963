"""plotly, or one clear line about where to get it, and figures as part of a page."""

from __future__ import annotations

import json
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


def plotly_library() -> str:
    """Give the JavaScript of plotly, as the text of a script element."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def figure_data(figure: Any) -> dict[str, Any]:
    """Give a figure as plain data: its traces and its layout."""
    content = json.loads(figure.to_json())
    return {"data": content["data"], "layout": content["layout"]}
