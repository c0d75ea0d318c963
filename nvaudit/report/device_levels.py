"""What the report says about the law of each conductance level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nvaudit.report.sections import ReportPart

PROBS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the quantiles of a level."""


class DeviceLevel(ReportPart):
    """The devices that are programmed to one level."""

    level: int = Field(ge=0)
    g: float = Field(description="Conductance that is aimed at.")
    mean: float = Field(description="Conductance that the devices end up with.")
    std: float = Field(ge=0)
    quantiles: tuple[float, float, float, float, float] = Field(
        description="Of the conductance: 5, 25, 50, 75 and 95 %."
    )


class DeviceLevels(ReportPart):
    """The law of the device at the operating point, level by level; one read included."""

    unit: str = Field(description="Of the conductances: µS, nA or levels.")
    draws: int = Field(ge=1, description="Simulated devices for each level.")
    levels: tuple[DeviceLevel, ...] = Field(min_length=1)


def describe_levels(
    targets: Mapping[int, float], draws: Mapping[int, NDArray[np.float64]], unit: str
) -> DeviceLevels:
    """Sum up drawn conductances.

    Parameters
    ----------
    targets : mapping of int to float
        Conductance that each level aims at.
    draws : mapping of int to ndarray, float64, shape (device,)
        Conductances of devices of that level.
    """
    levels = []
    for level, values in draws.items():
        q = [float(value) for value in np.quantile(values, PROBS)]
        levels.append(
            DeviceLevel(
                level=level,
                g=targets[level],
                mean=float(values.mean()),
                std=float(values.std()),
                quantiles=(q[0], q[1], q[2], q[3], q[4]),
            )
        )
    return DeviceLevels(unit=unit, draws=len(next(iter(draws.values()))), levels=tuple(levels))
