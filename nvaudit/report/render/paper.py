"""Figures for papers: what the page draws with plotly, drawn by matplotlib at the size of a column.

A figure is described once, as plotly's traces and layout; this file reads what nvaudit's figures use of
them. It is imported only where a figure is wanted, since matplotlib is an extra.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import (
    FixedLocator,
    Formatter,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    ScalarFormatter,
)
from numpy.typing import NDArray

Float = NDArray[np.float64]
Spec = Mapping[str, Any]

WIDTH_IN = 3.5
"""Column of a journal with two columns, in inches."""

NOTEBOOK_IN = 6.0
"""Width below a cell of a notebook."""

_LEAST_IN, _TALL_IN, _PX_AN_IN = 2.4, 3.3, 130
_POINT = 0.58
"""Points of paper for a pixel of the page: text of 13 pixels is set in 7.5 points."""

_DASHES = {"solid": "-", "dash": "--", "dot": ":"}
_STEPS = {"hv": "steps-post", "vh": "steps-pre"}
_SYMBOLS = {
    "circle": "o", "diamond": "D", "square": "s", "triangle-down": "v", "triangle-up": "^", "x": "x",
    "line-ns": "|", "line-ew": "_", "cross-thin": "+", "cross": "P", "star": "*",
}  # fmt: skip
_TAG = re.compile(r"<[^<>]*>")


def paper_figure(figure: Any, width: float = WIDTH_IN, height: float | None = None) -> Any:
    """Draw a figure of a page for paper.

    Parameters
    ----------
    width, height : float
        Inches; None: as high as its contents need.

    Returns
    -------
    matplotlib.figure.Figure
        Not known to pyplot, so that it is shown once in a notebook and needs no closing.
    """
    traces = [trace.to_plotly_json() for trace in figure.data]
    layout = figure.layout.to_plotly_json()
    if height is None:
        height = max(_LEAST_IN, _height(layout, traces))
    drawing: Any = Drawing(figsize=(width, height), layout="constrained")
    size: Any = {"font.size": 13 * _POINT, "axes.linewidth": 0.6, "lines.solid_capstyle": "butt"}
    with mpl.rc_context(size):
        axes = _axes(drawing, layout)
        stacked: dict[float, float] = {}
        for trace in traces:
            if trace.get("visible", True) is not False:
                _TRACES[trace["type"]](axes[trace.get("yaxis", "y")], trace, layout, stacked)
        main = axes["y"]
        for shape in layout.get("shapes", ()):
            _shape(main, shape)
        for name, one in axes.items():
            if one.name != "3d":
                _scale(one.xaxis, layout.get("xaxis", {}))
                _scale(one.yaxis, layout.get(f"{name[0]}axis{name[1:]}", {}))
        for note in layout.get("annotations", ()):
            _note(main, note)
        if layout.get("showlegend"):
            drawing.legend(
                loc="outside upper left", ncols=3, frameon=False, handlelength=1.6, columnspacing=1
            )
    drawing._repr_svg_ = partial(svg_text, drawing)  # what a notebook looks for
    return drawing


def picture(drawing: Any, form: str) -> bytes:
    """Write a drawing as ``svg`` or ``pdf``: the same bytes for the same figure, fonts embedded."""
    buffer = io.BytesIO()
    date = "Date" if form == "svg" else "CreationDate"
    with mpl.rc_context({"svg.hashsalt": "nvaudit", "pdf.fonttype": 42}):
        drawing.savefig(buffer, format=form, metadata={date: None})
    return buffer.getvalue()


def svg_text(drawing: Any) -> str:
    """Draw an element of HTML."""
    text = picture(drawing, "svg").decode()
    return text[text.index("<svg") :]


def _height(layout: Spec, traces: Sequence[Spec]) -> float:
    if any(trace["type"] in ("surface", "contour") for trace in traces):
        return _TALL_IN
    return float(layout.get("height", 0)) / _PX_AN_IN


def _axes(drawing: Any, layout: Spec) -> dict[str, Any]:
    """The axes by the names that traces have for their y-axis."""
    if "scene" in layout:
        return {"y": drawing.add_subplot(projection="3d")}
    if "yaxis2" in layout:
        upper, lower = drawing.subplots(2, 1, sharex=True)
        return {"y": lower, "y2": upper}
    return {"y": drawing.subplots()}


def _numbers(values: Any) -> Float:
    """Numbers of a trace; None is a gap."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _text(text: str) -> str:
    """What plotly's markup says; a dollar is no formula."""
    plain = _TAG.sub("", text.replace("<br>", "\n"))
    return html.unescape(plain).replace("$", r"\$")


