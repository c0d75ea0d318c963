"""Crossbars with converters: what the report holds about them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvaudit.report.sections import Section


class CrossbarLayer(Section):
    """The crossbars and converters of one mapped weight."""

    name: str
    reason: str | None = Field(description="Why the layer was not split, and has ideal converters; null if "
                               "it was split.")  # fmt: skip
    weights: int | None = Field(default=None, ge=0, description="Weights of the layer on the array.")
    scaling: Literal["output", "input", "block"] = Field(
        default="output",
        description="What the quantisation scale is constant over; input: the inputs are multiplied by it "
        "before the DACs; block: the rows are cut where it changes, each part has column sums of its own.",
    )
    crossbars: int = Field(ge=0, description="Crossbars in use; 0 where it was not split.")
    matrices: int = Field(ge=0, description="Independent matrices: groups of a convolution.")
    rows: tuple[int, ...] = Field(description="Rows in use in each row block of a matrix.")
    columns: int = Field(ge=0, description="Device columns of a matrix: outputs × slices × polarities.")
    utilisation: float | None = Field(description="Share of the devices of these crossbars in use.")
    signed_inputs: bool = Field(description="Whether the inputs of the calibration were signed.")
    dac_step: float | None = Field(description="Input per code; null: ideal.")
    dac_codes: tuple[int, int] | None
    adc_step: float | None = Field(description="Inputs × level spacings per code.")
    adc_codes: tuple[int, int] | None
    adc_range: tuple[float, float] | None = Field(description="Inputs × level spacings.")
    clipped: float | None = Field(description="Share of the calibration's column sums beyond the range.")


class NotSplit(Section):
    """A mapped weight whose converters are ideal."""

    name: str
    reason: str
    weights: int | None = Field(ge=0)


class CrossbarInfo(Section):
    """How the mapped layers were split over crossbars, and what converts their inputs and column sums."""

    rows: int = Field(ge=1)
    cols: int = Field(ge=1)
    adc_bits: int = Field(ge=2)
    dac_bits: int | None = Field(description="Null: the inputs are ideal.")
    adc_range: str = Field(description="How ranges were set: max, percentile:P or full_scale.")
    samples: int = Field(ge=0, description="Samples that ranges were calibrated on, spread over the set.")
    crossbars: int = Field(ge=0)
    quantised_ideal: float = Field(description="Metric of quantised weights with ideal converters.")
    weights: int | None = Field(default=None, ge=0, description="Weights on the array.")
    weights_split: int | None = Field(
        default=None, ge=0, description="Weights on the array whose column sums go through converters."
    )
    share_of_weights: float | None = Field(
        default=None, ge=0, le=1, description="The second of the first; null in reports of older versions."
    )
    not_split: tuple[NotSplit, ...] = Field(
        default=(), description="Mapped weights with ideal converters, each with its reason."
    )
    layers: tuple[CrossbarLayer, ...]

    @property
    def whole(self) -> tuple[CrossbarLayer, ...]:
        """The layers that were not split."""
        return tuple(layer for layer in self.layers if layer.reason is not None)
