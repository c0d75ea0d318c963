"""A fit of arrays, written as a device profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.device.fit_arrays import ArrayFit, sure
from nvaudit.device.fit_laws import FittedLaw

Doubles = NDArray[np.float64]


def fitted_profile(
    fit: ArrayFit,
    like: Mapping[str, Any],
    name: str,
    *,
    size: tuple[int, int],
    top_level: int,
    source: Mapping[str, str],
) -> dict[str, Any]:
    """Write what was found as a profile.

    Parameters
    ----------
    like : mapping
        The profile of the mapping: its window, cells and encoding hold for the new one.
    size : tuple of int
        Rows and columns of a crossbar.
    source : mapping
        Of the profile.
    """
    window = like.get("window")
    low, high = (0.0, float(top_level)) if window is None else (window["min"], window["max"])
    unit = "level" if window is None else window["unit"]
    step = (high - low) / top_level
    noise: list[dict[str, Any]] = []
    tiles = {"crossbar": list(size), "row": [1, size[1]], "column": [size[0], 1]}
    for part, one in sure(fit.components).items():
        where = {"scope": "chip"} if part == "chip" else {"scope": "tile", "tile": tiles[part]}
        law = {"kind": "constant", "value": one.value * step}
        noise.append({"kind": "shared", "name": f"of_a_{part}", "sigma": law, "unit": unit, **where})
    chosen = next(one for one in fit.laws if low < 1e-3 * high or one.spread.name != "saturating")
    noise.append(_term(chosen, low, high, step, unit))
    if fit.clip != (None, None):
        noise.append({"kind": "clip", "min": fit.clip[0], "max": fit.clip[1]})
    if fit.drift is not None:
        d = fit.drift
        mean = {
            "kind": "log",
            "slope": d.slope,
            "intercept": d.intercept,
            "of": "rel",
            "min": d.low,
            "max": d.high,
        }
        spread = {"kind": "constant", "value": d.spread.value}
        noise.append({"kind": "drift", "nu_mean": mean, "nu_std": spread, "t0_s": d.t0_s, "nu_law": "normal"})
    if fit.stuck_low.low > 0 or fit.stuck_high.low > 0:
        rates = [one.value if one.low > 0 else 0.0 for one in (fit.stuck_low, fit.stuck_high)]
        noise.append({"kind": "stuck_at", "p_low": rates[0], "p_high": rates[1]})
    if fit.read is not None:
        levels, spreads = fit.read
        degree = min(2, len(levels) - 1)
        fitted = np.polynomial.polynomial.polyfit((low + levels * step) / high, spreads * step, degree)
        read = {"kind": "polynomial", "coefficients": fitted.tolist(), "of": "rel", "min": 0.0}
        noise.append({"kind": "read", "sigma": read, "unit": unit})
    data = {
        "schema_version": 1,
        "name": name,
        "technology": like["technology"],
        "description": f"Fitted to {fit.devices} devices of {fit.crossbars} crossbars, {fit.chips} chips.",
        "source": dict(source),
        **{key: like.get(key) for key in ("cell_bits", "weight_bits", "encoding", "window")},
        "sigma": {"default": 1.0, "unit": "multiplier", "min": 0.0, "max": 4.0},
        "valid_range": "the measured chips; a multiplier other than 1 is an extrapolation",
        "noise": noise,
    }
    if fit.drift is not None:
        data["time"] = {"default_s": 0.0, "min_s": 0.0, "max_s": max(fit.drift.times)}
    return data


def _term(law: FittedLaw, low: float, high: float, step: float, unit: str) -> dict[str, Any]:
    """The noise term of a law."""
    scale = step if law.kind == "normal" else 1.0
    sigma = _as_law(law.spread.name, law.spread_parameters, scale, low, high)
    if law.kind == "normal":
        term = {"kind": "normal", "name": "programming", "sigma": sigma, "unit": unit}
        if law.shift.size:
            term["mean"] = _as_law(law.shift.name, law.shift_parameters, scale, low, high)
        else:
            sigma["min"] = 0.0
        return term
    on = "conductance" if "conductance" in law.kind else "resistance"
    preserve = "mean" if "mean" in law.kind else "median"
    return {"kind": "lognormal", "name": "programming", "sigma": sigma, "unit": "log", "on": on,
            "preserve": preserve}  # fmt: skip


def _as_law(name: str, parameters: Doubles, scale: float, low: float, high: float) -> dict[str, Any]:
    """A law of x = (g − g_min) / (g_max − g_min) as profiles write it, of g / g_max or of g."""
    numbers = parameters * scale
    if name.startswith("a number"):
        return {"kind": "levels", "values": numbers.tolist()}
    if name == "constant":
        return {"kind": "constant", "value": float(numbers[0])}
    if name == "saturating":
        return {
            "kind": "saturating",
            "amplitude": float(numbers[0]),
            "decay": float(parameters[1]),
            "of": "rel",
        }
    if low > 0:
        inner = np.polynomial.Polynomial([-low / (high - low), 1 / (high - low)])
        return {"kind": "polynomial", "coefficients": np.polynomial.Polynomial(numbers)(inner).coef.tolist(),
                "of": "g"}  # fmt: skip
    return {"kind": "polynomial", "coefficients": numbers.tolist(), "of": "rel"}
