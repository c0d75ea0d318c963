"""A chip with part of its noise switched off; the rest is drawn exactly as on the whole chip.

Random streams are addressed by tensor and, device by device, by noise term, so what stays on keeps its
numbers. Where a chip is one normal per weight (the exact collapse), the terms share that draw: with one of
them off, the same numbers are scaled by the smaller spread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import OperatingPoint
from nvaudit.mapping.conductance import DeviceArray
from nvaudit.perturb.chip import TensorLaw
from nvaudit.perturb.terms import Setting, active_terms, read_terms
from nvaudit.perturb.verify import Verified
from nvaudit.rng import ChipAddress


@dataclass(frozen=True)
class Variant:
    """Which noise of a chip is on.

    Attributes
    ----------
    tensors : frozenset of int, optional
        Noisy tensors; the others are at their quantised weights. None: all.
    terms : frozenset of str, optional
        Noise terms that act; limits on the conductance (``clip``) always do. None: all.
    verified : Verified, optional
        Weights whose programming errors were corrected. None: none.
    exchanged : (frozenset of int, ChipAddress), optional
        Tensors that have the devices of another chip. None: none.
    """

    tensors: frozenset[int] | None = None
    terms: frozenset[str] | None = None
    verified: Verified | None = None
    exchanged: tuple[frozenset[int], ChipAddress] | None = None

    def chip_of(self, tensor: int, chip: ChipAddress) -> ChipAddress:
        """Whose devices a tensor of a chip has."""
        return self.exchanged[1] if self.exchanged is not None and tensor in self.exchanged[0] else chip

    def has(self, tensor: int) -> bool:
        """Whether a tensor is noisy."""
        return self.tensors is None or tensor in self.tensors


WHOLE = Variant()
"""The chip as it is."""


def limit_terms(law: TensorLaw, terms: frozenset[str] | None) -> TensorLaw:
    """The law of a tensor with only some noise terms, drawn from the same streams.

    Parameters
    ----------
    law : TensorLaw
        Of the whole chip.
    terms : frozenset of str, optional
        None: all.

    Returns
    -------
    TensorLaw
        Drawn device by device if the whole chip is, even where one draw per weight would now be exact.
    """
    if terms is None:
        return law
    kept = tuple(term for term in law.point.terms if term.limits or term.name in terms)
    return TensorLaw(
        law.tensor,
        replace(law.point, terms=kept),
        every_device=law.collapsed is None,
        freeze_read=law.freeze_read,
        keep_tables=law.keep_tables,
    )


def acting_terms(point: OperatingPoint, arrays: Iterable[DeviceArray]) -> tuple[str, ...]:
    """Names of the terms that make noise at an operating point, in order.

    Left out are terms that change nothing there, such as drift at time 0, and ``clip``, which only limits
    what others do.
    """
    acting: set[str] = set()
    for array in set(arrays):
        at = Setting.of(point, array)
        terms = (*active_terms(point, at), *read_terms(point, at))
        acting.update(term.name for term in terms if not term.limits)
    return tuple(term.name for term in point.terms if term.name in acting)


def spread_evenly(count: int, images: int) -> NDArray[np.intp]:
    """Choose samples spread evenly over a set: a set sorted by class keeps its share of every class.

    Parameters
    ----------
    count : int
        Samples in the set.
    images : int
        How many are wanted, at most ``count``.

    Returns
    -------
    ndarray of int, shape (images,)
        Ascending; all of them if ``images`` is ``count``.

    Examples
    --------
    >>> spread_evenly(10, 4).tolist()
    [0, 2, 5, 7]
    """
    return (np.arange(images) * count // images).astype(np.intp)
