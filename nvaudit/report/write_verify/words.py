"""A write-verify plan in words and rows, the same in every renderer."""

from __future__ import annotations

from collections.abc import Iterator

from nvaudit.report.mapped import coverage_text
from nvaudit.report.paired import Difference
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    difference_text,
    duration_text,
    kpp_name,
    value_text,
)
from nvaudit.report.write_verify.result import VerifyChoice, VerifyReport, share_words


def gain_lines(report: VerifyReport) -> Iterator[str]:
    """What the largest share gives against none, and what has no noise."""
    unit, last = report.metric_info.unit, report.curve[-1].difference
    if last is not None:
        gains = ", ".join(
            f"{name} {difference_text(found.value, unit)}{_ends(found, unit)}"
            for name, found in ((kpp_name(last.percentile), last.kpp), ("mean", last.mean))
        )
        most, confidence = share_words(report.curve[-1].share), confidence_text(last.confidence)
        yield f"{most} against none, {confidence}: {gains}"
        if last.kpp.missing is not None:
            yield f"No interval of gains of the KPP: {last.kpp.missing} (--trials)"
    yield (
        f"without noise {value_text(report.quantised, unit)} (as given {value_text(report.nominal, unit)})"
    )


def _ends(found: Difference, unit: str) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" ({difference_text(found.low, unit)} to {difference_text(found.high, unit)})"


def reason_text(report: VerifyReport) -> str:
    """Why this share, or what to do where no share reaches the target."""
    choice = report.choice
    if choice is None:
        text = _otherwise(report)
        return f"{text[0].upper()}{text[1:]} may reach it"
    shown = share_words(choice.share)
    return f"{shown[0].upper()}{shown[1:]} is {choice.why}{_short(choice)}"


def _otherwise(report: VerifyReport) -> str:
    """What else may reach the target."""
    ways = ["larger --shares"] if report.curve[-1].share < 1 else []
    ways += ["a smaller --verify-sigma"] if report.verify_sigma > 0 else []
    return f"{', '.join([*ways, 'harden'])} or remap"


def _short(choice: VerifyChoice) -> str:
    return "" if choice.short is None else f"; {share_words(choice.short)} is not enough"


def condition_rows(report: VerifyReport) -> list[tuple[str, str]]:
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
            f"{report.device_name}, sigma {report.sigma:g} ({report.sigma_unit}), time "
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
