"""The result of an exploration: every point of a design space, and the front of KPP against cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from nvaudit.report.cases import kpp_numbers, kpp_text
from nvaudit.report.gates import GateResult
from nvaudit.report.header import Header
from nvaudit.report.mapped import MappedShare
from nvaudit.report.records import Check, Tables, flat, records_of
from nvaudit.report.sections import DataInfo, Hashes, MetricInfo, ModelInfo, ReportPart, TimeBox
from nvaudit.report.wording import kpp_name, si_text
from nvaudit.stats.gate import Verdict
from nvaudit.stats.kpp import KppResult

Objective = Literal["energy", "edp", "latency", "area"]
PointStatus = Literal["front", "dominated", "below", "over_budget", "same_chips", "not_reached", "invalid"]

COSTS: dict[Objective, tuple[str, str, str]] = {
    "energy": ("energy_j", "energy", "J"),
    "edp": ("edp_js", "energy-delay product", "Js"),
    "latency": ("latency_s", "latency", "s"),
    "area": ("area_m2", "area", "m²"),
}
"""Of each cost: its field, its name and its unit."""

STATUS_WORDS: dict[PointStatus, str] = {
    "front": "on the front",
    "dominated": "dominated",
    "below": "below the wanted KPP",
    "over_budget": "over the budget",
    "same_chips": "same chips, dearer",
    "not_reached": "not reached in the time",
    "invalid": "cannot be",
}


class PointCost(ReportPart):
    """What a point costs; see ``nvaudit cost``."""

    energy_j: float = Field(ge=0, description="Per inference.")
    latency_s: float = Field(ge=0, description="Of one inference.")
    area_m2: float = Field(ge=0)
    edp_js: float = Field(ge=0, description="Energy-delay product.")
    crossbars: int = Field(ge=0)
    utilisation: float | None = Field(default=None, description="Share of the devices that are in use.")
    energy_by_component: dict[str, float] = Field(default_factory=dict, description="Joules.")


class ExploredPoint(ReportPart):
    """A point of the design space and what became of it."""

    number: int = Field(description="Its place in the space, the last axis fastest; -1: a baseline.")
    label: str
    settings: dict[str, JsonValue] = Field(description="One value of each axis; null: the device's own.")
    cost: PointCost | None = Field(description="Null where the point cannot be.")
    status: PointStatus
    reason: str = ""
    kpp: KppResult | None = Field(
        description="Null where the point was thrown out before every chip was run."
    )
    at_most: float | None = Field(
        default=None, description="The KPP is about this at best (at least, for a loss), by the chips that "
        "were looked at; null where none was.",
    )  # fmt: skip
    against: int | None = Field(default=None, description="The cheaper point that it does not beat.")
    tied_with: int | None = Field(
        default=None, description="The cheapest point of the front that it is not surely better than."
    )
    gate: GateResult | None = Field(
        default=None, description="Of a point of the front, where a KPP is asked for."
    )
    chips: int = Field(default=0, ge=0, description="That were looked at.")
    images: int = Field(default=0, ge=0, description="Inferences made.")
    command: str = Field(description="Audits the point.")

    @property
    def varied(self) -> dict[str, str]:
        """Its values as they are typed, of the axes that have more than one."""
        return dict(part.partition("=")[::2] for part in self.label.split(" ") if "=" in part)

    def costs(self, against: Objective) -> float:
        """The cost that a front is drawn against."""
        assert self.cost is not None
        return float(getattr(self.cost, COSTS[against][0]))


class LeftOut(ReportPart):
    """Combinations that cannot be, for one reason."""

    reason: str
    count: int = Field(ge=1)
    example: str


class BaselineComparison(ReportPart):
    """The recommended point against another one."""

    point: ExploredPoint
    saved: dict[Objective, float] = Field(description="Share of each cost that is saved; negative: more.")
    kpp_change: float | None = Field(description="KPP of the recommended point less that of the baseline.")


class ExploreEffort(ReportPart):
    """What the search took."""

    combinations: int = Field(ge=1)
    audited: int = Field(ge=0, description="Points of which chips were run.")
    measured: int = Field(ge=0, description="Points of which every chip was run, as far as the KPP needs it.")
    raced: bool = Field(
        description="Chips of the front were raced: stopped early, with a small chance to err."
    )
    bounded: bool = Field(
        default=False,
        description="Chips of other points were stopped once they certainly did not beat a cheaper one.",
    )
    not_raced: str = Field(default="", description="Why no chip could be stopped early.")
    chips: int = Field(ge=0, description="Chips that were looked at.")
    images_evaluated: int = Field(ge=0)
    images_exhaustive: int = Field(
        ge=0, description="Every chip on every sample of every point that was to be audited."
    )
    images_baseline: int = Field(default=0, ge=0, description="Of the baseline; not among the others.")
    error: float = Field(description="Chance that the front is not that of an exhaustive audit.")

    @property
    def share(self) -> float:
        """Of the inferences of an exhaustive audit."""
        return self.images_evaluated / self.images_exhaustive if self.images_exhaustive else 0.0


class ExploreReport(Header):
    """A design space on one device: the front of KPP against cost."""

    kind: Literal["explore"] = "explore"
    metric: str
    metric_info: MetricInfo
    nominal: float = Field(description="Of the unmodified model.")
    device: dict[str, JsonValue]
    technology: str = Field(description="Name of the technology profile.")
    percentile: float
    confidence: float
    trials: int = Field(ge=1)
    against: Objective
    min_kpp: float | None = Field(description="KPP that was asked for.")
    budgets: dict[Objective, float] = Field(description="Limits on costs, by the name of the cost.")
    axes: dict[str, tuple[JsonValue, ...]]
    points: tuple[ExploredPoint, ...] = Field(description="Ascending in the cost of the front.")
    front: tuple[int, ...] = Field(description="Numbers of the points on the front, the cheapest first.")
    recommended: int | None = Field(description="Number of a point; null where none reaches the wanted KPP.")
    why: str
    left_out: tuple[LeftOut, ...] = ()
    baseline: BaselineComparison | None = None
    effort: ExploreEffort
    time_boxed: TimeBox | None = Field(
        default=None, description="Null: the time was not used up. Else the front is whole up to the cost of "
        "the first point that was not reached.",
    )  # fmt: skip
    mapped: MappedShare = Field(
        description="How much of the model's products is on the array, the same at all points."
    )
    data: DataInfo
    model: ModelInfo
    hashes: Hashes

    @property
    def varied(self) -> tuple[str, ...]:
        """Axes with more than one value."""
        return tuple(name for name, values in self.axes.items() if len(values) > 1)

    def point(self, number: int) -> ExploredPoint:
        """The point of a number."""
        return next(point for point in self.points if point.number == number)

    @property
    def on_front(self) -> list[ExploredPoint]:
        """Points of the front, the cheapest first."""
        return [self.point(number) for number in self.front]


def tables(report: ExploreReport) -> Tables:
    """Every point, and why combinations were left out."""

    def row(point: ExploredPoint) -> dict[str, str | int | float | bool | None]:
        settings = {name: _plain(value) for name, value in point.settings.items()}
        rest = flat(point, ("settings", "gate"))
        verdict = {} if report.min_kpp is None else {"verdict": point.gate.verdict if point.gate else None}
        return {"number": rest.pop("number"), **settings, **rest, **verdict}

    return {
        "points": records_of(row(point) for point in report.points),
        "left_out": records_of(flat(group) for group in report.left_out),
    }


def _plain(value: JsonValue) -> str | int | float | bool | None:
    return (
        "x".join(map(str, value)) if isinstance(value, list) else value if not isinstance(value, dict) else ""
    )


def checks(report: ExploreReport) -> list[Check]:
    """Record the front; where a KPP is asked for, whether the recommended point passes its gate."""
    name, unit = kpp_name(report.percentile), report.metric_info.unit
    checks = []
    for one in report.on_front:
        assert one.kpp is not None
        numbers = kpp_numbers(one.kpp) | {"chips": one.chips, "energy_j": one.costs("energy")}
        checks.append(Check(f"{one.label}: {name}", None, (kpp_text(one.kpp, unit),), numbers))
    if report.min_kpp is not None:
        chosen = None if report.recommended is None else report.point(report.recommended)
        verdict: Verdict = "fail" if chosen is None or chosen.gate is None else chosen.gate.verdict
        checks.insert(0, Check(f"a point reaches {name} {report.min_kpp:g}", verdict, (report.why,)))
    return checks


def quantity_text(value: float, cost: Objective) -> str:
    """Show a cost in its unit; areas in mm².

    Examples
    --------
    >>> quantity_text(2.345e-6, "energy"), quantity_text(3.2e-6, "area")
    ('2.35 µJ', '3.2 mm²')
    """
    return f"{value * 1e6:.3g} mm²" if cost == "area" else si_text(value, COSTS[cost][2])


def cost_text(point: ExploredPoint, against: Objective) -> str:
    """Show a cost of a point."""
    return quantity_text(point.costs(against), against)
