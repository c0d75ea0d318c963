"""From audits with different numbers of levels to the report of a roofline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydantic import JsonValue

from nvaudit.report.comparison.measures import size_of
from nvaudit.report.cost.result import figures_of
from nvaudit.report.mapped import share_clause
from nvaudit.report.result import AuditReport
from nvaudit.report.roofline.limits import LimitedBy, Roof, default_margin, judge
from nvaudit.report.roofline.result import (
    ALONE_WORDS,
    LIMIT_WORDS,
    ChipsPoint,
    LevelResult,
    RooflineReport,
    SkippedLevel,
    measure_name,
)
from nvaudit.report.sections import InputHashes, MetricInfo
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    difference_text,
    interval_text,
    share_of_weights_text,
    value_text,
)
from nvaudit.spec import RooflineMeasure


@dataclass(frozen=True)
class LevelAudits:
    """The audits of one number of levels.

    Attributes
    ----------
    ideal : AuditReport
        With ideal converters.
    converted : AuditReport or None
        With the converters asked for, if there are any.
    """

    cell_bits: int
    ideal: AuditReport
    converted: AuditReport | None = None


@dataclass(frozen=True)
class Asked:
    """What is asked of the audits.

    Attributes
    ----------
    margin : float or None
        None for the default.
    converters : mapping or None
        Their options.
    """

    rank_by: RooflineMeasure = "kpp"
    margin: float | None = None
    converters: Mapping[str, JsonValue] | None = None


def make_roofline(
    audits: Sequence[LevelAudits],
    skipped: Sequence[SkippedLevel],
    asked: Asked,
    *,
    version: str,
    notes: Sequence[str] = (),
    seconds: float,
) -> RooflineReport:
    """Put audits with different numbers of levels into one report.

    Parameters
    ----------
    audits : sequence of LevelAudits
        One or more, of the same model, data and options.
    version : str
        Of nvaudit.
    seconds : float
        Of everything.
    """
    first = audits[0].ideal
    info = first.metric_info
    margin = default_margin(info.unit, first.quantised) if asked.margin is None else asked.margin
    levels = tuple(
        _level(one, asked.rank_by, margin) for one in sorted(audits, key=lambda one: one.cell_bits)
    )
    best, cheapest = _choose(levels, asked.rank_by, margin, info.higher_is_better)
    report = RooflineReport(
        nvaudit_version=version,
        headline="",
        label_free=first.label_free,
        metric=first.metric,
        metric_info=info,
        nominal=first.nominal,
        device=first.device,
        hashes=InputHashes(model=first.hashes.model, data=first.hashes.data),
        converters=None if asked.converters is None else dict(asked.converters),
        percentile=first.kpp[0].percentile,
        confidence=first.kpp[0].confidence,
        rank_by=asked.rank_by,
        margin=margin,
        levels=levels,
        skipped=tuple(skipped),
        best=best.levels,
        cheapest=cheapest.levels,
        mapped=first.mapped,
        data=first.data,
        model=first.model,
        runtime=first.runtime,
        notes=(*notes, *_common(levels)),
        timing={"total": seconds},
    )
    shared = set(_common(levels))
    own = tuple(
        level.model_copy(update={"notes": tuple(note for note in level.notes if note not in shared)})
        for level in levels
    )
    return report.model_copy(update={"headline": headline(report), "levels": own})


def _level(audits: LevelAudits, rank_by: RooflineMeasure, margin: float) -> LevelResult:
    ideal, converted = audits.ideal, audits.converted
    device = _chips(ideal)
    both = None if converted is None else _chips(converted)
    roof = Roof(
        quantised=ideal.quantised,
        device=device.at(rank_by),
        adc=None if converted is None else converted.quantised,
        both=None if both is None else both.at(rank_by),
    )
    info = ideal.metric_info
    limit, settled = judge(roof, margin, info.higher_is_better)
    runs = [run for run in (ideal, converted) if run is not None]
    return LevelResult(
        levels=2**audits.cell_bits,
        cell_bits=audits.cell_bits,
        slices=max(tensor.slices or 1 for tensor in ideal.tensors),
        quantised=ideal.quantised,
        device=device,
        adc=roof.adc,
        both=both,
        limit=limit,
        settled=settled,
        verdict=verdict_words(roof, limit, settled, info),
        share_converted=None if runs[-1].crossbar is None else runs[-1].crossbar.share_of_weights,
        size=size_of(runs[-1].tensors),  # with converters the crossbars that were really filled
        codes=ideal.codes,
        cost=None if converted is None else figures_of(converted.cost),
        operating_point=ideal.operating_point,
        run=ideal.run,
        hashes=ideal.hashes,
        seconds=sum(run.timing.get("total", 0.0) for run in runs),
        notes=tuple(dict.fromkeys(note for run in runs for note in run.notes)),
        events=tuple(event for run in runs for event in run.events),
    )


def _chips(report: AuditReport) -> ChipsPoint:
    chips = report.trials
    return ChipsPoint(
        mean=chips.mean,
        mean_error=chips.std / math.sqrt(chips.count) if chips.count > 1 else None,
        std=chips.std,
        kpp=report.kpp[0],
        trials=chips.count,
        images_evaluated=chips.images_evaluated,
        images_exhaustive=chips.images_exhaustive,
        exact=chips.exact,
    )


def _choose(
    levels: Sequence[LevelResult], rank_by: RooflineMeasure, margin: float, higher_is_better: bool
) -> tuple[LevelResult, LevelResult]:
    """Find the best number of levels, and the smallest array within the margin of it."""
    sign = 1.0 if higher_is_better else -1.0
    value = {level.levels: sign * level.realistic.at(rank_by).value for level in levels}
    best = min(levels, key=lambda level: (-value[level.levels], level.size.devices))
    alike = [level for level in levels if value[best.levels] - value[level.levels] <= margin]
    return best, min(alike, key=lambda level: (level.size.devices, -value[level.levels]))


def _common(levels: Sequence[LevelResult]) -> Iterator[str]:
    """Give the notes that every level has."""
    every = [set(level.notes) for level in levels]
    return (note for note in levels[0].notes if all(note in notes for notes in every))


def headline(report: RooflineReport) -> str:
    """Say the best number of levels and what limits, in one line."""
    level = next(level for level in report.levels if level.levels == report.best)
    interval = level.realistic.at(report.rank_by)
    info = report.metric_info
    name = measure_name(report)
    among = "the only ones run" if len(report.levels) == 1 else f"best of {len(report.levels)} by {name}"
    text = (
        f"{report.best} levels are {among}: {name} {report.metric} {value_text(interval.value, info.unit)} "
        f"{interval_text(interval.low, interval.high, info.unit)} ({confidence_text(report.confidence)}) on "
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


def verdict_words(roof: Roof, limit: LimitedBy, settled: bool, info: MetricInfo) -> str:
    """Say what limits one number of levels, and what each part costs."""
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
