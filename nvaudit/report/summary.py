"""From measured numbers to the audit report: KPP, yields, gates, the line that comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nvaudit.report.chips import Chips, kpp_of_chips, shift_at, weighted_std
from nvaudit.report.crossbar import CrossbarInfo, converters_words
from nvaudit.report.drops import DropResult, drop_result
from nvaudit.report.gates import GateResult, gate_result
from nvaudit.report.mapped import MappedShare, joint_verdict, judge_share, share_clause
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import (
    RARE_CHIP,
    DataInfo,
    Interrupted,
    MetricInfo,
    OperatingPointInfo,
    RaceInfo,
    SweepPoint,
    TensorDecision,
    TimeBox,
    TrialSummary,
)
from nvaudit.report.tails import TailResult, tail_result
from nvaudit.report.wording import (
    count_text,
    duration_text,
    kpp_name,
    listed_text,
    odds,
    sigma_text,
    value_text,
)
from nvaudit.stats.anytime import sequential_gate
from nvaudit.stats.binomial import standard_error
from nvaudit.stats.drop import FormerChips
from nvaudit.stats.gate import Verdict, decide_count, overall_verdict
from nvaudit.stats.kpp import YieldResult, yield_at, yield_of
from nvaudit.stats.tail import known_worst, metric_steps, tail_kpp


@dataclass(frozen=True)
class MeasuredAudit:
    """What the Monte-Carlo measured.

    Attributes
    ----------
    chips : tuple of Chips
        At each point.
    samples : int
        Of the evaluation set.
    tolerance : float or None
        As asked for.
    sigmas : tuple of float
        One per point.
    together : int
        How many samples run at a time where they influence each other, else 0.
    caution : str
        What a reader must know before the numbers; empty: nothing.
    """

    metric: str
    unit: str
    higher_is_better: bool
    assumed: tuple[str, ...]
    nominal: float
    quantised: float
    chips: tuple[Chips, ...]
    samples: int
    tolerance: float | None
    sigmas: tuple[float, ...]
    sigma_unit: str
    together: int = 0
    caution: str = ""


@dataclass(frozen=True)
class Questions:
    """What is asked: percentiles, confidence, yields, the gate's threshold, tails, the share on the array.

    ``baseline`` has the chips of the report that must not be better by more than ``max_drop``, by sigma.
    """

    percentiles: tuple[float, ...]
    confidence: float
    yield_at: tuple[float, ...]
    min_kpp: float | None
    tail: tuple[float, ...] = ()
    require_mapped: float | None = None
    max_drop: float | None = None
    baseline: Mapping[float, FormerChips] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditions:
    """What a headline has to say beside the numbers.

    Attributes
    ----------
    level_of : str or None
        Whose level spacings sigma is in, where that is not plain.
    time_s : float
        Since programming.
    additions : tuple of str
        What options add to the noise of the profile, in words.
    """

    level_of: str | None
    mapped: MappedShare | None
    crossbar: CrossbarInfo | None
    time_s: float = 0.0
    additions: tuple[str, ...] = ()


_ADDITIONS = {
    "stuck_at": "stuck at {}",
    "read_noise": "read noise {}",
    "correlated": "correlated {}",
    "write_verify": "write-verify {}",
}
"""Options that add to the noise of a profile, in words, with their values."""


def additions_text(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what options of a run add to the noise of the profile, or take from it.

    Examples
    --------
    >>> additions_text({"read_noise": "0.01", "disable": ["drift"], "drift_compensation": True})
    ('read noise 0.01', 'without drift', 'drift compensation')
    """
    given = [text.format(run[name]) for name, text in _ADDITIONS.items() if run.get(name) is not None]
    given += [f"with {term}" for term in run.get("enable") or ()]
    given += [f"without {term}" for term in run.get("disable") or ()]
    return (*given, *(["drift compensation"] if run.get("drift_compensation") else []))


