"""What an audit says of chips that were corrected one by one."""

from __future__ import annotations

from nvaudit.report.document import Block, Bullets, Paragraph, Section, Table
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import SweepPoint
from nvaudit.report.wording import count_text, difference_text, interval_text, kpp_name, value_text


def calibrated_section(report: AuditReport) -> Section | None:
    """The same chips as they are and corrected, side by side; None where none was corrected."""
    chips = report.calibrated
    if chips is None:
        return None
    info = report.metric_info
    parts = []
    if chips.norms:
        parts.append(f"the statistics of {count_text(chips.norms, 'batch normalisation')}")
    if chips.layers:
        parts.append(f"gain and bias of each output channel behind {count_text(chips.layers, 'layer')}")
    text = (
        f"These numbers use the chip: each is measured on {count_text(chips.samples, 'unlabelled sample')} "
        f"from {chips.source}, none of which is scored, and corrected by what its layers make of them less "
        f"what those of the ideal model make of the same ones: {' and '.join(parts)}."
    )
    plain = {point.sigma: point for point in report.sweep or (_top(report),)}
    rows = tuple(
        row
        for point in chips.points
        if point.sigma in plain
        for row in _rows(plain[point.sigma], point, info.unit, several=bool(report.sweep))
    )
    columns = (*(("sigma",) if report.sweep else ()), "", "as it is", "corrected", "change", "interval")
    numeric = tuple(range(1, len(columns)))
    caption = f"The same {count_text(report.trials.count, 'chip')} as they are and corrected."
    blocks: list[Block] = [Paragraph(text), Table("calibrated-rows", caption, columns, rows, numeric=numeric)]
    if chips.left:
        blocks.append(Bullets(tuple(f"Not corrected: {item.name}: {item.reason}" for item in chips.left)))
    return Section("calibrated", "With each chip corrected", tuple(blocks))


def _top(report: AuditReport) -> SweepPoint:
    """The audit without a sweep, as the one point of one."""
    point = report.operating_point
    return SweepPoint(sigma=point.sigma, sigma_unit=point.sigma_unit, kpp=report.kpp, trials=report.trials)


def _rows(plain: SweepPoint, corrected: SweepPoint, unit: str, several: bool) -> list[tuple[str, ...]]:
    first = (f"{plain.sigma:g}",) if several else ()
    rows = [
        (
            *first,
            kpp_name(after.percentile),
            value_text(before.value, unit),
            value_text(after.value, unit),
            difference_text(after.value - before.value, unit),
            interval_text(after.low, after.high, unit),
        )
        for before, after in zip(plain.kpp, corrected.kpp, strict=True)
    ]
    means = plain.trials.mean, corrected.trials.mean
    change = difference_text(means[1] - means[0], unit)
    rows.append((*first, "mean", *(value_text(mean, unit) for mean in means), change, ""))
    return rows
