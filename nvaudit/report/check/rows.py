"""The rows of a matrix: each question of each audit with its answer."""

from __future__ import annotations

from dataclasses import dataclass

from nvaudit.report.cases import Case, cases_of, points_of
from nvaudit.report.check.result import CheckReport, NamedAudit
from nvaudit.report.result import AuditReport
from nvaudit.stats.gate import Verdict


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
