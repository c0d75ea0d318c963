"""What the report of an exploration says."""

from __future__ import annotations

from functools import partial

from nvaudit.report.document import (
    FILES,
    Block,
    Bullets,
    Cell,
    CodeBlock,
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
from nvaudit.report.explore.figures import front_figure
from nvaudit.report.explore.result import (
    COSTS,
    STATUS_WORDS,
    ExploredPoint,
    ExploreEffort,
    ExploreReport,
    Objective,
    cost_text,
    quantity_text,
)
from nvaudit.report.parts import notes_section, record_section, share_blocks, warnings
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    difference_text,
    interval_text,
    kpp_name,
    limit_text,
    missing_bound_text,
    value_text,
)
from nvaudit.stats.paired import chips_for_kpp_difference

_COLUMNS = 60


def explore_document(report: ExploreReport) -> Document:
    """Say what an exploration found."""
    return Document(
        title=report.headline,
        subject=file_name(report.model.path),
        subtitle=f"{kpp_name(report.percentile)} {report.metric} on {short(report.device_name)} against "
        f"{COSTS[report.against][1]} in {report.technology}",
        hero=_hero(report),
        sections=tuple(
            section
            for section in (
                _front(report), _recommended(report), _points(report), _effort(report),
                notes_section((*report.notes, *report.events)), _record(report),
            )
            if section.blocks
        ),
        version=report.nvaudit_version,
    )  # fmt: skip


def _hero(report: ExploreReport) -> Hero:
    chosen = None if report.recommended is None else report.point(report.recommended)
    gate = None if chosen is None else chosen.gate
    if report.min_kpp is None:
        role, word = "none", ""
    elif chosen is None or gate is None:
        role, word = "fail", "FAIL"
    else:
        role, word = ("pass", "PASS") if gate.verdict == "pass" else ("undecided", "UNDECIDED")
    title = report.why
    if chosen is not None and chosen.kpp is not None:
        reached = value_text(chosen.kpp.value, report.metric_info.unit)
        title = f"{cost_text(chosen, report.against)} for {kpp_name(report.percentile)} {reached}"
    return Hero(
        role=role,  # type: ignore[arg-type]
        word=word,
        title=title,
        lines=() if chosen is None else tuple(_saved_lines(report)),
        numbers=tuple(_numbers(report, chosen)),
        warnings=warnings(report, report.mapped),
    )


def _numbers(report: ExploreReport, chosen: ExploredPoint | None) -> list[KeyFigure]:
    unit, numbers = report.metric_info.unit, []
    if chosen is not None and chosen.kpp is not None:
        ends = interval_text(chosen.kpp.low, chosen.kpp.high, unit)
        name = kpp_name(report.percentile)
        numbers.append(KeyFigure(name, value_text(chosen.kpp.value, unit), f"{ends}; ideal "
                                 f"{value_text(report.nominal, unit)}", main=True))  # fmt: skip
        numbers += [
            KeyFigure(COSTS[cost][1], cost_text(chosen, cost), "of an inference" if cost != "area" else "")
            for cost in COSTS
        ]
    effort = report.effort
    if not effort.images_exhaustive:
        return numbers
    note = f"{effort.images_evaluated:,} of {effort.images_exhaustive:,} inferences"
    share = 100 * effort.share
    return [
        *numbers,
        KeyFigure("of an exhaustive audit", f"{share:.2g} %" if share < 99.5 else f"{share:.0f} %", note),
    ]


def _saved_lines(report: ExploreReport) -> list[str]:
    """Say what the recommended point saves against the baseline."""
    base = report.baseline
    if base is None:
        return []
    shares = [f"{_saved_text(base.saved[cost])} {COSTS[cost][1]}" for cost in COSTS if cost in base.saved]
    change, name = base.kpp_change, kpp_name(report.percentile)
    if change is None:
        said = ""
    elif change == 0:
        said = f", at the same {name}"
    else:
        said = f", and {name} {difference_text(change, report.metric_info.unit)}"
    return [f"Against {base.point.label}: {', '.join(shares)}{said}."]


