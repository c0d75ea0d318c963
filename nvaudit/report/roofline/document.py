"""What the report of a roofline says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from nvaudit.report.codes import codes_warning
from nvaudit.report.cost.document import costs_table
from nvaudit.report.document import (
    Bullets,
    Cell,
    Document,
    Figure,
    Hero,
    KeyFigure,
    Number,
    Section,
    Table,
    file_name,
    short,
)
from nvaudit.report.histogram import scale_lines
from nvaudit.report.mapped import coverage_text
from nvaudit.report.parts import notes_section, record_section, share_blocks, share_numbers, warnings
from nvaudit.report.plots import axis, colour, layout, percent_axis, plotly_graphs
from nvaudit.report.roofline.result import (
    ALONE_WORDS,
    LIMIT_WORDS,
    ChipsPoint,
    LevelResult,
    RooflineReport,
    margin_text,
    measure_name,
)
from nvaudit.report.wording import (
    confidence_text,
    converters_text,
    count_text,
    duration_text,
    interval_text,
    kpp_name,
    missing_bound_text,
    value_text,
)

_QUANTISED, _ADC, _MEAN, _KPP = "|", "▲", "·", "█"


_SIZE_COLUMNS = ("code", "slices", "devices", "crossbars", "sigma", "seconds")


def roofline_document(report: RooflineReport) -> Document:
    """Say what a roofline found."""
    name = file_name(report.model.path)
    return Document(
        title=report.headline,
        subject=name,
        subtitle=f"{report.metric} on {short(report.device_name)} by the number of levels per cell",
        hero=_hero(report),
        sections=(_roofline(report), _verdicts(report), _cost(report), _notes(report), _record(report)),
        version=report.nvaudit_version,
    )


def _hero(report: RooflineReport) -> Hero:
    unit = report.metric_info.unit
    words = LIMIT_WORDS if report.converters is not None else ALONE_WORDS
    numbers = []
    for level in report.levels[:6]:
        interval = level.realistic.at(report.rank_by)
        ends = interval_text(interval.low, interval.high, unit)
        note = f"{measure_name(report)}, {ends}; {words[level.limit]}"
        note += "" if level.codes is None else f"; code {level.codes.name}"
        value = value_text(interval.value, unit)
        numbers.append(KeyFigure(f"{level.levels} levels", value, note, main=level.levels == report.best))
    cheaper = _cheaper_text(report)
    codes = (codes_warning(level.codes, report.device_name) for level in report.levels)
    return Hero(
        role="none",
        word="",
        title=f"{report.best} levels per cell are best by {measure_name(report)}",
        lines=() if cheaper is None else (f"{cheaper}.",),
        numbers=(*numbers, *share_numbers(report.mapped)),
        warnings=(*warnings(report, report.mapped), *dict.fromkeys(text for text in codes if text)),
    )


def _roofline(report: RooflineReport) -> Section:
    unit, kpp = report.metric_info.unit, kpp_name(report.percentile)
    heads = ["quantised", "device: mean", f"device: {kpp}", "interval"]
    heads += [] if report.converters is None else ["ADC", "both: mean", f"both: {kpp}", "interval"]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (Number(level.levels, str(level.levels)), *_cells(report, level)) for level in report.levels
    )
    table = Table(
        "levels", f"What each number of levels reaches; ideal {value_text(report.nominal, unit)}.",
        ("levels", *_distinct(heads)), rows, numeric=(0, *range(1, len(heads) + 1)),
    )  # fmt: skip
    ceilings = "the quantised model" if report.converters is None else "the quantised model and the ADC"
    caption = (
        f"{report.metric} over the levels per cell: the ceilings of {ceilings}, and what the chips reach. "
        "The numbers are those of the table."
    )
    figure = Figure(
        "roofline", caption, partial(roofline_figure, report), tall=True, sketch=partial(bar_lines, report),
        legend=f"Bands: the intervals of {measure_name(report)}.",
    )  # fmt: skip
    return Section("roofline-section", "Roofline", (figure, table))


def _distinct(heads: list[str]) -> tuple[str, ...]:
    """Tell the two intervals apart."""
    last = len(heads) - 1
    more = heads.count("interval") > 1
    return tuple(
        f"{'both' if i == last else 'device'}: {name}" if more and name == "interval" else name
        for i, name in enumerate(heads)
    )


def _verdicts(report: RooflineReport) -> Section:
    lines = [f"{level.levels} levels: {level.verdict}." for level in report.levels]
    more = [f"{each.levels} levels are left out: {each.reason}." for each in report.skipped]
    more += [f"{text}." for text in _remarks(report)]
    return Section("limits", "What limits", (Bullets(tuple(lines)), Bullets(tuple(more))))


def _cost(report: RooflineReport) -> Section:
    def row(level: LevelResult) -> tuple[Cell, ...]:
        size, texts = level.size, _size_cells(level)
        values = (level.slices, size.devices, size.crossbars, level.operating_point.sigma, level.seconds)
        numbers = (Number(value, text) for value, text in zip(values, texts, strict=True))
        code = "slices" if level.codes is None else level.codes.name
        return (Number(level.levels, str(level.levels)), code, *numbers)

    rows = tuple(row(level) for level in report.levels)
    table = Table(
        "cost", "What each number of levels takes.", ("levels", *_SIZE_COLUMNS), rows,
        numeric=(0, *range(2, len(_SIZE_COLUMNS) + 1)), sortable=True,
    )  # fmt: skip
    costs = costs_table(
        "hardware-cost", "levels",
        [(Number(level.levels, str(level.levels)), level.cost) for level in report.levels],
    )  # fmt: skip
    return Section("cost-section", "Devices and crossbars", (table, *costs, *share_blocks(report.mapped)))


def _notes(report: RooflineReport) -> Section:
    own = (f"{one.levels} levels: {text}" for one in report.levels for text in (*one.notes, *one.events))
    return notes_section((*report.notes, *own))


def _record(report: RooflineReport) -> Section:
    conditions = Bullets(tuple(_condition_lines(report)))
    return record_section(report, before=(conditions,), hashes=report.levels[0].hashes)


def bar_lines(report: RooflineReport, width: int) -> list[str]:
    """Draw every number of levels on a common scale, in so many columns."""
    longest = max(len(str(level.levels)) for level in report.levels)
    rows = []
    for level in report.levels:
        marks = [(level.quantised, _QUANTISED)]
        marks += [] if level.adc is None else [(level.adc, _ADC)]
        marks += [(level.realistic.mean, _MEAN), (level.realistic.kpp.value, _KPP)]
        rows.append((f"{level.levels:>{longest}}", [(value, value, mark) for value, mark in marks]))
    adc = "" if report.converters is None else f", {_ADC} ADC alone"
    what = "" if report.converters is None else " with both"
    legend = f"{_QUANTISED} quantised{adc}, {_MEAN} mean of the chips{what}, {_KPP} KPP{what}"
    return scale_lines(rows, report.metric_info.unit, legend, width)


def _cheaper_text(report: RooflineReport) -> str | None:
    """Say which number of levels reaches nearly the same with fewer devices; None if the best is it."""
    if report.cheapest == report.best:
        return None
    by_levels = {level.levels: level for level in report.levels}
    best, cheap = by_levels[report.best], by_levels[report.cheapest]
    return (
        f"{report.cheapest} levels are within {margin_text(report)} of that with {cheap.size.devices:,} "
        f"devices instead of {best.size.devices:,}, and {cheap.size.crossbars:,} crossbars instead of "
        f"{best.size.crossbars:,}"
    )


def _cells(report: RooflineReport, level: LevelResult) -> list[str]:
    """Give what a number of levels reaches."""
    unit = report.metric_info.unit
    cells = [value_text(level.quantised, unit), *_chips_cells(level.device, unit)]
    if level.adc is not None and level.both is not None:
        cells += [value_text(level.adc, unit), *_chips_cells(level.both, unit)]
    return cells


def _chips_cells(point: ChipsPoint, unit: str) -> list[str]:
    kpp = point.kpp
    return [
        value_text(point.mean, unit),
        value_text(kpp.value, unit),
        interval_text(kpp.low, kpp.high, unit),
    ]


def _size_cells(level: LevelResult) -> list[str]:
    """Give what a number of levels costs, and where on the profile it stands."""
    point = level.operating_point
    return [
        str(level.slices),
        f"{level.size.devices:,}",
        f"{level.size.crossbars:,}",
        f"{point.sigma:.4g} {point.sigma_unit.replace('_', ' ')}",
        f"{level.seconds:.3g}",
    ]


def _remarks(report: RooflineReport) -> Iterator[str]:
    """Say how the numbers are to be read."""
    yield (
        f"The verdicts go by {measure_name(report)}: losses up to {margin_text(report)} do not count, and "
        "two that differ by no more are alike"
    )
    if report.converters is None:
        yield "Converters are taken as ideal; --adc-bits adds what they cost"
    better = report.metric_info.higher_is_better
    points = (p for level in report.levels for p in (level.device, level.both) if p is not None)
    texts = (missing_bound_text(point.kpp, better) for point in points)
    yield from dict.fromkeys(text for text in texts if text is not None)


def _condition_lines(report: RooflineReport) -> list[str]:
    """Say what all levels have in common."""
    point, info = report.levels[0].operating_point, report.metric_info
    better = "higher is better" if info.higher_is_better else "lower is better"
    chips = count_text(report.levels[0].device.trials, "chip")
    return [
        f"Metric: {report.metric} ({better}); {kpp_name(report.percentile)}, "
        f"{confidence_text(report.confidence)} confidence, {chips} of each number of levels, from one seed",
        f"Device: {report.device_name}, t = {duration_text(point.time_s)}; noise terms: "
        f"{', '.join(point.terms) or 'none'}; converters: {converters_text(report.converters)}",
        f"Model: {report.model.path}; data: {report.data.source}, {count_text(report.data.count, 'image')}",
        *([] if report.mapped is None else [f"On the array: {coverage_text(report.mapped)}"]),
    ]


def roofline_figure(report: RooflineReport) -> Any:
    """Draw ceilings, and what the chips reach with the bands of their intervals, over the levels."""
    go = plotly_graphs()
    unit, levels = report.metric_info.unit, report.levels
    x = [level.levels for level in levels]
    figure = go.Figure()
    name = measure_name(report)
    noisy = [("device variation", "chips", "band", [level.device for level in levels])]
    both = [level.both for level in levels if level.both is not None]
    if both:
        noisy.append(("device variation and ADC", "worst", "worst-band", both))
    for title, _, band, points in noisy:
        figure.add_scatter(**_band(x, points, report, title, band))
    ceilings = [("quantised", "ideal", "dot", [level.quantised for level in levels])]
    adc = [level.adc for level in levels if level.adc is not None]
    if adc:
        ceilings.append(("ADC", "second", "dash", adc))
    for title, role, dash, values in ceilings:
        figure.add_scatter(**_line(x, values, title, role, dash, unit))
    for title, role, _, points in noisy:
        values = [point.at(report.rank_by).value for point in points]
        figure.add_scatter(**_line(x, values, f"{title}: {name}", role, "solid", unit))
        other = "mean" if report.rank_by == "kpp" else "KPP"
        rest = [point.mean if report.rank_by == "kpp" else point.kpp.value for point in points]
        figure.add_scatter(**_line(x, rest, f"{title}: {other}", role, "dot", unit))
    figure.update_layout(
        **layout(
            height=460,
            xaxis=axis("levels per cell", type="log", tickvals=x, ticktext=[str(value) for value in x]),
            yaxis=axis(report.metric, nticks=7, **percent_axis(unit)),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 64, "b": 8},
        )
    )
    return figure


def _line(
    x: Sequence[int], values: Sequence[float], title: str, role: str, dash: str, unit: str
) -> dict[str, Any]:
    shown = ":.4~%" if unit == "fraction" else ":.5~g"
    return {
        "x": list(x), "y": list(values), "name": title, "mode": "lines+markers",
        "line": {"color": colour(role), "width": 2.5, "dash": dash},
        "marker": {"color": colour(role), "size": 8},
        "hovertemplate": f"%{{x}} levels: {title} %{{y{shown}}}<extra></extra>",
    }  # fmt: skip


def _band(
    x: Sequence[int], points: Sequence[ChipsPoint], report: RooflineReport, title: str, band: str
) -> dict[str, Any]:
    """Draw an interval as an area; an end that is missing lies at the value."""
    ranges = [point.at(report.rank_by) for point in points]
    upper = [interval.value if interval.high is None else interval.high for interval in ranges]
    lower = [interval.value if interval.low is None else interval.low for interval in ranges]
    return {
        "x": [*x, *reversed(x)], "y": [*upper, *reversed(lower)], "name": f"{title}: interval",
        "mode": "lines", "fill": "toself", "fillcolor": colour(band), "opacity": 0.7,
        "line": {"width": 0, "color": colour(band)}, "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
