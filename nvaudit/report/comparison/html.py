"""A comparison as one page that opens offline."""

from __future__ import annotations

from collections.abc import Iterable

from nvaudit.report.comparison.plots import kpp_figure, roughness_figure
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
from nvaudit.report.page.content import Big, Block, Bullets, Figure, Hero, Number, Page, Section, Table, short
from nvaudit.report.plots.figures import figure_data
from nvaudit.report.wording import (
    LABEL_FREE_CHIPS,
    count_text,
    interval_text,
    kpp_name,
    roughness_text,
    value_text,
)


def comparison_page(report: ComparisonReport) -> Page:
    """Work out what stands on the page of a comparison.

    Parameters
    ----------
    report : ComparisonReport
    """
    point = report.operating_point
    return Page(
        title=report.headline,
        subject=f"{count_text(len(report.models), 'model')} compared",
        subtitle=f"{report.metric} on {short(report.device)} at σ = {point.sigma:g} "
        f"{point.sigma_unit.replace('_', ' ')}",
        hero=_hero(report),
        sections=(_models(report), _differences(report), _roughness(report), _record(report)),
        version=report.nvaudit_version,
    )


def _hero(report: ComparisonReport) -> Hero:
    unit = report.metric_info.unit
    best = next(model for model in report.models if model.name == (report.chosen or report.best))
    numbers = [
        Big(short(model.name), value_text(model.kpp[0].value, unit),
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
        lines=tuple(line for line in (gate_text(report), f"{report.headline}.") if line),
        numbers=tuple(numbers),
        warning=" ".join(warnings) or None,
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
        figure_data(kpp_figure(report)),
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
    table = Table("differences", f"Each model minus {short(report.baseline)}.", columns, rows)
    return Section("differences", "Differences", (table, _bullets(difference_remarks(report))))


def _roughness(report: ComparisonReport) -> Section:
    figure = roughness_figure(report)
    lines = [f"{correlation_text(found)}." for found in report.correlations]
    blocks: list[Block] = [Bullets(tuple(lines or ["No model has a roughness."]))]
    if figure is not None:
        words = "; ".join(
            f"{short(model.name)} {roughness_text(model.roughness.value, model.roughness.standard_error)}"
            for model in report.models
            if model.roughness is not None
        )
        caption = f"KPP over roughness, with the interval and the standard error. Roughness: {words}."
        blocks.insert(0, Figure("roughness", caption, figure_data(figure)))
    return Section("roughness", "Roughness as a forecast", tuple(blocks))


def _record(report: ComparisonReport) -> Section:
    lines = [*condition_lines(report), *report.notes]
    for model in report.models:
        read = "" if model.report is None else f", read from {model.report}"
        lines.append(f"{model.name}: {model.model}{read}")
        lines += [f"{model.name}: {text}" for text in (*model.notes, *model.events)]
    return Section("record", "How it was run", (_bullets(lines),))


def _bullets(lines: Iterable[str]) -> Bullets:
    return Bullets(tuple(lines))
