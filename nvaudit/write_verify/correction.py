"""What verifying does to the error of a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.device import OperatingPoint
from nvaudit.device.terms import TERM_TYPES
from nvaudit.errors import OptionError
from nvaudit.mapping.quantize import dequantize
from nvaudit.perturb.chip import MappedTensor, TensorLaw
from nvaudit.perturb.collapse import collapse
from nvaudit.perturb.moments import code_moments
from nvaudit.perturb.terms import Setting, read_terms
from nvaudit.perturb.verify import programming_terms, verified_law


@dataclass(frozen=True)
class VerifiedSpread:
    """What verifying does.

    Attributes
    ----------
    sigma : float
        Spread that it leaves, in the unit of the operating point's sigma.
    residual : float
        The same as a share of the spread without verifying.
    terms : tuple of str
        Noise terms that it reduces.
    left : tuple of str
        Noise terms that it cannot reduce.
    """

    sigma: float
    residual: float
    terms: tuple[str, ...]
    left: tuple[str, ...]


def settle_correction(point: OperatingPoint, sigma: float, terms: Sequence[str]) -> VerifiedSpread:
    """Settle what verifying does on a device.

    Parameters
    ----------
    sigma : float
        Spread that it leaves, in the unit of the point's sigma.
    terms : sequence of str
        Noise terms that it reduces; empty for all errors of programming.

    Raises
    ------
    OptionError
        If a term is unknown or no error of programming, none is left, or the spread would grow.
    """
    own, names = programming_terms(point), tuple(term.name for term in point.terms)
    for name in terms:
        if name not in own:
            what = "cannot be corrected by writing again" if name in names else "is not in effect here"
            raise OptionError(
                f"--verify-term {name!r}: the noise term {what}; those that verifying can reduce are "
                f"{', '.join(own) or 'none'}"
            )
    chosen = tuple(name for name in own if name in terms) if terms else own
    if not chosen:
        kinds = ", ".join(str(kind.model_fields["name"].default) for kind in TERM_TYPES if kind.programming)
        raise OptionError(
            f"profile {point.profile.name!r} has no error of programming in effect (a term of kind {kinds}), "
            f"only {', '.join(names) or 'no noise'}: there is nothing to verify"
        )
    if sigma > point.sigma:
        raise OptionError(
            f"--verify-sigma {sigma:g}: more than the {point.sigma:g} ({point.sigma_unit}) of devices that "
            "are not verified; use 0 to that"
        )
    # Spread and mean shift of an error of programming shrink by one factor: verifying is a loop on the
    # error, whatever made it.
    residual = sigma / point.sigma if point.sigma else 0.0
    return VerifiedSpread(sigma, residual, chosen, tuple(name for name in names if name not in chosen))


def magnitude(tensor: MappedTensor) -> Floats:
    """``|W|`` as programmed, in the primary layout."""
    return np.abs(dequantize(np.asarray(tensor.code), tensor.scale)).astype(np.float64)


def noise_removed(tensor: MappedTensor, point: OperatingPoint, correction: VerifiedSpread) -> Floats:
    """What verifying takes off the mean squared error of each weight, in squared weight units."""
    # What the residual spread leaves is taken off what was there, code by code: E[e²] by its law, mean² +
    # std².
    after = verified_law(TensorLaw(tensor, point), correction.residual, correction.terms)
    table = squared_error(tensor, point) - squared_error(tensor, after.point)
    # Terms of opposite mean shift can cancel, and E[e²] then rises when one is corrected: that gain counts as
    # 0.
    index = np.asarray(tensor.code).astype(np.int64) + tensor.array.top
    removed: Floats = np.maximum(table, 0.0)[index] * np.square(tensor.scale.astype(np.float64))
    return removed


def squared_error(tensor: MappedTensor, point: OperatingPoint) -> Floats:
    """Mean squared deviation of a weight for each code −top … top, in squared units of the code.

    Exact where a chip is one normal per weight, else from about a million draws with a fixed seed: two laws
    with the same draws differ by what they differ in.
    """
    if not read_terms(point, Setting.of(point, tensor.array)):
        law = collapse(point, tensor.array, tensor.peak_code)
        if law is not None:
            return np.asarray(law.mean**2 + law.std**2)
    moments = code_moments(point, tensor.array)
    return np.asarray(moments.mean**2 + moments.std**2)
