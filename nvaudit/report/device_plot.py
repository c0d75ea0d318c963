"""Draw the law of every level of a device: in a terminal, or as a page."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nvaudit.errors import OptionError

_SHADES = " .:-=+*#%@"


def plot_lines(draws: Mapping[int, NDArray[np.float64]], unit: str, width: int = 72) -> list[str]:
    """One line per level: how often its devices end up at each conductance, darker where more do.

    Parameters
    ----------
    draws : mapping of int to ndarray
        Drawn conductances of each level.
    unit : str
        Their unit.
    width : int
        Columns of the drawing.

    Returns
    -------
    list of str
    """
    low, high = _range(draws)
    lines = [f"conductance after programming, {unit}; one row per level"]
    for level, values in draws.items():
        counts, _ = np.histogram(np.clip(values, low, high), bins=width, range=(low, high))
        shade = np.ceil(counts / max(1, counts.max()) * (len(_SHADES) - 1)).astype(int)
        lines.append(f"{level:>5} |" + "".join(_SHADES[i] for i in shade) + "|")
    left, right = f"{low:.4g}", f"{high:.4g}"
    lines.append(" " * 7 + left + right.rjust(width - len(left)))
    return lines


def _range(draws: Mapping[int, NDArray[np.float64]]) -> tuple[float, float]:
    """Where nearly all draws lie, the same for all levels."""
    every = np.concatenate(list(draws.values()))
    low, high = (float(q) for q in np.quantile(every, [0.0005, 0.9995]))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def plot_html(draws: Mapping[int, NDArray[np.float64]], unit: str, title: str) -> str:
    """A page that opens offline, one violin per level.

    Raises
    ------
    OptionError
        If plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise OptionError("--plot FILE needs plotly; run: pip install 'nvaudit[report]'") from error
    figure = go.Figure(
        [
            go.Violin(x=np.round(values, 6), name=str(level), orientation="h", side="positive", points=False)
            for level, values in draws.items()
        ]
    )
    figure.update_layout(
        title=title,
        xaxis_title=f"conductance after programming, {unit}",
        yaxis_title="level",
        showlegend=False,
        template="plotly_white",
    )
    return str(figure.to_html(include_plotlyjs=True, full_html=True))
