"""What the report of a comparison says."""

from __future__ import annotations

from functools import partial

from nvaudit.report.comparison.figures import kpp_figure, roughness_figure
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
from nvaudit.report.document import (
    Block,
    Bullets,
    Document,
    Facts,
    Figure,
    Hero,
    KeyFigure,
    Number,
    Section,
    Table,
    short,
)
from nvaudit.report.record import time_text
from nvaudit.report.wording import (
    LABEL_FREE_CHIPS,
    clean,
    count_text,
    interval_text,
    kpp_name,
    roughness_text,
    value_text,
    wrap,
)

_MAX_NAME = 24
_BAR_COLUMNS = 60
_ROUNDING = 1e-12

_IDEAL, _MEAN, _KPP, _RANGE = "|", "·", "█", "─"


def comparison_document(report: ComparisonReport) -> Document:
    """Say what a comparison found.

    Parameters
    ----------
    report : ComparisonReport
    """
    point = report.operating_point
    return Document(
        title=report.headline,
        subject=f"{count_text(len(report.models), 'model')} compared",
        subtitle=f"{report.metric} on {short(report.device_name)} at σ = {point.sigma:g} "
        f"{point.sigma_unit.replace('_', ' ')}",
        hero=_hero(report),
        sections=(_models(report), _differences(report), _roughness(report), _notes(report), _record(report)),
        version=report.nvaudit_version,
    )


def _hero(report: ComparisonReport) -> Hero:
    unit = report.metric_info.unit
    best = next(model for model in report.models if model.name == (report.chosen or report.best))
    numbers = [
        KeyFigure(short(model.name), value_text(model.kpp[0].value, unit),
            f"{kpp_name(report.percentile)}, {interval_text(model.kpp[0].low, model.kpp[0].high, unit)}",
            main=model is best)
        for model in report.models[:6]
    ]  # fmt: skip
    warnings = [
        *([LABEL_FREE_CHIPS] if report.label_free else []),
        *(f"{t}." for t in share_warnings(report)),
    ]
    title = f"{short(best.name)} is best by {MEASURE_NAMES[report.rank_by]}"
    if report.verdict is not None:
        title = f"{title} of those that pass" if report.chosen else "No model passes the gate"
    return Hero(
        role=report.verdict or "none",
        word=report.verdict.upper() if report.verdict else "NO GATE",
        title=title,
        lines=tuple(line for line in (gate_text(report),) if line),
        numbers=tuple(numbers),
        warnings=tuple(warnings),
    )


def _models(report: ComparisonReport) -> Section:
    reached, took = metric_columns(report), list(COST_COLUMNS)
    columns = ("model", "place", *reached, *took)
    rows = tuple(_row(report, model) for model in report.models)
    table = Table(
        "models", f"The models by {MEASURE_NAMES[report.rank_by]}, the best first.", columns, rows,
        numeric=(1, *(i for i, name in enumerate(columns) if i > 1 and name not in ("interval", "gate"))),
        sortable=True,
    )  # fmt: skip
    figure = Figure(
        "kpp",
        f"Ideal, mean chip and {kpp_name(report.percentile)} of each model; the bars are the intervals of "
        "the KPP. The numbers are those of the table.",
        partial(kpp_figure, report),
        sketch=partial(bar_lines, report),
    )
    blocks: list[Block] = [figure, table]
    if lines := tuple(f"{line}." for line in bound_remarks(report)):
        blocks.append(Bullets(lines))
    return Section("models", "The models", tuple(blocks))


def _row(report: ComparisonReport, model: ComparedModel) -> tuple[str | Number, ...]:
    """Give a row of the table; numbers sort by what they are, not by how they look."""
    texts = [*metric_cells(report, model), *cost_cells(model)]
    rough = model.roughness
    values: dict[str, float | None] = {
        "ideal": model.nominal, "quantised": model.quantised,
        "converted": model.quantised, "mean": model.mean,
        kpp_name(report.percentile): model.kpp[0].value,
        COST_COLUMNS[0]: None if rough is None else rough.value, "weights": model.size.weights,
        "devices": model.size.devices, "crossbars": model.size.crossbars,
        "on the array": None if model.mapped is None else model.mapped.share, "seconds": model.seconds,
    }  # fmt: skip
    shares = iter(item.share for item in model.yields)
    cells: list[str | Number] = [short(model.name), Number(model.place, place_text(model))]
    for name, text in zip([*metric_columns(report), *COST_COLUMNS], texts, strict=True):
        if name.startswith("yield "):
            cells.append(Number(next(shares), text))
        else:
            cells.append(Number(values[name], text) if name in values else text)
    return tuple(cells)


