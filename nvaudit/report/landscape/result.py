"""What `nvaudit landscape` found: the roughness, the surface, and what they rest on."""

from __future__ import annotations

import io
import json
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from nvaudit.report.header import Header
from nvaudit.report.records import Tables, flat, records_of
from nvaudit.report.sections import DataInfo, InputHashes, ModelInfo, ReportPart, Roughness, Run, TimeBox
from nvaudit.report.wording import roughness_text
from nvaudit.stats.roughness import Score

Losses = tuple[tuple[tuple[float, ...], ...], ...]


class LossInfo(ReportPart):
    """The loss, and how the outputs were read."""

    name: Literal["cross_entropy", "mse"]
    unit: str
    against: Literal["labels", "nominal"] = Field(description="nominal: the unmodified model's outputs.")
    assumed: tuple[str, ...] = ()
    nominal: float = Field(description="Loss of the unmodified model.")


class PairFit(ReportPart):
    """The surface of one pair of directions, and its quadratic fit."""

    roughness: float = Field(ge=0)
    coefficients: tuple[float, float, float, float, float] = Field(
        description="w4 … w0 of equation S-1: of x², y², x, y and 1."
    )
    lowest: float
    highest: float


class Surface(ReportPart):
    """The loss at every point."""

    axis: tuple[float, ...] = Field(description="Coordinates along both directions.")
    losses: Losses = Field(description="By direction pair, point along x, point along y.")

    @model_validator(mode="after")
    def _one_loss_per_point(self) -> Surface:
        if any(len(rows) != len(self.axis) for rows in (*self.losses, *(r for s in self.losses for r in s))):
            raise ValueError(f"a surface does not have {len(self.axis)} × {len(self.axis)} points")
        return self


class LandscapeHashes(InputHashes):
    """SHA-256 of what went in."""

    model: str
    data: str


class LandscapeReport(Header):
    """Everything a landscape found, and what is needed to run it again."""

    kind: Literal["landscape"] = "landscape"
    roughness: Roughness
    loss: LossInfo
    fits: tuple[PairFit, ...]
    surface: Surface
    moved: tuple[str, ...] = Field(description="The weights that were moved.")
    moved_numbers: int = Field(ge=1, description="How many numbers these are.")
    fixed: dict[str, str] = Field(description="Tensors with two or more dimensions that were not, and why.")
    data: DataInfo
    model: ModelInfo
    run: Run = Field(description="The full specification of the run.")
    hashes: LandscapeHashes
    time_boxed: TimeBox | None = Field(default=None, description="Null: the time was not used up.")


def pair_fits(score: Score, losses: NDArray[np.float64]) -> tuple[PairFit, ...]:
    """Describe each pair of directions; the losses have shape (pair, a, b)."""
    return tuple(
        PairFit(
            roughness=fit.mse,
            coefficients=fit.coefficients,
            lowest=float(surface.min()),
            highest=float(surface.max()),
        )
        for fit, surface in zip(score.fits, losses, strict=True)
    )


def headline(roughness: Roughness, label_free: bool, caution: str = "") -> str:
    """Say the result in one line.

    Parameters
    ----------
    caution : str
        What the choice of the loss rests on.
    """
    if roughness.spread is None:
        value = roughness_text(roughness.value)
        text = f"Roughness {value} ({roughness.loss}, one direction pair; lower is more stable)"
    else:
        value = roughness_text(roughness.value, roughness.standard_error)
        text = (
            f"Roughness {value} ({roughness.loss}; mean and standard error of {roughness.pairs} direction "
            f"pairs, their spread {1e3 * roughness.spread:.3g}; lower is more stable)"
        )
    text += f" ({caution})" if caution else ""
    if label_free:
        return f"LABEL-FREE (no labels: the unmodified model is the reference): {text}"
    return text


def surface_npz(report: LandscapeReport) -> bytes:
    """Write the surface as an ``.npz`` file.

    Returns
    -------
    bytes
        Arrays ``alphas`` and ``betas`` (coordinates), ``losses`` (pair, α, β), ``fits`` (pair, 5: of α², β²,
        α, β, 1), ``roughness`` (pair), and ``meta``: the rest of the report as JSON text.
    """
    meta = report.model_dump(mode="json", exclude={"surface", "fits"})
    axis = np.array(report.surface.axis)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        alphas=axis,
        betas=axis,
        losses=np.array(report.surface.losses),
        fits=np.array([fit.coefficients for fit in report.fits]),
        roughness=np.array([fit.roughness for fit in report.fits]),
        meta=np.array(json.dumps(meta, ensure_ascii=False)),
    )
    return buffer.getvalue()


def tables(report: LandscapeReport) -> Tables:
    """The fits of the direction pairs, and every point of the surfaces."""
    names = ("w4", "w3", "w2", "w1", "w0")
    axis = report.surface.axis
    return {
        "fits": records_of(
            {"pair": pair, **flat(fit), **dict(zip(names, fit.coefficients, strict=True))}
            for pair, fit in enumerate(report.fits)
        ),
        "surface": records_of(
            {"pair": pair, "x": x, "y": y, "loss": loss}
            for pair, surface in enumerate(report.surface.losses)
            for x, losses in zip(axis, surface, strict=True)
            for y, loss in zip(axis, losses, strict=True)
        ),
    }
