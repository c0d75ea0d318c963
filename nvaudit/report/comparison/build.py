"""From audit reports to a comparison: ranks, differences from a baseline, correlations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from nvaudit.errors import OptionError
from nvaudit.report.comparison.conditions import (
    check_comparable,
    chip_relation,
    conditions_of,
    named_differences,
    option_notes,
)
from nvaudit.report.comparison.difference import (
    ChipSample,
    IntervalMethod,
    Relation,
    difference_of_kpp,
    difference_of_mean,
)
from nvaudit.report.comparison.measures import (
    check_measure,
    common_percentiles,
    common_thresholds,
    measures_of,
    one_gate,
    rank_models,
    roughness_scores,
    size_of,
    sort_key,
)
from nvaudit.report.comparison.ranks import RankCorrelation, spearman
from nvaudit.report.comparison.result import (
    ComparedModel,
    ComparisonReport,
    ImageRelation,
    ModelDifference,
    RoughnessScore,
)
from nvaudit.report.cost.result import figures_of
from nvaudit.report.mapped import share_clause
from nvaudit.report.paired import Difference
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    interval_text,
    kpp_name,
    listed_text,
    share_of_weights_text,
    share_text,
    sigma_text,
    value_text,
)
from nvaudit.spec import Measure
from nvaudit.stats.gate import Verdict


@dataclass(frozen=True)
class Entry:
    """One audit that goes into a comparison.

    Attributes
    ----------
    labels : str or None
        SHA-256 of the labels; None where it is not known.
    read_from : str or None
        File of the report, if it was not made now.
    """

    report: AuditReport
    labels: str | None = None
    read_from: str | None = None


@dataclass(frozen=True)
class _CommonGate:
    """What all models have: whether one gate, which percentiles and which thresholds."""

    gated: bool
    percentiles: tuple[float, ...]
    thresholds: tuple[float, ...]


def compare_reports(
    entries: Mapping[str, Entry],
    rank_by: Measure = "kpp",
    baseline: str | None = None,
    *,
    version: str,
    timing: Mapping[str, float] | None = None,
) -> ComparisonReport:
    """Compare audits.

    Parameters
    ----------
    entries : mapping of str to Entry
        By the name of the model; two or more.
    baseline : str, optional
        The model that the others are compared with; without it the chosen one.

    Raises
    ------
    OptionError
        If the audits have other metrics or percentiles, the baseline is none of them, or the measure is
        missing everywhere.
    """
    reports = {name: entry.report for name, entry in entries.items()}
    _check(reports, baseline)
    shared = _CommonGate(one_gate(reports), common_percentiles(reports), common_thresholds(reports))
    scores, remark = roughness_scores(reports)
    measures = {
        name: measures_of(report, scores[name], shared.thresholds) for name, report in reports.items()
    }
    ranks = rank_models(reports, measures)
    check_measure(rank_by, ranks)
    order = sorted(reports, key=lambda name: sort_key(ranks[name], rank_by))
    conditions = named_differences(reports)
    models = tuple(
        _model(name, entries[name], ranks[name], rank_by, scores[name], shared).model_copy(
            update={"conditions": conditions[name]}
        )
        for name in order
    )
    chosen = next((m.name for m in models if not shared.gated or m.verdict == "pass"), None)
    against = baseline or chosen or order[0]
    first = reports[order[0]]
    report = ComparisonReport(
        nvaudit_version=version,
        headline="",
        label_free=first.label_free,
        rank_by=rank_by,
        best=order[0],
        chosen=chosen,
        verdict=_verdict(models) if shared.gated else None,
        metric=first.metric,
        metric_info=first.metric_info,
        device=first.device,
        runtime=first.runtime,
        operating_point=first.operating_point,
        converters=_converters(list(reports.values())),
        percentile=first.kpp[0].percentile,
        confidence=first.kpp[0].confidence,
        models=models,
        baseline=against,
        differences=tuple(
            _difference(name, entries[name], against, entries[against]) for name in order if name != against
        ),
        correlations=_correlations(measures),
        notes=(*remark, *_notes(reports, shared.gated)),
        timing=dict(timing or {}),
    )
    return report.model_copy(update={"headline": _headline(report)})


def _converters(reports: Sequence[AuditReport]) -> dict[str, JsonValue] | None:
    """Options of the converters that all reports have."""
    names = ("adc_bits", "dac_bits", "adc_range", "crossbar")
    of_reports = [
        {f"--{name.replace('_', '-')}": report.run.get(name) for name in names} for report in reports
    ]
    same = all(options == of_reports[0] for options in of_reports)
    return of_reports[0] if same and reports[0].run.get("adc_bits") is not None else None


def _check(reports: Mapping[str, AuditReport], baseline: str | None) -> None:
    if len(reports) < 2:
        raise OptionError(f"a comparison needs two models or more, got {len(reports)}")
    if baseline is not None and baseline not in reports:
        raise OptionError(f"--baseline {baseline!r} is none of the models; use one of {', '.join(reports)}")
    (first, report), *others = reports.items()
    for name, other in others:
        check_comparable(first, conditions_of(report), name, conditions_of(other))


def _model(
    name: str,
    entry: Entry,
    own: Mapping[Measure, int | None],
    rank_by: Measure,
    roughness: RoughnessScore | None,
    shared: _CommonGate,
) -> ComparedModel:
    report = entry.report
    kpps = {item.percentile: item for item in report.kpp}
    yields = {item.threshold: item for item in report.yields}
    return ComparedModel(
        name=name,
        model=report.model.path,
        report=entry.read_from,
        place=own[rank_by],
        places=dict(own),
        nominal=report.nominal,
        quantised=report.quantised,
        mean=report.trials.mean,
        std=report.trials.std,
        kpp=tuple(kpps[percentile] for percentile in shared.percentiles),
        yields=tuple(yields[threshold] for threshold in shared.thresholds),
        gate=report.gate if shared.gated else (),
        verdict=report.verdict if shared.gated else None,
        roughness=roughness,
        size=size_of(report.tensors),
        share_converted=None if report.crossbar is None else report.crossbar.share_of_weights,
        mapped=report.mapped,
        mapped_gate=report.mapped_gate if shared.gated else None,
        images=report.data.count,
        standard_error=report.data.standard_error,
        trials=report.trials.count,
        images_evaluated=report.trials.images_evaluated,
        images_exhaustive=report.trials.images_exhaustive,
        seconds=report.timing.get("total"),
        codes=report.codes,
        cost=figures_of(report.cost),
        run=report.run,
        hashes=report.hashes,
        notes=report.notes,
        events=report.events,
    )


def _verdict(models: Sequence[ComparedModel]) -> Verdict:
    """Judge the comparison as its best model: one that passes is enough."""
    verdicts = {model.verdict for model in models}
    if "pass" in verdicts:
        return "pass"
    return "undecided" if "undecided" in verdicts else "fail"


def audit_difference(
    before: AuditReport, after: AuditReport
) -> tuple[Relation, Difference, IntervalMethod, Difference]:
    """What the chips of two audits share, the difference of their KPPs and its method, and of their means."""
    chips = ChipSample.of(before), ChipSample.of(after)
    relation, confidence = chip_relation(before, after), before.kpp[0].confidence
    if relation == "same" and any(named_differences({"": before, " ": after})[""]):
        relation = "partly_shared"  # the same random numbers, in devices that differ
    kpp, method = difference_of_kpp(*chips, relation, confidence, before.metric_info.higher_is_better)
    mean = difference_of_mean(*chips, confidence, after.trials.mean - before.trials.mean)
    return relation, kpp, method, mean


def _difference(name: str, entry: Entry, baseline: str, against: Entry) -> ModelDifference:
    """Subtract the baseline from a model."""
    before, after = against.report, entry.report
    relation, kpp, method, mean = audit_difference(before, after)
    images = _images(against, entry)
    errors = before.data.standard_error, after.data.standard_error
    error = None
    if images != "same" and errors[0] is not None and errors[1] is not None:
        # Two sets drawn apart: the variances add. On the same set the errors depend on each other, and no
        # such sum holds.
        error = math.hypot(errors[0], errors[1])
    return ModelDifference(
        model=name,
        baseline=baseline,
        chips=relation,
        method=method,
        kpp=kpp,
        mean=mean,
        images=images,
        image_error=error,
    )


def _images(first: Entry, second: Entry) -> ImageRelation:
    """Find out whether two audits saw the same images: the inputs may be preprocessed differently."""
    if first.report.hashes.data == second.report.hashes.data:
        return "same"
    if first.report.data.count != second.report.data.count:
        return "different"
    if first.labels is None or second.labels is None:
        return "unknown"
    return "same" if first.labels == second.labels else "different"


def _correlations(measures: Mapping[str, Mapping[Measure, float | None]]) -> tuple[RankCorrelation, ...]:
    """Correlate roughness with what it may foretell; none where no model has it."""
    if all(values["roughness"] is None for values in measures.values()):
        return ()
    wanted: tuple[Measure, ...] = ("kpp", "mean")
    return tuple(
        spearman("roughness", other, [(v["roughness"], v[other]) for v in measures.values()])
        for other in wanted
    )


def _notes(reports: Mapping[str, AuditReport], gated: bool) -> Iterator[str]:
    yield from option_notes(reports)
    shares = {
        name: report.crossbar.share_of_weights
        for name, report in reports.items()
        if report.crossbar is not None and report.crossbar.share_of_weights is not None
    }
    if any(share < 1 for share in shares.values()):
        listed = ", ".join(f"{name} {share_text(share)}" for name, share in shares.items())
        yield f"share of the mapped weights that go through converters: {listed}"
    if not gated and any(report.gate or report.mapped_gate for report in reports.values()):
        yield "the gates of the runs differ and are left out"
    if any(report.sweep for report in reports.values()):
        yield "of a sweep, the point with the largest sigma is compared"


def _headline(report: ComparisonReport) -> str:
    info, models = report.metric_info, {model.name: model for model in report.models}
    name = report.chosen or report.best
    model = models[name]
    kpp, point = model.kpp[0], report.operating_point
    sigma = sigma_text(point.sigma, point.sigma_unit, point.level_of)
    measure = {
        "kpp": kpp_name(report.percentile), "mean": "mean", "nominal": "nominal value",
        "yield": "yield", "roughness": "roughness", "size": "size",
    }[report.rank_by]  # fmt: skip
    passing = sum(each.verdict == "pass" for each in report.models)
    among = f"of {len(models)}"
    if report.verdict == "pass":
        among = f"of the {passing} of {len(models)} that pass"
    elif report.verdict is not None:
        among += ", none of which passes"
    first = "is best" if report.verdict in (None, "pass") else "ranks first"
    who = name
    if len(report.equals) > 1:
        who, first = listed_text(report.equals), "share the first place"
    text = (
        f"{who} {first} {among} by {measure}: {kpp_name(kpp.percentile)} {report.metric} "
        f"{value_text(kpp.value, info.unit)} {interval_text(kpp.low, kpp.high, info.unit)} "
        f"({confidence_text(kpp.confidence)}) on {_where(report, model, sigma)}, "
        f"{count_text(model.trials, 'chip')}{share_clause(model.mapped)}"
    )
    if model.share_converted is not None and model.share_converted < 1:
        text += f", converters{share_of_weights_text(model.share_converted)}"
    if report.rank_by == "yield":
        text += f"; yield {share_text(model.yields[0].share)}"
    if report.verdict is not None:
        text = f"{report.verdict.upper()}: {text}"
    if report.label_free:
        text = f"LABEL-FREE (no labels: compared with the unperturbed models only): {text}"
    return info.cautioned(text)


def _where(report: ComparisonReport, model: ComparedModel, sigma: str) -> str:
    """Under which conditions the model stands; where these differ, its own."""
    if not model.conditions:
        return f"{report.device_name}, {sigma}"
    own = {"device": report.device_name, "σ": sigma.removeprefix("sigma "), **model.conditions}
    rest = [f"{name} {value}" for name, value in own.items() if name not in ("device", "σ", "profile")]
    return ", ".join([own["device"], f"sigma {own['σ']}", *rest])
