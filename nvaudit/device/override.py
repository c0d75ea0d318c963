"""A profile as options change it, its file untouched: other cells, fewer levels, noise terms added."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import numpy as np

from nvaudit.device.load import parse_profile
from nvaudit.device.profile import DeviceProfile
from nvaudit.errors import OptionError, ProfileError
from nvaudit.options import CORRELATED, DEFAULT_UNIT, READ_NOISE, STUCK_AT, DeviceOptions, Encoding

ADDED_TERMS = ("stuck_at", "read_noise", "correlated")
"""Options that add a term, as :func:`add_terms` takes them; the others choose the operating point."""


def override_profile(
    profile: DeviceProfile,
    *,
    cell_bits: int | None = None,
    weight_bits: int | None = None,
    encoding: Encoding | None = None,
    top_slice: Literal["window", "lowest"] | None = None,
    offset_zero: Literal["lower", "upper"] | None = None,
) -> DeviceProfile:
    """Change how weights are held on a device, and check that the profile still makes sense.

    It stays the same device: with fewer levels than the profile has, a value for each level is taken at the
    same conductance, and the unit ``level`` goes on counting the spacings of the profile's own levels.

    Parameters
    ----------
    profile : DeviceProfile
        The profile to start from; it is not changed.
    cell_bits, weight_bits : int, optional
        New B and H.
    encoding : str, optional
        New encoding.
    top_slice : str, optional
        New use of the levels of a narrow top slice.
    offset_zero : str, optional
        New stored value of a zero weight.

    Returns
    -------
    DeviceProfile
        A new profile.

    Raises
    ------
    ProfileError
        For instance if a table of four levels meets a cell of three bits.
    """
    data = profile.model_dump(mode="json")
    changes = {"cell_bits": cell_bits, "weight_bits": weight_bits, "encoding": encoding,
               "top_slice": top_slice, "offset_zero": offset_zero}  # fmt: skip
    data |= {key: value for key, value in changes.items() if value is not None}
    # With more levels than the profile has, laws by level and tables lack entries: the check of the new
    # profile says so.
    if cell_bits is not None and profile.cell_bits is not None and cell_bits < profile.cell_bits:
        data["noise"] = fewer_levels(profile, cell_bits)
    if cell_bits is not None and profile.cell_bits is not None:
        # The spread of a device does not depend on how many levels one reads into its window: "level" goes
        # on counting the spacings in which it was stated.
        own = profile.level_bits or profile.cell_bits
        data["level_bits"] = None if own == cell_bits else own
        # Without a window conductance is counted in levels of the cell, and a clip's limits with it: the
        # same conductance is another number of the new levels.
        if profile.window is None:
            _rescale_clips(data["noise"], (2**cell_bits - 1) / (2**profile.cell_bits - 1))
    return parse_profile(json.dumps(data), f"profile {profile.name!r} with the options given")


def _rescale_clips(noise: list[dict[str, Any]], factor: float) -> None:
    """Keep limits where they are in a window that is 0 … 2^B − 1 for want of another."""
    for term in noise:
        if term["kind"] == "clip":
            term.update({end: term[end] * factor for end in ("min", "max") if term[end] is not None})


def fewer_levels(profile: DeviceProfile, cell_bits: int) -> list[dict[str, Any]]:
    """Give the noise terms of a profile for cells that hold fewer bits than its own.

    The window stays, so level l of 2^b lies at the conductance of entry l·(2^B − 1)/(2^b − 1) of the
    profile's 2^B entries: always an entry itself where b divides B. Between two entries a law with a value
    for each level is interpolated; a table of measurements is not, and is refused.

    Parameters
    ----------
    profile : DeviceProfile
        Not analog.
    cell_bits : int
        b, below the profile's B.

    Returns
    -------
    list of dict
        As they stand in a profile file. Laws that have no value for each level are as they were.

    Raises
    ------
    ProfileError
        If measurements are missing at one of the levels.
    """
    assert profile.cell_bits is not None
    assert cell_bits < profile.cell_bits
    top = 2**profile.cell_bits - 1
    position = np.arange(2**cell_bits) * (top / (2**cell_bits - 1))
    terms = []
    for term in profile.noise:
        data = term.model_dump(mode="json")
        if data["kind"] == "table":
            _check_measured(profile, term.name, cell_bits)
            terms.append(_fewer_rows(data, position))
        else:
            terms.append(_fewer_values(data, position))
    return terms


def _fewer_values(data: Any, position: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """Take the values of every law by level, at any depth, at these positions."""
    if not isinstance(data, dict):
        return data
    if data.get("kind") == "levels":
        values = np.asarray(data["values"], np.float64)
        return {**data, "values": np.interp(position, np.arange(len(values)), values).tolist()}
    return {key: _fewer_values(value, position) for key, value in data.items()}


def _fewer_rows(data: dict[str, Any], position: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    """Take the measured levels at these positions; in level units they count the same spacings as before."""
    picked = np.rint(position).astype(int).tolist()
    if data["levels"] is not None:
        rows = [data["levels"][old] for old in picked]
        return {**data, "levels": [{**row, "level": level} for level, row in enumerate(rows)]}
    return {**data, "samples": [data["samples"][old] for old in picked]}


def _check_measured(profile: DeviceProfile, name: str, cell_bits: int) -> None:
    assert profile.cell_bits is not None
    if profile.cell_bits % cell_bits == 0:
        return
    fits = [str(bits) for bits in range(1, profile.cell_bits + 1) if profile.cell_bits % bits == 0]
    raise ProfileError(
        f"profile {profile.name!r}: {cell_bits} bits per cell: the table {name!r} was measured at "
        f"{2**profile.cell_bits} levels, and {2**cell_bits} equally spaced ones are not among them; use "
        f"{', '.join(fits)}"
    )


def add_terms(
    profile: DeviceProfile,
    *,
    stuck_at: str | None = None,
    read_noise: str | None = None,
    correlated: str | None = None,
) -> DeviceProfile:
    """Add noise terms to a profile.

    A common component comes with the errors of programming, stuck devices after everything that moves a
    conductance, read noise last.

    Parameters
    ----------
    profile : DeviceProfile
        The profile to start from; it is not changed.
    stuck_at : str, optional
        ``P_LOW,P_HIGH``; the term ``added_stuck_at``.
    read_noise : str, optional
        ``S`` with an optional unit, such as ``0.01`` (of the full scale) or ``0.02relative``; the term
        ``added_read``.
    correlated : str, optional
        ``S``, an optional unit, and an optional scope, ``:chip``, ``:tensor`` or the size of a tile such as
        ``:128x128``; the term ``added_shared``.

    Returns
    -------
    DeviceProfile
        The same profile where nothing is added.

    Raises
    ------
    OptionError
        If a text is not what it should be.
    ProfileError
        If a term does not fit the profile.

    Examples
    --------
    >>> from nvaudit.device import load_profile
    >>> [t.name for t in add_terms(load_profile("rram"), stuck_at="0.01,0").noise]
    ['programming', 'added_stuck_at']
    """
    if stuck_at is None and read_noise is None and correlated is None:
        return profile
    data = profile.model_dump(mode="json")
    noise: list[dict[str, Any]] = data["noise"]
    if correlated is not None:
        # Behind what replaces the target (a table), before what acts on the programmed conductance.
        noise.insert(sum(term.place == "first" for term in profile.noise), _shared(correlated))
    if stuck_at is not None:
        # A device that is stuck stays so whatever came before, drift included; reading it is noisy all the
        # same.
        before_reads = len(noise) - sum(term.place == "last" for term in profile.noise)
        low, high = _groups("stuck_at", STUCK_AT, stuck_at)
        stuck = {"kind": "stuck_at", "name": "added_stuck_at", "p_low": float(low), "p_high": float(high)}
        noise.insert(before_reads, stuck)
    if read_noise is not None:
        sigma, unit = _groups("read_noise", READ_NOISE, read_noise)
        noise.append({"kind": "read", "name": "added_read", **_spread(sigma, unit)})
    return parse_profile(json.dumps(data), f"profile {profile.name!r} with the terms added")


def _groups(name: str, pattern: str, text: str) -> tuple[Any, ...]:
    match = re.fullmatch(pattern, text)
    if match is None:
        raise OptionError(DeviceOptions.refusal(name, text))
    return match.groups()


def _spread(sigma: str, unit: str | None) -> dict[str, Any]:
    return {"sigma": {"kind": "constant", "value": float(sigma)}, "unit": unit or DEFAULT_UNIT}


def _shared(text: str) -> dict[str, Any]:
    sigma, unit, scope, rows, cols = _groups("correlated", CORRELATED, text)
    where: dict[str, Any] = {"scope": scope or "chip"}
    if rows is not None:
        where = {"scope": "tile", "tile": [int(rows), int(cols)]}
    return {"kind": "shared", "name": "added_shared", **_spread(sigma, unit), **where}
