"""The attribution on a terminal: ranked tables with bars."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rich.text import Text

from nvaudit.report.attribution.result import (
    AttributionDetail,
    ClassAttribution,
    NoiseAttribution,
    NoiseShare,
)
from nvaudit.report.paired import Difference
from nvaudit.report.sections import MetricInfo
from nvaudit.report.terminal import Kind, heading, sentence, table
from nvaudit.report.wording import confidence_text, count_text, interval_text, kpp_name, value_text
from nvaudit.stats.kpp import kpp_index

_BAR = 8
_MAX_ROWS = 12
_WHAT = {"tensors": "tensor", "terms": "noise term"}


@dataclass(frozen=True)
class _Scale:
    """How the differences of one table are shown: without their unit, all with equally many digits."""

    sign: int
    factor: float
    digits: int

    @classmethod
    def of(cls, part: NoiseAttribution, info: MetricInfo) -> _Scale:
        sign = 1 if info.higher_is_better else -1
        if info.unit == "fraction":
            return cls(sign, 100.0, 2)
        largest = max(abs(part.loss[0].kpp.value), abs(part.loss[0].mean.value))
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


def attribution_section(detail: AttributionDetail, info: MetricInfo, width: int) -> Iterable[Text]:
    """Lines that say where the loss comes from.

    Parameters
    ----------
    detail : AttributionDetail
    info : MetricInfo
    width : int
        Columns of the terminal.

    Yields
    ------
    rich.text.Text
    """
    for part in (detail.tensors, detail.terms):
        if part is not None:
            yield from _noise(part, info, width)
    if detail.classes is not None:
        yield from _classes(detail.classes, info, width)
    if detail.notes:
        yield heading("Not attributed", width)
        for note in detail.notes:
            yield sentence(note, width, "  ", "    ")


def _noise(part: NoiseAttribution, info: MetricInfo, width: int) -> Iterable[Text]:
    scale, name = _Scale.of(part, info), kpp_name(part.percentiles[0])
    kpp_known = part.items[0].given_back[0].kpp.missing is None
    columns: list[tuple[str, Kind]] = [(_WHAT[part.kind], "fold"), ("share of loss", "left")]
    columns.append((f"{name} back", "right"))
    if kpp_known:
        columns.append(("interval", "right"))
    columns += [("mean back", "right"), ("interval", "right"), ("lost alone", "right")]
    rows = [_row(item, scale, kpp_known) for item in part.items[:_MAX_ROWS]]
    if len(part.items) > _MAX_ROWS:
        rest = f"… and {len(part.items) - _MAX_ROWS} more"
        rows.append([rest, "in the JSON report", *[""] * (len(columns) - 2)])
    yield heading(
        f"Attribution by {_WHAT[part.kind]} (σ = {part.sigma:g} {part.sigma_unit}, "
        f"{_basis(part.chips, part.images)}; in {'points' if info.unit == 'fraction' else info.unit})",
        width,
    )
    yield table(columns, rows, width, "  ")
    for text in _explained(part, scale):
        yield sentence(text, width, "  ", "    ")


def _row(item: NoiseShare, scale: _Scale, kpp_known: bool) -> list[str]:
    back, alone = item.given_back[0], item.alone[0]
    return [
        item.name,
        "" if item.share is None else _bar(item.share, _percent(item.share)),
        scale.gain(back.kpp.value),
        *([scale.interval(back.kpp)] if kpp_known else []),
        scale.gain(back.mean.value),
        scale.interval(back.mean),
        scale.loss(alone.mean.value),
    ]


def _explained(part: NoiseAttribution, scale: _Scale) -> Iterable[str]:
    """What the columns mean, and what the chips and images cannot say."""
    loss, name = part.loss[0], kpp_name(part.percentiles[0])
    total, worst, alone = (
        scale.loss(cost, signed=False) for cost in (loss.mean.value, loss.kpp.value, part.alone_sum)
    )
    yield (
        f"All noise together costs {total} on average and {worst} in {name}; each alone, summed, {alone} on "
        "average. Back: what the chips regain when this alone is ideal. Lost alone: the mean loss when only "
        "this is noisy. Share: the average of mean back and lost alone, of the mean loss. Intervals: "
        f"{confidence_text(loss.confidence)} each, paired chip by chip."
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


def _classes(part: ClassAttribution, info: MetricInfo, width: int) -> Iterable[Text]:
    unit, sign = info.unit, 1 if info.higher_is_better else -1
    name = kpp_name(part.percentiles[0])
    columns: list[tuple[str, Kind]] = [("class", "right"), ("images", "right"), ("ideal", "right")]
    columns += [("quantised", "right"), ("mean", "right"), (name, "right"), ("interval", "fold")]
    columns += [("lost", "left")]
    lost = {row.label: sign * (row.quantised - row.kpp[0]) for row in part.classes}
    most = max(*lost.values(), 0.0) or 1.0
    rows = [
        [
            str(row.label),
            f"{row.images:,}",
            value_text(row.nominal, unit),
            value_text(row.quantised, unit),
            value_text(row.mean, unit),
            value_text(row.kpp[0], unit),
            interval_text(row.kpp_low[0], row.kpp_high[0], unit),
            _bar(lost[row.label] / most),
        ]
        for row in part.classes[:_MAX_ROWS]
    ]
    if len(part.classes) > _MAX_ROWS:
        rows.append(["…", *[""] * (len(columns) - 1)])
    yield heading(
        f"Attribution by class (σ = {part.sigma:g} {part.sigma_unit}, {_basis(part.chips, part.images)})",
        width,
    )
    yield table(columns, rows, width, "  ")
    if len(part.classes) > _MAX_ROWS:
        yield sentence(f"{len(part.classes) - _MAX_ROWS} better classes are in the JSON report.", width, "  ")
    yield sentence(
        f"The worst class is {part.classes[0].label}. Each class has its own worst chips; the bar is what "
        f"{name} loses against the quantised model.",
        width,
        "  ",
        "    ",
    )


def _basis(chips: int, images: int) -> str:
    return (
        f"{'the first chip' if chips == 1 else f'the first {chips:,} chips'}, {count_text(images, 'image')}"
    )


def _percent(share: float) -> str:
    return f"{round(100 * share)} %".replace("-", "−")


def _bar(part: float, label: str = "") -> str:
    """Draw a share of 1 as blocks; anything above zero shows."""
    size = min(max(round(_BAR * part), 1 if part > 0 else 0), _BAR)
    return f"{'█' * size:<{_BAR}} {label:>5}".rstrip() if label else "█" * size
