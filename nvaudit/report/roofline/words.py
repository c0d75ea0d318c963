"""A roofline in words and cells, the same in every renderer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from nvaudit.report.mapped import coverage_text, share_clause
from nvaudit.report.roofline.limits import Limit, Roof
from nvaudit.report.roofline.result import ChipsPoint, LevelResult, RooflineReport
from nvaudit.report.sections import MetricInfo
from nvaudit.report.wording import (
    confidence_text,
    converters_text,
    count_text,
    difference_text,
    duration_text,
    interval_text,
    kpp_name,
    missing_bound_text,
    share_of_weights_text,
    value_text,
)

LIMIT_WORDS: dict[Limit, str] = {
    "device": "device limits", "adc": "ADC limits", "both": "device and ADC limit",
    "neither": "neither limits",
}  # fmt: skip

ALONE_WORDS: dict[Limit, str] = {**LIMIT_WORDS, "neither": "the device does not limit"}
"""Where there are no converters."""


def verdict_words(roof: Roof, limit: Limit, settled: bool, info: MetricInfo) -> str:
    """Say what limits one number of levels, and what each part costs.

    Parameters
    ----------
    roof : Roof
    limit : Limit
    settled : bool
    info : MetricInfo
    """
    device = f"device variation: {_cost(roof, roof.device.value, info)}"
    if roof.adc is None or roof.both is None:
        text = f"{ALONE_WORDS[limit]} ({device})"
    else:
        adc = f"ADC: {_cost(roof, roof.adc, info)}"
        both = f"both: {_cost(roof, roof.both.value, info)}"
        text = f"{LIMIT_WORDS[limit]} ({device}, {adc}, {both})"
    return text if settled else f"{text}; more chips may change this"


def _cost(roof: Roof, value: float, info: MetricInfo) -> str:
    return difference_text(value - roof.quantised, info.unit)


def measure_name(report: RooflineReport) -> str:
    """Name what the verdicts go by, e.g. ``KPP 1 %``."""
    return kpp_name(report.percentile) if report.rank_by == "kpp" else "mean"


def headline(report: RooflineReport) -> str:
    """Say the best number of levels and what limits, in one line."""
    level = next(level for level in report.levels if level.levels == report.best)
    found = level.realistic.at(report.rank_by)
    info = report.metric_info
    name = measure_name(report)
    among = "the only ones run" if len(report.levels) == 1 else f"best of {len(report.levels)} by {name}"
    text = (
        f"{report.best} levels are {among}: {name} {report.metric} {value_text(found.value, info.unit)} "
        f"{interval_text(found.low, found.high, info.unit)} ({confidence_text(report.confidence)}) on "
        f"{report.device_name}, {count_text(level.device.trials, 'chip')}; {limits_text(report)}"
        f"{share_clause(report.mapped)}"
    )
    share = level.share_converted
    if share is not None and share < 1:
        text += f"; converters{share_of_weights_text(share)}"
    if report.label_free:
        text = f"LABEL-FREE (no labels: compared with the unperturbed model only): {text}"
    return info.cautioned(text)


def limits_text(report: RooflineReport) -> str:
    """Say what limits at which levels, e.g. ``2 and 4 levels: ADC limits; 8 levels: device limits``."""
    words = LIMIT_WORDS if report.converters is not None else ALONE_WORDS
    parts = []
    for limit, group in groupby(report.levels, key=lambda level: level.limit):
        numbers = [str(level.levels) for level in group]
        joined = numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"
        parts.append(f"{joined} levels: {words[limit]}")
    return "; ".join(parts)


def cheaper_text(report: RooflineReport) -> str | None:
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


def margin_text(report: RooflineReport) -> str:
    """Show the margin, a fraction in points."""
    if report.metric_info.unit != "fraction":
        return f"{report.margin:.4g}"
    points = f"{100 * report.margin:.4g}"
    return f"{points} point" if points == "1" else f"{points} points"


def columns(report: RooflineReport) -> list[str]:
    """Headings of what :func:`cells` gives."""
    kpp = kpp_name(report.percentile)
    device = ["quantised", "device: mean", f"device: {kpp}", "interval"]
    return [*device, *(["ADC", "both: mean", f"both: {kpp}", "interval"] if report.converters else [])]


def cells(report: RooflineReport, level: LevelResult) -> list[str]:
    """Give what a number of levels reaches."""
    unit = report.metric_info.unit
    found = [value_text(level.quantised, unit), *_chips_cells(level.device, unit)]
    if level.adc is not None and level.both is not None:
        found += [value_text(level.adc, unit), *_chips_cells(level.both, unit)]
    return found


def _chips_cells(point: ChipsPoint, unit: str) -> list[str]:
    kpp = point.kpp
    return [
        value_text(point.mean, unit),
        value_text(kpp.value, unit),
        interval_text(kpp.low, kpp.high, unit),
    ]


SIZE_COLUMNS = ("slices", "devices", "crossbars", "sigma", "seconds")


def size_cells(level: LevelResult) -> list[str]:
    """Give what a number of levels costs, and where on the profile it stands."""
    point = level.operating_point
    return [
        str(level.slices),
        f"{level.size.devices:,}",
        f"{level.size.crossbars:,}",
        f"{point.sigma:.4g} {point.sigma_unit.replace('_', ' ')}",
        f"{level.seconds:.3g}",
    ]


def remarks(report: RooflineReport) -> Iterator[str]:
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


def skipped_lines(report: RooflineReport) -> list[str]:
    """Say which levels are left out, and why."""
    return [f"{each.levels} levels are left out: {each.reason}" for each in report.skipped]


def condition_lines(report: RooflineReport) -> list[str]:
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
