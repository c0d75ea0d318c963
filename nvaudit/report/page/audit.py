"""An audit as one page that opens offline."""

from __future__ import annotations

from nvaudit.report.document import Document, Section, at_sigma, file_name, short
from nvaudit.report.page.distribution import chips_section, sweep_section, yield_section
from nvaudit.report.page.hardware import crossbar_section, device_section, mapping_section
from nvaudit.report.page.losses import losses_section
from nvaudit.report.page.record import cite_section, inputs_section, notes_section, rerun_section
from nvaudit.report.page.surface import landscape_section
from nvaudit.report.page.verdict import gate_section, hero, tail_section
from nvaudit.report.render.html import html_document
from nvaudit.report.result import AuditReport


def report_html(report: AuditReport) -> str:
    """Make the page of an audit.

    Parameters
    ----------
    report : AuditReport

    Returns
    -------
    str
        HTML without any reference to other files, below 6 MB.

    Raises
    ------
    OptionError
        If plotly is not installed.
    """
    return html_document(audit_page(report))


def audit_page(report: AuditReport) -> Document:
    """Work out what stands on the page of an audit.

    Parameters
    ----------
    report : AuditReport
    """
    model = file_name(report.model.path)
    point = report.operating_point
    device = short(str(report.device.get("name", "unnamed device")))
    levels = report.device_levels
    sections: list[Section | None] = [
        chips_section(report),
        yield_section(report),
        sweep_section(report),
        losses_section(report),
        gate_section(report),
        tail_section(report),
        landscape_section(report),
        mapping_section(report),
        crossbar_section(report.crossbar),
        device_section(report, levels),
        notes_section(report),
        rerun_section(report),
        inputs_section(report),
        cite_section(report),
    ]
    return Document(
        title=report.headline,
        subject=model,
        subtitle=f"{report.metric} on {device} at {at_sigma(point)}",
        hero=hero(report),
        sections=tuple(section for section in sections if section is not None),
        version=report.nvaudit_version,
    )
