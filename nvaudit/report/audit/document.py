"""What the report of an audit says, on every medium."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nvaudit.report.audit.chips import chips_section, sweep_section, yield_section
from nvaudit.report.audit.losses import losses_section
from nvaudit.report.audit.measured import measured_section
from nvaudit.report.audit.rare import beyond_section, rare_numbers
from nvaudit.report.audit.record import (
    audit_record,
    cite_section,
    notes_section,
    remedy_section,
    rerun_section,
    resume_section,
)
from nvaudit.report.cases import (
    cases_of,
    deciding_point,
    ended_text,
    points_of,
    question_text,
    verdict_word,
)
from nvaudit.report.codes import codes_blocks, codes_number
from nvaudit.report.cost.document import cost_section
from nvaudit.report.device.document import device_blocks
from nvaudit.report.document import (
    FILES,
    MEDIA,
    PAGE,
    Block,
    Bullets,
    Document,
    Hero,
    KeyFigure,
    Number,
    Paragraph,
    Section,
    Table,
    at_sigma,
    file_name,
    short,
    unit_words,
)
from nvaudit.report.drops import allowed_text, drop_lines
from nvaudit.report.groups import zero_groups_text
from nvaudit.report.landscape.figures import roughness_words, surface_figures
from nvaudit.report.mapped import gate_lines
from nvaudit.report.parts import crossbar_section, outlier_numbers, share_blocks, share_numbers, warnings
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import SweepPoint
from nvaudit.report.steps import noiseless_steps
from nvaudit.report.summary import conditions_text
from nvaudit.report.tensors import digital_reasons, mapped_text, tensor_table
from nvaudit.report.wording import (
    amount_text,
    capitalised,
    confidence_text,
    count_text,
    difference_text,
    interval_text,
    kpp_name,
    limit_text,
    roughness_text,
    share_text,
    value_text,
)
from nvaudit.stats.gate import Verdict
from nvaudit.stats.kpp import KppResult, YieldResult

_TITLES: dict[Verdict, tuple[str, str]] = {
    "pass": ("The gate holds", "The gates hold"),
    "fail": ("The gate does not hold", "The gates do not all hold"),
    "undecided": ("The gate could not be decided", "The gates could not all be decided"),
}
"""Of one gate, and of several."""


def audit_document(report: AuditReport) -> Document:
    """Say what an audit found."""
    device = short(str(report.device.get("name", "unnamed device")))
    sections = (
        resume_section(report),
        remedy_section(report),
        chips_section(report),
        yield_section(report),
        sweep_section(report),
        calibrated_section(report),
        measured_section(report),
        losses_section(report),
        _gates(report),
        beyond_section(report),
        mapping_section(report),
        crossbar_section(report.crossbar),
        cost_section(report.cost),
        device_section(report),
        _landscape(report),
        notes_section(report),
        audit_record(report),
        rerun_section(report),
        cite_section(report),
    )
    where = conditions_text(report, at_sigma(report.operating_point))
    return Document(
        title=report.headline,
        subject=file_name(report.model.path),
        subtitle=f"{report.metric} on {device} at {where}",
        hero=_hero(report),
        sections=tuple(section for section in sections if section is not None),
        version=report.nvaudit_version,
    )


def _hero(report: AuditReport) -> Hero:
    info, point = report.metric_info, report.operating_point
    better = "higher is better" if info.higher_is_better else "lower is better"
    measure = better if info.unit == "fraction" else f"{better}, {info.unit}"
    where = f" at {at_sigma(point)}" if report.sweep else ""
    ended = ended_text(report, command=False)
    return Hero(
        role="undecided" if report.interrupted is not None else report.verdict or "none",
        word="INTERRUPTED" if report.interrupted is not None else (report.verdict or "no gate").upper(),
        title=_title(report),
        lines=(
            *(() if ended is None else (f"{ended}.",)),
            *_gate_lines(report),
            f"{_kpp_sentence(report, report.kpp[0])}.",
        ),
        numbers=tuple(_numbers(report)),
        about=f"{report.metric} ({measure}){where}",
        warnings=warnings(report, report.mapped),
    )


def _title(report: AuditReport) -> str:
    if report.verdict is None:
        return f"{count_text(report.trials.count, 'chip')} at {at_sigma(report.operating_point)}"
    point = deciding_point(report)
    drops = sum(case.drop is not None for case in cases_of(report))
    several = (0 if point is None else len(point.gate)) + drops + (report.mapped_gate is not None) > 1
    return _TITLES[report.verdict][several]


def _gate_lines(report: AuditReport) -> Iterator[str]:
    """Every gate with its verdict and its reason; of a sweep those of the point that settles the verdict."""
    point = deciding_point(report)
    where = ""
    if point is not None and report.sweep:
        where = f" at {at_sigma(point)}; the sweep below has every σ"
    for gate in () if point is None else point.gate:
        text = f"{verdict_word(gate, report)}: {question_text(gate, report.metric_info)}{where}. "
        yield f"{text}{capitalised(gate.reason)}."
        if gate.needed:
            yield f"To decide: {gate.needed}."
    info = report.metric_info
    for case in cases_of(report):
        if case.drop is not None:
            for text in drop_lines(case.drop, info.unit, info.higher_is_better):
                at = f", {at_sigma(case.point)}" if report.sweep else ""
                yield f"{text}{at}."
    for text in gate_lines(report.mapped_gate, report.mapped):
        yield f"{text}."


def _kpp_sentence(report: AuditReport, result: KppResult) -> str:
    """Say in words what a KPP and its interval are."""
    info = report.metric_info
    side, worst, best = ("below", "lower", "upper") if info.higher_is_better else ("above", "upper", "lower")
    text = (
        f"{result.percentile:.10g} % of the simulated chips have {report.metric} {side} "
        f"{value_text(result.value, info.unit)}"
    )
    confidence = confidence_text(result.confidence)
    if result.low is not None and result.high is not None:
        ends = f"{value_text(result.low, info.unit)} to {value_text(result.high, info.unit)}"
        return f"{text}; the {confidence} confidence interval is {ends}"
    known = result.low if result.low is not None else result.high
    if known is None:
        return f"{text}; {count_text(result.trials, 'chip')} give no interval"
    given, gone = (best, worst) if result.worst_bound_missing else (worst, best)
    return (
        f"{text}; the {given} end of its {confidence} interval is {value_text(known, info.unit)}, and the "
        f"{gone} end needs more chips"
    )


def _numbers(report: AuditReport) -> Iterator[KeyFigure]:
    """From the unmodified model down to the worst chips, then what else was asked."""
    unit, trials = report.metric_info.unit, report.trials
    for step in noiseless_steps(report):
        yield KeyFigure(step.name, value_text(step.value, unit), step.cause)
    spread = amount_text(trials.std, unit)
    note = "the only chip" if trials.count == 1 else f"std {spread}, {count_text(trials.count, 'chip')}"
    yield KeyFigure("mean of the chips", value_text(trials.mean, unit), note)
    for index, result in enumerate(report.kpp):
        ends = interval_text(result.low, result.high, unit)
        note = f"{ends}, {confidence_text(result.confidence)} confidence"
        if result.width:
            note += f"; exact within {amount_text(result.width, unit)}"
        yield KeyFigure(kpp_name(result.percentile), value_text(result.value, unit), note, main=index == 0)
    yield from (_yield_figure(item, unit) for item in report.yields)
    for tail in report.tail:
        if tail.value is not None:
            ends = (
                f"{interval_text(tail.low, tail.high, unit)}, {confidence_text(tail.confidence)} confidence"
            )
            yield KeyFigure(f"{kpp_name(tail.percentile)}, extrapolated", value_text(tail.value, unit), ends)
    yield from rare_numbers(report)
    for drop in report.drops:
        change = difference_text(drop.after - drop.before, unit)
        note = f"{value_text(drop.before, unit)} before; {allowed_text(drop.max_drop, unit)} may be lost"
        yield KeyFigure(f"{kpp_name(drop.percentile)}, change", change, note)
    yield from codes_number(report.codes)
    yield from outlier_numbers(report.tensors)
    yield from share_numbers(report.mapped)


def _yield_figure(item: YieldResult, unit: str) -> KeyFigure:
    side = "at least" if item.direction == "at_least" else "at most"
    ends = f"[{share_text(item.low)}, {share_text(item.high)}]"
    return KeyFigure(
        f"yield, {side} {limit_text(item.threshold, unit)}",
        share_text(item.share),
        f"{ends}, {confidence_text(item.confidence)} confidence",
    )


def _gates(report: AuditReport) -> Section | None:
    """What each gate counted, and with which bounds."""
    points = [(p.sigma, p.gate) for p in report.sweep] or [(report.operating_point.sigma, report.gate)]
    gates = [
        (sigma, gate) for sigma, point_gates in sorted(points, key=lambda p: p[0]) for gate in point_gates
    ]
    if not gates:
        return None
    rows = tuple(
        (
            Number(sigma, f"{sigma:g}"),
            f"{gate.percentile:g} %",
            limit_text(gate.threshold, report.metric_info.unit),
            gate.verdict,
            Number(gate.failures, f"{gate.failures:,}"),
            Number(gate.trials, f"{gate.trials:,}"),
            f"{share_text(gate.failure_low)} to {share_text(gate.failure_high)}",
            gate.needed or "nothing",
        )
        for sigma, gate in gates
    )
    columns = (
        f"σ, {unit_words(report.operating_point.sigma_unit)}", "may miss", "threshold", "verdict", "missed",
        "chips", "share that misses", "what would decide it",
    )  # fmt: skip
    confidence = confidence_text(gates[0][1].confidence)
    caption = f"Every gate of this audit; bounds of the share one-sided, {confidence} each."
    blocks: list[Block] = [Table("gates", caption, columns, rows, numeric=(0, 4, 5))]
    if any(gate.sequential for _, gate in gates):
        text = "Chips were drawn until the gate was decided; its bounds hold at any stopping time."
        blocks.append(Paragraph(text, "note"))
    return Section("gate", "The gate", tuple(blocks), media=PAGE)


def _landscape(report: AuditReport) -> Section | None:
    """The loss landscape, where it was measured."""
    roughness, surface = report.roughness, report.landscape
    if roughness is None:
        return None
    blocks: list[Block] = [Paragraph(roughness_words(roughness), "lead")]
    if surface is not None:
        name = f"the median pair: {roughness_text(surface.roughness)}"
        blocks.append(Paragraph(f"Shown is {name}.", media=PAGE))
        grid, losses = np.array(surface.axis), np.array([surface.losses])
        blocks += surface_figures(grid, losses, [name], roughness.loss.replace("_", "-"))
    return Section("landscape", "Loss landscape", tuple(blocks))


def mapping_section(report: AuditReport) -> Section:
    """What is mapped and what stays digital, with reasons."""
    mapped = [tensor for tensor in report.tensors if tensor.decision == "mapped"]
    digital = [tensor for tensor in report.tensors if tensor.decision == "digital"]
    stay = f"{count_text(len(digital), 'tensor')} stay{'s' if len(digital) == 1 else ''} digital"
    text = f"{mapped_text(mapped)}. {stay if digital else 'Nothing stays digital'}."
    blocks: list[Block] = [Paragraph(text, "lead"), *share_blocks(report.mapped)]
    if report.codes is not None:
        blocks += codes_blocks(report.codes)
    if report.zero_groups is not None:
        blocks.append(Paragraph(f"Groups of zeros: {zero_groups_text(report.zero_groups)}."))
    if reasons := digital_reasons(digital):
        rows = tuple((reason, Number(count, f"{count:,}")) for reason, count in reasons)
        table = Table("reasons", "What stays digital.", ("reason", "tensors"), rows, numeric=(1,))
        blocks.append(replace(table, media=MEDIA - PAGE))
    size = report.run.get("crossbar")
    of = f" of {size[0]} × {size[1]}" if isinstance(size, list) and len(size) == 2 else ""
    table = tensor_table("tensors", f"Every constant of the model; crossbars{of}.", (*mapped, *digital))
    blocks.append(replace(table, media=FILES))
    return Section("mapping", "What is on the array", tuple(blocks), folded=True)


def device_section(report: AuditReport) -> Section:
    """The device, and the law of each of its levels where the report has it."""
    point = report.operating_point
    blocks = device_blocks(report.device, at_sigma(point), point.time_s, point.terms, report.device_levels)
    return Section("device", "The device", tuple(blocks), media=PAGE)


def calibrated_section(report: AuditReport) -> Section | None:
    """The same chips as they are and corrected, side by side; None where none was corrected."""
    chips = report.calibrated
    if chips is None:
        return None
    info = report.metric_info
    parts = []
    if chips.norms:
        parts.append(f"the statistics of {count_text(chips.norms, 'batch normalisation')}")
    if chips.layers:
        parts.append(f"gain and bias of each output channel behind {count_text(chips.layers, 'layer')}")
    text = (
        f"These numbers use the chip: each is measured on {count_text(chips.samples, 'unlabelled sample')} "
        f"from {chips.source}, none of which is scored, and corrected by what its layers make of them less "
        f"what those of the ideal model make of the same ones: {' and '.join(parts)}."
    )
    plain = {point.sigma: point for point in points_of(report)}
    rows = tuple(
        row
        for point in chips.points
        if point.sigma in plain
        for row in _calibrated_rows(plain[point.sigma], point, info.unit, several=bool(report.sweep))
    )
    columns = (*(("sigma",) if report.sweep else ()), "", "as it is", "corrected", "change", "interval")
    numeric = tuple(range(1, len(columns)))
    caption = f"The same {count_text(report.trials.count, 'chip')} as they are and corrected."
    blocks: list[Block] = [Paragraph(text), Table("calibrated-rows", caption, columns, rows, numeric=numeric)]
    if chips.left:
        blocks.append(Bullets(tuple(f"Not corrected: {item.name}: {item.reason}" for item in chips.left)))
    return Section("calibrated", "With each chip corrected", tuple(blocks))


def _calibrated_rows(
    plain: SweepPoint, corrected: SweepPoint, unit: str, several: bool
) -> list[tuple[str, ...]]:
    first = (f"{plain.sigma:g}",) if several else ()
    rows = [
        (
            *first,
            kpp_name(after.percentile),
            value_text(before.value, unit),
            value_text(after.value, unit),
            difference_text(after.value - before.value, unit),
            interval_text(after.low, after.high, unit),
        )
        for before, after in zip(plain.kpp, corrected.kpp, strict=True)
    ]
    means = plain.trials.mean, corrected.trials.mean
    change = difference_text(means[1] - means[0], unit)
    rows.append((*first, "mean", *(value_text(mean, unit) for mean in means), change, ""))
    return rows
