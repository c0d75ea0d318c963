"""Every report that a command writes as JSON: how it is told from the others, printed and drawn."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from nvaudit.errors import DataError
from nvaudit.report.comparison.result import ComparisonReport
from nvaudit.report.hardening.result import HardenReport
from nvaudit.report.jsontext import short_repr
from nvaudit.report.landscape.result import LandscapeReport
from nvaudit.report.remap.result import RemapReport
from nvaudit.report.result import AuditReport, parsed, validated_report
from nvaudit.report.roofline.result import RooflineReport
from nvaudit.report.sections import Section
from nvaudit.report.verify.result import VerifyReport

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
        A key that no other kind has.
    text, page : str
        ``module:function`` of :mod:`nvaudit.report`: prints it on a console, works out its page.
    """

    command: str
    model: type[Section]
    key: str
    text: str
    page: str


KINDS = (
    Kind("nvaudit audit", AuditReport, "trials", "text:render_text", "page.audit:audit_page"),
    Kind("nvaudit compare", ComparisonReport, "models", "comparison.text:render_comparison",
         "comparison.html:comparison_page"),
    Kind("nvaudit roofline", RooflineReport, "levels", "roofline.text:render_roofline",
         "roofline.html:roofline_page"),
    Kind("nvaudit landscape", LandscapeReport, "surface", "landscape.text:render_landscape",
         "landscape.html:landscape_page"),
    Kind("nvaudit harden", HardenReport, "hardened", "hardening.text:render_hardening",
         "hardening.html:harden_page"),
    Kind("nvaudit harden --method remap", RemapReport, "steps", "remap.text:render_remap",
         "remap.html:remap_page"),
    Kind("nvaudit verify-plan", VerifyReport, "curve", "verify.text:render_verify",
         "verify.html:verify_page"),
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


def made(maker: str) -> Any:
    """Import a function of :mod:`nvaudit.report` from its ``module:function``."""
    module, _, function = maker.partition(":")
    return getattr(importlib.import_module(f"nvaudit.report.{module}"), function)