def _saved_text(share: float) -> str:
    """Say how much less, or more; what rounds to nothing is the same."""
    percent = round(100 * share)
    return "the same" if percent == 0 else f"{abs(percent)} % {'less' if percent > 0 else 'more'}"


def _front(report: ExploreReport) -> Section:
    if not report.front:
        return Section("front-section", "The front", (Paragraph(f"{report.why}."),))
    others = [cost for cost in COSTS if cost != report.against]
    name, unit = kpp_name(report.percentile), report.metric_info.unit

    ties = any(point.tied_with is not None for point in report.on_front)

    def row(point: ExploredPoint) -> tuple[Cell, ...]:
        assert point.kpp is not None
        tie = "" if point.tied_with is None else f"tie with #{point.tied_with}"
        cost, *rest = (
            Number(point.costs(cost), cost_text(point, cost)) for cost in (report.against, *others)
        )
        return (
            f"#{point.number}",
            *_values(report, point),
            cost,
            Number(point.kpp.value, value_text(point.kpp.value, unit)),
            interval_text(point.kpp.low, point.kpp.high, unit),
            *((point.gate.verdict,) if point.gate is not None else ()),
            *((tie,) if ties else ()),
            *rest,
        )

    columns = (
        "point", *report.varied, COSTS[report.against][1], name, "interval",
        *(("gate",) if report.min_kpp is not None else ()), *(("ties",) if ties else ()),
        *(COSTS[cost][1] for cost in others),
    )  # fmt: skip
    cost, last = 1 + len(report.varied), len(columns)
    table = Table("front-points", _front_caption(report), columns, tuple(row(p) for p in report.on_front),
                  numeric=(cost, cost + 1, *range(last - len(others), last)), all_rows=True)  # fmt: skip
    figure = Figure(
        "front",
        f"{name} {report.metric} against {COSTS[report.against][1]}; the numbers are those of the table.",
        partial(front_figure, report), tall=True, sketch=partial(front_lines, report),
        legend="Circles: the front with its intervals. Triangles: points that were thrown out, at what their "
        "KPP is at best by the chips that were looked at.",
    )  # fmt: skip
    return Section("front-section", "The front", (figure, table))


def _values(report: ExploreReport, point: ExploredPoint) -> list[str]:
    """What a point has on each axis that the report varies."""
    return [point.varied[axis] for axis in report.varied]


def _front_caption(report: ExploreReport) -> str:
    ties = sum(point.tied_with is not None for point in report.on_front)
    said = (
        f"; {count_text(ties, 'point is', 'points are')} not surely better than a cheaper one (ties)"
        if ties
        else ""
    )
    known = [point.kpp for point in report.on_front if point.kpp is not None]
    bounds = {text for kpp in known if (text := missing_bound_text(kpp, report.metric_info.higher_is_better))}
    more = "".join(f" {text}." for text in sorted(bounds))
    needed = chips_for_kpp_difference(report.percentile, report.confidence)
    if len(report.front) > 1 and report.trials < needed:
        more += f" Ties are said from {needed:,} chips on."
    return (
        f"Nothing costs less and has a larger KPP; the same {count_text(report.trials, 'chip')} at every "
        f"point, intervals {confidence_text(report.confidence)}{said}.{more}"
    )


def _recommended(report: ExploreReport) -> Section:
    if report.recommended is None:
        return Section("recommended", "Recommended", ())
    point = report.point(report.recommended)
    blocks: list[Block] = [Paragraph(f"#{point.number} {point.label}: {report.why}.", "lead")]
    blocks += [Paragraph(line) for line in _saved_lines(report)]
    blocks += [
        Paragraph("This audits it, with everything that an audit reports:"),
        CodeBlock(point.command, "audit-command"),
    ]
    return Section("recommended", "Recommended", tuple(blocks))


