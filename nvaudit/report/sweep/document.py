"""What the report of a sweep says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from nvaudit.report.comparison.difference import Relation
from nvaudit.report.document import (
    FILES,
    PAGE,
    Block,
    Bullets,
    Cell,
    CodeBlock,
    Document,
    Figure,
    Hero,
    KeyFigure,
    Number,
    Paragraph,
    Section,
    Table,
    file_name,
)
from nvaudit.report.parts import headlines_section, joint_notes_section, record_section, warnings
from nvaudit.report.plots import axis, colour, label, layout, percent_axis, plotly_graphs
from nvaudit.report.result import AuditReport
from nvaudit.report.sweep.result import (
    SweepAxis,
    SweepReport,
    SweptAudit,
    settings_text,
    value_words,
    worst_and_best,
)
from nvaudit.report.wording import (
    change_interval_text,
    count_text,
    difference_text,
    interval_text,
    kpp_name,
    value_text,
)

_ROLES = ("chips", "worst", "second", "pass", "undecided", "fail", "ideal")
_DASHES = ("solid", "dash", "dot")
_SYMBOLS = ("circle", "diamond", "square", "x")
_LINES_PX, _HEIGHT_PX = 10, 460
_MOST_TICKS = 10


def sweep_document(report: SweepReport) -> Document:
    """Say what the worst chips are like under each combination, and how it differs from the first."""
    named = [(audit.text, found) for audit, found in report.ran]
    sections = (
        _resume(report),
        Section("combinations", "Every combination", tuple(_combinations(report))),
        replace(headlines_section(named), media=FILES),
        joint_notes_section(named),
        _record(report),
    )
    first = report.ran[0][1]
    return Document(
        title=report.headline,
        subject=file_name(first.model.path),
        subtitle="; ".join(
            f"{one.words} {', '.join(value_words(one.name, value) for value in one.values)}"
            for one in report.axes
        ),
        hero=_hero(report),
        sections=tuple(section for section in sections if section is not None),
        version=report.nvaudit_version,
    )


def _hero(report: SweepReport) -> Hero:
    first = report.ran[0][1]
    info, (worst, best) = first.metric_info, worst_and_best(report.ran)
    name = kpp_name(first.kpp[0].percentile)
    numbers = [KeyFigure("ideal", value_text(first.nominal, info.unit), "the unmodified model")]
    for what, (audit, found) in (("best", best), ("worst", worst)):
        kpp = found.kpp[0]
        note = f"{interval_text(kpp.low, kpp.high, info.unit)}, {audit.text}"
        numbers.append(
            KeyFigure(f"{what} {name}", value_text(kpp.value, info.unit), note, main=what == "worst")
        )
    titles = {
        "pass": "Every gate holds",
        "fail": "Not every gate holds",
        "undecided": "Not every gate could be decided",
        None: "",
    }
    word = "INTERRUPTED" if report.interrupted else report.verdict.upper() if report.verdict else "NO GATE"
    return Hero(
        role="undecided" if report.interrupted else report.verdict or "none",
        word=word,
        title="Some combinations have no answer" if report.interrupted else titles[report.verdict],
        lines=(),
        numbers=tuple(numbers),
        about=f"{report.metric} ({'higher' if info.higher_is_better else 'lower'} is better)",
        warnings=warnings(report, None),
    )


def _resume(report: SweepReport) -> Section | None:
    if report.command is None:
        return None
    block = CodeBlock(report.command, "The command that goes on")
    return Section("resume", "How it goes on", (block,), media=FILES)


def _combinations(report: SweepReport) -> Iterator[Block]:
    along = axis_along(report.axes)
    others = [one.words for one in report.axes if one is not along]
    lines = f", a line for each {' and '.join(others)}" if others else ""
    yield Figure(
        "sweep", f"KPP over {along.words} with its interval{lines}. The numbers are those of the table.",
        partial(sweep_lines, report), media=PAGE,
    )  # fmt: skip
    yield _table(report)
    yield _narrow_table(report)
    left = tuple(f"{audit.text}: not run: {audit.why_not}." for audit in report.audits if not audit.report)
    if left:
        yield Bullets(left)
    first = report.audits[0]
    if len(report.ran) > 1 and first.report is not None:
        relations = {audit.to_first.chips for audit in report.audits if audit.to_first is not None}
        missing = [audit.to_first.kpp.missing for audit in report.audits if audit.to_first is not None]
        why = f" Intervals of differences between KPPs: {missing[0]}." if missing and all(missing) else ""
        yield Paragraph(
            f"Differences are from the first: {first.text}. {_paired_text(relations)}{why}", "note"
        )
        yield Paragraph(f"The first: {first.report.headline}.", media=frozenset(("terminal",)))


def _paired_text(relations: set[Relation]) -> str:
    if relations == {"independent"}:
        return "The chips of the others are drawn independently of its own."
    return (
        "Chip by chip where every chip was run on every sample (--exhaustive): the others have the same "
        "random numbers, and where tensors lie on as many devices these are the same devices."
    )


def _table(report: SweepReport) -> Table:
    """All of it, for media with room."""
    gated = any(audit.gated for audit in report.audits)
    name = kpp_name(report.ran[0][1].kpp[0].percentile)
    columns = (
        *(one.words for one in report.axes), name, "interval", "mean", "without noise", "to the first",
        "its interval", *(["verdict"] if gated else []), "chips",
    )  # fmt: skip
    axes = len(report.axes)
    return Table(
        "combinations", f"{name} of every combination, and its difference from the first one.", columns,
        tuple(_row(report, audit, found, gated) for audit, found in report.ran),
        numeric=(*(i for i, one in enumerate(report.axes) if one.numeric), axes, axes + 2, axes + 3,
                 axes + 4, len(columns) - 1),
        sortable=True, all_rows=True, media=FILES,
    )  # fmt: skip


def _row(report: SweepReport, audit: SweptAudit, found: AuditReport, gated: bool) -> tuple[Cell, ...]:
    unit, kpp, mean = found.metric_info.unit, found.kpp[0], found.trials.mean
    return (
        *(_setting(report, audit, place) for place in range(len(report.axes))),
        Number(kpp.value, value_text(kpp.value, unit)),
        interval_text(kpp.low, kpp.high, unit),
        Number(mean, value_text(mean, unit)),
        Number(found.quantised, value_text(found.quantised, unit)),
        *_difference(audit, unit),
        *([audit.verdict or "no gate"] if gated else []),
        Number(kpp.trials, f"{kpp.trials:,}"),
    )


def _setting(report: SweepReport, audit: SweptAudit, place: int) -> Cell:
    one = report.axes[place]
    value = audit.settings[one.name]
    # Sorted as it was given, where values are no numbers of one kind.
    rank = float(value) if isinstance(value, int | float) else float(one.values.index(value))
    return Number(rank, value_words(one.name, value))


def _difference(audit: SweptAudit, unit: str) -> tuple[Cell, Cell]:
    if audit.to_first is None:
        return "-", "-"
    kpp = audit.to_first.kpp
    interval = kpp.missing or change_interval_text(kpp.low, kpp.high, unit)
    return Number(kpp.value, difference_text(kpp.value, unit)), interval


def _narrow_table(report: SweepReport) -> Table:
    """What fits on a terminal: the combination in one column."""
    name = kpp_name(report.ran[0][1].kpp[0].percentile)
    gated = any(audit.gated for audit in report.audits)
    rows: list[tuple[Cell, ...]] = []
    for audit, found in report.ran:
        unit, kpp = found.metric_info.unit, found.kpp[0]
        setting = ", ".join(value_words(one.name, audit.settings[one.name]) for one in report.axes)
        kpp_cell, interval = value_text(kpp.value, unit), interval_text(kpp.low, kpp.high, unit)
        row = (setting, kpp_cell, interval, _short_difference(audit, unit))
        rows.append((*row, audit.verdict or "no gate") if gated else row)
    return Table(
        "combinations-terminal", f"{name} of every combination, and its difference from the first one.",
        (", ".join(one.words for one in report.axes), name, "interval", "to the first",
         *(["verdict"] if gated else [])),
        tuple(rows), numeric=(1,), all_rows=True, media=frozenset(("terminal",)),
    )  # fmt: skip


def _short_difference(audit: SweptAudit, unit: str) -> str:
    if audit.to_first is None:
        return "-"
    kpp = audit.to_first.kpp
    change = difference_text(kpp.value, unit)
    if kpp.missing:
        return change
    return f"{change.removesuffix(' points')} {change_interval_text(kpp.low, kpp.high, unit)}"


def _record(report: SweepReport) -> Section:
    first = report.ran[0][1]
    chips = sum(found.trials.count for _, found in report.ran)
    rows = [
        ("Chips", count_text(chips, "chip")),
        ("Model", f"{first.model.path}, SHA-256 {first.hashes.model[:12]}"),
        ("Data", f"{first.data.source}, {count_text(first.data.count, 'sample')}"),
        ("First", settings_text(report.audits[0].settings)),
    ]
    return record_section(report, rows)


def axis_along(axes: Sequence[SweepAxis]) -> SweepAxis:
    """Choose the axis that lines run along: one of a quantity, with the most values."""
    return max(axes, key=lambda one: (one.numeric, one.name == "time_s", len(one.values)))


def sweep_lines(report: SweepReport) -> Any:
    """Draw the KPP of every audit that was run."""
    go, along = plotly_graphs(), axis_along(report.axes)
    figure, lines = go.Figure(), _lines(report, along)
    info = report.ran[0][1].metric_info
    for number, (name, points) in enumerate(lines.items()):
        role = colour(_ROLES[number % len(_ROLES)])
        kpps = [kpp for _, _, kpp in points]
        figure.add_scatter(
            x=[x for x, _, _ in points], y=[kpp.value for kpp in kpps], name=label(name) or "KPP",
            mode="lines+markers",
            line={"color": role, "width": 2, "dash": _DASHES[number // len(_ROLES) % len(_DASHES)]},
            marker={"color": role, "size": 8, "symbol": _SYMBOLS[number % len(_SYMBOLS)]},
            error_y={
                "type": "data", "symmetric": False, "color": role, "thickness": 1.4, "width": 4,
                "array": [0.0 if kpp.high is None else kpp.high - kpp.value for kpp in kpps],
                "arrayminus": [0.0 if kpp.low is None else kpp.value - kpp.low for kpp in kpps],
            },
            text=[
                f"{label(text)}<br>{value_text(kpp.value, info.unit)} "
                f"{interval_text(kpp.low, kpp.high, info.unit)}"
                for _, text, kpp in points
            ],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    title = f"{kpp_name(report.ran[0][1].kpp[0].percentile)} {report.metric}"
    figure.update_layout(
        **layout(
            height=_HEIGHT_PX + _LINES_PX * len(lines),
            xaxis=axis(along.words, **_ticks(along)),
            yaxis=axis(title, nticks=8, **percent_axis(info.unit)),
            showlegend=len(lines) > 1,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )
    return figure


def _ticks(along: SweepAxis) -> dict[str, Any]:
    """Ticks at the values; where these are no quantities, at equal distances in the order given."""
    if along.numeric:
        few = len(along.values) <= _MOST_TICKS
        return {"tickvals": list(along.values)} if few else {"nticks": 8}
    return {
        "tickvals": list(range(len(along.values))),
        "ticktext": [label(value_words(along.name, value), 18) for value in along.values],
        "range": [-0.3, len(along.values) - 0.7],
    }


def _lines(report: SweepReport, along: SweepAxis) -> dict[str, list[tuple[float, str, Any]]]:
    """Points of each line by its name: place, name of the audit, KPP; in ascending order."""
    lines: dict[str, list[tuple[float, str, Any]]] = {}
    for audit, found in report.ran:
        rest = {name: value for name, value in audit.settings.items() if name != along.name}
        value = audit.settings[along.name]
        x = float(value) if along.numeric and value is not None else float(along.values.index(value))
        lines.setdefault(settings_text(rest), []).append((x, audit.text, found.kpp[0]))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in lines.items()}
