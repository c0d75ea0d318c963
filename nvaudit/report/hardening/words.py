"""What a terminal and a page both say of a hardening."""

from __future__ import annotations

from nvaudit.report.hardening.result import (
    EpochInfo,
    HardenReport,
    HardenSide,
    HardwareAware,
    TrainingInfo,
    beyond_limit,
)
from nvaudit.report.mapped import coverage_text, part_text
from nvaudit.report.sections import OperatingPointInfo
from nvaudit.report.wording import (
    count_text,
    difference_text,
    duration_text,
    interval_text,
    kpp_name,
    limit_text,
    roughness_text,
    value_text,
)

CANDIDATES_NOTES = {
    "roughness": "On validation samples; the least rough one is kept, whatever its KPP.",
    "kpp": "On validation samples; the one of the best KPP on the audited device is kept.",
}
"""By what the choice goes by."""


def point_text(point: OperatingPointInfo) -> str:
    """Name the operating point of both audits."""
    level_of = "" if point.level_of is None else f" {point.level_of}"
    return f"sigma {point.sigma:g} ({point.sigma_unit}{level_of}), time {point.time_s:g} s"


def side_rows(report: HardenReport) -> list[tuple[str, str, str, str]]:
    """Name, before, after and change of everything that both models were measured by."""
    unit, before, after = report.metric_info.unit, report.before, report.after
    rows = [
        (name, value_text(a, unit), value_text(b, unit), difference_text(b - a, unit))
        for name, a, b in (
            ("without noise", before.nominal, after.nominal),
            ("quantised" if report.crossbar is None else "converted", before.quantised, after.quantised),
            ("mean of the chips", before.mean, after.mean),
            (kpp_name(report.difference.percentile), before.kpp.value, after.kpp.value),
        )
    ]
    for a, b in zip(before.yields, after.yields, strict=True):
        name = f"yield at {limit_text(round(a.threshold, 6), unit)}"
        first, second = (value_text(side.share, "fraction") for side in (a, b))
        rows.append((name, first, second, difference_text(b.share - a.share, "fraction")))
    if before.roughness is not None and after.roughness is not None:
        cells = [f"{1e3 * value:.4g} ×10⁻³" for value in (before.roughness, after.roughness)]
        change = f"{1e3 * (after.roughness - before.roughness):+.4g} ×10⁻³".replace("-", "−", 1)
        rows.append(("roughness", cells[0], cells[1], change))
    for noun in ("products", "weights"):
        a, b = (getattr(side, f"share_of_{noun}") for side in (before, after))
        if a is not None and b is not None:
            name = f"{noun} on the array"
            rows.append((name, part_text(a), part_text(b), difference_text(b - a, "fraction")))
            break
    return rows


def interval_lines(report: HardenReport) -> list[str]:
    """The intervals of both KPPs, and why their difference has none if it has none."""
    unit = report.metric_info.unit
    lines = [
        _interval(name, side, unit) for name, side in (("before", report.before), ("after", report.after))
    ]
    missing = report.difference.kpp.missing
    if missing is not None:
        lines.append(f"No interval of the difference of the KPP: {missing} (--trials)")
    return lines


def _interval(name: str, side: HardenSide, unit: str) -> str:
    ends = interval_text(side.kpp.low, side.kpp.high, unit)
    return f"{kpp_name(side.kpp.percentile)} {name}: {100 * side.kpp.confidence:g} % interval {ends}"


def training_text(report: HardenReport, found: TrainingInfo) -> str:
    """Say with what and on what it was trained."""
    noise = "" if found.sigma is None else f", sigma {found.sigma:.4g} max|W|"
    return (
        f"{report.method}{noise}; the device makes {found.device_sigma:.4g} max|W|; {found.loss}; "
        f"{count_text(found.samples, 'sample')}, {count_text(found.validation_samples, 'sample')} held out"
    )


def attempt_columns(report: HardenReport) -> tuple[str, ...]:
    """Names of what is known of the trainings of ``best``."""
    return "training", "lr", "clipped at", "without noise", kpp_name(report.difference.percentile), ""


def attempt_rows(report: HardenReport, found: TrainingInfo) -> list[tuple[str, ...]]:
    """The given model and each training, the result marked; empty where there was one training at most."""
    if len(found.attempts) < 2 or found.compared is None:
        return []
    unit = report.metric_info.unit
    given = "kept" if found.kept_attempt is None else ""
    rows: list[tuple[str, ...]] = [("none (given)", "", "", "", value_text(found.compared[0], unit), given)]
    for place, one in enumerate(found.attempts):
        rows.append(
            (
                one.name,
                f"{one.lr:g}",
                "" if one.clip_weights is None else f"{one.clip_weights:g} std",
                _change_text(report, one.clean_loss),
                value_text(one.kpp, unit),
                "kept" if place == found.kept_attempt else "",
            )
        )
    return rows


def attempts_note(found: TrainingInfo) -> str:
    """Say why there was a second training, and by what the result was chosen."""
    judged = (
        "losses without noise beyond 1.5 points count against it"
        if found.max_clean_loss is None
        else "a loss without noise beyond --max-clean-loss rules a network out"
    )
    return (
        "On held-out samples and chips that are the same for all. The bold training cost too much without "
        "noise, or was no better than the given model, so a gentle one followed; the best KPP is kept, where "
        f"{judged}."
    )


