"""What the report of a comparison says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from nvaudit.report.codes import codes_warning
from nvaudit.report.comparison.figures import kpp_figure, roughness_figure
from nvaudit.report.comparison.ranks import RankCorrelation
from nvaudit.report.comparison.result import ComparedModel, ComparisonReport, ModelDifference
from nvaudit.report.cost.document import costs_table
from nvaudit.report.document import (
    Block,
    Bullets,
    Document,
    Figure,
    Hero,
    KeyFigure,
    Number,
    Section,
    Table,
    at_sigma,
    short,
)
from nvaudit.report.histogram import scale_lines
from nvaudit.report.mapped import part_text, share_warning
from nvaudit.report.paired import Difference
from nvaudit.report.parts import notes_section, record_section
from nvaudit.report.wording import (
    LABEL_FREE_CHIPS,
    clean,
    confidence_text,
    converters_text,
    count_text,
    difference_text,
    duration_text,
    interval_text,
    kpp_name,
    limit_text,
    listed_text,
    missing_bound_text,
    roughness_text,
    share_text,
    value_text,
)
from nvaudit.spec import Measure

_MAX_NAME = 24

_WORDS = ("interval", "gate", "code")
"""Columns that hold no numbers."""

_IDEAL, _MEAN, _KPP, _RANGE = "|", "·", "█", "─"

_MEASURE_NAMES: dict[Measure, str] = {
    "kpp": "KPP", "mean": "mean", "nominal": "ideal", "yield": "yield", "roughness": "roughness",
    "size": "size",
}  # fmt: skip

_CHIPS_WORDS = {
    "same": "the same chips: every tensor has the same noise in both",
    "partly_shared": "partly the same chips: some tensors have the same noise in both",
    "independent": "independent chips: no tensor has the same noise in both",
}

_COST_COLUMNS = ("roughness ×10⁻³", "code", "weights", "devices", "crossbars", "on the array", "seconds")


def comparison_document(report: ComparisonReport) -> Document:
    """Say what a comparison found."""
    point = report.operating_point
    return Document(
        title=report.headline,
        subject=f"{count_text(len(report.models), 'model')} compared",
        subtitle=f"{report.metric} on {short(report.device_name)} at {at_sigma(point)}"
        if not report.models[0].conditions
        else f"{report.metric}; the reports differ in {', '.join(report.models[0].conditions)}",
        hero=_hero(report),
        sections=(_models(report), _differences(report), _roughness(report), _notes(report), _record(report)),
        version=report.nvaudit_version,
    )


def _hero(report: ComparisonReport) -> Hero:
    unit, device = report.metric_info.unit, report.device_name
    best = next(model for model in report.models if model.name == (report.chosen or report.best))
    numbers = [
        KeyFigure(short(model.name), value_text(model.kpp[0].value, unit),
            f"{kpp_name(report.percentile)}, {interval_text(model.kpp[0].low, model.kpp[0].high, unit)}"
            + (f"; code {model.codes.name}" if model.codes is not None else ""),
            main=model is best)
        for model in report.models[:6]
    ]  # fmt: skip
    warnings = [
        *([LABEL_FREE_CHIPS] if report.label_free else []),
        *(f"{one.name}: {text}." for one in report.models if (text := share_warning(one.mapped))),
        *(f"{one.name}: {text}" for one in report.models if (text := codes_warning(one.codes, device))),
    ]
    first = f"{short(best.name)} is best"
    if len(report.equals) > 1:
        first = f"{short(listed_text(report.equals))} share the first place"
    title = f"{first} by {_MEASURE_NAMES[report.rank_by]}"
    if report.verdict is not None:
        title = f"{title} of those that pass" if report.chosen else "No model passes the gate"
    return Hero(
        role=report.verdict or "none",
        word=report.verdict.upper() if report.verdict else "NO GATE",
        title=title,
        lines=tuple(line for line in (_gate_text(report),) if line),
        numbers=tuple(numbers),
        warnings=tuple(warnings),
    )


def _models(report: ComparisonReport) -> Section:
    differing = tuple(report.models[0].conditions)
    columns = ("model", "place", *differing, *_metric_columns(report))
    table = Table(
        "models", f"The models by {_MEASURE_NAMES[report.rank_by]}, the best first.", columns,
        tuple(_reached(report, model) for model in report.models),
        numeric=(1, *(i for i, name in enumerate(columns) if i > 1 and name not in (*_WORDS, *differing))),
        sortable=True,
    )  # fmt: skip
    takes = Table(
        "takes", "What each model takes.", ("model", *_COST_COLUMNS),
        tuple(_taken(model) for model in report.models),
        numeric=tuple(i for i, name in enumerate(_COST_COLUMNS, 1) if name not in _WORDS), sortable=True,
    )  # fmt: skip
    figure = Figure(
        "kpp",
        f"Ideal, mean chip and {kpp_name(report.percentile)} of each model. The numbers are those of the "
        "table.",
        partial(kpp_figure, report),
        legend="Bars: the intervals of the KPP.",
        sketch=partial(bar_lines, report),
    )
    blocks: list[Block] = [figure, table, takes]
    blocks += costs_table("costs", "model", [(short(model.name), model.cost) for model in report.models])
    if lines := tuple(f"{line}." for line in _bound_remarks(report)):
        blocks.append(Bullets(lines))
    return Section("models", "The models", tuple(blocks))


def _reached(report: ComparisonReport, model: ComparedModel) -> tuple[str | Number, ...]:
    """Give a row of what models reach; numbers sort by what they are, not by how they look."""
    values: dict[str, float | None] = {
        "ideal": model.nominal, "quantised": model.quantised,
        "converted": model.quantised, "mean": model.mean,
        kpp_name(report.percentile): model.kpp[0].value,
    }  # fmt: skip
    shares = iter(item.share for item in model.yields)
    place = Number(model.place, "-" if model.place is None else str(model.place))
    cells: list[str | Number] = [short(model.name), place]
    cells += model.conditions.values()
    for name, text in zip(_metric_columns(report), _metric_cells(report, model), strict=True):
        if name.startswith("yield "):
            cells.append(Number(next(shares), text))
        else:
            cells.append(Number(values[name], text) if name in values else text)
    return tuple(cells)


def _taken(model: ComparedModel) -> tuple[str | Number, ...]:
    """Give a row of what models take."""
    rough, mapped = model.roughness, model.mapped
    values: dict[str, float | None] = {
        _COST_COLUMNS[0]: None if rough is None else rough.value, "weights": model.size.weights,
        "devices": model.size.devices, "crossbars": model.size.crossbars,
        "on the array": None if mapped is None else mapped.share, "seconds": model.seconds,
    }  # fmt: skip
    cells = zip(_COST_COLUMNS, _cost_cells(model), strict=True)
    return (
        short(model.name),
        *(Number(values[name], text) if name in values else text for name, text in cells),
    )


def _differences(report: ComparisonReport) -> Section:
    unit = report.metric_info.unit
    rows = tuple(
        (short(item.model), _difference_cell(item.kpp, unit), _verdict_of_difference(item),
         _difference_cell(item.mean, unit), item.chips.replace("_", " "))
        for item in report.differences
    )  # fmt: skip
    columns = ("model", kpp_name(report.percentile), "by the interval", "mean", "chips")
    if not rows:
        return Section("differences", "Differences", ())
    table = Table("differences", f"Each model minus {short(report.baseline)}.", columns, rows)
    return Section("differences", "Differences", (table, Bullets(tuple(_difference_remarks(report)))))


def _roughness(report: ComparisonReport) -> Section:
    lines = [f"{_correlation_text(correlation)}." for correlation in report.correlations]
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
    return notes_section((*report.notes, *own))


def _record(report: ComparisonReport) -> Section:
    lines = _condition_lines(report)
    for model in report.models:
        read = "" if model.report is None else f", read from {model.report}"
        lines.append(f"{model.name}: {model.model}{read}")
    return record_section(report, before=(Bullets(tuple(lines)),))


def bar_lines(report: ComparisonReport, width: int) -> list[str]:
    """Draw KPP, interval, mean and ideal of each model on a common scale, in so many columns."""
    names = [_middle_cut(clean(model.name), _MAX_NAME) for model in report.models]
    rows = []
    for name, model in zip(names, report.models, strict=True):
        kpp = model.kpp[0]
        low, high = (kpp.value if end is None else end for end in (kpp.low, kpp.high))
        marks = ((model.nominal, _IDEAL), (model.mean, _MEAN), (kpp.value, _KPP))
        points = [(value, value, mark) for value, mark in marks]
        rows.append((f"{name:<{max(map(len, names))}}", [(low, high, _RANGE), *points]))
    legend = f"{_KPP} KPP, {_RANGE} its interval, {_MEAN} mean of the chips, {_IDEAL} ideal"
    return scale_lines(rows, report.metric_info.unit, legend, width)


def _middle_cut(name: str, most: int) -> str:
    """Cut a name in its middle: names of one family differ at their ends."""
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}…{name[head + 1 - most :]}"


def _metric_columns(report: ComparisonReport) -> list[str]:
    """Headings of what :func:`_metric_cells` gives."""
    unit = report.metric_info.unit
    thresholds = [item.threshold for item in report.models[0].yields]
    return [
        "ideal", "quantised" if report.converters is None else "converted", "mean",
        kpp_name(report.percentile), "interval",
        *(f"yield {limit_text(threshold, unit)}" for threshold in thresholds),
        *(["gate"] if report.verdict is not None else []),
    ]  # fmt: skip


def _metric_cells(report: ComparisonReport, model: ComparedModel) -> list[str]:
    """Give what a model reaches."""
    unit, kpp = report.metric_info.unit, model.kpp[0]
    return [
        value_text(model.nominal, unit), value_text(model.quantised, unit), value_text(model.mean, unit),
        value_text(kpp.value, unit), interval_text(kpp.low, kpp.high, unit),
        *(share_text(item.share) for item in model.yields),
        *([str(model.verdict)] if report.verdict is not None else []),
    ]  # fmt: skip


def _cost_cells(model: ComparedModel) -> list[str]:
    """Give what a model is like, and what it took."""
    rough = "-"
    if model.roughness is not None:
        error = model.roughness.standard_error
        rough = f"{1e3 * model.roughness.value:.4g}" + ("" if error is None else f" ± {1e3 * error:.2g}")
    return [
        rough,
        "slices" if model.codes is None else model.codes.name,
        f"{model.size.weights:,}",
        f"{model.size.devices:,}",
        f"{model.size.crossbars:,}",
        "-" if model.mapped is None or model.mapped.share is None else part_text(model.mapped.share),
        "-" if model.seconds is None else f"{model.seconds:.3g}",
    ]


def _difference_cell(difference: Difference, unit: str) -> str:
    """Show a difference with its interval, or why there is none."""
    value = difference_text(difference.value, unit)
    if difference.low is None or difference.high is None:
        return value if difference.missing is None else f"{value} ({difference.missing})"
    low, high = (
        difference_text(end, unit).removesuffix(" points") for end in (difference.low, difference.high)
    )
    return f"{value} [{low.replace('no change', '0')}, {high.replace('no change', '0')}]"


def _verdict_of_difference(difference: ModelDifference) -> str:
    """Say what an interval says."""
    low, high = difference.kpp.low, difference.kpp.high
    if low is None or high is None:
        return "open"
    return "not told apart" if low <= 0 <= high else "different"


def _difference_remarks(report: ComparisonReport) -> Iterator[str]:
    """Say how the differences are to be read."""
    if not report.differences:
        return
    text = f"Each interval holds by itself at {confidence_text(report.confidence)}"
    if report.baseline == (report.chosen or report.best):
        text += "; that the baseline was chosen by the same chips favours it a little"
    yield f"{text}."
    for relation, words in _CHIPS_WORDS.items():
        names = [item.model for item in report.differences if item.chips == relation]
        if names:
            yield f"{', '.join(names)} and {report.baseline} have {words}."
    stopped = [item.model for item in report.differences if item.method == "bounds"]
    if stopped:
        yield (
            f"{', '.join(stopped)}: the interval is wide because chips were stopped early; --exhaustive "
            "compares chip by chip."
        )
    for item in report.differences:
        yield from _images_remark(item, report.metric_info.unit)


def _images_remark(item: ModelDifference, unit: str) -> Iterator[str]:
    if item.images == "same":
        return
    relation = "have different labels" if item.images == "different" else "may have different images"
    text = f"{item.model} and {item.baseline} {relation}: the differences are over chips only"
    if item.image_error is not None:
        error = difference_text(item.image_error, unit).lstrip("+")
        text += f"; the images add a standard error of {error}, which the intervals do not contain"
    yield text + "."


def _correlation_text(correlation: RankCorrelation) -> str:
    """Say a rank correlation, and what it cannot say."""
    first, second = _MEASURE_NAMES[correlation.first], _MEASURE_NAMES[correlation.second]
    names = f"Spearman correlation of {first} and {second}"
    if correlation.value is None:
        return f"{names}: {correlation.remark}"
    text = f"{names} over {count_text(correlation.models, 'model')}: {correlation.value:+.2f}".replace(
        "-", "−"
    )
    if correlation.p is not None:
        text += f" (p = {correlation.p:.2g})"
    return text if correlation.remark is None else f"{text}; {correlation.remark}"


def _gate_text(report: ComparisonReport) -> str | None:
    """Say what the gate asks for; None without one."""
    gates, share = report.models[0].gate, report.models[0].mapped_gate
    if report.verdict is None:
        return None
    info = report.metric_info
    side = "below" if info.higher_is_better else "above"
    asked = dict.fromkeys(
        f"at most {gate.percentile:g} % of the chips {side} {limit_text(gate.threshold, info.unit)}"
        for gate in gates
    )
    parts = [f"{' and '.join(asked)} ({confidence_text(gates[0].confidence)} confidence)"] if gates else []
    if share is not None:
        parts.append(f"at least {100 * share.required:.10g} % of the products on the array")
    passing = sum(model.verdict == "pass" for model in report.models)
    return f"The gate: {'; '.join(parts)}; {passing} of {len(report.models)} models pass."


def _bound_remarks(report: ComparisonReport) -> Iterator[str]:
    """Say which intervals have an end missing, once for all models."""
    better = report.metric_info.higher_is_better
    texts = (missing_bound_text(model.kpp[0], better) for model in report.models)
    yield from dict.fromkeys(text for text in texts if text is not None)


def _differing_lines(report: ComparisonReport) -> Iterator[str]:
    """Say under which conditions each model stands, where they differ; what follows is of the first."""
    for model in report.models:
        if model.conditions:
            named = ", ".join(f"{name} {value}" for name, value in model.conditions.items())
            yield f"{model.name}: {named}"


def _condition_lines(report: ComparisonReport) -> list[str]:
    """Say what all models have in common."""
    point, info = report.operating_point, report.metric_info
    better = "higher is better" if info.higher_is_better else "lower is better"
    chips = {model.trials for model in report.models}
    count = count_text(min(chips), "chip") if len(chips) == 1 else "different numbers of chips"
    return [
        f"Metric: {report.metric} ({better}); {kpp_name(report.percentile)}, "
        f"{confidence_text(report.confidence)} confidence, {count} of each model",
        *_differing_lines(report),
        f"Device: {report.device_name} at {point.sigma_text}, t = "
        f"{duration_text(point.time_s)}; noise terms: {', '.join(point.terms) or 'none'}"
        + ("" if report.converters is None else f"; converters: {converters_text(report.converters)}"),
    ]
