"""Every report that a command writes as JSON: how it is told from the others, printed and drawn."""

from __future__ import annotations

import contextlib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvaudit.errors import DataError, OptionError, why_unread
from nvaudit.report.jsontext import short_repr
from nvaudit.report.plots import paper_drawer
from nvaudit.report.reading import keys_text, parsed, validated

if TYPE_CHECKING:
    from rich.console import Console

    from nvaudit.report.document import Document
    from nvaudit.report.header import Header
    from nvaudit.report.records import Records, Tables


class NoPartError(OptionError):
    """A report has no table or figure of the name that was asked for."""


@dataclass(frozen=True)
class ReportKind:
    """One kind of report.

    Attributes
    ----------
    command : str
        That writes it.
    result : str
        ``module:class`` of :mod:`nvaudit.report`; loaded when needed, as all of a kind: a command needs one.
    document : str
        ``module:function``: says what it found.
    tables : tuple of str
        Names of its tables, the main one first.
    figures : tuple of str
        Names of the figures that its page may have; ``*`` stands for more.
    records_in : str
        Module of :attr:`records` where that is not the result's.
    """

    name: str
    command: str
    result: str
    document: str
    tables: tuple[str, ...]
    figures: tuple[str, ...] = ()
    records_in: str = ""

    @property
    def model(self) -> type[Header]:
        """Its result."""
        made: type[Header] = _named(self.result)
        return made

    @property
    def records(self) -> Any:
        """Module that makes its tables as records.

        It has ``tables(report)`` and, where it answers questions, ``checks(report)`` and, for what else a
        build server keeps, ``facts(report)``.
        """
        return importlib.import_module(f"nvaudit.report.{self.records_in or self.result.partition(':')[0]}")


KINDS = (
    ReportKind(
        "audit", "nvaudit audit", "result:AuditReport", "audit.document:audit_document",
        ("points", "chips", "tensors", "read_back", "attribution_tensors", "attribution_terms",
         "attribution_classes"),
        ("histogram", "yield", "sweep", "errors-by-row-*", "errors-by-column-*", "waterfall", "by-tensors",
         "by-terms", "by-classes", "rare-by-tensors", "rare", "levels", "surface", "contours"),
        records_in="cases",
    ),
    ReportKind(
        "check", "nvaudit check", "check.result:CheckReport",
        "check.document:check_document", ("audits", "chips", "tensors"), ("audits",),
    ),
    ReportKind(
        "sweep", "nvaudit audit", "sweep.result:SweepReport",
        "sweep.document:sweep_document", ("points", "chips", "tensors"), ("sweep",),
    ),
    ReportKind(
        "compare", "nvaudit compare", "comparison.result:ComparisonReport",
        "comparison.document:comparison_document", ("models", "differences", "correlations"),
        ("kpp", "roughness"),
    ),
    ReportKind(
        "roofline", "nvaudit roofline", "roofline.result:RooflineReport",
        "roofline.document:roofline_document", ("levels", "skipped"), ("roofline",),
    ),
    ReportKind(
        "landscape", "nvaudit landscape", "landscape.result:LandscapeReport",
        "landscape.document:landscape_document", ("fits", "surface"), ("surface", "contours"),
    ),
    ReportKind(
        "harden", "nvaudit harden", "hardening.result:HardenReport",
        "hardening.document:harden_document", ("models", "chips", "epochs", "verify_plan"),
        ("pair", "candidates", "training-figure", "verify"),
    ),
    ReportKind(
        "remap", "nvaudit harden --method remap", "remap.result:RemapReport",
        "remap.document:remap_document", ("steps", "tensors", "audits"), ("steps",),
    ),
    ReportKind(
        "verify-plan", "nvaudit verify-plan", "write_verify.result:VerifyReport",
        "write_verify.document:verify_document", ("curve", "tensors", "chips"), ("verify",),
    ),
    ReportKind(
        "plan", "nvaudit audit --plan", "plan.result:AuditPlan",
        "plan.document:plan_document", ("percentiles", "gates"),
    ),
    ReportKind(
        "inspect", "nvaudit inspect", "inspection.result:InspectReport",
        "inspection.document:inspect_document", ("tensors", "off"),
    ),
    ReportKind(
        "map", "nvaudit map", "deployment.result:MapReport",
        "deployment.document:map_document", ("tensors",),
    ),
    ReportKind(
        "explore", "nvaudit explore", "explore.result:ExploreReport",
        "explore.document:explore_document", ("points", "left_out"), ("front",),
    ),
    ReportKind(
        "calibrate", "nvaudit calibrate", "deployment.calibration:CalibrateReport",
        "deployment.calibration:calibrate_document", ("layers",),
    ),
    ReportKind(
        "fit", "nvaudit devices fit", "deployment.fit:FitReport",
        "deployment.fit:fit_document", ("levels", "laws", "components", "predicted"), ("levels-drawn",),
    ),
    ReportKind(
        "device", "nvaudit devices show", "device.result:DeviceReport",
        "device.document:device_document", ("levels",), ("levels",),
    ),
    ReportKind(
        "devices", "nvaudit devices list", "device.result:ProfileList",
        "device.document:profiles_document", ("profiles",),
    ),
    ReportKind(
        "config", "nvaudit config", "config.result:ConfigReport",
        "config.result:config_document", ("options",),
    ),
    ReportKind(
        "cost", "nvaudit cost", "cost.result:CostReport",
        "cost.document:cost_document", ("layers", "components", "chips", "measured_chips"),
        ("cost-by-layer",),
    ),
    ReportKind(
        "technology", "nvaudit technology show", "technology.result:TechnologyReport",
        "technology.document:technology_document", ("numbers", "peak"),
    ),
    ReportKind(
        "technologies", "nvaudit technology list", "technology.result:TechnologyList",
        "technology.document:technologies_document", ("technologies",),
    ),
)  # fmt: skip