def _label(trace: Spec) -> str | None:
    name = trace.get("name")
    return _text(name) if name and trace.get("showlegend", True) else None


def _scatter(axes: Any, trace: Spec, layout: Spec, stacked: dict[float, float]) -> None:
    x, y = _numbers(trace["x"]), _numbers(trace["y"])
    mode, line = trace.get("mode", "lines"), trace.get("line", {})
    if trace.get("fill") == "toself":
        axes.fill(
            x, y, color=trace["fillcolor"], alpha=trace.get("opacity", 1.0), linewidth=0, label=_label(trace)
        )
        return
    look = {
        "color": line.get("color"), "linewidth": _POINT * line.get("width", 2), "label": _label(trace),
        "linestyle": _DASHES[line.get("dash", "solid")] if "lines" in mode else "none",
        "drawstyle": _STEPS.get(line.get("shape", ""), "default"),
    }  # fmt: skip
    each = list(_markers(trace.get("marker", {}), len(x))) if "markers" in mode else []
    alike = all(one == each[0] for one in each)
    if "lines" in mode or alike:
        axes.plot(x, y, **{**look, **(each[0] if each and alike else {})})
    if not alike:
        for place, one in enumerate(each):
            axes.plot(x[place : place + 1], y[place : place + 1], linestyle="none", **one)
    _errors(axes, trace, x, y, banded="lines" in mode and "shape" not in line)
    if "text" in mode:
        for place, text in enumerate(trace["text"]):
            axes.annotate(_text(text), (x[place], y[place]), (4, 4), textcoords="offset points")


def _markers(marker: Spec, count: int) -> Iterator[dict[str, Any]]:
    """How each point is marked: one look for all, or lists with one for each."""
    for place in range(count):
        own = {name: _at(marker.get(name), place) for name in ("symbol", "color", "size")}
        symbol, edge = own["symbol"] or "circle", marker.get("line", {})
        drawn, is_open = _SYMBOLS[symbol.removesuffix("-open")], symbol.endswith("-open")
        colour = own["color"]
        yield {
            "marker": drawn, "markersize": _POINT * (own["size"] or 6),
            "markerfacecolor": "none" if is_open else colour,
            "markeredgecolor": colour if is_open or drawn in "|_+x" else edge.get("color", colour),
            "markeredgewidth": _POINT * edge.get("width", 1.5 if is_open else 0),
        }  # fmt: skip


def _at(value: Any, place: int) -> Any:
    return value[place] if isinstance(value, list | tuple | np.ndarray) else value


def _errors(axes: Any, trace: Spec, x: Float, y: Float, banded: bool) -> None:
    """Draw intervals: a band along a line over a quantity, bars where points stand for themselves."""
    for side in ("x", "y"):
        error = trace.get(f"error_{side}")
        if not error:
            continue
        up = _numbers(error["array"])
        down = _numbers(error["arrayminus"]) if error.get("arrayminus") is not None else up
        colour = error.get("color")
        if side == "y" and banded:
            axes.fill_between(x, y - down, y + up, color=colour, alpha=0.22, linewidth=0)
            continue
        width = _POINT * error.get("thickness", 1.5)
        axes.errorbar(x, y, **{f"{side}err": np.array([down, up])}, fmt="none", ecolor=colour,
                      elinewidth=width, capsize=_POINT * error.get("width", 4), capthick=width)  # fmt: skip


