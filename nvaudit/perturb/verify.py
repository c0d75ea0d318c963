"""Chips on which some weights were write-verified: read back after programming, and corrected.

Verifying a weight reduces the programming error of all its devices to a residual. What comes later, or cannot
be corrected (stuck devices, drift, read noise), stays. A chip with verified weights is drawn from the same
streams as the chip without: a weight that is not verified is the same bit for bit, and one that is has the
same random numbers with a smaller spread.

References: Z. Yan, X. S. Hu, Y. Shi, "SWIM: Selective Write-Verify for Computing-in-Memory Neural
Accelerators", DAC 2022, arXiv:2202.08395.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Singles
from nvaudit.device import OperatingPoint
from nvaudit.perturb.cells import Cells, draw_cells
from nvaudit.perturb.chip import DrawnWeights, TensorLaw
from nvaudit.perturb.terms import effect
from nvaudit.perturb.workload import ArrayFile
from nvaudit.rng import ChipAddress


@dataclass(frozen=True)
class Verified:
    """Which weights of a chip were verified, and what that left.

    Attributes
    ----------
    order : tuple of ArrayFile
        For each tensor, the place of each weight in the ranking over all tensors, 0 first; int32.
    count : int
        How many weights were verified: those at places below it.
    residual : float
        Share of the programming error that is left, 0 … 1.
    terms : frozenset of str
        The noise terms that are programming errors.
    """

    order: tuple[ArrayFile, ...]
    count: int
    residual: float
    terms: frozenset[str]


def programming_terms(point: OperatingPoint) -> tuple[str, ...]:
    """Names of the terms of an operating point that are errors of programming."""
    return tuple(term.name for term in point.terms if term.programming)


def verified_law(law: TensorLaw, residual: float, terms: Iterable[str]) -> TensorLaw:
    """The law of a tensor whose weights are all verified, drawn from the same streams.

    Parameters
    ----------
    law : TensorLaw
        Without verifying.
    residual : float
        What the spread and the mean shift of each programming error are multiplied by.
    terms : iterable of str
        The programming errors.

    Returns
    -------
    TensorLaw
        Drawn device by device if the other one is.
    """
    names = frozenset(terms)
    kept = []
    for term in law.point.terms:
        if term.name not in names:
            kept.append(term)
        elif residual > 0:
            kept.append(effect(term, law.setting).reduced(residual))
    return TensorLaw(
        law.tensor,
        replace(law.point, terms=tuple(kept)),
        every_device=law.collapsed is None,
        freeze_read=law.freeze_read,
        keep_tables=law.keep_tables,
    )


class Verifier:
    """Draws tensors with some weights verified; keeps what the next chip can use again."""

    def __init__(self) -> None:
        self._orders: dict[ArrayFile, NDArray[np.int32]] = {}
        self._laws: dict[int, tuple[TensorLaw, float, frozenset[str], TensorLaw]] = {}

    def draw(
        self, law: TensorLaw, index: int, verified: Verified | None, seed: int, trial: ChipAddress
    ) -> DrawnWeights:
        """Draw one tensor on chip ``trial``; without ``verified`` as ``law.draw`` does."""
        mask = self._mask(index, verified)
        if verified is None or not mask.any():
            return law.draw(seed, trial)
        new = self._verified(law, index, verified).draw(seed, trial)
        if mask.all():
            return new
        old = law.draw(seed, trial)
        return DrawnWeights(
            np.where(mask, new.weights, old.weights), _either(mask, new.read_variance, old.read_variance)
        )

    def cells(
        self, law: TensorLaw, index: int, verified: Verified | None, seed: int, trial: ChipAddress
    ) -> Cells:
        """Draw the devices of one tensor on chip ``trial``."""
        mask = self._mask(index, verified)
        if verified is None or not mask.any():
            return draw_cells(law, seed, trial)
        new = draw_cells(self._verified(law, index, verified), seed, trial)
        if mask.all():
            return new
        old = draw_cells(law, seed, trial)
        return Cells(
            np.where(mask, new.levels, old.levels), _either(mask, new.read_variance, old.read_variance)
        )

    def _mask(self, index: int, verified: Verified | None) -> NDArray[np.bool_]:
        """Which weights of a tensor are verified."""
        if verified is None or verified.count == 0:
            return np.zeros((), np.bool_)
        file = verified.order[index]
        if file not in self._orders:
            self._orders[file] = file.open()
        return np.asarray(self._orders[file] < verified.count)

    def _verified(self, law: TensorLaw, index: int, verified: Verified) -> TensorLaw:
        kept = self._laws.get(index)
        if kept is None or kept[0] is not law or kept[1:3] != (verified.residual, verified.terms):
            new = verified_law(law, verified.residual, verified.terms)
            kept = self._laws[index] = (law, verified.residual, verified.terms, new)
        return kept[3]


def _either(mask: NDArray[np.bool_], new: Singles | None, old: Singles | None) -> Singles | None:
    """Variances of reads, which both laws have or neither."""
    return None if new is None or old is None else np.where(mask, new, old)
