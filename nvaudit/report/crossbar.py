"""Crossbars with converters: what the report holds about them, and the words for it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvaudit.report.sections import ReportPart
from nvaudit.report.wording import count_text, share_of_weights_text, share_text

_MOST_NAMED = 8

LAYER_COLUMNS = ("layer", "crossbars", "rows", "columns", "in use", "ADC range", "clipped")
"""Headings of what :func:`layer_row` gives."""


class CrossbarLayer(ReportPart):
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


class NotSplit(ReportPart):
    """A mapped weight whose converters are ideal."""

    name: str
    reason: str
    weights: int | None = Field(ge=0)


class CrossbarInfo(ReportPart):
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
    def unsplit_layers(self) -> tuple[CrossbarLayer, ...]:
        """The layers that were not split."""
        return tuple(layer for layer in self.layers if layer.reason is not None)


def adc_text(info: CrossbarInfo) -> str:
    """Name the ADCs, and the share of the weights that go through them where that is not all.

    Examples
    --------
    >>> adc_text(info)  # doctest: +SKIP
    '4-bit ADCs on 50.00 % of the mapped weights'
    """
    return f"{info.adc_bits}-bit ADCs{share_of_weights_text(info.share_of_weights)}"


def converters_words(info: CrossbarInfo | None) -> tuple[str, ...]:
    """Say what converts and how large crossbars are; nothing where converters are ideal."""
    if info is None:
        return ()
    inputs = [] if info.dac_bits is None else [f"{info.dac_bits}-bit DACs"]
    return (adc_text(info), *inputs, f"crossbars of {info.rows}×{info.cols}")


def partly_converted(info: CrossbarInfo | None) -> str | None:
    """Say that some weights have no converters, and which; None where all have."""
    if info is None or not info.not_split or info.weights is None or info.weights_split is None:
        return None
    named = [
        f"{layer.name} ({count_text(layer.weights or 0, 'weight')}): {layer.reason}"
        for layer in info.not_split[:_MOST_NAMED]
    ]
    if len(info.not_split) > _MOST_NAMED:
        named.append(f"and {len(info.not_split) - _MOST_NAMED} more")
    return (
        f"converters act on {info.weights_split:,} of {info.weights:,} weights on the array"
        f" ({share_text(info.share_of_weights or 0.0)}); the rest is not split and has ideal ones: "
        + "; ".join(named)
    )


def crossbar_text(info: CrossbarInfo) -> str:
    """Say in a sentence what converts, and how ranges were set."""
    dac = "ideal inputs" if info.dac_bits is None else f"{info.dac_bits}-bit DACs"
    kind, _, number = info.adc_range.partition(":")
    reach = {
        "max": "the largest column sum",
        "percentile": f"the {number} % percentile of the column sums",
        "full_scale": "all rows in use at the largest input and the top level",
    }[kind]
    return (
        f"{count_text(info.crossbars, 'crossbar')}, {adc_text(info)}, {dac}. The ADCs of a layer "
        f"reach up to {reach} on {count_text(info.samples, 'calibration sample')}."
    )


def layer_row(layer: CrossbarLayer) -> tuple[str, ...]:
    """The cells of a layer that was split, under ``LAYER_COLUMNS``."""
    low, high = layer.adc_range or (0.0, 0.0)
    rows = "+".join(str(count) for count in layer.rows)
    if len(layer.rows) > 3:
        rows = f"{len(layer.rows)} × ≤{max(layer.rows)}"
    return (
        layer.name,
        f"{layer.crossbars:,}",
        rows,
        f"{layer.columns:,}",
        f"{100 * (layer.utilisation or 0):.3g} %",
        f"±{high:.4g}" if low < 0 else f"0 … {high:.4g}",
        f"{100 * (layer.clipped or 0):.2g} %",
    )
