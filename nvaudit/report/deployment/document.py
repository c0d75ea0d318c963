"""What `nvaudit map` says."""

from __future__ import annotations

from nvaudit.report.deployment.result import MappedTensorRow, MapReport, Reassembly, reassembly_text
from nvaudit.report.document import (
    Bullets,
    Cell,
    Document,
    Facts,
    Hero,
    KeyFigure,
    Number,
    Section,
    Table,
    at_sigma,
    file_name,
    limited,
    short,
)
from nvaudit.report.wording import count_text, si_text

UNITS = {"us": "µS", "na": "nA", "level": "level spacings"}


def map_document(report: MapReport) -> Document:
    """Say what lies on which crossbars, and where."""
    reassembly = report.check
    devices = sum(row.devices for row in report.tensors)
    weights = sum(row.weights for row in report.tensors)
    crossbars = sum(row.crossbars for row in report.tensors)
    size = f"{report.crossbar[0]}x{report.crossbar[1]}"
    what = count_text(report.chips, "simulated chip") if report.chips else "Targets of every device"
    title = f"{what} in {report.folder}"
    verdict = "" if reassembly is None else "PASS" if reassembly.holds else "FAIL"
    return Document(
        title=report.headline,
        subject=file_name(report.model.path),
        subtitle=f"on crossbars of {size} of {short(report.device_name)}",
        hero=Hero(
            role="none" if reassembly is None else "pass" if reassembly.holds else "fail",
            word=verdict,
            title=title if reassembly is None else reassembly_text(reassembly),
            lines=(),
            numbers=(
                KeyFigure("crossbars", f"{crossbars:,}", f"of {size}", main=True),
                KeyFigure("devices", f"{devices:,}", f"of {count_text(weights, 'weight')}"),
                KeyFigure("on disk", bytes_text(report.bytes), f"as {report.format}"),
                KeyFigure("took", si_text(report.timing.get("total", 0.0), "s"), ""),
            ),
        ),
        sections=(
            *(
                []
                if reassembly is None or not reassembly.faults
                else [Section("faults", "Faults", (Bullets(reassembly.faults),))]
            ),
            Section("tensors", "Tensors", (_table(report.tensors),)),
            *([Section("notes", "Notes", (Bullets(report.notes),))] if report.notes else ()),
            _record(report),
        ),
        version=report.nvaudit_version,
    )


def _table(rows: tuple[MappedTensorRow, ...]) -> Table:
    verified = any(row.verify is not None for row in rows)
    outliers = any(row.outliers is not None for row in rows)
    columns = ("tensor", "weights", "devices each", "crossbars", "devices",
               *(("to verify",) if verified else ()), *(("digital weights",) if outliers else ()),
               "significances", "folder")  # fmt: skip
    made: list[tuple[Cell, ...]] = []
    for row in rows:
        numbers = [row.weights, row.devices_per_weight, row.crossbars, row.devices]
        numbers += [row.verify or 0] if verified else []
        numbers += [row.outliers or 0] if outliers else []
        text = ",".join(f"{one:.6g}" for one in row.significances)
        made.append((short(row.name), *(Number(n, f"{n:,}") for n in numbers), text, row.folder))
    shown, cut = limited(made)
    count = len(columns)
    return Table("tensors", f"Every tensor on the array, and where its crossbars lie.{cut}", columns, shown,
                 numeric=tuple(range(1, count - 2)), sortable=True)  # fmt: skip


def _record(report: MapReport) -> Section:
    point = report.operating_point
    rows = (
        ("Model", report.model.path),
        ("Device", f"{report.device_name}, {at_sigma(point)}"),
        ("Conductances", f"in {UNITS.get(report.unit, report.unit)}"),
        ("Folder", report.folder),
        ("Digital", _digital(report)),
        *_digital_part(report.check),
        ("nvaudit", report.nvaudit_version),
    )
    return Section("record", "How it was mapped", (Facts(rows),))


def _digital(report: MapReport) -> str:
    """What no device holds: whole tensors, and the largest weights of others."""
    outliers = sum(row.outliers or 0 for row in report.tensors)
    more = f", and {count_text(outliers, 'weight')} of others, the largest" if outliers else ""
    return count_text(report.digital, "tensor") + more


def _digital_part(reassembly: Reassembly | None) -> tuple[tuple[str, str], ...]:
    if reassembly is None or reassembly.digital_part is None:
        return ()
    off = f"{reassembly.digital_part:.1g} of the largest"
    return (("Digital part", f"with the products of the arrays, the model's outputs within {off}"),)


def bytes_text(count: int) -> str:
    """Show a size.

    Examples
    --------
    >>> bytes_text(1536), bytes_text(3 * 2**30)
    ('1.5 KiB', '3 GiB')
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"
