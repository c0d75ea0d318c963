"""Audits under every combination of several values of options: what the report of a sweep holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from nvaudit.declare import fields_of
from nvaudit.report.cases import tables as audit_tables
from nvaudit.report.cases import timed_checks
from nvaudit.report.comparison.build import audit_difference
from nvaudit.report.comparison.difference import IntervalMethod, Relation
from nvaudit.report.document import unit_words
from nvaudit.report.header import Header
from nvaudit.report.paired import Difference
from nvaudit.report.records import Check, RecordValue, Tables, records_of
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import ReportPart
from nvaudit.report.summary import common_conditions
from nvaudit.report.wording import count_text, duration_text, kpp_name, value_text
from nvaudit.spec import RunSpec
from nvaudit.stats.gate import Verdict, overall_verdict

SweptValue = str | int | float | None

_WORDS = {
    "sigma": "σ",
    "time_s": "time",
    "adc_bits": "ADC bits",
    "dac_bits": "DAC bits",
    "adc_range": "ADC range",
    "cell_bits": "bits per cell",
    "bits": "bits of a weight",
}


class SweepAxis(ReportPart):
    """An option with several values."""

    name: str = Field(description="Field of the specification of an audit; sigma for the device's spread.")
    values: tuple[SweptValue, ...] = Field(min_length=2, description="In the order given; null: without it.")

    @property
    def words(self) -> str:
        """What it is, in words."""
        return _WORDS.get(self.name, unit_words(self.name))

    @property
    def numeric(self) -> bool:
        """Whether values can stand on an axis at their place: all are numbers, and of like size."""
        return self.name != "time_s" and all(isinstance(value, int | float) for value in self.values)


class DifferenceToFirst(ReportPart):
    """How an audit differs from the first one of the sweep, in the metric's unit."""

    kpp: Difference
    mean: Difference
    chips: Relation = Field(
        description="Whether the two saw the same chips; partly_shared: the same random numbers, in devices "
        "that differ."
    )
    method: IntervalMethod = Field(description="How the interval of the KPP was found.")


class SweptAudit(ReportPart):
    """One combination."""

    settings: dict[str, SweptValue] = Field(description="Its value on each axis, by the axis' name.")
    gated: bool = Field(description="Whether anything is demanded of it.")
    report: AuditReport | None = Field(default=None, description="Null: it was not run.")
    why_not: str = Field(default="", description="Why it was not run; else empty.")
    to_first: DifferenceToFirst | None = Field(
        default=None, description="Null for the first one, and where one of the two was not run."
    )

    @property
    def verdict(self) -> Verdict | None:
        """Of its gates; what was not run is undecided, and null where nothing was demanded."""
        if self.report is not None and self.report.interrupted is None:
            return self.report.verdict
        return "undecided" if self.gated else None

    @property
    def text(self) -> str:
        """Name of the combination."""
        return settings_text(self.settings)


class SweepReport(Header):
    """One model under every combination of several values of options; written by ``nvaudit audit``."""

    kind: Literal["sweep"] = "sweep"
    verdict: Verdict | None = Field(
        description="Of all audits together: the worst; null without a gate, and where it was interrupted."
    )
    interrupted: bool = Field(description="Whether the run was cut off; then some have no report.")
    command: str | None = Field(
        default=None, description="Goes on where the run was cut off, if anything was kept."
    )
    axes: tuple[SweepAxis, ...] = Field(min_length=1)
    audits: tuple[SweptAudit, ...] = Field(min_length=1, description="The last axis fastest.")

    @model_validator(mode="after")
    def _verdict_follows_from_audits(self) -> SweepReport:
        expected = None if self.interrupted else overall_verdict(self.audits)
        if self.verdict != expected:
            raise ValueError(f"verdict {self.verdict!r}, but the audits say {expected!r}")
        return self

    @property
    def ran(self) -> tuple[tuple[SweptAudit, AuditReport], ...]:
        """The audits that were run, with their reports."""
        return tuple((audit, audit.report) for audit in self.audits if audit.report is not None)


def value_words(axis: str, value: SweptValue) -> str:
    """Show a value of an axis.

    Examples
    --------
    >>> value_words("adc_bits", 5), value_words("adc_bits", None), value_words("time_s", 86400.0)
    ('5', 'ideal', '1 d')
    """
    if value is None:
        return "ideal" if axis in ("adc_bits", "dac_bits") else "as in the profile"
    if axis == "time_s":
        return duration_text(float(value))
    if axis == "crossbar":
        return str(value).replace("x", "×")
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_text(settings: Mapping[str, SweptValue]) -> str:
    """Name a combination in one line.

    Examples
    --------
    >>> settings_text({"adc_bits": 5, "crossbar": "64x64"})
    'ADC bits 5, crossbar 64×64'
    """
    return ", ".join(
        f"{_WORDS.get(axis, unit_words(axis))} {value_words(axis, value)}" for axis, value in settings.items()
    )


def swept_value(axis: str, value: Any) -> SweptValue:
    """Give a value of an option as a report holds it: a number, or the text that is typed."""
    if value is None or isinstance(value, int | float | str):
        return value
    return fields_of(RunSpec)[axis].option.write(value)


