"""Which limits are tried for the weights of a structure, mild ones first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.mapping.conductance import DeviceArray, layout
from nvaudit.mapping.quantize import quantize
from nvaudit.perturb.moments import Moments, code_moments
from nvaudit.remapping.bench import Bench
from nvaudit.remapping.clip import Limit, balanced_limit, deviations_limit, largest_code

DEVIATIONS = (4.0, 3.5, 3.0, 2.5, 2.0, 1.75, 1.5)
"""Clipping levels that are tried for all weights at once, in standard deviations; mild ones first."""

CAUTIONS = (16.0, 4.0, 1.0)
"""Balanced limits that are tried: how much more a clipping error counts than noise."""

_MATTERS = 0.1
"""A mean shift counts from this share of the spread on: it adds up over a layer, the spread does not."""

Limits = Mapping[str, Limit]


def by_deviations(bench: Bench) -> Iterator[tuple[str, Limits]]:
    """Limits at so many standard deviations."""
    for number in DEVIATIONS:
        # The number is bound as a default: a closure would see the last one of the loop.
        def limit(values: NDArray[Any], power: Floats, share: float, n: float = number) -> float:
            return deviations_limit(values, n)

        yield f"clipped at {number:g} std", _limits(bench, {}, {}, limit)


def by_balance(
    bench: Bench, powers: Mapping[str, Floats], spread: Mapping[str, float]
) -> Iterator[tuple[str, Limits]]:
    """Limits that balance the clipping error and the noise of each weight.

    Parameters
    ----------
    powers : mapping of str to ndarray
        What an error of a weight, squared, adds to the error of the results, per pair of channels; where
        it is not known all count alike.
    spread : mapping of str to float
        Standard deviation of a weight's noise as a fraction of the range.
    """
    for caution in CAUTIONS:

        def limit(values: NDArray[Any], power: Floats, share: float, c: float = caution) -> float:
            return balanced_limit(values, power, share, c)

        yield f"clipped, balanced {caution:g}", _limits(bench, powers, spread, limit)


def _limits(
    bench: Bench, powers: Mapping[str, Floats], spread: Mapping[str, float], find: Any
) -> dict[str, Limit]:
    """Limits of the weights that can be clipped; those that cut nothing off are left out."""
    limits: dict[str, Limit] = {}
    for key, values in bench.held.items():
        if bench.editable[key] is not None or not values.size:
            continue
        power = powers.get(key)
        shaped = (
            np.ones((1,) * values.ndim)
            if power is None
            else power.reshape(power.shape + (1,) * (values.ndim - power.ndim))
        )
        limit = _separate(bench, key, values, shaped, spread.get(key, 0.0), find)
        if np.any(np.asarray(limit) < peaks(bench, key) * (1 - 1e-6)):
            limits[key] = limit
    return limits


def _separate(
    bench: Bench, key: str, values: NDArray[Any], power: Floats, share: float, find: Any
) -> float | Floats:
    """One limit for a tensor; for one on a grid, one for each of its scales."""
    if key not in bench.ranges or bench.grids[key].scale.size == 1:
        return float(find(values, power, share))
    shape = bench.grids[key].scale.shape
    full, limits = np.broadcast_to(power, values.shape), np.empty(shape)
    for place in np.ndindex(shape):
        part = tuple(
            slice(None) if size == 1 else slice(at, at + 1) for at, size in zip(place, shape, strict=True)
        )
        limits[place] = find(values[part], full[part], share)
    return limits


def peaks(bench: Bench, key: str) -> float | Floats:
    """What the range of a tensor is now; for one on a grid, of each of its scales."""
    values = bench.held[key]
    if key in bench.ranges:
        grid = bench.grids[key]
        scale = np.abs(grid.scale.astype(np.float64))
        return scale * largest_code(*bench.ranges[key], grid.codes)
    return float(np.abs(values).max(initial=0.0))


def narrowing(bench: Bench, key: str, limit: Limit) -> float:
    """New range of a weight as a fraction of the old one; the mean over the scales of a grid."""
    peak = np.asarray(peaks(bench, key))
    ratio = np.divide(limit, peak, out=np.ones(np.broadcast(limit, peak).shape), where=peak > 0)
    return float(np.minimum(ratio, 1.0).mean())


def relative_spread(bench: Bench, *, by_slices: bool = False) -> dict[str, float]:
    """Spread of each weight on the array as a fraction of its tensor's range, root mean square.

    Parameters
    ----------
    by_slices : bool
        What it would be if weights with a code were slices.
    """
    conditions, spread = bench.conditions, dict[str, float]()
    known: dict[DeviceArray, Moments] = {}
    tensors = {tensor.key: tensor for tensor in bench.workload.tensors}
    for key, values in bench.held.items():
        array = tensors[key].array
        coded = bench.codes is not None and key in bench.codes.of
        if coded and by_slices:
            array = layout(
                conditions.point.profile,
                bits=conditions.bits,
                cell_bits=conditions.cell_bits,
                encoding=conditions.encoding,
            )
        if array not in known:
            known[array] = code_moments(conditions.point, array)
        if coded and not by_slices:
            spread[key] = known[array].rms(tensors[key].code.open()) / array.top
            continue
        # σ of a weight as a share of its range: of a grid that the file fixes the range is its largest code,
        # else the weights reach the top code 2^H − 1 by construction.
        if key in bench.grids:
            codes = bench.grids[key].codes
            top = largest_code(*bench.ranges[key], codes) if key in bench.ranges else int(np.abs(codes).max())
            spread[key] = known[array].rms(codes) / max(top, 1)
            continue
        spread[key] = known[array].rms(quantize(values, conditions.bits).code) / (2**conditions.bits - 1)
    return spread


def noise_by_code(bench: Bench) -> dict[str, float]:
    """Noise of each weight that has a code, relative to what it would be with slices."""
    if bench.codes is None:
        return {}
    now, before = relative_spread(bench), relative_spread(bench, by_slices=True)
    return {key: now[key] / before[key] for key in bench.codes.of if before[key] > 0}


def has_mean(bench: Bench) -> bool:
    """Whether the device moves the mean of a weight by a share of its spread that matters."""
    for tensor in bench.workload.tensors:
        moments = code_moments(bench.conditions.point, tensor.array)
        if float(np.square(moments.mean).mean()) > _MATTERS**2 * float(np.square(moments.std).mean()):
            return True
    return False
