"""The top of the page: the verdict, and the numbers that it rests on."""

from __future__ import annotations

from nvaudit.report.cases import deciding_point, ended_text, verdict_word
from nvaudit.report.document import (
    Block,
    Hero,
    KeyFigure,
    Number,
    Paragraph,
    Section,
    Table,
    at_sigma,
    unit_words,
)
from nvaudit.report.gates import GateResult
from nvaudit.report.mapped import gate_lines
from nvaudit.report.page.share import share_numbers, warnings
from nvaudit.report.rerun import remedy_command
from nvaudit.report.result import AuditReport
from nvaudit.report.steps import noiseless_steps
from nvaudit.report.tail_text import tail_lines
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    interval_text,
    kpp_name,
    limit_text,
    missing_bound_text,
    share_text,
    value_text,
)
from nvaudit.stats.kpp import KppResult

_TITLES = {
    "pass": "The gate holds",
    "fail": "The gate does not hold",
    "undecided": "The gate could not be decided",
}


def hero(report: AuditReport) -> Hero:
    """Make the top of the page.

    Parameters
    ----------
    report : AuditReport
    """
    ended = ended_text(report)
    lines = [] if ended is None else [f"{ended}."]
    gates = deciding_gates(report)
    for where, gate in gates:
        if report.interrupted is not None:
            lines.append(f"{verdict_word(gate, report)}:")
        lines += [f"{question(report, gate)}{where}.", f"{_sentence(gate.reason)}"]
        if gate.needed:
            lines.append(f"To decide: {gate.needed}.")
    remedy = remedy_command(report)
    if remedy is not None:
        lines.append(f"Try first, in a minute and without training: {remedy}")
    lines += [f"{text}." for text in gate_lines(report.mapped_gate, report.mapped)]
    if not gates and report.mapped_gate is None:
        lines.append("This audit had no gate; give one with --min-kpp.")
    lines.append(kpp_words(report, report.kpp[0]))
    chips = f"{count_text(report.trials.count, 'chip')} at {at_sigma(report.operating_point)}"
    return Hero(
        role="undecided" if report.interrupted is not None else report.verdict or "none",
        word=_word(report),
        title=_TITLES[report.verdict] if report.verdict else chips,
        lines=tuple(lines),
        numbers=_numbers(report),
        warnings=warnings(_LABEL_FREE if report.label_free else None, report.mapped),
    )


def _word(report: AuditReport) -> str:
    if report.interrupted is not None:
        return "INTERRUPTED"
    return report.verdict.upper() if report.verdict else "NO GATE"


_LABEL_FREE = (
    "Label-free: there were no labels, so this audit compares each chip with the unperturbed model only. "
    "It says nothing about accuracy."
)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def question(report: AuditReport, gate: GateResult) -> str:
    """Say what a gate asks for."""
    side = "below" if report.metric_info.higher_is_better else "above"
    limit = limit_text(gate.threshold, report.metric_info.unit)
    return (
        f"At most {gate.percentile:g} % of chips may have {report.metric} {side} {limit} "
        f"({confidence_text(gate.confidence)} confidence)"
    )


def deciding_gates(report: AuditReport) -> list[tuple[str, GateResult]]:
    """Gates of the operating point that settles the verdict, with the place of that point in words."""
    point = deciding_point(report)
    if point is None:
        return []
    where = f", at every σ of the sweep; here at {at_sigma(point)}" if report.sweep else ""
    return [(where, gate) for gate in point.gate]


def kpp_words(report: AuditReport, result: KppResult) -> str:
    """Say a KPP and its interval in a sentence."""
    info = report.metric_info
    side, worst, best = ("below", "lower", "upper") if info.higher_is_better else ("above", "upper", "lower")
    text = (
        f"{result.percentile:.10g} % of the simulated chips have {report.metric} {side} "
        f"{value_text(result.value, info.unit)}"
    )
    if result.low is not None and result.high is not None:
        ends = f"{value_text(result.low, info.unit)} to {value_text(result.high, info.unit)}"
        return f"{text}; the {confidence_text(result.confidence)} confidence interval is {ends}."
    known = result.low if result.low is not None else result.high
    if known is None:
        return f"{text}; {count_text(result.trials, 'chip')} give no interval."
    given, gone = (best, worst) if result.worst_bound_missing else (worst, best)
    return (
        f"{text}; the {given} end of its {confidence_text(result.confidence)} interval is "
        f"{value_text(known, info.unit)}, and the {gone} end needs more chips."
    )


