"""What the report of a hardening says: the same chips before and after, and how it was done."""

from __future__ import annotations

from functools import partial

from nvaudit.report.codes import codes_blocks, codes_number
from nvaudit.report.cost.document import costs_table
from nvaudit.report.document import (
    Block,
    Bullets,
    Document,
    Figure,
    Hero,
    Paragraph,
    Section,
    Table,
    file_name,
    limited,
    short,
)
from nvaudit.report.groups import zero_groups_text
from nvaudit.report.hardening.figures import candidates_figure, pair_figure, training_figure
from nvaudit.report.hardening.result import (
    EpochInfo,
    HardenReport,
    HardwareAware,
    TrainingInfo,
    beyond_limit,
)
from nvaudit.report.mapped import coverage_text, part_text
from nvaudit.report.parts import (
    before_after,
    change_title,
    crossbar_section,
    notes_section,
    record_section,
    share_blocks,
    share_numbers,
    warnings,
)
from nvaudit.report.sections import OperatingPointInfo
from nvaudit.report.wording import (
    count_text,
    difference_text,
    interval_text,
    kpp_name,
    limit_text,
    roughness_text,
    sigma_text,
    value_text,
)
from nvaudit.report.write_verify.document import plan_sections, reason_text

_CANDIDATES_NOTES = {
    "roughness": "On validation samples; the least rough one is kept, whatever its KPP.",
    "kpp": "On validation samples; the one of the best KPP on the audited device is kept.",
}
"""By what the choice goes by."""

_STAGES = {
    "A": "as given",
    "B": "quantised",
    "C": "quantised and pruned",
    "D": "trained with device noise, the one that is kept",
}


def harden_document(report: HardenReport) -> Document:
    """Say what a hardening found."""
    sections = (
        _chips(report),
        _array(report),
        crossbar_section(report.crossbar),
        _candidates(report),
        _training(report),
        *_plan(report),
        notes_section((*report.notes, *report.events)),
        record_section(report, _run_rows(report)),
    )
    name = file_name(report.model.path)
    return Document(
        title=report.headline,
        subject=name,
        subtitle=f"{report.metric} before and after --method {report.method}, {short(report.device_name)} at "
        f"{_point_text(report.operating_point)}",
        hero=_hero(report),
        sections=tuple(section for section in sections if section is not None),
        version=report.nvaudit_version,
    )


def _hero(report: HardenReport) -> Hero:
    unit, change, better = report.metric_info.unit, report.difference.kpp, report.metric_info.higher_is_better
    before, after, name = report.before, report.after, kpp_name(report.difference.percentile)
    worse = change.value < 0 if better else change.value > 0
    numbers = [
        before_after(name, before.kpp.value, after.kpp.value, unit, main=True),
        before_after("mean of the chips", before.mean, after.mean, unit),
        before_after("without noise", before.nominal, after.nominal, unit),
    ]
    for a, b in zip(before.yields[:1], after.yields[:1], strict=True):
        at = limit_text(round(a.threshold, 6), unit)
        numbers.append(before_after(f"yield at {at}", a.share, b.share, "fraction"))
    return Hero(
        role="fail" if worse else "none",
        word="worse" if worse else "",
        title=change_title(name, change.value, unit),
        lines=(),
        numbers=(*numbers, *codes_number(report.codes), *share_numbers(report.mapped)),
        warnings=warnings(report, report.mapped),
    )


def _chips(report: HardenReport) -> Section:
    chips = count_text(report.difference.chips, "chip")
    rows, columns = _side_rows(report), ("", "before", "after", "change")
    kpp = kpp_name(report.difference.percentile)
    caption = (
        f"{report.metric} of the same {chips} before and after; dashed: the {kpp} of each. The numbers are "
        "those of the table."
    )
    blocks: tuple[Block, ...] = (
        Figure("pair", caption, partial(pair_figure, report), tall=True),
        Table("sides", f"Both models on the same {chips}.", columns, tuple(rows), numeric=(1, 2, 3)),
        *costs_table("costs", "", [("before", report.before.cost), ("after", report.after.cost)]),
        Bullets(tuple(f"{line}." for line in _interval_lines(report))),
    )
    return Section("chips", "Before and after", blocks)


def _array(report: HardenReport) -> Section | None:
    """What of the hardened model is on the array, what its groups of zeros save, and its codes."""
    blocks = share_blocks(report.mapped)
    if report.zero_groups is not None:
        blocks.append(Paragraph(f"Groups of zeros: {zero_groups_text(report.zero_groups)}."))
    if report.codes is not None:
        blocks += codes_blocks(report.codes)
    return Section("mapping", "What is on the array", tuple(blocks)) if blocks else None


def _plan(report: HardenReport) -> tuple[Section, ...]:
    """The write-verify plan of the hardened model, as its own page shows it."""
    plan = report.verify_plan
    if plan is None:
        return ()
    lead = (Paragraph(f"{plan.headline}.", "lead"), Paragraph(f"{reason_text(plan)}."))
    return (
        Section("verify-plan", "Write-verify plan of the hardened model", lead),
        *plan_sections(plan),
    )


