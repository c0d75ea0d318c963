"""What the report of a hardening says: the same chips before and after, and how it was done."""

from __future__ import annotations

from functools import partial

from nvaudit.report.document import (
    Block,
    Bullets,
    Document,
    Facts,
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
from nvaudit.report.hardening.result import HardenReport, TrainingInfo
from nvaudit.report.hardening.words import (
    CANDIDATES_NOTES,
    attempt_columns,
    attempt_rows,
    attempts_note,
    candidate_columns,
    candidate_rows,
    epoch_columns,
    epoch_rows,
    interval_lines,
    kept_text,
    of_attempt,
    point_text,
    run_lines,
    side_rows,
    stages_text,
    through_lines,
    training_text,
)
from nvaudit.report.parts import (
    before_after,
    change_title,
    crossbar_section,
    share_blocks,
    share_numbers,
    warnings,
)
from nvaudit.report.wording import LABEL_FREE_CHIPS, count_text, kpp_name, limit_text
from nvaudit.report.write_verify.document import plan_sections
from nvaudit.report.write_verify.words import reason_text


def harden_document(report: HardenReport) -> Document:
    """Say what a hardening found.

    Parameters
    ----------
    report : HardenReport
    """
    sections = (
        _chips(report),
        _array(report),
        crossbar_section(report.crossbar),
        _candidates(report),
        _training(report),
        *_plan(report),
    )
    name = file_name(report.model.path)
    return Document(
        title=report.headline,
        subject=name,
        subtitle=f"{report.metric} before and after --method {report.method}, {short(report.device_name)} at "
        f"{point_text(report.operating_point)}",
        hero=_hero(report),
        sections=(*(section for section in sections if section is not None), *_rest(report)),
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
        numbers=(*numbers, *share_numbers(report.mapped)),
        warnings=warnings(LABEL_FREE_CHIPS if report.label_free else None, report.mapped),
    )


def _chips(report: HardenReport) -> Section:
    chips = count_text(report.difference.chips, "chip")
    rows, columns = side_rows(report), ("", "before", "after", "change")
    kpp = kpp_name(report.difference.percentile)
    caption = (
        f"{report.metric} of the same {chips} before and after; dashed: the {kpp} of each. The numbers are "
        "those of the table."
    )
    blocks: tuple[Block, ...] = (
        Figure("pair", caption, partial(pair_figure, report), tall=True),
        Table("sides", f"Both models on the same {chips}.", columns, tuple(rows), numeric=(1, 2, 3)),
        Bullets(tuple(f"{line}." for line in interval_lines(report))),
    )
    return Section("chips", "Before and after", blocks)


def _array(report: HardenReport) -> Section | None:
    """What of the hardened model is on the array, and what its groups of zeros save."""
    blocks = share_blocks(report.mapped)
    if report.zero_groups is not None:
        blocks.append(Paragraph(f"Groups of zeros: {zero_groups_text(report.zero_groups)}."))
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
    found = report.training
    if found is None or not found.candidates:
        return None
    caption = "KPP of each candidate over its roughness, with the spread over direction pairs; orange: kept."
    rows, columns = tuple(candidate_rows(report, found)), candidate_columns(report)
    blocks: tuple[Block, ...] = (
        Figure("candidates", caption, partial(candidates_figure, report, found)),
        Table(
            "candidate-rows",
            CANDIDATES_NOTES[found.kept_by or "roughness"],
            (*columns[:-1], "result"),
            rows,
            numeric=(1, 2, 3, 4),
        ),
    )
    stages = stages_text(found)
    if stages is not None:
        blocks = (*blocks, Paragraph(f"{stages}.", "note"))
    return Section("candidates-section", "Candidates", blocks)


def _training(report: HardenReport) -> Section | None:
    found = report.training
    if found is None:
        return None
    lines = [training_text(report, found), *through_lines(found.hardware_aware)]
    kept = kept_text(report, found)
    blocks: list[Block] = [Paragraph(f"{'. '.join([*lines, *([] if kept is None else [kept])])}.", "lead")]
    tried = tuple(attempt_rows(report, found))
    if tried:
        columns = (*attempt_columns(report)[:-1], "result")
        blocks.append(Table("attempts", attempts_note(found), columns, tried, numeric=(1, 2, 3, 4)))
    if found.history:
        blocks.append(_epochs(report, found))
    return Section("training", "Training", tuple(blocks))


def _epochs(report: HardenReport, found: TrainingInfo) -> Figure:
    unit, name = report.metric_info.unit, kpp_name(report.difference.percentile)
    shown, cut = limited(epoch_rows(report, found))
    first, last = found.history[0].loss, found.history[-1].loss
    scored = f", and the {name} on validation samples where it was scored" if _scored(found) else ""
    epochs = f"{count_text(len(found.history), 'epoch')}{of_attempt(found)}"
    ends = f"from {_values(first)} in the first to {_values(last)} in the last"
    caption = f"Loss of each of {epochs}{scored}: {ends}."
    numbers = Table("epochs", f"Every epoch.{cut}", epoch_columns(found), shown, numeric=(0,))
    return Figure("training-figure", caption, partial(training_figure, found, unit, name), numbers)


def _scored(found: TrainingInfo) -> bool:
    return any(row.kpp for row in found.history)


def _values(losses: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in losses)


def _rest(report: HardenReport) -> tuple[Section, ...]:
    notes = (*report.notes, *report.events)
    record = [*run_lines(report), f"Hardened model: {report.hardened}"]
    hashes = tuple((f"SHA-256, {name}", value) for name, value in report.hashes.model_dump().items())
    return (
        Section("notes", "Notes", (Bullets(notes),) if notes else ()),
        Section("record", "How it was run", (Bullets(tuple(record)), Facts(hashes)), folded=True),
    )
