"""The chips: their distribution, the yield curve, and the sweep over σ."""

from __future__ import annotations

from functools import partial

import numpy as np

from nvaudit.report.audit.chip_figures import (
    Known,
    Mark,
    histogram_figure,
    sweep_figure,
    yield_curve,
    yield_figure,
)
from nvaudit.report.document import (
    PAGE,
    Block,
    Bullets,
    Cell,
    Figure,
    Number,
    Paragraph,
    Section,
    Table,
    at_sigma,
    unit_words,
)
from nvaudit.report.histogram import Marker, bin_values, histogram_lines
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import SweepPoint
from nvaudit.report.wording import (
    amount_text,
    confidence_text,
    count_text,
    interval_text,
    kpp_name,
    limit_text,
    missing_bound_text,
    reach_text,
    share_text,
    value_text,
)

_MOST_MARKS = 3
"""KPPs, and thresholds, that are marked in a picture."""
_MOST_COLUMNS = 64
"""Of the histogram that is drawn with characters."""
_YIELD_ROWS = 12


def chips_section(report: AuditReport) -> Section:
    """How the chips are distributed."""
    chips, unit, trials = _known(report), report.metric_info.unit, report.trials
    same = chips.values[0] == chips.values[-1]
    figure = Figure(
        "histogram",
        _histogram_words(report, chips),
        partial(histogram_figure, chips, _marks(report), report.metric, unit, _resolution(chips, report)),
        None if same else _chip_numbers(report, chips),
        sketch=None if same else partial(chip_lines, report),
        legend="" if trials.count == 1 else "Shaded: the interval of each KPP.",
    )
    blocks: list[Block] = [figure]
    if text := _race_words(report):
        blocks.append(Paragraph(text, "note"))
    if lines := _caveats(report):
        blocks.append(Bullets(tuple(lines)))
    return Section("chips", "The simulated chips", tuple(blocks))


def chip_lines(report: AuditReport, width: int) -> list[str]:
    """Draw the histogram of the chips with characters, in at most ``width`` columns."""
    chips, unit = _known(report), report.metric_info.unit
    columns = max(10, min(_MOST_COLUMNS, width - 2))
    markers = [Marker(k.value, f"{kpp_name(k.percentile)}  {value_text(k.value, unit)}") for k in report.kpp]
    markers += [Marker(value, f"threshold  {limit_text(value, unit)}") for value in _thresholds(report)]
    low, high = float(chips.values[0]), float(chips.values[-1])
    # A threshold far away must not squeeze the chips into one column.
    near = high - low
    shown = [m.value for m in markers if low - near <= m.value <= high + near]
    bins = bin_values(chips.values, columns, _resolution(chips, report), shown, chips.weights)
    ends = (value_text(min([low, *shown]), unit), value_text(max([high, *shown]), unit))
    return histogram_lines(bins, markers, ends, columns)


def _caveats(report: AuditReport) -> list[str]:
    """Which bounds are missing, and what the evaluation set itself cannot tell."""
    info, data = report.metric_info, report.data
    missing = (missing_bound_text(result, info.higher_is_better) for result in report.kpp)
    lines = [f"{text}." for text in missing if text]
    if data.standard_error is not None:
        lines.append(
            f"The evaluation set is finite too: the standard error of the ideal {report.metric} on "
            f"{count_text(data.count, 'image')} is {value_text(data.standard_error, info.unit)}; the "
            "intervals do not contain it."
        )
    return lines


def yield_section(report: AuditReport) -> Section:
    """Which share of the chips reaches which requirement."""
    chips, info = _known(report), report.metric_info
    fixed = report.trials.weights is None and not any(gate.sequential for gate in report.gate)
    confidence = report.kpp[0].confidence if fixed else None
    curve = yield_curve(chips, info.higher_is_better, confidence)
    picture = partial(yield_figure, curve, _marks(report), report.metric, info.unit, info.higher_is_better)
    side = "at least" if info.higher_is_better else "at most"
    words = f"Share of the chips whose {report.metric} is {side} what is required."
    for item in report.yields:
        words += (
            f" {share_text(item.share)} of the chips {reach_text(item.direction)} "
            f"{limit_text(item.threshold, info.unit)} ({share_text(item.low)} to {share_text(item.high)}, "
            f"{confidence_text(item.confidence)} confidence)."
        )
    legend = ""
    if confidence is not None:
        legend = f"Band: {confidence_text(confidence)} at each point (Clopper-Pearson)."
    places = np.unique(np.linspace(0, len(curve.required) - 1, _YIELD_ROWS).round().astype(int))
    rows = tuple(
        (value_text(float(curve.required[i]), info.unit), share_text(float(curve.share[i]))) for i in places
    )
    numbers = Table(
        "yield-numbers", "Points of the yield curve", (f"required {report.metric}", "share of the chips"),
        rows, numeric=(1,),
    )  # fmt: skip
    intro = "Read it as: if a product needs this much, so many of the chips will do."
    if text := _race_words(report):
        intro += f" {text}"
    figure = Figure("yield", words, picture, numbers, legend=legend)
    return Section("yield", "Yield", (Paragraph(intro), figure), media=PAGE)


