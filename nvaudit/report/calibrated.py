"""Chips that were corrected one by one: what the report says of them."""

from __future__ import annotations

from pydantic import Field

from nvaudit.report.sections import ReportPart, SweepPoint


class NotCorrected(ReportPart):
    """A weight whose results are as the chip makes them."""

    name: str
    reason: str


class CalibratedChips(ReportPart):
    """The chips of the audit again, each corrected by what its layers make of the same unlabelled samples.

    These numbers use the chip: they hold where each chip is measured so before it is used.
    """

    samples: int = Field(ge=2, description="Unlabelled samples that each chip is corrected by; not scored.")
    source: str = Field(description="Where they come from.")
    norms: int = Field(ge=0, description="Batch normalisations whose statistics were corrected.")
    layers: int = Field(ge=0, description="Layers with a gain and a bias behind each output channel.")
    left: tuple[NotCorrected, ...] = Field(default=(), description="What was not corrected.")
    points: tuple[SweepPoint, ...] = Field(
        description="As the sweep's, of the corrected chips: one point for each sigma that was come to."
    )