def _differences(report: ComparisonReport) -> Section:
    unit = report.metric_info.unit
    rows = tuple(
        (short(item.model), difference_cell(item.kpp, unit), verdict_of_difference(item),
         difference_cell(item.mean, unit), item.chips.replace("_", " "))
        for item in report.differences
    )  # fmt: skip
    columns = ("model", kpp_name(report.percentile), "by the interval", "mean", "chips")
    if not rows:
        return Section("differences", "Differences", ())
    table = Table("differences", f"Each model minus {short(report.baseline)}.", columns, rows)
    return Section("differences", "Differences", (table, Bullets(tuple(difference_remarks(report)))))


def _roughness(report: ComparisonReport) -> Section:
    lines = [f"{correlation_text(found)}." for found in report.correlations]
    blocks: list[Block] = [Bullets(tuple(lines or ["No model has a roughness."]))]
    if sum(model.roughness is not None for model in report.models) > 1:
        words = "; ".join(
            f"{short(model.name)} {roughness_text(model.roughness.value, model.roughness.standard_error)}"
            for model in report.models
            if model.roughness is not None
        )
        caption = f"KPP over roughness, with the interval and the standard error. Roughness: {words}."
        blocks.insert(0, Figure("roughness", caption, partial(roughness_figure, report)))
    return Section("roughness", "Roughness as a forecast", tuple(blocks))


def _notes(report: ComparisonReport) -> Section:
    own = [f"{model.name}: {text}" for model in report.models for text in (*model.notes, *model.events)]
    lines = (*report.notes, *own)
    return Section("notes", "Notes", (Bullets(lines),) if lines else ())


def _record(report: ComparisonReport) -> Section:
    lines = condition_lines(report)
    for model in report.models:
        read = "" if model.report is None else f", read from {model.report}"
        lines.append(f"{model.name}: {model.model}{read}")
    rows = (("nvaudit", report.nvaudit_version), *time_text(report.timing))
    return Section("record", "How it was run", (Bullets(tuple(lines)), Facts(rows)), folded=True)


def bar_lines(report: ComparisonReport, width: int) -> list[str]:
    """Draw KPP, interval, mean and ideal of each model on a common scale.

    Parameters
    ----------
    report : ComparisonReport
    width : int
        Columns at hand; the scale takes at least 10.

    Returns
    -------
    list of str
        One line for each model (what falls on the same column: the KPP stands before the rest), then what
        the marks are.
    """
    names = [_middle_cut(clean(model.name), _MAX_NAME) for model in report.models]
    longest = max(map(len, names))
    columns = max(min(_BAR_COLUMNS, width - longest - 2), 10)
    values = [value for model in report.models for value in _marks(model) if value is not None]
    low, high, unit = min(values), max(values), report.metric_info.unit
    same = high - low <= _ROUNDING * max(abs(low), abs(high))

    def column(value: float) -> int:
        return 0 if same else round((value - low) / (high - low) * (columns - 1))

    lines = []
    for name, model in zip(names, report.models, strict=True):
        cells = [" "] * columns
        found = model.kpp[0]
        ends = [found.value if end is None else end for end in (found.low, found.high)]
        first, last = sorted(column(end) for end in ends)
        cells[first : last + 1] = _RANGE * (last + 1 - first)
        for value, mark in ((model.nominal, _IDEAL), (model.mean, _MEAN), (found.value, _KPP)):
            cells[column(value)] = mark
        lines.append(f"{name:<{longest}}  {''.join(cells)}".rstrip())
    marks = f"{_KPP} KPP, {_RANGE} its interval, {_MEAN} mean of the chips, {_IDEAL} ideal"
    return [*lines, *wrap(f"from {value_text(low, unit)} to {value_text(high, unit)}: {marks}", width)]


def _middle_cut(name: str, most: int) -> str:
    """Cut a name in its middle: names of one family differ at their ends."""
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}…{name[head + 1 - most :]}"


def _marks(model: ComparedModel) -> tuple[float | None, ...]:
    found = model.kpp[0]
    return found.low, found.high, found.value, model.mean, model.nominal