def _bar(axes: Any, trace: Spec, layout: Spec, stacked: dict[float, float]) -> None:
    flat = trace.get("orientation") == "h"
    places, lengths = _numbers(trace["y" if flat else "x"]), _numbers(trace["x" if flat else "y"])
    wide = trace.get("width")
    thick = 1 - layout.get("bargap", 0.2) if wide is None else wide
    start = np.zeros(len(places))
    if layout.get("barmode") == "stack":
        start = np.array([stacked.get(place, 0.0) for place in places])
        stacked.update(zip(places, start + lengths, strict=True))
    look = {"color": trace["marker"]["color"], "alpha": trace.get("opacity", 1.0), "label": _label(trace)}
    if flat:
        axes.barh(places, lengths, thick, start, linewidth=0, **look)
        _errors(axes, trace, start + lengths, places, banded=False)
    else:
        axes.bar(places, lengths, thick, start, linewidth=0, **look)
        _errors(axes, trace, places, start + lengths, banded=False)


def _waterfall(axes: Any, trace: Spec, layout: Spec, stacked: dict[float, float]) -> None:
    changes = _numbers(trace["y"])
    after = np.cumsum(changes)
    before = np.concatenate([[0.0], after[:-1]])
    colours = [
        trace["totals" if place == 0 else "increasing" if change > 0 else "decreasing"]["marker"]["color"]
        for place, change in enumerate(changes)
    ]
    places = np.arange(len(changes))
    axes.bar(places, changes, trace["width"], before, color=colours, linewidth=0)
    connector = trace["connector"]["line"]
    for place, value in enumerate(after[:-1]):
        axes.plot(
            [place, place + 1],
            [value, value],
            color=connector["color"],
            linestyle=":",
            linewidth=0.6,
            zorder=0,
        )
    for place, text in enumerate(trace["text"]):
        top = max(before[place], after[place]) if place else after[place]
        axes.annotate(_text(text), (place, top), (0, 2), textcoords="offset points", ha="center")
    axes.set_xticks(places, [_text(name) for name in trace["x"]])


def _surface(axes: Any, trace: Spec, layout: Spec, stacked: dict[float, float]) -> None:
    x, y = np.meshgrid(_numbers(trace["x"]), _numbers(trace["y"]))
    z = np.asarray(trace["z"], dtype=np.float64)
    drawn = axes.plot_surface(x, y, z, cmap="viridis", vmin=trace["cmin"], vmax=trace["cmax"],
                              rcount=101, ccount=101, linewidth=0)  # fmt: skip
    for side in ("x", "y", "z"):
        spec = layout["scene"][f"{side}axis"]
        getattr(axes, f"set_{side}label")(_text(spec["title"]["text"]))
        axes.locator_params(axis=side, nbins=5)
        if "range" in spec:
            getattr(axes, f"set_{side}lim")(*spec["range"])
    axes.set_box_aspect(None, zoom=0.85)  # or the title of the upright axis is cut
    _colour_bar(axes, drawn, trace, "horizontal")


def _contour(axes: Any, trace: Spec, layout: Spec, stacked: dict[float, float]) -> None:
    x, y, z = _numbers(trace["x"]), _numbers(trace["y"]), np.asarray(trace["z"], dtype=np.float64)
    low, high = trace["zmin"], trace["zmax"]
    if not low < high:
        low, high = low - 0.5, high + 0.5
    levels = np.linspace(low, high, trace["ncontours"] + 1)
    drawn = axes.contourf(x, y, z, levels, cmap="viridis")
    axes.contour(x, y, z, levels, colors="black", linewidths=0.25)
    axes.set_aspect("equal")
    _colour_bar(axes, drawn, trace, "vertical")


def _heatmap(axes: Any, trace: Spec, layout: Spec, stacked: dict[float, float]) -> None:
    z = np.ma.masked_invalid(np.asarray(trace["z"], dtype=np.float64))
    drawn = axes.pcolormesh(_numbers(trace["x"]), _numbers(trace["y"]), z, cmap="viridis", shading="nearest",
                            vmin=trace["zmin"], vmax=trace["zmax"], rasterized=True)  # fmt: skip
    _colour_bar(axes, drawn, trace, "vertical")


