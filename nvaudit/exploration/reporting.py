"""From what a search has found to the report of an exploration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nvaudit.exploration.search import DesignChoice, SearchedPoint
from nvaudit.exploration.space import Settings, Space
from nvaudit.exploration.spec import ExploreOptions, Objective
from nvaudit.perturb.metrics import Metric
from nvaudit.report.explore.result import (
    COSTS,
    BaselineComparison,
    ExploredPoint,
    ExploreEffort,
    ExploreReport,
    LeftOut,
    PointCost,
    PointStatus,
    cost_text,
)
from nvaudit.report.gates import gate_result
from nvaudit.report.sections import MetricInfo, TimeBox
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    interval_text,
    kpp_name,
    limit_text,
    value_text,
)
from nvaudit.spec import RunSpec
from nvaudit.stats.gate import Gate
from nvaudit.stats.kpp import KppResult, kpp


@dataclass(frozen=True)
class PointNumbers:
    """What is known of the points, by their number in the space.

    Attributes
    ----------
    commands : mapping of int to str
        That audit a point.
    statuses : mapping of int to (status, int or None)
        Of points that were not audited, with the cheaper one of the same chips.
    results : sequence of SearchedPoint
        Of those that were.
    """

    space: Space
    settings: Sequence[Settings]
    commands: Mapping[int, str]
    costs: Mapping[int, PointCost]
    statuses: Mapping[int, tuple[PointStatus, int | None]]
    results: Sequence[SearchedPoint]
    ties: Mapping[int, int | None]
    gates: Mapping[int, Gate]


@dataclass(frozen=True)
class Exploration:
    """What was asked for, and what was found besides the points."""

    spec: RunSpec
    own: ExploreOptions
    metric: Metric
    nominal: float
    technology: str
    budgets: Mapping[Objective, float]
    left_out: tuple[LeftOut, ...]
    choice: DesignChoice | None
    baseline: tuple[Settings, str, PointCost, SearchedPoint] | None
    scouted: int
    exhaustive: int
    raced: bool
    not_bounded: str
    error: float
    minutes: float


def explore_report(numbers: PointNumbers, asked: Exploration, header: Mapping[str, Any]) -> ExploreReport:
    """Put a report together; the line that stands first is made here.

    Parameters
    ----------
    header : mapping
        Fields of :class:`nvaudit.report.header.Header`.
    """
    by_point = {result.point: result for result in numbers.results}
    points = [_point(number, numbers, by_point.get(number), asked) for number in numbers.costs]
    points.sort(key=lambda point: (point.costs(asked.own.against), point.number))
    front = tuple(result.point for result in numbers.results if result.place == "front")
    run = [result for result in numbers.results if result.place not in ("invalid", "not_reached")]
    base_images = 0 if asked.baseline is None else asked.baseline[3].images
    effort = ExploreEffort(
        combinations=numbers.space.size,
        audited=len(run),
        measured=sum(result.kpp is not None for result in run),
        raced=asked.raced,
        bounded=not asked.not_bounded,
        not_raced=asked.not_bounded,
        chips=sum(result.chips for result in run),
        images_evaluated=asked.scouted + sum(result.images for result in run),
        images_exhaustive=asked.exhaustive,
        images_baseline=base_images,
        error=asked.error,
    )
    metric, spec, boxed = asked.metric, asked.spec, _boxed(numbers.results, asked)
    report = ExploreReport(
        **{**header, "headline": ""},
        label_free=header["data"]["label_kind"] == "none",
        metric=metric.name,
        metric_info=MetricInfo.model_validate(metric, from_attributes=True),
        nominal=asked.nominal,
        technology=asked.technology,
        percentile=spec.percentiles[0],
        confidence=spec.confidence,
        trials=spec.trials,
        against=asked.own.against,
        min_kpp=spec.min_kpp,
        budgets=dict(asked.budgets),
        axes={name: tuple(_json(value) for value in values) for name, values in numbers.space.axes.items()},
        points=tuple(points),
        front=front,
        recommended=None if asked.choice is None else asked.choice.point,
        why="",
        left_out=asked.left_out,
        effort=effort,
        time_boxed=boxed,
    )
    if boxed is not None:
        report = report.model_copy(update={"notes": (boxed.text, *report.notes)})
    report = report.model_copy(update={"why": _why(report, asked.choice)})
    report = report.model_copy(update={"baseline": _baseline(report, numbers, asked)})
    return report.model_copy(update={"headline": _headline(report)})


def _boxed(results: Sequence[SearchedPoint], asked: Exploration) -> TimeBox | None:
    """Say how far the search came where its time was over."""
    done = sum(result.place != "not_reached" for result in results)
    if done == len(results) or asked.spec.max_minutes is None:
        return None
    whole = asked.minutes * len(results) / done if done else None
    return TimeBox(
        minutes=asked.spec.max_minutes, done=done, wanted=len(results), what="point", whole_minutes=whole
    )


def _point(
    number: int, numbers: PointNumbers, result: SearchedPoint | None, asked: Exploration
) -> ExploredPoint:
    """Describe a point that has a cost."""
    if result is None:
        status, against = numbers.statuses[number]
    else:
        status, against = result.place, result.against
    gate = numbers.gates.get(number)
    return _described(
        number,
        numbers.space,
        numbers.settings[number],
        numbers.commands[number],
        numbers.costs[number],
        result,
        asked,
    ).model_copy(
        update={
            "status": status,
            "against": against,
            "tied_with": numbers.ties.get(number),
            "gate": None if gate is None else gate_result(gate, asked.metric.higher_is_better),
        }
    )


def _described(
    number: int,
    space: Space,
    settings: Settings,
    command: str,
    cost: PointCost,
    result: SearchedPoint | None,
    asked: Exploration,
) -> ExploredPoint:
    """Describe a point by itself, as one of the front."""
    sign = 1.0 if asked.metric.higher_is_better else -1.0
    known = result is not None and result.chips > 0
    return ExploredPoint(
        number=number,
        label=space.label(settings),
        settings={name: _json(value) for name, value in settings.items()},
        cost=cost,
        status="front",
        reason="" if result is None else result.reason,
        kpp=_kpp(result, asked),
        at_most=sign * result.at_most if result is not None and known else None,
        chips=0 if result is None else result.chips,
        images=0 if result is None else result.images,
        command=command,
    )


def _kpp(result: SearchedPoint | None, asked: Exploration) -> KppResult | None:
    """The KPP with its interval; chips of a race are known as far as these need it."""
    if result is None or result.known is None:
        return None
    higher, spec = asked.metric.higher_is_better, asked.spec
    values = result.known.low if higher else -result.known.low
    return kpp(values, spec.percentiles[0], spec.confidence, higher)


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _why(report: ExploreReport, choice: DesignChoice | None) -> str:
    """Say why the recommended point is it, without a full stop."""
    name, unit = kpp_name(report.percentile), report.metric_info.unit
    cheapest = {"energy": "takes the least energy", "edp": "has the least energy-delay product",
                "latency": "is the fastest", "area": "is the smallest"}[report.against]  # fmt: skip
    within = " within the budget" if report.budgets else ""
    if choice is None:
        if not report.effort.audited:
            if report.time_boxed is not None:
                return "no point was run before the time was over; give more --max-minutes"
            return f"no point lies within the budget; {_least(report)}"
        wanted = "" if report.min_kpp is None else f" {name} {limit_text(report.min_kpp, unit)}"
        return f"no point{within} reaches{wanted}"
    if report.min_kpp is not None:
        wanted = f"{name} {limit_text(report.min_kpp, unit)}"
        if choice.passes:
            return f"it {cheapest} of all points{within} that surely reach {wanted}"
        return (
            f"it {cheapest} of all points{within} whose chips reach {wanted}; that it does is not sure at "
            f"{confidence_text(report.confidence)} with {count_text(report.trials, 'chip')}"
        )
    best = report.on_front[-1]
    if choice.point == best.number:
        extreme = "largest" if report.metric_info.higher_is_better else "smallest"
        return f"its {name} is the {extreme} of all points{within}"
    return f"it {cheapest} of all points{within} that none is surely better than"


def _least(report: ExploreReport) -> str:
    """Say what the points take at least of what there is a budget for."""
    priced = [point for point in report.points if point.cost is not None]
    least = [min(priced, key=lambda point: point.costs(cost)) for cost in report.budgets]
    parts = [
        f"{COSTS[cost][1]} {cost_text(one, cost)}" for cost, one in zip(report.budgets, least, strict=True)
    ]
    return f"the least {' and '.join(parts)}"


def _baseline(report: ExploreReport, numbers: PointNumbers, asked: Exploration) -> BaselineComparison | None:
    """Compare the recommended point with the one that was named."""
    if asked.baseline is None or report.recommended is None:
        return None
    settings, spec, cost, result = asked.baseline
    point = _described(-1, numbers.space, settings, spec, cost, result, asked)
    chosen = report.point(report.recommended)
    saved = {cost_: 1 - chosen.costs(cost_) / point.costs(cost_) for cost_ in COSTS if point.costs(cost_)}
    change = None if point.kpp is None or chosen.kpp is None else chosen.kpp.value - point.kpp.value
    return BaselineComparison(point=point, saved=saved, kpp_change=change)


def _headline(report: ExploreReport) -> str:
    """Say what is recommended, in one line."""
    name, unit = kpp_name(report.percentile), report.metric_info.unit
    if report.recommended is None:
        text = f"of {count_text(report.effort.combinations, 'point')}, {report.why}"
    else:
        point = report.point(report.recommended)
        assert point.kpp is not None
        text = (
            f"{point.label}: {cost_text(point, report.against)}, {name} {report.metric} "
            f"{value_text(point.kpp.value, unit)} {interval_text(point.kpp.low, point.kpp.high, unit)} on "
            f"{report.device_name}, the best choice of {report.effort.combinations:,}: {report.why}"
        )
    if report.time_boxed is not None and report.time_boxed.done:
        text += f" ({report.time_boxed.done} of {report.time_boxed.wanted} points within the time)"
    if report.label_free:
        text = f"LABEL-FREE (no labels: compared with the unperturbed model only): {text}"
    return report.metric_info.cautioned(text)