ANY_REPORT = "the JSON report of a command of nvaudit"


def read_any(text: str, where: str, wanted: str = ANY_REPORT) -> tuple[ReportKind, Header]:
    """Read a report of whatever kind.

    Parameters
    ----------
    where : str
        File name, for messages.
    wanted : str
        What should be given instead, for messages.

    Raises
    ------
    DataError
        If the text is no report of this version; says where and what was found.
    """
    raw = parsed(text, where, wanted)
    kind = next((kind for kind in KINDS if kind.name == raw.get("kind")), None)
    if kind is None:
        contents = f"kind {short_repr(raw['kind'])}" if "kind" in raw else keys_text(raw)
        raise DataError(f"{where}: a report of no kind that is known: it has {contents}; give {wanted}")
    return kind, validated(kind.model, raw, where, kind.command)


def schema_text(kind: ReportKind) -> str:
    """Write the JSON schema (draft 2020-12) of a kind of report, as it is committed in ``schemas/``."""
    # Serialisation: what a reader of a report may rely on, so every key is required.
    schema = kind.model.model_json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"


def document_of(report: Header) -> Document:
    """Say what a report found; what makes its document is imported only now.

    Parameters
    ----------
    report : Header
        Of one of ``KINDS``.
    """
    made: Document = _named(_kind_of(report).document)(report)
    return made


def csv_of(report: Header, table: str | None = None) -> str:
    """Write a table of a report as CSV, without a final newline.

    Parameters
    ----------
    report : Header
        Of one of ``KINDS``.
    table : str, optional
        Its name; by default the main one.

    Raises
    ------
    NoPartError
        Naming the tables that there are, where it has none of that name.
    """
    from nvaudit.report.render.csv import csv_text

    records = table_of(report, table, "--csv-table")
    return csv_text(records.columns, records.rows)


def table_of(report: Header, table: str | None = None, asked_by: str = "table") -> Records:
    """Give a table of a report.

    Parameters
    ----------
    report, table
        As :func:`csv_of`.
    asked_by : str
        How it was asked for, for the message.

    Raises
    ------
    NoPartError
        As :func:`csv_of`.
    """
    tables = tables_of(report)
    name = next(iter(tables)) if table is None else table
    if name not in tables:
        raise NoPartError(f"{asked_by} {name!r}: this report has {', '.join(tables)}; name one of these")
    return tables[name]


