"""A comparison in words and cells, the same in every renderer."""

from __future__ import annotations

from collections.abc import Iterator

from nvaudit.report.comparison.ranks import Measure, RankCorrelation
from nvaudit.report.comparison.result import ComparedModel, ComparisonReport, ModelDifference
from nvaudit.report.mapped import part_text, share_warning
from nvaudit.report.paired import Difference
from nvaudit.report.wording import (
    confidence_text,
    converters_text,
    count_text,
    difference_text,
    duration_text,
    interval_text,
    kpp_name,
    limit_text,
    missing_bound_text,
    share_text,
    value_text,
)

MEASURE_NAMES: dict[Measure, str] = {
    "kpp": "KPP", "mean": "mean", "nominal": "ideal", "yield": "yield", "roughness": "roughness",
    "size": "size",
}  # fmt: skip

CHIPS_WORDS = {
    "same": "the same chips: every tensor has the same noise in both",
    "partly_shared": "partly the same chips: some tensors have the same noise in both",
    "independent": "independent chips: no tensor has the same noise in both",
}


def metric_columns(report: ComparisonReport) -> list[str]:
    """Headings of what :func:`metric_cells` gives."""
    unit = report.metric_info.unit
    thresholds = [item.threshold for item in report.models[0].yields]
    return [
        "ideal", "quantised" if report.converters is None else "converted", "mean",
        kpp_name(report.percentile), "interval",
        *(f"yield {limit_text(threshold, unit)}" for threshold in thresholds),
        *(["gate"] if report.verdict is not None else []),
    ]  # fmt: skip


def metric_cells(report: ComparisonReport, model: ComparedModel) -> list[str]:
    """Give what a model reaches."""
    unit, found = report.metric_info.unit, model.kpp[0]
    return [
        value_text(model.nominal, unit), value_text(model.quantised, unit), value_text(model.mean, unit),
        value_text(found.value, unit), interval_text(found.low, found.high, unit),
        *(share_text(item.share) for item in model.yields),
        *([str(model.verdict)] if report.verdict is not None else []),
    ]  # fmt: skip


COST_COLUMNS = ("roughness ×10⁻³", "weights", "devices", "crossbars", "on the array", "seconds")


def cost_cells(model: ComparedModel) -> list[str]:
    """Give what a model is like, and what it took."""
    rough = "-"
    if model.roughness is not None:
        error = model.roughness.standard_error
        rough = f"{1e3 * model.roughness.value:.4g}" + ("" if error is None else f" ± {1e3 * error:.2g}")
    return [
        rough,
        f"{model.size.weights:,}",
        f"{model.size.devices:,}",
        f"{model.size.crossbars:,}",
        "-" if model.mapped is None or model.mapped.share is None else part_text(model.mapped.share),
        "-" if model.seconds is None else f"{model.seconds:.3g}",
    ]


def place_text(model: ComparedModel) -> str:
    """Place of a model by the measure of the comparison."""
    return "-" if model.place is None else str(model.place)


def difference_cell(found: Difference, unit: str) -> str:
    """Show a difference with its interval, or why there is none."""
    value = difference_text(found.value, unit)
    if found.low is None or found.high is None:
        return value if found.missing is None else f"{value} ({found.missing})"
    low, high = (difference_text(end, unit).removesuffix(" points") for end in (found.low, found.high))
    return f"{value} [{low.replace('no change', '0')}, {high.replace('no change', '0')}]"


def verdict_of_difference(found: ModelDifference) -> str:
    """Say what an interval says."""
    low, high = found.kpp.low, found.kpp.high
    if low is None or high is None:
        return "open"
    return "not told apart" if low <= 0 <= high else "different"


def difference_remarks(report: ComparisonReport) -> Iterator[str]:
    """Say how the differences are to be read."""
    if not report.differences:
        return
    text = f"Each interval holds by itself at {confidence_text(report.confidence)}"
    if report.baseline == (report.chosen or report.best):
        text += "; that the baseline was chosen by the same chips favours it a little"
    yield f"{text}."
    for relation, words in CHIPS_WORDS.items():
        names = [item.model for item in report.differences if item.chips == relation]
        if names:
            yield f"{', '.join(names)} and {report.baseline} have {words}."
    stopped = [item.model for item in report.differences if item.method == "bounds"]
    if stopped:
        yield (
            f"{', '.join(stopped)}: the interval is wide because chips were stopped early; --exhaustive "
            "compares chip by chip."
        )
    for item in report.differences:
        yield from _images_remark(item, report.metric_info.unit)


def _images_remark(item: ModelDifference, unit: str) -> Iterator[str]:
    if item.images == "same":
        return
    found = "have different labels" if item.images == "different" else "may have different images"
    text = f"{item.model} and {item.baseline} {found}: the differences are over chips only"
    if item.image_error is not None:
        error = difference_text(item.image_error, unit).lstrip("+")
        text += f"; the images add a standard error of {error}, which the intervals do not contain"
    yield text + "."


def correlation_text(found: RankCorrelation) -> str:
    """Say a rank correlation, and what it cannot say."""
    names = f"Spearman correlation of {MEASURE_NAMES[found.first]} and {MEASURE_NAMES[found.second]}"
    if found.value is None:
        return f"{names}: {found.remark}"
    text = f"{names} over {count_text(found.models, 'model')}: {found.value:+.2f}".replace("-", "−")
    if found.p is not None:
        text += f" (p = {found.p:.2g})"
    return text if found.remark is None else f"{text}; {found.remark}"


def gate_text(report: ComparisonReport) -> str | None:
    """Say what the gate asks for; None without one."""
    gates, share = report.models[0].gate, report.models[0].mapped_gate
    if report.verdict is None:
        return None
    info = report.metric_info
    side = "below" if info.higher_is_better else "above"
    asked = dict.fromkeys(
        f"at most {gate.percentile:g} % of the chips {side} {limit_text(gate.threshold, info.unit)}"
        for gate in gates
    )
    parts = [f"{' and '.join(asked)} ({confidence_text(gates[0].confidence)} confidence)"] if gates else []
    if share is not None:
        parts.append(f"at least {100 * share.required:.10g} % of the products on the array")
    passing = sum(model.verdict == "pass" for model in report.models)
    return f"The gate: {'; '.join(parts)}; {passing} of {len(report.models)} models pass."


def share_warnings(report: ComparisonReport) -> list[str]:
    """Say of which models more than a few percent is off the array."""
    found = ((model.name, share_warning(model.mapped)) for model in report.models)
    return [f"{name}: {text}" for name, text in found if text is not None]


def bound_remarks(report: ComparisonReport) -> Iterator[str]:
    """Say which intervals have an end missing, once for all models."""
    better = report.metric_info.higher_is_better
    texts = (missing_bound_text(model.kpp[0], better) for model in report.models)
    yield from dict.fromkeys(text for text in texts if text is not None)


def condition_lines(report: ComparisonReport) -> list[str]:
    """Say what all models have in common."""
    point, info = report.operating_point, report.metric_info
    better = "higher is better" if info.higher_is_better else "lower is better"
    chips = {model.trials for model in report.models}
    count = count_text(min(chips), "chip") if len(chips) == 1 else "different numbers of chips"
    return [
        f"Metric: {report.metric} ({better}); {kpp_name(report.percentile)}, "
        f"{confidence_text(report.confidence)} confidence, {count} of each model",
        f"Device: {report.device_name} at {point.sigma_text}, t = "
        f"{duration_text(point.time_s)}; noise terms: {', '.join(point.terms) or 'none'}"
        + ("" if report.converters is None else f"; converters: {converters_text(report.converters)}"),
    ]
