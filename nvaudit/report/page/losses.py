"""Where the metric goes: by step of the mapping, by tensor, by noise term, by class."""

from __future__ import annotations

from itertools import pairwise

from nvaudit.report.attribution.result import ClassAttribution, NoiseAttribution
from nvaudit.report.document import (
    Block,
    Bullets,
    Cell,
    Figure,
    Number,
    Paragraph,
    Section,
    Table,
    at_sigma,
    limited,
    short,
)
from nvaudit.report.paired import Difference
from nvaudit.report.plots.losses import (
    MAX_BARS,
    Part,
    Step,
    classes_figure,
    parts_figure,
    waterfall_base,
    waterfall_figure,
)
from nvaudit.report.result import AuditReport
from nvaudit.report.steps import noiseless_steps
from nvaudit.report.wording import confidence_text, count_text, difference_text, kpp_name, value_text

_WHAT = {"tensors": "tensor", "terms": "noise term"}


def losses_section(report: AuditReport) -> Section:
    """Show where the metric goes.

    Parameters
    ----------
    report : AuditReport
    """
    blocks: list[Block] = [_waterfall(report)]
    detail = report.attribution_detail
    if detail is not None:
        for part in (detail.tensors, detail.terms):
            if part is not None and part.items:
                blocks += _parts(report, part)
        if detail.classes is not None and detail.classes.classes:
            blocks += _classes(report, detail.classes)
        if detail.notes:
            blocks.append(Bullets(tuple(f"Not attributed: {note}" for note in detail.notes)))
    elif report.attribution:
        blocks.append(_costs(report, report.attribution))
    else:
        blocks.append(
            Paragraph(
                "Which tensor, noise term or class this comes from: run the audit with --attribute.", "note"
            )
        )
    return Section("losses", "Where it goes", tuple(blocks))


def _waterfall(report: AuditReport) -> Figure:
    unit, better = report.metric_info.unit, report.metric_info.higher_is_better
    worst = report.kpp[0]
    without_noise = noiseless_steps(report)
    steps = [
        *((step.name, step.value) for step in without_noise),
        ("noisy, mean", report.trials.mean),
        (f"noisy, {kpp_name(worst.percentile)}", worst.value),
    ]
    values = [value for _, value in steps]
    figure = waterfall_figure(
        [Step(name, value, value_text(value, unit)) for name, value in steps], report.metric, unit, better
    )
    shown = [value_text(value, unit) for value in values]
    deltas = [difference_text(after - before, unit) for before, after in pairwise(values)]
    words = f"{report.metric} of the unmodified model is {shown[0]}. Mapping it to codes makes it {shown[1]} "
    words += f"({deltas[0]}), "
    if len(without_noise) > 2:
        words += f"its converters make it {shown[2]} ({without_noise[2].cause}), "
    words += (
        f"the noise of the average chip {shown[-2]} ({deltas[-2]}), and that of the "
        f"{kpp_name(worst.percentile)} chip {shown[-1]} ({deltas[-1]})."
    )
    if waterfall_base(values) > 0:
        words += " The axis does not begin at zero."
    return Figure("waterfall", words, lambda: figure)


