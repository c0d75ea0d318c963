"""What the report of a write-verify plan says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from nvaudit.report.codes import codes_blocks, codes_number
from nvaudit.report.document import (
    Block,
    Bullets,
    Cell,
    Document,
    Figure,
    Hero,
    KeyFigure,
    Number,
    Paragraph,
    Section,
    Table,
    file_name,
    limited,
    short,
)
from nvaudit.report.mapped import coverage_text, gate_lines
from nvaudit.report.paired import Difference
from nvaudit.report.parts import record_section, share_blocks, share_numbers, warnings
from nvaudit.report.wording import (
    capitalised,
    confidence_text,
    count_text,
    difference_text,
    duration_text,
    interval_text,
    kpp_name,
    limit_text,
    missing_bound_text,
    shape_text,
    sigma_text,
    value_text,
)
from nvaudit.report.write_verify.figures import verify_figure
from nvaudit.report.write_verify.result import (
    VerifyChoice,
    VerifyPoint,
    VerifyReport,
    VerifyTensor,
    share_words,
)


def verify_document(report: VerifyReport) -> Document:
    """Say what a plan found."""
    return Document(
        title=report.headline,
        subject=file_name(str(report.run.get("model", ""))),
        subtitle=f"{report.metric} on {short(report.device_name)} by the share of weights that are "
        "write-verified",
        hero=_hero(report),
        sections=(*plan_sections(report), _notes(report), record_section(report, _condition_rows(report))),
        version=report.nvaudit_version,
    )


def plan_sections(report: VerifyReport) -> tuple[Section, Section]:
    """What a plan says, without what it rests on: the curve, and the tensors."""
    return _curve(report), _tensors(report)


def _hero(report: VerifyReport) -> Hero:
    choice, unit = report.choice, report.metric_info.unit
    role: Literal["pass", "fail", "none"] = "none"
    if choice is None:
        assert report.target is not None
        title, role, word = (
            f"No share that was tried reaches {limit_text(report.target, unit)}",
            "fail",
            "Missed",
        )
    else:
        title = f"Verify {share_words(choice.share)} of the weights for {value_text(choice.kpp, unit)}"
        role, word = ("none", "") if report.target is None else ("pass", "Reached")
    lines = [f"{reason_text(report)}."]
    if choice is not None and _is_open(report, choice):
        ends = _interval(_at(report, choice.weights), unit)
        lines.append(
            f"The interval of this KPP, {ends}, has values that miss the target: with other chips the share "
            "may be another. --trials makes the interval narrower."
        )
    lines += [f"{text}." for text in gate_lines(report.mapped_gate, report.mapped)]
    if report.mapped_gate is not None and report.mapped_gate.verdict == "fail":
        role, word = "fail", "FAIL"
    return Hero(
        role=role,
        word=word,
        title=title,
        lines=tuple(lines),
        numbers=(*_numbers(report), *codes_number(report.codes), *share_numbers(report.mapped)),
        warnings=warnings(report, report.mapped),
    )


def _at(report: VerifyReport, weights: int) -> VerifyPoint:
    return next(point for point in report.curve if point.weights == weights)


def _interval(point: VerifyPoint, unit: str) -> str:
    return interval_text(point.kpp.low, point.kpp.high, unit)


def _is_open(report: VerifyReport, choice: VerifyChoice) -> bool:
    """Whether the bad end of the interval of the KPP that was chosen misses the target, or is missing."""
    if report.target is None:
        return False
    kpp, better = _at(report, choice.weights).kpp, report.metric_info.higher_is_better
    end = kpp.low if better else kpp.high
    return end is None or (end < report.target if better else end > report.target)


def _numbers(report: VerifyReport) -> tuple[KeyFigure, ...]:
    """The KPP of the plan, or of the largest share where there is none; two to compare with, and the work."""
    unit, choice = report.metric_info.unit, report.choice
    main = report.curve[-1] if choice is None else _at(report, choice.weights)
    name = kpp_name(main.kpp.percentile)
    bigs = [_big(main, f"{name}, {_verified(main)}", unit, main=True)]
    for point in (*report.curve[:1], *report.curve[1:][-1:]):
        if point is not main:
            bigs.append(_big(point, f"{name}, {_verified(point)}", unit))
    if len(bigs) < 3:
        bigs.append(KeyFigure("Without noise", value_text(report.quantised, unit), "the quantised model"))
    if len(bigs) < 3:
        bigs.append(KeyFigure("As given", value_text(report.nominal, unit), "the unmodified model"))
    note = f"of {count_text(report.devices, 'device')}; {main.saved:,} need none"
    return (*bigs, KeyFigure("Write-verify operations", f"{main.devices:,}", note))


def _big(point: VerifyPoint, name: str, unit: str, *, main: bool = False) -> KeyFigure:
    note = f"{_interval(point, unit)}; mean {value_text(point.mean, unit)}"
    return KeyFigure(name, value_text(point.kpp.value, unit), note, main=main)


def _verified(point: VerifyPoint) -> str:
    return f"{share_words(point.share)} verified"


def _curve(report: VerifyReport) -> Section:
    name = kpp_name(report.curve[0].kpp.percentile)
    figure = Figure(
        "verify", _words(report), partial(verify_figure, report), tall=True, legend=_legend(report)
    )
    caption = (
        "What each share gives. Gains, with their intervals, are against the same chips with none verified; "
        "devices are write-verify operations."
    )
    points = ", points" if report.metric_info.unit == "fraction" else ""
    columns = ("share", name, "interval", f"gain{points}", "mean", "worst", "devices", "weights")
    rows = tuple(_row(report, point) for point in report.curve)
    table = Table("shares", caption, columns, rows, numeric=tuple(range(len(columns))), all_rows=True)
    gains = tuple(f"{capitalised(line)}." for line in _gain_lines(report))
    return Section("curve", "What verifying gives", (figure, table, Bullets(gains)))


def _words(report: VerifyReport) -> str:
    """What the figure shows."""
    unit, first, most = report.metric_info.unit, report.curve[0], report.curve[-1]
    none, best = (value_text(point.kpp.value, unit) for point in (first, most))
    words = (
        f"{kpp_name(first.kpp.percentile)} and mean {report.metric} of the same "
        f"{count_text(first.kpp.trials, 'chip')} over the share of the weights that are verified; shares lie "
        f"at their square roots. With none the KPP is {none}, with {share_words(most.share)} {best}."
    )
    if report.choice is not None:
        words += f" The plan: {share_words(report.choice.share)} for {value_text(report.choice.kpp, unit)}."
    bounds = (missing_bound_text(point.kpp, report.metric_info.higher_is_better) for point in report.curve)
    missing = dict.fromkeys(text for text in bounds if text is not None)
    if missing:
        words += f" {'; '.join(missing)}."
    return words


def _legend(report: VerifyReport) -> str:
    first, better = report.curve[0].kpp, report.metric_info.higher_is_better
    text = f"Band: the {confidence_text(first.confidence)} interval of the KPP"
    if any(missing_bound_text(point.kpp, better) is not None for point in report.curve):
        text += "; where it has no bound, the band ends at the KPP"
    return f"{text}." if report.choice is None else f"{text}. Ring: the plan."


def _row(report: VerifyReport, point: VerifyPoint) -> tuple[Cell, ...]:
    unit, choice = report.metric_info.unit, report.choice
    chosen = " (plan)" if choice is not None and choice.weights == point.weights else ""
    return (
        Number(point.share, f"{share_words(point.share)}{chosen}"),
        Number(point.kpp.value, value_text(point.kpp.value, unit)),
        Number(point.kpp.low, _interval(point, unit)),
        _gain(point, unit),
        *(Number(value, value_text(value, unit)) for value in (point.mean, point.worst)),
        *(Number(count, f"{count:,}") for count in (point.devices, point.weights)),
    )


def _gain(point: VerifyPoint, unit: str) -> Cell:
    if point.difference is None:
        return ""
    gain = point.difference.kpp
    ends = (gain.value, gain.low, gain.high)
    texts = [difference_text(end, unit).removesuffix(" points") for end in ends if end is not None]
    interval = f" ({texts[1]} to {texts[2]})" if len(texts) == len(ends) else ""
    return Number(gain.value, f"{texts[0]}{interval}")


def _tensors(report: VerifyReport) -> Section:
    rows, cut = limited([_tensor(row) for row in report.tensors])
    if report.choice is None:
        caption = f"There is no plan; what {share_words(report.curve[-1].share)} of the weights would be."
    else:
        caption = f"Where the {count_text(report.choice.weights, 'weight')} of the plan are."
        if report.plan is not None:
            caption += f" {report.plan} has the mask of each."
    table = Table(
        "tensors", f"{caption}{cut}",
        ("tensor", "operator", "stored as", "kind", "verify", "of", "share", "devices"), rows,
        numeric=(4, 5, 6, 7), sortable=True,
    )  # fmt: skip
    codes = [] if report.codes is None else codes_blocks(report.codes)
    return Section("tensors-section", "Weights to verify", (table, *share_blocks(report.mapped), *codes))


def _tensor(row: VerifyTensor) -> tuple[Cell, ...]:
    share = row.verified / row.weights if row.weights else 0.0
    return (
        short(row.name), short(row.op), shape_text(row.shape), row.stored,
        *(Number(count, f"{count:,}") for count in (row.verified, row.weights)),
        Number(share, share_words(share)), Number(row.devices, f"{row.devices:,}"),
    )  # fmt: skip


def _notes(report: VerifyReport) -> Section:
    result = report.curve[0].kpp
    assumed = [f"Assumed: {text}" for text in report.metric_info.assumed]
    skipped = [f"Left out of the data: {': '.join(item)}" for item in report.data.skipped]
    lines = (*report.notes, *assumed, *report.data.notes, *skipped, f"KPP: {result.definition}")
    blocks: list[Block] = [Bullets(lines)]
    if report.events:
        blocks += [Paragraph("What happened on the way:"), Bullets(report.events)]
    return Section("notes", "Notes", tuple(blocks))


def _gain_lines(report: VerifyReport) -> Iterator[str]:
    """What the largest share gives against none, and what has no noise."""
    unit, last = report.metric_info.unit, report.curve[-1].difference
    if last is not None:
        gains = ", ".join(
            f"{name} {difference_text(difference.value, unit)}{_ends(difference, unit)}"
            for name, difference in ((kpp_name(last.percentile), last.kpp), ("mean", last.mean))
        )
        most, confidence = share_words(report.curve[-1].share), confidence_text(last.confidence)
        yield f"{most} against none, {confidence}: {gains}"
        if last.kpp.missing is not None:
            yield f"No interval of gains of the KPP: {last.kpp.missing} (--trials)"
    yield (
        f"without noise {value_text(report.quantised, unit)} (as given {value_text(report.nominal, unit)})"
    )


def _ends(difference: Difference, unit: str) -> str:
    if difference.low is None or difference.high is None:
        return ""
    return f" ({difference_text(difference.low, unit)} to {difference_text(difference.high, unit)})"


def reason_text(report: VerifyReport) -> str:
    """Why this share, or what to do where no share reaches the target."""
    choice = report.choice
    if choice is None:
        ways = ["larger --shares"] if report.curve[-1].share < 1 else []
        ways += ["a smaller --verify-sigma"] if report.verify_sigma > 0 else []
        text = f"{', '.join([*ways, 'harden'])} or remap"
        return f"{capitalised(text)} may reach it"
    shown = share_words(choice.share)
    short = "" if choice.short is None else f"; {share_words(choice.short)} is not enough"
    return f"{capitalised(shown)} is {choice.why}{short}"


def _condition_rows(report: VerifyReport) -> list[tuple[str, str]]:
    """What the result rests on: names with their values."""
    left = f"; {', '.join(report.left)} {'stays' if len(report.left) == 1 else 'stay'}" if report.left else ""
    kept = (
        "nothing of it"
        if report.verify_sigma == 0
        else f"sigma {report.verify_sigma:g} of {report.sigma:g} ({report.sigma_unit})"
    )
    return [
        (
            "Device",
            f"{report.device_name}, {sigma_text(report.sigma, report.sigma_unit)}, time "
            f"{duration_text(report.time_s)}",
        ),
        ("Verifying", f"reduces {', '.join(report.reduced)} and leaves {kept}{left}"),
        ("Ranking", f"{report.ranking}: {report.ranked_by}"),
        (
            "Data",
            f"{report.data.source}, {count_text(report.data.count, 'sample')}; seed {report.run.get('seed')}",
        ),
        *([] if report.mapped is None else [("On the array", coverage_text(report.mapped))]),
    ]