def sweep_section(report: AuditReport) -> Section | None:
    """The metric over σ, where there are several."""
    if not report.sweep:
        return None
    unit = report.metric_info.unit
    points = sorted(report.sweep, key=lambda point: point.sigma)
    thresholds = list(dict.fromkeys(gate.threshold for gate in report.gate))
    picture = partial(sweep_figure, points, thresholds, report.quantised, report.metric, unit)
    first, last = points[0], points[-1]
    name = kpp_name(first.kpp[0].percentile)
    words = (
        f"From σ = {first.sigma:g} to {last.sigma:g} {unit_words(first.sigma_unit)}, {name} goes from "
        f"{value_text(first.kpp[0].value, unit)} to {value_text(last.kpp[0].value, unit)}, and the mean "
        f"from {value_text(first.trials.mean, unit)} to {value_text(last.trials.mean, unit)}."
    )
    legend = (
        f"Bars: {confidence_text(first.kpp[0].confidence)} intervals; a bar without an end on one side has "
        "no bound there."
    )
    intro = "The same chips at every σ: each point is the same draw of devices, spread more widely."
    return Section(
        "sweep", "Over the spread of the devices",
        (Paragraph(intro), Figure("sweep", words, picture, legend=legend), _sweep_table(points, unit)),
    )  # fmt: skip


def _sweep_table(points: list[SweepPoint], unit: str) -> Table:
    gated = any(point.gate for point in points)
    columns = [f"σ, {unit_words(points[0].sigma_unit)}", "mean", "std", "percentile", "KPP", "interval"]
    columns += [f"yield at {limit_text(y.threshold, unit)}" for y in points[0].yields]
    columns += ["verdict"] if gated else []
    rows = []
    for point in points:
        verdicts = {gate.percentile: gate.verdict for gate in point.gate}
        for result in point.kpp:
            row: list[Cell] = [
                Number(point.sigma, f"{point.sigma:g}"),
                Number(point.trials.mean, value_text(point.trials.mean, unit)),
                Number(point.trials.std, amount_text(point.trials.std, unit)),
                Number(result.percentile, f"{result.percentile:.10g} %"),
                Number(result.value, value_text(result.value, unit)),
                interval_text(result.low, result.high, unit),
                *(Number(item.share, share_text(item.share)) for item in point.yields),
            ]
            rows.append((*row, verdicts.get(result.percentile, "none")) if gated else tuple(row))
    numeric = (0, 1, 2, 3, 4, *range(6, 6 + len(points[0].yields)))
    return Table("sweep-numbers", "Every σ of the sweep.", tuple(columns), tuple(rows), numeric)


def _known(report: AuditReport) -> Known:
    return Known.of(report.trials.values, report.trials.weights)


def _marks(report: AuditReport) -> list[Mark]:
    unit = report.metric_info.unit
    marks = [
        Mark(k.value, f"{kpp_name(k.percentile)}: {value_text(k.value, unit)}", "worst", k.low, k.high)
        for k in report.kpp[:_MOST_MARKS]
    ]
    marks += [
        Mark(value, f"threshold {limit_text(value, unit)}", "fail", dash="dash")
        for value in _thresholds(report)[:_MOST_MARKS]
    ]
    return [
        *marks,
        Mark(report.quantised, f"no noise: {value_text(report.quantised, unit)}", "ideal", dash="dot"),
    ]


def _resolution(chips: Known, report: AuditReport) -> float:
    """Find the step of an accuracy over n images, 0 where the values are not such multiples."""
    count = report.data.count
    values = chips.values
    if report.metric_info.unit != "fraction" or not bool(((values >= 0) & (values <= 1)).all()):
        return 0.0
    steps = values * count
    return 1 / count if np.allclose(steps, np.rint(steps), rtol=0, atol=1e-6) else 0.0


def _thresholds(report: AuditReport) -> list[float]:
    """What chips are held against, each once."""
    asked = (*(gate.threshold for gate in report.gate), *(item.threshold for item in report.yields))
    return list(dict.fromkeys(asked))


def _histogram_words(report: AuditReport, chips: Known) -> str:
    trials, unit = report.trials, report.metric_info.unit
    text = f"{count_text(trials.count, 'chip')} at {at_sigma(report.operating_point)}"
    if chips.values[0] == chips.values[-1]:
        value = value_text(float(chips.values[0]), unit)
        alike = "" if trials.count == 1 else "all have the same "
        return f"{text}: {alike}{report.metric} {value}."
    return (
        f"{text}: mean {report.metric} {value_text(trials.mean, unit)}, standard deviation "
        f"{amount_text(trials.std, unit)}, from {value_text(trials.min, unit)} to "
        f"{value_text(trials.max, unit)}; without noise {value_text(report.quantised, unit)}."
    )


def _race_words(report: AuditReport) -> str:
    """Say what of the picture is an estimate."""
    race = report.trials.race
    if race is None:
        return ""
    few = race.stopped == 1
    why = "was stopped early, because it surely does" if few else "were stopped early, because they surely do"
    return (
        f"{race.stopped:,} of {count_text(report.trials.count, 'chip')} {why} not matter for the KPP. Where "
        f"{'it lies' if few else 'they lie'} the picture is an estimate: "
        f"{count_text(race.pilots, 'chip')} that were run on every image stand for all by their weight."
    )


def _chip_numbers(report: AuditReport, chips: Known) -> Table:
    """Quantiles of the chips, as a table to read."""
    unit = report.metric_info.unit
    total = np.cumsum(chips.weights)
    rows = []
    for prob in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99):
        place = min(int(np.searchsorted(total, prob * total[-1], side="right")), len(total) - 1)
        rows.append((f"{100 * prob:g} %", value_text(float(chips.values[place]), unit)))
    return Table(
        "chip-numbers", "Quantiles of the chips, ascending",
        ("share of the chips below", report.metric), tuple(rows), numeric=(1,),
    )  # fmt: skip
