"""Where the loss comes from: each tensor, each noise term, each class, on the same simulated chips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nvaudit.arrays import Floats
from nvaudit.report.paired import PairedDifference, paired_difference
from nvaudit.report.sections import ReportPart
from nvaudit.stats.kpp import kpp

AttributionKind = Literal["tensors", "terms"]


class NoiseShare(ReportPart):
    """What the noise of one tensor, or of one noise term, does. Lists have one entry per percentile."""

    name: str
    cost: float = Field(
        description="KPP (first percentile) that the chips get back when this alone is ideal; positive: its "
        "noise costs."
    )
    given_back: tuple[PairedDifference, ...] = Field(
        description="From chips with all noise to the same chips without this."
    )
    alone: tuple[PairedDifference, ...] = Field(
        description="From the quantised model to the same chips with only this noisy."
    )
    without_mean: float = Field(description="All noisy but this.")
    without_kpp: tuple[float, ...]
    only_mean: float = Field(description="Only this noisy.")
    only_kpp: tuple[float, ...]
    share: float | None = Field(
        description="Of the mean loss of the whole chips: half of what this loses alone and what it gives "
        "back (for two parts the Shapley value). Null where the loss cannot be told from zero."
    )
    standard_error: float | None = Field(
        description="Of the mean given back, from the finite number of images; the intervals do not hold it."
    )


class NoiseAttribution(ReportPart):
    """The loss by tensor, or by noise term; ranked, the most costly first."""

    kind: AttributionKind
    chips: int = Field(ge=1, description="The first chips of the audit.")
    images: int = Field(ge=1, description="Spread evenly over the evaluation set.")
    inferences: int = Field(ge=0)
    sigma: float
    sigma_unit: str
    percentiles: tuple[float, ...]
    quantised: float = Field(description="On these images.")
    noisy_mean: float = Field(description="All noise, on these chips and images.")
    noisy_kpp: tuple[float, ...]
    loss: tuple[PairedDifference, ...] = Field(description="From the quantised model to all noise.")
    standard_error: float | None = Field(description="Of the mean loss, from the finite number of images.")
    alone_sum: float = Field(
        description="Sum of the mean differences of each by itself; where it is not the mean of loss, noises "
        "add to or hide each other."
    )
    kept: tuple[str, ...] = Field(default=(), description="Terms that act in every variant: limits.")
    items: tuple[NoiseShare, ...]


class ClassShare(ReportPart):
    """The metric on the samples of one class. Lists have one entry per percentile."""

    label: int
    images: int = Field(ge=1)
    nominal: float
    quantised: float
    mean: float = Field(description="Over the chips.")
    kpp: tuple[float, ...] = Field(description="Each class has its own worst chips.")
    kpp_low: tuple[float | None, ...] = Field(description="Lower ends; null where the chips give none.")
    kpp_high: tuple[float | None, ...] = Field(description="Upper ends; null where the chips give none.")


class ClassAttribution(ReportPart):
    """The metric by class; the worst class by KPP (first percentile) first."""

    chips: int = Field(ge=1, description="The first chips of the audit.")
    images: int = Field(ge=1, description="Spread evenly over the evaluation set.")
    inferences: int = Field(ge=0)
    sigma: float
    sigma_unit: str
    percentiles: tuple[float, ...]
    confidence: float
    classes: tuple[ClassShare, ...] = Field(description="Classes that occur in these images.")


class AttributionDetail(ReportPart):
    """Everything that ``--attribute`` found."""

    tensors: NoiseAttribution | None = None
    terms: NoiseAttribution | None = None
    classes: ClassAttribution | None = None
    notes: tuple[str, ...] = Field(default=(), description="What was not attributed, and why.")

    def costs(self) -> dict[str, float]:
        """KPP cost of each tensor and noise term; a term that is named as a tensor gets ``term:``."""
        costs = {item.name: item.cost for item in (self.tensors.items if self.tensors else ())}
        for item in self.terms.items if self.terms else ():
            costs[f"term:{item.name}" if item.name in costs else item.name] = item.cost
        return costs


@dataclass(frozen=True)
class Basis:
    """On what an attribution rests."""

    images: int
    inferences: int
    sigma: float
    sigma_unit: str
    percentiles: tuple[float, ...]
    confidence: float
    higher_is_better: bool


@dataclass(frozen=True)
class VariantScores:
    """A variant of the chips: its metric per chip, and the mean score per image over the chips."""

    chips: Floats
    images: Floats


def noise_attribution(
    kind: AttributionKind,
    basis: Basis,
    quantised: Floats,
    all_noisy: VariantScores,
    parts: Mapping[str, tuple[VariantScores, VariantScores]],
    kept: Sequence[str] = (),
) -> NoiseAttribution:
    """Work out what each tensor or term costs.

    Parameters
    ----------
    quantised : ndarray, float64, shape (image,)
        Score of each image without noise.
    all_noisy : VariantScores
        Chips with all noise.
    parts : mapping of str to (VariantScores, VariantScores)
        The same chips with only this noisy, and with all but this noisy.
    kept : sequence of str
        Terms that act in every variant.

    Returns
    -------
    NoiseAttribution
        Ranked by the KPP given back, then by the mean given back.
    """
    level = float(quantised.mean())
    ideal = np.full_like(all_noisy.chips, level)
    loss = _differences(ideal, all_noisy.chips, basis)
    total = loss[0].mean.value if _is_loss(loss[0]) else None
    items = [
        _share(name, only, without, all_noisy, ideal, total, basis) for name, (only, without) in parts.items()
    ]
    sign = 1 if basis.higher_is_better else -1
    items.sort(key=lambda item: (-item.cost, -sign * item.given_back[0].mean.value))
    return NoiseAttribution(
        kind=kind,
        chips=len(all_noisy.chips),
        images=basis.images,
        inferences=basis.inferences,
        sigma=basis.sigma,
        sigma_unit=basis.sigma_unit,
        percentiles=basis.percentiles,
        quantised=level,
        noisy_mean=float(all_noisy.chips.mean()),
        noisy_kpp=_kpps(all_noisy.chips, basis),
        loss=loss,
        # Over images: what the mean over the chips changes on each. The same images are scored in both, so
        # what is hard about an image cancels.
        standard_error=_standard_error(all_noisy.images - quantised),
        alone_sum=math.fsum(item.alone[0].mean.value for item in items),
        kept=tuple(kept),
        items=tuple(items),
    )


def _is_loss(loss: PairedDifference) -> bool:
    """Whether the chips lose or gain on average something that can be told from zero."""
    low, high = loss.mean.low, loss.mean.high
    if low is None or high is None:
        return loss.mean.value != 0
    return low > 0 or high < 0


def _share(
    name: str,
    only: VariantScores,
    without: VariantScores,
    all_noisy: VariantScores,
    ideal: Floats,
    total: float | None,
    basis: Basis,
) -> NoiseShare:
    given_back = _differences(all_noisy.chips, without.chips, basis)
    alone = _differences(ideal, only.chips, basis)
    sign = 1 if basis.higher_is_better else -1
    return NoiseShare(
        name=name,
        cost=sign * given_back[0].kpp.value + 0.0,
        given_back=given_back,
        alone=alone,
        without_mean=float(without.chips.mean()),
        without_kpp=_kpps(without.chips, basis),
        only_mean=float(only.chips.mean()),
        only_kpp=_kpps(only.chips, basis),
        # Shapley: the mean of what a part does when it comes first (alone) and when it comes last (what it
        # gives back, of the other sign). With two parts these are all the orders there are; with more, the
        # shares need not add up to 1.
        share=None if total is None else (alone[0].mean.value - given_back[0].mean.value) / (2 * total),
        standard_error=_standard_error(without.images - all_noisy.images),
    )


def _standard_error(images: Floats) -> float | None:
    return float(images.std(ddof=1) / math.sqrt(images.size)) if images.size > 1 else None


def _differences(before: Floats, after: Floats, basis: Basis) -> tuple[PairedDifference, ...]:
    return tuple(
        paired_difference(before, after, k, basis.confidence, basis.higher_is_better)
        for k in basis.percentiles
    )


def _kpps(values: Floats, basis: Basis) -> tuple[float, ...]:
    return tuple(kpp(values, k, basis.confidence, basis.higher_is_better).value for k in basis.percentiles)


def class_attribution(
    basis: Basis,
    labels: NDArray[np.int64],
    counts: NDArray[np.int64],
    nominal: Floats,
    quantised: Floats,
    chips: Floats,
) -> ClassAttribution:
    """Work out how each class fares.

    Parameters
    ----------
    labels, counts : ndarray of int, shape (class,)
        Classes that occur, and how many samples each has.
    nominal, quantised : ndarray, float64, shape (class,)
        Mean score of each class.
    chips : ndarray, float64, shape (trial, class)
        Mean score of each class on each chip.

    Returns
    -------
    ClassAttribution
        Ranked by the KPP, the worst class first.
    """
    better = basis.higher_is_better
    rows = []
    for i, label in enumerate(labels.tolist()):
        kpps = [kpp(chips[:, i], k, basis.confidence, better) for k in basis.percentiles]
        rows.append(
            ClassShare(
                label=label,
                images=int(counts[i]),
                nominal=float(nominal[i]),
                quantised=float(quantised[i]),
                mean=float(chips[:, i].mean()),
                kpp=tuple(one.value for one in kpps),
                kpp_low=tuple(one.low for one in kpps),
                kpp_high=tuple(one.high for one in kpps),
            )
        )
    sign = 1 if better else -1
    rows.sort(key=lambda row: (sign * row.kpp[0], sign * row.mean))
    return ClassAttribution(
        chips=len(chips),
        images=basis.images,
        inferences=basis.inferences,
        sigma=basis.sigma,
        sigma_unit=basis.sigma_unit,
        percentiles=basis.percentiles,
        confidence=basis.confidence,
        classes=tuple(rows),
    )