def _candidates(report: HardenReport) -> Section | None:
    training = report.training
    if training is None or not training.candidates:
        return None
    caption = "KPP of each candidate over its roughness, with the spread over direction pairs; orange: kept."
    rows = tuple(_candidate_rows(report, training))
    kpp = kpp_name(report.difference.percentile)
    columns = ("sigma", "loss", "without noise", kpp, "roughness ×10⁻³", "result")
    blocks: tuple[Block, ...] = (
        Figure("candidates", caption, partial(candidates_figure, report, training)),
        Table(
            "candidate-rows",
            _CANDIDATES_NOTES[training.kept_by or "roughness"],
            columns,
            rows,
            numeric=(1, 2, 3, 4),
        ),
    )
    stages = _stages_text(training)
    if stages is not None:
        blocks = (*blocks, Paragraph(f"{stages}.", "note"))
    return Section("candidates-section", "Candidates", blocks)


def _training(report: HardenReport) -> Section | None:
    training = report.training
    if training is None:
        return None
    lines = [_training_text(report, training), *_through_lines(training.hardware_aware)]
    kept = _kept_text(report, training)
    blocks: list[Block] = [Paragraph(f"{'. '.join([*lines, *([] if kept is None else [kept])])}.", "lead")]
    tried = tuple(_attempt_rows(report, training))
    if tried:
        kpp = kpp_name(report.difference.percentile)
        columns = ("training", "lr", "clipped at", "without noise", kpp, "result")
        blocks.append(Table("attempts", _attempts_note(training), columns, tried, numeric=(1, 2, 3, 4)))
    if training.history:
        blocks.append(_epochs(report, training))
    return Section("training", "Training", tuple(blocks))


def _epochs(report: HardenReport, training: TrainingInfo) -> Figure:
    unit, name = report.metric_info.unit, kpp_name(report.difference.percentile)
    whole = any(row.clean_loss for row in training.history)
    shown, cut = limited([_epoch_row(report, row)[: None if whole else -1] for row in training.history])
    first, last = training.history[0].loss, training.history[-1].loss
    scored = ""
    if any(row.kpp for row in training.history):
        scored = f", and the {name} on validation samples where it was scored"
    epochs = f"{count_text(len(training.history), 'epoch')}{_of_attempt(training)}"
    ends = f"from {_values(first)} in the first to {_values(last)} in the last"
    caption = f"Loss of each of {epochs}{scored}: {ends}."
    columns = ("epoch", "sigma", "loss", "KPP", *(("without noise",) if whole else ()))
    numbers = Table("epochs", f"Every epoch.{cut}", columns, shown, numeric=(0,))
    return Figure("training-figure", caption, partial(training_figure, training, unit, name), numbers)


def _values(losses: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in losses)


def _point_text(point: OperatingPointInfo) -> str:
    """Name the operating point of both audits."""
    return f"{sigma_text(point.sigma, point.sigma_unit, point.level_of)}, time {point.time_s:g} s"


def _side_rows(report: HardenReport) -> list[tuple[str, str, str, str]]:
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


def _interval_lines(report: HardenReport) -> list[str]:
    """The intervals of both KPPs, and why their difference has none if it has none."""
    unit = report.metric_info.unit
    lines = []
    for name, kpp in (("before", report.before.kpp), ("after", report.after.kpp)):
        ends = interval_text(kpp.low, kpp.high, unit)
        lines.append(f"{kpp_name(kpp.percentile)} {name}: {100 * kpp.confidence:g} % interval {ends}")
    missing = report.difference.kpp.missing
    if missing is not None:
        lines.append(f"No interval of the difference of the KPP: {missing} (--trials)")
    return lines


def _training_text(report: HardenReport, training: TrainingInfo) -> str:
    """Say with what and on what it was trained."""
    noise = "" if training.sigma is None else f", sigma {training.sigma:.4g} max|W|"
    return (
        f"{report.method}{noise}; the device makes {training.device_sigma:.4g} max|W|; {training.loss}; "
        f"{count_text(training.samples, 'sample')}, "
        f"{count_text(training.validation_samples, 'sample')} held out"
    )


def _attempt_rows(report: HardenReport, training: TrainingInfo) -> list[tuple[str, ...]]:
    """The given model and each training, the result marked; empty where there was one training at most."""
    if len(training.attempts) < 2 or training.compared is None:
        return []
    unit = report.metric_info.unit
    given = "kept" if training.kept_attempt is None else ""
    rows: list[tuple[str, ...]] = [
        ("none (given)", "", "", "", value_text(training.compared[0], unit), given)
    ]
    for place, one in enumerate(training.attempts):
        rows.append(
            (
                one.name,
                f"{one.lr:g}",
                "" if one.clip_weights is None else f"{one.clip_weights:g} std",
                _change_text(report, one.clean_loss),
                value_text(one.kpp, unit),
                "kept" if place == training.kept_attempt else "",
            )
        )
    return rows


