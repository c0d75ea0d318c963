"""Noise terms added to a profile from the command line, without editing its file."""

from __future__ import annotations

import json
import re
from typing import Any

from nvaudit.device.load import parse_profile
from nvaudit.device.profile import DeviceProfile
from nvaudit.errors import OptionError
from nvaudit.options import CORRELATED, DEFAULT_UNIT, READ_NOISE, STUCK_AT, DeviceOptions

ADDED_TERMS = ("stuck_at", "read_noise", "correlated")
"""Options that add a term, as :func:`add_terms` takes them; the others choose the operating point."""


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
