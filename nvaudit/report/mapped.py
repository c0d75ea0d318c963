"""The share of a model's products that is on the array: what the report holds, and the words for it.

A product is a multiply-accumulate of an activation with a weight. What is off the array has no noise in any
number of the report, so that its share stands beside every headline.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvaudit.report.sections import ReportPart
from nvaudit.report.wording import count_text, share_text
from nvaudit.stats.gate import Verdict

MOST_OFF = 0.03
"""A larger share of the products or of their weights that is off the array is warned of."""

_MOST_NAMED = 3
_MOST_ROWS = 12


class OffProduct(ReportPart):
    """The products of an operator with a weight that is not on the array."""

    name: str = Field(description="Of the operator, behind the graph that it stands in.")
    op: str
    weight: str = Field(description="Name of the weight: the largest stored tensor that it comes from.")
    products: int | None = Field(description="Multiply-accumulates; null where they could not be counted.")
    weights: int = Field(ge=0, description="Numbers of the weight.")
    reason: str


class MappedShare(ReportPart):
    """How much of the model's arithmetic the array does."""

    products: int | None = Field(description="Multiply-accumulates with weights on the array; null where "
                                 "some of the model's cannot be counted.")  # fmt: skip
    products_total: int | None = Field(description="With any weight; null as above.")
    share_of_products: float | None = Field(ge=0, le=1, description="Null as above, unless all are on the "
                                            "array, or none is.")  # fmt: skip
    weights: int = Field(ge=0, description="Numbers of these weights on the array.")
    weights_total: int = Field(ge=0)
    share_of_weights: float | None = Field(ge=0, le=1, description="Null where the model has no weight.")
    activation_products: int | None = Field(
        description="Multiply-accumulates of two activations, such as queries with keys: never on an array "
        "of weights, and in none of the shares. Null where some cannot be counted."
    )
    samples: int = Field(ge=1, description="Products are those of one run of so many samples.")
    uncounted: tuple[str, ...] = Field(description="Operators whose products cannot be counted, such as "
                                       "those in a loop that ends when it will.")  # fmt: skip
    off: tuple[OffProduct, ...] = Field(description="What is off the array, the most products first.")

    @property
    def share(self) -> float | None:
        """Of the products; of their weights where these cannot be counted."""
        return self.share_of_weights if self.share_of_products is None else self.share_of_products

    @property
    def noun(self) -> str:
        """What the share is of."""
        return "product weights" if self.share_of_products is None else "products"


class MappedGate(ReportPart):
    """A least share of the products that must be on the array."""

    required: float = Field(ge=0, le=1)
    share: float | None = Field(description="What is, as in ``mapped``.")
    verdict: Literal["pass", "fail"]


def judge_share(mapped: MappedShare, required: float | None) -> MappedGate | None:
    """Decide the gate of ``--require-mapped``; None where nothing is required."""
    if required is None:
        return None
    share = mapped.share
    holds = share is not None and share >= required
    return MappedGate(required=required, share=share, verdict="pass" if holds else "fail")


def joint_verdict(chips: Verdict | None, share: MappedGate | None) -> Verdict | None:
    """Verdict of the gates of the chips and of that of the share: both must hold.

    Examples
    --------
    >>> joint_verdict("pass", None), joint_verdict(None, None)
    ('pass', None)
    """
    if share is None:
        return chips
    return share.verdict if chips in (None, "pass") or share.verdict == "fail" else chips


def part_text(share: float) -> str:
    """Show a share of products or weights."""
    return share_text(share, 1)


def share_clause(mapped: MappedShare | None) -> str:
    """What a headline says of it, with its semicolon; empty where nothing is known.

    Examples
    --------
    >>> share_clause(None)
    ''
    """
    if mapped is None or mapped.share is None:
        return ""
    return f"; {part_text(mapped.share)} of the {mapped.noun} on the array"