def _points(report: ExploreReport) -> Section:
    unit = report.metric_info.unit
    shown: list[Objective] = list(COSTS)

    def row(point: ExploredPoint) -> tuple[Cell, ...]:
        best = point.at_most if point.kpp is None else point.kpp.value
        text = "" if best is None else f"{'' if point.kpp is not None else '≲ '}{value_text(best, unit)}"
        costs = (Number(point.costs(cost), cost_text(point, cost)) for cost in shown)
        return (
            Number(point.number, f"#{point.number}"), *_values(report, point), STATUS_WORDS[point.status],
            *costs, Number(best, text), Number(point.chips, f"{point.chips:,}"),
        )  # fmt: skip

    rows, cut = limited([row(point) for point in report.points if point.cost is not None])
    columns = ("point", *report.varied, "what became of it", *(COSTS[cost][1] for cost in shown),
               kpp_name(report.percentile), "chips")  # fmt: skip
    status = 1 + len(report.varied)
    table = Table(
        "points", f"Every point, the cheapest first; ≲: at best, by the chips that were looked at.{cut}",
        columns, rows, numeric=(0, *range(status + 1, len(columns))), sortable=True, choices=status,
        media=FILES,
    )  # fmt: skip
    return Section("points-section", "All points", (table,), folded=True, media=FILES)


def _effort(report: ExploreReport) -> Section:
    effort = report.effort
    counts = {status: sum(p.status == status for p in report.points) for status in STATUS_WORDS}
    counts["invalid"] = sum(group.count for group in report.left_out)
    said = ", ".join(f"{count:,} {STATUS_WORDS[status]}" for status, count in counts.items() if count)
    eligible = sum(point.status in ("front", "dominated", "below") for point in report.points)
    lines = [f"{count_text(effort.combinations, 'combination')}: {said}."]
    if not effort.audited:
        lines.append("No chip was run.")
    else:
        lines.append(
            f"Chips were run of {count_text(effort.audited, 'point')}, all of them of {effort.measured:,}: "
            f"{effort.images_evaluated:,} inferences of {effort.images_exhaustive:,} that every chip on "
            f"every sample of the {count_text(eligible, 'point')} within reach would take."
        )
        lines.append(_certainty(effort))
    lines += [
        f"{count_text(group.count, 'combination')} left out, such as {group.example}: {group.reason}"
        for group in report.left_out
    ]
    return Section("effort", "What was run", (Bullets(tuple(lines)), *share_blocks(report.mapped)))


def _certainty(effort: ExploreEffort) -> str:
    """Say what stopping chips early left to chance."""
    if effort.raced:
        return f"Chance that this front is not that of an exhaustive audit: at most {effort.error:.2g}."
    if effort.bounded:
        return (
            "Nothing was left to chance: a chip was stopped early only where its errors so far were enough."
        )
    return f"Every chip was run on every sample: {effort.not_raced}."


def _record(report: ExploreReport) -> Section:
    rows = [
        ("technology", report.technology),
        *((f"largest {COSTS[cost][1]}", quantity_text(limit, cost))
          for cost, limit in report.budgets.items()),
        *([] if report.min_kpp is None else [
            ("wanted", f"{kpp_name(report.percentile)} {limit_text(report.min_kpp, report.metric_info.unit)}")
        ]),
    ]  # fmt: skip
    return record_section(report, rows)


def front_lines(report: ExploreReport, width: int) -> list[str]:
    """Draw KPP and cost of the front as bars of characters, a line for each point."""
    points = report.on_front
    names = [f"#{point.number}" for point in points]
    longest = max(map(len, names))
    size = max(min(_COLUMNS, width - longest - 24), 10)
    kpps = [point.kpp.value for point in points if point.kpp is not None]
    low, high = min(kpps), max(kpps)
    lines = []
    for name, point, value in zip(names, points, kpps, strict=True):
        place = 0 if high == low else round((value - low) / (high - low) * (size - 1))
        mark = "◉" if point.number == report.recommended else "●"
        shown = value_text(value, report.metric_info.unit)
        lines.append(
            f"{name:>{longest}}  {cost_text(point, report.against):>10}  {'·' * place + mark:<{size}} {shown}"
        )
    return [*lines, f"{'':>{longest}}  the cheapest first; ◉ recommended"]
