"""A comparison on a terminal: the choice first, then the table, a picture, differences and remarks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from nvaudit.report.comparison.result import ComparedModel, ComparisonReport
from nvaudit.report.comparison.words import (
    COST_COLUMNS,
    MEASURE_NAMES,
    bound_remarks,
    condition_lines,
    correlation_text,
    cost_cells,
    difference_cell,
    difference_remarks,
    gate_text,
    metric_cells,
    metric_columns,
    place_text,
    share_warnings,
    verdict_of_difference,
)
from nvaudit.report.terminal import Kind, heading, sentence, show, table
from nvaudit.report.wording import clean, value_text

_WIDE = 150
"""Columns from which everything about a model stands in one line."""

_MAX_NAME = 24
_BAR_COLUMNS = 60

_ROUNDING = 1e-12

_IDEAL, _MEAN, _KPP, _RANGE = "|", "·", "█", "─"


def render_comparison(report: ComparisonReport, console: Console) -> None:
    """Print a comparison for a person; the first line is the headline.

    Parameters
    ----------
    report : ComparisonReport
    console : rich.console.Console
        Nothing is cut at any width; a console that cannot encode Unicode gets ASCII.
    """
    width = console.width
    parts = [
        sentence(report.headline, width, style="bold"),
        *(
            sentence(f"WARNING: {text}", width, hanging="  ", style="bold yellow")
            for text in share_warnings(report)
        ),
        *_table(report, width),
        *_picture(report, width),
        *_differences(report, width),
        *_rest(report, width),
    ]
    show(console, parts)


def _table(report: ComparisonReport, width: int) -> Iterable[Text]:
    gate = gate_text(report)
    if gate is not None:
        yield sentence(gate, width)
    yield heading(f"{report.metric}, models by {MEASURE_NAMES[report.rank_by]}", width)
    head: list[tuple[str, Kind]] = [("#", "right"), ("model", "fold")]
    metric: list[tuple[str, Kind]] = [(name, "right") for name in metric_columns(report)]
    cost: list[tuple[str, Kind]] = [(name, "right") for name in COST_COLUMNS]
    names = [[place_text(model), model.name] for model in report.models]
    reached = [metric_cells(report, model) for model in report.models]
    took = [cost_cells(model) for model in report.models]
    if width >= _WIDE:
        rows = [[*n, *r, *t] for n, r, t in zip(names, reached, took, strict=True)]
        yield table([*head, *metric, *cost], rows, width, "  ")
    else:
        yield table([*head, *metric], [[*n, *r] for n, r in zip(names, reached, strict=True)], width, "  ")
        yield Text()
        yield table([*head, *cost], [[*n, *t] for n, t in zip(names, took, strict=True)], width, "  ")
    for remark in bound_remarks(report):
        yield sentence(remark, width, "  ", "    ")


def _picture(report: ComparisonReport, width: int) -> Iterable[Text]:
    unit = report.metric_info.unit
    lines = bar_lines(report.models, min(_BAR_COLUMNS, width - _MAX_NAME - 6))
    yield heading("Picture", width)
    longest = min(_MAX_NAME, max(len(clean(model.name)) for model in report.models))
    for model, line in zip(report.models, lines, strict=True):
        name = clean(model.name)
        shown = name if len(name) <= longest else name[: longest - 1] + "…"
        yield Text(f"  {shown:<{longest}}  {line}".rstrip())
    low, high = _range(report.models)
    yield sentence(
        f"from {value_text(low, unit)} to {value_text(high, unit)}: {_KPP} KPP, {_RANGE} its interval, "
        f"{_MEAN} mean of the chips, {_IDEAL} ideal",
        width,
        "  ",
        "    ",
    )


def _range(models: Sequence[ComparedModel]) -> tuple[float, float]:
    values = [value for model in models for value in _marks(model) if value is not None]
    return min(values), max(values)


def _marks(model: ComparedModel) -> tuple[float | None, ...]:
    found = model.kpp[0]
    return found.low, found.high, found.value, model.mean, model.nominal


def bar_lines(models: Sequence[ComparedModel], columns: int) -> list[str]:
    """Draw KPP, interval, mean and ideal of each model on a common scale.

    Parameters
    ----------
    models : sequence of ComparedModel
    columns : int
        Of the drawing; at least 10 are used.

    Returns
    -------
    list of str
        One line for each model; what falls on the same column: the KPP stands before the rest.
    """
    columns = max(columns, 10)
    low, high = _range(models)
    same = high - low <= _ROUNDING * max(abs(low), abs(high))

    def column(value: float) -> int:
        return 0 if same else round((value - low) / (high - low) * (columns - 1))

    lines = []
    for model in models:
        cells = [" "] * columns
        found = model.kpp[0]
        ends = [found.value if end is None else end for end in (found.low, found.high)]
        first, last = sorted(column(end) for end in ends)
        cells[first : last + 1] = _RANGE * (last + 1 - first)
        for value, mark in ((model.nominal, _IDEAL), (model.mean, _MEAN), (found.value, _KPP)):
            cells[column(value)] = mark
        lines.append("".join(cells))
    return lines


def _differences(report: ComparisonReport, width: int) -> Iterable[Text]:
    if not report.differences:
        return
    unit = report.metric_info.unit
    yield heading(f"Differences from {report.baseline}", width)
    rows = [
        [
            item.model,
            difference_cell(item.kpp, unit),
            verdict_of_difference(item),
            difference_cell(item.mean, unit),
        ]
        for item in report.differences
    ]
    columns: list[tuple[str, Kind]] = [("model", "fold"), ("KPP", "fold"), ("", "left"), ("mean", "fold")]
    yield table(columns, rows, width, "  ")
    for remark in difference_remarks(report):
        yield sentence(remark, width, "  ", "    ")


def _rest(report: ComparisonReport, width: int) -> Iterable[Text]:
    own = [f"{model.name}: {text}" for model in report.models for text in (*model.notes, *model.events)]
    for title, lines in (
        ("Roughness as a forecast", [correlation_text(found) for found in report.correlations]),
        ("Notes", [*report.notes, *own]),
        ("How it was run", [*condition_lines(report), *_sources(report), *_seconds(report)]),
    ):
        if lines:
            yield heading(title, width)
            for line in lines:
                yield sentence(line, width, "  ", "    ")


def _sources(report: ComparisonReport) -> list[str]:
    return [
        f"{model.name}: {model.model}" + ("" if model.report is None else f", read from {model.report}")
        for model in report.models
    ]


def _seconds(report: ComparisonReport) -> list[str]:
    total = report.timing.get("total")
    version = f"nvaudit {report.nvaudit_version}"
    return [version if total is None else f"{version}, {total:.3g} s"]