def _numbers(report: AuditReport) -> tuple[KeyFigure, ...]:
    unit, trials = report.metric_info.unit, report.trials
    found = [
        KeyFigure(
            kpp_name(result.percentile),
            value_text(result.value, unit),
            f"{interval_text(result.low, result.high, unit)}, {confidence_text(result.confidence)} interval",
            main=index == 0,
        )
        for index, result in enumerate(report.kpp[:3])
    ]
    found += [
        *(
            KeyFigure(step.name.capitalize(), value_text(step.value, unit), step.cause)
            for step in noiseless_steps(report)
        ),
        KeyFigure(
            "Mean chip", value_text(trials.mean, unit), f"± {value_text(trials.std, unit)} standard deviation"
        ),
    ]
    found += share_numbers(report.mapped)
    for item in report.yields[:2]:
        reach = "at least" if item.direction == "at_least" else "at most"
        found.append(
            KeyFigure(
                f"Yield, {reach} {limit_text(item.threshold, unit)}",
                share_text(item.share),
                f"[{share_text(item.low)}, {share_text(item.high)}], {confidence_text(item.confidence)}",
            )
        )
    return tuple(found)


def gate_section(report: AuditReport) -> Section | None:
    """Say what each gate counted, and with which bounds."""
    points = [("" if not report.sweep else f"{p.sigma:g}", p.gate) for p in report.sweep]
    places = points or [(f"{report.operating_point.sigma:g}", report.gate)]
    gates = [(where, gate) for where, found in places for gate in found]
    if not gates:
        return None
    rows = tuple(
        (
            where,
            f"{gate.percentile:g} %",
            limit_text(gate.threshold, report.metric_info.unit),
            gate.verdict,
            Number(gate.failures, f"{gate.failures:,}"),
            Number(gate.trials, f"{gate.trials:,}"),
            f"{share_text(gate.failure_low)} to {share_text(gate.failure_high)}",
            gate.needed or "nothing",
        )
        for where, gate in gates
    )
    unit = unit_words(report.operating_point.sigma_unit)
    columns = (f"σ, {unit}", "may miss", "threshold", "verdict", "missed", "chips", "share that misses",
               "what would decide it")  # fmt: skip
    confidence = confidence_text(gates[0][1].confidence)
    blocks: list[Block] = [
        Paragraph(f"{question(report, gates[0][1])}."),
        Table("gates", f"Every gate of this audit; bounds of the share one-sided, {confidence} each.",
              columns, rows, numeric=(4, 5)),
    ]  # fmt: skip
    if any(gate.sequential for _, gate in gates):
        blocks.append(
            Paragraph(
                "Chips were drawn until the gate was decided; its bounds hold at any stopping time.", "note"
            )
        )
    return Section("gate", "The gate", tuple(blocks))


def caveats(report: AuditReport) -> list[str]:
    """Say which bounds are missing, and what the evaluation set itself cannot tell."""
    info, data = report.metric_info, report.data
    found = [missing_bound_text(result, info.higher_is_better) for result in report.kpp]
    lines = [f"{text}." for text in found if text]
    if data.standard_error is not None:
        lines.append(
            f"The evaluation set is finite too: the standard error of the ideal {report.metric} on "
            f"{count_text(data.count, 'image')} is {value_text(data.standard_error, info.unit)}; the "
            "intervals do not contain it."
        )
    return lines


def tail_section(report: AuditReport) -> Section | None:
    """Say the percentiles beyond the sample."""
    if not report.tail:
        return None
    lines = [line for tail in report.tail for line in tail_lines(tail, report.metric_info.unit)]
    return Section(
        "tail", "Beyond the sample", tuple(Paragraph(f"{line}.".replace("..", ".")) for line in lines)
    )