def _attempts_note(training: TrainingInfo) -> str:
    """Say why there was a second training, and by what the result was chosen."""
    judged = (
        "losses without noise beyond 1.5 points count against it"
        if training.max_clean_loss is None
        else "a loss without noise beyond --max-clean-loss rules a network out"
    )
    return (
        "On held-out samples and chips that are the same for all. The bold training cost too much without "
        "noise, or was no better than the given model, so a gentle one followed; the best KPP is kept, where "
        f"{judged}."
    )


def _kept_text(report: HardenReport, training: TrainingInfo) -> str | None:
    """Say of which epoch the result is, and what it was compared by; None where it is just the last."""
    if training.kept == "last" or training.kept_epoch is None:
        return None
    compared = ""
    if training.compared is not None:
        given, trained = (value_text(value, report.metric_info.unit) for value in training.compared)
        name = kpp_name(report.difference.percentile)
        compared = f"; on validation samples and fresh chips {name} is {given} given, {trained} trained"
    lost = _lost_text(report, training)
    if training.kept_epoch == 0:
        why = "training did not surpass it"
        if beyond_limit(training) and training.clean_loss is not None:
            why = "the trained one lost too much without noise"
        elif training.max_clean_loss is not None:
            why = "no network within the limit surpassed it"
        return f"The result is the given model: {why}{lost}{compared}"
    if training.kept == "better":
        return (
            f"The result is the network of the last epoch{_of_attempt(training)}{lost}{compared}"
            if compared
            else None
        )
    best = "which had the best KPP" + (
        " of those within the limit" if training.max_clean_loss is not None else ""
    )
    return f"The result is the network of epoch {training.kept_epoch}, {best}{lost}{compared}"


def _of_attempt(training: TrainingInfo) -> str:
    """Name the training that is kept; empty where there was one."""
    if training.kept_attempt is None or len(training.attempts) < 2:
        return ""
    return f" of the {training.attempts[training.kept_attempt].name} training"


def _lost_text(report: HardenReport, training: TrainingInfo) -> str:
    """What was lost without noise, where it was measured, beside the limit, if there is one."""
    parts = []
    if training.clean_loss is not None:
        parts.append(f"without noise, on all held-out samples: {_change_text(report, training.clean_loss)}")
    if training.max_clean_loss is not None:
        parts.append(f"--max-clean-loss allows {_change_text(report, training.max_clean_loss)}")
    return f" ({'; '.join(parts)})" if parts else ""


def _change_text(report: HardenReport, loss: float) -> str:
    info = report.metric_info
    return difference_text(-loss if info.higher_is_better else loss, info.unit)


def _through_lines(info: HardwareAware | None) -> list[str]:
    """Say that training was hardware-aware, and which weights were left out."""
    if info is None:
        return []
    through = sum(layer.reason is None for layer in info.layers)
    first = (
        f"Hardware-aware: {through} of {count_text(len(info.layers), 'weight')} trained through crossbars of "
        f"{info.rows} × {info.cols} with {info.adc_bits}-bit ADCs"
    )
    not_split = [
        f"Trained with ideal converters: {layer.name}: {layer.reason}"
        for layer in info.layers
        if layer.reason is not None
    ]
    return [first, *not_split]


def _epoch_row(report: HardenReport, row: EpochInfo) -> tuple[str, ...]:
    unit = report.metric_info.unit
    return (
        str(row.epoch),
        " ".join(f"{value:.4g}" for value in row.sigma),
        " ".join(f"{value:.4g}" for value in row.loss),
        " ".join(value_text(value, unit) for value in row.kpp),
        " ".join(_change_text(report, value) for value in row.clean_loss),
    )


def _candidate_rows(report: HardenReport, training: TrainingInfo) -> list[tuple[str, ...]]:
    """The candidates of stability-vat, the one that was kept marked."""
    unit = report.metric_info.unit
    rows: list[tuple[str, ...]] = []
    for place, one in enumerate(training.candidates):
        spread = "" if one.spread is None else f" ± {1e3 * one.spread:.2g}"
        rows.append(
            (
                "start" if one.sigma is None else f"{one.sigma:g}",
                "" if one.loss is None else f"{one.loss:.4g}",
                value_text(one.clean, unit),
                value_text(one.kpp, unit),
                f"{1e3 * one.roughness:.4g}{spread}",
                "kept" if place == training.kept_candidate else "",
            )
        )
    return rows


def _stages_text(training: TrainingInfo) -> str | None:
    """Give the roughness of models A to D; None where it was not measured."""
    if not training.stages:
        return None
    shown = ", ".join(
        f"{stage.model} ({_STAGES[stage.model]}) {roughness_text(stage.roughness, stage.spread)}"
        for stage in training.stages
    )
    return f"Roughness of the models of Algorithm 1: {shown}; B, C and D around the weights on their grid"


def _run_rows(report: HardenReport) -> list[tuple[str, str]]:
    return [
        ("Model", report.model.path),
        ("Device", f"{report.device_name}, {_point_text(report.operating_point)}"),
        *([] if report.mapped is None else [("On the array", coverage_text(report.mapped))]),
        ("Audited on", f"{count_text(report.data.count, 'sample')}; seed {report.run.get('seed')}"),
        ("Hardened model", report.hardened),
    ]
