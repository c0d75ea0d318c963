"""Every report that a command writes as JSON: how it is told from the others, printed and drawn."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from nvaudit.errors import DataError
from nvaudit.report.comparison.result import ComparisonReport
from nvaudit.report.device.result import DeviceReport, ProfileList
from nvaudit.report.document import Document
from nvaudit.report.hardening.result import HardenReport
from nvaudit.report.inspection.result import InspectReport
from nvaudit.report.jsontext import short_repr
from nvaudit.report.landscape.result import LandscapeReport
from nvaudit.report.plan.result import Plan
from nvaudit.report.remap.result import RemapReport
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
    command : str
        That writes it.
    model : type
    key : str
        A key that no other kind has; empty where every report says its kind itself.
    document : str
        ``module:function`` of :mod:`nvaudit.report`: says what it found.
    """

    command: str
    model: type[Section]
    key: str
    document: str


KINDS = (
    Kind("nvaudit audit", AuditReport, "trials", "audit.document:audit_document"),
    Kind("nvaudit compare", ComparisonReport, "models", "comparison.document:comparison_document"),
    Kind("nvaudit roofline", RooflineReport, "levels", "roofline.document:roofline_document"),
    Kind("nvaudit landscape", LandscapeReport, "surface", "landscape.document:landscape_document"),
    Kind("nvaudit harden", HardenReport, "hardened", "hardening.document:harden_document"),
    Kind("nvaudit harden --method remap", RemapReport, "steps", "remap.document:remap_document"),
    Kind("nvaudit verify-plan", VerifyReport, "curve", "write_verify.document:verify_document"),
    Kind("nvaudit audit --plan", Plan, "", "plan.document:plan_document"),
    Kind("nvaudit inspect", InspectReport, "", "inspection.document:inspect_document"),
    Kind("nvaudit devices show", DeviceReport, "", "device.document:device_document"),
    Kind("nvaudit devices list", ProfileList, "", "device.document:profiles_document"),
)


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
    kind = next((kind for kind in KINDS if _is_of(kind, raw)), None)
    if kind is None:
        raise DataError(f"{where}: {_unknown(raw)}")
    return kind, validated_report(kind.model, text, where, kind.command)


def _is_of(kind: Kind, raw: dict[str, Any]) -> bool:
    if "kind" in raw:
        named = kind.model.model_fields.get("kind")
        return named is not None and raw["kind"] == named.default
    return kind.key in raw


def _unknown(raw: dict[str, Any]) -> str:
    """Say that a JSON object is of no kind, with what it has, and which kinds there are."""
    found = [short_repr(key) for key in list(raw)[:_MOST_KEYS] if key != "schema_version"]
    more = ", …" if len(raw) > _MOST_KEYS else ""
    kinds = "; ".join(f"{kind.command} ({kind.key or 'kind'!r})" for kind in KINDS)
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
    kind = next(kind for kind in KINDS if isinstance(report, kind.model))
    module, _, function = kind.document.partition(":")
    made: Document = getattr(importlib.import_module(f"nvaudit.report.{module}"), function)(report)
    return made


def print_report(report: Section, console: Console) -> None:
    """Print a report of any kind for a person; the first line is its headline."""
    print_document(document_of(report), console)
