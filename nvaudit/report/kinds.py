"""Every report that a command writes as JSON: how it is told from the others, printed and drawn."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from nvaudit.errors import DataError, OptionError
from nvaudit.report.comparison.result import ComparisonReport
from nvaudit.report.document import Document
from nvaudit.report.hardening.result import HardenReport
from nvaudit.report.jsontext import short_repr
from nvaudit.report.landscape.result import LandscapeReport
from nvaudit.report.records import Tables
from nvaudit.report.remap.result import RemapReport
from nvaudit.report.render.csv import csv_text
from nvaudit.report.render.terminal import print_document
from nvaudit.report.result import AuditReport, parsed, validated_report
from nvaudit.report.roofline.result import RooflineReport
from nvaudit.report.sections import Section
from nvaudit.report.write_verify.result import VerifyReport

_MOST_KEYS = 5


@dataclass(frozen=True)
class Kind:
    """One kind of report.

    Attributes
    ----------
    name : str
    command : str
        That writes it.
    model : type
    key : str
        A key that no other kind has.
    document : str
        ``module:function`` of :mod:`nvaudit.report`: says what it found.
    records : str
        Module of :mod:`nvaudit.report` whose ``tables(report)`` gives its tables as records.
    tables : tuple of str
        The names that these may have, the main one first.
    text : str
        As ``document``: prints it, where the document does not say everything yet.
    """

    name: str
    command: str
    model: type[Section]
    key: str
    document: str
    records: str
    tables: tuple[str, ...]
    text: str = ""


KINDS = (
    Kind(
        "audit", "nvaudit audit", AuditReport, "trials",
        document="page.audit:audit_page", records="cases", text="text:render_text",
        tables=("points", "chips", "tensors", "attribution_tensors", "attribution_terms",
                "attribution_classes"),
    ),
    Kind(
        "compare", "nvaudit compare", ComparisonReport, "models",
        document="comparison.document:comparison_document", records="comparison.records",
        tables=("models", "differences", "correlations"),
    ),
    Kind(
        "roofline", "nvaudit roofline", RooflineReport, "levels",
        document="roofline.document:roofline_document", records="roofline.result",
        tables=("levels", "skipped"),
    ),
    Kind(
        "landscape", "nvaudit landscape", LandscapeReport, "surface",
        document="landscape.document:landscape_document", records="landscape.result",
        tables=("fits", "surface"),
    ),
    Kind(
        "harden", "nvaudit harden", HardenReport, "hardened",
        document="hardening.document:harden_document", records="hardening.result",
        tables=("models", "chips", "epochs", "verify_plan"),
    ),
    Kind(
        "remap", "nvaudit harden --method remap", RemapReport, "steps",
        document="remap.document:remap_document", records="remap.result",
        tables=("steps", "tensors", "audits"),
    ),
    Kind(
        "verify-plan", "nvaudit verify-plan", VerifyReport, "curve",
        document="write_verify.document:verify_document", records="write_verify.result",
        tables=("curve", "tensors", "chips"),
    ),
)  # fmt: skip


def read_any(text: str, where: str) -> tuple[Kind, Section]:
    """Read a report of whatever kind.

    Parameters
    ----------
    text : str
    where : str
        File name, for messages.

    Returns
    -------
    kind : Kind
    report : Section

    Raises
    ------
    DataError
        If the text is no report of this version; says where and what was found.
    """
    raw = parsed(text, where)
    kind = next((kind for kind in KINDS if kind.key in raw), None)
    if kind is None:
        raise DataError(f"{where}: {_unknown(raw)}")
    return kind, validated_report(kind.model, text, where, kind.command)


def _unknown(raw: dict[str, Any]) -> str:
    """Say that a JSON object is of no kind, with what it has, and which kinds there are."""
    found = [short_repr(key) for key in list(raw)[:_MOST_KEYS] if key != "schema_version"]
    more = ", …" if len(raw) > _MOST_KEYS else ""
    kinds = "; ".join(f"{kind.command} ({kind.key!r})" for kind in KINDS)
    return (
        f"a report of no kind that is known: it has {', '.join(found) or 'no keys'}{more}; give the JSON of "
        f"one of these, each told by a key of its own: {kinds}"
    )


def document_of(report: Section) -> Document:
    """Say what a report found; what makes its document is imported only now.

    Parameters
    ----------
    report : Section
        Of one of ``KINDS``.
    """
    made: Document = _named(_kind_of(report).document)(report)
    return made


def csv_of(report: Section, table: str | None = None) -> str:
    """Write a table of a report as CSV, without a final newline.

    Parameters
    ----------
    report : Section
        Of one of ``KINDS``.
    table : str, optional
        Its name; by default the main one.

    Raises
    ------
    OptionError
        Naming the tables that there are, where it has none of that name.
    """
    tables: Tables = importlib.import_module(f"nvaudit.report.{_kind_of(report).records}").tables(report)
    name = next(iter(tables)) if table is None else table
    if name not in tables:
        raise OptionError(f"--csv-table {name!r}: this report has {', '.join(tables)}; name one of these")
    return csv_text(tables[name].columns, tables[name].rows)


def junit_of(report: Section) -> str:
    """Write the gates of a report as JUnit XML, without a final newline."""
    from nvaudit.report.junit import render_junit

    assert isinstance(report, AuditReport)
    return render_junit(report)


def print_report(report: Section, console: Console) -> None:
    """Print a report of any kind for a person; the first line is its headline."""
    kind = _kind_of(report)
    if kind.text:
        _named(kind.text)(report, console)
    else:
        print_document(document_of(report), console)


def _kind_of(report: Section) -> Kind:
    return next(kind for kind in KINDS if isinstance(report, kind.model))


def _named(maker: str) -> Any:
    """Import a function of :mod:`nvaudit.report` from its ``module:function``."""
    module, _, function = maker.partition(":")
    return getattr(importlib.import_module(f"nvaudit.report.{module}"), function)
