"""Where the metric goes: by step of the mapping, by tensor, by noise term, by class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from nvaudit.report.attribution.result import ClassAttribution, NoiseAttribution, NoiseShare
from nvaudit.report.audit.loss_figures import (
    MAX_BARS,
    RankingBar,
    WaterfallBar,
    classes_figure,
    parts_figure,
    waterfall_base,
    waterfall_figure,
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
    limited,
    short,
)
from nvaudit.report.paired import Difference
from nvaudit.report.rare import RareAttribution
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import MetricInfo
from nvaudit.report.steps import noiseless_steps
from nvaudit.report.wording import (
    amount_text,
    confidence_text,
    count_text,
    difference_text,
    interval_text,
    kpp_name,
    odds,
    value_text,
)
from nvaudit.stats.kpp import kpp_index

_WHAT = {"tensors": "tensor", "terms": "noise term"}
_READING = (
    "Back: what the chips regain when this alone is ideal. Lost alone: the mean loss when only this is "
    "noisy. Share: the average of mean back and lost alone, of the mean loss."
)


@dataclass(frozen=True)
class _Scale:
    """How the differences of one table are shown: without their unit, all with equally many digits.

    Attributes
    ----------
    sign : int
        1 where a higher metric is better, else -1.
    factor : float
        From the metric to what is shown: 100 for points.
    digits : int
        Behind the point.
    """

    sign: int
    factor: float
    digits: int

    @classmethod
    def of(cls, info: MetricInfo, *losses: float) -> _Scale:
        sign = 1 if info.higher_is_better else -1
        if info.unit == "fraction":
            return cls(sign, 100.0, 2)
        largest = max(abs(loss) for loss in losses)
        return cls(sign, 1.0, min(max(3 - math.floor(math.log10(largest)), 0), 12) if largest else 4)

    def gain(self, value: float, signed: bool = True) -> str:
        """Show a change for the better as positive."""
        text = f"{self.sign * self.factor * value:{'+' if signed else ''}.{self.digits}f}"
        return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")

    def loss(self, value: float, signed: bool = True) -> str:
        """Show a change for the worse as positive."""
        return self.gain(-value, signed)

    def error(self, value: float) -> str:
        """Show a standard error."""
        return f"{self.factor * value:.{self.digits}f}"

    def interval(self, difference: Difference) -> str:
        """Show the interval of an improvement."""
        if difference.low is None or difference.high is None:
            return "–"
        low, high = sorted((difference.low, difference.high), key=lambda end: self.sign * end)
        return f"[{self.gain(low)}, {self.gain(high)}]"


def losses_section(report: AuditReport) -> Section:
    """Where the metric goes."""
    blocks: list[Block] = [_waterfall(report)]
    detail, info = report.attribution_detail, report.metric_info
    if detail is not None:
        parts = [part for part in (detail.tensors, detail.terms) if part is not None and part.items]
        blocks += [Paragraph(_READING, "note")] if parts else []
        for part in parts:
            blocks += _parts(info, part)
        if detail.classes is not None and detail.classes.classes:
            blocks += _classes(report, detail.classes)
        if report.rare_attribution is not None:
            blocks += _rare_cause(report, report.rare_attribution)
        if detail.notes:
            blocks.append(Bullets(tuple(f"Not attributed: {note}" for note in detail.notes)))
    elif report.attribution:
        blocks.append(_costs(report, report.attribution))
    else:
        text = "Which tensor, noise term or class this comes from: run the audit with --attribute."
        blocks.append(Paragraph(text, "note", media=PAGE))
    return Section("losses", "Where it goes", tuple(blocks))


def _waterfall(report: AuditReport) -> Figure:
    """The steps from the unmodified model to the worst chips; a terminal has them as numbers at the top."""
    unit, better = report.metric_info.unit, report.metric_info.higher_is_better
    worst = kpp_name(report.kpp[0].percentile)
    without_noise = noiseless_steps(report)
    steps = [
        *((step.name, step.value) for step in without_noise),
        ("noisy, mean", report.trials.mean),
        (f"noisy, {worst}", report.kpp[0].value),
    ]
    values = [value for _, value in steps]
    drawn = [WaterfallBar(name, value, value_text(value, unit)) for name, value in steps]
    shown = [value_text(value, unit) for value in values]
    deltas = [difference_text(after - before, unit) for before, after in pairwise(values)]
    words = f"{report.metric} of the unmodified model is {shown[0]}. Mapping it to codes makes it {shown[1]} "
    words += f"({deltas[0]}), "
    if len(without_noise) > 2:
        words += f"its converters make it {shown[2]} ({without_noise[2].cause}), "
    words += (
        f"the noise of the average chip {shown[-2]} ({deltas[-2]}), and that of the {worst} chip "
        f"{shown[-1]} ({deltas[-1]})."
    )
    legend = "The axis does not begin at zero." if waterfall_base(values) > 0 else ""
    draw = partial(waterfall_figure, drawn, report.metric, unit, better)
    return Figure("waterfall", words, draw, legend=legend, media=PAGE)


def _parts(info: MetricInfo, part: NoiseAttribution) -> Iterator[Block]:
    """A ranking of tensors or noise terms: the picture of a page, the table, and how both are read."""
    scale = _Scale.of(info, part.loss[0].kpp.value, part.loss[0].mean.value)
    what, name = _WHAT[part.kind], kpp_name(part.percentiles[0])
    measure = "points" if info.unit == "fraction" else info.unit
    sign = scale.sign
    bars = sorted(
        (RankingBar(item.name, *_gain(item.given_back[0].mean, sign)) for item in part.items),
        key=lambda bar: -bar.value,
    )
    words = (
        f"What the chips get back on average when the noise of one {what} alone is taken away. "
        f"Most: {short(bars[0].name)}, {difference_text(bars[0].value, info.unit)}."
    )
    if len(bars) > MAX_BARS:
        words += f" The first {MAX_BARS} of {len(bars):,}; the table has more."
    factor = 100.0 if info.unit == "fraction" else 1.0
    draw = partial(parts_figure, bars, f"{measure} given back", factor)
    yield Figure(f"by-{part.kind}", words, draw, legend="Lines: intervals.", media=PAGE)
    # A KPP of few chips has no interval; a column of dashes would say so less well than a sentence.
    with_interval = part.items[0].given_back[0].kpp.missing is None
    columns = [what, "share of loss", f"{name} back"]
    columns += ["its interval"] if with_interval else []
    columns += ["mean back", "interval", "lost alone"]
    shown, cut = limited([_part_row(item, scale, with_interval) for item in part.items])
    yield Table(
        f"{part.kind}-parts",
        f"By {what}: {at_sigma(part)}, {_basis(part.chips, part.images)}; in {measure}, positive: better."
        f"{cut}",
        tuple(columns), shown, (2, *range(3, len(columns))), sortable=len(part.items) > 8,
    )  # fmt: skip
    yield Bullets(tuple(_explained(part, scale)))


def _part_row(item: NoiseShare, scale: _Scale, with_interval: bool) -> tuple[Cell, ...]:
    back, alone = item.given_back[0], item.alone[0]
    share = item.share
    percent = "–" if share is None else f"{round(100 * share)} %".replace("-", "−")
    return (
        short(item.name),
        Number(share, f"{percent:>5}", part=share) if share is not None else Number(None, percent),
        Number(item.cost, scale.gain(back.kpp.value)),
        *([scale.interval(back.kpp)] if with_interval else []),
        Number(scale.sign * back.mean.value, scale.gain(back.mean.value)),
        scale.interval(back.mean),
        Number(-scale.sign * alone.mean.value, scale.loss(alone.mean.value)),
    )


def _explained(part: NoiseAttribution, scale: _Scale) -> Iterator[str]:
    loss, name = part.loss[0], kpp_name(part.percentiles[0])
    total, worst, alone = (
        scale.loss(cost, signed=False) for cost in (loss.mean.value, loss.kpp.value, part.alone_sum)
    )
    yield (
        f"All noise together costs {total} on average and {worst} in {name}; each alone, summed, {alone} on "
        f"average. Intervals: {confidence_text(loss.confidence)} each, paired chip by chip."
    )
    if (missing := part.items[0].given_back[0].kpp.missing) is not None:
        rank = kpp_index(part.percentiles[0], part.chips) + 1
        chips = count_text(part.chips, "chip")
        yield f"{name} is number {rank} from the worst of {chips}: an interval {missing}."
    gaps = sorted({item.given_back[0].mean.missing or "" for item in part.items} - {""})
    if gaps:
        yield f"No interval (–): {'; '.join(gaps)}."
    errors = [item.standard_error or 0.0 for item in part.items]
    if part.standard_error:
        total, most = scale.error(part.standard_error), scale.error(max(errors))
        yield (
            f"The images are finite too: on {count_text(part.images, 'image')} the mean loss has a standard "
            f"error of {total}, and mean back of at most {most}; the intervals do not contain it."
        )
    if part.kept:
        yield f"Limits that act in every variant: {', '.join(part.kept)}."


def _rare_cause(report: AuditReport, found: RareAttribution) -> Iterator[Block]:
    """Which tensors make rare chips bad."""
    info = report.metric_info
    scale = _Scale.of(info, found.rare - found.ordinary)
    measure = "points" if info.unit == "fraction" else info.unit
    rare, ordinary = value_text(found.rare, info.unit), value_text(found.ordinary, info.unit)
    first, worst = odds(found.probability), found.tensors[0]
    bars = [RankingBar(one.name, *_gain(one.given_back, scale.sign)) for one in found.tensors]
    words = (
        f"What chips as bad as {first} get back where one tensor's devices are exchanged for those of an "
        f"ordinary chip. Most: {short(worst.name)}, "
        f"{difference_text(scale.sign * worst.given_back.value, info.unit)}."
    )
    factor = 100.0 if info.unit == "fraction" else 1.0
    draw = partial(parts_figure, bars, f"{measure} given back", factor)
    yield Figure("rare-by-tensors", words, draw, legend="Lines: intervals.", media=PAGE)
    rows = [
        (
            short(one.name),
            Number(one.share, "–" if one.share is None else f"{100 * one.share:.0f} %".replace("-", "−")),
            Number(scale.sign * one.given_back.value, scale.gain(one.given_back.value)),
            scale.interval(one.given_back),
            Number(-scale.sign * one.alone.value, scale.loss(one.alone.value)),
        )
        for one in found.tensors
    ]
    shown, cut = limited(rows)
    caption = (
        f"What makes {first} bad, by tensor: {count_text(found.chips, 'chip')} of about {rare}, one of each "
        f"run, and as many ordinary ones, mean {ordinary}; in {measure}.{cut}"
    )
    columns = ("tensor", "share of the gap", "back", "interval", "lost alone")
    yield Table("rare-tensors", caption, columns, shown, numeric=(2, 4), sortable=len(rows) > 8)
    yield Paragraph(
        "Back: the rare chips with this tensor's devices of an ordinary chip. Lost alone: ordinary chips "
        "with this tensor's devices of a rare one. Share: the average of both, of the gap between the two. "
        f"Intervals: {confidence_text(found.confidence)}, from as many independent runs.",
        "note",
    )


def _gain(change: Difference, sign: int) -> tuple[float, float | None, float | None]:
    """Turn a change into one for the better."""
    ends = (change.low, change.high) if sign > 0 else (change.high, change.low)
    low, high = (None if end is None else sign * end for end in ends)
    return sign * change.value, low, high


def _basis(chips: int, images: int) -> str:
    first = "the first chip" if chips == 1 else f"the first {chips:,} chips"
    return f"{first}, {count_text(images, 'image')}"


def _classes(report: AuditReport, part: ClassAttribution) -> Iterator[Block]:
    """The metric by class: the picture of a page, and the table."""
    unit, name = report.metric_info.unit, kpp_name(part.percentiles[0])
    sign = 1 if report.metric_info.higher_is_better else -1
    draw = partial(
        classes_figure,
        [str(row.label) for row in part.classes], [row.quantised for row in part.classes],
        [row.kpp[0] for row in part.classes], name, report.metric, unit,
    )  # fmt: skip
    worst = part.classes[0]
    words = (
        f"{report.metric} of each class without noise and at {name}, the worst class first. Class "
        f"{worst.label} goes from {value_text(worst.quantised, unit)} to {value_text(worst.kpp[0], unit)}."
    )
    yield Figure("by-classes", words, draw, media=PAGE)
    lost = [sign * (row.quantised - row.kpp[0]) for row in part.classes]
    most = max(*lost, 0.0) or 1.0
    rows: list[tuple[Cell, ...]] = [
        (
            Number(row.label, str(row.label)),
            Number(row.images, f"{row.images:,}"),
            *(Number(value, value_text(value, unit)) for value in (row.nominal, row.quantised, row.mean)),
            Number(row.kpp[0], value_text(row.kpp[0], unit)),
            interval_text(row.kpp_low[0], row.kpp_high[0], unit),
            Number(cost, amount_text(cost, unit) if cost else "none", part=cost / most),
        )
        for row, cost in zip(part.classes, lost, strict=True)
    ]
    shown, cut = limited(rows)
    yield Table(
        "class-parts",
        f"By class: {at_sigma(part)}, {_basis(part.chips, part.images)}. The worst class is {worst.label}; "
        f"each class has its own worst chips. Lost: what {name} loses against the quantised model.{cut}",
        ("class", "images", "ideal", "quantised", "mean", name, "interval", "lost"), shown,
        numeric=(0, 1, 2, 3, 4, 5),
        sortable=len(rows) > 8,
    )  # fmt: skip


def _costs(report: AuditReport, attribution: dict[str, float]) -> Table:
    """What is known of an attribution in a report without its details."""
    unit = report.metric_info.unit
    ranked = sorted(attribution.items(), key=lambda item: -item[1])
    shown, cut = limited([(short(name), Number(cost, difference_text(cost, unit))) for name, cost in ranked])
    return Table("costs", f"KPP cost of each by itself.{cut}", ("", "KPP given back"), shown, (1,))