def _parts(report: AuditReport, part: NoiseAttribution) -> list[Block]:
    info, what = report.metric_info, _WHAT[part.kind]
    unit, name = info.unit, kpp_name(part.percentiles[0])
    sign = 1 if info.higher_is_better else -1
    scale = 100.0 if unit == "fraction" else 1.0
    bars = [Part(item.name, *_gain(item.given_back[0].mean, sign)) for item in part.items]
    bars.sort(key=lambda bar: -bar.value)
    measure = "points" if unit == "fraction" else unit
    figure = parts_figure(bars, f"{measure} given back", scale)
    best = bars[0]
    # Worse is shown as a loss, whichever way the metric goes.
    loss, alone = -sign * part.loss[0].mean.value, -sign * part.alone_sum
    words = (
        f"What the chips get back on average when the noise of one {what} alone is taken away, with "
        f"{confidence_text(part.loss[0].confidence)} intervals; paired chip by chip. "
        f"Most: {short(best.name)}, {difference_text(best.value, unit)}. All noise together costs "
        f"{_amount(loss, unit)} on average; each {what} alone, summed, {_amount(alone, unit)}."
    )
    if len(bars) > MAX_BARS:
        words += f" The first {MAX_BARS} of {len(bars):,}; the table has more."
    basis = (
        f"{at_sigma(part)}, the first {count_text(part.chips, 'chip')}, {count_text(part.images, 'image')}"
    )
    rows: list[tuple[Cell, ...]] = [
        (
            short(item.name),
            Number(item.share, "–" if item.share is None else f"{100 * item.share:.0f} %".replace("-", "−")),
            Number(item.cost, difference_text(item.cost, unit)),
            _signed(item.given_back[0].kpp, sign, unit),
            _back(item.given_back[0].mean, sign, unit),
            _signed(item.given_back[0].mean, sign, unit),
            _back(item.alone[0].mean, sign, unit),
        )
        for item in part.items
    ]
    shown, cut = limited(rows)
    columns = (
        what,
        "share of the loss",
        f"{name} back",
        "interval",
        "mean back",
        "interval",
        "mean, alone noisy",
    )
    table = Table(
        f"{part.kind}-parts", f"Every {what} ({basis}); positive: better.{cut}", columns, shown, (1, 2, 4, 6),
        sortable=len(rows) > 8,
    )  # fmt: skip
    notes = [f"Limits that act in every variant: {', '.join(part.kept)}."] if part.kept else []
    if part.standard_error is not None:
        notes.append(
            f"The images are finite too: the mean loss has a standard error of "
            f"{_amount(part.standard_error, unit)} from them, which the intervals do not contain."
        )
    return [
        Figure(f"by-{part.kind}", words, lambda: figure),
        table,
        *(Paragraph(note, "note") for note in notes),
    ]


def _gain(change: Difference, sign: int) -> tuple[float, float | None, float | None]:
    """Turn a change into one for the better."""
    ends = (change.low, change.high) if sign > 0 else (change.high, change.low)
    low, high = (None if end is None else sign * end for end in ends)
    return sign * change.value, low, high


def _back(change: Difference, sign: int, unit: str) -> Number:
    return Number(sign * change.value, difference_text(sign * change.value, unit))


def _signed(change: Difference, sign: int, unit: str) -> str:
    _, low, high = _gain(change, sign)
    if low is None or high is None:
        return f"none: {change.missing}" if change.missing else "–"
    return f"{difference_text(low, unit)} to {difference_text(high, unit)}"


def _amount(value: float, unit: str) -> str:
    return f"{100 * value:.2f} points" if unit == "fraction" else f"{value:.4g}"


def _classes(report: AuditReport, part: ClassAttribution) -> list[Block]:
    unit, name = report.metric_info.unit, kpp_name(part.percentiles[0])
    labels = [str(row.label) for row in part.classes]
    figure = classes_figure(
        labels, [row.quantised for row in part.classes], [row.kpp[0] for row in part.classes], name,
        report.metric, unit,
    )  # fmt: skip
    worst = part.classes[0]
    words = (
        f"{report.metric} of each class without noise and at {name}, the worst class first. Class "
        f"{worst.label} goes from {value_text(worst.quantised, unit)} to {value_text(worst.kpp[0], unit)}. "
        "Each class has its own worst chips."
    )
    rows: list[tuple[Cell, ...]] = [
        (
            Number(row.label, str(row.label)),
            Number(row.images, f"{row.images:,}"),
            *(Number(value, value_text(value, unit)) for value in (row.nominal, row.quantised, row.mean)),
            Number(row.kpp[0], value_text(row.kpp[0], unit)),
        )
        for row in part.classes
    ]
    shown, cut = limited(rows)
    table = Table(
        "class-parts", f"Every class; the first {count_text(part.chips, 'chip')}.{cut}",
        ("class", "images", "ideal", "quantised", "mean", name), shown, (0, 1, 2, 3, 4, 5),
        sortable=len(rows) > 8,
    )  # fmt: skip
    return [Figure("by-classes", words, lambda: figure), table]


def _costs(report: AuditReport, attribution: dict[str, float]) -> Table:
    unit = report.metric_info.unit
    ranked = sorted(attribution.items(), key=lambda item: -item[1])
    shown, cut = limited([(short(name), Number(cost, difference_text(cost, unit))) for name, cost in ranked])
    return Table("costs", f"KPP cost of each by itself.{cut}", ("", "KPP given back"), shown, (1,))