def summarise(
    measured: MeasuredAudit,
    questions: Questions,
    *,
    tensors: Sequence[TensorDecision],
    interrupted: Interrupted | None = None,
    time_boxed: TimeBox | None = None,
    data: Mapping[str, Any],
    operating_point: Mapping[str, Any],
    mapped: MappedShare | None = None,
    **rest: Any,
) -> AuditReport:
    """Make the report: of a sweep with the point of largest sigma at the top; every point must pass the gate.

    Parameters
    ----------
    data : mapping
        Fields of ``DataInfo`` but the standard error.
    interrupted, time_boxed
        Of a run that was ended early.
    operating_point : mapping
        Fields of ``OperatingPointInfo`` but sigma and its unit.
    mapped : MappedShare, optional
        None where it was not counted.
    **rest
        Further fields of ``AuditReport``.
    """
    points = measured_points(measured, questions)
    worst = max(points, key=lambda point: point.sigma)
    gates = tuple(gate for point in points for gate in point.gate)
    drops = tuple(drop for point in points for drop in point.drops)
    label_free = data["label_kind"] == "none"
    share_gate = None if mapped is None else judge_share(mapped, questions.require_mapped)
    verdict = joint_verdict(overall_verdict((*gates, *drops)), share_gate)
    error = standard_error(measured.nominal, data["count"], measured.metric, measured.unit)
    where = Conditions(
        operating_point.get("level_of"), mapped, rest.get("crossbar"), operating_point["time_s"],
        additions_text(rest["run"]),
    )  # fmt: skip
    return AuditReport(
        headline=_headline(
            measured, worst, verdict, label_free, rest["device"]["name"], where, interrupted or time_boxed,
            [one.probability for one in rest.get("rare", ()) if one.value is None],
        ),
        label_free=label_free,
        verdict=verdict if interrupted is None else None,
        interrupted=interrupted,
        time_boxed=time_boxed,
        mapped=mapped,
        mapped_gate=share_gate,
        metric=measured.metric,
        metric_info=MetricInfo.model_validate(measured, from_attributes=True),
        nominal=measured.nominal,
        quantised=measured.quantised,
        kpp=worst.kpp,
        yields=worst.yields,
        tail=worst.tail,
        gate=gates,
        drops=worst.drops,
        trials=worst.trials,
        sweep=points if len(points) > 1 else (),
        tensors=tuple(tensors),
        data=DataInfo(**data, standard_error=error),
        operating_point=OperatingPointInfo(**operating_point, sigma=worst.sigma, sigma_unit=worst.sigma_unit),
        **rest,
    )  # fmt: skip


def measured_points(measured: MeasuredAudit, questions: Questions) -> tuple[SweepPoint, ...]:
    """What was measured at each point of a sweep."""
    return tuple(_point(measured, questions, i) for i in range(len(measured.sigmas)))


def _point(measured: MeasuredAudit, questions: Questions, index: int) -> SweepPoint:
    chips = measured.chips[index]
    better = measured.higher_is_better
    kpps = tuple(kpp_of_chips(chips, k, questions.confidence, better) for k in questions.percentiles)
    thresholds = dict.fromkeys(
        (*questions.yield_at, *(() if questions.min_kpp is None else (questions.min_kpp,)))
    )
    return SweepPoint(
        sigma=measured.sigmas[index],
        sigma_unit=measured.sigma_unit,
        kpp=kpps,
        yields=tuple(_yield(chips, t, questions, better) for t in thresholds),
        gate=_gates(chips, questions, better),
        drops=_drops(measured, index, questions),
        tail=_tails(measured, chips, questions),
        trials=_trials(measured, chips, max(result.width for result in kpps)),
    )


def _trials(measured: MeasuredAudit, chips: Chips, width: float) -> TrialSummary:
    exact, weights = chips.exact, chips.weights()
    values = chips.low[exact]
    race = None
    if weights is not None:
        race = _race(chips, measured.tolerance)
    return TrialSummary(
        count=len(exact),
        values=tuple(float(value) if known else None for value, known in zip(chips.low, exact, strict=True)),
        weights=None if weights is None else tuple(weights.tolist()),
        images_evaluated=chips.images,
        images_exhaustive=len(exact) * measured.samples,
        exact=width == 0,
        race=race,
        mean=chips.mean,
        std=weighted_std(values, None if weights is None else weights[exact]),
        min=float(values.min()),
        max=float(values.max()),
    )


