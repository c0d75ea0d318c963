"""What a number of trials can and cannot say, and what a wanted answer costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, JsonValue

from nvaudit.report.header import Header
from nvaudit.report.records import Tables, flat, records_of
from nvaudit.report.sections import ReportPart
from nvaudit.report.wording import count_text
from nvaudit.stats.anytime import sequential_verdict
from nvaudit.stats.binomial import (
    at_most,
    check_confidence,
    check_percentile,
    first_true,
    interval_ranks,
    standard_error,
    trials_for_bound,
    within,
)
from nvaudit.stats.gate import MOST_TRIALS, verdict_of
from nvaudit.stats.kpp import kpp_index

FAILURES = (0, 1, 2, 5)
"""Failing chips for which the trials of a passing gate are worked out."""


class Need(ReportPart):
    """What an answer takes; null where a run cannot have so many trials."""

    trials: int | None
    images: int | None = Field(description="Inferences: trials x images x points of the sweep.")
    seconds: float | None = Field(description="Estimated, with everything before the first chip.")


class GateNeed(ReportPart):
    """What a gate takes that passes with some failing chips."""

    failures: int = Field(ge=0)
    need: Need


class PercentilePlan(ReportPart):
    """What the trials say about one percentile. Ranks are 1-based from the worst chip."""

    percentile: float = Field(gt=0, lt=100)
    rank: int = Field(description="Of the KPP.")
    worst_rank: int | None = Field(description="Of the interval's bound on the worst side; null: none.")
    best_rank: int | None = Field(description="Of the interval's other bound; null: none.")
    gate_passes_up_to: int | None = Field(description="Failing chips; null: it cannot pass.")
    gate_fails_from: int | None = Field(description="Failing chips; null: it cannot fail.")
    interval: Need = Field(description="For a two-sided interval with a bound on the worst side.")
    gates: tuple[GateNeed, ...] = Field(description="With a number of trials fixed beforehand.")
    gate_draws: int | None = Field(
        description="Chips that a gate draws if none fails, where it draws them until it is decided."
    )


class Timing(ReportPart):
    """The measurement behind the estimated times."""

    workers: int = Field(ge=0)
    chips: int = Field(ge=1, description="How many were timed.")
    seconds_per_chip: float = Field(description="All workers together.")
    seconds_before_chips: float


class AuditPlan(Header):
    """What an audit would say and cost; written by ``nvaudit audit --plan``."""

    kind: Literal["plan"] = "plan"
    device: dict[str, JsonValue]
    metric: str
    unit: str
    nominal: float = Field(description="Metric of the unmodified model.")
    images: int = Field(ge=1)
    points: int = Field(ge=1, description="Of the sweep.")
    confidence: float
    trials: int = Field(ge=1)
    given: Need = Field(description="What the given trials cost.")
    percentiles: tuple[PercentilePlan, ...]
    standard_error: float | None = Field(
        description="Binomial standard error of the nominal accuracy: the evaluation set is finite too."
    )
    timing: Timing  # type: ignore[assignment]  # what was timed, not how long each step took


@dataclass(frozen=True)
class PlannedAudit:
    """What would be audited; ``header`` holds what every report says of it."""

    metric: str
    unit: str
    nominal: float
    label_free: bool
    header: Mapping[str, Any]


@dataclass(frozen=True)
class Costs:
    """What a chip costs.

    Attributes
    ----------
    images : int
        In the evaluation set.
    points : int
        Of the sweep.
    workers, timed : int
        Worker processes, and how many chips they ran to be timed.
    chip_s : float
        Seconds per chip, all workers together.
    start_s : float
        Seconds before the first chip.
    """

    images: int
    points: int
    workers: int
    timed: int
    chip_s: float
    start_s: float

    def of(self, trials: int | None) -> Need:
        """Price a number of trials."""
        if trials is None or trials > MOST_TRIALS:
            return Need(trials=None, images=None, seconds=None)
        chips = trials * self.points
        return Need(trials=trials, images=chips * self.images, seconds=self.start_s + chips * self.chip_s)


def trials_to_pass(failures: int, percentile: float, confidence: float) -> int | None:
    """Fewest trials with which a gate passes although some chips fail.

    Parameters
    ----------
    percentile : float
        Percent of all chips that may fail.
    confidence : float
        One-sided.

    Returns
    -------
    int or None
        Smallest n with P(X ≤ failures) ≤ 1 - confidence for X binomial(n, percentile/100); None above
        100 million.

    Examples
    --------
    >>> [trials_to_pass(f, 1, 0.95) for f in (0, 1, 2, 5)]
    [299, 473, 628, 1049]
    """
    prob = float(check_percentile(percentile))
    check_confidence(confidence)
    return first_true(lambda n: within(at_most(failures, n, prob), 1 - confidence), failures + 1, MOST_TRIALS)


def gate_limits(trials: int, percentile: float, confidence: float) -> tuple[int | None, int | None]:
    """Most failing chips with which a gate passes, and fewest with which it fails.

    Returns
    -------
    most, fewest : int or None
        None where these trials cannot give the verdict.

    Examples
    --------
    >>> gate_limits(1000, 1, 0.95), gate_limits(298, 1, 0.95)
    ((4, 16), (None, 7))
    """
    prob = float(check_percentile(percentile))
    check_confidence(confidence)
    error = 1 - confidence
    # P(X ≤ f) grows with f: the gate passes with every number of failures before the first that is too
    # probable, and fails from the first that is too many on.
    beyond = first_true(lambda f: not within(at_most(f, trials, prob), error), 0, trials)
    most = trials if beyond is None else beyond - 1
    fewest = first_true(lambda f: verdict_of(f, trials, percentile, confidence) == "fail", 0, trials)
    return (most if most >= 0 else None), fewest


def make_plan(
    subject: PlannedAudit, costs: Costs, *, trials: int, percentiles: Sequence[float], confidence: float
) -> AuditPlan:
    """Work out a plan."""
    timing = Timing(
        workers=costs.workers,
        chips=costs.timed,
        seconds_per_chip=costs.chip_s,
        seconds_before_chips=costs.start_s,
    )
    plan = AuditPlan(
        **{**subject.header, "timing": timing},
        headline="",
        metric=subject.metric,
        unit=subject.unit,
        label_free=subject.label_free,
        nominal=subject.nominal,
        images=costs.images,
        points=costs.points,
        confidence=confidence,
        trials=trials,
        given=costs.of(trials),
        percentiles=tuple(_percentile(k, trials, confidence, costs) for k in percentiles),
        standard_error=standard_error(subject.nominal, costs.images, subject.metric, subject.unit),
    )
    return plan.model_copy(update={"headline": plan_headline(plan)})


def plan_headline(plan: AuditPlan) -> str:
    """Say what would be audited, and that nothing was."""
    free = "LABEL-FREE " if plan.label_free else ""
    each = f" at each of {plan.points} sigmas" if plan.points > 1 else ""
    return (
        f"{free}PLAN (nothing was audited): {plan.metric} on {plan.device_name}, "
        f"{count_text(plan.trials, 'chip')}{each}, {count_text(plan.images, 'image')}"
    )


def _percentile(percentile: float, trials: int, confidence: float, costs: Costs) -> PercentilePlan:
    worst, best = interval_ranks(float(percentile), trials, float(confidence))
    passes, fails = gate_limits(trials, percentile, confidence)
    return PercentilePlan(
        percentile=percentile,
        rank=kpp_index(percentile, trials) + 1,
        worst_rank=worst,
        best_rank=best,
        gate_passes_up_to=passes,
        gate_fails_from=fails,
        interval=costs.of(trials_for_bound(percentile, confidence, sided=2)),
        gates=tuple(
            GateNeed(failures=f, need=costs.of(trials_to_pass(f, percentile, confidence))) for f in FAILURES
        ),
        gate_draws=first_true(
            lambda n: sequential_verdict(0, n, percentile, confidence) == "pass", 1, MOST_TRIALS
        ),
    )


def tables(plan: AuditPlan) -> Tables:
    """What the trials say about each percentile, and what gates take that pass with some failures."""
    return {
        "percentiles": records_of(flat(item) for item in plan.percentiles),
        "gates": records_of(
            {"percentile": item.percentile, "failures": gate.failures, **flat(gate.need)}
            for item in plan.percentiles
            for gate in item.gates
        ),
    }
