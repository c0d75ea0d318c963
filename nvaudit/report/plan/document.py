"""What a plan says."""

from __future__ import annotations

from collections.abc import Iterator

from nvaudit.report.codes import codes_number
from nvaudit.report.document import Bullets, Cell, Document, Hero, KeyFigure, Number, Section, Table
from nvaudit.report.parts import warnings
from nvaudit.report.plan.result import AuditPlan, Need, PercentilePlan, plan_headline
from nvaudit.report.wording import confidence_text, count_text, duration_estimate, kpp_name, value_text
from nvaudit.stats.gate import MOST_TRIALS


def plan_document(plan: AuditPlan) -> Document:
    """Say what an audit would say and cost; the headline says that nothing was audited."""
    sections = [_percentile(plan, place) for place in range(len(plan.percentiles))]
    return Document(
        title=plan.headline or plan_headline(plan),
        subject="Plan of an audit",
        subtitle=f"{plan.metric} on {plan.device_name}",
        hero=_hero(plan),
        sections=(*sections, Section("reading", "How to read it", (Bullets(tuple(_remarks(plan))),))),
        version=plan.nvaudit_version,
    )


def _hero(plan: AuditPlan) -> Hero:
    need, timing = plan.given, plan.timing
    each = f" at each of {plan.points} sigmas" if plan.points > 1 else ""
    numbers = [KeyFigure("chips", f"{plan.trials:,}", f"as given{each}", main=True)]
    if need.images is not None and need.seconds is not None:
        pace = f"{_pace(timing.seconds_per_chip)} a chip"
        numbers += [
            KeyFigure("images", f"{need.images:,}", "inferences, every chip on every image"),
            KeyFigure("time", duration_estimate(need.seconds), pace),
        ]
    return Hero(
        role="none",
        word="",
        title="Nothing was audited",
        lines=(),
        numbers=(*numbers, *codes_number(plan.codes)),
        warnings=warnings(plan, None),
    )


def _percentile(plan: AuditPlan, place: int) -> Section:
    item = plan.percentiles[place]
    needs = [("this run", plan.given), ("an interval with a bound on the worst side", item.interval)]
    needs += [
        (f"a gate that passes with {count_text(gate.failures, 'failing chip')}", gate.need)
        for gate in item.gates
    ]
    chips = count_text(plan.trials, "chip")
    return Section(
        f"percentile-{place + 1}",
        f"{kpp_name(item.percentile)}, {confidence_text(plan.confidence)} confidence",
        (
            Bullets((f"{chips}: {_interval(item)}.", f"{chips}: {_gate(item, plan.trials)}.")),
            Table(
                f"needs-{place + 1}", "What each answer takes.", ("for", "chips", "images", "time"),
                tuple(_need_row(label, need) for label, need in needs), numeric=(1, 2, 3),
            ),
        ),
    )  # fmt: skip


def _interval(item: PercentilePlan) -> str:
    ends = [
        f"no bound on the {side} side" if rank is None else _ordinal(rank)
        for rank, side in ((item.worst_rank, "worst"), (item.best_rank, "best"))
    ]
    return f"the KPP is the {_ordinal(item.rank)} chip, its interval is [{ends[0]}, {ends[1]}]"


def _ordinal(rank: int) -> str:
    ending = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return "worst" if rank == 1 else f"{rank:,}{ending} worst"


def _gate(item: PercentilePlan, trials: int) -> str:
    most, fewest = item.gate_passes_up_to, item.gate_fails_from
    if most is None and fewest is None:
        return "a gate is always undecided"
    passes, fails = "a gate cannot pass", "cannot fail"
    if most is not None:
        passes = f"a gate passes with at most {count_text(most, 'failing chip')}"
    if fewest is not None:
        fails = f"fails with {fewest:,}{' or more' if fewest < trials else ''}"
    return f"{passes}, {fails}, and is undecided otherwise"


def _need_row(label: str, need: Need) -> tuple[Cell, ...]:
    if need.trials is None or need.images is None or need.seconds is None:
        beyond = Number(MOST_TRIALS + 1, f"more than {MOST_TRIALS:,}")
        return (label, beyond, Number(None, ""), Number(None, ""))
    return (
        label,
        Number(need.trials, f"{need.trials:,}"),
        Number(need.images, f"{need.images:,}"),
        Number(need.seconds, duration_estimate(need.seconds)),
    )


def _remarks(plan: AuditPlan) -> Iterator[str]:
    timing = plan.timing
    where = count_text(timing.workers, "worker") if timing.workers else "this process"
    yield (
        f"Times are estimated from {count_text(timing.chips, 'chip')} run with {where}: "
        f"{_pace(timing.seconds_per_chip)} a chip, and {timing.seconds_before_chips:.2g} s before the first."
    )
    yield (
        "Images and times are those of every chip on every image (--exhaustive). With many images chips stop "
        "as soon as they surely do not matter, which mostly leaves a tenth to a quarter of both."
    )
    for item in plan.percentiles:
        if item.gate_draws is not None:
            of = "" if len(plan.percentiles) == 1 else f" ({kpp_name(item.percentile)})"
            yield (
                f"The figures of a gate are for a fixed number of chips (--all-trials). By default it draws "
                f"chips until it is decided: {item.gate_draws:,} if none fails, fewer if many do{of}."
            )
    if plan.points > 1:
        yield f"Images and times are those of all {plan.points} sigmas together."
    if plan.standard_error is not None:
        yield (
            f"The evaluation set is finite too: the standard error of the ideal {plan.metric}, "
            f"{value_text(plan.nominal, plan.unit)}, on {count_text(plan.images, 'image')} is "
            f"{value_text(plan.standard_error, plan.unit)}; more chips do not make it smaller."
        )


def _pace(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{1e3 * seconds:.3g} ms"