def coverage_text(mapped: MappedShare) -> str:
    """Say how much is on the array, of products, of their weights, and what is counted apart."""
    runs = count_text(mapped.samples, "sample")
    if mapped.share_of_products is None:
        text = "Products were not counted"
        if mapped.uncounted:
            names, more = ", ".join(mapped.uncounted[:_MOST_NAMED]), len(mapped.uncounted) - _MOST_NAMED
            rest = f" and {more} more" if more > 0 else ""
            text = f"Products cannot be counted beforehand ({names}{rest})"
    elif mapped.products_total is None:
        text = f"{part_text(mapped.share_of_products)} of the products on the array"
    else:
        text = (
            f"{part_text(mapped.share_of_products)} of the products on the array: {mapped.products:,} of "
            f"{mapped.products_total:,} multiply-accumulates of {runs}"
        )
    if mapped.share_of_weights is not None:
        text += (
            f"; {part_text(mapped.share_of_weights)} of their weights: {mapped.weights:,} of "
            f"{mapped.weights_total:,}"
        )
    if mapped.activation_products:
        text += f"; besides, {mapped.activation_products:,} products of two activations, which no array holds"
    return text


def share_warning(mapped: MappedShare | None) -> str | None:
    """Say what a reader must know where more than ``MOST_OFF`` is off the array; None otherwise."""
    if mapped is None:
        return None
    shares = {"products": mapped.share_of_products, "product weights": mapped.share_of_weights}
    known = [share for share in shares.values() if share is not None]
    if not known or min(known) >= 1 - MOST_OFF:
        return None
    off = {noun: 1 - share for noun, share in shares.items() if share is not None}
    parts = " and ".join(f"{part_text(share)} of the {noun}" for noun, share in off.items())
    return f"{parts} are off the array and have no noise in these numbers: {_named(mapped)}"


def _offender(item: OffProduct, mapped: MappedShare) -> str:
    share = ""
    if item.products is not None and mapped.products_total:
        share = f", {part_text(item.products / mapped.products_total)} of the products"
    return f"{item.op} '{item.name}'{share}: {item.reason}"


def off_columns() -> tuple[str, ...]:
    """Headings of what :func:`off_rows` gives."""
    return ("off the array", "products", "weights", "why")


def off_rows(mapped: MappedShare | None, most: int = _MOST_ROWS) -> list[tuple[str, str, str, str]]:
    """List what is off the array, the most products first."""
    rows = [
        (
            f"{item.op} {item.name}",
            "not counted" if item.products is None else f"{item.products:,}",
            f"{item.weights:,}",
            item.reason,
        )
        for item in (() if mapped is None else mapped.off[:most])
    ]
    more = 0 if mapped is None else len(mapped.off) - most
    return [*rows, (f"… and {more:,} more, in the JSON report", "", "", "")] if more > 0 else rows


def gate_name(gate: MappedGate) -> str:
    """Name the gate by what was asked: the same in every run with the same options."""
    return f"share of the products on the array at least {100 * gate.required:.10g} %"


def gate_lines(gate: MappedGate | None, mapped: MappedShare | None) -> list[str]:
    """Say what the gate of the share asks for, whether it holds, and what is in the way; empty without one.

    The first line begins with the verdict.
    """
    if gate is None:
        return []
    asked = f"{100 * gate.required:.10g} %"
    text = f"{gate.verdict.upper()}: at least {asked} of the products must be on the array"
    if gate.share is None or mapped is None:
        return [f"{text}: the model has no product with a weight"]
    text += f", {_close_to(gate.share, gate.required)}"
    if mapped.share_of_products is None:
        text += " of their weights are (they cannot be counted themselves)"
    else:
        text += " are"
    if gate.verdict == "pass":
        return [text]
    return [text, f"Off the array: {_named(mapped)}"]


def _close_to(share: float, required: float) -> str:
    """Show a share beside a limit with as many digits as tell them apart."""
    shown = part_text(share)
    if share != required and shown == part_text(required):
        return f"{100 * share:.10g} %"
    return shown


def _named(mapped: MappedShare) -> str:
    """Name the operators with the most products off the array, with their reasons."""
    named = "; ".join(_offender(item, mapped) for item in mapped.off[:_MOST_NAMED])
    more = len(mapped.off) - _MOST_NAMED
    return f"{named}; and {count_text(more, 'more operator')}" if more > 0 else named
