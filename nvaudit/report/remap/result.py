"""What `nvaudit harden --method remap` did and what it gained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from nvaudit.report.codes import CodesInfo
from nvaudit.report.cost.result import CostFigures
from nvaudit.report.header import Header
from nvaudit.report.mapped import MappedShare
from nvaudit.report.paired import PairedDifference
from nvaudit.report.records import Check, Tables, flat, records_of
from nvaudit.report.sections import Hashes, MetricInfo, ModelInfo, ReportPart, Run, TimeBox
from nvaudit.report.wording import kpp_name, value_text


class RemapStep(ReportPart):
    """One candidate on the calibration images and chips; all candidates see the same."""

    name: str
    nominal: float = Field(description="Without quantisation and noise.")
    chips: int = Field(ge=0, description="On how many chips it was measured: fewer than all where it was "
                       "given up.")  # fmt: skip
    quantised: float | None = Field(description="Null where it was refused before any chip, like the rest.")
    kpp: float | None = Field(description="Of the calibration chips; of few chips it is the worst one.")
    worst_quarter: float | None = Field(description="Mean of the worst quarter of the chips: what "
                                        "candidates are ranked by.")  # fmt: skip
    mean: float | None
    seconds: float
    kept: bool = Field(description="Whether the model went on from here.")
    reason: str = Field(default="", description="Why it was not kept.")


class RemapTensor(ReportPart):
    """What happened to one weight on the array."""

    name: str
    op: str
    scales: Literal["rescaled", "unchanged", "refused"]
    scales_reason: str = Field(default="", description="Why its channels keep their scale.")
    clip: float | None = Field(
        default=None,
        description="Limit as a fraction of the range, mean over the scales of an integer grid; null: not "
        "clipped.",
    )
    clipped: int = Field(default=0, ge=0, description="Weights that were cut off.")
    clip_reason: str = Field(default="", description="Why it was not clipped.")
    corrected: bool = Field(default=False, description="Whether the mean of its results was corrected, or "
                            "what normalises them re-estimated.")  # fmt: skip
    correct_reason: str = Field(default="", description="Why not.")
    rounded: bool = Field(default=False, description="Whether its codes were chosen for the noise that they "
                          "make.")  # fmt: skip
    round_reason: str = Field(default="", description="Why not; or why each weight was rounded by itself.")
    noise: float | None = Field(default=None, description="Noise of its results relative to before, standard "
                                "deviation; null where that is not known.")  # fmt: skip


class RemapAudit(ReportPart):
    """One side of the paired audit, every chip on every image."""

    nominal: float
    quantised: float
    kpp: float
    low: float | None
    high: float | None
    mean: float
    min: float
    worst: float | None = Field(
        default=None,
        description="The worst chip: the least, or where lower is better the greatest; null in "
        "older reports.",
    )
    cost: CostFigures | None = Field(default=None, description="Null: no --technology was given.")


class RemapHashes(Hashes):
    """SHA-256 of what went in and came out."""

    output: str


class RemapReport(Header):
    """A remapping; ``unit``, ``higher_is_better``, ``sigma`` and ``sigma_unit`` repeat the header."""

    kind: Literal["remap"] = "remap"
    output: str
    metric: str
    metric_info: MetricInfo
    model: ModelInfo
    device: dict[str, JsonValue]
    unit: str
    higher_is_better: bool
    percentile: float
    sigma: float
    sigma_unit: str
    calibration: str = Field(description="What the choice rests on, in plain words.")
    steps: tuple[RemapStep, ...]
    not_tried: tuple[str, ...] = Field(default=(), description="What there was no time for, or what the "
                                       "model has no place for, with the reason.")  # fmt: skip
    tensors: tuple[RemapTensor, ...]
    exact: bool = Field(description="Whether the written model computes the same up to rounding.")
    added_factors: int = Field(ge=0, description="Digital factors per channel that were added to the graph.")
    before: RemapAudit | None = None
    after: RemapAudit | None = None
    difference: PairedDifference | None = Field(default=None, description="After minus before, same chips.")
    mapped: MappedShare | None = Field(
        default=None,
        description="How much of the written model's products is on the array; null without audits.",
    )
    mapping: str | None = Field(default=None, description="The mapping file beside the written model, if its "
                                "weights have codes.")  # fmt: skip
    codes: CodesInfo | None = Field(
        default=None, description="Codes of the written model's weights; null where they are slices."
    )
    allowed_loss: float | None = Field(
        default=None, description="What might be lost without noise; null in older reports."
    )
    time_boxed: TimeBox | None = Field(default=None, description="Null: the time was not used up.")
    run: Run
    hashes: RemapHashes


def tables(report: RemapReport) -> Tables:
    """The candidates, the tensors, and the audits before and after."""
    audits = {"before": report.before, "after": report.after}
    return {
        "steps": records_of(flat(step) for step in report.steps),
        "tensors": records_of(flat(tensor) for tensor in report.tensors),
        "audits": records_of({"model": name, **flat(one)} for name, one in audits.items() if one is not None),
    }


def checks(report: RemapReport) -> list[Check]:
    """Record what both models reach; nothing is demanded of them."""
    return [
        Check(
            f"{name} model: {kpp_name(report.percentile)} of {report.metric}",
            None,
            (f"{kpp_name(report.percentile)} {value_text(side.kpp, report.unit)}",),
            {"kpp": side.kpp, "kpp_low": side.low, "kpp_high": side.high, "mean": side.mean},
        )
        for name, side in (("given", report.before), ("remapped", report.after))
        if side is not None
    ]