def tables_of(report: Header) -> Tables:
    """Give the tables of a report by name, the main one first."""
    tables: Tables = _kind_of(report).records.tables(report)
    return tables


def picture_of(report: Header, form: str, figure: str | None = None) -> bytes:
    """Draw a figure of a report for paper.

    Parameters
    ----------
    form : {"svg", "pdf"}
    figure : str, optional
        Its name; by default the first.

    Raises
    ------
    NoPartError
        Naming the figures that there are, where it has none of that name.
    OptionError
        If matplotlib or plotly is not installed.
    """
    paper = paper_drawer(f"--{form}")
    picture: bytes = paper.picture(paper.paper_figure(drawn(report, figure, "--figure")), form)
    return picture


def drawn(report: Header, name: str | None = None, asked_by: str = "figure") -> Any:
    """Draw a figure of a report's page with plotly, by default the first.

    Raises
    ------
    NoPartError
        Naming the figures that there are, where it has none of that name.
    OptionError
        If plotly is not installed.
    """
    figures = {figure.name: figure for figure in document_of(report).figures}
    if not figures:
        raise NoPartError(f"{asked_by}: this report of {_kind_of(report).command} has no figures")
    name = next(iter(figures)) if name is None else name
    if name not in figures:
        raise NoPartError(f"{asked_by} {name!r}: this report has {', '.join(figures)}; name one of these")
    draw = figures[name].draw
    assert draw is not None  # figures of a page are drawn
    return draw()


def paper_figure_of(report: Header, name: str | None, width: float, height: float | None) -> Any:
    """Draw a figure of a report for paper; as :meth:`nvaudit.report.header.Header.figure`."""
    return paper_drawer("figure()").paper_figure(drawn(report, name), width, height)


def notebook_of(report: Header) -> str:
    """Make what a notebook shows of a report: HTML."""
    from nvaudit.report.render.html import notebook_html

    document, picture = document_of(report), ""
    if document.figures:
        with contextlib.suppress(OptionError):  # matplotlib is an extra
            paper = paper_drawer("")
            picture = paper.svg_text(paper.paper_figure(drawn(report), paper.NOTEBOOK_IN))
    return notebook_html(document, picture)


def dataframe_of(report: Header, table: str | None = None) -> Any:
    """Give a table as a data frame; as :meth:`nvaudit.report.header.Header.to_dataframe`."""
    records = table_of(report, table)
    try:
        import pandas as pd
    except ImportError as error:
        raise OptionError("to_dataframe() needs pandas; run: pip install 'nvaudit[pandas]'") from error
    return pd.DataFrame(list(records.rows), columns=list(records.columns))


def load(path: str | Path) -> Header:
    """Read a report of any kind that was saved as JSON: by a command, or by :meth:`Header.save`.

    Raises
    ------
    OptionError
        If the file cannot be read.
    DataError
        If it is no report; says where and what was found.
    """
    return read_any(report_text(path, ANY_REPORT), str(path))[1]


def report_text(path: str | Path, wanted: str) -> str:
    """Read a file of text; ``wanted`` is what it should be, for the message.

    Raises
    ------
    OptionError
        If it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: cannot be read: {why_unread(error)}; give {wanted}") from error


def junit_of(report: Header) -> str:
    """Write the checks of a report as JUnit XML, without a final newline.

    Raises
    ------
    OptionError
        If a report of this kind answers no question.
    """
    from nvaudit.report.render.junit import junit_text

    kind = _kind_of(report)
    module = kind.records
    if not hasattr(module, "checks"):
        raise OptionError(f"--junit: a report of {kind.command} asks nothing of the chips; leave it out")
    facts = module.facts(report) if hasattr(module, "facts") else ()
    return junit_text(report, kind.command, module.checks(report), facts)


def print_report(report: Header, console: Console) -> None:
    """Print a report of any kind for a person; the first line is its headline."""
    from nvaudit.report.render.terminal import print_document

    print_document(document_of(report), console)


def _kind_of(report: Header) -> ReportKind:
    return next(kind for kind in KINDS if kind.name == report.kind)


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"nvaudit.report.{module}"), name)