def kept_text(report: HardenReport, found: TrainingInfo) -> str | None:
    """Say of which epoch the result is, and what it was compared by; None where it is just the last."""
    if found.kept == "last" or found.kept_epoch is None:
        return None
    compared = ""
    if found.compared is not None:
        given, trained = (value_text(value, report.metric_info.unit) for value in found.compared)
        name = kpp_name(report.difference.percentile)
        compared = f"; on validation samples and fresh chips {name} is {given} given, {trained} trained"
    lost = _lost_text(report, found)
    if found.kept_epoch == 0:
        why = "training did not surpass it"
        if beyond_limit(found) and found.clean_loss is not None:
            why = "the trained one lost too much without noise"
        elif found.max_clean_loss is not None:
            why = "no network within the limit surpassed it"
        return f"The result is the given model: {why}{lost}{compared}"
    if found.kept == "better":
        return (
            f"The result is the network of the last epoch{of_attempt(found)}{lost}{compared}"
            if compared
            else None
        )
    best = "which had the best KPP" + (
        " of those within the limit" if found.max_clean_loss is not None else ""
    )
    return f"The result is the network of epoch {found.kept_epoch}, {best}{lost}{compared}"


def of_attempt(found: TrainingInfo) -> str:
    """Name the training that is kept; empty where there was one."""
    if found.kept_attempt is None or len(found.attempts) < 2:
        return ""
    return f" of the {found.attempts[found.kept_attempt].name} training"


def _lost_text(report: HardenReport, found: TrainingInfo) -> str:
    """What was lost without noise, where it was measured, beside the limit, if there is one."""
    parts = []
    if found.clean_loss is not None:
        parts.append(f"without noise, on all held-out samples: {_change_text(report, found.clean_loss)}")
    if found.max_clean_loss is not None:
        parts.append(f"--max-clean-loss allows {_change_text(report, found.max_clean_loss)}")
    return f" ({'; '.join(parts)})" if parts else ""


def _change_text(report: HardenReport, loss: float) -> str:
    info = report.metric_info
    return difference_text(-loss if info.higher_is_better else loss, info.unit)


def through_lines(info: HardwareAware | None) -> list[str]:
    """Say that training was hardware-aware, and which weights were left out."""
    if info is None:
        return []
    through = sum(layer.reason is None for layer in info.layers)
    first = (
        f"Hardware-aware: {through} of {count_text(len(info.layers), 'weight')} trained through crossbars of "
        f"{info.rows} × {info.cols} with {info.adc_bits}-bit ADCs"
    )
    whole = [
        f"Trained whole: {layer.name}: {layer.reason}" for layer in info.layers if layer.reason is not None
    ]
    return [first, *whole]


def epoch_columns(found: TrainingInfo) -> tuple[str, ...]:
    """Names of what is known of the epochs."""
    return ("epoch", "sigma", "loss", "KPP", *(("without noise",) if _limited(found) else ()))


def epoch_rows(report: HardenReport, found: TrainingInfo) -> list[tuple[str, ...]]:
    """What happened in each epoch, in the order of the columns."""
    last = _limited(found)
    return [_epoch_row(report, row)[: None if last else -1] for row in found.history]


def _limited(found: TrainingInfo) -> bool:
    return any(row.clean_loss for row in found.history)


def _epoch_row(report: HardenReport, row: EpochInfo) -> tuple[str, ...]:
    unit = report.metric_info.unit
    return (
        str(row.epoch),
        " ".join(f"{value:.4g}" for value in row.sigma),
        " ".join(f"{value:.4g}" for value in row.loss),
        " ".join(value_text(value, unit) for value in row.kpp),
        " ".join(_change_text(report, value) for value in row.clean_loss),
    )


def candidate_columns(report: HardenReport) -> tuple[str, ...]:
    """Names of what is known of the candidates of stability-vat."""
    kpp = kpp_name(report.difference.percentile)
    return "sigma", "loss", "without noise", kpp, "roughness ×10⁻³", ""


def candidate_rows(report: HardenReport, found: TrainingInfo) -> list[tuple[str, ...]]:
    """The candidates of stability-vat, the one that was kept marked."""
    unit = report.metric_info.unit
    rows: list[tuple[str, ...]] = []
    for place, one in enumerate(found.candidates):
        spread = "" if one.spread is None else f" ± {1e3 * one.spread:.2g}"
        rows.append(
            (
                "start" if one.sigma is None else f"{one.sigma:g}",
                "" if one.loss is None else f"{one.loss:.4g}",
                value_text(one.clean, unit),
                value_text(one.kpp, unit),
                f"{1e3 * one.roughness:.4g}{spread}",
                "kept" if place == found.kept_candidate else "",
            )
        )
    return rows


_STAGES = {
    "A": "as given",
    "B": "quantised",
    "C": "quantised and pruned",
    "D": "trained with device noise, the one that is kept",
}


def stages_text(found: TrainingInfo) -> str | None:
    """Give the roughness of models A to D; None where it was not measured."""
    if not found.stages:
        return None
    shown = ", ".join(
        f"{stage.model} ({_STAGES[stage.model]}) {roughness_text(stage.roughness, stage.spread)}"
        for stage in found.stages
    )
    return f"Roughness of the models of Algorithm 1: {shown}; B, C and D around the weights on their grid"


def mapped_lines(report: HardenReport) -> list[str]:
    """How much of the hardened model is on the array."""
    return [] if report.mapped is None else [f"On the array: {coverage_text(report.mapped)}"]


def run_lines(report: HardenReport) -> list[str]:
    """How it was run."""
    return [
        f"Model: {report.model.path}",
        f"Device: {report.device_name}, {point_text(report.operating_point)}",
        *mapped_lines(report),
        f"Audited on {count_text(report.data.count, 'sample')}; seed {report.run.get('seed')}",
        "Time: " + ", ".join(f"{name} {duration_text(value)}" for name, value in report.timing.items()),
        f"nvaudit {report.nvaudit_version}",
    ]
