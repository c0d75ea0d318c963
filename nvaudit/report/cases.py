"""What an audit was asked, question by question: a percentile at a sigma, with or without a gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from nvaudit.report.drops import DropResult, drop_lines, drop_numbers, drop_question
from nvaudit.report.gates import GateResult
from nvaudit.report.mapped import coverage_text
from nvaudit.report.records import Check, RecordValue, Tables, flat, number_text, records_of, share_check
from nvaudit.report.remedy import remedy_text
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import MetricInfo, SweepPoint
from nvaudit.report.steps import noiseless_steps
from nvaudit.report.summary import conditions_text
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    interval_text,
    kpp_name,
    limit_text,
    missing_bound_text,
    sigma_text,
    value_text,
)
from nvaudit.stats.gate import Verdict, overall_verdict
from nvaudit.stats.kpp import KppResult

AnyGate = TypeVar("AnyGate", GateResult, DropResult)


@dataclass(frozen=True)
class Case:
    """One question and its answer.

    Attributes
    ----------
    point : SweepPoint
        Where it was asked; without a sweep the only one there is.
    gate : GateResult or None
        None where nothing was demanded.
    drop : DropResult or None
        None where it was held against no baseline.
    """

    point: SweepPoint
    kpp: KppResult
    gate: GateResult | None
    drop: DropResult | None = None

    @property
    def verdict(self) -> Verdict | None:
        """Of both gates."""
        return overall_verdict(gate for gate in (self.gate, self.drop) if gate is not None)


def points_of(report: AuditReport) -> tuple[SweepPoint, ...]:
    """Every point of the sweep; without a sweep the operating point."""
    if report.sweep:
        return report.sweep
    where = report.operating_point
    only = SweepPoint(
        sigma=where.sigma,
        sigma_unit=where.sigma_unit,
        kpp=report.kpp,
        yields=report.yields,
        gate=report.gate,
        drops=report.drops,
        tail=report.tail,
        trials=report.trials,
    )
    return (only,)


def cases_of(report: AuditReport) -> tuple[Case, ...]:
    """Every percentile at every point, in the order of the report."""
    return tuple(
        Case(point, kpp, _of(kpp, point.gate), _of(kpp, point.drops))
        for point in points_of(report)
        for kpp in point.kpp
    )


def _of(kpp: KppResult, gates: Sequence[AnyGate]) -> AnyGate | None:
    """The gate of a percentile."""
    return next((gate for gate in gates if gate.percentile == kpp.percentile), None)


def deciding_point(report: AuditReport) -> SweepPoint | None:
    """The point whose gates are spelt out: None where no chip was gated.

    Of a sweep that passes the hardest one, with the largest sigma: the others follow from it. Else the one
    with the smallest sigma that settles the verdict: from there on devices are too bad, or not known to be
    good enough. The order in which sigmas were given does not matter.
    """
    gated = [point for point in points_of(report) if point.gate]
    verdict = overall_verdict(gate for point in gated for gate in point.gate)
    if verdict is None:
        return None
    settling = [point for point in gated if overall_verdict(point.gate) == verdict]
    choose = max if verdict == "pass" else min
    return choose(settling, key=lambda point: point.sigma)


def case_name(case: Case, report: AuditReport) -> str:
    """Name a case by what was asked: the same in every run with the same options.

    Returns
    -------
    str
        Such as ``KPP 1 % of top1 at least 90 %, sigma 0.1 level spacings``.
    """
    wanted = "" if case.gate is None else f" {wanted_text(case.gate, report.metric_info)}"
    where = conditions_text(report, sigma_text(case.point.sigma, case.point.sigma_unit))
    return f"{kpp_name(case.kpp.percentile)} of {report.metric}{wanted}, {where}"


def wanted_text(gate: GateResult, info: MetricInfo) -> str:
    """Say what a gate demands of a KPP, e.g. ``at least 90 %``."""
    return f"at {'least' if info.higher_is_better else 'most'} {limit_text(gate.threshold, info.unit)}"


def question_text(gate: GateResult, info: MetricInfo) -> str:
    """Say what a gate asks of the chips."""
    side = "below" if info.higher_is_better else "above"
    return (
        f"at most {gate.percentile:.10g} % of chips may be {side} {limit_text(gate.threshold, info.unit)} "
        f"({confidence_text(gate.confidence)} confidence)"
    )


def kpp_text(kpp: KppResult, unit: str) -> str:
    """Show a KPP with its interval."""
    interval = interval_text(kpp.low, kpp.high, unit)
    return (
        f"{kpp_name(kpp.percentile)} {value_text(kpp.value, unit)} {interval}, "
        f"{confidence_text(kpp.confidence)} confidence, {count_text(kpp.trials, 'chip')}"
    )


def ended_text(report: AuditReport, command: bool = True) -> str | None:
    """Say of a run that was ended early how far it came and how it goes on; None of one that was not."""
    cut, boxed = report.interrupted, report.time_boxed
    if cut is not None:
        return cut.text if cut.command is None or not command else f"{cut.text}. To go on: {cut.command}"
    if boxed is not None:
        return boxed.text
    return None


def verdict_word(gate: GateResult, report: AuditReport) -> str:
    """The verdict of a gate; of a run that was interrupted it is only what the chips say so far."""
    word = gate.verdict.upper()
    return word if report.interrupted is None else f"SO FAR {word}"


def answer_lines(case: Case, report: AuditReport) -> list[str]:
    """Say the answer in a few lines: the verdict with its reason, what would decide it, the numbers.

    Returns
    -------
    list of str
        The first line is the verdict, where there is a gate.
    """
    info = report.metric_info
    lines: list[str] = []
    if case.gate is not None:
        lines.append(
            f"{verdict_word(case.gate, report)}: {question_text(case.gate, info)}: {case.gate.reason}"
        )
        if case.gate.needed:
            lines.append(f"To decide: {case.gate.needed}")
    ended = ended_text(report)
    lines += [ended] if ended else []
    lines.append(kpp_text(case.kpp, info.unit))
    missing = missing_bound_text(case.kpp, info.higher_is_better)
    lines += [missing] if missing else []
    chips = count_text(case.point.trials.count, "chip")
    steps = ", ".join(f"{step.name} {value_text(step.value, info.unit)}" for step in noiseless_steps(report))
    lines.append(f"{steps}, mean of {chips} {value_text(case.point.trials.mean, info.unit)}")
    if report.mapped is not None:
        lines.append(coverage_text(report.mapped))
    if report.label_free:
        lines.append("LABEL-FREE: there were no labels; this compares with the unperturbed model only")
    return lines


def tables(report: AuditReport) -> Tables:
    """The questions with their answers, every chip, every tensor, and where the loss comes from."""
    detail = report.attribution_detail
    records = {
        "points": records_of(_case_row(case, report) for case in cases_of(report)),
        "chips": records_of(
            {
                "sigma": point.sigma,
                "trial": trial,
                "value": value,
                "weight": None if point.trials.weights is None else point.trials.weights[trial],
            }
            for point in points_of(report)
            for trial, value in enumerate(point.trials.values)
        ),
        "tensors": records_of(flat(tensor) for tensor in report.tensors),
    }
    if report.measured_chips is not None:
        records["read_back"] = records_of(
            {"chip": chip.name, **flat(tensor), "value": chip.value, "percentile": chip.percentile}
            for chip in report.measured_chips.chips
            for tensor in chip.tensors
        )
    for part in () if detail is None else (detail.tensors, detail.terms):
        if part is not None:
            records[f"attribution_{part.kind}"] = records_of(flat(item) for item in part.items)
    if detail is not None and detail.classes is not None:
        kpps = [f"kpp_{percentile:.10g}" for percentile in detail.classes.percentiles]
        records["attribution_classes"] = records_of(
            {**flat(item), **dict(zip(kpps, item.kpp, strict=True))} for item in detail.classes.classes
        )
    return records


def _case_row(case: Case, report: AuditReport) -> dict[str, RecordValue]:
    """One question with its answer and the numbers without noise beside it."""
    trials, gate = case.point.trials, case.gate
    row: dict[str, RecordValue] = {
        "sigma": case.point.sigma,
        "sigma_unit": case.point.sigma_unit,
        "percentile": case.kpp.percentile,
        "kpp": case.kpp.value,
        "kpp_low": case.kpp.low,
        "kpp_high": case.kpp.high,
        "confidence": case.kpp.confidence,
        "chips": trials.count,
        "mean": trials.mean,
        "std": trials.std,
        "min": trials.min,
        "max": trials.max,
        "metric": report.metric,
        "nominal": report.nominal,
        "quantised": report.quantised,
    }
    for item in case.point.yields:
        name = f"yield_{item.threshold:.10g}"
        row |= {name: item.share, f"{name}_low": item.low, f"{name}_high": item.high}
    if case.drop is not None:
        row |= {"drop_verdict": case.drop.verdict, **drop_numbers(case.drop)}
    if gate is not None:
        row |= {"threshold": gate.threshold, "verdict": gate.verdict, "gate_failures": gate.failures}
        row |= {"gate_chips": gate.trials, "failure_low": gate.failure_low, "failure_high": gate.failure_high}
    return row


def checks(report: AuditReport) -> list[Check]:
    """Ask each percentile at each sigma, and the share on the array; an interrupted run answers none."""
    cases = cases_of(report)
    chip_checks = [_check(case, report) for case in cases]
    chip_checks += [_drop_check(case.drop, case, report) for case in cases if case.drop is not None]
    share = report.mapped_gate  # counted before any chip is drawn
    return chip_checks if share is None else [*chip_checks, share_check(share, report.mapped)]


def timed_checks(report: AuditReport) -> list[Check]:
    """As :func:`checks`, for a report of several audits: the time of this one is shared by its questions."""
    asked = checks(report)
    seconds = report.timing.get("total", sum(report.timing.values())) / len(asked)
    return [replace(check, seconds=seconds) for check in asked]


def _check(case: Case, report: AuditReport) -> Check:
    gate, trials = case.gate, case.point.trials
    lines = [*answer_lines(case, report), *remedy_lines(report, case.point)]
    numbers: dict[str, float | None] = {
        **kpp_numbers(case.kpp),
        "chips": trials.count,
        "mean": trials.mean,
    }
    if gate is not None:
        numbers |= gate_numbers(gate)
    if report.interrupted is not None:
        message = f"INTERRUPTED: {ended_text(report)}"
        return Check(case_name(case, report), "interrupted", tuple(lines), numbers, message)
    # The message is what lists show; GitLab shows the text alone, so that has all of it again.
    message = f"{lines[0]}. {lines[1]}" if gate is not None and gate.needed else ""
    verdict = None if gate is None else gate.verdict
    return Check(case_name(case, report), verdict, tuple(lines), numbers, message)


def remedy_lines(report: AuditReport, point: SweepPoint) -> list[str]:
    """Say what another code would give where that is known of a point that fails."""
    remedy = report.remedy
    if remedy is None or not point.gate or remedy.sigma != point.sigma:
        return []
    before = point.kpp[0], point.trials.mean
    return [remedy_text(remedy, report.metric_info, before, point.gate[0].threshold)]


def _drop_check(drop: DropResult, case: Case, report: AuditReport) -> Check:
    info, point = report.metric_info, case.point
    question = drop_question(drop, info.unit, info.higher_is_better)
    lines = drop_lines(drop, info.unit, info.higher_is_better)
    if report.baseline is not None:
        lines.append(f"The baseline: {report.baseline.path}, {report.baseline.model}")
    name = f"{question}, {conditions_text(report, sigma_text(point.sigma, point.sigma_unit))}"
    if report.interrupted is not None:
        message = f"INTERRUPTED: {ended_text(report)}"
        return Check(name, "interrupted", tuple(lines), drop_numbers(drop), message)
    message = ". ".join(lines[:2]) if drop.needed else ""
    return Check(name, drop.verdict, tuple(lines), drop_numbers(drop), message)


def kpp_numbers(kpp: KppResult) -> dict[str, float | None]:
    """Give a KPP with its interval."""
    return {"kpp": kpp.value, "kpp_low": kpp.low, "kpp_high": kpp.high, "confidence": kpp.confidence}


def gate_numbers(gate: GateResult) -> dict[str, float | None]:
    """Give what a gate was decided by."""
    return {
        "threshold": gate.threshold,
        "gate_failures": gate.failures,
        "gate_chips": gate.trials,
        "failure_low": gate.failure_low,
        "failure_high": gate.failure_high,
    }


def facts(report: AuditReport) -> Iterator[tuple[str, str]]:
    """Give what a build server keeps of an audit besides its checks."""
    yield "nominal", repr(report.nominal)
    yield "quantised", repr(report.quantised)
    if report.crossbar is not None:
        yield "adc_bits", str(report.crossbar.adc_bits)
        yield "share_of_weights_converted", number_text(report.crossbar.share_of_weights)
        yield "not_converted", ", ".join(layer.name for layer in report.crossbar.unsplit_layers) or "none"
        yield "quantised_ideal", repr(report.crossbar.quantised_ideal)
    if report.mapped is not None:
        yield "share_of_products", number_text(report.mapped.share_of_products)
        yield "share_of_weights", number_text(report.mapped.share_of_weights)
    if report.roughness is not None:
        yield "roughness", repr(report.roughness.value)
        yield "roughness_standard_error", number_text(report.roughness.standard_error)
