"""From a plan and moments to the program whose solution are scales, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats, Ids
from nvaudit.model import LoadedModel
from nvaudit.model.rescale.apply import rescaled
from nvaudit.model.rescale.find import plan_scaling
from nvaudit.model.rescale.plan import Insert, RescalePlan, ScalableWeight
from nvaudit.model.rescale.walk import SeenSizes
from nvaudit.remapping.activations import ChannelMoments
from nvaudit.remapping.solve import ProgramTerm, noise_of, solve

_FLOOR = 1e-3
"""A channel that was silent on the calibration samples may speak on others: its least share of the mean."""

_HALF_LIMIT = 2.0
_LIMIT = 6.0
"""Largest |ln t|: half precision has no room for more."""

MomentsByAxis = Mapping[tuple[str, int], ChannelMoments]


@dataclass(frozen=True)
class RescalingBasis:
    """What every program of a model needs.

    Attributes
    ----------
    values : mapping of str to ndarray
        The weights on the array, in their primary layout.
    seen : mapping of str to tuple
        Sizes of activations.
    moments : mapping
        Of activations, by name and channel axis; what is missing counts as 1.
    """

    loaded: LoadedModel
    values: Mapping[str, NDArray[Any]]
    seen: Mapping[str, SeenSizes]
    moments: MomentsByAxis

    @property
    def keys(self) -> tuple[str, ...]:
        """The weights on the array."""
        return tuple(self.values)


def absorbed_sides(plan: RescalePlan) -> frozenset[str]:
    """Sides of weights whose scale no other weight shares, because digital constants absorb it."""
    classes, _ = plan.variables.classes()
    users: dict[int, set[str]] = {}
    sides = {
        f"{side} {layer.key}": set(np.unique(classes[ids]).tolist())
        for layer in plan.layers
        for side, ids in (("in", layer.source_ids), ("out", layer.result_ids))
    }
    for side, numbers in sides.items():
        for number in numbers:
            users.setdefault(number, set()).add(side)
    # A class that one side of one weight uses alone is a free scale already: a new factor there could do
    # no more.
    return frozenset(
        side for side, numbers in sides.items() if all(n != 0 and users[n] == {side} for n in numbers)
    )


def result_gain(layer: ScalableWeight, moments: MomentsByAxis) -> Floats:
    """Square of the digital factor that follows each result channel, over the power of all of them."""
    gain = np.ones(layer.channels) if layer.gain is None else layer.gain**2
    power = _moment(moments, layer.result, layer.result_axis, layer.channels, "variance")
    # Relative error of what the digital factors g_j pass on: Σ_j g_j² ν_j² / Σ_j g_j² Var(y_j).
    return np.asarray(gain / max(float((gain * power).sum()), 1e-30))


def noise_power(layer: ScalableWeight, values: NDArray[Any], moments: MomentsByAxis) -> Floats:
    """How much an error of each pair of channels, squared, adds to the relative error of the results."""
    shape = values.shape[:2]
    sources = int(layer.source_at.max()) + 1
    square = _moment(moments, layer.source, layer.source_axis, sources, "square")
    square = np.maximum(square, _FLOOR * float(square.mean()))
    gain = result_gain(layer, moments)
    return np.broadcast_to(square[layer.source_at] * gain[layer.result_at], shape).astype(np.float64)


def _moment(moments: MomentsByAxis, name: str, axis: int, size: int, what: str) -> Floats:
    known = moments.get((name, axis))
    numbers = None if known is None else getattr(known, what)
    if numbers is None or numbers.shape != (size,) or not np.isfinite(numbers).all() or not numbers.any():
        return np.ones(size)
    return np.asarray(numbers)


def terms_of(plan: RescalePlan, basis: RescalingBasis, classes: Ids) -> list[ProgramTerm]:
    """The program of a plan: one term for each use of a weight."""
    terms = []
    for layer in plan.layers:
        values = basis.values[layer.key].astype(np.float64)
        taps = values.reshape(*values.shape[:2], -1)
        terms.append(
            ProgramTerm(
                magnitude=np.abs(taps).max(axis=2, initial=0.0),
                # Every tap is a weight with noise of its own, on inputs of the same power.
                power=noise_power(layer, values, basis.moments) * taps.shape[2],
                source=classes[layer.source_ids],
                result=classes[layer.result_ids],
            )
        )
    return terms


@dataclass(frozen=True)
class Rescaling:
    """A model with other scales, and what was done.

    Attributes
    ----------
    loaded : LoadedModel
        It computes the same.
    layers : tuple of ScalableWeight
        Weights between rescalable activations.
    refused : mapping of str to str
        The other weights, each with the reason.
    reasons : mapping of str to str
        Weights neither side of which is free, each with the reason.
    noise : mapping of str to float
        Standard deviation of the noise of each weight's results, as a fraction of what it was.
    power : mapping of str to ndarray
        What an error of each weight, squared, adds to the error of the results, per pair of channels, in the
        new scales.
    moved : bool
        Whether any scale is another one.
    """

    loaded: LoadedModel
    layers: tuple[ScalableWeight, ...]
    refused: Mapping[str, str]
    reasons: Mapping[str, str]
    noise: Mapping[str, float]
    power: Mapping[str, Floats]
    moved: bool


def rescale(basis: RescalingBasis, insert: Insert, exponent: float) -> Rescaling:
    """Find the best scales and write them into a copy of the model.

    Parameters
    ----------
    insert : {"none", "columns", "both"}
        Where digital factors may be added.
    exponent : float
        See :func:`nvaudit.remapping.solve.solve`; 0 leaves the model as it is.
    """
    model, keys = basis.loaded.model, basis.keys
    plan = plan_scaling(model, keys, "none", seen=basis.seen)
    private = frozenset[str]() if insert == "none" else absorbed_sides(plan)
    if insert != "none":
        plan = plan_scaling(model, keys, insert, private=private, seen=basis.seen)
    classes, reasons = plan.variables.classes()
    half = any(values.dtype.itemsize < 4 for values in basis.values.values())
    # Scales of one class are equal (both ends of a residual sum, say) and class 0 keeps its scale, so that
    # the unknowns are u = ln t of the classes. t of every layer follows, and so does what it does to the
    # noise.
    terms, size = terms_of(plan, basis, classes), int(classes.max()) + 1
    limit = _HALF_LIMIT if half else _LIMIT
    u = np.zeros(size) if exponent == 0 else solve(terms, size, exponent=exponent, limit=limit)
    done = basis.loaded
    if u.any():
        done = rescaled(basis.loaded, keys, insert, private, np.exp(u)[classes], basis.seen)
    held = {
        layer.key: _why(layer, reasons)
        for layer in plan.layers
        if not classes[layer.source_ids].any() and not classes[layer.result_ids].any()
    }
    noise: dict[str, float] = {}
    power: dict[str, Floats] = {}
    for layer, term in zip(plan.layers, terms, strict=True):
        before = noise_of(term, np.zeros(size))
        ratio = float(np.sqrt(noise_of(term, u) / before)) if before > 0 else 1.0
        noise[layer.key] = max(noise.get(layer.key, 0.0), ratio)
        # W_ji became W_ji t_i / t_j: an error of the new weight counts (t_j / t_i)² times as much.
        here = term.power * np.exp(-2 * (u[term.source] - u[term.result]))
        power[layer.key] = here + power.get(layer.key, 0.0)
    return Rescaling(done, tuple(plan.layers), dict(plan.refused), held, noise, power, bool(np.any(u != 0)))


def _why(layer: ScalableWeight, reasons: Mapping[int, str]) -> str:
    """Why neither side of a weight is free."""
    for side, ids in (("its result", layer.result_ids), ("what it takes", layer.source_ids)):
        for number in np.unique(ids).tolist():
            if number in reasons:
                return f"{side}: {reasons[number]}"
    return "what it takes is an input of the model or keeps its scale, and so does its result"
