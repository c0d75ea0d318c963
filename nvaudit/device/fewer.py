"""A device with fewer levels than were measured: the same conductances, fewer of them used."""

from __future__ import annotations

from typing import Any

import numpy as np

from nvaudit.device.profile import DeviceProfile
from nvaudit.errors import ProfileError


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