def _race(chips: Chips, tolerance: float | None) -> RaceInfo:
    """What races left open, and what is known of the chips that they stopped."""
    stopped = ~chips.exact
    info = RaceInfo(pilots=chips.pilots, stopped=int(stopped.sum()), error=chips.error, tolerance=tolerance)
    if chips.unraced is not None:  # ended early: no rank is sure to be settled
        return info
    at_least, at_most = (
        tuple(limit if np.isfinite(limit) else None for limit in limits[stopped].tolist())
        for limits in chips.limits()
    )
    shifts = [shift_at((rank,), rank.percentile) for rank in chips.ranges]
    low, high = (sum(of_side) for of_side in zip(*shifts, strict=True)) if shifts else (0, 0)
    return info.model_copy(
        update={"at_least": at_least, "at_most": at_most, "wrong_at_least": low, "wrong_at_most": high}
    )


def _tails(measured: MeasuredAudit, chips: Chips, questions: Questions) -> tuple[TailResult, ...]:
    """Percentiles beyond the sample, from the worst chips."""
    if not questions.tail:
        return ()
    if chips.unraced is not None:  # the tail's own ranks are not settled yet
        chips = Chips.known(chips.low[chips.unraced], chips.images)
    worst = known_worst(chips.low, chips.high, measured.higher_is_better)
    fraction, trials = measured.unit == "fraction", len(chips.low)
    return tuple(
        tail_result(
            tail_kpp(
                worst,
                trials,
                percentile,
                questions.confidence,
                measured.higher_is_better,
                steps=metric_steps(worst, measured.samples) if fraction else None,
                worst_possible=0.0 if fraction else None,
            ),
            percentile,
            questions.confidence,
            trials,
        )
        for percentile in questions.tail
    )


def _yield(chips: Chips, threshold: float, questions: Questions, better: bool) -> YieldResult:
    """Yield from all chips where it is known of each on which side it lies, else from the pilots."""
    if chips.gate is not None and threshold == questions.min_kpp:
        passing = chips.gate.trials - chips.gate.failures
        return yield_of(passing, chips.gate.trials, threshold, questions.confidence, better)
    if chips.exact.all():
        return yield_at(chips.low, threshold, questions.confidence, better)
    passes, fails = chips.low >= threshold, chips.high <= threshold  # of a stopped chip the limits are open
    sides = np.where(chips.exact, chips.low >= threshold, passes)
    if (chips.exact | passes | fails).all():
        return yield_of(int(sides.sum()), len(sides), threshold, questions.confidence, better)
    return yield_at(chips.low[: chips.pilots], threshold, questions.confidence, better)


def _gates(chips: Chips, questions: Questions, better: bool) -> tuple[GateResult, ...]:
    threshold, gate = questions.min_kpp, chips.gate
    if threshold is None:
        return ()
    if gate is not None:
        return tuple(
            gate_result(
                sequential_gate(gate.failures, gate.trials, threshold, k, questions.confidence),
                better,
                gate.stopped,
            )
            for k in questions.percentiles
        )
    result = _yield(chips, threshold, questions, better)
    failures = result.trials - result.passing
    return tuple(
        gate_result(decide_count(failures, result.trials, threshold, k, questions.confidence), better)
        for k in questions.percentiles
    )


def _drops(measured: MeasuredAudit, index: int, questions: Questions) -> tuple[DropResult, ...]:
    """Gates on the drop against the same chips of the baseline."""
    if questions.max_drop is None:
        return ()
    before, after = questions.baseline[measured.sigmas[index]], measured.chips[index].low
    pairs = min(len(before.low), len(after))
    return tuple(
        drop_result(
            before.first(pairs),
            after[:pairs],
            questions.max_drop,
            percentile,
            questions.confidence,
            measured.unit,
            measured.higher_is_better,
        )
        for percentile in questions.percentiles
    )


