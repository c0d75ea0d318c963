"""The report of a fit: a profile from programmed against measured arrays, and whether it fits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field, JsonValue

from nvaudit.report.document import (
    PAGE,
    Bullets,
    Document,
    Facts,
    Figure,
    Hero,
    KeyFigure,
    Number,
    Table,
    limited,
)
from nvaudit.report.document import Section as Part
from nvaudit.report.header import Header
from nvaudit.report.plots import axis, colour, layout, plotly_graphs
from nvaudit.report.records import Tables, flat, records_of
from nvaudit.report.sections import ReportPart
from nvaudit.report.wording import capitalised, count_text, value_text


class FittedNumber(ReportPart):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class FittedLevel(ReportPart):
    """The devices of one level; mean and std are of measured less target, in level spacings."""

    level: int
    devices: int
    target: float = Field(description="In the unit of the window.")
    mean: FittedNumber
    std: FittedNumber
    skewness: float
    distance: float = Field(description="Kolmogorov-Smirnov, to the normal of this mean and std.")
    p_normal: float = Field(description="Chance of a larger distance of a normal (Lilliefors).")
    clipped: float = Field(description="Share at the one value to which conductances are limited.")


class FittedLawRow(ReportPart):
    """One law, by how well it predicts crossbars that it was not fitted to."""

    name: str
    parameters: int
    score: float = Field(description="Held-out log-likelihood per device.")
    behind: float = Field(description="What the chosen law has more; negative: less, within the error.")
    error: float = Field(description="Standard error of the difference to the best law, over crossbars.")


class FittedComponent(ReportPart):
    """What devices of a chip, a crossbar, a row or a column have in common, in level spacings."""

    part: Literal["chip", "crossbar", "row", "column"]
    std: FittedNumber
    sure: bool = Field(description="The interval is above zero: the profile has a term of it.")


class PredictedChip(ReportPart):
    """A measured chip among chips of the fitted profile."""

    name: str
    metric: str
    unit: str
    measured: float
    mean: float
    std: float
    trials: int
    percentile: float
    percentile_low: float
    percentile_high: float
    outside: bool = Field(description="Surely beyond the middle 95 % of the profile's own chips.")


class FitReport(Header):
    """A profile that was fitted; written by ``nvaudit devices fit``."""

    kind: Literal["fit"] = "fit"
    device: dict[str, JsonValue] = Field(description="The fitted profile.")
    mapping: str
    measured: tuple[str, ...]
    profile: str = Field(description="The file of the profile.")
    unit: str
    chips: int
    crossbars: int
    devices: int
    levels: tuple[FittedLevel, ...]
    laws: tuple[FittedLawRow, ...] = Field(description="The chosen one first, then by score.")
    components: tuple[FittedComponent, ...]
    stuck_low: FittedNumber = Field(description="Share of devices stuck at the lower end of the window.")
    stuck_high: FittedNumber
    drift_mean: FittedNumber | None = Field(description="Of the exponents; null: measured at one time.")
    drift_std: FittedNumber | None
    drift_t0: FittedNumber | None = Field(
        default=None,
        description="Where drift is counted from, in s; null where the times do not tell it.",
    )
    times: tuple[float, ...] = Field(description="Seconds since programming, of a drift.")
    read: bool = Field(description="Whether read noise was found from several reads.")
    predicted: tuple[PredictedChip, ...] = Field(description="Empty without --trials.")


def tables(report: FitReport) -> Tables:
    """Levels, laws, components, and the chips beside the prediction."""
    return {
        "levels": records_of(flat(one) for one in report.levels),
        "laws": records_of(flat(one) for one in report.laws),
        "components": records_of(flat(one) for one in report.components),
        "predicted": records_of(flat(one) for one in report.predicted),
    }


def _text(one: FittedNumber) -> str:
    return f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"


def fit_document(report: FitReport) -> Document:
    """Say what the devices do, which law fits, and whether the profile predicts the chips."""
    law = report.laws[0]
    misses = [chip for chip in report.predicted if chip.outside]
    judged = bool(report.predicted)
    sections = [
        Part("laws", "Which law", (_laws(report),)),
        Part("levels", "Levels", (*_picture(report), _levels(report))),
        Part("components", "What devices have in common", (_components(report),)),
    ]
    if report.predicted:
        sections.insert(0, Part("predicted", "Predicted and measured", (_predicted(report),)))
    if report.notes:
        sections.append(Part("notes", "Notes", (Bullets(report.notes),)))
    return Document(
        title=report.headline,
        subject=str(report.device.get("name")),
        subtitle=f"fitted to {count_text(report.chips, 'chip')}",
        hero=Hero(
            role="none" if not judged else "fail" if misses else "pass",
            word="" if not judged else "DOES NOT FIT" if misses else "FITS",
            title=capitalised(law.name),
            lines=(),
            numbers=(
                KeyFigure("devices", f"{report.devices:,}", f"of {count_text(report.crossbars, 'crossbar')}",
                          main=True),
                KeyFigure("stuck low", f"{report.stuck_low.value:.3g}",
                          f"[{report.stuck_low.low:.3g}, {report.stuck_low.high:.3g}]"),
                KeyFigure("stuck high", f"{report.stuck_high.value:.3g}",
                          f"[{report.stuck_high.low:.3g}, {report.stuck_high.high:.3g}]"),
                *(() if report.drift_mean is None else (
                    KeyFigure("drift exponent", f"{report.drift_mean.value:.3g}",
                              f"[{report.drift_mean.low:.3g}, {report.drift_mean.high:.3g}]"),)),
            ),
        ),
        sections=(*sections, _record(report)),
        version=report.nvaudit_version,
    )  # fmt: skip


def _laws(report: FitReport) -> Table:
    rows = tuple(
        (one.name, Number(one.parameters, f"{one.parameters}"), Number(one.behind, f"{one.behind:.3g}"),
         Number(one.error, f"{one.error:.2g}"))
        for one in report.laws
    )  # fmt: skip
    caption = (
        "Held-out log-likelihood per device that the chosen law has more than each, and its error. Of a "
        "family the law with the fewest parameters within a standard error of its best is taken, of families "
        "the best."
    )
    return Table("laws", caption, ("law", "parameters", "behind", "error"), rows, numeric=(1, 2, 3))


def _picture(report: FitReport) -> tuple[Figure, ...]:
    """Mean and spread over the levels."""
    if not report.levels:
        return ()
    widest, furthest = (
        max(report.levels, key=lambda one: one.std.value),
        max(report.levels, key=lambda one: abs(one.mean.value)),
    )
    words = (
        f"Measured less target: the spread is largest at level {widest.level}, {widest.std.value:.3g} level "
        f"spacings, and the mean furthest off at level {furthest.level}, {furthest.mean.value:.3g}."
    )
    figure = Figure(
        "levels-drawn", words, partial(_drawn_levels, report.levels),
        legend="Lines are means and standard deviations, bars their 95 % intervals.",
        media=PAGE,
    )  # fmt: skip
    return (figure,)


def _drawn_levels(levels: Sequence[FittedLevel]) -> Any:
    go = plotly_graphs()
    figure = go.Figure()
    for name, role in (("std", "chips"), ("mean", "worst")):
        parts: list[FittedNumber] = [getattr(level, name) for level in levels]
        figure.add_scatter(
            x=[level.level for level in levels], y=[one.value for one in parts], name=name,
            mode="lines+markers", line={"color": colour(role), "width": 1.5}, marker={"size": 5},
            error_y={
                "type": "data", "symmetric": False, "thickness": 1.5, "width": 3,
                "array": [one.high - one.value for one in parts],
                "arrayminus": [one.value - one.low for one in parts],
            },
            hovertemplate=f"level %{{x}}: {name} %{{y:.3~g}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        **layout(
            xaxis=axis("level", tick0=0, dtick=-(-len(levels) // 16)),
            yaxis=axis("measured less target, level spacings", nticks=7),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )
    return figure


def _levels(report: FitReport) -> Table:
    rows = [
        (Number(one.level, f"{one.level}"), Number(one.devices, f"{one.devices:,}"), _text(one.mean),
         _text(one.std), Number(one.skewness, f"{one.skewness:.2g}"),
         Number(one.distance, f"{one.distance:.2g}"), Number(one.p_normal, f"{one.p_normal:.2g}"))
        for one in report.levels
    ]  # fmt: skip
    shown, cut = limited(rows)
    caption = f"Measured less target, in level spacings, with 95 % intervals; stuck devices apart.{cut}"
    columns = ("level", "devices", "mean", "std", "skew", "KS", "p")
    return Table("levels", caption, columns, shown, numeric=(0, 1, 4, 5, 6), sortable=True)


def _components(report: FitReport) -> Table:
    rows = tuple((one.part, _text(one.std), "yes" if one.sure else "no") for one in report.components)
    caption = "Standard deviation in level spacings; with fewer than three chips or crossbars it is not told."
    return Table("components", caption, ("of a", "std", "in the profile"), rows)


def _predicted(report: FitReport) -> Table:
    rows = tuple(
        (chip.name, value_text(chip.measured, chip.unit), value_text(chip.mean, chip.unit),
         f"{chip.percentile:.3g} [{chip.percentile_low:.3g}, {chip.percentile_high:.3g}] %",
         "no" if chip.outside else "yes")
        for chip in report.predicted
    )  # fmt: skip
    caption = "Each measured chip among chips that are simulated with the new profile."
    return Table("predicted", caption, ("chip", "measured", "mean predicted", "percentile", "fits"), rows)


def _record(report: FitReport) -> Part:
    rows = (
        ("Mapping", report.mapping),
        ("Measured", ", ".join(report.measured)),
        ("Profile", report.profile),
        ("Times", ", ".join(f"{time:g} s" for time in report.times) or "one"),
        ("nvaudit", report.nvaudit_version),
    )
    return Part("record", "How it was fitted", (Facts(rows),))
