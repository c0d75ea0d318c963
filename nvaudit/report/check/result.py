"""A matrix of models, devices and conditions: what the report of `nvaudit check` holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from nvaudit.report.cases import tables as audit_tables
from nvaudit.report.cases import timed_checks
from nvaudit.report.header import Header
from nvaudit.report.records import Check, RecordValue, Tables, records_of
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import ReportPart
from nvaudit.report.wording import count_text
from nvaudit.stats.gate import Verdict, overall_verdict


class AuditName(ReportPart):
    """Where in the matrix an audit stands."""

    model: str
    device: str
    condition: str = Field(description="Empty: there is only one, without options of its own.")

    @property
    def text(self) -> str:
        """The name in one line."""
        return " / ".join(part for part in (self.model, self.device, self.condition) if part)


class NamedAudit(ReportPart):
    """One audit of the matrix."""

    name: AuditName
    gated: bool = Field(description="Whether anything is demanded of it.")
    report: AuditReport | None = Field(default=None, description="Null: it was not run.")
    why_not: str = Field(default="", description="Why it was not run; else empty.")

    @property
    def verdict(self) -> Verdict | None:
        """Of its gates; what was not run is undecided, and null where nothing was demanded."""
        if self.report is not None and self.report.interrupted is None:
            return self.report.verdict
        return "undecided" if self.gated else None


class CheckReport(Header):
    """Audits of every model on every device under every condition; written by ``nvaudit check``."""

    kind: Literal["check"] = "check"
    verdict: Verdict | None = Field(
        description="Of all audits together: the worst; null without a gate, and where it was interrupted."
    )
    interrupted: bool = Field(description="Whether the run was cut off; then some have no report.")
    command: str | None = Field(
        default=None, description="Goes on where the run was cut off, if anything was kept."
    )
    audits: tuple[NamedAudit, ...] = Field(min_length=1)
    skipped: tuple[str, ...] = Field(default=(), description="Audits that the file leaves out: skip = true.")
    left_out: tuple[str, ...] = Field(
        default=(), description="Audits that --only leaves out; in older reports those of the file too."
    )

    @model_validator(mode="after")
    def _verdict_follows_from_audits(self) -> CheckReport:
        expected = None if self.interrupted else overall_verdict(self.audits)
        if self.verdict != expected:
            raise ValueError(f"verdict {self.verdict!r}, but the audits say {expected!r}")
        return self

    @property
    def reports(self) -> tuple[AuditReport, ...]:
        """Of the audits that were run."""
        return tuple(named.report for named in self.audits if named.report is not None)


def check_report(audits: Sequence[NamedAudit], *, interrupted: bool, **rest: Any) -> CheckReport:
    """Put a report together; the line that stands first is made here."""
    verdict = None if interrupted else overall_verdict(audits)
    return CheckReport(
        headline=_headline(audits, verdict, interrupted),
        label_free=any(named.report.label_free for named in audits if named.report is not None),
        verdict=verdict,
        interrupted=interrupted,
        audits=tuple(audits),
        **rest,
    )


def _headline(audits: Sequence[NamedAudit], verdict: Verdict | None, interrupted: bool) -> str:
    parts = [
        count_text(len({getattr(named.name, axis) for named in audits}), axis) for axis in ("model", "device")
    ]
    conditions = {named.name.condition for named in audits} - {""}
    if conditions:
        parts.append(count_text(len(conditions), "condition"))
    word = "INTERRUPTED" if interrupted else "NO GATE" if verdict is None else verdict.upper()
    return f"{word}: {counts_text(audits)} ({', '.join(parts)})"


def counts_text(audits: Sequence[NamedAudit]) -> str:
    """Say how many audits there are of each verdict."""
    counts = Counter(named.verdict for named in audits if named.report is not None)
    words: dict[Verdict | None, tuple[str, str]] = {
        "fail": ("fails", "fail"),
        "undecided": ("is undecided", "are undecided"),
        "pass": ("passes", "pass"),
        None: ("has no gate", "have no gate"),
    }
    parts = [f"{counts[key]} {word[counts[key] > 1]}" for key, word in words.items() if counts[key]]
    if left := sum(named.report is None for named in audits):
        parts.append(f"{left} not run")
    return f"of {count_text(len(audits), 'audit')}, {', '.join(parts)}"


def tables(report: CheckReport) -> Tables:
    """Every question of every audit; the tables of each, with its name before each row."""
    rows: dict[str, list[dict[str, RecordValue]]] = {"audits": [], "chips": [], "tensors": []}
    for named in report.audits:
        name: dict[str, RecordValue] = {
            "model": named.name.model,
            "device": named.name.device,
            "condition": named.name.condition,
        }
        if named.report is None:
            rows["audits"].append({**name, "not_run": named.why_not})
            continue
        of_audit = audit_tables(named.report)
        for table, source in (("audits", "points"), ("chips", "chips"), ("tensors", "tensors")):
            records = of_audit[source]
            rows[table] += [{**name, **dict(zip(records.columns, row, strict=True))} for row in records.rows]
    return {table: records_of(of_table) for table, of_table in rows.items()}


def checks(report: CheckReport) -> list[Check]:
    """Ask every audit what it asks; one that was not run answers nothing."""
    return [check for named in report.audits for check in _checks(named, report)]


def _checks(named: NamedAudit, report: CheckReport) -> Iterator[Check]:
    subject = (named.name.model, named.name.device)
    prefix = f"{named.name.text}: "
    if named.report is None:
        verdict: Any = "interrupted" if report.interrupted else "undecided" if named.gated else "skipped"
        why = (f"not run: {named.why_not}",)
        yield Check(f"{prefix}not run", verdict, why, subject=subject, seconds=0.0)
        return
    for check in timed_checks(named.report):
        lines = (
            (named.report.headline, *check.lines)
            if check.verdict is None
            else (*check.lines, named.report.headline)
        )
        yield replace(check, name=f"{prefix}{check.name}", lines=lines, subject=subject)