def sweep_report(
    axes: Sequence[SweepAxis],
    audits: Sequence[SweptAudit],
    *,
    interrupted: bool,
    **rest: Any,
) -> SweepReport:
    """Put a report together: differences from the first audit, and the line that stands first."""
    compared = tuple(_compared(audits))
    reports = [audit.report for audit in compared if audit.report is not None]
    first = reports[0]
    verdict = None if interrupted else overall_verdict(compared)
    return SweepReport(
        headline=_headline(axes, compared, verdict, interrupted),
        label_free=first.label_free,
        metric=first.metric,
        metric_info=first.metric_info,
        model=first.model,
        data=first.data,
        runtime=first.runtime,
        verdict=verdict,
        interrupted=interrupted,
        axes=tuple(axes),
        audits=compared,
        **rest,
    )


def _compared(audits: Sequence[SweptAudit]) -> Iterator[SweptAudit]:
    first = audits[0].report
    for number, audit in enumerate(audits):
        if not number or first is None or audit.report is None:
            yield audit
            continue
        relation, kpp, method, mean = audit_difference(first, audit.report)
        difference = DifferenceToFirst(kpp=kpp, mean=mean, chips=relation, method=method)
        yield audit.model_copy(update={"to_first": difference})


RanAudit: TypeAlias = tuple[SweptAudit, AuditReport]
"""An audit of a sweep that was run, and its report."""


def worst_and_best(ran: Sequence[RanAudit]) -> tuple[RanAudit, RanAudit]:
    """Give the audits with the worst and the best first KPP, of equal ones the first."""
    better = 1 if ran[0][1].metric_info.higher_is_better else -1

    def value(one: RanAudit) -> float:
        return better * one[1].kpp[0].value

    return min(ran, key=value), max(ran, key=value)


def _headline(
    axes: Sequence[SweepAxis], audits: Sequence[SweptAudit], verdict: Verdict | None, interrupted: bool
) -> str:
    ran = [(audit, audit.report) for audit in audits if audit.report is not None]
    info, metric = ran[0][1].metric_info, ran[0][1].metric
    ends = " to ".join(
        f"{value_text(report.kpp[0].value, info.unit)} ({settings_text(audit.settings)})"
        for audit, report in worst_and_best(ran)
    )
    trials = {report.kpp[0].trials for _, report in ran}
    chips = f"{'up to ' if len(trials) > 1 else ''}{count_text(max(trials), 'chip')} each"
    name, swept = kpp_name(ran[0][1].kpp[0].percentile), " and ".join(axis.words for axis in axes)
    shared = common_conditions([report for _, report in ran])
    text = f"{name} {metric} from {ends}, over {swept}: {_counts(audits)}, {chips}{shared}"
    if interrupted:
        text = f"INTERRUPTED: {text}"
    elif verdict is not None:
        text = f"{verdict.upper()}: {text}"
    if ran[0][1].label_free:
        text = f"LABEL-FREE (no labels: compared with the unperturbed model only): {text}"
    return info.cautioned(text)


def _counts(audits: Sequence[SweptAudit]) -> str:
    run = sum(audit.report is not None for audit in audits)
    return count_text(run, "audit") if run == len(audits) else f"{run} of {count_text(len(audits), 'audit')}"


def tables(report: SweepReport) -> Tables:
    """Every combination with its numbers; the chips and tensors of each."""
    rows: dict[str, list[dict[str, RecordValue]]] = {"points": [], "chips": [], "tensors": []}
    for audit in report.audits:
        name: dict[str, RecordValue] = {
            axis: value_words(axis, value) if value is None else value
            for axis, value in audit.settings.items()
        }
        if audit.report is None:
            rows["points"].append({**name, "not_run": audit.why_not})
            continue
        of_audit = audit_tables(audit.report)
        for table, of_table in rows.items():
            records = of_audit[table]
            for number, values in enumerate(records.rows):
                row = {**name, **dict(zip(records.columns, values, strict=True)), **name}
                if table == "points" and not number:  # of the first percentile
                    row |= _difference_cells(audit.to_first)
                of_table.append(row)
    return {table: records_of(of_table) for table, of_table in rows.items()}


def _difference_cells(difference: DifferenceToFirst | None) -> dict[str, RecordValue]:
    if difference is None:
        return {}
    return {
        f"{name}_to_first{end}": getattr(one, field)
        for name, one in (("kpp", difference.kpp), ("mean", difference.mean))
        for end, field in (("", "value"), ("_low", "low"), ("_high", "high"))
    } | {"chips_of_first": difference.chips}


def checks(report: SweepReport) -> list[Check]:
    """Ask every audit what it asks; one that was not run answers nothing."""
    found: list[Check] = []
    for audit in report.audits:
        if audit.report is None:
            verdict: Any = "interrupted" if report.interrupted else "undecided" if audit.gated else "skipped"
            why = (f"not run: {audit.why_not}",)
            found.append(Check(f"{audit.text}: not run", verdict, why, seconds=0.0))
            continue
        found += [
            replace(check, name=f"{audit.text}: {check.name}", lines=(*check.lines, audit.report.headline))
            for check in timed_checks(audit.report)
        ]
    return found
