"""From a search to its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit.device import OperatingPoint
from nvaudit.mapping.mapping_file import mapping_beside
from nvaudit.perturb.metrics import Metric
from nvaudit.remapping.bench import ChipScores
from nvaudit.remapping.choose import CALCULATED, COSTS, RemapCandidate, RemapSearch, errors_by_calculation
from nvaudit.remapping.limits import narrowing
from nvaudit.remapping.round_weights import LATE
from nvaudit.remapping.spec import MAX_CLEAN_LOSS, RemapSpec
from nvaudit.report.codes import CodesInfo
from nvaudit.report.cost.result import figures_of
from nvaudit.report.mapped import share_clause
from nvaudit.report.paired import PairedDifference, paired_difference
from nvaudit.report.remap.result import RemapAudit, RemapReport, RemapStep, RemapTensor
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import MetricInfo
from nvaudit.report.wording import (
    change_interval_text,
    count_text,
    difference_text,
    duration_estimate,
    kpp_name,
    value_text,
)
from nvaudit.stats.kpp import kpp_index


@dataclass(frozen=True)
class RemapOutcome:
    """What a search came to.

    Attributes
    ----------
    spread : mapping of str to float
        Spread of weights as a fraction of the range.
    samples, checked, calibrated : int
        Samples of the set, those on which the loss was measured again, and those that calibrated.
    header : mapping of str to object
        What every report says of the session; see :meth:`nvaudit.session.Session.header`.
    batch_size : int or None
        Samples that ran at a time, at most.
    error : float
        Largest difference of the written model's outputs, relative to the largest output.
    offered : RemapCandidate or None
        What the best candidate of its time would be with a code, where none was asked for.
    codes : CodesInfo or None
        Of the best candidate.
    noise_by_code : mapping of str to float
        Noise of each weight on its new code, relative to slices.
    """

    search: RemapSearch
    best: RemapCandidate
    spread: Mapping[str, float]
    metric: Metric
    point: OperatingPoint
    label_free: bool
    samples: int
    checked: int
    calibrated: int
    source: str
    header: Mapping[str, Any]
    batch_size: int | None
    error: float
    notes: tuple[str, ...]
    offered: RemapCandidate | None
    codes: CodesInfo | None
    noise_by_code: Mapping[str, float]


def remap_report(
    spec: RemapSpec, outcome: RemapOutcome, output: Path, digest: str, seconds: float
) -> RemapReport:
    """Put what was found into a report, without audits.

    Parameters
    ----------
    digest : str
        SHA-256 of the written model.
    seconds : float
        What finding it took.
    """
    best = outcome.best
    chips = count_text(outcome.search.conditions.chips, "chip")
    hashes = outcome.header["hashes"]
    through = "" if spec.adc_bits is None else f", through {spec.adc_bits}-bit ADCs"
    return RemapReport(
        **{
            **outcome.header,
            "timing": {"calibration": seconds, "total": seconds},
            "hashes": {**hashes, "output": digest},
            "codes": outcome.codes,
        },
        headline=_headline(outcome) + (f" ({outcome.metric.caution})" if outcome.metric.caution else ""),
        output=str(output),
        metric=outcome.metric.name,
        metric_info=MetricInfo.model_validate(outcome.metric, from_attributes=True),
        data=None,
        unit=outcome.metric.unit,
        higher_is_better=outcome.metric.higher_is_better,
        label_free=outcome.label_free,
        percentile=spec.percentile,
        sigma=outcome.point.sigma,
        sigma_unit=outcome.point.sigma_unit,
        calibration=f"{chips} on {count_text(outcome.calibrated, 'sample')} of {outcome.samples:,} from "
        f"{outcome.source}{through}; these are other chips than those of the audit",
        steps=tuple(_steps(spec, outcome)),
        not_tried=(*(f"{name}: {LATE}" for name in outcome.search.untried), *outcome.search.impossible),
        tensors=tuple(_tensors(outcome)),
        exact=not best.changes_function,
        added_factors=_added(outcome),
        notes=tuple(_notes(spec, outcome)),
        mapping=str(mapping_beside(output)) if mapping_beside(output).is_file() else None,
        allowed_loss=outcome.search.allowed,
        run={**spec.model_dump(mode="json"), "batch_size": outcome.batch_size},
    )


def with_audits(
    report: RemapReport, spec: RemapSpec, pair: tuple[AuditReport, AuditReport], seconds: float
) -> RemapReport:
    """Add what the same chips are before and after.

    Parameters
    ----------
    pair : tuple of AuditReport
        Before and after, each chip on every sample.
    seconds : float
        What the audits took.
    """
    before, after = pair
    same = min(before.trials.count, after.trials.count)  # one whose time was over has fewer
    difference = paired_difference(
        np.asarray(before.trials.values[:same], np.float64),
        np.asarray(after.trials.values[:same], np.float64),
        spec.percentile,
        spec.confidence,
        report.higher_is_better,
    )
    timing = {**report.timing, "audits": seconds, "total": report.timing["calibration"] + seconds}
    return report.model_copy(
        update={
            "headline": report.metric_info.cautioned(
                _compared(report, pair, difference) + share_clause(after.mapped)
            ),
            "data": before.data,
            "before": _side(before),
            "after": _side(after),
            "difference": difference,
            "mapped": after.mapped,
            "timing": timing,
        }
    )


def _side(report: AuditReport) -> RemapAudit:
    result = report.kpp[0]
    return RemapAudit(
        nominal=report.nominal,
        quantised=report.quantised,
        kpp=result.value,
        low=result.low,
        high=result.high,
        mean=report.trials.mean,
        min=report.trials.min,
        worst=report.trials.min if report.metric_info.higher_is_better else report.trials.max,
        cost=figures_of(report.cost),
    )


def _steps(spec: RemapSpec, outcome: RemapOutcome) -> list[RemapStep]:
    rows = []
    for candidate in outcome.search.tried:
        measured, kept = candidate.measured, candidate is outcome.best
        reason = outcome.search.refused.get(candidate.name, "")
        if not kept and not reason and candidate.name in outcome.search.cut_short:
            reason = LATE
        if candidate is outcome.search.calculated:
            reason = CALCULATED
        elif not kept and not reason:
            reason = "the start" if candidate is outcome.search.tried[0] else "another is better"
        rows.append(
            RemapStep(
                name=candidate.name,
                nominal=measured.nominal,
                chips=len(measured.chips),
                quantised=_number(measured.quantised),
                kpp=_kpp(measured, spec.percentile),
                worst_quarter=_number(measured.worst),
                mean=_number(measured.mean),
                seconds=candidate.seconds,
                kept=kept,
                reason=reason,
            )
        )
    return rows


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _kpp(measured: ChipScores, percentile: float) -> float | None:
    if not len(measured.chips):
        return None
    ordered = np.sort(measured.sign * measured.chips)
    return measured.sign * float(ordered[kpp_index(percentile, len(ordered))])


def _tensors(outcome: RemapOutcome) -> list[RemapTensor]:
    best, rows = outcome.best, []
    rescaling = best.rescaling
    held = {**rescaling.reasons, **rescaling.refused}
    for key, values in best.bench.held.items():
        limit, fixed = best.limits.get(key), best.bench.editable[key]
        narrower = None if limit is None else narrowing(best.bench, key, limit)
        ratio = rescaling.noise.get(key, 1.0) * (1.0 if narrower is None else narrower)
        ratio *= outcome.noise_by_code.get(key, 1.0)
        rounding = best.rounding
        if rounding is not None:
            ratio *= rounding.noise.get(key, 1.0)
        rows.append(
            RemapTensor(
                name=key,
                op=best.bench.weights[key].op,
                scales="refused" if key in held else "rescaled" if rescaling.moved else "unchanged",
                scales_reason=held.get(key, ""),
                clip=narrower,
                clipped=0 if limit is None else int(np.count_nonzero(np.abs(values) > limit)),
                corrected=key in best.corrected,
                correct_reason="" if key in best.corrected else _not_corrected(outcome, key),
                rounded=rounding is not None and key in rounding.numbers,
                round_reason=_round_reason(outcome, key),
                clip_reason="" if limit is not None else _not_clipped(outcome, key, fixed),
                noise=None if fixed is not None else ratio,
            )
        )
    return rows


def _not_clipped(outcome: RemapOutcome, key: str, fixed: str | None) -> str:
    if fixed is not None:
        return fixed
    if not outcome.spread.get(key):
        return "carries no noise"
    if outcome.best.limits:
        return "nothing lies beyond the limit"
    return "clipping did not pay" if any(tried.limits for tried in outcome.search.tried) else "was not tried"


def _not_corrected(outcome: RemapOutcome, key: str) -> str:
    centres = outcome.search.centres
    if centres is None:
        return "was not tried"
    refused = centres.refused.get(key)
    if refused is not None:
        return refused
    return "its mean did not shift beyond chance" if outcome.best.corrected else "correcting did not pay"


def _round_reason(outcome: RemapOutcome, key: str) -> str:
    """Why a weight has its nearest code, or why its inputs did not count."""
    rounding = outcome.best.rounding
    if rounding is not None:
        return rounding.refused.get(key) or rounding.diagonal.get(key, "")
    tried = [candidate.rounding for candidate in outcome.search.tried if candidate.rounding is not None]
    return "rounding for noise did not pay" if tried else "was not tried"


def _added(outcome: RemapOutcome) -> int:
    """Channels with a new factor in front of or behind a weight."""
    before = sum(1 for node in outcome.search.basis.loaded.model.graph if node.op_type == "Mul")
    after = sum(1 for node in outcome.best.rescaling.loaded.model.graph if node.op_type == "Mul")
    return after - before


def _headline(outcome: RemapOutcome) -> str:
    unit, best = outcome.metric.unit, outcome.best
    start, end = outcome.search.tried[0].measured, best.measured
    what = best.name
    if best is outcome.search.tried[0]:
        what = unchanged_text(len(outcome.search.tried) - 1, bool(outcome.search.untried))
    where = f"{outcome.point.profile.name}, σ = {outcome.point.sigma:g} {outcome.point.sigma_unit}"
    if best is outcome.search.calculated:
        return f"{what}: {CALCULATED} ({where})"
    chips = outcome.search.conditions.chips
    return (
        f"worst quarter of the calibration chips {value_text(start.on(chips).worst, unit)} → "
        f"{value_text(end.on(chips).worst, unit)} ({what}; {where})"
    )


def unchanged_text(tried: int, late: bool) -> str:
    """Say why the model is as it was: of what there was no time for, nobody knows."""
    if late and not tried:
        return "there was no time to try anything: the model is unchanged"
    if late:
        return "nothing that was tried helps, and there was no time for more: the model is unchanged"
    return "nothing helps: the model is unchanged"


def _compared(
    report: RemapReport, pair: tuple[AuditReport, AuditReport], difference: PairedDifference
) -> str:
    """The headline of a report with audits."""
    unit, kept = report.unit, next(step for step in report.steps if step.kept)
    what = kept.name
    if kept is report.steps[0]:
        what = unchanged_text(len(report.steps) - 1, any(text.endswith(LATE) for text in report.not_tried))
    where = f"{report.device['name']}, σ = {report.sigma:g} {report.sigma_unit}"
    result = pair[1].kpp[0]
    interval = change_interval_text(difference.kpp.low, difference.kpp.high, unit)
    gain = difference_text(difference.kpp.value, unit)
    if interval.endswith(" points"):
        gain = gain.removesuffix(" points")
    return (
        f"{kpp_name(result.percentile)} {value_text(pair[0].kpp[0].value, unit)} → "
        f"{value_text(result.value, unit)}: {gain} {interval} on the same "
        f"{count_text(difference.chips, 'chip')} ({what}; {where})"
    )


def _notes(spec: RemapSpec, outcome: RemapOutcome) -> list[str]:
    notes = list(outcome.notes)
    if outcome.best.changes_function:
        what = "correcting means" if outcome.best.corrected else "clipping"
        what = "choosing codes for noise" if outcome.best.rounding is not None else what
        notes.append(
            f"{what} changes the function: the nominal metric before and after says by how much; measured "
            f"on {count_text(outcome.checked, 'sample')} before it was kept"
        )
        allowed = outcome.search.allowed
        if spec.max_clean_loss is None and outcome.metric.unit == "fraction" and allowed > MAX_CLEAN_LOSS:
            notes.append(
                f"without noise the result may lose {value_text(allowed, outcome.metric.unit)}: a tenth of "
                "what noise costs; --max-clean-loss sets a limit"
            )
    elif outcome.best is not outcome.search.tried[0]:
        notes.append(
            f"the written model computes the same: largest difference {outcome.error:.1e} of the output range"
        )
    notes.extend(_what_steps_gave(outcome))
    notes.extend(_offered(outcome))
    notes.extend(_dearer(spec, outcome))
    fewer = outcome.calibrated < min(spec.calibration_images, outcome.samples)
    if fewer or outcome.search.conditions.chips < spec.calibration_chips:
        notes.append(
            f"the {spec.calibration_s:g} s for calibration left time for fewer calibration samples or chips "
            "than wanted; another machine may choose otherwise: --time-budget 0 takes the time it needs"
        )
    notes.extend(_what_more_time_gives(spec, outcome))
    notes.extend(_how_settled(spec, outcome))
    if outcome.label_free:
        notes.append(
            "there are no labels: candidates are compared with the original model's outputs, the audit "
            "afterwards with the written model's own"
        )
    if spec.calibration_data is None and not outcome.label_free:
        notes.append("calibration samples are among those of the audit; its chips are new")
    return notes


def _what_more_time_gives(spec: RemapSpec, outcome: RemapOutcome) -> list[str]:
    """What there was no time for, and how long it takes."""
    search = outcome.search
    if not search.untried:
        return []
    # On all chips, and beside them a pass without noise and one of its codes.
    needed = len(search.untried) * (search.conditions.chips + 2) * search.pass_s
    option = "--max-minutes" if spec.max_minutes is not None else "--time-budget"
    return [
        f"{count_text(len(search.untried), 'step was', 'steps were')} not tried, as the "
        f"{duration_estimate(spec.calibration_s)} for calibration were over; on these samples and chips they "
        f"take about {duration_estimate(needed)} more: a larger {option} tries them"
    ]


def _how_settled(spec: RemapSpec, outcome: RemapOutcome) -> list[str]:
    """On how many chips the last choice was made, or what it was calculated from."""
    search = outcome.search
    if search.finalists:
        best = search.finalists[0].measured
        return [
            f"the {len(search.finalists)} best were told apart on further chips, the last ones on "
            f"{count_text(len(best.chips), 'chip')}"
        ]
    if search.calculated is None or search.calculated.bench.codes is None:
        return []
    before, after = errors_by_calculation(search.original, search.calculated.bench.codes)
    return [
        f"the code was chosen by calculation (weights err by {after:.4f} of max|W| instead of {before:.4f}): "
        f"there was no time to run chips on it within {spec.calibration_s:g} s; a larger "
        "--time-budget measures it, and tries what comes after it"
    ]


def _dearer(spec: RemapSpec, outcome: RemapOutcome) -> list[str]:
    """What would help more and costs more of the nominal metric than is allowed."""
    best, unit = outcome.best.measured.on(outcome.search.conditions.chips), outcome.metric.unit
    refused = [
        candidate
        for candidate in outcome.search.tried
        if outcome.search.refused.get(candidate.name, "").startswith(COSTS) and candidate.measured.beats(best)
    ]
    if not refused:
        return []
    limit = f"{value_text(outcome.search.allowed, unit)}, unless --max-clean-loss allows more"
    if spec.max_clean_loss is not None:
        limit = f"--max-clean-loss {spec.max_clean_loss:g} allows"
    top = max(refused, key=lambda candidate: candidate.measured.sign * candidate.measured.worst)
    return [
        f"{top.name} brings the worst quarter to {value_text(top.measured.worst, unit)} instead of "
        f"{value_text(best.worst, unit)} and costs more of the nominal metric than {limit}"
    ]


def _what_steps_gave(outcome: RemapOutcome) -> list[str]:
    """The worst quarter of the chips, step by step on the way to the best candidate."""
    start, best = outcome.search.tried[0], outcome.best
    way = [one for one in outcome.search.tried if one is best or best.name.startswith(f"{one.name}, ")]
    way = [start, *(one for one in way if one is not start)]
    if len(way) < 3 or best is outcome.search.calculated:  # the table says it by itself
        return []
    unit, before, parts = outcome.metric.unit, "", []
    chips = outcome.search.conditions.chips
    for one in way:
        what = one.name.removeprefix(f"{before}, ")
        parts.append(f"{what} {value_text(one.measured.on(chips).worst, unit)}")
        before = one.name
    return [f"what each step gave, worst quarter of the same chips: {' → '.join(parts)}"]


def _offered(outcome: RemapOutcome) -> list[str]:
    """What another mapping would give, where it was not asked for."""
    offered = outcome.offered
    best = outcome.best.measured.on(outcome.search.conditions.chips)
    if offered is None or not offered.measured.beats(best):
        return []
    unit = outcome.metric.unit
    code = offered.name.rpartition(", ")[2]
    return [
        f"--code auto ({code}, as many devices) would bring the worst quarter to "
        f"{value_text(offered.measured.worst, unit)} instead of {value_text(best.worst, unit)}, for hardware "
        "that can weigh devices so"
    ]