def _colour_bar(axes: Any, drawn: Any, trace: Spec, orientation: str) -> None:
    bar = axes.figure.colorbar(drawn, ax=axes, orientation=orientation, shrink=0.8, aspect=30)
    bar.set_label(_text(trace["colorbar"]["title"]["text"]))
    bar.outline.set_visible(False)
    bar.locator = _locator(5)
    bar.update_ticks()


_TRACES: Mapping[str, Callable[[Any, Spec, Spec, dict[float, float]], None]] = {
    "scatter": _scatter,
    "bar": _bar,
    "waterfall": _waterfall,
    "surface": _surface,
    "contour": _contour,
    "heatmap": _heatmap,
}


def _shape(axes: Any, shape: Spec) -> None:
    """Draw a line across the axes, or a strip of them; the other reference is paper, 0 to 1."""
    line = shape["line"]
    if shape["type"] == "rect":
        axes.axvspan(shape["x0"], shape["x1"], shape["y0"], shape["y1"], color=shape["fillcolor"],
                     linewidth=0, zorder=0)  # fmt: skip
        return
    look = {
        "color": line["color"],
        "linewidth": _POINT * line["width"],
        "linestyle": _DASHES[line.get("dash", "solid")],
    }
    if shape.get("xref") == "paper":
        axes.axhline(shape["y0"], **look)
    else:
        axes.axvline(shape["x0"], **look)


def _note(axes: Any, note: Spec) -> None:
    colour = note["font"]["color"]
    up = note.get("yshift", 0) - note.get("ay", 0)
    on_top = note.get("yref") == "paper"
    place = axes.get_xaxis_transform() if on_top else axes.get_yaxis_transform()
    arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
    side = note.get("xanchor", "center")
    arrow["relpos"] = ({"left": 0.0, "right": 1.0}.get(side, 0.5), 0.5)  # so that it stands upright
    text = _text(note["text"])
    axes.annotate(
        f" {text} " if on_top else text, (note["x"], note["y"]), (0, _POINT * up + (0 if on_top else 1.5)),
        xycoords=place, textcoords="offset points", ha=side, va="center" if on_top else "bottom",
        color=colour, arrowprops=arrow if note.get("showarrow") else None,
    )  # fmt: skip


def _scale(axis: Any, spec: Spec) -> None:
    """Set title, ticks, range and grid of an axis."""
    side, axes = axis.axis_name, axis.axes
    axis.set_label_text(_text(spec.get("title", {}).get("text", "")))
    logarithmic = spec.get("type") == "log"
    if logarithmic:
        getattr(axes, f"set_{side}scale")("log")
    ticks = spec.get("tickvals")
    if ticks is not None:
        axis.set_ticks(list(ticks), [_text(str(text)) for text in spec.get("ticktext", ticks)])
        axis.set_minor_formatter(NullFormatter())
    elif not logarithmic and not isinstance(axis.get_major_locator(), FixedLocator):
        axis.set_major_locator(_locator(min(spec.get("nticks", 6), 6), integer="dtick" in spec))
        axis.set_major_formatter(_formatter(spec))
    limits = spec.get("range")
    if limits is not None:
        getattr(axes, f"set_{side}lim")(*(10 ** np.asarray(limits) if logarithmic else limits))
    elif spec.get("rangemode") == "tozero":
        getattr(axes, f"set_{side}lim")(**{"left" if side == "x" else "bottom": 0})
    if spec.get("autorange") == "reversed":
        getattr(axes, f"invert_{side}axis")()
    axes.set_axisbelow(True)
    if spec.get("showgrid", True):
        axis.grid(color=spec.get("gridcolor"), linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _locator(most: int, integer: bool = False) -> MaxNLocator:
    return MaxNLocator(most, integer=integer, steps=[1, 2, 2.5, 5, 10])


def _formatter(spec: Spec) -> Formatter:
    if "%" in spec.get("tickformat", ""):
        return FuncFormatter(lambda value, _: f"{100 * value:.4g} %")
    return ScalarFormatter(useOffset=False)
