"""plotly, or one clear line about where to get it, and figures as part of a page."""

from __future__ import annotations

from typing import Any

from nvaudit.errors import OptionError


def plotly_graphs(wanted_by: str) -> Any:
    """Import ``plotly.graph_objects``.

    Parameters
    ----------
    wanted_by : str
        The option that needs it, for the message.

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


def figure_html(figure: Any, *, library: bool) -> str:
    """Give a figure as a part of a page.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
    library : bool
        Whether to put the library before it: once in a page, with its first figure.
    """
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=library, config=config))