def _headline(
    measured: MeasuredAudit,
    worst: SweepPoint,
    verdict: Verdict | None,
    label_free: bool,
    device: str,
    where: Conditions,
    early: Interrupted | TimeBox | None,
    no_estimate: Sequence[float],
) -> str:
    result = worst.kpp[0]
    text = (
        f"{kpp_name(result.percentile)} {measured.metric} {value_text(result.value, measured.unit)} "
        f"on {device}, {sigma_text(worst.sigma, worst.sigma_unit, where.level_of)}, "
        f"{_more_conditions(where)}{_chips_text(result.trials, early)}{_together_clause(measured)}"
    )
    if early is not None and no_estimate:
        text += f"; no estimate of {listed_text([odds(one) for one in no_estimate])}"
        if early.what == RARE_CHIP:
            text += f": {early.done:,} of {count_text(early.wanted, early.what)}"
    if isinstance(early, TimeBox):
        text += f" within {early.minutes:g} min"
    text += share_clause(where.mapped)
    if isinstance(early, Interrupted):
        text = f"INTERRUPTED: {text}"
    elif verdict is not None:
        text = f"{verdict.upper()}: {text}"
    if label_free:
        text = f"LABEL-FREE (no labels: compared with the unperturbed model only): {text}"
    return f"{text} ({measured.caution})" if measured.caution else text


def _more_conditions(where: Conditions) -> str:
    """The time, what options add, and converters, where there is any."""
    return "".join(f"{text}, " for text in _parts(where.time_s, where.additions, where.crossbar))


def _parts(time_s: float, additions: Sequence[str], crossbar: CrossbarInfo | None) -> Iterator[str]:
    if time_s:
        yield f"{duration_text(time_s)} after programming"
    yield from (*additions, *converters_words(crossbar))


def conditions_text(report: AuditReport, sigma: str) -> str:
    """Say under which conditions an audit stands, as its headline does; ``sigma`` is that, in words."""
    crossbar = report.crossbar if isinstance(report.crossbar, CrossbarInfo) else None
    more = _parts(report.operating_point.time_s, additions_text(report.run), crossbar)
    return ", ".join((sigma, *more))


def common_conditions(reports: Sequence[AuditReport]) -> str:
    """Say under which conditions all of some audits stand; what differs between them is left out.

    The device, sigma, time, additions, converters, and the share on the array, as a headline ends with them:
    each after a semicolon, and nothing where nothing is common.
    """
    parts, shares = [], []
    for report in reports:
        point = report.operating_point
        crossbar = report.crossbar if isinstance(report.crossbar, CrossbarInfo) else None
        parts.append(
            (
                f"on {report.device.get('name', 'unnamed device')}",
                sigma_text(point.sigma, point.sigma_unit, point.level_of),
                *_parts(point.time_s, additions_text(report.run), crossbar),
            )
        )
        shares.append(share_clause(report.mapped))
    common = [part for part in parts[0] if all(part in other for other in parts)]
    share = shares[0] if len(set(shares)) == 1 else ""
    return (f"; {', '.join(common)}" if common else "") + share


def _together_clause(measured: MeasuredAudit) -> str:
    """Say how many samples ran at a time where that belongs to the result."""
    if not measured.together:
        return ""
    number = count_text(measured.together, "sample")
    return f", all {number} at once" if measured.together == measured.samples else f", {number} at a time"


def _chips_text(trials: int, early: Interrupted | TimeBox | None) -> str:
    """How many chips a KPP rests on, and of how many."""
    if early is None or early.what == RARE_CHIP:
        return f"{trials} chip{'' if trials == 1 else 's'}"
    if trials == early.done:
        return f"{trials} of {count_text(early.wanted, 'chip')}"
    return f"{count_text(trials, 'chip')} ({early.done} of {early.wanted} done)"
