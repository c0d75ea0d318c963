"""What the report of a remapping says."""

from __future__ import annotations

from functools import partial

from nvaudit.report.document import (
    Block,
    Bullets,
    Cell,
    Document,
    Facts,
    Figure,
    Hero,
    KeyFigure,
    Paragraph,
    Section,
    Table,
    file_name,
    limited,
)
from nvaudit.report.parts import before_after, change_title, share_blocks, share_numbers, warnings
from nvaudit.report.record import time_text
from nvaudit.report.remap.figures import steps_figure
from nvaudit.report.remap.result import RemapAudit, RemapReport
from nvaudit.report.remap.words import (
    PAIR_COLUMNS,
    TENSOR_COLUMNS,
    pair_rows,
    step_columns,
    step_row,
    tensor_row,
)
from nvaudit.report.wording import LABEL_FREE_CHIPS, kpp_name


def remap_document(report: RemapReport) -> Document:
    """Say what a remapping found.

    Parameters
    ----------
    report : RemapReport
    """
    name = file_name(str(report.run.get("model", "")))
    return Document(
        title=report.headline,
        subject=name,
        subtitle=f"{report.metric} before and after --method remap, σ = {report.sigma:g} {report.sigma_unit}",
        hero=_hero(report),
        sections=(_pair(report), _steps(report), _tensors(report), _notes(report), _record(report)),
        version=report.nvaudit_version,
    )


def _hero(report: RemapReport) -> Hero:
    before, after, unit = report.before, report.after, report.unit
    name = kpp_name(report.percentile)
    change, title = 0.0, "Nothing was changed"
    numbers: tuple[KeyFigure, ...] = ()
    if before is not None and after is not None:
        change = after.kpp - before.kpp
        title = change_title(name, change, unit)
        found = [(name, before.kpp, after.kpp), ("mean of the chips", before.mean, after.mean)]
        worst = [_worst(side, report.higher_is_better) for side in (before, after)]
        if worst[0] is not None and worst[1] is not None:
            found.append(("worst chip", worst[0], worst[1]))
        found.append(("without noise", before.nominal, after.nominal))
        numbers = tuple(before_after(label, a, b, unit, main=label == name) for label, a, b in found)
    worse = change < 0 if report.higher_is_better else change > 0
    exact = "It computes the same up to rounding." if report.exact else "It is not quite the same function."
    return Hero(
        role="fail" if worse else "none",
        word="worse" if worse else "",
        title=title,
        lines=(exact,),
        numbers=(*numbers, *share_numbers(report.mapped)),
        warnings=warnings(LABEL_FREE_CHIPS if report.label_free else None, report.mapped),
    )


def _worst(side: RemapAudit, higher_is_better: bool) -> float | None:
    """The worst chip; older reports have the least one only, which is another where lower is better."""
    return side.min if side.worst is None and higher_is_better else side.worst


def _pair(report: RemapReport) -> Section:
    rows = tuple(pair_rows(report))
    if not rows or report.difference is None:
        return Section(
            "pair", "Before and after", (Paragraph("Nothing was changed, so nothing was audited."),)
        )
    caption = f"The same {report.difference.chips:,} chips before and after."
    table = Table("sides", caption, PAIR_COLUMNS, rows, numeric=(1, 2, 3, 4))
    return Section("pair", "Before and after", (table,))


def _steps(report: RemapReport) -> Section:
    blocks: list[Block] = [Paragraph(report.calibration, "lead")]
    if any(step.worst_quarter is not None for step in report.steps):
        caption = (
            "What candidates are ranked by, on the calibration images and chips; filled: kept, pale: given "
            "up after fewer chips than the others."
        )
        blocks.append(Figure("steps", caption, partial(steps_figure, report)))
    columns = (*step_columns(report)[1:-1], "result")
    rows = []
    for step in report.steps:
        kept, *cells, why = step_row(step, report.unit)
        rows.append((*cells, kept or why))
    blocks.append(
        Table(
            "step-rows",
            "Every candidate, in order.",
            columns,
            tuple(rows),
            numeric=(1, 2, 3, 4, 5),
            whole=True,
        )
    )
    if report.not_tried:
        blocks.append(Bullets(tuple(f"Not tried: {text}" for text in report.not_tried)))
    return Section("steps-section", "What was tried", tuple(blocks))


def _tensors(report: RemapReport) -> Section:
    rows: list[tuple[Cell, ...]] = [tensor_row(tensor) for tensor in report.tensors]
    shown, cut = limited(rows)
    caption = f"What became of every weight on the array; noise: relative to before.{cut}"
    table = Table("tensors", caption, TENSOR_COLUMNS, shown, numeric=(2,))
    return Section("weights", "Weights", (table, *share_blocks(report.mapped)))


def _notes(report: RemapReport) -> Section:
    return Section("notes", "Notes", (Bullets(report.notes),) if report.notes else ())


def _record(report: RemapReport) -> Section:
    hashes = report.hashes.model_dump().items()
    rows = (
        ("Device", f"{report.run.get('device')}; seed {report.run.get('seed')}"),
        ("Remapped model", report.output),
        *time_text(report.timing),
        *((f"SHA-256 of the {name.replace('_', ' ')}", value) for name, value in hashes),
    )
    return Section("record", "How it was run", (Facts(rows),), folded=True)
