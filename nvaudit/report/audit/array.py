"""What is on the array, and what its devices do."""

from __future__ import annotations

from dataclasses import replace

from nvaudit.report.codes import codes_blocks
from nvaudit.report.device.document import device_blocks
from nvaudit.report.document import FILES, MEDIA, PAGE, Block, Number, Paragraph, Section, Table, at_sigma
from nvaudit.report.groups import zero_groups_text
from nvaudit.report.parts import share_blocks
from nvaudit.report.result import AuditReport
from nvaudit.report.tensors import digital_reasons, mapped_text, tensor_table
from nvaudit.report.wording import count_text


def mapping_section(report: AuditReport) -> Section:
    """What is mapped and what stays digital, with reasons."""
    mapped = [tensor for tensor in report.tensors if tensor.decision == "mapped"]
    digital = [tensor for tensor in report.tensors if tensor.decision == "digital"]
    stay = f"{count_text(len(digital), 'tensor')} stay{'s' if len(digital) == 1 else ''} digital"
    text = f"{mapped_text(mapped)}. {stay if digital else 'Nothing stays digital'}."
    blocks: list[Block] = [Paragraph(text, "lead"), *share_blocks(report.mapped)]
    if report.codes is not None:
        blocks += codes_blocks(report.codes)
    if report.zero_groups is not None:
        blocks.append(Paragraph(f"Groups of zeros: {zero_groups_text(report.zero_groups)}."))
    if reasons := digital_reasons(digital):
        rows = tuple((reason, Number(count, f"{count:,}")) for reason, count in reasons)
        table = Table("reasons", "What stays digital.", ("reason", "tensors"), rows, numeric=(1,))
        blocks.append(replace(table, media=MEDIA - PAGE))
    size = report.run.get("crossbar")
    of = f" of {size[0]} × {size[1]}" if isinstance(size, list) and len(size) == 2 else ""
    table = tensor_table("tensors", f"Every constant of the model; crossbars{of}.", (*mapped, *digital))
    blocks.append(replace(table, media=FILES))
    return Section("mapping", "What is on the array", tuple(blocks), folded=True)


def device_section(report: AuditReport) -> Section:
    """The device, and the law of each of its levels where the report has it."""
    point = report.operating_point
    blocks = device_blocks(report.device, at_sigma(point), point.time_s, point.terms, report.device_levels)
    return Section("device", "The device", tuple(blocks), media=PAGE)
