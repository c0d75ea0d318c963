"""What the report of a remapping says."""

from __future__ import annotations

from functools import partial
from typing import Any

from nvaudit.report.codes import codes_blocks, codes_number
from nvaudit.report.cost.document import costs_table
from nvaudit.report.document import (
    PAGE,
    Block,
    Bullets,
    Cell,
    Document,
    Figure,
    Hero,
    KeyFigure,
    Paragraph,
    Section,
    Table,
    at_sigma,
    file_name,
    limited,
)
from nvaudit.report.parts import (
    before_after,
    change_title,
    notes_section,
    record_section,
    share_blocks,
    share_numbers,
    warnings,
)
from nvaudit.report.plots import axis, colour, label, layout, percent_axis, plotly_graphs
from nvaudit.report.remap.result import RemapReport, RemapStep, RemapTensor
from nvaudit.report.wording import (
    change_interval_text,
    count_text,
    difference_text,
    kpp_name,
    value_text,
)

_PAIR_COLUMNS = ("", "before", "after", "change", "interval of the change")

_TENSOR_COLUMNS = ("weight", "operator", "noise", "scales", "clip, mean")

_PLAIN = ("another is better", "the start")
"""Reasons that the numbers say by themselves."""


def remap_document(report: RemapReport) -> Document:
    """Say what a remapping found."""
    name = file_name(str(report.run.get("model", "")))
    return Document(
        title=report.headline,
        subject=name,
        subtitle=f"{report.metric} before and after --method remap, {at_sigma(report)}",
        hero=_hero(report),
        sections=(
            _pair(report),
            _steps(report),
            *([] if report.codes is None else [Section("codes", "Codes", tuple(codes_blocks(report.codes)))]),
            _tensors(report),
            notes_section(report.notes),
            _record(report),
        ),
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
        changes = [(name, before.kpp, after.kpp), ("mean of the chips", before.mean, after.mean)]
        # Older reports have the least chip only, which is the worst where higher is better.
        better = report.higher_is_better
        worst = [one.min if one.worst is None and better else one.worst for one in (before, after)]
        if worst[0] is not None and worst[1] is not None:
            changes.append(("worst chip", worst[0], worst[1]))
        changes.append(("without noise", before.nominal, after.nominal))
        numbers = tuple(before_after(label, a, b, unit, main=label == name) for label, a, b in changes)
    worse = change < 0 if report.higher_is_better else change > 0
    exact = "It computes the same up to rounding." if report.exact else "It is not quite the same function."
    return Hero(
        role="fail" if worse else "none",
        word="worse" if worse else "",
        title=title,
        lines=(exact,),
        numbers=(*numbers, *codes_number(report.codes), *share_numbers(report.mapped)),
        warnings=warnings(report, report.mapped),
    )


def _pair(report: RemapReport) -> Section:
    rows = tuple(_pair_rows(report))
    if not rows or report.difference is None:
        return Section(
            "pair", "Before and after", (Paragraph("Nothing was changed, so nothing was audited."),)
        )
    caption = f"The same {count_text(report.difference.chips, 'chip')} before and after."
    table = Table("sides", caption, _PAIR_COLUMNS, rows, numeric=(1, 2, 3, 4))
    sides = (("before", report.before), ("after", report.after))
    costs = costs_table("costs", "", [(name, side.cost) for name, side in sides if side is not None])
    return Section("pair", "Before and after", (table, *costs))


def _steps(report: RemapReport) -> Section:
    blocks: list[Block] = [Paragraph(report.calibration, "lead")]
    if any(step.worst_quarter is not None for step in report.steps):
        caption = "What candidates are ranked by, on the calibration images and chips."
        legend = "Filled: kept; pale: given up after fewer chips than the others."
        blocks.append(Figure("steps", caption, partial(steps_figure, report), legend=legend, media=PAGE))
    columns = (*_step_columns(report)[1:-1], "result")
    rows = []
    for step in report.steps:
        kept, *cells, why = _step_row(step, report.unit)
        rows.append((*cells, ": ".join(filter(None, (kept, why)))))
    blocks.append(
        Table(
            "step-rows",
            "Every candidate, in order.",
            columns,
            tuple(rows),
            numeric=(1, 2, 3, 4, 5),
            all_rows=True,
        )
    )
    if report.not_tried:
        blocks.append(Bullets(tuple(f"Not tried: {text}" for text in report.not_tried)))
    return Section("steps-section", "What was tried", tuple(blocks))


def _tensors(report: RemapReport) -> Section:
    rows: list[tuple[Cell, ...]] = [_tensor_row(tensor) for tensor in report.tensors]
    shown, cut = limited(rows)
    caption = f"What became of every weight on the array; noise: relative to before.{cut}"
    table = Table("tensors", caption, _TENSOR_COLUMNS, shown, numeric=(2,))
    return Section("weights", "Weights", (table, *share_blocks(report.mapped)))


def _record(report: RemapReport) -> Section:
    rows = (
        ("Device", f"{report.run.get('device')}; seed {report.run.get('seed')}"),
        ("Remapped model", report.output),
        *([] if report.mapping is None else [("Mapping file", report.mapping)]),
    )
    return record_section(report, rows)


def _pair_rows(report: RemapReport) -> list[tuple[str, ...]]:
    """Both sides of the paired audit in the order of ``_PAIR_COLUMNS``; none without one."""
    before, after, difference = report.before, report.after, report.difference
    if before is None or after is None or difference is None:
        return []
    unit = report.unit
    mean, kpp = (change_interval_text(d.low, d.high, unit) for d in (difference.mean, difference.kpp))
    rows = (
        ("ideal", before.nominal, after.nominal, ""),
        ("quantised", before.quantised, after.quantised, ""),
        ("mean", before.mean, after.mean, mean),
        (kpp_name(report.percentile), before.kpp, after.kpp, kpp),
    )
    return [
        (name, value_text(a, unit), value_text(b, unit), difference_text(b - a, unit), ends)
        for name, a, b, ends in rows
    ]


def _step_columns(report: RemapReport) -> tuple[str, ...]:
    """Names of what is known of a candidate."""
    return "", "step", "chips", "ideal", "quantised", kpp_name(report.percentile), "mean", ""


def _step_row(step: RemapStep, unit: str) -> tuple[str, ...]:
    """A candidate in the order of ``_step_columns``."""
    measured = (step.quantised, step.kpp, step.mean)
    return (
        "kept" if step.kept else "",
        step.name,
        f"{step.chips:,}",
        value_text(step.nominal, unit),
        *("—" if value is None else value_text(value, unit) for value in measured),
        "" if step.reason in _PLAIN else step.reason,
    )


def _tensor_row(tensor: RemapTensor) -> tuple[str, ...]:
    """What became of a weight, in the order of ``_TENSOR_COLUMNS``."""
    scales = tensor.scales if not tensor.scales_reason else f"{tensor.scales}: {tensor.scales_reason}"
    clip = tensor.clip_reason
    if tensor.clip is not None:
        clip = f"at {100 * tensor.clip:.0f} % of the range ({count_text(tensor.clipped, 'weight')})"
    if tensor.corrected:
        clip = f"{clip}; mean corrected"
    if tensor.rounded:
        clip = f"{clip}; codes for noise"
    noise = "" if tensor.noise is None else f"×{tensor.noise:.2f}"
    return tensor.name, tensor.op, noise, scales, clip


_ROW, _REST = 30, 90
"""Height of a row and of what surrounds them, in pixels."""


def steps_figure(report: RemapReport) -> Any:
    """Draw the mean of the worst quarter of the calibration chips of every candidate."""
    go = plotly_graphs()
    steps = [step for step in report.steps if step.worst_quarter is not None]
    shown = ":.4~%" if report.unit == "fraction" else ":.5~g"
    # Names may come twice, so rows are placed by number.
    places = list(range(len(steps)))
    usual, most = report.run.get("calibration_chips"), max((step.chips for step in steps), default=0)
    if isinstance(usual, int):  # the last candidates have seen more
        most = min(most, usual)
    figure = go.Figure()
    figure.add_scatter(
        x=[step.worst_quarter for step in steps], y=places, mode="markers",
        marker={"color": [colour("chips" if step.chips >= most else "line") for step in steps], "size": 12,
                "symbol": ["circle" if step.kept else "circle-open" for step in steps]},
        hovertemplate=f"%{{x{shown}}}<extra></extra>",
    )  # fmt: skip
    names = [label(step.name) for step in steps]
    figure.update_layout(
        **layout(
            height=_REST + _ROW * len(steps),
            xaxis=axis("mean of the worst quarter of the chips", nticks=7, **percent_axis(report.unit)),
            yaxis=axis("", tickvals=places, ticktext=names, range=[len(steps) - 0.5, -0.5]),
        )
    )  # fmt: skip
    return figure
