"""What the report of a matrix says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from nvaudit.report.cases import Case, answer_lines, cases_of, points_of, wanted_text
from nvaudit.report.check.result import CheckReport, NamedAudit, counts_text
from nvaudit.report.document import (
    FILES,
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
    short,
)
from nvaudit.report.drops import allowed_text, drop_lines
from nvaudit.report.mapped import gate_lines, part_text
from nvaudit.report.parts import headlines_section, joint_notes_section, record_section, warnings
from nvaudit.report.plots import axis, colour, label, layout, percent_axis, plotly_graphs
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import (
    count_text,
    difference_text,
    interval_text,
    kpp_name,
    value_text,
)
from nvaudit.stats.gate import Verdict

_TITLES: dict[Verdict | None, str] = {
    "pass": "Every gate holds",
    "fail": "Not every gate holds",
    "undecided": "Not every gate could be decided",
    None: "No gate was asked for",
}

_ROW_PX = 30
_NAME = 44
_ROLES = {"fail": "fail", "undecided": "undecided", "pass": "pass", None: "chips"}
_SYMBOLS = {"fail": "x", "undecided": "diamond-open", "pass": "circle", None: "circle-open"}


@dataclass(frozen=True)
class CheckRow:
    """One percentile at one sigma of an audit that was run."""

    name: str
    named: NamedAudit
    audit: AuditReport
    case: Case

    @property
    def verdict(self) -> Verdict | None:
        """What the chips say; of a run that was cut off as far as it came."""
        return self.case.verdict


def rows_of(report: CheckReport) -> list[CheckRow]:
    """Every question, in the order of the audits."""
    return [row for named in report.audits for row in rows_of_audit(named)]


def rows_of_audit(named: NamedAudit) -> list[CheckRow]:
    """The questions of an audit; named by it, and by what tells its rows apart."""
    audit = named.report
    if audit is None:
        return []
    rows = []
    for case in cases_of(audit):
        parts = [named.name.text]
        parts += [f"σ = {case.point.sigma:g}"] if len(points_of(audit)) > 1 else []
        parts += [f"k = {case.kpp.percentile:g} %"] if len(audit.kpp) > 1 else []
        rows.append(CheckRow(", ".join(parts), named, audit, case))
    return rows


def check_document(report: CheckReport) -> Document:
    """Say which audits hold, and why the others do not."""
    named = [(audit.name.text, audit.report) for audit in report.audits if audit.report is not None]
    sections = (
        _resume(report),
        Section("audits", "The audits", tuple(_audits(report))),
        _open(report),
        headlines_section(named),
        joint_notes_section(named),
        _record(report),
    )
    return Document(
        title=report.headline,
        subject=counts_text(report.audits),
        subtitle=", ".join(
            f"{axis}s {_listed([getattr(named.name, axis) for named in report.audits])}"
            for axis in ("model", "device", "condition")
            if any(getattr(named.name, axis) for named in report.audits)
        ),
        hero=_hero(report),
        sections=tuple(section for section in sections if section is not None),
        version=report.nvaudit_version,
    )


def _listed(names: list[str]) -> str:
    return ", ".join(short(name) for name in dict.fromkeys(names) if name)


def _hero(report: CheckReport) -> Hero:
    counts = Counter(named.verdict for named in report.audits if named.report is not None)
    words: tuple[tuple[Verdict | None, str, str], ...] = (
        ("fail", "fail", "surely below what is demanded"),
        ("undecided", "undecided", "more chips or time would decide"),
        ("pass", "pass", "surely good enough"),
        (None, "no gate", "measured only"),
    )
    numbers = [
        KeyFigure(word, f"{counts[verdict]}", note, main=verdict == "fail")
        for verdict, word, note in words
        if counts[verdict]
    ]
    if left := sum(named.report is None for named in report.audits):
        numbers.append(KeyFigure("not run", f"{left}", "see below"))
    return Hero(
        role="undecided" if report.interrupted else report.verdict or "none",
        word="INTERRUPTED" if report.interrupted else report.verdict.upper() if report.verdict else "NO GATE",
        title="Some audits have no answer" if report.interrupted else _TITLES[report.verdict],
        lines=(),
        numbers=tuple(numbers),
        about="audits",
        warnings=warnings(report, None),
    )


def _resume(report: CheckReport) -> Section | None:
    if report.command is None:
        return None
    return Section(
        "resume", "How it goes on", (CodeBlock(report.command, "The command that goes on"),), media=FILES
    )


def _audits(report: CheckReport) -> Iterator[Block]:
    """The picture and the table of all that was run, and what was not."""
    rows = rows_of(report)
    metrics = {(row.audit.metric, row.audit.metric_info.unit) for row in rows}
    if len(metrics) == 1:
        metric, unit = metrics.pop()
        caption = (
            "KPP of each audit with its interval, and what is demanded. The numbers are those of the table."
        )
        yield Figure("audits", caption, partial(matrix_figure, rows, metric, unit), tall=len(rows) > 12,
                     media=frozenset(("page",)))  # fmt: skip
    if rows:
        yield _table(rows)
    for names, why in ((report.skipped, "skip = true"), (report.left_out, "--only")):
        if names:
            yield Paragraph(f"Left out by {why}: {'; '.join(names)}.")
    yield from _not_run(report)


def _table(rows: list[CheckRow]) -> Table:
    percentiles = {row.case.kpp.percentile for row in rows}
    name = kpp_name(percentiles.pop()) if len(percentiles) == 1 else "KPP"
    columns = (
        "audit",
        "verdict",
        name,
        "demanded",
        "chips",
        "mean",
        "ideal",
        "interval",
        "on the array",
        "seconds",
    )
    return Table(
        "audits", "Every audit, its KPP, and what is demanded of it.", columns,
        tuple(_row(row) for row in rows), numeric=(2, 4, 5, 6, 8, 9), sortable=True, choices=1, all_rows=True,
    )  # fmt: skip


def _row(row: CheckRow) -> tuple[Cell, ...]:
    info, kpp, gate, trials = row.audit.metric_info, row.case.kpp, row.case.gate, row.case.point.trials
    mapped, seconds = row.audit.mapped, row.audit.timing.get("total")
    drawn = trials.count if gate is None else gate.trials
    verdict: str = row.verdict or "no gate"
    share_fails = row.audit.mapped_gate is not None and row.audit.mapped_gate.verdict == "fail"
    if row.audit.interrupted is not None:
        verdict = "interrupted"
    elif share_fails:
        verdict = f"{verdict}, share fails"
    return (
        short(row.name),
        verdict,
        Number(kpp.value, value_text(kpp.value, info.unit)),
        _demanded(row),
        Number(drawn, f"{drawn:,}"),
        Number(trials.mean, value_text(trials.mean, info.unit)),
        Number(row.audit.nominal, value_text(row.audit.nominal, info.unit)),
        interval_text(kpp.low, kpp.high, info.unit),
        "-" if mapped is None or mapped.share is None else Number(mapped.share, part_text(mapped.share)),
        "-" if seconds is None else Number(seconds, f"{seconds:.3g}"),
    )


def _demanded(row: CheckRow) -> str:
    """What is asked of the chips, in few words."""
    info, gate, drop = row.audit.metric_info, row.case.gate, row.case.drop
    parts = [] if gate is None else [wanted_text(gate, info)]
    if drop is not None:
        change = difference_text(drop.after - drop.before, info.unit)
        parts.append(f"{change}, {allowed_text(drop.max_drop, info.unit)} may be lost")
    return "; ".join(parts) or "-"


def _not_run(report: CheckReport) -> Iterator[Block]:
    lines = [
        f"{named.name.text}: not run: {named.why_not}." for named in report.audits if named.report is None
    ]
    if lines:
        yield Bullets(tuple(lines))


def _open(report: CheckReport) -> Section | None:
    """What does not hold or is not known, audit by audit, with what would decide it."""
    blocks = [block for named in report.audits for block in _audit_blocks(named)]
    return Section("open", "What does not hold, or is not known", tuple(blocks)) if blocks else None


def _audit_blocks(named: NamedAudit) -> Iterator[Block]:
    if named.report is None or named.verdict not in ("fail", "undecided"):
        return
    rows = [row for row in rows_of_audit(named) if row.verdict in ("fail", "undecided")]
    lines = [line for row in rows for line in _lines(row)]
    lines += gate_lines(named.report.mapped_gate, named.report.mapped)
    yield Paragraph(f"{short(named.name.text)}:")
    yield Bullets(tuple(f"{line}." for line in lines))


def _lines(row: CheckRow) -> Iterator[str]:
    """What does not hold of one question."""
    case, info = row.case, row.audit.metric_info
    if case.gate is not None and case.gate.verdict != "pass":
        yield from answer_lines(case, row.audit)[: 2 if case.gate.needed else 1]
    if case.drop is not None and case.drop.verdict != "pass":
        yield from drop_lines(case.drop, info.unit, info.higher_is_better)


def _record(report: CheckReport) -> Section:
    reports = report.reports
    rows = [
        ("Chips", count_text(sum(audit.trials.count for audit in reports), "chip")),
        *dict.fromkeys(
            (
                f"Model {short(named.name.model)}",
                f"{named.report.model.path}, SHA-256 {named.report.hashes.model[:12]}",
            )
            for named in report.audits
            if named.report is not None
        ),
        *dict.fromkeys(
            (
                f"Data of {short(named.name.model)}",
                f"{named.report.data.source}, {count_text(named.report.data.count, 'sample')}",
            )
            for named in report.audits
            if named.report is not None
        ),
    ]
    return record_section(report, rows)


def matrix_figure(rows: list[CheckRow], metric: str, unit: str) -> Any:
    """Draw the rows from the top down; the metric's unit must be the same in all."""
    go = plotly_graphs()
    figure = go.Figure()
    for verdict, role in _ROLES.items():
        chosen = [(place, row) for place, row in enumerate(rows) if row.verdict == verdict]
        if not chosen:
            continue
        kpps = [row.case.kpp for _, row in chosen]
        figure.add_scatter(
            x=[kpp.value for kpp in kpps], y=[place for place, _ in chosen], name=verdict or "no gate",
            mode="markers", text=[label(row.name) for _, row in chosen],
            marker={"symbol": _SYMBOLS[verdict], "size": 11, "color": colour(role), "line": {"width": 2}},
            error_x={
                "type": "data", "symmetric": False, "color": colour(role), "thickness": 1.8, "width": 5,
                "array": [0.0 if kpp.high is None else kpp.high - kpp.value for kpp in kpps],
                "arrayminus": [0.0 if kpp.low is None else kpp.value - kpp.low for kpp in kpps],
            },
            hovertemplate=f"%{{text}}: KPP %{{x{':.4~%' if unit == 'fraction' else ':.5~g'}}}<extra></extra>",
        )  # fmt: skip
    demanded = [
        (place, row.case.gate.threshold) for place, row in enumerate(rows) if row.case.gate is not None
    ]
    if demanded:
        figure.add_scatter(
            x=[threshold for _, threshold in demanded], y=[place for place, _ in demanded], name="demanded",
            mode="markers", hoverinfo="skip",
            marker={"symbol": "line-ns-open", "size": 16, "color": colour("ideal"), "line": {"width": 2}},
        )  # fmt: skip
    figure.update_layout(
        **layout(
            height=120 + _ROW_PX * len(rows),
            xaxis=axis(metric, nticks=7, **percent_axis(unit)),
            yaxis=axis(
                "", tickvals=list(range(len(rows))), ticktext=[label(row.name, _NAME) for row in rows],
                range=[len(rows) - 0.5, -0.5],
            ),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )  # fmt: skip
    return figure
